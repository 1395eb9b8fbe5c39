"""Stage `export.driving_report`: one self-contained page about a log and the trajectories that nobody drove."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import PositiveFloat, PositiveInt

from schemas.artifact import Files
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import Conditions, RoadMap, Trajectory
from schemas.reports import Lineage, Metrics, Report
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.export.lineage_graph import draw_lineage, list_executions
from stages.export.media import data_uri, encode_within, fit_size, resize
from stages.export.page import fill_template
from stages.export.trajectory_view import draw_trajectories
from stages.label.detect_vehicles import knows_streets_of

_FINEST_CRF = 20
_BOX_RGB, _ROAD_RGB = np.array([255, 176, 46]), np.array([63, 224, 240])
# Figures that need somebody who knows what filmed streets look like, and why nobody may have been asked.
_OURS = "the package's own network knows procedural streets alone"
_JUDGED = {
    "driving.condition_obedience_m": f"takes boxes in view and a detector named in label.obedience.model: {_OURS}",
    "driving.nta_iou": f"takes boxes in view and a detector named in reconstruct.evaluate_novel.model: {_OURS}",
    "driving.ntl_iou_lane": f"no segmenter of filmed lane lines is at hand: {_OURS}",
}
_SEEN = 0.3  # share of an object that must be in view for its box to be drawn


@dataclass(frozen=True)
class DrivingReportConfig:
    """What the page shows.

    Attributes:
        dataset: name of the dataset for the line on how to rebuild it; "" where it has none yet.
        width: of the videos in pixels; smaller frames are enlarged.
        max_megabytes: size of the page; the videos are compressed until it fits.
    """

    dataset: str = ""
    width: PositiveInt = 480
    max_megabytes: PositiveFloat = 14.0


@stage("export.driving_report", version=1)
def write_driving_report(
    clip: Clip,
    path: CameraPath,
    tracks: Tracks,
    recorded: Trajectory,
    road_map: RoadMap,
    fit_metrics: Metrics,
    trajectories: tuple[Trajectory, ...],
    conditions: tuple[Conditions, ...],
    generated: tuple[Clip, ...],
    drawn: tuple[Clip, ...],
    novel_tracks: tuple[Tracks, ...],
    metrics: tuple[Metrics, ...],
    lineage: Lineage,
    config: DrivingReportConfig,
    *,
    checkpoints: Path,
    seed: int,
    progress: Progress,
) -> Report:
    """Write "report.html": per trajectory what was recorded, told, generated and drawn, side by side at the same times.

    Args:
        clip: recorded frames.
        path: their cameras.
        tracks: the log's boxes.
        recorded: where the ego drove.
        road_map: lines and areas of the road.
        fit_metrics: figures of the reconstruction.
        trajectories: all that were asked for, accepted or not.
        conditions: of the accepted ones, in the same order; so are the next three.
        generated: frames that the world model made.
        drawn: frames of the fitted scene.
        novel_tracks: boxes as the novel path sees them.
        metrics: figures of every accepted trajectory, as many for each.
        lineage: the executions that made all this.
        config: what to show.
        checkpoints: private folder; the page lies there until it is recorded.
        seed: not used, nothing here is random.
        progress: counts videos.
    """
    del seed
    accepted = [item for item in trajectories if item.accepted]
    size = _shown_size(clip, config.width)
    videos: dict[str, UInt8[np.ndarray, "T h w 3"]] = {"recorded": _sized(clip.frames.array(), size)}
    for number, told in enumerate(conditions):
        videos[f"told-{number}"] = _sized(_told(told), size)
        videos[f"generated-{number}"] = _sized(generated[number].frames.array(), size)
        videos[f"drawn-{number}"] = _boxed(_sized(drawn[number].frames.array(), size), novel_tracks[number], path)
    budget = config.max_megabytes * 0.75e6 - 6e5  # base64 takes a third more; the rest of the page is half a megabyte
    written = encode_within(
        budget, videos, clip.times_s, checkpoints, _FINEST_CRF, lambda done: progress(done, len(videos), "videos")
    )
    files = {name: data_uri(file.read_bytes(), "video/mp4") for name, file in written.items()}
    executions = list_executions(lineage)
    page = fill_template(
        "driving_report.html",
        title=clip.name,
        dataset=config.dataset,
        tiles=_tiles(trajectories, generated, metrics, fit_metrics),
        size=size,
        recorded=files["recorded"],
        sections=[
            {
                "name": _spoken(item),
                "text": conditions[number].text,
                "told": files[f"told-{number}"],
                "generated": files[f"generated-{number}"],
                "drawn": files[f"drawn-{number}"],
                "prior": conditions[number].prior_source,
                "figures": _judged(clip, _own(metrics, number, len(accepted))),
            }
            for number, item in enumerate(accepted)
        ],
        decisions=[_decision(item) for item in trajectories],
        top_view=draw_trajectories(recorded, trajectories, tracks, road_map),
        figures=fit_metrics.figures.to_pylist(),
        lineage=draw_lineage(executions) if executions else None,
        executions=[item for item in executions if item["stage"]],
    )
    file = checkpoints / "report.html"
    file.write_text(page, encoding="utf-8")
    return Report(files=Files({"report.html": file}))


def _shown_size(clip: Clip, width: int) -> tuple[int, int]:
    """Return an even size of the clip's shape: small frames are enlarged, because people look at them."""
    height = width * clip.size[1] / clip.size[0]
    return fit_size(width, round(height), max(width, round(height)))


def _sized(frames: UInt8[np.ndarray, "T H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "T h w 3"]:
    return np.stack([resize(frame, size) for frame in frames])


def _told(conditions: Conditions) -> UInt8[np.ndarray, "T H W 3"]:
    """Return the prior with boxes and lines of the road over it; black where the model is told nothing."""
    prior, boxes, road = (item.array().astype(np.float32) for item in (conditions.prior, conditions.boxes, conditions.road))
    for canvas, colour in ((road, _ROAD_RGB), (boxes, _BOX_RGB)):
        strength = 0.6 * canvas.max(axis=-1, keepdims=True) / 255
        prior = (1 - strength) * prior + strength * colour
    return np.rint(prior).astype(np.uint8)


def _boxed(frames: UInt8[np.ndarray, "T h w 3"], tracks: Tracks, path: CameraPath) -> UInt8[np.ndarray, "T h w 3"]:
    """Return frames with the outlines of the boxes that are mostly in view."""
    frames = frames.copy()
    across, down = frames.shape[2] / path.width, frames.shape[1] / path.height
    columns = ("frame", "x0_px", "y0_px", "x1_px", "y1_px", "visible")
    for frame, x0, y0, x1, y1, visible in zip(*(tracks.samples[name].to_pylist() for name in columns), strict=True):
        if x0 is None or (visible is not None and visible < _SEEN):
            continue
        low, high = (round(x0 * across), round(y0 * down)), (round(x1 * across), round(y1 * down))
        cv2.rectangle(frames[frame], low, high, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.rectangle(frames[frame], low, high, _BOX_RGB.tolist(), 1, cv2.LINE_AA)
    return frames


def _spoken(trajectory: Trajectory) -> str:
    words = trajectory.manoeuvre.replace("_", " ")
    rows = trajectory.checks
    if not rows.num_rows:
        return words
    name = "left_m" if trajectory.manoeuvre.startswith("lane") else "forward_m"
    return f"{words}, {abs(rows[name][-1].as_py()):.1f} m"


def _decision(trajectory: Trajectory) -> dict[str, Any]:
    """Return a row of the table of trajectories."""
    checks = trajectory.checks
    left, forward, clearance = (checks[name].drop_null().to_numpy() for name in ("left_m", "forward_m", "clearance_m"))
    known = checks["on_road"].drop_null()
    return {
        "name": trajectory.name,
        "accepted": trajectory.accepted,
        "reason": trajectory.reason,
        "left": float(left[-1]) if len(left) else 0.0,
        "forward": float(forward[-1]) if len(forward) else 0.0,
        "clearance": float(clearance.min()) if len(clearance) else None,
        "on_road": bool(all(known.to_pylist())) if len(known) else None,
    }


def _tiles(
    trajectories: tuple[Trajectory, ...], generated: tuple[Clip, ...], metrics: tuple[Metrics, ...], fit: Metrics
) -> list[dict[str, str]]:
    figures = {row["name"]: row for row in fit.figures.to_pylist()}
    tiles = [
        {
            "name": "Novel trajectories",
            "value": f"{sum(item.accepted for item in trajectories)} of {len(trajectories)}",
            "unit": "",
            "detail": "were safe to drive",
        },
        {
            "name": "Generated frames",
            "value": str(sum(len(item.frames) for item in generated)),
            "unit": "",
            "detail": str(generated[0].provenance.get("generator", "")) if generated else "none",
        },
    ]
    if held_out := figures.get("reconstruct.heldout_psnr_db"):
        tiles.append(
            {
                "name": "Recorded path",
                "value": f"{held_out['value']:.1f}",
                "unit": "dB",
                "detail": f"PSNR of {held_out['detail']}",
            }
        )
    obeyed = [row for part in metrics for row in part.figures.to_pylist() if row["name"] == "driving.condition_obedience_m"]
    if obeyed:
        mean = float(np.mean([row["value"] for row in obeyed]))
        detail = "median distance of generated vehicles from where their boxes say they are"
        tiles.append({"name": "Traffic obeys", "value": f"{mean:.2f}", "unit": "m", "detail": detail})
    return tiles


def _judged(clip: Clip, metrics: tuple[Metrics, ...]) -> list[dict[str, Any]]:
    """Return the figures of one trajectory, on a filmed log with those that nobody was there to judge, without a value."""
    rows = [row for part in metrics for row in part.figures.to_pylist()]
    if knows_streets_of(clip):
        return rows
    known = {row["name"] for row in rows}
    return rows + [
        {"name": name, "value": None, "unit": "", "detail": detail} for name, detail in _JUDGED.items() if name not in known
    ]


def _own(metrics: tuple[Metrics, ...], number: int, count: int) -> tuple[Metrics, ...]:
    """Return the figures of one trajectory: there are as many artifacts for each."""
    each = len(metrics) // max(count, 1)
    return metrics[number * each : (number + 1) * each]
