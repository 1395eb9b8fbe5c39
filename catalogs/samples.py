"""Samples: windows of frames cut from the clips of a version, with what is known about them, as NumPy arrays.

What is planned once (which windows there are, and which objects hold them) is a small Arrow table that goes to worker
processes as it is. Files are opened in the process and thread that reads them and stay open for a few clips; nothing
that is open crosses to another process, and no database is asked after planning.
"""

import collections
import functools
import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.objects import ObjectStore
from catalogs.records import ArtifactRef
from catalogs.stores import open_store
from catalogs.tables import CONTENT_TABLES
from catalogs.workspace import read_settings
from schemas.artifact import fit_table
from schemas.canonical import hash_file
from schemas.codec import read_arrays
from schemas.errors import WorldlineError
from schemas.media import FrameReader, Video

if TYPE_CHECKING:
    from catalogs.datasets import ClipMembers, Dataset

TABLES = ("tracks", "kinematics", "windows", "labels")
PARTS = ("frames", "cameras", *TABLES)
_CLIPS_KEPT_OPEN = 16
_HASHED_ON_LOAD = 1 << 20
_SAME_TIME_S = 1e-6
_VIDEO, _ARRAYS = "frames.mkv", "arrays.safetensors"


@dataclass(frozen=True)
class Cut:
    """How windows are cut from a clip.

    Attributes:
        window: frames in a window.
        step: frames from one to the next; None for 1, or where `step_s` is given.
        step_s: seconds from one to the next, in place of `step`.
        hop: steps from the start of a window to that of the next; None for `window`, so that none overlap.
    """

    window: int
    step: int | None = None
    step_s: float | None = None
    hop: int | None = None

    def __post_init__(self) -> None:
        if self.step is not None and self.step_s is not None:
            raise WorldlineError("windows step by frames or by seconds: give step or step_s, not both")
        for name in ("window", "step", "step_s", "hop"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise WorldlineError(f"{name} must be greater than 0, not {value}")

    @property
    def spacing(self) -> float:
        """Frames or seconds from one frame of a window to the next."""
        return self.step_s if self.step_s is not None else (self.step or 1)

    def count(self, clips: pa.Table) -> np.ndarray:
        """Return how many windows fit into each clip (columns `frames` and `duration_s`), `[clips]`."""
        frames, duration_s = clips["frames"].to_numpy(), clips["duration_s"].to_numpy()
        length, slack = (frames - 1, 0.0) if self.step_s is None else (duration_s, _SAME_TIME_S)
        over = length - (self.window - 1) * self.spacing + slack
        hops = np.floor(over / ((self.hop or self.window) * self.spacing)).astype(np.int64) + 1
        return np.where((over >= 0) & (frames > 0), hops, 0)

    def frames(self, number: int, times_s: np.ndarray) -> np.ndarray:
        """Return the frame indices `[window]` of a clip's window, counted from 0.

        Args:
            number: which window.
            times_s: `[T]` of the clip's frames.
        """
        steps = number * (self.hop or self.window) + np.arange(self.window)
        if self.step_s is None:
            return steps * (self.step or 1)
        return _nearest(times_s, times_s[0] + steps * self.step_s)


@dataclass(frozen=True)
class LabelCut:
    """One window per label: frames spread evenly over the label's time, from its first moment to its last.

    Attributes:
        window: frames in a window.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1:
            raise WorldlineError(f"window must be greater than 0, not {self.window}")

    def count(self, clips: pa.Table) -> np.ndarray:
        """Return how many labels each clip has (column `labels`), `[clips]`."""
        return clips["labels"].to_numpy()

    def frames(self, label: pa.Table, times_s: np.ndarray) -> np.ndarray:
        """Return the frame indices `[window]` of a label; of the whole clip where the label has no time.

        Args:
            label: one row.
            times_s: `[T]` of the clip's frames.
        """
        start, end = label["start_s"][0].as_py(), label["end_s"][0].as_py()
        return _nearest(
            times_s, np.linspace(times_s[0] if start is None else start, times_s[-1] if end is None else end, self.window)
        )


def _nearest(times_s: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """Return the index of the time nearest to each wanted one; the earlier of two."""
    after = np.clip(np.searchsorted(times_s, wanted_s), 1, max(len(times_s) - 1, 1))
    earlier = wanted_s - times_s[after - 1] <= times_s[np.minimum(after, len(times_s) - 1)] - wanted_s
    return np.clip(after - earlier, 0, len(times_s) - 1)


def plan(
    dataset: "Dataset",
    cut: Cut | LabelCut,
    include: tuple[str, ...],
    split: str | None = None,
    roles: Mapping[str, str] | None = None,
    *,
    channels_first: bool = False,
) -> "Samples":
    """Find the windows of a version; no file is read, but for labels where people rejected some.

    Args:
        dataset: the version.
        cut: how windows are cut.
        include: which of `PARTS` a sample holds.
        split: take the clips of one split; all where None.
        roles: role to take by artifact type, where a clip has several.
        channels_first: frames as `[T, 3, H, W]`.

    Raises:
        WorldlineError: if a part or split is unknown, a clip has several artifacts of a type and no role is given, or
            no window is found.
    """
    if isinstance(cut, LabelCut) and "labels" not in include:
        include = (*include, "labels")
    unknown = [part for part in include if part not in PARTS]
    if unknown:
        raise WorldlineError(f"a sample cannot include {', '.join(unknown)}: it can include {', '.join(PARTS)}")
    known = sorted(set(dataset.splits.values()))
    if split is not None and split not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise WorldlineError(f"{dataset.reference} has no split {split}: {there}")
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for clip in dataset.clips.values():
        if split is None or clip.split == split:
            row = _row(dataset, clip, _parts_read(include), roles or {})
            if isinstance(row, str):
                left_out[clip.name] = row
            else:
                rows.append(row)
    if not rows:
        why = f": {next(iter(left_out.values()))}" if left_out else ""
        raise WorldlineError(f"{dataset.reference} has no clip to cut windows from{why}")
    if isinstance(cut, LabelCut) and dataset.rejected:
        _count_accepted(dataset, rows)
    samples = Samples(dataset.catalog.home, pa.Table.from_pylist(rows), cut, include, dataset.rejected, left_out, channels_first)
    if len(samples):
        return samples
    if isinstance(cut, LabelCut):
        raise WorldlineError(f"{dataset.reference} has no labels to cut windows around")
    duration_s, frames = max(row["duration_s"] for row in rows), max(row["frames"] for row in rows)
    raise WorldlineError(
        f"no clip of {dataset.reference} is long enough for a window of {cut.window} frames that are {cut.spacing:g} "
        f"{'frames' if cut.step_s is None else 's'} apart: the longest has {frames} frames in {duration_s:.3g} s"
    )


def _parts_read(include: tuple[str, ...]) -> dict[str, list[str]]:
    """Return which parts of which artifact types the samples are read from."""
    kinds = {"Clip": [_ARRAYS, _VIDEO] if "frames" in include else [_ARRAYS]}
    if "cameras" in include:
        kinds["CameraPath"] = [_ARRAYS, "meta.json"]
    for name in include:
        if name in TABLES:
            kinds.setdefault(CONTENT_TABLES[name].kind, []).extend(CONTENT_TABLES[name].needs)
    return kinds


def _row(dataset: "Dataset", clip: "ClipMembers", kinds: dict[str, list[str]], roles: Mapping[str, str]) -> dict[str, Any] | str:
    """Return what is needed to read a clip, or why it cannot be read."""
    row: dict[str, Any] = {"clip": clip.name, "split": clip.split or ""}
    for kind, parts in kinds.items():
        ref = _chosen(dataset, clip, kind, roles)
        if ref is None:
            return f"it has no {kind}"
        row |= {f"{kind}/{part}": ref.parts[part] for part in parts}
        if kind == "Clip":
            row |= {name: ref.facts[name] for name in ("frames", "width_px", "height_px", "duration_s")}
        elif kind == "Questions":
            row |= {"labels": ref.facts["questions"], "Questions": ref.digest}
    return row


def _count_accepted(dataset: "Dataset", rows: list[dict[str, Any]]) -> None:
    """Set the number of labels of each clip to those that nobody rejected."""
    counted = dataset.catalog.sql(f"SELECT artifact, count(*) AS labels FROM labels WHERE {dataset.is_meant} GROUP BY artifact")
    accepted = dict(zip(counted["artifact"].to_pylist(), counted["labels"].to_pylist(), strict=True))
    for row in rows:
        row["labels"] = accepted.get(row["Questions"], 0)


def _chosen(dataset: "Dataset", clip: "ClipMembers", kind: str, roles: Mapping[str, str]) -> ArtifactRef | None:
    found = clip.of_kind(kind)
    if kind in roles:
        return found.get(roles[kind])
    if len(found) > 1:
        where = f"clip {clip.name} of {dataset.reference}" if clip.name else dataset.reference
        raise WorldlineError(
            f'{where} has several {kind}: choose one with roles={{"{kind}": "{min(found)}"}}; there is {", ".join(sorted(found))}'
        )
    return next(iter(found.values()), None)


class Samples:
    """The windows of a version, by number; pickles as its plan.

    Attributes:
        cut: how they are cut.
        include: which of `PARTS` a sample holds.
        channels_first: whether frames are `[T, 3, H, W]`.
        clips: one row per clip that has windows: `clip`, `split`, size, and the object of every part that is read.
        left_out: clips that have none, and why.
    """

    def __init__(
        self,
        home: Path,
        clips: pa.Table,
        cut: Cut | LabelCut,
        include: tuple[str, ...],
        rejected: tuple[str, ...],
        left_out: dict[str, str],
        channels_first: bool,
    ) -> None:
        counts = cut.count(clips)
        none = "it is shorter than a window" if isinstance(cut, Cut) else "it has no labels"
        self.left_out = left_out | dict.fromkeys(clips.filter(pa.array(counts == 0))["clip"].to_pylist(), none)
        self.clips = clips.filter(pa.array(counts > 0)).combine_chunks()
        self.cut, self.include, self.channels_first = cut, include, channels_first
        self._ends = np.cumsum(counts[counts > 0])  # number of windows up to and with each clip
        self._home = home
        self._rejected = pa.array(sorted(rejected), pa.string())
        self._own()

    def _own(self) -> None:
        """Begin with nothing open, in this process."""
        self._process = os.getpid()
        self._objects: ObjectStore | None = None
        self._here = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_process", "_objects", "_here")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own()

    def __repr__(self) -> str:
        what = "windows" if isinstance(self.cut, Cut) else "labels"
        text = f"{len(self)} {what} of {len(self.clips)} clips, {self.cut.window} frames each, with {', '.join(self.include)}"
        return f"{text}; {len(self.left_out)} clips left out" if self.left_out else text

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def sample(self, number: int) -> dict[str, Any]:
        """Return one window.

        Always: `clip` and `split` (text), `frame_index` int64 `[T]` and `times_s` float64 `[T]`. On demand: `frames`
        uint8 `[T, H, W, 3]` (or `[T, 3, H, W]`); `world_from_camera` float64 `[T, 4, 4]`, `registered` bool `[T]`,
        `intrinsics` float64 `[3, 3]` and `scale_source`; Arrow tables: `tracks` of just these frames, `kinematics`,
        `windows` and `labels` that lie between the first and the last of these times (around a label: the label
        alone). Labels that a person rejected are left out.

        Raises:
            IndexError: if there is no such window.
            WorldlineError: if an object is missing or damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there are windows 0 to {len(self) - 1}, not {number}")
        row = int(np.searchsorted(self._ends, number, side="right"))
        clip = self._open(row)
        within = number - (int(self._ends[row - 1]) if row else 0)
        label = clip.table("labels").slice(within, 1) if isinstance(self.cut, LabelCut) else None
        index = self.cut.frames(within, clip.times_s) if isinstance(self.cut, Cut) else self.cut.frames(label, clip.times_s)
        times = clip.times_s[index]
        sample: dict[str, Any] = {"clip": clip.row["clip"], "split": clip.row["split"], "frame_index": index, "times_s": times}
        for part in self.include:
            if part == "frames":
                sample["frames"] = clip.frames(index, self.channels_first)
            elif part == "cameras":
                cameras = clip.cameras
                sample |= {name: cameras[name][index] for name in ("world_from_camera", "registered")}
                sample |= {"intrinsics": cameras["intrinsics"].copy(), "scale_source": cameras["scale_source"]}
            elif part == "labels" and label is not None:
                sample["labels"] = label
            else:
                sample[part] = clip.rows(part, index, times)
        return sample

    def _open(self, row: int) -> "_OpenClip":
        """Return a clip as this thread has it open; the one used longest ago makes room."""
        if os.getpid() != self._process:
            self._forked()
        kept: collections.OrderedDict[int, _OpenClip] = self._here.__dict__.setdefault("clips", collections.OrderedDict())
        if row in kept:
            kept.move_to_end(row)
            return kept[row]
        if self._objects is None:
            self._objects = ObjectStore(open_store(self._home, read_settings(self._home)))
        if len(kept) == _CLIPS_KEPT_OPEN:
            kept.popitem(last=False)[1].close()
        described = {name: column[row].as_py() for name, column in zip(self.clips.column_names, self.clips.columns, strict=True)}
        kept[row] = _OpenClip(described, self._objects, self._rejected)
        return kept[row]

    def _forked(self) -> None:
        """Open again what the parent had opened: neither file positions nor connections may be shared."""
        if read_settings(self._home).store is not None:
            raise WorldlineError(
                f"the bytes of {self._home} lie in a remote store, whose client does not survive a fork: "
                "give the DataLoader multiprocessing_context='forkserver'"
            )
        self._own()


class _OpenClip:
    """One clip as one thread reads it; parts are opened when they are first asked for."""

    def __init__(self, row: dict[str, Any], objects: ObjectStore, rejected: pa.Array) -> None:
        self.row = row
        self._objects, self._rejected = objects, rejected
        self._tables: dict[str, pa.Table] = {}
        self.times_s: np.ndarray = read_arrays({_ARRAYS: self._path(f"Clip/{_ARRAYS}")})["times_s"]

    @functools.cached_property
    def reader(self) -> FrameReader:
        shape = (self.row["frames"], self.row["height_px"], self.row["width_px"], 3)
        return FrameReader(Video.open(self._path(f"Clip/{_VIDEO}"), shape))

    @functools.cached_property
    def cameras(self) -> dict[str, Any]:
        meta = json.loads(self._path("CameraPath/meta.json").read_text())
        return {**read_arrays({_ARRAYS: self._path(f"CameraPath/{_ARRAYS}")}), "scale_source": meta["fields"]["scale_source"]}

    def frames(self, index: np.ndarray, channels_first: bool) -> np.ndarray:
        """Return the pictures of a window."""
        height, width = self.row["height_px"], self.row["width_px"]
        if not channels_first:
            return self.reader.read(index.tolist())
        pictures = np.empty((len(index), 3, height, width), np.uint8)
        self.reader.read(index.tolist(), out=np.moveaxis(pictures, 1, -1))
        return pictures

    def rows(self, name: str, index: np.ndarray, times: np.ndarray) -> pa.Table:
        """Return the rows of a table that belong to a window."""
        table = self.table(name)
        if name == "tracks":
            return table.filter(pa.array(np.isin(table["frame"].to_numpy(), index)))
        begin, end = ("time_s", "time_s") if name == "kinematics" else ("start_s", "end_s")
        inside = (table[begin].to_numpy() >= times[0] - _SAME_TIME_S) & (table[end].to_numpy() <= times[-1] + _SAME_TIME_S)
        return table.filter(pa.array(inside))

    def table(self, name: str) -> pa.Table:
        """Return all rows of a table that nobody rejected."""
        if name not in self._tables:
            source = CONTENT_TABLES[name]
            table = fit_table(pq.ParquetFile(self._path(f"{source.kind}/{source.needs[0]}")).read(), source.columns)
            if name == "labels" and len(self._rejected):
                table = table.filter(pc.invert(pc.is_in(table["question_id"], self._rejected)))
            self._tables[name] = table
        return self._tables[name]

    def _path(self, part: str) -> Path:
        """Return where a part's bytes lie; small ones are hashed, videos carry a checksum in every frame."""
        sha256 = self.row[part]
        try:
            for again in (False, True):
                path = self._objects.path(sha256, again=again)
                if path.stat().st_size > _HASHED_ON_LOAD or hash_file(path) == sha256:
                    return path
        except FileNotFoundError as error:
            raise WorldlineError(f"clip {self.row['clip']} has lost its {part} ({sha256}): build it again") from error
        raise WorldlineError(
            f"{part} of clip {self.row['clip']} is damaged ({sha256}): run `worldline repair` and build it again"
        )

    def close(self) -> None:
        """Close its video, if that is open."""
        if "reader" in self.__dict__:
            self.reader.close()
