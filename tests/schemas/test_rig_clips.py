"""What the cameras of a rig filmed survives storage camera by camera, and rigs that contradict themselves are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.codec import content_digest, decode, encode
from schemas.media import Video
from schemas.rigs import RigClip

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 30, 3), dtype=np.uint8)


def make_rig_clip(**changes: Any) -> RigClip:
    values: dict[str, Any] = {
        "name": "car",
        "cameras": ["front", "left"],
        "frames": {"front": Video.from_array(PICTURES[0]), "left": Video.from_array(PICTURES[1, :2, :16, :24])},
        "times_s": {"front": np.array([0.0, 0.1, 0.2]), "left": np.array([0.11, 0.21])},
        "sets": np.array([[0, -1], [1, 0], [2, 1]], np.int32),
        "calibrated": True,
        "intrinsics": np.repeat(np.diag([20.0, 20.0, 1.0])[None], 2, axis=0),
        "distortion": np.zeros((2, 4)),
        "placed": np.array([True, False]),
        "camera_from_rig": np.repeat(np.eye(4)[None], 2, axis=0),
        "position_sigma_m": np.zeros(2),
        "rotation_sigma_rad": np.zeros(2),
        "readout_s": np.array([0.0, 0.02]),
    }
    return RigClip(**(values | changes))


def test_every_camera_is_stored_and_read_back_alone(tmp_path: Path) -> None:
    rig = make_rig_clip()
    parts = encode(rig, tmp_path)
    assert {"frames/front.mkv", "frames/left.mkv"} <= set(parts)
    again = decode(parts)
    assert isinstance(again, RigClip)
    np.testing.assert_array_equal(again.frames["left"].array(), PICTURES[1, :2, :16, :24])
    np.testing.assert_array_equal(again.times_s["left"], [0.11, 0.21])
    assert content_digest(again) == content_digest(rig)


def test_the_digest_knows_which_camera_saw_what() -> None:
    same = {"front": Video.from_array(PICTURES[0, :2]), "left": Video.from_array(PICTURES[1, :2])}
    swapped = {"front": same["left"], "left": same["front"]}
    times = dict.fromkeys(same, np.array([0.0, 0.1]))
    sets = np.array([[0, 0], [1, 1]], np.int32)
    digests = {content_digest(make_rig_clip(frames=frames, times_s=times, sets=sets)) for frames in (same, swapped)}
    assert len(digests) == 2


def test_one_camera_is_a_clip_on_the_rigs_clock() -> None:
    clip = make_rig_clip().clip("left")
    assert (clip.name, clip.size) == ("car/left", (24, 16))
    np.testing.assert_array_equal(clip.times_s, [0.11, 0.21])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ["front"]}, "two or more"),
        ({"times_s": {"front": np.arange(3.0), "left": np.array([0.2, 0.1])}}, "left needs one time per frame"),
        ({"sets": np.array([[0, -1], [1, 0], [2, 2]], np.int32)}, "a frame of left that is not there"),
        ({"sets": np.array([[0, -1], [1, 0]], np.int32)}, "one set per frame of the reference"),
    ],
)
def test_rigs_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rig_clip(**changes)
