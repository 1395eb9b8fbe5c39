"""WebDataset shards: tar files in which one clip's files share a name, `KEY.mp4`, `KEY.json`, `KEY.cameras.npy`, ..."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldline.label_files.labelled_clip import LabelledClip

_SHARD_BYTES = 1_000_000_000
TRACK_COLUMNS = ("track_id", "frame", "time_s", "x", "y", "z", "length", "width", "height", "yaw_rad", "visible")


def web_sample(item: LabelledClip, facts: pa.Table) -> dict[str, bytes]:
    """Return what goes beside a clip's video, by suffix: its labels and facts, camera poses, and tracks.

    `json` holds the clip and a list of its `labels`; `cameras.npy` is `[T, 4, 4]` world_from_camera, NaN where a frame has
    no pose; `tracks.npy` is `[K, 11]` with the columns that `json` names.
    """
    told = {
        "clip": item.name,
        "split": item.split,
        "fps": item.rate_hz,
        "times_s": item.times_s.tolist(),
        "track_columns": list(TRACK_COLUMNS),
        "labels": facts.to_pylist(),
    } | dict(item.told)
    sample = {}
    if item.path is not None:
        poses = np.where(item.path.registered[:, None, None], item.path.world_from_camera, np.nan)
        sample["cameras.npy"] = _npy(poses)
        told |= {"intrinsics": item.path.intrinsics.tolist(), "distortion": item.path.distortion.tolist(),
                 "scale_source": item.path.scale_source, "scale_sigma": item.path.scale_sigma,
                 "gravity_source": item.path.gravity_source}  # fmt: skip
    if item.tracks is not None:
        columns = [item.tracks.samples[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in TRACK_COLUMNS]
        sample["tracks.npy"] = _npy(np.stack(columns, 1).astype(np.float64))
        told["objects"] = item.tracks.objects.to_pylist()
    return {"json": (json.dumps(told, ensure_ascii=False) + "\n").encode(), **sample}


def write_shards(samples: Mapping[str, Sequence[tuple[str, Mapping[str, bytes | Path]]]], folder: Path) -> int:
    """Write `SPLIT-000000.tar`, ..., each of about 1 GB; the same samples give the same bytes.

    Args:
        samples: by split, (key, contents by suffix); a path stands for the bytes of its file.
        folder: of the export.

    Returns:
        Number of shards.
    """
    shards = 0
    for split, own in samples.items():
        tar, written, number = None, 0, 0
        for key, parts in own:
            if tar is None or written >= _SHARD_BYTES:
                if tar is not None:
                    tar.close()
                tar = tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                written, number, shards = 0, number + 1, shards + 1
            for suffix, content in parts.items():
                data = content.read_bytes() if isinstance(content, Path) else content
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
                written += len(data)
        if tar is not None:
            tar.close()
    return shards


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()
