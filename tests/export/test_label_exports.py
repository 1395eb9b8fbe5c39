"""Labels of a version go out in the formats that others train on, and come back through their readers with their numbers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pandas
import pytest
import webdataset
from exported_street import write

from benchmarks.labels_street import TIMES_S, artifacts_of, made_clip, made_path, made_questions, made_tracks, publish_street
from catalogs.governance import review
from catalogs.versions import publish
from flows.command_line import main
from schemas.errors import WorldlineError

TEXT = ("llava", "sharegpt", "videofolder", "webdataset")


def true_questions() -> dict[str, dict[str, Any]]:
    return {row["question_id"]: row for name in ("free", "bound") for row in artifacts_of(name)["questions"].rows.to_pylist()}


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), np.array([float(frame.time) for frame in frames])


# -- what every text format carries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TEXT)
def test_every_label_goes_out_with_its_facts_and_the_hash_and_rate_of_its_video(exported, form):
    rows = pandas.read_parquet(exported(form) / "label_facts.parquet")
    true = true_questions()
    assert set(rows["question_id"]) == set(true)
    for row in rows.to_dict("records"):
        told = true[row["question_id"]]
        assert (row["answer"], row["kind"], list(row["frames"])) == (told["answer"], told["kind"], told["frames"])
        assert row["answer_value"] == told["answer_value"] or told["answer_value"] is None
        assert (row["licence"], row["attribution"]) in {("CC-BY-4.0", "free people"), ("CC-BY-NC-4.0", "bound people")}
        assert row["producer"] == "toy.questions@3"
        assert row["video_fps"] == pytest.approx(29 / TIMES_S[-1])
    sure = rows[rows["answer_unit"] == "m"].iloc[0]
    assert sure["answer_sigma"] == pytest.approx((21.7 - 18.4) / 3.29)
    if form != "webdataset":
        for video, sha256 in set(zip(rows["video"], rows["video_sha256"], strict=True)):
            assert hashlib.sha256((exported(form) / video).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("form", TEXT)
def test_what_was_not_asked_is_counted_by_reason(exported, form):
    dropped = json.loads((exported(form) / "dropped.json").read_text())
    assert dropped == [{"what": "movement_direction", "reason": "near_bin_edge", "count": 8},
                       {"what": "traveled_distance", "reason": "static", "count": 2}]  # fmt: skip


@pytest.mark.parametrize("form", TEXT)
def test_only_what_may_be_sold_goes_out_commercially(street, tmp_path, form):
    report = write(street, form, tmp_path / "out", licence="commercial")
    assert (report.rows["labels"], report.rows["clips"], report.clips) == (6, 1, 1)
    assert set(pandas.read_parquet(tmp_path / "out" / "label_facts.parquet")["licence"]) == {"CC-BY-4.0"}
    assert "bound people" not in (tmp_path / "out" / "README.md").read_text()


def test_the_same_version_gives_the_same_bytes(street, exported, tmp_path):
    for form in TEXT:
        write(street, form, tmp_path / form)
        assert (tmp_path / form / "SHA256SUMS").read_text() == (exported(form) / "SHA256SUMS").read_text()


def test_frames_keep_their_times_and_pixels(exported):
    frames, times_s = decoded(exported("llava") / "videos" / "free.mp4")
    true = made_clip("free").frames.array().astype(float)
    assert np.abs(times_s - TIMES_S).max() < 1e-4
    assert np.sqrt(np.mean((frames - true) ** 2)) < 4  # of 255


def test_a_frame_of_odd_size_gains_a_row_or_column_and_moves_no_pixel(tmp_path):
    catalog = publish_street(tmp_path / "home", {"clip": made_clip("free", width=159)})
    write(catalog, "llava", tmp_path / "out")
    frames, _ = decoded(tmp_path / "out" / "videos" / "free.mp4")
    assert frames.shape == (30, 90, 160, 3)
    true = made_clip("free", width=159).frames.array().astype(float)
    assert np.sqrt(np.mean((frames[:, :, :159] - true) ** 2)) < 4


def test_labels_that_people_rejected_stay_in(tmp_path):
    catalog = publish_street(tmp_path / "home")
    gone = sorted(true_questions())[0]
    review(catalog, gone, "reject", reason="wrong car", author="me")
    publish(catalog, "street", {"source": "again"}, dict(catalog.dataset("street").artifacts), {})
    write(catalog, "llava", tmp_path / "out")
    assert gone not in set(pandas.read_parquet(tmp_path / "out" / "label_facts.parquet")["question_id"])


def test_a_folder_that_exists_is_refused_and_a_version_without_questions_leaves_nothing(tmp_path):
    catalog = publish_street(tmp_path / "home", {"questions": None})
    (tmp_path / "there").mkdir()
    with pytest.raises(WorldlineError, match="exists already"):
        write(catalog, "llava", tmp_path / "there")
    with pytest.raises(WorldlineError, match="there are no questions to export: choose parquet"):
        write(catalog, "llava", tmp_path / "out", licence="commercial")
    assert not list(tmp_path.glob("*out*"))


def test_the_command_writes_labels(street, tmp_path, capsys):
    assert main(["export", "street", "llava", str(tmp_path / "out"), "--home", str(street.home)]) == 0
    assert "labels" in capsys.readouterr().out
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "label_facts.parquet" in readme


# -- their readers -------------------------------------------------------------------------------------------------------


def loaded(folder: Path, cache: Path, **files: str) -> Any:
    return datasets.load_dataset(
        "json", data_files={name: str(folder / file) for name, file in files.items()}, cache_dir=str(cache)
    )


def test_llava_json_is_a_conversation_per_label_with_a_video_token_per_video(exported, tmp_path):
    folder = exported("llava")
    named = json.loads((folder / "qwen_datasets.json").read_text())
    true, seen = true_questions(), set()
    for entry in named.values():
        for row in loaded(folder, tmp_path, train=entry["annotation_path"])["train"]:
            human, model = row["conversations"]
            assert (human["from"], model["from"]) == ("human", "gpt")
            assert human["value"].count("<video>") == 1
            assert human["value"].removeprefix("<video>\n") == true[row["id"]]["question"]
            assert model["value"] == true[row["id"]]["answer"]
            assert (folder / entry["data_path"] / row["video"]).is_file()
            assert not Path(row["video"]).is_absolute()
            seen.add(row["id"])
    assert seen == set(true)


def test_sharegpt_is_found_through_its_dataset_info_as_llama_factory_does(exported, tmp_path):
    """LLaMA-Factory opens `file_name` with `datasets` and renames columns and roles as `columns` and `tags` say."""
    folder = exported("sharegpt")
    true, seen = true_questions(), set()
    for entry in json.loads((folder / "dataset_info.json").read_text()).values():
        assert entry["formatting"] == "sharegpt"
        tags = entry["tags"]
        for row in loaded(folder, tmp_path, train=entry["file_name"])["train"]:
            turns, videos = row[entry["columns"]["messages"]], row[entry["columns"]["videos"]]
            assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
            assert sum(turn[tags["content_tag"]].count("<video>") for turn in turns) == len(videos)
            assert all((folder / video).is_file() for video in videos)
            assert turns[1][tags["content_tag"]] == true[row["id"]]["answer"]
            seen.add(row["id"])
    assert seen == set(true)


def test_hugging_face_loads_the_video_folder_with_its_labels(exported, tmp_path):
    loaded = datasets.load_dataset("videofolder", data_dir=str(exported("videofolder") / "data"), cache_dir=str(tmp_path))
    true, seen = true_questions(), {}
    for split in loaded.values():
        for row in split.cast_column("video", datasets.Video(decode=False)):
            seen[row["question_id"]] = row
            assert hashlib.sha256(Path(row["video"]["path"]).read_bytes()).hexdigest() == row["video_sha256"]
    assert {key: row["answer_value"] for key, row in seen.items()} == {key: row["answer_value"] for key, row in true.items()}


def test_webdataset_streams_clips_with_labels_poses_and_tracks(exported):
    shards = sorted(str(path) for path in exported("webdataset").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert sorted(sample["__key__"] for sample in samples) == ["bound", "free"]
    tracks, path = made_tracks(), made_path()
    for sample in samples:
        told = sample["json"]
        assert {row["question_id"] for row in told["labels"]} <= set(true_questions())
        assert np.array_equal(sample["cameras.npy"], path.world_from_camera)
        assert hashlib.sha256(sample["mp4"]).hexdigest() == told["labels"][0]["video_sha256"]
        column = told["track_columns"].index("x")
        assert np.array_equal(sample["tracks.npy"][:, column], tracks.samples["x"].to_numpy())
        assert told["times_s"] == TIMES_S.tolist()
    assert sum(len(sample["json"]["labels"]) for sample in samples) == 2 * made_questions("free").rows.num_rows


@pytest.mark.parametrize("form", ["llava", "sharegpt"])
def test_questions_about_logs_without_video_go_out_as_text_that_says_which_seconds_of_which_log(tmp_path, form):
    bare = publish_street(tmp_path / "home", {"clip": None})
    write(bare, form, tmp_path / "out", licence="commercial")
    true = true_questions()
    rows = json.loads((tmp_path / "out" / "train.json").read_text())
    assert len(rows) == 6
    for row in rows:
        told = true[row["id"]]
        assert [turn["value"] for turn in row["conversations"]] == [told["question"], told["answer"]]
        assert (row["start_s"], row["end_s"], row["frames"]) == (told["start_s"], told["end_s"], told["frames"])
        assert row.get("videos", []) == []
        assert "video" not in row
    assert not (tmp_path / "out" / "videos").exists()
