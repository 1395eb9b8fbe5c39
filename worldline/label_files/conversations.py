"""Questions as conversations about videos: the JSON that LLaVA and Qwen-VL fine-tuning read, and ShareGPT for LLaMA-Factory.

Every question is one conversation with one video, whose path is relative to the folder of the export; the number of `<video>`
tokens equals the number of videos. A question about a log without any video is text alone, with the log and the seconds that
it asks about beside it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worldline.label_files.labelled_clip import of_split


def write_llava(rows: Iterable[dict[str, Any]], folder: Path, name: str) -> None:
    """Write `train.json`, ... (a list of {id, video, conversations}), and `qwen_datasets.json` for Qwen-VL's fine-tuning.

    Args:
        rows: of `LABEL_FACTS`.
        folder: of the export.
        name: of the dataset.
    """
    told = list(rows)
    named = {}
    for split, own in of_split(told, [row["split"] for row in told]).items():
        turns = [
            {"id": row["question_id"], "conversations": _turns(row), "kind": row["kind"], **_where(row),
             **({"video": row["video"]} if row["video"] else {})}
            for row in own
        ]  # fmt: skip
        _write(folder / f"{split}.json", turns)
        named[f"{name}_{split}"] = {"annotation_path": f"{split}.json", "data_path": "."}
    _write(folder / "qwen_datasets.json", named)


def write_sharegpt(rows: Iterable[dict[str, Any]], folder: Path, name: str) -> None:
    """Write `train.json`, ... (a list of {conversations, videos}), and `dataset_info.json` for LLaMA-Factory.

    Args:
        rows: of `LABEL_FACTS`.
        folder: of the export; LLaMA-Factory's `dataset_dir` and `media_dir`.
        name: of the dataset.
    """
    told = list(rows)
    info = {}
    for split, own in of_split(told, [row["split"] for row in told]).items():
        turns = [
            {"conversations": _turns(row), "videos": [row["video"]] if row["video"] else [], "id": row["question_id"],
             "kind": row["kind"], **_where(row)}
            for row in own
        ]  # fmt: skip
        _write(folder / f"{split}.json", turns)
        info[f"{name}_{split}"] = {
            "file_name": f"{split}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "videos": "videos"},
            "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
        }
    _write(folder / "dataset_info.json", info)


def _turns(row: dict[str, Any]) -> list[dict[str, str]]:
    asked = f"<video>\n{row['question']}" if row["video"] else row["question"]
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": row["answer"]}]


def _where(row: dict[str, Any]) -> dict[str, Any]:
    """Return what tells which video, or which part of which log, a question is about."""
    if row["video"]:
        return {"fps": row["video_fps"], "video_sha256": row["video_sha256"]}
    return {"clip": row["clip"], "start_s": row["start_s"], "end_s": row["end_s"], "frames": row["frames"]}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
