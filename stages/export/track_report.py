"""Stage `export.track_report`: one self-contained page about an annotated log and what was labelled in it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveInt

from schemas.artifact import Files
from schemas.cameras import CameraPath, PointCloud
from schemas.labels import EGO_TRACK_ID, Kinematics, Questions
from schemas.reports import Lineage, Metrics, Report
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.export.lineage_graph import draw_lineage, list_executions
from stages.export.page import fill_template
from stages.export.question_cards import make_cards, sample_questions
from stages.export.shown import Units, collect_tracks, figure
from stages.export.speed_charts import draw_speed_charts
from stages.export.top_view import draw_top_view


@dataclass(frozen=True)
class TrackReportConfig:
    """What the page shows.

    Attributes:
        dataset: name of the dataset for the line on how to rebuild it; "" where it has none yet.
        max_objects: most objects in the top view and the speed charts, those with most samples first.
        questions_per_kind: sample questions of each kind.
    """

    dataset: str = ""
    max_objects: PositiveInt = 40
    questions_per_kind: PositiveInt = 2


@stage("export.track_report", version=1)
def write_track_report(
    path: CameraPath,
    tracks: Tracks,
    track_metrics: Metrics,
    kinematics: Kinematics,
    questions: Questions,
    lineage: Lineage,
    config: TrackReportConfig,
    *,
    checkpoints: Path,
    seed: int,
    progress: Progress,
) -> Report:
    """Write "report.html": the tracks from above, speeds, some questions, what was dropped and why others were not asked.

    Args:
        path: where the log's own car was, if it has one.
        tracks: positions in the top view.
        track_metrics: counts of what was wrong with the log.
        kinematics: speeds, and why windows were rejected.
        questions: of which some are shown.
        lineage: the executions that made all this.
        config: what to show.
        checkpoints: private folder; the page lies there until it is recorded.
        seed: not used, nothing here is random.
        progress: not used.
    """
    del seed, progress
    camera, shown = collect_tracks(*_largest(tracks, kinematics, config.max_objects))
    camera = replace(camera, name="The log's own car")
    frames = np.arange(len(path.times_s))
    duration = float(path.times_s[-1] - path.times_s[0]) if len(path.times_s) else 0.0
    units = Units(kinematics.scale_source != "none")
    top_view, _ = draw_top_view(path, PointCloud.none(), shown, frames, units, 0)
    charts, _ = draw_speed_charts([camera, *shown], duration, kinematics.grid_s, units)
    figures = {row["name"]: row for row in track_metrics.figures.to_pylist()}
    rejected = _counted(kinematics.windows["rejected"].drop_null())
    executions = list_executions(lineage)
    page = fill_template(
        "track_report.html",
        title=str((tracks.provenance or {}).get("log") or "Annotated tracks"),
        dataset=config.dataset,
        summary=_summarise(figures, tracks, path, duration),
        tiles=_tiles(figures, kinematics, questions, sum(count for _, count in rejected)),
        dropped=[_shown(row) for name, row in figures.items() if name.startswith("tracks.dropped.") and row["value"]],
        found=[_shown(row) for name, row in figures.items() if not name.startswith("tracks.dropped.") and row["value"]],
        top_view=top_view,
        has_car=bool(path.registered.any()),
        objects=shown,
        hidden_objects=tracks.objects.num_rows - len(shown),
        charts=charts,
        units=units,
        groups=make_cards(sample_questions(questions, config.questions_per_kind), questions, shown, {}, path.times_s, 1),
        windows_rejected=rejected,
        rejections=sorted(questions.rejections.to_pylist(), key=lambda row: (row["kind"], -row["count"], row["reason"])),
        lineage=draw_lineage(executions) if executions else None,
    )
    file = checkpoints / "report.html"
    file.write_text(page, encoding="utf-8")
    return Report(files=Files({"report.html": file}))


def _largest(tracks: Tracks, kinematics: Kinematics, most: int) -> tuple[Tracks, Kinematics]:
    """Return the objects with most samples, and their motion and the camera's: a log may have thousands of others."""
    order = np.lexsort((tracks.objects["track_id"].to_numpy(), -tracks.objects["samples"].to_numpy()))[:most]
    objects = tracks.objects.take(pa.array(order))
    ids = objects["track_id"].combine_chunks()
    with_camera = pa.array([EGO_TRACK_ID, *ids.to_pylist()], pa.int32())
    samples = tracks.samples.filter(pc.is_in(tracks.samples["track_id"], ids))
    states = kinematics.states.filter(pc.is_in(kinematics.states["track_id"], with_camera))
    return replace(tracks, objects=objects, samples=samples), replace(kinematics, states=states)


def _summarise(figures: dict[str, dict[str, Any]], tracks: Tracks, path: CameraPath, duration: float) -> str:
    """Return in two sentences what was read, and what became of every row."""
    rows, samples = (int(figures[name]["value"]) if name in figures else 0 for name in ("tracks.rows", "tracks.samples"))
    dropped = int(sum(row["value"] for name, row in figures.items() if name.startswith("tracks.dropped.")))
    source = (tracks.provenance or {}).get("format", "")
    return (
        f"{figure(tracks.objects.num_rows)} objects followed through {figure(len(path.times_s))} frames of {duration:.1f} seconds"
        f"{f', read as {source}' if source else ''}. Of {figure(rows)} rows {figure(samples)} became samples of a track, and "
        f"{figure(dropped)} were dropped for the reasons below."
    )


def _tiles(
    figures: dict[str, dict[str, Any]], kinematics: Kinematics, questions: Questions, rejected: int
) -> list[dict[str, str]]:
    windows = kinematics.windows.num_rows
    words = kinematics.windows["state"].filter(pc.is_null(kinematics.windows["rejected"]))
    moving = pc.sum(pc.equal(words, "moving")).as_py() or 0
    refused = pc.sum(questions.rejections["count"]).as_py() or 0
    breaks = figures.get("tracks.identity_breaks", {"value": 0})["value"]
    return [
        {"name": name, "value": figure(value), "unit": "", "detail": detail}
        for name, value, detail in (
            ("Windows", windows, f"of a track each, {figure(rejected)} of them rejected"),
            ("Moving", moving, "of the windows that stand"),
            ("Questions", questions.rows.num_rows, f"asked, of {figure(questions.rows.num_rows + refused)} candidates"),
            ("Identity breaks", breaks, "tracks that jumped and were cut there"),
        )
    ]


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {"name": row["name"].split(".", 1)[1], "value": figure(row["value"]), "unit": row["unit"], "detail": row["detail"]}


def _counted(words: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Return words and how often each occurs, the most frequent first."""
    found = [(row["values"], row["counts"]) for row in pc.value_counts(words).to_pylist()]
    return sorted(found, key=lambda item: (-item[1], item[0]))
