"""LeRobot datasets, version 3.0: an episode per clip, its video and the camera's pose per frame (huggingface/lerobot).

LeRobot knows one frame rate and one frame size per dataset. Frames are those nearest to the ticks of the rate; clips of
another size than most have no place. The state is the camera's pose, NaN where it is not known; there is no action. Which
episode is which clip is a column of `meta/episodes`.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation

from schemas.clips import Clip
from worldline.label_files.labelled_clip import Encode, LabelledClip

VIDEO = "observation.images.front"
STATE = ("x", "y", "z", "qw", "qx", "qy", "qz")
TASK = "Watch the street and say how everything in it moves."
_PER_CHUNK = 1000
_STATS_FRAMES = 20


def common_size_and_rate(clips: Sequence[tuple[tuple[int, int], float]]) -> tuple[tuple[int, int], int]:
    """Return the (width, height) of most clips, and the whole number of frames per second nearest to their median rate.

    Args:
        clips: size and mean frame rate of each.
    """
    size = sorted(Counter(size for size, _ in clips).items(), key=lambda item: (-item[1], item[0]))[0][0]
    return size, max(1, round(float(np.median([rate for own, rate in clips if own == size]))))


@dataclass
class LerobotWriter:
    """Writes episodes one by one, and at the end what is said of all of them.

    Attributes:
        folder: of the dataset.
        fps: frames per second.
        size: (width, height) of the frames.
        encode: writes a video.
        episodes: rows of `meta/episodes` so far.
        splits: split of each episode; episodes of a split must come one after the other.
        states, pictures: what statistics are made of.
    """

    folder: Path
    fps: int
    size: tuple[int, int]
    encode: Encode
    episodes: list[dict[str, Any]] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def add(self, item: LabelledClip) -> str:
        """Write one clip as the next episode; return where its video lies."""
        assert item.clip is not None
        number = len(self.episodes)
        chunk, file = divmod(number, _PER_CHUNK)
        place = f"chunk-{chunk:03d}/file-{file:03d}"
        frames = frames_at_rate(item.times_s, self.fps)
        count, start = len(frames), self.episodes[-1]["dataset_to_index"] if self.episodes else 0
        state = _states(item)[frames]
        table = pa.table(
            {
                "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel(), pa.float32()), len(STATE)),
                "timestamp": pa.array(np.arange(count) / self.fps, pa.float32()),
                "frame_index": np.arange(count),
                "episode_index": np.full(count, number),
                "index": np.arange(start, start + count),
                "task_index": np.zeros(count, np.int64),
            }
        )
        data, video = self.folder / f"data/{place}.parquet", f"videos/{VIDEO}/{place}.mp4"
        for path in (data, self.folder / video):
            path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, data)
        self.encode(self.folder / video, _in_order(item.clip, frames), np.arange(count) / self.fps)
        self.episodes.append(
            {"episode_index": number, "tasks": [TASK], "length": count, "data/chunk_index": chunk, "data/file_index": file,
             "dataset_from_index": start, "dataset_to_index": start + count, f"videos/{VIDEO}/chunk_index": chunk,
             f"videos/{VIDEO}/file_index": file, f"videos/{VIDEO}/from_timestamp": 0.0,
             f"videos/{VIDEO}/to_timestamp": count / self.fps, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
             "clip": item.name}
        )  # fmt: skip
        self.splits.append(item.split)
        self.states.append(state)
        spread = np.unique(np.linspace(0, len(item.times_s) - 1, _STATS_FRAMES).astype(int))
        self.pictures.append(item.clip.frames.at(spread.tolist()).reshape(-1, 3) / 255.0)
        return video

    def finish(self) -> None:
        """Write `meta/`: info, tasks, episodes and statistics."""
        meta = self.folder / "meta"
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.episodes), meta / "episodes" / "chunk-000" / "file-000.parquet")
        _write_tasks(meta / "tasks.parquet")
        lengths = np.array([row["length"] for row in self.episodes])
        (meta / "info.json").write_text(json.dumps(self._info(int(lengths.sum())), indent=4) + "\n")
        numbers = {
            "timestamp": np.concatenate([np.arange(length) / self.fps for length in lengths])[:, None],
            "frame_index": np.concatenate([np.arange(length) for length in lengths])[:, None],
            "episode_index": np.repeat(np.arange(len(lengths)), lengths)[:, None],
            "index": np.arange(lengths.sum())[:, None],
            "task_index": np.zeros((int(lengths.sum()), 1)),
            "observation.state": np.concatenate(self.states),
        }
        stats: dict[str, Any] = {name: _stats(values) for name, values in numbers.items()}
        pictures = _stats(np.concatenate(self.pictures))
        stats[VIDEO] = {name: values if name == "count" else [[[value]] for value in values] for name, values in pictures.items()}
        (meta / "stats.json").write_text(json.dumps(stats, indent=4) + "\n")

    def _info(self, frames: int) -> dict[str, Any]:
        width, height = self.size[0] + self.size[0] % 2, self.size[1] + self.size[1] % 2  # as encoded
        one: dict[str, Any] = {"shape": [1], "names": None}
        video = {"video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                 "video.is_depth_map": False, "video.fps": self.fps, "video.channels": 3, "has_audio": False}  # fmt: skip
        features: dict[str, Any] = {
            VIDEO: {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": video},
            "observation.state": {"dtype": "float32", "shape": [len(STATE)], "names": list(STATE)},
            "timestamp": {"dtype": "float32", **one},
        }
        features |= {name: {"dtype": "int64", **one} for name in ("frame_index", "episode_index", "index", "task_index")}
        splits, start = {}, 0
        for split in dict.fromkeys(self.splits):
            count = self.splits.count(split)
            splits[split], start = f"{start}:{start + count}", start + count
        return {
            "codebase_version": "v3.0", "robot_type": "car", "total_episodes": len(self.episodes), "total_frames": frames,
            "total_tasks": 1, "chunks_size": _PER_CHUNK, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
            "fps": self.fps, "splits": splits,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "features": features,
        }  # fmt: skip


def frames_at_rate(times_s: np.ndarray, fps: int) -> np.ndarray:
    """Return the frames nearest in time to the ticks of a rate, from the first frame on to the last."""
    ticks = times_s[0] + np.arange(int((times_s[-1] - times_s[0]) * fps + 1e-6) + 1) / fps
    after = np.clip(np.searchsorted(times_s, ticks), 1, max(len(times_s) - 1, 1))
    if len(times_s) == 1:
        return np.zeros(len(ticks), np.int64)
    return np.where(ticks - times_s[after - 1] <= times_s[after] - ticks, after - 1, after)


def facts_at_rate(facts: pa.Table, times_s: np.ndarray, fps: int) -> pa.Table:
    """Return `LABEL_FACTS` with the frames of the episode instead of those of the clip, and its frame rate."""
    frames = facts["frames"].combine_chunks()
    known = frames.flatten().to_numpy()
    ticks = np.rint((times_s[np.clip(known, 0, len(times_s) - 1)] - times_s[0]) * fps).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(frames.value_lengths().fill_null(0).to_numpy())]).astype(np.int32)
    moved = pa.ListArray.from_arrays(offsets, ticks, mask=frames.is_null())
    facts = facts.set_column(facts.schema.get_field_index("frames"), "frames", moved)
    rate = pa.array(np.full(len(facts), float(fps)))
    return facts.set_column(facts.schema.get_field_index("video_fps"), "video_fps", rate)


def _in_order(clip: Clip, frames: np.ndarray) -> Any:
    """Yield frames of growing index, some several times, decoding each once."""
    wanted = iter(frames.tolist())
    following = next(wanted, None)
    for index, frame in enumerate(clip.frames):
        while following == index:
            yield frame
            following = next(wanted, None)


def _states(item: LabelledClip) -> np.ndarray:
    """Return `[T, 7]` position and quaternion wxyz of the camera, NaN where its pose is not known."""
    states = np.full((len(item.times_s), len(STATE)), np.nan)
    if item.path is not None and item.path.registered.any():
        poses = item.path.world_from_camera[item.path.registered]
        turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat(scalar_first=True, canonical=True)
        states[item.path.registered] = np.hstack([poses[:, :3, 3], turns])
    return states


def _stats(values: np.ndarray) -> dict[str, list[float]]:
    """Return what LeRobot keeps of a feature; where nothing is known, zeros and a count of 0."""
    known = values[np.isfinite(values).all(1)]
    if not len(known):
        known = np.zeros((1, values.shape[1]))
    quantiles = {f"q{percent:02d}": np.quantile(known, percent / 100, axis=0).tolist() for percent in (1, 10, 50, 90, 99)}
    return {"min": known.min(0).tolist(), "max": known.max(0).tolist(), "mean": known.mean(0).tolist(),
            "std": known.std(0).tolist(), "count": [int(np.isfinite(values).all(1).sum())], **quantiles}  # fmt: skip


def _write_tasks(path: Path) -> None:
    """Write the table of tasks as pandas would, with the task as its index."""
    index = "__index_level_0__"
    columns = [{"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
                "metadata": None},
               {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object",
                "metadata": None}]  # fmt: skip
    table = pa.table({"task_index": pa.array([0], pa.int64()), index: pa.array([TASK], pa.string())})
    told = {"index_columns": [index], "column_indexes": [], "columns": columns, "creator": {"library": "pyarrow"}}
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(told)}), path)
