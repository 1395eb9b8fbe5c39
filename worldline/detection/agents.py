"""Annotated vehicles as a camera should see them: the boxes that detections are compared with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from schemas.cameras import CameraPath
from schemas.tracks import Tracks
from worldline.box_corners import cut_at_plane, upright_corners
from worldline.cameras import scale_intrinsics
from worldline.driving.boxes import sample_boxes
from worldline.metrics.driving import hidden_shares

# The classes that count as vehicles; `stages.ingest.class_names` maps every source to these words.
VEHICLES = ("bus", "car", "construction vehicle", "trailer", "tram", "truck", "van", "vehicle")
_NEAR_M = 0.1


@dataclass(frozen=True, eq=False)
class Agents:
    """The vehicles in view in one frame.

    Attributes:
        boxes: `[N, 4]` extent (x0, y0, x1, y1) in pixels of the projected box, cut at the image's border.
        hidden: `[N]` share of each that cannot be seen, as the log says, or where it does not, behind nearer boxes.
        bottoms: `[N, 3]` centre of the bottom face in the world, metres.
        sizes: `[N, 3]` length, width, height, metres.
        yaws_rad: `[N]`.
    """

    boxes: Float64[np.ndarray, "N 4"]
    hidden: Float64[np.ndarray, " N"]
    bottoms: Float64[np.ndarray, "N 3"]
    sizes: Float64[np.ndarray, "N 3"]
    yaws_rad: Float64[np.ndarray, " N"]


def vehicles_in_view(tracks: Tracks, path: CameraPath, width: int, height: int) -> list[Agents]:
    """Return the vehicles that each camera of a path sees; none in frames without pose.

    Args:
        tracks: with 3D boxes in the path's world; samples without position, size or heading are left out.
        path: cameras, frame by frame those of the tracks.
        width: of the images that are looked at, in pixels; the path's intrinsics are scaled to them.
        height: the same.
    """
    samples = tracks.samples
    values, known = sample_boxes(tracks)
    visible = samples["visible"].to_numpy().astype(np.float64)
    frames = samples["frame"].to_numpy()
    classes = dict(zip(tracks.objects["track_id"].to_pylist(), tracks.objects["class_name"].to_pylist(), strict=True))
    vehicle = np.array([classes.get(track) in VEHICLES for track in samples["track_id"].to_pylist()], bool)
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    found = []
    for frame, (pose, registered) in enumerate(zip(path.world_from_camera, path.registered, strict=True)):
        rows = np.flatnonzero(known & (frames == frame)) if registered else np.zeros(0, int)
        bottoms, sizes, yaws = values[rows, :3], values[rows, 3:6], values[rows, 6]
        extents = projected_extents(bottoms, sizes, yaws, pose, intrinsics)
        extents = np.clip(extents, 0, (width, height, width, height))
        seen = np.flatnonzero((extents[:, 2:] > extents[:, :2]).all(axis=1))  # never where NaN
        extents, rows = extents[seen], rows[seen]
        ranges = np.linalg.norm(values[rows, :3] - pose[:3, 3], axis=1)
        hidden = np.where(np.isfinite(visible[rows]), 1 - visible[rows], hidden_shares(extents, ranges))
        kept = vehicle[rows]
        rows = rows[kept]
        found.append(Agents(extents[kept], hidden[kept], values[rows, :3], values[rows, 3:6], values[rows, 6]))
    return found


def projected_extents(
    bottoms: np.ndarray, sizes: np.ndarray, yaws_rad: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> Float64[np.ndarray, "N 4"]:
    """Return the extent (x0, y0, x1, y1) of upright boxes in pixels, beyond the image too; NaN where all is behind the camera.

    Edges that cross the near plane are cut there: a corner behind the camera would come out on the wrong side.

    Args:
        bottoms: `[N, 3]` centres of the bottom faces in the world.
        sizes: `[N, 3]` length along the heading, width, height.
        yaws_rad: `[N]`.
        world_from_camera: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]`.
    """
    corners = upright_corners(bottoms, sizes, yaws_rad)
    points, ahead = cut_at_plane((corners - world_from_camera[:3, 3]) @ world_from_camera[:3, :3], _NEAR_M)
    pixels = points @ intrinsics.T
    xy = pixels[..., :2] / np.where(ahead, pixels[..., 2], 1.0)[..., None]
    low = np.where(ahead[..., None], xy, np.inf).min(axis=1)
    high = np.where(ahead[..., None], xy, -np.inf).max(axis=1)
    extents = np.concatenate([low, high], axis=1)
    return np.where(np.isfinite(extents), extents, np.nan)
