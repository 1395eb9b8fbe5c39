"""Mirrored copies of clips in a published version: made, named, labelled, and flipped in what is exported."""

import json

import av
import numpy as np
import pytest
from PIL import Image

import flows.pseudo_labels
from catalogs.catalog import Catalog
from flows.building import run_flow
from flows.command_line import main
from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.errors import WorldlineError
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks

LOOKING_ALONG_X = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def standing_camera(times):
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = LOOKING_ALONG_X
    lens = np.array([[50.0, 0.0, 48.0], [0.0, 50.0, 27.0], [0.0, 0.0, 1.0]])
    seen = np.ones(len(times), bool)
    return CameraPath(times, poses, seen, lens, np.zeros(4), 96, 54, "static", "given", 0.0, "given", 0.0, 0.0)


def car_that_drives_left(times):
    count = len(times)
    columns = dict.fromkeys(TRACK_SAMPLES.names, [None] * count)
    columns |= {"track_id": [1] * count, "frame": list(range(count)), "time_s": times, "visible": [1.0] * count}
    columns |= {"x": [20.0] * count, "y": -6.0 + 3.0 * times, "z": [0.0] * count, "range": np.hypot(20.0, -6.0 + 3.0 * times)}
    columns |= {"x0_px": 60.0 - 7.0 * times, "x1_px": 66.0 - 7.0 * times, "y0_px": [25.0] * count, "y1_px": [29.0] * count}
    columns |= {name: [1e-4] * count for name in ("cov_xx", "cov_yy", "cov_zz")} | {"touches_border": [False] * count}
    one = {
        "track_id": [1],
        "class_name": ["car"],
        "colour": ["red"],
        "first_s": times[:1],
        "last_s": times[-1:],
        "samples": [count],
    }
    return Tracks(make_table(TRACK_SAMPLES, columns), make_table(TRACK_OBJECTS, one), "boxes", "given", 0.0, "given")


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """A build whose tracks are given, of frames that are white on their left and black on their right."""
    (tmp_path / "frames").mkdir()
    picture = np.zeros((54, 96, 3), np.uint8)
    picture[:, :48] = 255
    for index in range(41):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{index:03}.png")

    def label_clip(build, source, clip, truth, rig_clip):
        times = build.catalog.load(clip.digest).times_s
        made = {"clip": clip, "path": build._given(standing_camera(times)), "tracks": build._given(car_that_drives_left(times))}
        (kinematics,) = build.run("label.kinematics", tracks=made["tracks"], path=made["path"])
        (questions,) = build.run("label.questions", kinematics=kinematics, tracks=made["tracks"], path=made["path"])
        return made | {"kinematics": kinematics, "questions": questions}

    monkeypatch.setattr(flows.pseudo_labels, "label_clip", label_clip)
    overrides = (f"source={tmp_path / 'frames'}", "name=mirrors", "mirror=true", "execute=local")
    run_flow("pseudo_labels", overrides, tmp_path / "home", quiet=True)
    return tmp_path / "home"


def test_a_clip_and_its_mirror_image_are_labelled_and_exported_flipped(mirrored, tmp_path):
    version = Catalog.open(mirrored).dataset("mirrors")
    assert {role.partition("/")[0] for role in version.artifacts} == {"original", "mirrored"}
    rows = {}
    for name in ("original", "mirrored"):
        table = Catalog.open(mirrored).load(version.artifacts[f"{name}/questions"]).rows.to_pylist()
        rows[name] = {row["answer"] for row in table if row["kind"] == "translation" and row["track_ids"] == [1]}
    assert rows == {"original": {"left"}, "mirrored": {"right"}}

    assert main(["export", "mirrors", "llava", str(tmp_path / "out"), "--home", str(mirrored)]) == 0
    splits = {path.stem.rpartition("-")[2]: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    videos = {item["video"] for rows in splits.values() for item in rows if isinstance(item, dict) and "video" in item}
    assert len(videos) == 2
    for video in videos:
        with av.open(str(tmp_path / "out" / video)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="gray")
        assert (frame[:, :40].mean() > frame[:, 56:].mean()) == ("mirrored" not in video)


def test_the_switch_is_true_or_false(tmp_path):
    with pytest.raises(WorldlineError, match="mirror=7 is not valid: give true or false"):
        run_flow("pseudo_labels", ("mirror=7",), tmp_path, explain=True)
