"""The command line: what a person meets who gives it bad input. One sentence on stderr, the right status, nothing left over."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from flows.command_line import main


def write_video(path: Path, frames: int) -> Path:
    pictures = np.random.default_rng(0).integers(0, 255, (frames, 36, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main([str(item) for item in arguments])
    except SystemExit as leaving:  # argparse
        status = int(leaving.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Build from a source that must be refused; return the sentence after checking that nothing half-made stays."""

    def build(*settings: str) -> str:
        home = tmp_path / "home"
        status, out, err = run(capsys, "build", "pseudo_labels", *settings, "--home", home, "--quiet")
        assert (status, out) == (1, "")
        assert err.startswith("worldline: ")
        assert err.count("\n") == 1
        leftovers = [path for folder in ("scratch", "locks", "objects/incoming", "reports") for path in (home / folder).glob("*")]
        assert leftovers == []
        if home.exists():
            assert json.loads(run(capsys, "datasets", "--home", home, "--json")[1]) == []
        return err

    return build


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "there is no file or folder"),
        ("empty.mp4", b"", "is empty (0 bytes)"),
        ("letter.mp4", b"Dear reader,\n" * 50, "letter.mp4 cannot be opened as a video"),
    ],
)
def test_what_is_no_video_is_refused_by_name(name, content, message, tmp_path, refused):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused(f"source={tmp_path / name}")


def test_a_video_that_was_cut_off_before_its_index_is_refused_by_name(tmp_path, refused):
    whole = write_video(tmp_path / "whole.mp4", 12).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    assert "half.mp4 cannot be opened as a video" in refused(f"source={tmp_path / 'half.mp4'}")


def test_one_frame_is_refused_because_it_has_no_motion(tmp_path, refused):
    assert "one frame has no motion" in refused(f"source={write_video(tmp_path / 'one.mp4', 1)}")


def test_a_damaged_image_is_named_as_the_person_knows_it(tmp_path, refused):
    folder = tmp_path / "walk"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"\x89PNG and nothing more")
    message = refused(f"source={folder}")
    assert "cannot read the image walk/a.png (no image format fits its bytes)" in message
    assert "objects" not in message


def test_a_device_is_not_a_file(refused):
    assert "/dev/zero is a device or pipe" in refused("source=/dev/zero")


def test_a_dataset_name_is_checked_before_any_work(tmp_path, refused):
    write_video(tmp_path / "two.mp4", 2)
    assert "cannot name a dataset" in refused(f"source={tmp_path / 'two.mp4'}", "name=../elsewhere")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [(), ("bild", "pseudo_labels"), ("build",), ("show", "x", "--hme", "y"), ("query",)])
def test_wrong_usage_ends_with_status_2_and_names_the_help(arguments, capsys):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "worldline --help" in err


@pytest.mark.parametrize("command", [("datasets",), ("show", "x"), ("query", "select 1"), ("lineage", "abcd"), ("verify",)])
def test_reading_where_no_workspace_is_says_so_and_makes_none(command, tmp_path, capsys):
    status, _, err = run(capsys, *command, "--home", tmp_path / "nothing")
    assert status == 1
    assert "there is no workspace at" in err
    assert not (tmp_path / "nothing").exists()


def test_a_home_that_is_a_file_is_refused(tmp_path, capsys):
    video = write_video(tmp_path / "two.mp4", 2)
    status, _, err = run(capsys, "build", "pseudo_labels", f"source={video}", "--home", video)
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot be used" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_home_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o555)
    status, _, err = run(capsys, "datasets", "--home", tmp_path / "locked")
    assert status == 1
    assert "cannot be used" in err


@pytest.mark.parametrize(
    "command",
    [("query", "selekt"), ("query", "select * from nowhere"), ("lineage", "zzzz"), ("lineage", "0"), ("show", "nothing")],
)
def test_a_question_without_an_answer_is_one_sentence(command, tmp_path, capsys):
    (tmp_path / "home").mkdir()
    status, out, err = run(capsys, *command, "--home", tmp_path / "home")
    assert (status, out) == (1, "")
    assert err.startswith("worldline: ")
    assert err.count("\n") == 1
