"""How a path is recognised, which of its files are taken, and what is refused."""

from pathlib import Path

import pytest

from schemas.errors import WorldlineError
from stages.ingest.source import describe_source, natural_order


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_numbers_in_names_count_by_value() -> None:
    names = ["frame10.jpg", "frame2.jpg", "Frame1.jpg", "a.jpg", "7.jpg", "frame02b.jpg"]
    assert natural_order(names) == ["7.jpg", "a.jpg", "Frame1.jpg", "frame2.jpg", "frame02b.jpg", "frame10.jpg"]


def test_a_file_is_a_video_with_its_gps(tmp_path: Path) -> None:
    touch(tmp_path / "drive.mp4", tmp_path / "drive.gps.csv", tmp_path / "other.gps.csv")
    source = describe_source(tmp_path / "drive.mp4")
    assert (source.layout, source.name, sorted(source.files)) == ("video", "drive.mp4", ["drive.gps.csv", "drive.mp4"])


def test_a_folder_of_images_is_frames_with_their_times_and_nothing_else(tmp_path: Path) -> None:
    touch(*(tmp_path / "walk" / name for name in ("2.jpg", "10.jpg", "times.txt", "gps.csv", "notes.md", ".hidden.jpg")))
    source = describe_source(tmp_path / "walk")
    assert (source.layout, source.name) == ("frames", "walk")
    assert list(source.files) == ["2.jpg", "10.jpg", "times.txt", "gps.csv"]


def test_images_may_lie_in_a_folder_called_images(tmp_path: Path) -> None:
    touch(tmp_path / "walk" / "images" / "1.PNG", tmp_path / "walk" / "config.yaml")
    source = describe_source(str(tmp_path / "walk"))
    assert (source.layout, source.name, list(source.files)) == ("frames", "walk", ["1.PNG"])


def test_a_pandaset_scene_gives_one_camera_without_lidar(tmp_path: Path) -> None:
    scene = tmp_path / "002"
    names = ["00.jpg", "intrinsics.json", "poses.json", "timestamps.json"]
    touch(*(scene / "camera" / camera / name for camera in ("front_camera", "left_camera") for name in names))
    touch(scene / "lidar" / "00.npz", scene / "meta" / "gps.json", scene / "meta" / "timestamps.json", scene / "cuboids.csv.gz")
    source = describe_source(scene, camera="left_camera")
    expected = [f"camera/left_camera/{name}" for name in names] + ["cuboids.csv.gz", "meta/gps.json", "meta/timestamps.json"]
    assert (source.layout, source.name, list(source.files)) == ("pandaset", "002", expected)
    with pytest.raises(WorldlineError, match="no camera back_camera: it has front_camera, left_camera"):
        describe_source(scene, camera="back_camera")


def test_what_is_no_source_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "empty.mp4").touch()
    touch(tmp_path / "texts" / "a.txt", tmp_path / "videos" / "b.MP4")
    for path, message in [
        (tmp_path / "none", "there is no file or folder"),
        (tmp_path / "bare", "is empty"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "texts", "holds no images"),
        (tmp_path / "videos", "give one of its files, such as .*b.MP4"),
    ]:
        with pytest.raises(WorldlineError, match=message) as error:
            describe_source(path)
        assert str(path) in str(error.value)
