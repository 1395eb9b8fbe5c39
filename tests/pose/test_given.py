"""Poses that a person has are taken as they are, frame by frame."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from drives import INTRINSICS, LEVEL, blank_clip, clip_of, draw_corridor, reconstruction, true_drive

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.pose.given import GivenConfig, take_given_poses
from stages.pose.pose_files import describe_pose_files, find_pose_files
from worldline.camera_files import PosedImages, posed_images, write_colmap, write_kitti, write_transforms, write_tum
from worldline.cameras import Similarity

COUNT = 12
UNTOUCHED = Similarity(1.0, np.eye(3), np.zeros(3))


def frames_clip(**fields: object) -> Clip:
    """Frames of half the size that INTRINSICS belongs to, read from files."""
    files = [f"frame_{index:03d}.jpg" for index in range(COUNT)]
    provenance = {"files": files, "original_width_px": 8, "original_height_px": 8}
    return blank_clip(COUNT, provenance=provenance, **fields)


def drive() -> tuple[np.ndarray, PointCloud, PosedImages]:
    """Poses, points and both as images of 8 x 8 pixels; our clips have 4 x 4."""
    poses = true_drive(COUNT)
    path, points = reconstruction(poses, UNTOUCHED, noise=0.0)
    path = dataclasses.replace(path, width=8, height=8, distortion=np.array([-0.1, 0.01, 0.0, 0.0]))
    return poses, points, posed_images(path, points, [f"frame_{index:03d}.png" for index in range(COUNT)])


def take(clip: Clip, place: Path, **config: object) -> tuple[CameraPath, PointCloud]:
    return take_given_poses(clip, describe_pose_files(place), GivenConfig(**config), seed=0, progress=no_progress)


@pytest.mark.parametrize("text", [False, True])
def test_a_colmap_model_beside_the_frames_gives_poses_lens_and_points_in_pixels_of_the_clip(tmp_path: Path, text: bool) -> None:
    poses, points, images = drive()
    write_colmap(images, tmp_path / "sparse" / "0", text=text)
    path, cloud = take(frames_clip(), tmp_path)
    assert path.registered.all()
    np.testing.assert_allclose(path.world_from_camera, poses, atol=1e-12)
    np.testing.assert_allclose(path.intrinsics, np.diag([0.5, 0.5, 1.0]) @ INTRINSICS)  # pixel centres lie at +0.5
    np.testing.assert_array_equal(path.distortion, images.distortion[0])
    assert (path.width, path.height, path.verdict) == (4, 4, "moving")
    assert path.reprojection_error_px == pytest.approx(0.5)
    np.testing.assert_array_equal(cloud.xyz, points.xyz)
    order = np.lexsort((cloud.observation_point, cloud.observation_frame))
    expected = np.lexsort((points.observation_point, points.observation_frame))
    np.testing.assert_array_equal(cloud.observation_frame[order], points.observation_frame[expected])
    np.testing.assert_allclose(cloud.observation_xy_px[order], points.observation_xy_px[expected] / 2, rtol=1e-6)


def test_frames_are_found_by_name_whatever_order_folder_and_suffix_a_file_has(tmp_path: Path) -> None:
    poses, _, images = drive()
    write_transforms(images, tmp_path / "transforms.json")
    document = json.loads((tmp_path / "transforms.json").read_text())
    document["frames"] = document["frames"][::-1][2:]  # the last two frames are missing
    document["frames"].append(document["frames"][0] | {"file_path": "images/another.png"})
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    path, _ = take(frames_clip(), tmp_path)
    np.testing.assert_array_equal(path.registered, np.arange(COUNT) < COUNT - 2)
    np.testing.assert_allclose(path.world_from_camera[path.registered], poses[:-2], atol=1e-12)
    np.testing.assert_array_equal(path.world_from_camera[-1], np.eye(4))


def test_a_size_that_a_file_does_not_tell_is_that_of_the_images(tmp_path: Path) -> None:
    _, _, images = drive()
    write_transforms(images, tmp_path / "transforms.json")
    document = json.loads((tmp_path / "transforms.json").read_text())
    del document["w"], document["h"]
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    path, _ = take(frames_clip(), tmp_path)
    np.testing.assert_allclose(path.intrinsics, np.diag([0.5, 0.5, 1.0]) @ INTRINSICS)


def test_tum_poses_go_to_the_frames_of_their_times_and_to_no_others(tmp_path: Path) -> None:
    poses, _, _ = drive()
    clip = frames_clip(intrinsics=INTRINSICS)
    times_s = clip.times_s + 0.004  # the two clocks differ a little
    kept = np.arange(COUNT) != 5
    write_tum(times_s[kept], poses[kept], tmp_path / "poses.txt")
    path, _ = take(clip, tmp_path)
    np.testing.assert_array_equal(path.registered, kept)
    np.testing.assert_array_equal(path.intrinsics, INTRINSICS)
    np.testing.assert_allclose(path.world_from_camera[kept], poses[kept], atol=1e-12)


def test_unix_times_count_from_the_clips_own_epoch(tmp_path: Path) -> None:
    poses, _, _ = drive()
    clip = frames_clip(intrinsics=INTRINSICS, epoch_ns=1_305_031_102_000_000_000)
    write_tum(clip.times_s + 1_305_031_102.0, poses, tmp_path / "groundtruth.txt")
    assert take(clip, tmp_path)[0].registered.all()
    with pytest.raises(WorldlineError, match=r"groundtruth\.txt has Unix times and test has none"):
        take(dataclasses.replace(clip, epoch_ns=None), tmp_path)


def test_kitti_poses_go_to_frames_in_order(tmp_path: Path) -> None:
    poses, _, _ = drive()
    write_kitti(poses, tmp_path / "00.txt")
    path, _ = take(frames_clip(intrinsics=INTRINSICS), tmp_path / "00.txt")
    np.testing.assert_allclose(path.world_from_camera, poses, atol=1e-12)
    write_kitti(poses[:-1], tmp_path / "00.txt")
    with pytest.raises(WorldlineError, match=r"^00\.txt has 11 poses for 12 frames of test: keep all frames"):
        take(frames_clip(intrinsics=INTRINSICS), tmp_path / "00.txt")


def test_what_is_known_of_metres_and_up_is_kept_and_z_then_points_up(tmp_path: Path) -> None:
    poses, _, images = drive()
    y_down = Similarity(1.0, np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.zeros(3))  # z up to y down
    write_colmap(dataclasses.replace(images, world_from_camera=y_down.poses(poses)), tmp_path)
    path, _ = take(frames_clip(), tmp_path, metric=True, scale_sigma=0.03, up="-y")
    np.testing.assert_allclose(path.world_from_camera, poses, atol=1e-12)
    assert (path.scale_source, path.scale_sigma, path.gravity_source) == ("given", 0.03, "given")
    unknown, _ = take(frames_clip(), tmp_path)
    assert (unknown.scale_source, unknown.scale_sigma, unknown.gravity_source) == ("none", 0.0, "none")


def test_a_camera_that_stands_or_only_turns_is_called_so(tmp_path: Path) -> None:
    poses, _, _ = drive()
    poses[:, :3, 3] = 1.0
    write_kitti(poses, tmp_path / "poses.txt")
    clip = frames_clip(intrinsics=INTRINSICS)
    assert take(clip, tmp_path, metric=True)[0].verdict == "rotation"
    write_kitti(np.repeat(poses[:1], COUNT, axis=0), tmp_path / "poses.txt")
    path, _ = take(clip, tmp_path, metric=True)
    assert (path.verdict, path.scale_source) == ("static", "none")


def test_poses_of_other_frames_and_frames_of_another_shape_are_told(tmp_path: Path) -> None:
    _, _, images = drive()
    elsewhere = dataclasses.replace(images, names=tuple(f"other_{name}" for name in images.names))
    write_colmap(elsewhere, tmp_path / "others")
    with pytest.raises(WorldlineError, match="others has a pose for 0 of 12 frames of test: its images must have the names"):
        take(frames_clip(), tmp_path / "others")
    write_colmap(dataclasses.replace(images, sizes_px=images.sizes_px * [2, 1]), tmp_path / "wide")
    with pytest.raises(WorldlineError, match=r"frame_000\.png is 16 x 8 pixels, which has not the shape of the frames \(4 x 4\)"):
        take(frames_clip(), tmp_path / "wide")
    zoomed = images.intrinsics * np.linspace(1.0, 1.5, COUNT)[:, None, None]
    zoomed[:, 2, 2] = 1.0
    write_colmap(dataclasses.replace(images, intrinsics=zoomed), tmp_path / "zoom")
    with pytest.raises(WorldlineError, match="zoom: its images have different lenses, and a clip has one"):
        take(frames_clip(), tmp_path / "zoom")


def test_a_video_has_no_file_names_and_a_trajectory_no_lens(tmp_path: Path) -> None:
    poses, _, images = drive()
    write_colmap(images, tmp_path)
    with pytest.raises(WorldlineError, match="tells poses of images, and test has no files for frames: give a TUM or KITTI"):
        take(blank_clip(COUNT), tmp_path)
    write_kitti(poses, tmp_path / "a.txt")
    with pytest.raises(WorldlineError, match=r"a\.txt tells no lens, nor does test: set intrinsics"):
        take(blank_clip(COUNT), tmp_path / "a.txt")


def test_a_damaged_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text("{}")
    with pytest.raises(WorldlineError, match=r"^transforms\.json is no transforms\.json \(it has no 'frames'\)"):
        take(frames_clip(), tmp_path)


def test_poses_lie_beside_frames_and_videos(tmp_path: Path) -> None:
    poses, _, _ = drive()
    (tmp_path / "street.mp4").write_bytes(b"")
    with pytest.raises(WorldlineError, match=r"give poses=FILE, or put a TUM or KITTI trajectory there as street\.poses\.txt"):
        find_pose_files(tmp_path / "street.mp4")
    write_kitti(poses, tmp_path / "street.poses.txt")
    assert list(find_pose_files(tmp_path / "street.mp4").files) == ["street.poses.txt"]
    with pytest.raises(WorldlineError, match="tells no poses: give poses=FILE"):
        find_pose_files(tmp_path)
    with pytest.raises(WorldlineError, match="there is no file or folder"):
        describe_pose_files(tmp_path / "nowhere")


def test_points_that_no_file_gives_are_triangulated_and_the_poses_stand(tmp_path: Path) -> None:
    K = np.array([[220.0, 0, 120], [0, 220, 80], [0, 0, 1]])
    poses = np.repeat(np.eye(4)[None], 8, axis=0)
    poses[:, :3, :3] = LEVEL
    poses[:, :3, 3] = np.linspace([5.0, -0.5, 0], [9.0, 0.5, 0.2], 8)  # not the origin: the world of the file is kept
    clip = dataclasses.replace(clip_of(draw_corridor(poses, K, (240, 160))), intrinsics=K)
    write_tum(clip.times_s, poses, tmp_path / "poses.txt")
    path, points = take(clip, tmp_path)
    np.testing.assert_allclose(path.world_from_camera, poses, atol=1e-12)
    assert len(points.xyz) > 200
    distance = np.abs(points.xyz[:, [1, 1, 2, 2, 0]] - [-3, 3, -1.6, 3, 30]).min(axis=1)  # from walls, floor, ceiling and end
    assert np.median(distance) < 0.05
    assert 0 < path.reprojection_error_px < 1.0
    assert len(points.observation_point) > 3 * len(points.xyz) / 2
