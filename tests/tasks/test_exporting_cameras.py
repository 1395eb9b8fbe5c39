"""Camera paths of a version go out as files that other programs open, with the frames to train on."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evo.tools import file_interface
from PIL import Image
from scipy.spatial.transform import Rotation

from catalogs.catalog import Catalog, Execution
from catalogs.exports import FORMATS, Export, export
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import Artifact
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from tasks.exporting_cameras import camera_formats
from worldline.camera_files import read_colmap, read_transforms
from worldline.cameras import distort, invert_rigid, project, rigid, transform_points

COUNT, WIDTH, HEIGHT = 6, 64, 48
INTRINSICS = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
DISTORTION = np.array([-0.2, 0.0, 0.0, 0.0])
GAP = np.array([True, True, False, True, True, True])


def moved_cameras() -> np.ndarray:
    turns = Rotation.from_euler("y", np.linspace(0, 20, COUNT)[:, None], degrees=True).as_matrix()
    return rigid(turns, np.linspace([1.0, 2, 3], [2, 2, 5], COUNT))


def made_clip() -> Clip:
    """Brightness is the pixel's column times three, so that wherever a frame is resampled the answer is known."""
    ramp = np.broadcast_to((np.arange(WIDTH) * 3).astype(np.uint8)[None, None, :, None], (COUNT, HEIGHT, WIDTH, 3))
    return Clip(frames=Video.from_array(ramp.copy()), times_s=np.arange(COUNT) * 0.1, name="ramp")


def made_path(registered: np.ndarray) -> CameraPath:
    poses = moved_cameras()
    poses[~registered] = np.eye(4)
    return CameraPath(times_s=np.arange(COUNT) * 0.1, world_from_camera=poses, registered=registered, intrinsics=INTRINSICS,
                      distortion=DISTORTION, width=WIDTH, height=HEIGHT, verdict="moving", scale_source="gps", scale_sigma=0.01,
                      gravity_source="ground_plane", gravity_sigma_rad=0.01, reprojection_error_px=0.5)  # fmt: skip


def made_points() -> PointCloud:
    """Points in front of all cameras, seen in every frame where they lie in the image."""
    xyz = np.random.default_rng(0).uniform([0, 1, 8], [5, 3, 12], (30, 3))
    poses = moved_cameras()
    pixels = np.stack([project(transform_points(invert_rigid(pose), xyz), INTRINSICS, DISTORTION)[0] for pose in poses])
    frame, point = np.nonzero(np.all((pixels > 0) & (pixels < [WIDTH, HEIGHT]), axis=-1))
    return PointCloud(xyz=xyz, rgb=np.full((30, 3), 99, np.uint8), error_px=np.full(30, 0.5, np.float32),
                      observation_frame=frame.astype(np.int32), observation_point=point.astype(np.int32),
                      observation_xy_px=pixels[frame, point].astype(np.float32))  # fmt: skip


def recorded(catalog: Catalog, artifact: Artifact, name: str) -> str:
    with catalog.scratch_folder() as scratch:
        made = catalog.put(artifact, scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        key = hashlib.sha256(name.encode()).hexdigest()
        run = Execution(key=key, stage="pose.toy", version=1, code="c", code_files={}, config={}, seed=0, inputs={},
                        outputs=(made,), status="ok", started_at=0.0, seconds=1.0, peak_memory_bytes=1, machine={},
                        packages={}, **fields)  # fmt: skip
        catalog.record(run)
    return made.digest


def publish_clips(catalog: Catalog, **registered: np.ndarray) -> None:
    """Publish a version `toys` with one clip for every name."""
    artifacts = {}
    for name, frames in registered.items():
        for role, artifact in (("clip", made_clip()), ("path", made_path(frames)), ("points", made_points())):
            artifacts[f"{name}/{role}"] = recorded(catalog, artifact, f"{name}/{role}")
    publish(catalog, "toys", {"source": "toys"}, artifacts, {})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A version of one clip, of which a frame has no pose."""
    catalog = Catalog.open(tmp_path / "home")
    publish_clips(catalog, drive=GAP)
    return catalog


def export_cameras(catalog: Catalog, form: str, out: Path, **options: Any) -> tuple[Export, Path, dict[str, Any]]:
    """Return the report, where the first path went, and its row of the index."""
    report = export(catalog, "toys", form, out, formats=FORMATS | camera_formats(form, **options))
    row = json.loads((out / "cameras.json").read_text())[0]
    return report, out / row["file"], row


COMPARE = """
import json, sys, pycolmap
model = pycolmap.Reconstruction(sys.argv[1])
images = sorted(model.images.values(), key=lambda image: image.name)
print(json.dumps({
    "names": [image.name for image in images], "points": len(model.points3D), "lens": images[0].camera.model.name,
    "centres": [image.projection_center().tolist() for image in images],
    "worst_px": max(float(abs(image.project_point(model.points3D[feature.point3D_id].xyz) - feature.xy).max())
                    for image in images for feature in image.points2D),
}))
"""


@pytest.mark.parametrize(
    ("form", "undistort", "lens"),
    [("colmap", False, "SIMPLE_RADIAL"), ("colmap-text", False, "SIMPLE_RADIAL"), ("colmap", True, "PINHOLE")],
)
def test_colmap_opens_what_goes_out_and_its_points_lie_where_they_were_seen(catalog, tmp_path, form, undistort, lens):
    report, place, row = export_cameras(catalog, form, tmp_path / "out", undistort=undistort)
    assert report.rows == {"paths": 1, "poses": 5, "unposed": 1}
    np.testing.assert_allclose(row["times_s"], np.flatnonzero(GAP) * 0.1)
    assert (row["frames_without_pose"], row["images"], row["points"], row["scale_source"]) == ([2], 5, 30, "gps")
    command = [sys.executable, "-c", COMPARE, str(place / "sparse" / "0")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)
    names = [f"frame_{index:05d}.png" for index in np.flatnonzero(GAP)]
    assert (told["names"], told["points"], told["lens"]) == (names, 30, lens)
    assert sorted(file.name for file in (place / "images").iterdir()) == names
    np.testing.assert_allclose(told["centres"], moved_cameras()[GAP, :3, 3], atol=1e-9)
    assert told["worst_px"] < 1e-3


def test_frames_go_along_as_they_are(catalog, tmp_path):
    _, place, _ = export_cameras(catalog, "transforms", tmp_path / "out")
    images = read_transforms(place / "transforms.json")
    np.testing.assert_allclose(images.world_from_camera, moved_cameras()[GAP], atol=1e-12)
    np.testing.assert_array_equal(images.distortion[0], DISTORTION)
    for name in images.names:
        np.testing.assert_array_equal(np.asarray(Image.open(place / name)), made_clip().frames.array()[0])
    assert (place / "points.ply").exists()


def test_undistorted_frames_show_at_each_pixel_what_the_lens_put_elsewhere(catalog, tmp_path):
    _, place, _ = export_cameras(catalog, "transforms", tmp_path / "out", undistort=True)
    images = read_transforms(place / "transforms.json")
    np.testing.assert_array_equal(images.distortion, 0.0)
    frame = np.asarray(Image.open(place / images.names[0]))[..., 0].astype(float)
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    ideal = np.stack([(column - 32) / 50, (row - 24) / 50], axis=-1)
    there = distort(ideal, DISTORTION)[..., 0] * 50 + 32  # the column in the frame as it was taken
    inside = (there > 1) & (there < WIDTH - 1)
    np.testing.assert_allclose(frame[inside], 3 * (there[inside] - 0.5), atol=1.0)
    assert inside.mean() > 0.9


def test_evo_opens_the_trajectories(tmp_path):
    catalog = Catalog.open(tmp_path / "home")
    publish_clips(catalog, drive=GAP)
    _, place, _ = export_cameras(catalog, "tum", tmp_path / "tum")
    theirs = file_interface.read_tum_trajectory_file(place)
    np.testing.assert_allclose(theirs.poses_se3, moved_cameras()[GAP], atol=1e-12)
    np.testing.assert_allclose(theirs.timestamps, np.flatnonzero(GAP) * 0.1)


def test_kitti_holds_every_frame_in_the_world_of_the_first_camera_or_nothing(tmp_path):
    catalog = Catalog.open(tmp_path / "home")
    publish_clips(catalog, gap=GAP, whole=np.ones(COUNT, bool))
    report = export(catalog, "toys", "kitti", tmp_path / "out", formats=FORMATS | camera_formats("kitti"))
    assert report.rows == {"paths": 1, "poses": 6, "unposed": 1}
    rows = {row["clip"]: row for row in json.loads((tmp_path / "out" / "cameras.json").read_text())}
    assert rows["gap"]["file"] is None
    assert rows["gap"]["left_out"] == "1 of 6 frames of gap/path have no pose, and KITTI needs one for each: export as tum"
    theirs = file_interface.read_kitti_poses_file(tmp_path / "out" / rows["whole"]["file"])
    poses = moved_cameras()
    np.testing.assert_allclose(theirs.poses_se3, np.linalg.inv(poses[0]) @ poses, atol=1e-12)


@pytest.mark.parametrize(
    ("form", "registered", "told"),
    [
        ("kitti", GAP, "toys@1 has nothing to export as kitti: 1 of 6 frames of drive/path have no pose"),
        (
            "colmap",
            np.zeros(COUNT, bool),
            r"toys@1 has nothing to export as colmap: no frame of drive/path has a pose \(moving\)",
        ),
    ],
)
def test_a_version_without_a_path_that_the_format_can_hold_is_told_and_leaves_nothing(tmp_path, form, registered, told):
    catalog = Catalog.open(tmp_path / "home")
    publish_clips(catalog, drive=registered)
    with pytest.raises(WorldlineError, match=told):
        export_cameras(catalog, form, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_path_whose_clip_did_not_come_along_goes_out_without_images(tmp_path):
    catalog = Catalog.open(tmp_path / "home")
    publish(catalog, "toys", {"source": "toys"}, {"path": recorded(catalog, made_path(GAP), "path")}, {})
    _, place, row = export_cameras(catalog, "colmap", tmp_path / "out")
    assert (row["images"], row["points"]) == (0, 0)
    images = read_colmap(place / "sparse" / "0")
    np.testing.assert_allclose(images.world_from_camera, moved_cameras()[GAP], atol=1e-12)


def test_undistorting_is_for_formats_with_images():
    with pytest.raises(
        WorldlineError, match="tum takes no --undistort: leave it out, or export as colmap, colmap-text, transforms"
    ):
        camera_formats("tum", undistort=True)


def test_the_command_says_what_went_out(catalog, tmp_path, capsys):
    arguments = ["export", "toys", "colmap", str(tmp_path / "out"), "--undistort", "--home", str(catalog.home)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "unposed" in said
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "| unposed | 1 | frames without a pose, left out |" in readme
    assert main(arguments) == 1
    assert "exists already: name a new folder" in capsys.readouterr().err


def test_paths_that_share_a_clip_take_no_points_that_may_be_of_the_other(tmp_path):
    catalog = Catalog.open(tmp_path / "home")
    other = dataclasses.replace(made_points(), xyz=made_points().xyz + 1.0)
    artifacts = {"path": made_path(GAP), "points": made_points(), "other": other}
    digests = {role: recorded(catalog, artifact, role) for role, artifact in artifacts.items()}
    publish(catalog, "toys", {"source": "toys"}, digests, {})
    _, _, row = export_cameras(catalog, "colmap", tmp_path / "out")
    assert row["points"] == 0
