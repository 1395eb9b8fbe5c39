"""Every export of labels, opened by the reader of its own ecosystem, and the numbers that come back against the truth."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.harness import Figure, figure
from benchmarks.label_readers import read_apart
from benchmarks.labels_street import (
    AXES,
    CLASSES,
    LICENCES,
    SIZES,
    TIMES_S,
    YAW_RAD,
    artifacts_of,
    made_path,
    place,
    project,
    publish_street,
)
from catalogs.exports import FORMATS, export
from tasks.exporting_labels import label_formats

Numbers = dict[tuple[Any, ...], Any]


# -- the truth -----------------------------------------------------------------------------------------------------------


def true_labels() -> Numbers:
    """Return (answer, number) of every question of the street by its id."""
    rows = [row for clip in LICENCES for row in artifacts_of(clip)["questions"].rows.to_pylist()]  # type: ignore[attr-defined]
    return {(row["question_id"],): (row["answer"], row["answer_value"]) for row in rows}


def true_boxes(frames: list[int] | None = None) -> Numbers:
    """Return centre, size and heading of every object with a size, by clip, frame and track."""
    found: Numbers = {}
    for clip in LICENCES:
        for frame in range(len(TIMES_S)) if frames is None else frames:
            for number, (length, width, height) in SIZES.items():
                centre = place(number, TIMES_S[frame]) + np.array([0, 0, height / 2])
                found[clip, frame, number] = np.array([*centre, length, width, height, YAW_RAD[number]])
    return found


# -- the readers ---------------------------------------------------------------------------------------------------------


def read_llava(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read the JSON with Hugging Face's reader, as trainers do."""
    found: Numbers = {}
    for entry in json.loads((folder / "qwen_datasets.json").read_text()).values():
        for row in _load_json(folder / entry["annotation_path"], work):
            found[(row["id"],)] = (
                row["conversations"][1]["value"] if _has_tokens(folder, row["conversations"], [row["video"]]) else None
            )
    return found, {key: answer for key, (answer, _) in true_labels().items()}


def read_sharegpt(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read the JSON by its `dataset_info.json`, column by column as LLaMA-Factory does."""
    found: Numbers = {}
    for entry in json.loads((folder / "dataset_info.json").read_text()).values():
        columns, tags = entry["columns"], entry["tags"]
        for row in _load_json(folder / entry["file_name"], work):
            turns = row[columns["messages"]]
            good = [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
            good = good and _has_tokens(folder, turns, row[columns["videos"]])
            found[(row["id"],)] = turns[1][tags["content_tag"]] if good else None
    return found, {key: answer for key, (answer, _) in true_labels().items()}


def read_video_folder(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read videos and labels with Hugging Face's VideoFolder."""
    import datasets

    found: Numbers = {}
    for split in datasets.load_dataset("videofolder", data_dir=str(folder / "data"), cache_dir=str(work / "cache")).values():
        for row in split.cast_column("video", datasets.Video(decode=False)):
            there = Path(row["video"]["path"]).is_file()
            found[(row["question_id"],)] = (row["answer"], row["answer_value"]) if there else None
    return found, true_labels()


def read_web_dataset(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read clips with webdataset."""
    import webdataset

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    rows = [row for sample in webdataset.WebDataset(shards, shardshuffle=False).decode() for row in sample["json"]["labels"]]
    return {(row["question_id"],): (row["answer"], row["answer_value"]) for row in rows}, true_labels()


def read_kitti(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read boxes with pykitti; they are brought back into the world by the true poses."""
    clips = {Path(row["file"]).stem: row["clip"] for row in json.loads((folder / "sequences.json").read_text())}
    classes, poses = {"Car": 1, "Pedestrian": 2}, made_path().world_from_camera
    found: Numbers = {}
    for box in read_apart("kitti-tracking", folder, work)["boxes"]:
        pose, (height, width, length) = poses[box["frame"]], box["size_hwl"]
        bottom = pose[:3, :3] @ box["bottom"] + pose[:3, 3]
        heading = AXES @ [np.cos(box["turn"]), 0.0, -np.sin(box["turn"])]  # in the image's plane: leans with the camera
        key = clips[box["clip"]], box["frame"], classes[box["class"]]
        found[key] = np.array([*bottom + np.array([0, 0, height / 2]), length, width, height, np.arctan2(heading[1], heading[0])])
    return found, true_boxes()


def read_argoverse(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read logs with av2, and project the centres with its camera."""
    classes, poses = {"REGULAR_VEHICLE": 1, "PEDESTRIAN": 2}, made_path().world_from_camera
    found: Numbers = {}
    true = true_boxes()
    for box in read_apart("argoverse2", folder, work)["boxes"]:
        frame = int(np.abs(TIMES_S * 1e9 - box["timestamp_ns"]).argmin())
        key = box["clip"], frame, classes[box["category"]]
        found[key] = np.array([*box["in_world"], *box["size_lwh"], box["yaw_rad"], *box["pixel"], box["picture"]])
        true[key] = np.array([*true[key][:7], *project(true[key][None, :3], poses[frame])[0], True])
    return found, true


def read_nuscenes(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read scenes with the devkit: boxes in the camera and in the world, and the velocities that it computes."""
    classes, poses = {"vehicle.car": 1, "human.pedestrian.adult": 2}, made_path().world_from_camera
    keys = [int(np.abs(TIMES_S - time_s).argmin()) for time_s in np.arange(0, TIMES_S[-1], 0.5)]
    found: Numbers = {}
    true = true_boxes(keys)
    for box in read_apart("nuscenes", folder, work)["boxes"]:
        frame = int(np.abs(TIMES_S * 1e6 - box["timestamp_us"]).argmin())
        number, (width, length, height) = classes[box["category"]], box["size_wlh"]
        key = box["clip"], frame, number
        found[key] = np.array([*box["in_world"], length, width, height, box["yaw_rad"], *box["in_camera"], *box["velocity"]])
        in_camera = poses[frame, :3, :3].T @ (true[key][:3] - poses[frame, :3, 3])
        true[key] = np.array([*true[key][:7], *in_camera, *([10.0, 0.9, 0.0] if number == 1 else [0.0, 0.0, 0.0])])
    return found, true


def read_rerun(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read recordings with Rerun: places of camera and objects at every time, and the questions."""
    from rerun.chunk import RrdReader

    found: Numbers = {}
    for clip in LICENCES:
        for chunk in RrdReader(folder / "recordings" / f"{clip}.rrd").stream().to_chunks():
            rows = chunk.to_record_batch().to_pydict()
            for column in ("Transform3D:translation", "Boxes3D:centers", "Points3D:positions", "TextLog:text"):
                for time, value in zip(rows.get("clip_time", ()), rows.get(column, ()), strict=False):
                    key = clip, chunk.entity_path, round(time.total_seconds(), 4)
                    found[key] = sorted([*found.get(key, []), value[0]]) if column == "TextLog:text" else np.array(value[0])
    true: Numbers = {}
    for clip in LICENCES:
        rows = artifacts_of(clip)["questions"].rows.to_pylist()  # type: ignore[attr-defined]
        true[clip, "/labels", 0.5] = sorted(f"{row['question']} {row['answer']}" for row in rows)
        for frame, time_s in enumerate(TIMES_S):
            true[clip, "/world/camera", round(time_s, 4)] = made_path().world_from_camera[frame, :3, 3]
            for number in CLASSES:
                half = SIZES[number][2] / 2 if number in SIZES else 0.0
                true[clip, f"/world/objects/{number}", round(time_s, 4)] = place(number, time_s) + np.array([0, 0, half])
    return found, true


def read_lerobot(folder: Path, work: Path) -> tuple[Numbers, Numbers]:
    """Read episodes with LeRobot's own class: time and state of every frame, and the times in the video."""
    said = read_apart("lerobot", folder, work)
    found: Numbers = {}
    for row in said["frames"]:
        shown = said["videos"][row["episode"]][row["frame"]]
        found[said["clips"][row["episode"]], row["frame"]] = np.array([row["time_s"], shown, *row["state"]])
    true: Numbers = {}
    turn = Rotation.from_matrix(AXES).as_quat(scalar_first=True, canonical=True)
    for clip in LICENCES:
        for tick in range(int(TIMES_S[-1] * said["fps"]) + 1):
            nearest = TIMES_S[np.abs(TIMES_S - tick / said["fps"]).argmin()]
            true[clip, tick] = np.array([tick / said["fps"], tick / said["fps"], 8.0 * nearest, 0.0, 0.0, *turn])
    return found, true


# With the largest difference that is allowed.
READERS: dict[str, tuple[Callable[[Path, Path], tuple[Numbers, Numbers]], float]] = {
    "llava": (read_llava, 0.0),
    "sharegpt": (read_sharegpt, 0.0),
    "videofolder": (read_video_folder, 0.0),
    "webdataset": (read_web_dataset, 0.0),
    "kitti-tracking": (read_kitti, 0.005),  # the heading leans with the camera, 5 degrees here
    "argoverse2": (read_argoverse, 1e-6),
    "nuscenes": (read_nuscenes, 1e-6),
    "rerun": (read_rerun, 1e-5),  # Rerun keeps 32 bits
    "lerobot": (read_lerobot, 1e-5),  # and so does LeRobot
}


def difference(found: Numbers, true: Numbers) -> float:
    """Return the largest difference of what was read from the truth; infinite where anything is missing, extra or other text."""
    if found.keys() != true.keys():
        return float("inf")
    worst = 0.0
    for key, value in true.items():
        if isinstance(value, np.ndarray):
            worst = max(worst, float(np.abs(found[key] - value).max()))
        elif found[key] != value:
            return float("inf")
    return worst


def _load_json(path: Path, work: Path) -> Any:
    import datasets

    return datasets.load_dataset("json", data_files={"train": str(path)}, cache_dir=str(work / "cache"))["train"]


def _has_tokens(folder: Path, turns: list[dict[str, str]], videos: list[str]) -> bool:
    """Whether there are as many `<video>` tokens as videos, and these are there."""
    tokens = sum(turn["value"].count("<video>") for turn in turns)
    return tokens == len(videos) and all((folder / video).is_file() for video in videos)


def measure_exports(folder: Path, quick: bool) -> list[Figure]:
    """Measure the share of formats whose own reader loads the export and gives back its numbers."""
    catalog = publish_street(folder / "home")
    told, good = [], 0
    for form, (read, allowed) in READERS.items():
        try:
            export(catalog, "street", form, folder / form, formats=FORMATS | label_formats())
            worst = difference(*read(folder / form, folder))
            good += worst <= allowed
            told.append(f"{form} {worst:.2g}" + ("" if worst <= allowed else f" (more than {allowed:g})"))
        except Exception as error:  # a reader of others may fail in any way; that is a figure too
            told.append(f"{form} failed: {type(error).__name__} {error}")
        shutil.rmtree(folder / form, ignore_errors=True)
    detail = f"largest difference of a number read back: {'; '.join(told)}"
    return [figure("labels.exports_loaded", good / len(READERS), "share", f"1 asked, of {len(READERS)} formats", detail)]
