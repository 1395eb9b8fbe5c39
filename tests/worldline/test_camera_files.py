"""Camera files mean the same to the programs that they come from: pycolmap and evo, and OpenGL's own arithmetic."""

import dataclasses
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evo.tools import file_interface
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath, PointCloud
from schemas.errors import WorldlineError
from worldline.camera_files import (
    PosedImages,
    find_colmap,
    posed_images,
    read_colmap,
    read_kitti,
    read_transforms,
    read_tum,
    write_colmap,
    write_kitti,
    write_transforms,
    write_tum,
)
from worldline.cameras import invert_rigid, project, rigid, transform_points

PINHOLE = (np.array([[500.0, 0, 322], [0, 510, 181], [0, 0, 1]]), np.zeros(4))
ONE_TERM = (np.array([[480.0, 0, 320], [0, 480, 180], [0, 0, 1]]), np.array([-0.12, 0.0, 0.0, 0.0]))
FOUR_TERMS = (np.array([[490.0, 0, 319], [0, 495, 182], [0, 0, 1]]), np.array([-0.15, 0.03, 0.002, -0.001]))
LENSES = {"PINHOLE": PINHOLE, "SIMPLE_RADIAL": ONE_TERM, "OPENCV": FOUR_TERMS}


def scene(lenses: list[tuple[np.ndarray, np.ndarray]], points: int = 40) -> PosedImages:
    """Cameras around random points, each seeing most of them; observations are not sorted."""
    rng = np.random.default_rng(0)
    count = len(lenses)
    xyz = rng.uniform(-2, 2, (points, 3))
    centres = Rotation.from_euler("z", np.linspace(0, 300, count)[:, None], degrees=True).apply([8.0, 0, 1])
    forward = -centres / np.linalg.norm(centres, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 0, 1])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = rigid(np.stack([right, np.cross(forward, right), forward], axis=-1), centres)
    frame, point = np.nonzero(rng.random((count, points)) < 0.8)
    order = rng.permutation(len(frame))
    frame, point = frame[order], point[order]
    pixels = np.array([where(poses[f], lenses[f], xyz[p]) for f, p in zip(frame, point, strict=True)])
    cloud = PointCloud(
        xyz=xyz,
        rgb=rng.integers(0, 256, (points, 3)).astype(np.uint8),
        error_px=rng.random(points).astype(np.float32),
        observation_frame=frame.astype(np.int32),
        observation_point=point.astype(np.int32),
        observation_xy_px=pixels.astype(np.float32),
    )
    return PosedImages(
        names=tuple(f"frame_{index:03d}.png" for index in range(count)),
        world_from_camera=poses,
        intrinsics=np.stack([lens[0] for lens in lenses]),
        distortion=np.stack([lens[1] for lens in lenses]),
        sizes_px=np.repeat([[640, 360]], count, axis=0),
        points=cloud,
    )


def where(pose: np.ndarray, lens: tuple[np.ndarray, np.ndarray], xyz: np.ndarray) -> np.ndarray:
    return project(transform_points(invert_rigid(pose), xyz[None]), *lens)[0][0]


def in_pycolmap(program: str, folder: Path) -> dict:
    """Run a program with pycolmap in a process of its own (it cannot live beside OpenCV); it prints JSON."""
    head = "import json, sys, numpy as np, pycolmap\nfolder = sys.argv[1]\n"
    done = subprocess.run([sys.executable, "-c", head + program, str(folder)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READ = """
model = pycolmap.Reconstruction(folder)
images = sorted(model.images.values(), key=lambda image: image.name)
print(json.dumps({
    "names": [image.name for image in images],
    "models": [image.camera.model.name for image in images],
    "cameras": len(model.cameras),
    "sizes": [[image.camera.width, image.camera.height] for image in images],
    "centres": [image.projection_center().tolist() for image in images],
    "points": {str(key): [*point.xyz.tolist(), *point.color.tolist(), point.error] for key, point in model.points3D.items()},
    "seen": sorted([image.name, feature.point3D_id, *feature.xy.tolist()]
                   for image in images for feature in image.points2D if feature.has_point3D()),
    "tracks": sorted([model.images[element.image_id].name, key, *model.images[element.image_id].points2D[element.point2D_idx].xy]
                     for key, point in model.points3D.items() for element in point.track.elements),
    "projected": [[image.project_point(point.xyz).tolist() for _, point in sorted(model.points3D.items())] for image in images],
}))
"""


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_colmap_finds_every_camera_lens_point_and_observation_where_we_put_them(tmp_path: Path, text: bool) -> None:
    images = scene([PINHOLE, ONE_TERM, FOUR_TERMS, PINHOLE])
    write_colmap(images, tmp_path / "model", text=text)
    read = in_pycolmap(READ, tmp_path / "model")
    assert read["names"] == list(images.names)
    assert read["models"] == ["PINHOLE", "SIMPLE_RADIAL", "OPENCV", "PINHOLE"]
    assert (read["cameras"], read["sizes"]) == (3, [[640, 360]] * 4)
    np.testing.assert_allclose(read["centres"], images.world_from_camera[:, :3, 3], atol=1e-12)
    cloud = images.points
    rows = np.array([read["points"][str(index + 1)] for index in range(len(cloud.xyz))])
    np.testing.assert_allclose(rows, np.column_stack([cloud.xyz, cloud.rgb, cloud.error_px]), rtol=1e-12)
    expected = sorted(
        [images.names[frame], int(point) + 1, *map(float, xy)]
        for frame, point, xy in zip(cloud.observation_frame, cloud.observation_point, cloud.observation_xy_px, strict=True)
    )
    assert read["seen"] == expected
    assert read["tracks"] == expected
    ours = [
        project(transform_points(invert_rigid(pose), cloud.xyz), K, distortion)[0]
        for pose, K, distortion in zip(images.world_from_camera, images.intrinsics, images.distortion, strict=True)
    ]
    np.testing.assert_allclose(read["projected"], ours, atol=1e-8)


SYNTHESISE = """
pycolmap.set_random_seed(3)
options = pycolmap.SyntheticDatasetOptions()
options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 2, 1, 4, 50
options.camera_model_id, options.camera_params = getattr(pycolmap.CameraModelId, sys.argv[2]), json.loads(sys.argv[3])
options.camera_width, options.camera_height = 640, 360
model = pycolmap.synthesize_dataset(options)
model.write_binary(folder + "/binary"), model.write_text(folder + "/text")
images = sorted(model.images.values(), key=lambda image: image.name)
print(json.dumps({
    "names": [image.name for image in images],
    "world_from_camera": [image.cam_from_world().inverse().matrix().tolist() for image in images],
    "seen": sorted([image.name, *model.points3D[feature.point3D_id].xyz.tolist(), *feature.xy.tolist()]
                   for image in images for feature in image.points2D if feature.has_point3D()),
}))
"""


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("SIMPLE_PINHOLE", [500.0, 320, 180]),
        ("PINHOLE", [500.0, 510, 322, 181]),
        ("SIMPLE_RADIAL", [480.0, 320, 180, -0.1]),
        ("RADIAL", [480.0, 320, 180, -0.1, 0.02]),
        ("OPENCV", [490.0, 495, 319, 182, -0.1, 0.02, 0.002, -0.001]),
    ],
)
def test_what_colmap_wrote_is_read_with_points_that_project_to_where_they_were_seen(
    tmp_path: Path, model: str, parameters: list[float]
) -> None:
    for name in ("binary", "text"):
        (tmp_path / name).mkdir()
    head = "import json, sys, numpy as np, pycolmap\nfolder = sys.argv[1]\n"
    command = [sys.executable, "-c", head + SYNTHESISE, str(tmp_path), model, json.dumps(parameters)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    truth = json.loads(done.stdout)
    for name in ("binary", "text"):
        images = read_colmap(tmp_path / name)
        assert list(images.names) == truth["names"]
        np.testing.assert_allclose(images.world_from_camera[:, :3], truth["world_from_camera"], atol=1e-9)
        cloud = images.points
        seen = sorted(
            [images.names[frame], *cloud.xyz[point].tolist(), *map(float, xy)]
            for frame, point, xy in zip(cloud.observation_frame, cloud.observation_point, cloud.observation_xy_px, strict=True)
        )
        assert len(seen) > 100
        assert [row[0] for row in seen] == [row[0] for row in truth["seen"]]
        np.testing.assert_allclose([row[1:] for row in seen], [row[1:] for row in truth["seen"]], rtol=1e-6)
        for frame, point, xy in zip(cloud.observation_frame, cloud.observation_point, cloud.observation_xy_px, strict=True):
            lens = (images.intrinsics[frame], images.distortion[frame])
            np.testing.assert_allclose(where(images.world_from_camera[frame], lens, cloud.xyz[point]), xy, atol=1e-3)


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_a_model_that_was_written_and_read_is_the_same(tmp_path: Path, text: bool) -> None:
    images = scene([PINHOLE, ONE_TERM, FOUR_TERMS])
    write_colmap(images, tmp_path / "sparse" / "0", text=text)
    assert find_colmap(tmp_path) == tmp_path / "sparse/0"
    again = read_colmap(tmp_path / "sparse" / "0")
    assert again.names == images.names
    np.testing.assert_allclose(again.world_from_camera, images.world_from_camera, atol=1e-14)
    for name in ("intrinsics", "distortion", "sizes_px"):
        np.testing.assert_array_equal(getattr(again, name), getattr(images, name))
    for name in ("xyz", "rgb", "error_px"):
        np.testing.assert_array_equal(getattr(again.points, name), getattr(images.points, name))
    assert len(again.points.observation_point) == len(images.points.observation_point)


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("cameras.bin", lambda data: data[:-3], "cameras.bin is cut short or damaged"),
        ("cameras.bin", lambda data: data[:12] + struct.pack("<i", 5) + data[16:], "camera model number 5 is not read"),
        ("images.bin", lambda data: data[:100], "images.bin is cut short or damaged"),
        ("images.bin", lambda data: struct.pack("<Q", 2**40) + data[8:], "images.bin is cut short or damaged"),
        ("images.bin", lambda data: struct.pack("<Q", 0), "images.bin holds no image"),
        ("points3D.bin", lambda data: data + b"more", "4 bytes too many"),
        ("cameras.bin", lambda data: struct.pack("<Q", 0), "which is not in cameras.bin"),
    ],
)
def test_a_damaged_model_is_refused_in_a_sentence(tmp_path: Path, file: str, damage, told: str) -> None:
    write_colmap(scene([PINHOLE, ONE_TERM]), tmp_path)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes()))
    with pytest.raises(WorldlineError, match=told):
        read_colmap(tmp_path)


def test_a_text_model_with_the_wrong_words_is_refused(tmp_path: Path) -> None:
    write_colmap(scene([ONE_TERM]), tmp_path, text=True)
    cameras = (tmp_path / "cameras.txt").read_text()
    for wrong, told in (
        (cameras.replace("SIMPLE_RADIAL", "OPENCV_FISHEYE"), "camera model OPENCV_FISHEYE is not read"),
        (cameras.replace("SIMPLE_RADIAL", "PINHOLE OH"), "cameras.txt is cut short or damaged"),
        (cameras.replace("480.0", "-480.0"), "cameras.txt is cut short or damaged"),
    ):
        (tmp_path / "cameras.txt").write_text(wrong)
        with pytest.raises(WorldlineError, match=told):
            read_colmap(tmp_path)


def test_a_folder_without_a_model_and_one_that_has_one_already_are_told(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match="holds no COLMAP model: name the folder with"):
        read_colmap(tmp_path)
    assert find_colmap(tmp_path) is None
    write_colmap(scene([PINHOLE]), tmp_path)
    with pytest.raises(WorldlineError, match="holds a COLMAP model already"):
        write_colmap(scene([PINHOLE]), tmp_path)


def test_frames_without_a_pose_are_left_out_with_what_was_seen_in_them() -> None:
    images = scene([FOUR_TERMS] * 5)
    path = CameraPath(
        times_s=np.arange(5.0), world_from_camera=images.world_from_camera,
        registered=np.array([True, False, True, True, False]), intrinsics=FOUR_TERMS[0], distortion=FOUR_TERMS[1],
        width=640, height=360, verdict="moving", scale_source="none", scale_sigma=0.0, gravity_source="none",
        gravity_sigma_rad=0.0, reprojection_error_px=0.5,
    )  # fmt: skip
    posed = posed_images(path, images.points, images.names)
    assert posed.names == ("frame_000.png", "frame_002.png", "frame_003.png")
    np.testing.assert_array_equal(posed.world_from_camera, images.world_from_camera[[0, 2, 3]])
    kept = np.isin(images.points.observation_frame, [0, 2, 3])
    np.testing.assert_array_equal(posed.points.observation_xy_px, images.points.observation_xy_px[kept])
    np.testing.assert_array_equal(np.array([0, 2, 3])[posed.points.observation_frame], images.points.observation_frame[kept])


def opengl_pixel(document: dict, frame: dict, xyz: np.ndarray) -> np.ndarray:
    """Where nerfstudio's documentation says that a point appears: the camera looks along -z, y is up, pixels go down."""
    lens = document | frame
    x, y, z = np.linalg.inv(frame["transform_matrix"])[:3] @ [*xyz, 1.0]
    u, v = x / -z, -y / -z
    r2 = u * u + v * v
    radial = 1 + lens["k1"] * r2 + lens["k2"] * r2**2
    u, v = (
        u * radial + 2 * lens["p1"] * u * v + lens["p2"] * (r2 + 2 * u * u),
        v * radial + lens["p1"] * (r2 + 2 * v * v) + 2 * lens["p2"] * u * v,
    )
    return np.array([lens["fl_x"] * u + lens["cx"], lens["fl_y"] * v + lens["cy"]])


@pytest.mark.parametrize("lenses", [[FOUR_TERMS] * 3, [PINHOLE, ONE_TERM, FOUR_TERMS]], ids=["shared", "per frame"])
def test_transforms_put_points_where_they_were_seen_and_read_back_the_same(tmp_path: Path, lenses: list) -> None:
    images = scene(lenses)
    write_transforms(images, tmp_path / "transforms.json")
    document = json.loads((tmp_path / "transforms.json").read_text())
    assert ("fl_x" in document) == (lenses[0] is lenses[1])
    for frame, point, xy in zip(
        images.points.observation_frame, images.points.observation_point, images.points.observation_xy_px, strict=True
    ):
        pixel = opengl_pixel(document, document["frames"][frame], images.points.xyz[point])
        np.testing.assert_allclose(pixel, xy, atol=1e-3)
    again = read_transforms(tmp_path / "transforms.json")
    assert again.names == tuple(f"images/{name}" for name in images.names)
    np.testing.assert_allclose(again.world_from_camera, images.world_from_camera, atol=1e-12)
    for name in ("intrinsics", "distortion", "sizes_px"):
        np.testing.assert_array_equal(getattr(again, name), getattr(images, name))


def test_points_beside_transforms_are_a_ply_in_the_same_world(tmp_path: Path) -> None:
    images = scene([PINHOLE])
    write_transforms(images, tmp_path / "transforms.json")
    name = json.loads((tmp_path / "transforms.json").read_text())["ply_file_path"]
    header, _, body = (tmp_path / name).read_bytes().partition(b"end_header\n")
    assert header.splitlines()[:3] == [b"ply", b"format binary_little_endian 1.0", b"element vertex 40"]
    rows = [struct.unpack_from("<3f3B", body, 15 * index) for index in range(40)]
    np.testing.assert_allclose(rows, np.column_stack([images.points.xyz, images.points.rgb]), rtol=1e-6)


def test_synthetic_scenes_with_an_angle_of_view_are_read_with_the_size_of_their_images(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "r_0.png")
    frame = {"file_path": "./r_0", "transform_matrix": np.eye(4).tolist()}
    (tmp_path / "transforms_train.json").write_text(json.dumps({"camera_angle_x": np.pi / 2, "frames": [frame]}))
    images = read_transforms(tmp_path / "transforms_train.json")
    np.testing.assert_allclose(images.intrinsics[0], [[40, 0, 40], [0, 40, 30], [0, 0, 1]])
    np.testing.assert_array_equal(images.world_from_camera[0, :3, 2], [0, 0, -1])  # it looks along -z


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frames": []}, "it has no frames; name a file that has some"),
        ({"frames": [{"file_path": "a.png"}]}, r"is no transforms.json \(it has no 'transform_matrix'\)"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], [3, 4]]}]}, "is not 4 x 4 numbers"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": (5 * np.eye(4)).tolist()}]}, "has no rotation"),
        ({"camera_model": "OPENCV_FISHEYE"}, r"the lens of images/frame_000.png \(OPENCV_FISHEYE\) is not read; undistort"),
        ({"fl_x": -3.0}, "the focal length of images/frame_000.png is -3"),
        ({"fl_x": "wide"}, "the lens of images/frame_000.png cannot be read"),
        ({"w": 0}, "tells no w and h and images/frame_000.png does not lie beside it"),
    ],
)
def test_transforms_that_are_none_are_refused_in_a_sentence(tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "transforms.json"
    write_transforms(scene([PINHOLE]), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WorldlineError, match=told):
        read_transforms(path)
    path.write_text("frames!")
    with pytest.raises(WorldlineError, match=r"is no transforms\.json"):
        read_transforms(path)


def test_evo_reads_our_trajectories_and_we_read_evos(tmp_path: Path) -> None:
    poses, times_s = scene([PINHOLE] * 9).world_from_camera, np.arange(9) * 0.1 + 1 / 3
    write_tum(times_s, poses, tmp_path / "a.tum")
    theirs = file_interface.read_tum_trajectory_file(tmp_path / "a.tum")
    np.testing.assert_allclose(theirs.poses_se3, poses, atol=1e-12)
    np.testing.assert_array_equal(theirs.timestamps, times_s)
    file_interface.write_tum_trajectory_file(tmp_path / "b.tum", theirs)
    for name in ("a.tum", "b.tum"):
        again_s, again = read_tum(tmp_path / name)
        np.testing.assert_allclose(again, poses, atol=1e-12)
        np.testing.assert_allclose(again_s, times_s, atol=1e-12)

    write_kitti(poses, tmp_path / "a.txt")
    path = file_interface.read_kitti_poses_file(tmp_path / "a.txt")
    np.testing.assert_allclose(path.poses_se3, poses, atol=1e-12)
    file_interface.write_kitti_poses_file(tmp_path / "b.txt", path)
    for name in ("a.txt", "b.txt"):
        np.testing.assert_allclose(read_kitti(tmp_path / name), poses, atol=1e-12)


@pytest.mark.parametrize(
    ("read", "lines", "told"),
    [
        (read_tum, "", "has no line of a TUM trajectory; each needs 8 numbers"),
        (read_tum, "# a comment\n0 1 2 3 0 0 0 1\n1 1 2 3 0 0 0\n", "line 3 is not one of a TUM trajectory"),
        (read_tum, "1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "its times do not increase after 1 s; sort"),
        (read_tum, "1 0 0 0 0 0 0 0\n", "is no quaternion"),
        (read_kitti, "1 0 0 0 0 1 0 0 0 0 1\n", "line 1 is not one of a KITTI trajectory; it needs 12 numbers"),
        (read_kitti, "2 0 0 0 0 1 0 0 0 0 1 0\n", "pose 1 has no rotation"),
        (read_kitti, "1 0 0 0 0 nan 0 0 0 0 1 0\n", "line 1 is not one of a KITTI trajectory"),
        (read_kitti, "\x89PNG", "line 1 is not one of a KITTI trajectory"),
    ],
)
def test_trajectories_that_are_none_are_refused_in_a_sentence(tmp_path: Path, read, lines: str, told: str) -> None:
    (tmp_path / "path.txt").write_text(lines)
    with pytest.raises(WorldlineError, match=told):
        read(tmp_path / "path.txt")
    with pytest.raises(WorldlineError, match="cannot be read"):
        read(tmp_path / "none.txt")


def test_an_image_name_with_a_space_is_refused_where_colmap_would_cut_it(tmp_path: Path) -> None:
    images = dataclasses.replace(scene([PINHOLE]), names=("my photo.png",))
    with pytest.raises(WorldlineError, match="no image name with spaces"):
        write_colmap(images, tmp_path)
