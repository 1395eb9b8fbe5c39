"""Stages `ingest.shots` and `ingest.shot`: a clip is cut where its video is, and each shot is a clip of its own.

One camera path, one 4D scene and one set of tracks belong to one shot: across a cut nothing continues.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from schemas.artifact import rows_to_table
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.shots import SHOTS, Shots
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.cuts import Cut, find_cuts, small_pictures

_GPS_MARGIN_S = 2.0  # fixes come once a second: those around a shot's ends say where it begins and stops


@dataclass(frozen=True)
class ShotsConfig:
    """How cuts are found.

    Attributes:
        suspect_ratio: a step between frames is looked at from this many times the steps around it on,
        suspect_levels: and from this mean difference in grey levels on.
        fewest_links: SIFT features that must agree for two frames to show one scene.
        longest_interval_s: frames further apart than this (their median) are photos, which are never cut.
        min_frames: shorter shots are named, and not worked on.
    """

    suspect_ratio: PositiveFloat = 1.5
    suspect_levels: PositiveFloat = 4.0
    fewest_links: PositiveInt = 12
    longest_interval_s: PositiveFloat = 0.5
    min_frames: PositiveInt = 8


@dataclass(frozen=True)
class ShotConfig:
    """Which shot is wanted.

    Attributes:
        index: its place among those that are worked on, from 0.
    """

    index: NonNegativeInt = 0


@stage("ingest.shots", version=1, environment_packages=("opencv-python-headless",))
def find_shots(clip: Clip, config: ShotsConfig, *, seed: int, progress: Progress) -> Shots:
    """Find where a clip is cut (`stages.ingest.cuts`); a clip without cuts is one shot. At least one shot is kept."""
    count = len(clip.frames)
    cuts: list[Cut] = []
    if count >= 4 and float(np.median(np.diff(clip.times_s))) <= config.longest_interval_s:
        thumbs = small_pictures(clip.frames)
        cuts = find_cuts(clip.frames, thumbs, clip.times_s, config.suspect_ratio, config.suspect_levels, config.fewest_links)
    starts, ends = [0, *(cut.frame for cut in cuts)], [*(cut.frame for cut in cuts), count]
    lengths = np.subtract(ends, starts)
    fewest = min(config.min_frames, int(lengths.max()))
    progress(1, 1, f"{len(starts)} shot{'s' if cuts else ''}")
    return Shots(
        shots=rows_to_table(
            SHOTS,
            [
                {
                    "start_frame": start,
                    "end_frame": end,
                    "start_s": float(clip.times_s[start]) if count else 0.0,
                    "opens_with": cuts[number - 1].kind if number else "clip",
                    "evidence": cuts[number - 1].evidence if number else "",
                    "kept": end - start >= fewest,
                }
                for number, (start, end) in enumerate(zip(starts, ends, strict=True))
            ],
        )
    )


@stage("ingest.shot", version=1)
def take_shot(clip: Clip, truth: Truth, shots: Shots, config: ShotConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth]:
    """Return one shot as a clip whose times start at zero, with the truth of its frames.

    Raises:
        WorldlineError: if there is no such shot.
    """
    kept = [row for row in shots.shots.to_pylist() if row["kept"]]
    if config.index >= len(kept):
        raise WorldlineError(f"ingest.shot.index={config.index}: {clip.name} has {len(kept)} shots, counted from 0")
    start, end = kept[config.index]["start_frame"], kept[config.index]["end_frame"]
    first_s, last_s = float(clip.times_s[start]), float(clip.times_s[end - 1])
    shot = dataclasses.replace(
        clip,
        frames=_part(clip.frames, start, end),
        times_s=clip.times_s[start:end] - first_s,
        name=f"{clip.name} shot {config.index + 1}",
        epoch_ns=None if clip.epoch_ns is None else clip.epoch_ns + round(first_s * 1e9),
        gps=None if clip.gps is None else _fixes_around(clip.gps, first_s, last_s),
        provenance=clip.provenance | {"shot": config.index, "shot_start_frame": start, "shot_end_frame": end},
    )
    progress(1, 1, f"frames {start} to {end - 1}")
    return shot, _truth_of(truth, start, end, first_s) if truth.available else truth


def _part(video: Video, start: int, end: int) -> Video:
    return Video.from_array(video.at(range(start, end)))


def _fixes_around(gps: pa.Table, first_s: float, last_s: float) -> pa.Table:
    times = gps["time_s"]
    near = pc.and_(pc.greater_equal(times, first_s - _GPS_MARGIN_S), pc.less_equal(times, last_s + _GPS_MARGIN_S))
    return _shifted(gps.filter(near), "time_s", first_s)


def _truth_of(truth: Truth, start: int, end: int, first_s: float) -> Truth:
    frames = truth.boxes["frame"]
    inside = truth.boxes.filter(pc.and_(pc.greater_equal(frames, start), pc.less(frames, end)))
    return dataclasses.replace(
        truth,
        world_from_camera=truth.world_from_camera[start:end],
        annotated=truth.annotated[start:end],
        boxes=_shifted(_shifted(inside, "time_s", first_s), "frame", start),
        instances=None if truth.instances is None else _part(truth.instances, start, end),
        depth_2mm=None if truth.depth_2mm is None else _part(truth.depth_2mm, start, end),
    )


def _shifted(table: pa.Table, column: str, by: float) -> pa.Table:
    """Return a table with a number taken off one of its columns."""
    place = table.schema.get_field_index(column)
    kind = table.schema.field(column).type
    return table.set_column(place, table.schema.field(column), pc.subtract(table[column], pa.scalar(by, kind)))
