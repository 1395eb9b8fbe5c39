"""What is drawn over the video: boxes with names and speeds, and the outlines of moving regions."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from schemas.motion import Masks
from stages.export.shown import ShownTrack, Units

_SMALLEST_REGION_PX = 24  # of the mask; smaller specks are not outlined


def collect_boxes(
    objects: list[ShownTrack], frames: np.ndarray, times_s: np.ndarray, units: Units, grid_s: float, scale: tuple[float, float]
) -> list[list[dict[str, Any]]]:
    """Return the boxes of every shown frame in pixels of the shown video, with the text beside each.

    Args:
        objects: all objects.
        frames: shown frames.
        times_s: times of all frames of the clip.
        units: units for people.
        grid_s: spacing of the kinematic states: how far in time a state may be from the frame that quotes it.
        scale: shown pixels per clip pixel along x and y.
    """
    boxes: list[list[dict[str, Any]]] = []
    for frame in frames:
        drawn = []
        for item in objects:
            row = item.samples.get(int(frame))
            if row is None or row["x0_px"] is None:
                continue
            left, top = row["x0_px"] * scale[0], row["y0_px"] * scale[1]
            right, bottom = row["x1_px"] * scale[0], row["y1_px"] * scale[1]
            drawn.append(
                {
                    "k": item.palette,
                    "b": [round(value, 1) for value in (left, top, right - left, bottom - top)],
                    "t": f"#{item.track_id}{_speed_words(item, float(times_s[frame]), units, grid_s)}",
                }
            )
        boxes.append(drawn)
    return boxes


def _speed_words(item: ShownTrack, time_s: float, units: Units, grid_s: float) -> str:
    state = item.state_near(time_s, max(grid_s, 1e-6) * 0.51)
    if state is None or state["speed_p50"] is None:
        return ""
    if state["state"] == "static":
        return " still"
    speed = state["speed_p50"] * units.speed_factor
    return f" {speed:.0f} {units.speed}" if units.metric else f" {speed:.2g} {units.speed}"


def outline_regions(masks: Masks, frames: np.ndarray, size: tuple[int, int]) -> list[str]:
    """Return one SVG path per shown frame around all moving regions, in pixels of the shown video (width, height)."""
    wanted = {int(frame) for frame in frames}
    return [_outline(labels, size) for index, labels in enumerate(masks.labels) if index in wanted]


def _outline(labels: UInt16[np.ndarray, "h w"], size: tuple[int, int]) -> str:
    scale = np.array([size[0] / labels.shape[1], size[1] / labels.shape[0]])
    paths = []
    for label in np.unique(labels[labels > 0]):
        contours, _ = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            if cv2.contourArea(contour) < _SMALLEST_REGION_PX:
                continue
            corners = cv2.approxPolyDP(contour, 0.8, True)[:, 0]
            points = np.round((corners + 0.5) * scale).astype(int)
            paths.append("M" + "L".join(f"{x} {y}" for x, y in points) + "Z")
    return "".join(paths)


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"], boxes: list[tuple[float, float, float, float]], width_px: int = 2
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy of an RGB image with boxes (x0, y0, x1, y1 in its pixels): white lines on a dark edge."""
    drawn = image.copy()
    for x0, y0, x1, y1 in boxes:
        corners = (round(x0), round(y0)), (round(x1), round(y1))
        cv2.rectangle(drawn, *corners, (20, 20, 20), width_px + 2, cv2.LINE_AA)
        cv2.rectangle(drawn, *corners, (255, 214, 10), width_px, cv2.LINE_AA)
    return drawn
