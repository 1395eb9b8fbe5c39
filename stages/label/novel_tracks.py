"""The tracks of a log seen from a path that nobody drove: the same boxes in the world, everything else computed anew."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.driving import Trajectory
from schemas.errors import WorldlineError
from schemas.tracks import TRACK_SAMPLES, Tracks
from stages.contract import Progress, no_progress, stage
from stages.ingest.box_extents import image_extents
from worldline.box_corners import upright_corners
from worldline.cameras import scale_intrinsics
from worldline.driving.boxes import boxes_by_frame, view_boxes

_AROUND = 3  # how much of a box is in view is counted in a picture so many times as wide and high


@dataclass(frozen=True)
class NovelTracksConfig:
    """How visibility is measured.

    Attributes:
        width_px: of the picture in which the pixels of boxes are counted.
    """

    width_px: Annotated[int, Field(ge=16)] = 640


@stage("label.novel_tracks", version=1)
def see_novel_tracks(
    tracks: Tracks,
    trajectory: Trajectory,
    novel_path: CameraPath,
    config: NovelTracksConfig,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> Tracks:
    """Return the tracks with range, pixel box, visible share and border as the novel path has them.

    The pixel box is that of the part of the box ahead of the camera and inside the image, null where there is none. The
    visible share is the part of the box's outline in the image that no nearer box covers; what is no box hides nothing.
    Samples without box size or heading keep their place and have no pixel box.

    Args:
        tracks: boxes in the world.
        trajectory: whose name is told in the tracks' provenance.
        novel_path: the camera.
        config: how.
        seed: not used, nothing is random.
        progress: called per frame.

    Raises:
        WorldlineError: if the tracks have frames that the path has not.
    """
    samples = tracks.samples
    frame = samples["frame"].to_numpy()
    count = len(novel_path.times_s)
    if len(frame) and frame.max() >= count:
        raise WorldlineError(
            f"label.novel_tracks: tracks reach frame {frame.max()}, the path has {count} frames: give those of one log"
        )
    bottom, size = (
        np.stack([samples[name].to_numpy().astype(np.float64) for name in names], axis=1)
        for names in (("x", "y", "z"), ("length", "width", "height"))
    )
    yaw = samples["yaw_rad"].to_numpy().astype(np.float64)
    pose, registered = novel_path.world_from_camera[frame], novel_path.registered[frame]
    whole = registered & np.isfinite(bottom).all(1) & np.isfinite(size).all(1) & np.isfinite(yaw)
    extents = np.full((len(frame), 4), np.nan)
    corners = upright_corners(bottom[whole], size[whole], yaw[whole])
    extents[whole] = image_extents(corners, pose[whole], novel_path.intrinsics, novel_path.width, novel_path.height)
    visible = np.full(len(frame), np.nan)
    shares = _visible_shares(tracks, novel_path, config.width_px, progress)
    ids = samples["track_id"].to_numpy()
    for row in np.flatnonzero(whole):
        visible[row] = shares.get((int(frame[row]), int(ids[row])), 0.0)
    away = np.linalg.norm(bottom - pose[:, :3, 3], axis=1)
    with np.errstate(invalid="ignore"):
        border = (extents[:, :2] <= 0).any(1) | (extents[:, 2:] >= (novel_path.width, novel_path.height)).any(1)
    computed: dict[str, Any] = {"range": np.where(registered, away, np.nan), "visible": visible, "touches_border": border}
    computed |= dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), extents.T, strict=True))
    columns = {name: samples[name].combine_chunks() for name in samples.column_names}
    columns |= {name: pa.array(column, from_pandas=True) for name, column in computed.items()}
    return dataclasses.replace(
        tracks,
        samples=make_table(TRACK_SAMPLES, columns),
        provenance=(tracks.provenance or {}) | {"trajectory": trajectory.name},
    )


def _visible_shares(tracks: Tracks, path: CameraPath, width_px: int, progress: Progress) -> dict[tuple[int, int], float]:
    """Return by (frame, track) the share of the box's pixels that are in the image and behind no nearer box."""
    scale = width_px / path.width
    width, height = width_px, max(round(path.height * scale), 1)
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    around = intrinsics.copy()
    around[:2, 2] += np.array([width, height]) * (_AROUND // 2)
    rows, columns = slice(height, 2 * height), slice(width, 2 * width)
    shares = {}
    for frame, boxes in enumerate(boxes_by_frame(tracks, len(path.times_s))):
        if path.registered[frame] and len(boxes.track_ids):
            view = view_boxes(boxes, path.world_from_camera[frame], around, _AROUND * width, _AROUND * height)
            shown = view.index[rows, columns]
            seen = np.bincount(shown[shown >= 0], minlength=len(boxes.track_ids))
            for track, part, of in zip(boxes.track_ids.tolist(), seen, view.alone, strict=True):
                shares[frame, track] = float(part / of) if of else 0.0
        progress(frame + 1, len(path.times_s), "frames")
    return shares
