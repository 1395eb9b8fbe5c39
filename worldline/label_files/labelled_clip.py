"""A clip with everything that was found in it: what the writers of this package take."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, UInt8

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import LidarSweeps, RoadMap, Trajectory
from schemas.labels import Kinematics, Questions
from schemas.tracks import Tracks

# Writes frames at their times as a video file.
Encode = Callable[[Path, Iterable[UInt8[np.ndarray, "H W 3"]], np.ndarray], None]

# One row per label, beside every export: what a trainer, or somebody who asks where a label came from, needs of it.
LABEL_FACTS = pa.schema(
    [
        ("question_id", pa.string()),
        ("clip", pa.string()),
        ("split", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("answer_value", pa.float64()),
        ("answer_unit", pa.string()),
        ("answer_end_value", pa.float64()),
        ("answer_p5", pa.float64()),
        ("answer_p95", pa.float64()),
        ("answer_sigma", pa.float64()),  # of a normal distribution with this 90 % interval
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frames", pa.list_(pa.int32())),  # of the video: start, end
        ("track_ids", pa.list_(pa.int32())),
        ("wording", pa.int32()),
        ("requires_level", pa.int32()),
        ("metric", pa.bool_()),
        ("scale_source", pa.string()),
        ("scale_sigma", pa.float64()),
        ("options", pa.list_(pa.string())),
        ("reference", pa.string()),
        ("fx_px", pa.float64()),
        ("fy_px", pa.float64()),
        ("cx_px", pa.float64()),
        ("cy_px", pa.float64()),
        ("video", pa.string()),  # relative to the folder of the export
        ("video_sha256", pa.string()),
        ("video_fps", pa.float64()),  # mean; every frame has its own time
        ("clip_digest", pa.string()),  # of the clip in the catalog
        ("artifact", pa.string()),  # the questions in the catalog
        ("producer", pa.string()),  # stage and version that made them
        ("licence", pa.string()),
        ("attribution", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class LabelledClip:
    """One clip of a dataset version.

    Attributes:
        name: in the version, "" where it is the only one.
        file: name for its files, of letters, digits, "_" and "-" only, unique in the export.
        split: "train", "val", "test" or "unsplit".
        clip: frames and times; None where there is no video, as with annotated logs.
        path, tracks, kinematics, questions: None where the version has none. There is a clip or a path.
        told: licence, attribution, clip_digest, artifact and producer for `LABEL_FACTS`.
        trajectory, road_map, lidar: of driving logs, in the world of the path; None where the version has none.
    """

    name: str
    file: str
    split: str
    clip: Clip | None
    path: CameraPath | None
    tracks: Tracks | None
    kinematics: Kinematics | None
    questions: Questions | None
    told: Mapping[str, str]
    trajectory: Trajectory | None = None
    road_map: RoadMap | None = None
    lidar: LidarSweeps | None = None

    @property
    def times_s(self) -> Float64[np.ndarray, " T"]:
        """Time of every frame in seconds of the clip."""
        times_s: np.ndarray = self.clip.times_s if self.clip is not None else self.path.times_s  # type: ignore[union-attr]
        return times_s

    @property
    def frames(self) -> Iterable[UInt8[np.ndarray, "H W 3"]]:
        """The frames in order; none where there is no video."""
        return () if self.clip is None else self.clip.frames

    @property
    def epoch_ns(self) -> int:
        """Absolute time of `times_s = 0` in Unix nanoseconds; 0 where it is not known."""
        return (self.clip.epoch_ns if self.clip is not None else None) or 0

    @property
    def rate_hz(self) -> float:
        """Mean number of frames per second; 1 for a single frame."""
        times_s = self.times_s
        return float((len(times_s) - 1) / (times_s[-1] - times_s[0])) if len(times_s) > 1 else 1.0

    def label_facts(self, video: str | None, video_sha256: str | None) -> pa.Table:
        """Return `LABEL_FACTS` of its questions; without a video where the format has pictures."""
        if self.questions is None:
            return LABEL_FACTS.empty_table()
        rows = self.questions.rows
        same = {"clip": self.name, "split": self.split, "video": video, "video_sha256": video_sha256, "video_fps": self.rate_hz}
        columns: dict[str, Any] = {name: [value] * rows.num_rows for name, value in (same | dict(self.told)).items()}
        low, high = (rows[name].to_numpy() for name in ("answer_p5", "answer_p95"))
        columns["answer_sigma"] = pa.array((high - low) / 3.29, from_pandas=True)
        columns = {name: rows[name].combine_chunks() for name in rows.schema.names} | columns
        return make_table(LABEL_FACTS, {name: columns.get(name) for name in LABEL_FACTS.names})


@dataclass(frozen=True, eq=False)
class Boxes:
    """Upright boxes of a clip's tracked objects, one per object and frame.

    Attributes:
        track_id, frame: `[K]`.
        class_name: `[K]` of the object.
        centre: `[K, 3]` in the world, metres.
        size: `[K, 3]` length, width, height in metres.
        yaw_rad: `[K]` heading in the ground plane, from world x counter-clockwise.
        box_px: `[K, 4]` x0, y0, x1, y1 in the image; NaN where it is not seen.
        visible: `[K]` share that is seen; NaN where it is not known.
    """

    track_id: np.ndarray
    frame: np.ndarray
    class_name: np.ndarray
    centre: Float64[np.ndarray, "K 3"]
    size: Float64[np.ndarray, "K 3"]
    yaw_rad: Float64[np.ndarray, " K"]
    box_px: Float64[np.ndarray, "K 4"]
    visible: Float64[np.ndarray, " K"]


def boxes_of(item: LabelledClip, dropped: dict[str, int]) -> Boxes | None:
    """Return the boxes of a clip that driving formats can hold; None where there are none.

    Args:
        item: the clip.
        dropped: what is left out is counted here by its reason: "no_metric_scale" (the world is not in metres),
            "no_position", "no_size", "no_heading", "no_camera_pose" (of that frame).
    """
    if item.tracks is None or item.path is None or not item.tracks.samples.num_rows:
        return None
    samples = item.tracks.samples

    def column(name: str) -> np.ndarray:
        return samples[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)

    frame = samples["frame"].to_numpy().astype(np.int64)
    position, size = (np.stack([column(name) for name in names], 1) for names in ("xyz", ("length", "width", "height")))
    yaw = column("yaw_rad")
    posed = (frame >= 0) & (frame < len(item.path.registered))
    posed[posed] = item.path.registered[frame[posed]]
    keep = np.ones(len(frame), bool)
    for reason, bad in (
        ("no_metric_scale", np.full(len(frame), item.tracks.scale_source == "none")),
        ("no_camera_pose", ~posed),
        ("no_position", ~np.isfinite(position).all(1)),
        ("no_size", ~(size > 0).all(1)),
        ("no_heading", ~np.isfinite(yaw)),
    ):
        count = int((keep & bad).sum())
        if count:
            dropped[reason] = dropped.get(reason, 0) + count
        keep &= ~bad
    if not keep.any():
        return None
    track_id = samples["track_id"].to_numpy().astype(np.int64)[keep]
    names = dict(zip(item.tracks.objects["track_id"].to_pylist(), item.tracks.objects["class_name"].to_pylist(), strict=True))
    size = size[keep]
    return Boxes(
        track_id=track_id,
        frame=frame[keep],
        class_name=np.array([names.get(int(number)) or "unknown" for number in track_id], object),
        centre=position[keep] + np.stack([np.zeros(len(size)), np.zeros(len(size)), size[:, 2] / 2], 1),
        size=size,
        yaw_rad=yaw[keep],
        box_px=np.stack([column(name) for name in ("x0_px", "y0_px", "x1_px", "y1_px")], 1)[keep],
        visible=column("visible")[keep],
    )


def split_folder(split: str) -> str:
    """Return a split's name in formats that know train, val and test only: what belongs to no split is trained on."""
    return split if split in ("train", "val", "test") else "train"


def of_split(items: Sequence[Any], splits: Sequence[str]) -> dict[str, list[Any]]:
    """Return items by their split, splits in the order train, val, test."""
    found: dict[str, list[Any]] = {}
    for item, split in zip(items, splits, strict=True):
        found.setdefault(split_folder(split), []).append(item)
    return {split: found[split] for split in ("train", "val", "test") if split in found}
