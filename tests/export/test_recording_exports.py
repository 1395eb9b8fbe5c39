"""Clips of a version go out as Rerun recordings and as a LeRobot dataset, and Rerun reads both back."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from exported_street import write
from rerun.chunk import RrdReader
from rerun.experimental import LeRobotReader

from benchmarks.labels_exports import difference, read_rerun
from benchmarks.labels_street import COUNT, TIMES_S, made_clip, made_path, made_questions, publish_street
from schemas.errors import WorldlineError
from worldline.label_files.lerobot_dataset import common_size_and_rate, facts_at_rate, frames_at_rate


def chunks(path: Path) -> dict[tuple[str, bool, str], list[Any]]:
    """Return the values of every column by entity, whether it is static, and its name."""
    found: dict[tuple[str, bool, str], list[Any]] = {}
    for chunk in RrdReader(path).stream().to_chunks():
        for name, values in chunk.to_record_batch().to_pydict().items():
            if name != "rerun.controls.RowId":
                found.setdefault((chunk.entity_path, chunk.is_static, name), []).extend(values)
    return found


# -- Rerun -------------------------------------------------------------------------------------------------------------


def test_rerun_gives_back_camera_objects_and_questions_at_their_times(street, tmp_path):
    write(street, "rerun", tmp_path / "out")
    assert difference(*read_rerun(tmp_path / "out", tmp_path)) < 1e-5  # Rerun keeps 32 bits


def test_a_recording_holds_lens_video_boxes_and_speeds_and_one_timeline(street, tmp_path):
    write(street, "rerun", tmp_path / "out")
    found = chunks(tmp_path / "out" / "recordings" / "free.rrd")
    shown = [int(value[0]) for value in found["/world/camera/image", False, "VideoFrameReference:timestamp"]]
    assert np.abs(np.array(shown) / 1e9 - TIMES_S).max() < 1e-6
    blob = bytes(found["/world/camera/image", True, "AssetVideo:blob"][0][0])
    assert blob == (tmp_path / "out" / "videos" / "free.mp4").read_bytes()
    lens = np.array(found["/world/camera/image", True, "Pinhole:image_from_camera"][0][0]).reshape(3, 3).T  # by columns
    assert np.allclose(lens, made_path().intrinsics)
    assert np.allclose(found["/world/objects/1", False, "Boxes3D:half_sizes"], [[[2.1, 0.9, 0.75]]] * COUNT)
    assert found["/world/objects/1", True, "Boxes3D:labels"] == [["red car 1"]]
    assert ("/world/objects/3", False, "Boxes3D:centers") not in found  # no size, so a point
    assert np.allclose(found["/speed/0", False, "Scalars:scalars"], [[8.0]] * 6)
    assert {name for _, _, name in found if "time" in name and ":" not in name} == {"clip_time"}


def test_two_recordings_of_a_version_hold_the_same_data(street, tmp_path):
    for name in ("one", "two"):
        write(street, "rerun", tmp_path / name)
    one, two = (chunks(tmp_path / name / "recordings" / "free.rrd") for name in ("one", "two"))
    assert one == two


def test_a_clip_without_camera_path_and_tracks_has_its_video_and_questions(tmp_path):
    catalog = publish_street(tmp_path / "home", {"path": None, "tracks": None, "kinematics": None})
    write(catalog, "rerun", tmp_path / "out", licence="commercial")
    entities = {entity for entity, _, _ in chunks(tmp_path / "out" / "recordings" / "free.rrd")}
    assert entities == {"/world", "/world/camera/image", "/labels"}


def test_an_annotated_log_without_video_has_a_recording(tmp_path):
    catalog = publish_street(tmp_path / "home", {"clip": None})
    write(catalog, "rerun", tmp_path / "out", licence="commercial")
    found = chunks(tmp_path / "out" / "recordings" / "free.rrd")
    assert ("/world/camera/image", True, "AssetVideo:blob") not in found
    assert len(found["/world/objects/1", False, "Boxes3D:centers"]) == COUNT


def test_without_rerun_the_format_says_what_to_install(street, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(WorldlineError, match=r"needs the package rerun-sdk: pip install 'worldline\[rerun\]'"):
        write(street, "rerun", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


# -- LeRobot -----------------------------------------------------------------------------------------------------------


def test_rerun_reads_the_lerobot_dataset_episode_by_episode(street, tmp_path):
    write(street, "lerobot", tmp_path / "out")
    reader = LeRobotReader(tmp_path / "out")
    assert reader.version == "v3"
    assert reader.episodes() == [0, 1]
    for episode in reader.episodes():
        found: dict[str, list[Any]] = {}
        for chunk in reader.stream(episode).to_chunks():
            for name, values in chunk.to_record_batch().to_pydict().items():
                found.setdefault(f"{chunk.entity_path} {name}", []).extend(values)
        states = np.array(found["/observation.state Scalars:scalars"])
        ticks = np.arange(29) / 10
        nearest = TIMES_S[np.abs(TIMES_S[None] - ticks[:, None]).argmin(1)]
        assert np.abs(states[:, 0] - 8.0 * nearest).max() < 1e-5
        assert len([value for value in found["/observation.images.front VideoStream:sample"] if value]) == 29


def test_a_lerobot_dataset_says_of_itself_what_its_files_hold(street, tmp_path):
    write(street, "lerobot", tmp_path / "out")
    root = tmp_path / "out"
    info = json.loads((root / "meta" / "info.json").read_text())
    episodes = pq.read_table(root / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 10, 2, 58)
    assert pandas.read_parquet(root / "meta" / "tasks.parquet").index.tolist() == episodes[0]["tasks"]
    for row in episodes:
        numbers = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        table = pq.read_table(root / info["data_path"].format(**numbers))
        assert table["index"].to_pylist() == list(range(row["dataset_from_index"], row["dataset_to_index"]))
        with av.open(str(root / info["video_path"].format(**numbers, video_key="observation.images.front"))) as container:
            times = [float(frame.time) for frame in container.decode(video=0)]
        assert np.abs(np.array(times) - table["timestamp"].to_numpy()).max() < 1e-4
        assert set(table.schema.names) == set(info["features"]) - {"observation.images.front"}
    stats = json.loads((root / "meta" / "stats.json").read_text())
    assert set(stats) == set(info["features"])
    assert stats["observation.state"]["max"][0] == pytest.approx(8.0 * 2.8, abs=0.01)
    assert np.array(stats["observation.images.front"]["mean"]).shape == (3, 1, 1)


def test_frames_are_those_nearest_to_the_ticks_of_the_rate():
    times = np.array([0.0, 0.1, 0.25, 0.3, 0.6])
    ticks = np.arange(7) / 10  # 0 0.1 0.2 0.3 0.4 0.5 0.6
    expected = [int(np.abs(times - tick).argmin()) for tick in ticks]
    assert frames_at_rate(times, 10).tolist() == expected
    assert frames_at_rate(np.array([3.0]), 10).tolist() == [0]


def test_labels_of_a_lerobot_dataset_name_the_frames_of_its_episodes(street, tmp_path):
    write(street, "lerobot", tmp_path / "out")
    rows = pandas.read_parquet(tmp_path / "out" / "label_facts.parquet")
    assert len(rows) == 2 * made_questions("free").rows.num_rows
    expected = [round(10 * TIMES_S[frame]) for frame in (5, 25)]
    assert all(list(frames) == expected for frames in rows["frames"])
    assert set(rows["video_fps"]) == {10.0}


def test_labels_without_frames_stay_without():
    import pyarrow as pa

    facts = pa.table({"frames": pa.array([[0, 2], None, [1]], pa.list_(pa.int32())), "video_fps": [1.0, 1.0, 1.0]})
    moved = facts_at_rate(facts, np.array([0.0, 0.5, 1.0]), 4)
    assert moved["frames"].to_pylist() == [[0, 4], None, [2]]


def test_clips_of_another_size_have_no_place_and_are_counted(tmp_path):
    assert common_size_and_rate([((4, 2), 10.0), ((8, 2), 20.0), ((4, 2), 12.0)]) == ((4, 2), 11)
    catalog = publish_street(tmp_path / "home", {"clip": made_clip("free", width=120)})
    report = write(catalog, "lerobot", tmp_path / "out")
    dropped = json.loads((tmp_path / "out" / "dropped.json").read_text())
    assert {"what": "clips", "reason": "other_frame_size", "count": 1} in dropped
    assert report.rows["clips"] == 1


def test_the_same_version_gives_the_same_lerobot_bytes(street, tmp_path):
    for name in ("one", "two"):
        write(street, "lerobot", tmp_path / name)
    assert (tmp_path / "one" / "SHA256SUMS").read_text() == (tmp_path / "two" / "SHA256SUMS").read_text()
