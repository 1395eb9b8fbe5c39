"""What a path holds of annotated tracks: which format, which logs, and which files each log needs."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from stages.ingest import argoverse2, argoverse2_motion, ngsim, nuscenes, pandaset_tracks, track_table
from stages.ingest.source import is_image, natural_order
from stages.ingest.text_columns import header_names, numbers
from stages.ingest.tfrecord import find_records
from stages.ingest.waymo_motion import scenario_name

_TABLES = (".csv", ".csv.gz", ".parquet")
_DEEPEST = 4
FORMATS = (
    "a KITTI tracking folder (label_02, calib, oxts), Argoverse 2 logs (sensor or motion forecasting), nuScenes tables, Waymo "
    "motion scenarios (tfrecord), "
    "PandaSet scenes with cuboids.csv.gz, NGSIM tables, or tables of our own (docs/tracks.md)"
)


@dataclass(frozen=True)
class TrackLog:
    """One log of annotated tracks.

    Attributes:
        name: of the log within what was given; "" where it is alone.
        stage: the ingest stage that reads it.
        source: its files.
        settings: which part of the files it is, as settings of the stage.
        trouble: why it cannot be read ("" where nothing speaks against it).
    """

    name: str
    stage: str
    source: Source
    settings: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""


def describe_logs(path: Path | str) -> list[TrackLog]:
    """Return the logs at a path: a file, the folder of a log, or a folder of logs up to four levels above them.

    Raises:
        WorldlineError: if there is nothing at the path, or no format is recognised.
    """
    path = Path(path)
    if not path.exists():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as source")
    found = list(_file(path) if path.is_file() else _folder(path, _DEEPEST))
    if not found:
        raise WorldlineError(f"{path} holds no tracks that Worldline knows: give {FORMATS}")
    names: dict[str, int] = {}
    logs = []
    for log in found:
        names[log.name] = names.get(log.name, 0) + 1
        name = log.name if names[log.name] == 1 else f"{log.name}-{names[log.name]}"
        logs.append(TrackLog(name.replace("/", "-"), log.stage, log.source, log.settings, log.trouble))
    return logs


def _folder(path: Path, depth: int) -> Iterator[TrackLog]:
    """Yield the logs of a folder; below one that is recognised nothing else is looked for."""
    for recognise in (_pandaset, _argoverse2, _nuscenes, _kitti):
        logs = list(recognise(path))
        if logs:
            yield from logs
            return
    names = natural_order([item.name for item in path.iterdir() if not item.name.startswith(".")])
    for item in (path / name for name in names):
        if item.is_file():
            yield from _file(item)
        elif depth and item.is_dir():
            yield from _folder(item, depth - 1)


def _file(path: Path) -> Iterator[TrackLog]:
    name = path.name.lower()
    if "tfrecord" in name:
        yield from _waymo(path)
    elif name.endswith(_TABLES):
        yield from _table(path)
    elif name.endswith(".txt") and _has_ngsim_words(path):
        yield from _ngsim(path, path.stem)


def _pandaset(path: Path) -> Iterator[TrackLog]:
    if not (path / pandaset_tracks.CUBOIDS).is_file() or not (path / "camera").is_dir():
        return
    files = {pandaset_tracks.CUBOIDS: path / pandaset_tracks.CUBOIDS}
    for camera in sorted(item for item in (path / "camera").iterdir() if item.is_dir()):
        images = natural_order([item.name for item in camera.iterdir() if is_image(item)])[:1]
        for name in (*images, "intrinsics.json", "poses.json", "timestamps.json"):
            if (camera / name).is_file():
                files[f"camera/{camera.name}/{name}"] = camera / name
    yield TrackLog(path.resolve().name, "ingest.pandaset_tracks", Source(Files(files), "pandaset", path.resolve().name))


def _argoverse2(path: Path) -> Iterator[TrackLog]:
    annotations = [name for name in argoverse2.ANNOTATIONS if (path / name).is_file()]
    if not annotations:
        return
    names = (annotations[0], argoverse2.EGO_POSES, *argoverse2.CALIBRATION)
    files = Files({name: path / name for name in names if (path / name).is_file()})
    yield TrackLog(path.resolve().name, "ingest.argoverse2", Source(files, "argoverse2", path.resolve().name))


def _nuscenes(path: Path) -> Iterator[TrackLog]:
    if not (path / "sample_annotation.json").is_file():
        return
    names = [f"{name}.json" for name in (*nuscenes.NEEDED, *nuscenes.OPTIONAL)]
    source = Source(Files({name: path / name for name in names if (path / name).is_file()}), "nuscenes", path.resolve().name)
    try:
        scenes = nuscenes.read_table(source, "scene")
    except WorldlineError as error:
        yield TrackLog(path.resolve().name, "ingest.nuscenes", source, {}, str(error))
        return
    for scene in scenes:
        name = str(scene.get("name") or scene["token"])
        yield TrackLog(name, "ingest.nuscenes", source, {"scene": name})


def _kitti(path: Path) -> Iterator[TrackLog]:
    labels = path / "label_02"
    if not labels.is_dir():
        return
    for name in natural_order([item.name for item in labels.glob("*.txt")]):
        sequence = name.removesuffix(".txt")
        wanted = [f"{folder}/{name}" for folder in ("label_02", "calib", "oxts", "timestamps")]
        images = path / "image_02" / sequence
        if images.is_dir():
            wanted += [
                f"image_02/{sequence}/{image}" for image in natural_order([i.name for i in images.iterdir() if is_image(i)])[:1]
            ]
            wanted.append(f"image_02/{sequence}/timestamps.txt")
        files = Files({file: path / file for file in wanted if (path / file).is_file()})
        yield TrackLog(sequence, "ingest.kitti_tracking", Source(files, "kitti_tracking", sequence))


def _waymo(path: Path) -> Iterator[TrackLog]:
    """Yield a log per record; damaged records, and the rest of a file that breaks off, are logs that tell their trouble."""
    source = Source(Files({path.name: path}), "waymo_motion", path.name)
    records, rest = find_records(path)
    for index, record in enumerate(records):
        trouble = name = ""
        try:
            name = scenario_name(path, record)
        except WorldlineError as error:
            trouble = str(error)
        yield TrackLog(name or f"{path.name}-{index}", "ingest.waymo_motion", source, {"record": index}, trouble)
    if rest or not records:
        trouble = f"{path}: {rest or 'the file holds no record'}: download that file again"
        yield TrackLog(f"{path.name}-{len(records)}", "ingest.waymo_motion", source, {"record": len(records)}, trouble)


def _table(path: Path) -> Iterator[TrackLog]:
    """Yield the logs of a table by its column names; a table of something else is none, an unreadable one tells its trouble."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    source = Source(Files({path.name: path}), "track_table", path.name)
    try:
        columns = _columns(path)
        logs = _logs_of(path) if "log" in columns and "track_id" in columns else []
    except WorldlineError as error:
        yield TrackLog(stem, "ingest.track_table", source, {}, str(error))
        return
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        yield TrackLog(stem, "ingest.track_table", source, {}, f"{path} is not a readable table ({error}): write it again")
        return
    small = {name.lower() for name in columns}
    if small >= set(ngsim.NEEDED):
        yield from _ngsim(path, stem)
    elif set(columns) >= set(argoverse2_motion.NEEDED):
        yield TrackLog(stem.removeprefix("scenario_"), "ingest.argoverse2_motion", source)
    elif "track_id" in columns and any(name in columns for name in track_table.TIME_COLUMNS):
        if not logs:
            yield TrackLog(stem, "ingest.track_table", source)
        for log in logs:
            yield TrackLog(f"{stem}-{log}", "ingest.track_table", source, {"log": log})


def _ngsim(path: Path, stem: str) -> Iterator[TrackLog]:
    """Yield a log per location and minute of a table of trajectories."""
    source = Source(Files({path.name: path}), "ngsim", path.name)
    try:
        parts = ngsim.recorded_parts(path, path.name)
    except WorldlineError as error:
        yield TrackLog(stem, "ingest.ngsim", source, {}, str(error))
        return
    for place, minute in parts:
        name = "-".join(filter(None, (stem, place, f"{minute:02d}" if minute >= 0 else "")))
        yield TrackLog(name, "ingest.ngsim", source, {"location": place, "part": minute})


def _has_ngsim_words(path: Path) -> bool:
    """Return whether the first line of a text file is a row of trajectories as they were first given out: 18 numbers."""
    with path.open("rb") as stream:
        words = stream.readline(1 << 12).decode(errors="replace").split()
    return len(words) == len(ngsim.TEXT_COLUMNS) and bool(np.isfinite(numbers(pa.array(words, pa.string()))).all())


def _columns(path: Path) -> list[str]:
    if path.suffix.lower() == ".parquet":
        return list(pq.read_schema(path).names)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return header_names(stream.readline(1 << 16).decode("utf-8-sig", errors="replace"))


def _logs_of(path: Path) -> list[str]:
    """Return the logs that a table of ours holds, in natural order; rows without one belong to none."""
    table, _ = track_table.read_tracks(path, path.name)
    words = pc.unique(table["log"].cast(pa.string())).to_pylist()
    return natural_order([word for word in words if word])
