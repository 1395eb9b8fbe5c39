"""Which samples of estimated tracks solid bodies on the ground cannot have: boxes within one another, and footprints off it.

Class-wise limits of speed and acceleration are beside the other limits, in `window_rules`. Only estimated tracks are
judged: annotated boxes of riders and what they ride, or of a lorry and its trailer, do overlap.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stages.label.window_rules import WindowSamples


@dataclass(frozen=True)
class PlausibilityRules:
    """Limits of what counts as solid bodies that stand on the ground.

    Attributes:
        max_penetration_m: how far two boxes may reach into each other on the ground,
        max_off_ground_m: how far a footprint may be above or below the plane through all footprints,
        sigmas: each beside so many of the stated standard deviations of the positions.
        max_share: share of a window's samples that may break a rule before the window is rejected.
        min_tracks: fewer tracks tell no plane.
    """

    max_penetration_m: float = 0.7
    max_off_ground_m: float = 1.0
    sigmas: float = 2.0
    max_share: float = 0.2
    min_tracks: int = 4


def plausibility_rules(
    row: Int[np.ndarray, " M"],
    columns: dict[str, Float[np.ndarray, " M"]],
    windows: WindowSamples,
    rules: PlausibilityRules,
) -> dict[str, Bool[np.ndarray, " P"]]:
    """Return flags by reason for each pair of a track and a window, "penetration" first.

    Args:
        row: track of each sample, sorted; row 0 is the camera and no body.
        columns: of the samples, NaN for null.
        windows: samples in each window.
        rules: limits.
    """
    body, frame = row > 0, columns["frame"].astype(int)
    place = np.stack([columns[name] for name in "xyz"], -1)
    variance = np.nan_to_num(np.maximum(columns["cov_xx"], columns["cov_yy"]))
    broken = {
        "penetration": penetrating(
            row,
            frame,
            place,
            np.stack([columns[name] for name in ("length", "width", "height")], -1),
            columns["yaw_rad"],
            rules.max_penetration_m,
            rules.sigmas * np.sqrt(variance),
        ),
        "off_ground": np.abs(height_off_ground(row, place, rules.min_tracks))
        > rules.max_off_ground_m + rules.sigmas * np.sqrt(np.nan_to_num(columns["cov_zz"])),
    }
    return {reason: np.nan_to_num(windows.mean(samples & body)) > rules.max_share for reason, samples in broken.items()}


def penetrating(
    row: Int[np.ndarray, " M"],
    frame: Int[np.ndarray, " M"],
    place: Float[np.ndarray, "M 3"],
    size: Float[np.ndarray, "M 3"],
    yaw: Float[np.ndarray, " M"],
    margin: float,
    slack: Float[np.ndarray, " M"],
) -> Bool[np.ndarray, " M"]:
    """Return the samples whose box reaches into another track's box of the same frame by more than the margin.

    Of the two tracks the one with fewer samples gives way, the later one of equals: most pairs are one object followed
    twice. Boxes above each other (a bridge) do not meet.

    Args:
        row: track of each sample.
        frame: of each sample.
        place: bottom centres; samples with an unknown place, size or heading meet nothing.
        size: length along the heading, width, height; an unknown height meets every other.
        yaw: heading in the ground plane.
        margin: depth that is allowed.
        slack: added to the margin for each of the two.
    """
    support = np.bincount(row, minlength=int(row.max(initial=0)) + 1)[row]
    known = np.flatnonzero(np.isfinite(place).all(1) & np.isfinite(size[:, :2]).all(1) & np.isfinite(yaw))
    result = np.zeros(len(row), bool)
    known = known[np.argsort(frame[known], kind="stable")]
    for samples in np.split(known, np.flatnonzero(np.diff(frame[known])) + 1):
        first, second = (samples[index] for index in np.triu_indices(len(samples), 1))
        depth = penetration_depth(place[first, :2], size[first, :2], yaw[first], place[second, :2], size[second, :2], yaw[second])
        top = place[:, 2] + np.where(np.isfinite(size[:, 2]), size[:, 2], np.inf)
        level = (place[first, 2] < top[second]) & (place[second, 2] < top[first])
        deep = level & (row[first] != row[second]) & (depth > margin + np.hypot(slack[first], slack[second]))
        weaker = np.where(support[first] < support[second], first, second)
        result[weaker[deep]] = True
    return result


def penetration_depth(
    centre: Float[np.ndarray, "K 2"],
    size: Float[np.ndarray, "K 2"],
    yaw: Float[np.ndarray, " K"],
    other_centre: Float[np.ndarray, "K 2"],
    other_size: Float[np.ndarray, "K 2"],
    other_yaw: Float[np.ndarray, " K"],
) -> Float[np.ndarray, " K"]:
    """Return how far two rectangles reach into each other, `[K]`; negative is a gap along some side.

    The depth is the shortest way to push one out of the other along a side of either: of convex bodies that do not meet,
    some side's direction shows a gap (separating axis theorem; Gottschalk, Lin and Manocha, SIGGRAPH 1996).

    Args:
        centre: middle of the first of each pair.
        size: its length along the heading and its width.
        yaw: its heading.
        other_centre: middle of the second.
        other_size: its length and width.
        other_yaw: its heading.
    """
    sides = []
    for angle in (yaw, other_yaw):
        cosine, sine = np.cos(angle), np.sin(angle)
        sides.append(np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], 1))  # [K, 2 sides, 2]
    axes = np.concatenate(sides, axis=1)  # [K, 4, 2]
    apart = np.abs(np.einsum("kai,ki->ka", axes, other_centre - centre))
    reach = np.zeros_like(apart)
    for side, extent in zip(sides, (size, other_size), strict=True):
        reach += np.einsum("kas,ks->ka", np.abs(np.einsum("kai,ksi->kas", axes, side)), extent / 2)
    return (reach - apart).min(axis=1)


def height_off_ground(row: Int[np.ndarray, " M"], place: Float[np.ndarray, "M 3"], min_tracks: int) -> Float[np.ndarray, " M"]:
    """Return how far footprints are above the plane through all of them; 0 where too few tracks tell one.

    The plane has the least absolute deviation from the footprints, each track counting the same, found by reweighting, so
    that a few floating tracks do not lift it; slopes are held to zero where all lie on a line.

    Args:
        row: track of each sample; row 0 is the camera and does not count.
        place: bottom centres, NaN where unknown.
        min_tracks: fewer than this tell no plane.
    """
    known = np.isfinite(place).all(1) & (row > 0)
    tracks, owner, count = np.unique(row[known], return_inverse=True, return_counts=True)
    if len(tracks) < min_tracks:
        return np.zeros(len(row))
    feet = place[known]
    middle = np.median(feet, axis=0)
    feet = feet - middle
    spread = max(float(np.abs(feet[:, :2]).max()), 1e-9)
    design = np.column_stack([feet[:, :2] / spread, np.ones(len(feet))])
    share = 1 / count[owner]
    plane, weight = np.zeros(3), share
    for _ in range(50):
        weighted = design * weight[:, None]
        plane = np.linalg.solve(weighted.T @ design + np.diag([1e-6, 1e-6, 0.0]) * weight.sum(), weighted.T @ feet[:, 2])
        weight = share / np.maximum(np.abs(feet[:, 2] - design @ plane), 1e-3)
    above = np.zeros(len(row))
    above[known] = feet[:, 2] - design @ plane
    return above
