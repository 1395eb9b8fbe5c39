"""Our own table of tracks, Parquet or CSV: one row per object and instant, as docs/tracks.md describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline, heading_poses
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, increasing, settle_tracks
from stages.ingest.text_columns import numbers, read_csv

EGO_CLASS = "ego"  # the class of the rows that tell where the observer was
TIME_COLUMNS = ("time_s", "timestamp_ns")
# Where more than this share of the rows is earlier than the row before it, the table is unsorted and not a clock that jumps.
_UNSORTED_SHARE = 0.2


@dataclass(frozen=True)
class TrackTableConfig:
    """How a table of tracks is read.

    Attributes:
        log: of the column `log`, where one table holds several; empty takes all rows.
        position: which point of the box x, y and z are: "bottom" (the middle of its bottom face) or "centre".
        rules: how boxes become tracks.
    """

    log: str = ""
    position: Literal["bottom", "centre"] = "bottom"
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.track_table", version=1)
def ingest_track_table(
    source: Source, config: TrackTableConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read a table of tracks.

    Frames are the distinct instants of the table or, where it has a column `frame`, its frames at the median of their
    rows' times. Rows of an object without frames are taken to stand in the order in which they were measured, so that one
    whose time goes backwards is dropped; a table that is plainly unsorted is sorted instead, and this is told.

    Raises:
        WorldlineError: if the table does not parse, lacks a column or has no such log.
    """
    name, path = next(iter(source.files.items()))
    table, broken = read_tracks(path, source.name)
    if config.log:
        if "log" not in table.column_names:
            raise WorldlineError(f"{source.name} has no column log to choose log={config.log} from: leave the setting empty")
        table = table.filter(pc.equal(table["log"].cast(pa.string()), config.log))
    progress(1, 2, f"{table.num_rows} rows")
    ids = _ids(table)
    frame, times, epoch_ns, backwards, unsorted = _frames(table, ids)
    is_ego = ego_rows(table)
    poses, known = ego_poses_of_rows(table, np.flatnonzero(is_ego & (frame >= 0)), frame, len(times))
    boxes = boxes_of_rows(
        table,
        np.flatnonzero(~is_ego),
        frame,
        config.position,
        dropped={"time_backwards": backwards},
        notes=(
            ("tracks.broken_lines", broken, "lines", f"of {name} with another number of fields than the header"),
            ("tracks.unsorted_rows", unsorted, "rows", "earlier than the row before: the table was sorted by time"),
        ),
    )
    provenance = {
        "format": "track_table",
        "log": config.log or source.name,
        "source": content_digest(source),
        "camera": "",
        "time_source": next(column for column in TIME_COLUMNS if column in table.column_names),
        "epoch_ns": epoch_ns,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, Timeline(times, poses @ EGO_FROM_FORWARD_CAMERA, known), config.rules, provenance)


def read_tracks(path: Path, shown: str) -> tuple[pa.Table, int]:
    """Return a Parquet or CSV table and how many lines of it do not parse.

    Raises:
        WorldlineError: if it cannot be read, or lacks a column that every table of tracks needs.
    """
    broken = 0
    if path.suffix.lower() == ".parquet" or _is_parquet(path):
        try:
            table = pq.read_table(path)
            table.validate(full=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise WorldlineError(f"{shown} is not a readable Parquet file ({error}): write it again") from error
    else:
        table, broken = read_csv(path, shown)
        table = table.rename_columns([name.strip() for name in table.column_names])
    missing = [name for name in ("track_id", "x", "y") if name not in table.column_names]
    if not any(name in table.column_names for name in TIME_COLUMNS):
        missing.append("time_s")
    if missing:
        raise WorldlineError(f"{shown} lacks the columns {', '.join(missing)}: a table of tracks is described in docs/tracks.md")
    return table, broken


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.string())
    return table[name].combine_chunks()


def _numbers(table: pa.Table, name: str, default: float = np.nan) -> np.ndarray:
    return numbers(table[name]) if name in table.column_names else np.full(table.num_rows, default)


def _stacked(table: pa.Table, names: tuple[str, ...], kept: np.ndarray) -> np.ndarray | None:
    """Return these columns of the kept rows side by side, None where the table has none of them."""
    if not any(name in table.column_names for name in names):
        return None
    return np.stack([_numbers(table, name)[kept] for name in names], -1)


def _flags(table: pa.Table) -> np.ndarray:
    """Return 1 for true, 0 for false, NaN elsewhere; CSV writes them as words."""
    column = table["moving"]
    if pa.types.is_boolean(column.type):
        return numbers(column.cast(pa.float64()))
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    yes, no = (pc.fill_null(pc.is_in(words, pa.array(given)), False).to_numpy() for given in (["true", "1"], ["false", "0"]))
    return np.where(yes, 1.0, np.where(no, 0.0, np.nan))


def _frames(table: pa.Table, ids: pa.Array) -> tuple[np.ndarray, np.ndarray, int | None, np.ndarray, int]:
    """Return each row's frame, the frames' times, the epoch, rows that go back in time, and how many were sorted."""
    instant, known, unit, epoch_ns = _instants(table)
    rows = table.num_rows
    nobody = np.zeros(rows, bool)
    if "frame" in table.column_names:
        given = numbers(table["frame"])
        known &= np.isfinite(given)
        numbered, frame = np.unique(given[known], return_inverse=True)
        order = np.lexsort((instant[known], frame))
        count = np.bincount(frame, minlength=len(numbered))
        middle = np.cumsum(count) - count + (count - 1) // 2
        times = instant[known][order][middle] / unit
        placed = np.full(rows, -1)
        placed[known] = frame
        return placed, times, epoch_ns, nobody, 0
    code = pc.fill_null(ids, "").dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.flatnonzero(known)
    order = order[np.argsort(code[order], kind="stable")]
    back = (np.diff(code[order]) == 0) & (np.diff(instant[order]) < 0)
    backwards = nobody.copy()
    if back.mean() <= _UNSORTED_SHARE if len(back) else False:
        for track in np.unique(code[order][1:][back]):
            mine = order[code[order] == track]
            # Equal instants are repeats, which are looked at later; only what goes back is refused here.
            _, rank = np.unique(instant[mine], return_inverse=True)
            backwards[mine[~increasing(rank + np.arange(len(mine)) / (len(mine) + 1.0))]] = True
        back = np.zeros(0, bool)
    instants = np.unique(instant[known])
    placed = np.where(known, np.searchsorted(instants, instant), -1)
    return placed, instants / unit, epoch_ns, backwards, int(back.sum())


def _instants(table: pa.Table) -> tuple[np.ndarray, np.ndarray, float, int | None]:
    """Return each row's instant, which are known, units per second, and the epoch in nanoseconds where the table has one."""
    if "time_s" in table.column_names:
        seconds = numbers(table["time_s"])
        return np.nan_to_num(seconds), np.isfinite(seconds), 1.0, None
    column = table["timestamp_ns"]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.if_else(pc.match_substring_regex(column, r"^-?\d{1,18}$|^-?\d{19}$"), column, None)
    try:
        whole = column.cast(pa.int64())
    except pa.ArrowException as error:
        raise WorldlineError(f"the column timestamp_ns holds no whole numbers ({error}): write nanoseconds, or time_s") from error
    known = whole.is_valid().to_numpy()
    values = whole.fill_null(0).to_numpy()
    origin = int(values[known].min(initial=np.iinfo(np.int64).max)) if known.any() else 0
    return np.where(known, values - origin, 0), known, 1e9, origin if known.any() else None


def ego_poses_of_rows(
    table: pa.Table, rows: np.ndarray, frame: np.ndarray, frames: int
) -> tuple[Float64[np.ndarray, "F 4 4"], Bool[np.ndarray, " F"]]:
    """Return the observer's upright pose per frame and which are known; without a heading it looks along the world's x.

    Args:
        table: as `read_tracks` returns it.
        rows: those of the observer that belong to a frame.
        frame: of every row of the table.
        frames: how many there are.
    """
    poses, known = np.tile(np.eye(4), (frames, 1, 1)), np.zeros(frames, bool)
    heading = _numbers(table, "yaw_rad")[rows] if "yaw_rad" in table.column_names else np.zeros(len(rows))
    poses[frame[rows]], known[frame[rows]] = heading_poses(_positions(table)[rows], heading)
    return poses, known


def ego_rows(table: pa.Table) -> Bool[np.ndarray, " N"]:
    """Return which rows tell where the observer was."""
    classes = _column(table, "class_name").cast(pa.string())
    named = pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(classes)), EGO_CLASS)
    found: np.ndarray = pc.fill_null(named, False).to_numpy(zero_copy_only=False)
    return found


def boxes_of_rows(
    table: pa.Table,
    rows: np.ndarray,
    frame: np.ndarray,
    position_is: str,
    dropped: Mapping[str, np.ndarray],
    notes: Sequence[tuple[str, float, str, str]],
) -> AnnotatedBoxes:
    """Return the boxes in some rows of a table.

    Args:
        table: as `read_tracks` returns it.
        rows: which of its rows.
        frame: of every row of the table, -1 where it belongs to none.
        position_is: "bottom" or "centre".
        dropped: masks over all rows of the table, by reason.
        notes: what else was found.
    """
    yaw = _numbers(table, "yaw_rad")[rows] if "yaw_rad" in table.column_names else None
    return AnnotatedBoxes(
        source_id=_ids(table).take(pa.array(rows)),
        source_class=_column(table, "class_name").cast(pa.string()).take(pa.array(rows)),
        frame=frame[rows],
        position=_positions(table)[rows],
        position_is=position_is,
        size=_stacked(table, ("length", "width", "height"), rows),
        yaw_rad=yaw,
        boxes_px=_stacked(table, ("x0_px", "y0_px", "x1_px", "y1_px"), rows),
        moving=_flags(table)[rows] if "moving" in table.column_names else None,
        covariance=_stacked(table, ("cov_xx", "cov_xy", "cov_yy", "cov_zz"), rows),
        dropped={name: mask[rows] for name, mask in dropped.items()},
        notes=notes,
    )


def _ids(table: pa.Table) -> pa.Array:
    return pc.utf8_trim_whitespace(table["track_id"].cast(pa.string())).combine_chunks()


def _positions(table: pa.Table) -> np.ndarray:
    return np.stack([_numbers(table, "x"), _numbers(table, "y"), _numbers(table, "z", default=0.0)], -1)
