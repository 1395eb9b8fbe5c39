"""Which recorded frame each generated one is a cousin of."""

import numpy as np
import pytest

from schemas.artifact import rows_to_table
from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.driving import TRAJECTORY_CHECKS, Trajectory
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import no_progress
from stages.label.cousin_links import CousinLinksConfig, link_cousins


def clip(frames: int, shade: int, **provenance) -> Clip:
    pictures = np.full((frames, 8, 8, 3), shade, np.uint8)
    return Clip(Video.from_array(pictures), np.arange(frames) / 10, f"shade {shade}", provenance=provenance)


def trajectory(name: str, frames: int) -> Trajectory:
    rows = [
        {"frame": frame, "forward_m": 0.0, "left_m": 0.1 * frame, "clearance_m": None, "nearest_track": None, "on_road": None,
         "held": False}
        for frame in range(frames)
    ]  # fmt: skip
    return Trajectory(
        name, "lane_change_left", np.arange(frames) / 10, np.tile(np.eye(4), (frames, 1, 1)), 4.5, 1.8, True, "",
        rows_to_table(TRAJECTORY_CHECKS, rows),
    )  # fmt: skip


def link(recorded, generated, trajectories):
    return link_cousins(recorded, generated, trajectories, CousinLinksConfig(), seed=0, progress=no_progress)


def test_every_generated_frame_names_the_recorded_clip_its_generator_and_its_offset():
    recorded, made = clip(3, 10), clip(3, 20, generator="worldline.diffusion", model="abc", seed=7)
    rows = link(recorded, (made,), (trajectory("left", 3),)).rows.to_pylist()
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert {(row["recorded"], row["generated"]) for row in rows} == {(content_digest(recorded), content_digest(made))}
    assert {(row["generator"], row["model"], row["seed"]) for row in rows} == {("worldline.diffusion", "abc", 7)}
    assert [row["left_m"] for row in rows] == pytest.approx([0.0, 0.1, 0.2])


def test_without_generated_clips_there_are_no_links():
    assert link(clip(3, 10), (), ()).rows.num_rows == 0


def test_clips_of_other_lengths_are_refused():
    with pytest.raises(WorldlineError, match="left has 3 frames, its clip 2 and the log 3"):
        link(clip(3, 10), (clip(2, 20),), (trajectory("left", 3),))
