"""PandaSet's annotated cuboids as tracks: input for labels, where `ingest.pandaset` gives them as truth of a clip."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import Timeline
from stages.ingest.pandaset import nanoseconds, pose_matrix, read_json, scaled_intrinsics, without_siblings
from stages.ingest.pictures import read_picture
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.text_columns import numbers, read_csv

CUBOIDS = "cuboids.csv.gz"
_WORDS = ("uuid", "label", "stationary", "attributes.object_motion", "cuboids.sibling_id", "cuboids.sensor_id")
_NUMBERS = ("frame", "yaw", *(f"{what}.{axis}" for what in ("position", "dimensions") for axis in "xyz"))
_FULL_SIZE = (1920, 1080)
_MOTION = {"Moving": 1.0, "Parked": 0.0, "Stopped": 0.0}


@dataclass(frozen=True)
class PandasetTracksConfig:
    """How the cuboids of a PandaSet scene are read.

    Attributes:
        camera: folder under `camera/` whose path and pixels are told.
        rules: how boxes become tracks.
    """

    camera: str = "front_camera"
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.pandaset_tracks", version=1)
def ingest_pandaset_tracks(
    source: Source, config: PandasetTracksConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read a scene's cuboids as tracks in PandaSet's own world (metres, z up); their times are those of the camera's frames.

    Of an object that both lidars saw only one annotation is taken (`without_siblings`).

    Raises:
        WorldlineError: if a file is missing or does not parse.
    """
    folder = f"camera/{config.camera}"
    instants = nanoseconds(read_json(source, f"{folder}/timestamps.json"), f"{source.name}/{folder}/timestamps.json")
    given = read_json(source, f"{folder}/poses.json")
    if not isinstance(given, list) or len(given) != len(instants) or not instants:
        count = len(given) if isinstance(given, list) else "no list of"
        raise WorldlineError(f"{source.name}/{folder}: {count} poses for {len(instants)} timestamps: each frame needs both")
    poses, known = np.tile(np.eye(4), (len(given), 1, 1)), np.zeros(len(given), bool)
    for index, pose in enumerate(given):
        try:
            poses[index] = pose_matrix(pose, folder)
            known[index] = np.isfinite(poses[index]).all()
        except WorldlineError:
            continue
    size = _image_size(source, folder)
    intrinsics = scaled_intrinsics(read_json(source, f"{folder}/intrinsics.json"), size, size)
    boxes = annotated_cuboids(source)
    progress(1, 2, f"{len(boxes.frame)} cuboids")
    seconds = np.array([(instant - instants[0]) / 1e9 for instant in instants])
    provenance = {
        "format": "pandaset_tracks",
        "log": source.name,
        "source": content_digest(source),
        "camera": config.camera,
        "time_source": f"{folder}/timestamps.json",
        "epoch_ns": instants[0],
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, Timeline(seconds, poses, known, intrinsics, *size), config.rules, provenance)


def annotated_cuboids(source: Source) -> AnnotatedBoxes:
    """Return a scene's cuboids, one annotation per object, with the frames of the scene.

    Raises:
        WorldlineError: if the table is missing, unreadable or lacks a column.
    """
    if CUBOIDS not in source.files:
        raise WorldlineError(f"{source.name} has no {CUBOIDS}, the cuboids of all frames in one table: convert the pickles to it")
    table, broken = read_csv(source.files[CUBOIDS], f"{source.name}/{CUBOIDS}")
    if missing := [name for name in (*_WORDS, *_NUMBERS) if name not in table.column_names]:
        raise WorldlineError(f"{source.name}/{CUBOIDS} lacks the columns {', '.join(missing)}: convert it again")
    single = _single(table)
    rows = table.filter(pa.array(single))
    number = {name: numbers(rows[name]) for name in _NUMBERS}
    width, length, height = (number[f"dimensions.{axis}"] for axis in "xyz")
    motion = [_MOTION.get(word or "", np.nan) for word in rows["attributes.object_motion"].to_pylist()]
    still = pc.equal(rows["stationary"], "True").to_numpy(zero_copy_only=False)
    frame = np.nan_to_num(number["frame"], nan=-1.0)
    return AnnotatedBoxes(
        source_id=rows["uuid"].combine_chunks(),
        source_class=rows["label"].combine_chunks(),
        frame=np.where(frame == np.floor(frame), frame, -1).astype(np.int64),
        position=np.stack([number[f"position.{axis}"] for axis in "xyz"], -1),
        position_is="centre",
        size=np.stack([length, width, height], -1),
        # PandaSet's box points along its own +y: a heading (direction of +x) is a quarter turn further.
        yaw_rad=number["yaw"] + np.pi / 2,
        moving=np.where(still, 0.0, np.array(motion, float)),
        notes=(
            ("tracks.broken_lines", broken, "lines", f"of {CUBOIDS} with another number of fields than the header"),
            ("tracks.siblings", int((~single).sum()), "rows", "of objects that the other lidar's annotation stands for"),
        ),
    )


def _single(table: pa.Table) -> np.ndarray:
    """Return which rows belong to the annotation that is kept of their object."""
    by_uuid: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in table.select(["uuid", "cuboids.sibling_id", "cuboids.sensor_id"]).to_pylist():
        sensor = row["cuboids.sensor_id"] or ""
        row["cuboids.sensor_id"] = sensor if re.fullmatch(r"-?\d+", sensor) else "-1"
        by_uuid[row["uuid"]].append(row)
    by_uuid.pop("", None)
    kept = pa.array([*without_siblings(by_uuid), ""], pa.string())
    return pc.is_in(table["uuid"], kept).to_numpy()


def _image_size(source: Source, folder: str) -> tuple[int, int]:
    """Return width and height of the images, those of PandaSet's cameras where no image lies beside the poses."""
    images = [name for name in source.files if name.startswith(f"{folder}/") and PurePosixPath(name).suffix in (".jpg", ".png")]
    if not images:
        return _FULL_SIZE
    picture = read_picture(source.files[images[0]], f"{source.name}/{images[0]}")
    return picture.shape[1], picture.shape[0]
