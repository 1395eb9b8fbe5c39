"""The sentences, tiles and tables of a report."""

from typing import Any

import numpy as np

from schemas.cameras import CameraPath, GroundPlane
from schemas.clips import Clip
from schemas.labels import Questions
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.export.shown import Units, figure, scale_words

_VERDICTS = {
    "static": "The camera stood still, as on a tripod. Without parallax depth cannot be measured, so objects are followed in the "
    "image only, and questions ask for nothing that needs metres.",
    "rotation": "The camera turned without moving. Without parallax depth cannot be measured, so objects are followed in the "
    "image only, and questions ask for nothing that needs metres.",
    "textureless": "The frames show too little texture to match one with another, so the camera's path could not be solved. "
    "Objects are followed in the image where that was possible.",
    "failed": "The camera's path could not be solved from these frames. What follows is what can be said without it.",
}


def notices(path: CameraPath, ground: GroundPlane, tracks: Tracks, questions: Questions, truth: bool) -> list[str]:
    """Return one sentence for everything that a reader could otherwise miss or take for more than it is."""
    said = [_VERDICTS[path.verdict]] if path.verdict in _VERDICTS else []
    missing = len(path.registered) - int(path.registered.sum())
    if path.verdict == "moving" and missing:
        said.append(f"{missing} of {len(path.registered)} frames could not be registered: they have no pose and are shown grey.")
    if not path.metric:
        said.append(
            "There is no metric scale: nothing in the clip says how long a metre is. Lengths are in scene units, the same "
            "throughout this page; ratios and directions are meaningful, metres and km/h are not given."
        )
    if path.gravity_source == "none":
        said.append("The direction of gravity is unknown, so the top view looks along the camera's own vertical.")
    if not ground.found and path.verdict == "moving":
        said.append("No ground plane was found, so objects have no position in the world, only in the image.")
    if not tracks.objects.num_rows:
        said.append("No moving object was found in this clip.")
    if not questions.rows.num_rows:
        said.append("No question could be asked whose answer would be certain enough; the reasons are listed below.")
    if not truth:
        said.append("No ground truth came with this clip, so nothing on this page has been compared with truth.")
    return said


def summarise(clip: Clip, path: CameraPath, tracks: Tracks, questions: Questions) -> str:
    """Return the clip and what was made of it in one sentence."""
    facts, (width, height) = path.facts(), clip.size
    length = facts.get("path_length_m", facts.get("path_length_scene_units", 0.0))
    units = Units(path.metric)
    duration = float(clip.times_s[-1] - clip.times_s[0])
    if path.verdict == "moving":
        solved = f"solved in {facts['registered']} of {facts['frames']} frames"
        camera = f"a camera that travelled {figure(length)} {units.length}, {solved}"
    else:
        camera = {"static": "a camera that stood still", "rotation": "a camera that only turned"}.get(
            path.verdict, "a camera whose path could not be solved"
        )
    found = _count(tracks.objects.num_rows, "object")
    asked = _count(questions.rows.num_rows, "question")
    return (
        f"{duration:.1f} seconds of video, {width} by {height} pixels, from {camera}; "
        f"{found} followed through it, and {asked} with answers made from their motion."
    )


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def make_tiles(
    clip: Clip, path: CameraPath, tracks: Tracks, questions: Questions, fit_metrics: Metrics, psnr_db: float | None
) -> list[dict[str, str]]:
    """Return the key figures: value, unit, name and what it means."""
    facts, units = path.facts(), Units(path.metric)
    length = facts.get("path_length_m", facts.get("path_length_scene_units", 0.0))
    spacing = float(np.median(np.diff(clip.times_s)))
    duration = float(clip.times_s[-1] - clip.times_s[0])
    quality = _fit_psnr(fit_metrics)
    if quality is None and psnr_db is not None:
        quality = psnr_db, "mean over the frames shown below"
    return [
        _tile("Frames", figure(len(clip.times_s)), "", f"every {1000 * spacing:.0f} ms"),
        _tile("Duration", f"{duration:.1f}", "s", f"{len(clip.times_s) / max(duration + spacing, 1e-9):.3g} frames per second"),
        _tile("Registered", figure(facts["registered"]), f"of {facts['frames']}", _how_solved(path)),
        _tile("Camera path", figure(length), units.length, f"reprojection error {facts['reprojection_error_px']:.2f} px"),
        _tile(
            "Metric scale",
            scale_words(path.scale_source),
            f"± {100 * path.scale_sigma:.1f} %" if path.metric else "",
            "where metres come from, one standard deviation" if path.metric else "lengths are in scene units",
        ),
        _tile("Objects", figure(tracks.objects.num_rows), "", f"{figure(tracks.samples.num_rows)} samples of moving objects"),
        _tile("Questions", figure(questions.rows.num_rows), "", f"of {_kinds(questions)}, each with its answer"),
        _tile("PSNR", f"{quality[0]:.1f}" if quality else "none", "dB" if quality else "", quality[1] if quality else "no scene"),
    ]


def _how_solved(path: CameraPath) -> str:
    repeats = path.facts().get("repeated_frames", 0)
    told = "frames with a camera pose" + (f", by {path.strategy.partition(' (')[0]}" if path.strategy else "")
    return told + (f"; {figure(repeats)} repeat the frame before" if repeats else "")


def _tile(name: str, value: str, unit: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "unit": unit, "detail": detail}


def _kinds(questions: Questions) -> str:
    return _count(len(set(questions.rows.column("kind").to_pylist())), "kind")


def _fit_psnr(fit_metrics: Metrics) -> tuple[float, str] | None:
    """Return the fit's own PSNR figure, that of frames which the fit did not see where there is one."""
    rows = [row for row in fit_metrics.figures.to_pylist() if "psnr" in row["name"].lower() and np.isfinite(row["value"])]
    if not rows:
        return None
    best = next((row for row in rows if any(word in row["name"] for word in ("held", "test", "unseen", "novel"))), rows[0])
    return best["value"], best["detail"] or best["name"]


def make_figure_groups(fit_metrics: Metrics, pose_metrics: Metrics, label_metrics: Metrics) -> list[dict[str, Any]]:
    """Return every metric, grouped by what was measured, with what to say where there is none."""
    without = "No ground truth came with this clip, so there is nothing to compare with."
    groups = (
        ("Reconstruction", fit_metrics, "No scene was fitted."),
        ("Camera path against truth", pose_metrics, without),
        ("Labels against truth", label_metrics, without),
    )
    return [
        {
            "name": name,
            "empty": empty,
            "rows": [
                {**row, "value": "none" if row["value"] is None else figure(row["value"], 4)}
                for row in metrics.figures.to_pylist()
            ],
        }
        for name, metrics, empty in groups
    ]
