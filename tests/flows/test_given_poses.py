"""A folder of frames with poses beside it is not solved: its poses, metres and up go into the world frame as they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from flows.building import begin
from flows.pseudo_labels import place_in_world, solve_or_take_poses
from schemas.cameras import CameraPath, PointCloud
from schemas.errors import WorldlineError
from tasks.build import Build
from worldline.camera_files import PosedImages, write_colmap, write_tum
from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, invert_rigid, rigid

COUNT, WIDTH, HEIGHT = 8, 64, 48
INTRINSICS = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def climbing_poses() -> np.ndarray:
    """A camera that drives up a ramp, in a world with z up that does not begin at the origin."""
    turns = Rotation.from_euler("Z", np.linspace(0, 0.4, COUNT)[:, None]).as_matrix() @ WORLD_FROM_LEVEL_CAMERA
    return rigid(turns, np.linspace([10.0, 20, 5], [18.0, 22, 6], COUNT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames with a COLMAP model beside them, of points that every frame is said to see."""
    rng = np.random.default_rng(0)
    (tmp_path / "frames").mkdir()
    for index in range(COUNT):
        noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "frames" / f"{index}.png")
    frame, point = (grid.ravel() for grid in np.meshgrid(np.arange(COUNT), np.arange(40), indexing="ij"))
    points = PointCloud(
        xyz=rng.uniform([25, 10, 4], [40, 30, 12], (40, 3)),
        rgb=np.zeros((40, 3), np.uint8),
        error_px=np.full(40, 0.5, np.float32),
        observation_frame=frame.astype(np.int32),
        observation_point=point.astype(np.int32),
        observation_xy_px=np.full((COUNT * 40, 2), 20.0, np.float32),
    )
    images = PosedImages(
        names=tuple(f"{index}.png" for index in range(COUNT)),
        world_from_camera=climbing_poses(),
        intrinsics=np.repeat(INTRINSICS[None], COUNT, axis=0),
        distortion=np.zeros((COUNT, 4)),
        sizes_px=np.repeat([[WIDTH, HEIGHT]], COUNT, axis=0),
        points=points,
    )
    write_colmap(images, tmp_path / "frames" / "sparse" / "0")
    return tmp_path / "frames"


def path_in_world(build: Build, source: Path) -> CameraPath:
    clip, _ = build.open_source(str(source))
    camera, structure = solve_or_take_poses(build, clip, str(source), [])
    (depth,) = build.run("pose.depth", clip=clip)
    _, path, _, _ = place_in_world(build, clip, camera, structure, depth)
    assert path.digest is not None
    loaded = build.catalog.load(path.digest)
    assert isinstance(loaded, CameraPath)
    return loaded


def test_metric_poses_with_a_known_up_keep_both_in_the_world_frame(folder: Path, tmp_path: Path) -> None:
    settings = [f"source={folder}", "pose=given", "pose.given.metric=true", "pose.given.up=z", "pose.given.up_sigma_rad=0.0001"]
    path = path_in_world(begin("pseudo_labels", settings, str(tmp_path / "home"), explain=False, quiet=True), folder)
    assert path.registered.all()
    assert (path.scale_source, path.scale_sigma) == ("given", pytest.approx(0.01))
    assert path.gravity_source.startswith("given")
    poses = climbing_poses()
    np.testing.assert_allclose(path.world_from_camera[0, :3, 3], 0.0, atol=1e-12)
    moved = invert_rigid(path.world_from_camera[0]) @ path.world_from_camera
    np.testing.assert_allclose(moved, invert_rigid(poses[0]) @ poses, atol=1e-9)
    np.testing.assert_allclose(path.world_from_camera[:, 2, 3], poses[:, 2, 3] - 5.0, atol=0.01)  # it climbs one metre


def test_poses_of_which_nothing_is_known_have_no_metres(folder: Path, tmp_path: Path) -> None:
    build = begin("pseudo_labels", [f"source={folder}", "pose=given"], str(tmp_path / "home"), explain=False, quiet=True)
    assert path_in_world(build, folder).scale_source == "none"


def test_a_named_file_goes_before_what_lies_beside_the_frames_and_is_of_one_clip(folder: Path, tmp_path: Path) -> None:
    write_tum(np.arange(COUNT) * 0.1, climbing_poses(), tmp_path / "mine.txt")
    settings = ["pose=given", f"poses={tmp_path / 'mine.txt'}"]
    build = begin("pseudo_labels", [f"source={folder}", *settings], str(tmp_path / "home"), explain=False, quiet=True)
    files = build.open_poses(str(folder))
    assert files.digest is not None
    assert build.catalog.artifact(files.digest).facts["layout"] == "trajectory"
    several = begin(
        "pseudo_labels", [f"source=[{folder},world:street]", *settings], str(tmp_path / "b"), explain=True, quiet=True
    )
    with pytest.raises(WorldlineError, match="is of one clip and there are 2: put the files beside their frames"):
        several.open_poses(str(folder))
