"""One source or many: what a recipe's `source` stands for, and by which names its clips go."""

from pathlib import Path

import pytest

from schemas.errors import WorldlineError
from tasks.sources import list_clips


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("take10.mp4", "take2.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_one_source_is_a_clip_without_a_name(videos: Path) -> None:
    assert list_clips(str(videos / "take2.mp4")) == {"": str(videos / "take2.mp4")}
    assert list_clips("world:street") == {"": "world:street"}


def test_a_pattern_stands_for_its_files_in_natural_order(videos: Path) -> None:
    expected = {"take2": str(videos / "take2.mp4"), "take10": str(videos / "take10.mp4")}
    assert list_clips(str(videos / "*.mp4")) == expected
    assert list(list_clips(str(videos / "*.mp4"))) == ["take2", "take10"]


def test_a_folder_of_videos_stands_for_its_videos(videos: Path) -> None:
    assert set(list_clips(str(videos))) == {"take2", "take10"}


def test_a_folder_of_frames_is_one_clip_even_with_a_video_in_it(videos: Path) -> None:
    (videos / "0001.png").write_bytes(b"x")
    assert list_clips(str(videos)) == {"": str(videos)}


def test_a_list_may_mix_kinds_and_equal_names_are_numbered(videos: Path) -> None:
    other = videos / "other"
    other.mkdir()
    (other / "take2.mp4").write_bytes(b"y")
    given = [str(videos / "take2.mp4"), str(other / "take2.mp4"), "world:curve"]
    assert list_clips(given) == dict(zip(("take2", "take2-2", "curve"), given, strict=True))


def test_a_pattern_that_matches_nothing_is_refused(videos: Path) -> None:
    with pytest.raises(WorldlineError, match="matches no file"):
        list_clips(str(videos / "*.mov"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(videos: Path) -> None:
    (videos / "take[1].mp4").write_bytes(b"x")
    assert list_clips(str(videos / "take[1].mp4")) == {"": str(videos / "take[1].mp4")}
