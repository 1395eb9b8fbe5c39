"""One self-contained page about a clip and everything that was made from it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from pydantic import PositiveFloat, PositiveInt

from schemas.artifact import Files
from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.labels import Kinematics, Questions
from schemas.motion import Masks
from schemas.reports import Lineage, Metrics, Report
from schemas.scenes import Scene4D
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.export.lineage_graph import draw_lineage, list_executions
from stages.export.media import data_uri, encode_within, fit_size, resize
from stages.export.novel_views import NovelPath, draw_difference, median_depth, render_path, shift_path, shown_psnr, undistort
from stages.export.page import fill_template
from stages.export.question_cards import make_cards, question_frames, sample_questions
from stages.export.report_words import make_figure_groups, make_tiles, notices, summarise
from stages.export.shown import Units, choose_frames, collect_tracks, figure
from stages.export.speed_charts import draw_speed_charts
from stages.export.top_view import draw_top_view
from stages.export.track_overlay import collect_boxes, outline_regions
from stages.export.walk_around import make_walk

_FINEST_CRF = 23
_MAX_TOP_VIEW_POINTS = 3000


@dataclass(frozen=True)
class ReportConfig:
    """What a report shows.

    Attributes:
        dataset: name of the dataset for the line on how to rebuild it; "" where it has none yet.
        max_side: longer side of the videos in pixels.
        max_frames: most frames in a video; longer clips are shown with every k-th frame, at their true times.
        max_megabytes: size of the page; the videos are compressed until it fits.
        novel_shift_m: how far to the right of its own path the camera of the novel view drives (left if negative).
        novel_sway_m: amplitude of its swaying about that.
        novel_period_s: period of the swaying.
        novel_shift_of_depth: used without a metric scale: the shift as a share of the scene's median depth; the sway
            keeps its proportion to the shift.
        max_objects: most objects in the top view and the speed charts, those with most samples first.
        questions_per_kind: sample questions of each kind.
        thumbnail_width: of the questions' pictures in pixels.
        max_player_megabytes: a scene that takes more than this is left out of the page; the videos show it all the same.
    """

    dataset: str = ""
    max_side: PositiveInt = 640
    max_frames: PositiveInt = 160
    max_megabytes: PositiveFloat = 14.0
    novel_shift_m: float = 1.0
    novel_sway_m: float = 0.5
    novel_period_s: float = 4.0
    novel_shift_of_depth: float = 0.05
    max_objects: int = 12
    questions_per_kind: int = 3
    thumbnail_width: PositiveInt = 320
    max_player_megabytes: PositiveFloat = 4.0


@stage("export.report", version=2)
def write_report(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    masks: Masks,
    scene: Scene4D,
    tracks: Tracks,
    kinematics: Kinematics,
    questions: Questions,
    fit_metrics: Metrics,
    pose_metrics: Metrics,
    label_metrics: Metrics,
    lineage: Lineage,
    config: ReportConfig,
    *,
    checkpoints: Path,
    seed: int,
    progress: Progress,
) -> Report:
    """Write "report.html": videos, drawings, tables and scripts in one file that needs no network.

    Args:
        clip: the frames.
        path: where the camera was.
        points: the static scene's points, faintly drawn in the top view.
        ground: only whether it was found is told.
        masks: outlined over the clip.
        scene: rendered from the camera's own and from a novel path.
        tracks: boxes over the clip, positions in the top view.
        kinematics: speeds.
        questions: of which some are shown with their frames.
        fit_metrics: figures of the reconstruction.
        pose_metrics: figures of the path against truth; no rows where there is no truth.
        label_metrics: figures of the labels against truth; no rows where there is no truth.
        lineage: the executions that made all this.
        config: what to show.
        checkpoints: private folder; the page lies there until it is recorded.
        seed: not used, nothing here is random.
        progress: counts rendered frames.
    """
    del seed
    frames = choose_frames(len(clip.times_s), config.max_frames)
    size = fit_size(*clip.size, config.max_side)
    camera, objects = collect_tracks(tracks, kinematics)
    shown, units = objects[: config.max_objects], Units(kinematics.scale_source != "none")
    sampled = sample_questions(questions, config.questions_per_kind)
    pictures = _pick_frames(clip, {int(frame) for frame in frames} | set(question_frames(sampled, len(clip.times_s))))
    clip_frames = np.stack([resize(pictures[int(frame)], size) for frame in frames])
    player = make_walk(clip, path, scene, size, config.max_player_megabytes)
    room = config.max_megabytes * 1e6 - len(player.html)
    panels, psnr_db = _make_panels(clip_frames, frames, path, points, scene, room, config, checkpoints, progress)

    top_view, moving = draw_top_view(path, points, shown, frames, Units(path.metric), _MAX_TOP_VIEW_POINTS)
    charts, readouts = draw_speed_charts([camera, *shown], _duration(clip), kinematics.grid_s, units)
    state = {
        **_shown_moments(clip, frames),
        "boxes": collect_boxes(
            objects, frames, clip.times_s, units, kinematics.grid_s, (size[0] / clip.size[0], size[1] / clip.size[1])
        ),
        "regions": outline_regions(masks, frames, size),
        "top": moving,
        "speeds": readouts,
        "grid": kinematics.grid_s,
        "unit": units.speed,
    }
    page = fill_template(
        "report.html",
        script=Markup((Path(__file__).parent / "report.js").read_text(encoding="utf-8")),
        title=clip.name,
        dataset=config.dataset,
        summary=summarise(clip, path, tracks, questions),
        tiles=make_tiles(clip, path, tracks, questions, fit_metrics, psnr_db),
        notices=notices(path, ground, tracks, questions, bool(pose_metrics.figures.num_rows or label_metrics.figures.num_rows)),
        panels=panels,
        player=player,
        size=size,
        frames_shown=(len(frames), len(clip.times_s)),
        path=path,
        units=units,
        objects=shown,
        hidden_objects=len(objects) - len(shown),
        has_world_tracks=any(row["x"] is not None for item in shown for row in item.samples.values()),
        top_view=top_view,
        charts=charts,
        groups=make_cards(sampled, questions, objects, pictures, clip.times_s, config.thumbnail_width),
        rejections=sorted(questions.rejections.to_pylist(), key=lambda row: (row["kind"], -row["count"], row["reason"])),
        figures=make_figure_groups(fit_metrics, pose_metrics, label_metrics),
        state=_script_json(state),
        **_lineage_parts(lineage),
    )
    file = checkpoints / "report.html"
    file.write_text(page, encoding="utf-8")
    return Report(files=Files({"report.html": file}))


def _duration(clip: Clip) -> float:
    return float(clip.times_s[-1] - clip.times_s[0])


def _shown_moments(clip: Clip, frames: np.ndarray) -> dict[str, list]:
    """Return what the page's script knows of the frames: their times from the clip's start in seconds, and indices."""
    times = [round(float(clip.times_s[frame] - clip.times_s[0]), 4) for frame in frames]
    return {"times": times, "frames": [int(frame) for frame in frames]}


def _lineage_parts(lineage: Lineage) -> dict[str, Any]:
    executions = list_executions(lineage)
    made = [row for item in executions for row in item["outputs"]]
    return {
        "lineage": draw_lineage(executions) if executions else None,
        "executions": [item for item in executions if item["stage"]],
        "scene_digest": next((row["digest"] for row in made if row["kind"] == "Scene4D"), ""),
    }


def _script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _pick_frames(clip: Clip, wanted: set[int]) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
    return {index: frame for index, frame in enumerate(clip.frames) if index in wanted}


def _make_panels(
    clip_frames: UInt8[np.ndarray, "T h w 3"],
    frames: np.ndarray,
    path: CameraPath,
    points: PointCloud,
    scene: Scene4D,
    room: float,
    config: ReportConfig,
    folder: Path,
    progress: Progress,
) -> tuple[list[dict[str, str]], float | None]:
    """Return the videos with their captions, and the PSNR of the reconstruction over the shown frames."""
    size = (clip_frames.shape[2], clip_frames.shape[1])
    times_s = path.times_s[frames]
    videos: dict[str, tuple[Iterable[UInt8[np.ndarray, "h w 3"]], str, str]] = {
        "clip": (clip_frames, "Clip", "What the camera saw.")
    }
    psnr_db = None
    posed = path.registered[frames]
    if len(scene.means) and posed.any():
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(done, 2 * len(frames), "rendering")

        own = np.stack(list(render_path(scene, path, path.world_from_camera, frames, size, tick)))
        straight = np.stack([undistort(frame, path) for frame in clip_frames])
        psnr_db = shown_psnr(straight, own, posed)
        novel = _novel_path(path, points, config)
        beside = np.stack(list(render_path(scene, path, novel.world_from_camera, frames, size, tick)))
        videos["own"] = (
            own,
            "Reconstruction, same path",
            f"The 4D scene drawn from the solved poses: {psnr_db:.1f} dB against the clip at {size[0]} by {size[1]} pixels.",
        )
        videos["novel"] = (beside, "Reconstruction, novel path", _novel_caption(novel, path))
        videos["difference"] = (
            np.stack([draw_difference(*pair) for pair in zip(straight, own, posed, strict=True)]),
            "Where clip and reconstruction differ",
            "Mean absolute colour difference: black is none, the brightest yellow 64 of 255 or more.",
        )
    budget = room * 0.75 - 1.2e6  # base64 takes a third more; the rest of the page is about a megabyte
    files = encode_within(budget, {name: content for name, (content, _, _) in videos.items()}, times_s, folder, _FINEST_CRF)
    panels = [
        {"id": name, "title": title, "caption": caption, "src": data_uri(files[name].read_bytes(), "video/mp4")}
        for name, (_, title, caption) in videos.items()
    ]
    return panels, psnr_db


def _novel_path(path: CameraPath, points: PointCloud, config: ReportConfig) -> NovelPath:
    shift, sway = config.novel_shift_m, config.novel_sway_m
    if not path.metric:
        unit = config.novel_shift_of_depth * (median_depth(path, points) or 1.0)
        shift, sway = float(np.sign(shift) or 1.0) * unit, unit * abs(sway / shift) if shift else unit
    return shift_path(path, shift, sway, config.novel_period_s)


def _novel_caption(novel: NovelPath, path: CameraPath) -> str:
    side = "right" if novel.shift >= 0 else "left"
    unit = Units(path.metric).length
    return (
        f"A path that the camera never took: {figure(abs(novel.shift), 2)} {unit} to the {side} of its own, "
        f"swaying by ± {figure(novel.sway, 2)} {unit} every {figure(novel.period_s, 2)} s."
    )
