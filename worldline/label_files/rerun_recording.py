"""Rerun recordings: one `.rrd` per clip, with video, camera, boxes, paths, speeds and questions on one timeline.

The timeline is `clip_time`, in seconds of the clip; nothing else is recorded of when the file was made. Rerun gives every
chunk of data a random id, so that two recordings of the same clip hold the same data in different bytes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from worldline.label_files.labelled_clip import LabelledClip

TIMELINE = "clip_time"
_COLOURS = np.array([[230, 97, 1], [94, 60, 153], [27, 158, 119], [217, 95, 2], [117, 112, 179], [231, 41, 138], [102, 166, 30]])


def write_rerun(item: LabelledClip, path: Path, video: Path | None, application: str) -> None:
    """Write one recording.

    Entities: `world/camera` (pose where there is one) with `image` (lens and video), `world/objects/ID` (boxes, or points
    where the size is not known), `world/paths/ID`, `speed/ID` (median, m/s or scene units a second), `labels` (a question
    with its answer, at the start of its window).

    Args:
        item: the clip.
        path: of the recording.
        video: the clip as H.264 without B-frames, its first frame at 0; None where there is none.
        application: name of the dataset.
    """
    import rerun as rr

    recording = rr.RecordingStream(application, recording_id=item.told.get("clip_digest") or item.file, send_properties=False)
    recording.set_log_time_enabled(False)
    recording.set_log_tick_enabled(False)
    recording.save(path)
    try:
        recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        _send_camera(rr, recording, item, video)
        _send_objects(rr, recording, item)
        _send_speeds(rr, recording, item)
        _send_labels(rr, recording, item)
    finally:
        recording.flush()
        recording.disconnect()


def _times(rr: Any, times_s: np.ndarray) -> list[Any]:
    return [rr.TimeColumn(TIMELINE, duration=np.asarray(times_s, np.float64))]


def _send_camera(rr: Any, recording: Any, item: LabelledClip, video: Path | None) -> None:
    times_s = item.times_s
    if video is not None:
        recording.log("world/camera/image", rr.AssetVideo(path=video), static=True)
        shown = rr.VideoFrameReference.columns_nanos(np.rint((times_s - times_s[0]) * 1e9).astype(np.int64))
        recording.send_columns("world/camera/image", _times(rr, times_s), shown)
    if item.path is None:
        return
    size = [item.path.width, item.path.height]
    lens = rr.Pinhole(image_from_camera=item.path.intrinsics, resolution=size, camera_xyz=rr.ViewCoordinates.RDF)
    recording.log("world/camera/image", lens, static=True)
    poses = item.path.world_from_camera[item.path.registered]
    if len(poses):
        placed = rr.Transform3D.columns(translation=poses[:, :3, 3], quaternion=Rotation.from_matrix(poses[:, :3, :3]).as_quat())
        recording.send_columns("world/camera", _times(rr, times_s[item.path.registered]), placed)


def _send_objects(rr: Any, recording: Any, item: LabelledClip) -> None:
    if item.tracks is None:
        return
    samples = item.tracks.samples

    def column(name: str) -> np.ndarray:
        return samples[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)

    ids, times = samples["track_id"].to_numpy(), column("time_s")
    position, size = (np.stack([column(name) for name in names], 1) for names in ("xyz", ("length", "width", "height")))
    yaw = np.nan_to_num(column("yaw_rad"))
    for row in item.tracks.objects.to_pylist():
        number = int(row["track_id"])
        own = np.flatnonzero((ids == number) & np.isfinite(position).all(1))
        if not len(own):
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        entity, label = f"world/objects/{number}", f"{row['colour']} {row['class_name']} {number}".strip()
        sized = np.isfinite(size[own]).all(1).all()
        if sized:
            recording.log(entity, rr.Boxes3D.from_fields(colors=[colour], labels=[label]), static=True)
            turns = Rotation.from_euler("z", yaw[own][:, None]).as_quat()
            middle = position[own] + np.stack([*np.zeros((2, len(own))), size[own, 2] / 2], 1)
            placed = rr.Boxes3D.columns(centers=middle, half_sizes=size[own] / 2, quaternions=turns)
        else:
            recording.log(entity, rr.Points3D.from_fields(colors=[colour], labels=[label], radii=[0.3]), static=True)
            placed = rr.Points3D.columns(positions=position[own])
        recording.send_columns(entity, _times(rr, times[own]), placed)
        recording.log(f"world/paths/{number}", rr.LineStrips3D([position[own]], colors=[colour]), static=True)


def _send_speeds(rr: Any, recording: Any, item: LabelledClip) -> None:
    if item.kinematics is None:
        return
    states = item.kinematics.states
    ids, speed = states["track_id"].to_numpy(), states["speed_p50"].to_numpy(zero_copy_only=False)
    for number in np.unique(ids):
        own = np.flatnonzero((ids == number) & np.isfinite(speed))
        if len(own):
            times = states["time_s"].to_numpy()[own]
            recording.send_columns(f"speed/{number}", _times(rr, times), rr.Scalars.columns(scalars=speed[own]))


def _send_labels(rr: Any, recording: Any, item: LabelledClip) -> None:
    if item.questions is None or not item.questions.rows.num_rows:
        return
    rows = item.questions.rows.sort_by([("start_s", "ascending"), ("question_id", "ascending")])
    told = [
        f"{question} {answer}" for question, answer in zip(rows["question"].to_pylist(), rows["answer"].to_pylist(), strict=True)
    ]
    recording.send_columns("labels", _times(rr, rows["start_s"].to_numpy()), rr.TextLog.columns(text=told))
