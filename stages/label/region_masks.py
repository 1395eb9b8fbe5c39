"""From grouped point tracks to pixels: every pixel takes the label of the nearest tracked point, within limits.

Static tracks compete with moving ones, so regions end where the background was seen to stand still; texture-free
parts inside an object's convex outline (panes, paint) belong to it.
"""

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt16


def paint_labels(
    xy_px: Float64[np.ndarray, "N 2"],
    label: Int64[np.ndarray, " N"],
    size: tuple[int, int],
    scale: float,
    reach_px: float,
) -> UInt16[np.ndarray, "h w"]:
    """Label the pixels of one frame.

    Args:
        xy_px: tracked points in clip pixels.
        label: object of each point, 0 for points that stand still.
        size: width and height of the clip.
        scale: mask pixels per clip pixel.
        reach_px: how far a point's label reaches outside its object's outline, in clip pixels.
    """
    width, height = round(size[0] * scale), round(size[1] * scale)
    labels = np.zeros((height, width), np.uint16)
    if not label.any():
        return labels
    column = np.clip((xy_px[:, 0] * scale).astype(int), 0, width - 1)
    row = np.clip((xy_px[:, 1] * scale).astype(int), 0, height - 1)
    seeds = np.full((height, width), 255, np.uint8)
    seeds[row, column] = 0
    distance, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of_seed = np.zeros(nearest.max() + 1, np.uint16)
    label_of_seed[nearest[row, column]] = label
    closest = label_of_seed[nearest]
    for name in np.unique(label[label > 0]):
        own = label == name
        outline = cv2.convexHull(np.stack([column[own], row[own]], axis=1).astype(np.int32))
        inside = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(inside, outline, 1)
        reach = scale * painted_reach(float(np.ptp(xy_px[own, 1])), reach_px)
        region = ((closest == name) & ((distance <= reach) | (inside > 0))).astype(np.uint8)
        side = 1 + 2 * int(np.clip(0.06 * np.ptp(row[own]), 1, 5))
        region = cv2.morphologyEx(region, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        region = cv2.morphologyEx(region, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        labels[(region > 0) & ((labels == 0) | (closest == name))] = name
    return labels


def painted_reach(height_px: float, reach_px: float) -> float:
    """Return how far a region is painted beyond the outermost points of an object whose points span `height_px` rows.

    A corner is found up to half a patch outside its edge: small objects must not grow by that.
    """
    return min(reach_px, 0.05 * height_px + 1)
