"""What each table is: its columns, and from which artifacts or records its rows come.

Content tables are read from recorded artifacts of one type; today's schema says which columns they have. A column
that the file of an artifact lacks (it was written before the column was) is null, one that today's schema no longer
has is left out. Every content row also carries the `artifact` that it belongs to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.records import ArtifactRef
from schemas.artifact import ARTIFACT_TYPES, fit_table
from schemas.cameras import CameraPath
from schemas.canonical import canonical_json
from schemas.codec import decode, read_arrays

_STRING, _TIME = pa.string(), pa.timestamp("us")
_VERSION = [("dataset", _STRING), ("version", pa.int32()), ("latest", pa.bool_())]
_SAID = [("reason", _STRING), ("author", _STRING), ("recorded_at", _TIME)]

RECORD_TABLES: dict[str, pa.Schema] = {
    "executions": pa.schema(
        [
            ("key", _STRING),
            ("stage", _STRING),
            ("version", pa.int32()),
            ("code", _STRING),
            ("config", _STRING),  # canonical JSON
            ("seed", pa.int64()),
            ("status", _STRING),
            ("error_type", _STRING),
            ("error_message", _STRING),
            ("started_at", _TIME),
            ("seconds", pa.float64()),
            ("peak_memory_bytes", pa.int64()),
            ("machine", _STRING),
            ("packages", _STRING),
            ("code_files", _STRING),
            ("commit", pa.int64()),
        ]
    ),
    "artifacts": pa.schema(
        [
            ("digest", _STRING),
            ("kind", _STRING),
            ("schema_version", pa.int32()),
            ("level", pa.int32()),
            ("bytes", pa.int64()),
            ("facts", _STRING),  # JSON
            ("parts", pa.list_(pa.struct([("name", _STRING), ("sha256", _STRING)]))),
            ("commit", pa.int64()),
        ]
    ),
    "edges": pa.schema(
        [("execution_key", _STRING), ("slot", _STRING), ("direction", _STRING), ("kind", _STRING), ("digest", _STRING)]
    ),
    "datasets": pa.schema(
        [
            *_VERSION,
            ("published_at", _TIME),
            ("held", _STRING),  # why it is kept from being the latest, or null
            ("manifest", _STRING),
            ("recipe", _STRING),  # JSON
            ("lock", _STRING),  # JSON
            ("artifacts", pa.int64()),
            ("executions", pa.int64()),
            ("commit", pa.int64()),
        ]
    ),
    "dataset_artifacts": pa.schema([*_VERSION, ("role", _STRING), ("clip", _STRING), ("digest", _STRING), ("kind", _STRING)]),
    "splits": pa.schema([*_VERSION, ("clip", _STRING), ("split", _STRING)]),
    "drift": pa.schema(
        [
            ("key", _STRING),
            ("stage", _STRING),
            ("slot", _STRING),
            ("kept_digest", _STRING),
            ("other_digest", _STRING),
            ("machine", _STRING),
            ("packages", _STRING),
            ("commit", pa.int64()),
        ]
    ),
    "tags": pa.schema([("dataset", _STRING), ("tag", _STRING), ("version", pa.int32()), *_SAID]),
    "reviews": pa.schema([("subject", _STRING), ("verdict", _STRING), *_SAID]),
    "terms": pa.schema(
        [
            ("artifact", _STRING),
            ("licence", _STRING),
            ("terms", _STRING),
            ("attribution", _STRING),
            ("place", _STRING),
            *_SAID,
        ]
    ),
    "takedowns": pa.schema([("artifact", _STRING), *_SAID]),
}

_CLIPS = pa.schema(
    [
        ("name", _STRING),
        ("frames", pa.int64()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("duration_s", pa.float64()),
    ]
)
_FRAMES = pa.schema([("frame", pa.int32()), ("time_s", pa.float64())])
_CAMERAS = pa.schema(
    [
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("registered", pa.bool_()),
        ("world_from_camera", pa.list_(pa.float64())),  # 16 numbers, row by row
        ("x", pa.float64()),  # camera centre in the world
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("fx", pa.float64()),
        ("fy", pa.float64()),
        ("cx", pa.float64()),
        ("cy", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("verdict", _STRING),
        ("scale_source", _STRING),
        ("scale_sigma", pa.float64()),
    ]
)
_MODELS = pa.schema([("name", _STRING), ("trained_on", _STRING), ("facts", _STRING)])  # all facts as JSON


@dataclass(frozen=True)
class ContentTable:
    """Where the rows of a content table come from.

    Attributes:
        kind: the artifact type.
        order: columns that its rows are sorted by in the files of a dataset version.
        field: the table field whose Parquet part holds the rows as they are; None where `rows` makes them.
        schema: its columns where it has no field. Without `rows` they are facts of the artifact, by the same names, one row
            each; a column "facts" holds all of them as JSON.
        rows: makes the rows of one artifact from the local paths of `parts`.
        parts: names of the parts that `rows` reads.
    """

    kind: str
    order: tuple[str, ...]
    field: str | None = None
    schema: pa.Schema | None = None
    rows: Callable[[Mapping[str, Path]], pa.Table] | None = None
    parts: tuple[str, ...] = ()

    @property
    def columns(self) -> pa.Schema:
        """Today's columns, without `artifact`."""
        if self.schema is not None:
            return self.schema
        assert self.field is not None
        return ARTIFACT_TYPES[self.kind].TABLES[self.field]

    @property
    def from_facts(self) -> bool:
        """Whether its rows stand in the records themselves."""
        return not self.needs

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the parts that its rows are read from."""
        return (f"{self.field}.parquet",) if self.field else self.parts

    def readable(self, ref: ArtifactRef) -> bool:
        """Return whether an artifact has rows: one written before its type had the field has none."""
        return all(part in ref.parts for part in self.needs)


def read_rows(table: ContentTable, ref: ArtifactRef, parts: Mapping[str, Path]) -> pa.Table:
    """Return the rows of one artifact in today's columns and `artifact`.

    Args:
        table: which table.
        ref: the artifact.
        parts: local path of each of `table.needs`.
    """
    if table.field:
        rows = fit_table(pq.ParquetFile(parts[f"{table.field}.parquet"]).read(), table.columns)
    elif table.rows:
        rows = table.rows(parts)
    else:
        told = {"facts": canonical_json(ref.facts), **ref.facts}
        rows = pa.Table.from_pylist([{name: told.get(name) for name in table.columns.names}], schema=table.columns)
    return rows.append_column("artifact", pa.array([ref.digest], pa.string()).take(pa.array(np.zeros(len(rows), np.int32))))


def with_artifact(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a content table together with `artifact`."""
    return schema.append(pa.field("artifact", pa.string()))


def _frame_rows(parts: Mapping[str, Path]) -> pa.Table:
    times = read_arrays(parts)["times_s"]
    return pa.table([np.arange(len(times), dtype=np.int32), times], schema=_FRAMES)


def _camera_rows(parts: Mapping[str, Path]) -> pa.Table:
    path = decode(parts)
    assert isinstance(path, CameraPath)
    count = len(path.times_s)
    (fx, _, cx), (_, fy, cy), _ = path.intrinsics.tolist()
    matrices = pa.ListArray.from_arrays(np.arange(0, 16 * count + 1, 16, dtype=np.int32), path.world_from_camera.ravel())
    x, y, z = np.ascontiguousarray(path.world_from_camera[:, :3, 3].T) if count else np.zeros((3, 0))
    shared = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": path.width, "height": path.height, "verdict": path.verdict,
              "scale_source": path.scale_source, "scale_sigma": path.scale_sigma}  # fmt: skip
    columns = {"frame": np.arange(count), "time_s": path.times_s, "registered": path.registered,
               "world_from_camera": matrices, "x": x, "y": y, "z": z}  # fmt: skip
    columns |= {name: [value] * count for name, value in shared.items()}
    return pa.table([pa.array(columns[field.name], field.type) for field in _CAMERAS], schema=_CAMERAS)


CONTENT_TABLES: dict[str, ContentTable] = {
    "labels": ContentTable("Questions", ("question_id",), "rows"),
    "kinematics": ContentTable("Kinematics", ("artifact", "track_id", "time_s"), "states"),
    "windows": ContentTable("Kinematics", ("artifact", "track_id", "start_s"), "windows"),
    "tracks": ContentTable("Tracks", ("artifact", "track_id", "frame"), "samples"),
    "objects": ContentTable("Tracks", ("artifact", "track_id"), "objects"),
    "metrics": ContentTable("Metrics", ("artifact", "name"), "figures"),
    "clips": ContentTable("Clip", ("artifact",), schema=_CLIPS),
    "frames": ContentTable("Clip", ("artifact", "frame"), schema=_FRAMES, rows=_frame_rows, parts=("arrays.safetensors",)),
    "cameras": ContentTable("CameraPath", ("artifact", "frame"), schema=_CAMERAS, rows=_camera_rows,
                            parts=("meta.json", "arrays.safetensors")),
    "models": ContentTable("Model", ("artifact",), schema=_MODELS),
    "cousins": ContentTable("CousinLinks", ("artifact", "trajectory", "frame"), "rows"),
}  # fmt: skip
TABLES = (*RECORD_TABLES, *CONTENT_TABLES)
