"""Mover recall and precision, on boxes and masks drawn by hand."""

import numpy as np
import pytest

from benchmarks.pose_movers import compare, directions
from schemas.artifact import rows_to_table
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import Masks
from schemas.tracks import TRUTH_BOXES, Truth

LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # looks along x, z up
FRAMES, WIDTH, HEIGHT = 6, 960, 540


def row(track: int, frame: int, place: tuple[float, float], box: tuple[float, float, float, float], moving: bool = True) -> dict:
    return {
        "track_id": track, "frame": frame, "time_s": 0.1 * frame, "class_name": "car", "x": place[0], "y": place[1], "z": 0.0,
        "length": 4.0, "width": 2.0, "height": 1.5, "yaw_rad": 0.0, "moving": moving,
        **dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), box, strict=True)),
    }  # fmt: skip


def truth_of(rows: list[dict]) -> Truth:
    poses = np.repeat(np.eye(4)[None], FRAMES, axis=0)
    poses[:, :3, :3] = LEVEL
    return Truth(
        available=True, world_from_camera=poses, intrinsics=np.eye(3), boxes=rows_to_table(TRUTH_BOXES, rows),
        annotated=np.ones(FRAMES, bool),
    )  # fmt: skip


def compared(rows: list[dict], *masked: tuple[float, float, float, float]):
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    for x0, y0, x1, y1 in masked:
        labels[:, int(y0) : int(y1), int(x0) : int(x1)] = 1
    clip = Clip(Video.from_array(np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)), np.arange(FRAMES) * 0.1, "hand")
    return compare(Masks(Video.from_array(labels), 1.0, "by hand"), truth_of(rows), clip)


def test_half_a_masked_box_is_found_and_precision_is_the_share_of_the_mask_in_moving_boxes() -> None:
    box = (100.0, 100.0, 200.0, 200.0)
    samples, precision = compared([row(1, frame, (20.0 + frame, 0.0), box) for frame in range(FRAMES)], (100, 100, 150, 200),
                                  (500, 100, 550, 200))  # fmt: skip
    assert [sample.covered for sample in samples] == [0.5] * FRAMES
    assert {sample.direction for sample in samples} == {"away"}
    assert precision == pytest.approx(0.5)


def test_far_small_hidden_and_standing_objects_are_no_samples() -> None:
    box = (100.0, 100.0, 200.0, 200.0)
    rows = [row(1, 0, (60.0, 0.0), box)]  # far
    rows += [row(2, 1, (20.0, 0.0), (100.0, 100.0, 110.0, 110.0))]  # small
    rows += [
        row(3, 2, (20.0, 0.0), box),
        row(4, 2, (10.0, 0.0), (90.0, 90.0, 180.0, 210.0), moving=False),
    ]  # hidden by a parked one
    assert compared(rows, box)[0] == []


def test_directions_are_told_by_the_motion_along_the_viewing_direction() -> None:
    places = {1: (1.0, 0.0), 2: (-1.0, 0.2), 3: (0.1, 1.0)}
    rows = [row(k, f, (20 + x * f, y * f), (0.0, 0.0, 9.0, 9.0)) for k, (x, y) in places.items() for f in range(FRAMES)]
    poses = truth_of(rows).world_from_camera
    assert poses is not None
    found = directions(rows, poses)
    assert [found[track, 3] for track in (1, 2, 3)] == ["away", "oncoming", "crossing"]
