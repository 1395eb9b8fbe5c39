"""A folder of cameras becomes one clip on one clock; what does not fit together is refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video, write_video
from schemas.rigs import RigClip
from stages.contract import no_progress
from stages.ingest.rig import ingest_rig
from stages.ingest.rig_sets import RigConfig, nearest_frames
from stages.ingest.source import describe_source

START_NS = 1_513_720_000_100_000_123
LEFT: dict[str, Any] = {"name": "left", "intrinsics": [50.0, 50.0, 32.0, 24.0]}
RIGHT: dict[str, Any] = {
    "name": "right",
    "intrinsics": [60.0, 60.0, 20.0, 15.0],
    "distortion": [0.1, 0.0, 0.0, 0.0],
    "camera_from_rig": {"translation_m": [-0.5, 0.0, 0.0], "quaternion_wxyz": [1.0, 0.0, 0.0, 0.0]},
}


def write_camera(folder: Path, times_ns: list[int] | None, size: tuple[int, int], count: int = 0, shade: int = 0) -> None:
    """Images whose grey says their number, named by their times, or by their number."""
    folder.mkdir(parents=True)
    for index in range(len(times_ns) if times_ns else count):
        name = str(times_ns[index]) if times_ns else f"{index:03d}"
        Image.fromarray(np.full((size[1], size[0], 3), shade + index, np.uint8)).save(folder / f"{name}.png")


def make_rig(root: Path, *cameras: dict[str, Any]) -> Path:
    """Two cameras at 10 Hz; the right one fires 20 ms late, starts one frame early, and lost its third frame."""
    write_camera(root / "left", [START_NS + 100_000_000 * index for index in range(5)], (64, 48))
    late = [START_NS + 100_000_000 * index + 20_000_000 for index in range(-1, 5) if index != 1]
    write_camera(root / "right", late, (40, 30), shade=100)
    (root / "rig.json").write_text(json.dumps({"cameras": list(cameras or (LEFT, RIGHT))}))
    return root


def ingest(root: Path, **config: Any) -> tuple[Clip, RigClip]:
    clip, truth, rig_clip = ingest_rig(describe_source(root), RigConfig(**config), seed=0, progress=no_progress)
    assert not truth.available
    return clip, rig_clip


def test_frames_are_put_together_by_the_times_in_their_names(tmp_path: Path) -> None:
    _, rig = ingest(make_rig(tmp_path / "car"))
    assert (rig.name, rig.cameras, rig.reference) == ("car", ["left", "right"], "left")
    np.testing.assert_array_equal(rig.sets, [[0, 0], [1, -1], [2, 1], [3, 2], [4, 3]])
    np.testing.assert_allclose(rig.times_s["left"], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-12)
    np.testing.assert_allclose(rig.times_s["right"], [0.02, 0.22, 0.32, 0.42], atol=1e-12)
    assert [int(frame[0, 0, 0]) for frame in rig.frames["right"]] == [101, 102, 103, 104]  # 100 belongs to no frame


def test_the_reference_is_a_clip_like_any_other_with_its_epoch(tmp_path: Path) -> None:
    clip, rig = ingest(make_rig(tmp_path / "car"), start_s=0.15, camera_height_m=1.5)
    assert clip.size == (64, 48)
    assert clip.epoch_ns == START_NS + 200_000_000
    assert clip.camera_height_m == 1.5
    np.testing.assert_array_equal(clip.times_s, rig.times_s["left"])
    np.testing.assert_array_equal(clip.intrinsics, rig.intrinsics[0])


def test_a_known_offset_moves_a_camera_onto_the_clock_of_the_reference(tmp_path: Path) -> None:
    _, rig = ingest(make_rig(tmp_path / "car", LEFT, RIGHT | {"time_offset_s": -0.02, "readout_s": 0.03}), tolerance_s=0.001)
    np.testing.assert_allclose(rig.times_s["right"], [0.0, 0.2, 0.3, 0.4], atol=1e-12)
    np.testing.assert_array_equal(rig.readout_s, [0.0, 0.03])


def test_intrinsics_follow_the_frames_when_they_are_shrunk(tmp_path: Path) -> None:
    _, rig = ingest(make_rig(tmp_path / "car"), max_side=32)
    assert (rig.size("left"), rig.size("right")) == ((32, 24), (32, 24))
    np.testing.assert_allclose(rig.intrinsics[0], [[25, 0, 16], [0, 25, 12], [0, 0, 1]])
    np.testing.assert_allclose(rig.intrinsics[1], [[48, 0, 16], [0, 48, 12], [0, 0, 1]])
    np.testing.assert_array_equal(rig.distortion[1], [0.1, 0, 0, 0])


def test_places_are_told_from_the_reference_whatever_frame_they_were_given_in(tmp_path: Path) -> None:
    left_from_body, right_from_body = np.eye(4), np.eye(4)
    left_from_body[:3, :3] = Rotation.from_euler("xyz", [-90, 10, 90], degrees=True).as_matrix()
    right_from_body[:3, :3] = Rotation.from_euler("xyz", [-80, 0, 95], degrees=True).as_matrix()
    left_from_body[:3, 3], right_from_body[:3, 3] = [0.1, 1.2, -0.4], [-0.5, 1.1, -0.3]
    cameras = (LEFT | {"camera_from_rig": left_from_body.tolist()}, RIGHT | {"camera_from_rig": right_from_body.tolist()})
    _, rig = ingest(make_rig(tmp_path / "car", *cameras))
    point_body = np.array([3.0, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(rig.camera_from_rig[1] @ (left_from_body @ point_body), right_from_body @ point_body)
    np.testing.assert_array_equal(rig.camera_from_rig[0], np.eye(4))
    distance = np.linalg.norm(rig.camera_from_rig[1, :3, 3])
    np.testing.assert_allclose(rig.position_sigma_m, [0.0, 0.005 * distance])


def test_without_places_and_intrinsics_both_are_unknown(tmp_path: Path) -> None:
    _, rig = ingest(make_rig(tmp_path / "car", {"name": "left"}, {"name": "right"}))
    assert not rig.calibrated
    np.testing.assert_array_equal(rig.placed, [True, False])


def test_images_without_times_belong_together_by_their_order(tmp_path: Path) -> None:
    for number, camera in enumerate(("left", "right")):
        write_camera(tmp_path / "car" / camera, None, (64, 48), count=3, shade=100 * number)
    (tmp_path / "car" / "rig.json").write_text(
        json.dumps({"cameras": [LEFT, {"name": "right", "intrinsics": LEFT["intrinsics"]}]})
    )
    _, rig = ingest(tmp_path / "car", frames_per_second=5.0)
    np.testing.assert_array_equal(rig.sets, [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_allclose(rig.times_s["right"], [0, 0.2, 0.4])
    assert rig.provenance["times"] == "assumed 5 frames per second"


def test_videos_are_cameras_too(tmp_path: Path) -> None:
    for number, camera in enumerate(("left", "right")):
        frames = np.full((4, 32, 48, 3), 10 + 100 * number, np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None]
        write_video(tmp_path / f"{camera}.mkv", Video.from_array(frames), "rgb")  # one frame per millisecond
    (tmp_path / "rig.json").write_text(json.dumps({"cameras": [{"name": "left"}, {"name": "right", "time_offset_s": 0.001}]}))
    _, rig = ingest(tmp_path, tolerance_s=0.0002)
    np.testing.assert_array_equal(rig.sets, [[0, -1], [1, 0], [2, 1], [3, 2]])
    assert [int(frame[0, 0, 0]) for frame in rig.frames["right"]] == [110, 111, 112]


def test_a_frame_belongs_to_the_nearer_of_two() -> None:
    found = nearest_frames(np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.13, 0.32]), 0.15)
    np.testing.assert_array_equal(found, [-1, 0, -1, 1])


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([LEFT], "cameras is not valid"),
        ([LEFT, RIGHT | {"nmae": "x"}], r"cameras.1.nmae is not valid \(Extra inputs"),
        ([LEFT, RIGHT | {"intrinsics": [0, 1, 2, 3]}], "cameras.1.intrinsics.0 is not valid"),
        ([LEFT, RIGHT | {"name": "left"}], "names two cameras left"),
        ([LEFT, RIGHT | {"name": "rear"}], "neither a folder rear with images nor a video rear.mp4"),
        ([LEFT, {"name": "right"}], "camera right has no intrinsics while others have"),
        ([LEFT, RIGHT | {"camera_from_rig": np.diag([1.0, 1, 2, 1]).tolist()}], "camera right is not a rigid transform"),
        ([LEFT, RIGHT | {"time_offset_s": 60.0}], "fewer than 2 frames of camera right are within 0.05 s of one of left"),
    ],
)
def test_a_rig_that_does_not_fit_together_is_refused(tmp_path: Path, cameras: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(WorldlineError, match=message):
        ingest(make_rig(tmp_path / "car", *cameras))


def test_two_clocks_are_refused(tmp_path: Path) -> None:
    root = make_rig(tmp_path / "car")
    (root / "left" / "timestamps.csv").write_text("\n".join(str(0.1 * index) for index in range(5)))
    with pytest.raises(
        WorldlineError, match=r"left come from timestamps.csv, those of right from file names, which are two clocks"
    ):
        ingest(root)


def test_broken_json_is_refused(tmp_path: Path) -> None:
    root = make_rig(tmp_path / "car")
    (root / "rig.json").write_text('{"cameras": [')
    with pytest.raises(WorldlineError, match=r"car/rig.json: the file is not valid \(Invalid JSON"):
        ingest(root)
