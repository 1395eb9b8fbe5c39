"""Upright boxes of road users: which there are at each frame, and which of them a camera sees at each pixel."""

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from schemas.tracks import Tracks

NEAR_M = 0.1  # what is nearer to the camera than this is cut away
GROUPS = ("vehicle", "pedestrian", "cyclist")
_GROUP_OF = {
    **dict.fromkeys(("car", "van", "truck", "trailer", "bus", "construction vehicle", "tram", "vehicle", "pedicab"), 0),
    **dict.fromkeys(("pedestrian", "wheelchair", "stroller"), 1),
    **dict.fromkeys(("cyclist", "bicycle", "motorcycle", "scooter"), 2),
}
# Faces by the axis and side on which a ray enters: index 2 * axis + (1 on the positive side).
BACK, FRONT, RIGHT, LEFT, BOTTOM, TOP = range(6)


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one frame, in the world.

    Attributes:
        track_ids: `[N]`.
        class_names: `N` of them.
        bottoms: `[N, 3]` centres of the bottom faces, metres.
        sizes: `[N, 3]` length along the heading, width across it, height, metres.
        yaws_rad: `[N]` heading, from world x towards y.
    """

    track_ids: Int32[np.ndarray, " N"]
    class_names: tuple[str, ...]
    bottoms: Float64[np.ndarray, "N 3"]
    sizes: Float64[np.ndarray, "N 3"]
    yaws_rad: Float64[np.ndarray, " N"]

    @property
    def groups(self) -> np.ndarray:
        """Return the index in `GROUPS` of each box, -1 where its class belongs to none."""
        return np.array([_GROUP_OF.get(name, -1) for name in self.class_names], np.int32)

    def chosen(self, rows: np.ndarray) -> "Boxes":
        """Return the boxes in these rows `[n]`."""
        names = tuple(self.class_names[row] for row in rows)
        return Boxes(self.track_ids[rows], names, self.bottoms[rows], self.sizes[rows], self.yaws_rad[rows])

    def world_from_box(self) -> np.ndarray:
        """Return poses `[N, 4, 4]` of the box frames: x along the heading, y to the left, z up, origin in the bottom's middle."""
        poses = np.tile(np.eye(4), (len(self.yaws_rad), 1, 1))
        cos, sin = np.cos(self.yaws_rad), np.sin(self.yaws_rad)
        poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = cos, -sin, sin, cos
        poses[:, :3, 3] = self.bottoms
        return poses


def boxes_by_frame(tracks: Tracks, frames: int) -> list[Boxes]:
    """Return the boxes of every frame; samples without position, size or heading are left out."""
    samples = tracks.samples
    values, known = sample_boxes(tracks)
    frame, ids = samples["frame"].to_numpy(), samples["track_id"].to_numpy().astype(np.int32)
    classes = dict(zip(tracks.objects["track_id"].to_pylist(), tracks.objects["class_name"].to_pylist(), strict=True))
    found = []
    for number in range(frames):
        rows = np.flatnonzero(known & (frame == number))
        names_here = tuple(classes.get(int(track), "unknown") for track in ids[rows])
        found.append(Boxes(ids[rows], names_here, values[rows, :3], values[rows, 3:6], values[rows, 6]))
    return found


def sample_boxes(tracks: Tracks) -> tuple[Float64[np.ndarray, "R 7"], Bool[np.ndarray, " R"]]:
    """Return x, y, z (bottom centre), length, width, height and yaw of every sample, and whether all of them are known."""
    names = ("x", "y", "z", "length", "width", "height", "yaw_rad")
    values = np.stack([tracks.samples[name].to_numpy().astype(np.float64) for name in names], axis=1)
    return values, np.isfinite(values).all(axis=1) & (values[:, 3:6] > 0).all(axis=1)


@dataclass(frozen=True, eq=False)
class BoxView:
    """Which box a camera sees at each pixel.

    Attributes:
        index: `[H, W]` row of the nearest box, -1 where there is none.
        face: `[H, W]` of it: `BACK`, `FRONT`, `RIGHT`, `LEFT`, `BOTTOM` or `TOP`; 0 where there is none.
        depth_m: `[H, W]` of that face along the optical axis; infinite where there is none.
        alone: `[N]` pixels that each box would fill if there were no other.
        seen: `[N]` pixels that it fills.
    """

    index: Int32[np.ndarray, "H W"]
    face: UInt8[np.ndarray, "H W"]
    depth_m: Float32[np.ndarray, "H W"]
    alone: Int32[np.ndarray, " N"]
    seen: Int32[np.ndarray, " N"]


def view_boxes(boxes: Boxes, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> BoxView:
    """Find the nearest box along the ray of every pixel's centre, beyond `NEAR_M`.

    Rays are cut with the boxes, so that a box that reaches behind the camera shows exactly what of it lies ahead, and of
    boxes that cover one another the nearest counts at every pixel. A box that holds the camera is not seen.

    Args:
        boxes: of the frame.
        world_from_camera: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]` in pixels, centres at +0.5.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    box_from_camera = np.linalg.inv(boxes.world_from_box()) @ world_from_camera
    low = np.concatenate([-boxes.sizes[:, :2] / 2, np.zeros((len(boxes.sizes), 1))], axis=1)
    high = low + boxes.sizes
    camera_from_box = np.linalg.inv(box_from_camera)
    index = np.full((height, width), -1, np.int32)
    face = np.zeros((height, width), np.uint8)
    depth = np.full((height, width), np.inf, np.float32)
    alone = np.zeros(len(low), np.int32)
    windows = _windows(low, high, camera_from_box, intrinsics, width, height)
    _cast(box_from_camera, low, high, np.linalg.inv(intrinsics), windows, index, face, depth, alone)
    seen = np.bincount(index[index >= 0], minlength=len(low)).astype(np.int32)
    return BoxView(index, face, depth, alone, seen)


def _windows(
    low: np.ndarray, high: np.ndarray, camera_from_box: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> np.ndarray:
    """Return the pixels (left, top, right, bottom; right and bottom excluded) `[N, 4]` outside of which no box is seen."""
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    corners = np.where(bits, high[:, None], low[:, None])
    local = corners @ np.swapaxes(camera_from_box[:, :3, :3], 1, 2) + camera_from_box[:, None, :3, 3]
    depth = local[..., 2]
    pixels = (local @ intrinsics.T)[..., :2] / np.maximum(depth, NEAR_M)[..., None]
    limits = np.array([width, height])
    first = np.clip(np.floor(pixels.min(axis=1) - 1), 0, limits)
    last = np.clip(np.ceil(pixels.max(axis=1) + 1), 0, limits)
    across, behind = (depth < NEAR_M).any(axis=1), (depth < NEAR_M).all(axis=1)
    first[across], last[across] = 0, limits
    last[behind] = first[behind]
    return np.concatenate([first, last], axis=1).astype(np.int64)


@numba.njit(nogil=True, cache=True)
def _cast(
    box_from_camera: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    inverse: np.ndarray,
    windows: np.ndarray,
    index: np.ndarray,
    face: np.ndarray,
    depth: np.ndarray,
    alone: np.ndarray,
) -> None:
    """Fill the pictures of `BoxView` by the slab test (Kay and Kajiya, SIGGRAPH 1986)."""
    for box in range(len(low)):
        pose = box_from_camera[box]
        inside = True
        for axis in range(3):
            inside = inside and low[box, axis] <= pose[axis, 3] <= high[box, axis]
        if inside:
            continue
        for row in range(windows[box, 1], windows[box, 3]):
            for column in range(windows[box, 0], windows[box, 2]):
                x = inverse[0, 0] * (column + 0.5) + inverse[0, 1] * (row + 0.5) + inverse[0, 2]
                y = inverse[1, 1] * (row + 0.5) + inverse[1, 2]
                enter, leave, entered = -math.inf, math.inf, 0
                for axis in range(3):
                    start = pose[axis, 3]
                    step = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2]
                    if step == 0.0:
                        if start < low[box, axis] or start > high[box, axis]:
                            enter = math.inf
                        continue
                    first, second, side = (low[box, axis] - start) / step, (high[box, axis] - start) / step, 0
                    if first > second:
                        first, second, side = second, first, 1
                    if first > enter:
                        enter, entered = first, 2 * axis + side
                    leave = min(leave, second)
                if enter < leave and enter >= NEAR_M:
                    alone[box] += 1
                    if enter < depth[row, column]:
                        depth[row, column] = enter
                        index[row, column] = box
                        face[row, column] = entered
