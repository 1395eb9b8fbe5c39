"""How artifacts become files and how they are named: one canonical encoding, one content digest.

An artifact is stored as parts: `meta.json` (plain fields and an index of the others), `arrays.safetensors`, one
`FIELD.parquet` per table, one `FIELD.mkv` or `FIELD/KEY.mkv` per video, and given files as they are. Parts are what the object
store addresses by SHA-256; keys use the content digest computed here over decoded values, because Parquet footers
and video containers carry their writer's version and an upgrade must not re-run the world.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from schemas.artifact import ARTIFACT_TYPES, Artifact, Files, fit_table
from schemas.canonical import TaggedHash, canonical_json, hash_file
from schemas.errors import WorldlineError
from schemas.media import Video, write_video

_META, _ARRAYS = "meta.json", "arrays.safetensors"


def _fields(artifact: Artifact) -> Iterator[tuple[str, Any]]:
    """Yield an artifact's fields by name, without those that were added later and are not set."""
    for field in sorted(dataclasses.fields(artifact), key=lambda field: field.name):  # type: ignore[arg-type]
        value = getattr(artifact, field.name)
        if value is not None or "added" not in field.metadata:
            yield field.name, value


def _is_array_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, np.ndarray) for item in value.values())


def _is_video_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, Video) for item in value.values())


def encode(artifact: Artifact, folder: Path) -> dict[str, Path]:
    """Write an artifact's parts into an existing empty folder and return them by part name.

    Given files are not copied: their part is the original path.
    """
    parts: dict[str, Path] = {}
    arrays: dict[str, np.ndarray] = {}
    index: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in _fields(artifact):
        if isinstance(value, np.ndarray):
            arrays[name] = np.ascontiguousarray(value)
            index[name] = {"as": "array"}
        elif _is_array_dict(value):
            arrays.update({f"{name}/{key}": np.ascontiguousarray(item) for key, item in value.items()})
            index[name] = {"as": "arrays", "keys": sorted(value)}
        elif isinstance(value, pa.Table):
            parts[f"{name}.parquet"] = folder / f"{name}.parquet"
            pq.write_table(value, parts[f"{name}.parquet"], compression="zstd", row_group_size=1 << 16)
            index[name] = {"as": "table"}
        elif isinstance(value, Video):
            parts[f"{name}.mkv"] = _stored_video(value, folder / f"{name}.mkv")
            index[name] = {"as": "video", "shape": list(value.shape)}
        elif _is_video_dict(value):
            (folder / name).mkdir()
            parts.update({f"{name}/{key}.mkv": _stored_video(item, folder / name / f"{key}.mkv") for key, item in value.items()})
            index[name] = {"as": "videos", "shapes": {key: list(item.shape) for key, item in value.items()}}
        elif isinstance(value, Files):
            parts.update({f"{name}/{key}": path for key, path in value.items()})
            index[name] = {"as": "files", "names": sorted(value)}
        else:
            plain[name] = value
    if arrays:
        parts[_ARRAYS] = folder / _ARRAYS
        save_file(arrays, parts[_ARRAYS])
    meta = {"kind": artifact.kind, "schema_version": artifact.schema_version, "fields": plain, "stored": index}
    parts[_META] = folder / _META
    parts[_META].write_text(canonical_json(meta))
    return parts


def _stored_video(video: Video, path: Path) -> Path:
    """Return the file of a video, written to `path` if it lies in memory."""
    if video.path is None:
        write_video(path, video, video.layout)
    return video.path or path


def decode(parts: Mapping[str, Path]) -> Artifact:
    """Read an artifact back from its parts; videos and files stay on disk until they are used.

    Raises:
        WorldlineError: if the kind is unknown or was written by a newer schema.
    """
    meta = json.loads(parts[_META].read_text())
    artifact_type = ARTIFACT_TYPES.get(meta["kind"])
    if artifact_type is None or meta["schema_version"] > artifact_type.schema_version:
        raise WorldlineError(
            f"{parts[_META]} holds a {meta['kind']} of schema {meta['schema_version']}, "
            "which this version of Worldline cannot read: upgrade it"
        )
    arrays = read_arrays(parts)
    values: dict[str, Any] = dict(meta["fields"])
    for name, stored in meta["stored"].items():
        match stored["as"]:
            case "array":
                values[name] = arrays[name]
            case "arrays":
                values[name] = {key: arrays[f"{name}/{key}"] for key in stored["keys"]}
            case "table":
                values[name] = fit_table(pq.read_table(parts[f"{name}.parquet"]), artifact_type.TABLES[name])
            case "video":
                values[name] = Video.open(parts[f"{name}.mkv"], tuple(stored["shape"]))
            case "videos":
                values[name] = {
                    key: Video.open(parts[f"{name}/{key}.mkv"], tuple(shape)) for key, shape in stored["shapes"].items()
                }
            case "files":
                values[name] = Files({key: parts[f"{name}/{key}"] for key in stored["names"]})
    return artifact_type(**values)


def read_arrays(parts: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Return an artifact's arrays by field without its other parts (a clip's times without its video)."""
    return load_file(parts[_ARRAYS]) if _ARRAYS in parts else {}


def content_digest(artifact: Artifact) -> str:
    """Return the SHA-256 of an artifact's kind, schema version and decoded values (files: of their bytes)."""
    digest = TaggedHash("artifact/1").field(artifact.kind.encode()).json(artifact.schema_version)
    for name, value in _fields(artifact):
        digest.field(name.encode())
        if isinstance(value, np.ndarray):
            _hash_array(digest, value)
        elif _is_array_dict(value):
            for key in sorted(value):
                _hash_array(digest.field(key.encode()), value[key])
        elif isinstance(value, pa.Table):
            _hash_table(digest, value)
        elif isinstance(value, Video):
            _hash_video(digest, value)
        elif _is_video_dict(value):
            for key in sorted(value):
                _hash_video(digest.field(key.encode()), value[key])
        elif isinstance(value, Files):
            for key in sorted(value):
                digest.field(key.encode()).field(hash_file(value[key]).encode())
        else:
            digest.json(value)
    return digest.hexdigest()


def _hash_array(digest: TaggedHash, array: np.ndarray) -> None:
    digest.json([array.dtype.str, list(array.shape)]).field(np.ascontiguousarray(array).data if array.size else b"")


def _hash_video(digest: TaggedHash, video: Video) -> None:
    digest.json(["video", list(video.shape)])
    for frame in video:
        digest.field(np.ascontiguousarray(frame).data)


def _hash_table(digest: TaggedHash, table: pa.Table) -> None:
    digest.json([[field.name, str(field.type)] for field in table.schema]).json(table.num_rows)
    for column in table.columns:
        _hash_column(digest, column.combine_chunks())


def _hash_column(digest: TaggedHash, column: pa.Array) -> None:
    """Hash values, lengths and the null mask: independent of chunks, offsets and what lies under a null."""
    if isinstance(column, pa.ChunkedArray):  # combine_chunks of an empty chunked array may stay chunked
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    digest.field(np.ascontiguousarray(column.is_null().to_numpy(zero_copy_only=False)).data if len(column) else b"")
    kind = column.type
    if pa.types.is_list(kind):
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        digest.field(lengths.data if lengths.size else b"")
        _hash_column(digest, column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        for item in column.to_pylist():
            digest.field(b"" if item is None else item.encode() if isinstance(item, str) else item)
    else:
        values = column.drop_null().to_numpy(zero_copy_only=False)
        digest.field(np.ascontiguousarray(values).data if values.size else b"")
