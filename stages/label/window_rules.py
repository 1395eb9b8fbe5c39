"""Why no label is made from a window: the rules that look at samples, in the order in which they are named."""

from dataclasses import dataclass

import numpy as np

from worldline.kinematics.definitions import box_iou

# Largest plausible speed (m/s) and acceleration (m/s^2) by class; every other class has the limits of a car.
CLASS_LIMITS = {"pedestrian": (4.0, 4.0), "cyclist": (15.0, 10.0), "bicycle": (15.0, 10.0)}
CAR_LIMITS = (55.0, 10.0)


@dataclass(frozen=True)
class WindowRules:
    """Limits of the rule filter.

    Attributes:
        min_visible: smallest share of the window's samples that must be present.
        max_gap_s: longest gap between samples.
        min_area_share: smallest mean area of the box, as a share of the image (estimated tracks only).
        max_border_share: largest share of samples whose box touches the image border (estimated tracks only).
        max_range_m: largest mean range in metres, where lengths are metric.
        max_position_sigma: largest standard deviation of position, as a share of the range.
        min_box_iou: boxes of neighbouring samples that overlap less than this break the identity (gaps under 0.25 s).
        jump_sigmas: so does a position that leaves its neighbours' motion by this many of the track's own robust standard
            deviations,
        min_jump_m: and by this many metres (without a scale: by this many units, of which the median range has 20).
        max_relative_sigma: largest standard deviation of a moving window's distance without the scale's share.
    """

    min_visible: float = 0.8
    max_gap_s: float = 1.0
    min_area_share: float = 0.001
    max_border_share: float = 0.2
    max_range_m: float = 60.0
    max_position_sigma: float = 0.15
    min_box_iou: float = 0.1
    jump_sigmas: float = 7.0
    min_jump_m: float = 1.5
    max_relative_sigma: float = 0.2


@dataclass(frozen=True)
class Frames:
    """Frames of the clip that lie in each window.

    Attributes:
        times_s: `[T]`.
        first, stop: `[W]` half-open range of frames of each window.
    """

    times_s: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum `[N, T]` per-frame values over each window, `[N, W]`."""
        sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1, dtype=np.float64)], axis=1)
        return sums[:, self.stop] - sums[:, self.first]


def dense(row: np.ndarray, frame: np.ndarray, values: np.ndarray, rows: int, frames: int) -> np.ndarray:
    """Spread per-sample values over `[rows, frames]`, NaN elsewhere."""
    result = np.full((rows, frames), np.nan)
    result[row, frame] = values
    return result


def visible_share(present: np.ndarray, frames: Frames) -> np.ndarray:
    """Return the share of expected samples present in each window, `[N, W]`; a track sampled every k-th frame expects 1/k."""
    gaps = _median_step(present)
    expected = np.maximum((frames.stop - frames.first)[None] / gaps[:, None], 1.0)
    return np.minimum(1.0, frames.total(present) / np.floor(expected).clip(1))


def _median_step(present: np.ndarray) -> np.ndarray:
    """Return the median number of frames from one sample to the next, `[N]`; 1 for fewer than two samples."""
    row, frame = np.nonzero(present)
    inner = row[1:] == row[:-1]
    owner, step = row[1:][inner], np.diff(frame)[inner]
    step = step[np.lexsort((step, owner))]
    count = np.bincount(owner, minlength=len(present))
    result = np.ones(len(present))
    middle = np.cumsum(count) - count + (count - 1) // 2
    result[count > 0] = step[middle[count > 0]]
    return result


def sample_rules(
    row: np.ndarray,
    columns: dict[str, np.ndarray],
    rows: int,
    frames: Frames,
    rules: WindowRules,
    image_area: float,
    estimated: bool,
    metric: bool,
    unit: float,
) -> dict[str, np.ndarray]:
    """Return `[rows, W]` flags by reason, most telling reason first, from rules that look at samples."""
    total = len(frames.times_s)
    frame = columns["frame"].astype(int)

    def mean(values: np.ndarray) -> np.ndarray:
        spread = dense(row, frame, values, rows, total)
        with np.errstate(invalid="ignore", divide="ignore"):
            return frames.total(np.nan_to_num(spread)) / frames.total(np.isfinite(spread))

    same = np.zeros(len(row), bool)
    same[1:] = row[1:] == row[:-1]
    step = np.zeros(len(row))
    step[1:] = np.where(same[1:], np.diff(columns["time_s"]), 0.0)
    boxes = np.stack([columns[name] for name in ("x0_px", "y0_px", "x1_px", "y1_px")], -1)
    overlap = np.ones(len(row))
    overlap[1:] = np.where(np.isfinite(boxes[1:, 0] + boxes[:-1, 0]), box_iou(boxes[1:], boxes[:-1]), 1.0)
    broken = same & (step < 0.25) & (overlap < rules.min_box_iou)
    place = np.stack([columns[name] for name in "xyz"], -1)
    broken |= position_jumps(row, columns["time_s"], place, rows, rules.jump_sigmas, rules.min_jump_m * unit)
    in_gap = np.zeros((rows, total + 1))
    gaps = same & (step > rules.max_gap_s)
    np.add.at(in_gap, (row[gaps], frame[np.flatnonzero(gaps) - 1]), 1)
    np.add.at(in_gap, (row[gaps], frame[gaps]), -1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / image_area
    sigma = np.sqrt(np.maximum(columns["cov_xx"] + columns["cov_yy"], 0)) / columns["range"]
    with np.errstate(invalid="ignore"):
        flags = {
            "gap": frames.total(np.cumsum(in_gap, axis=1)[:, :total]) > 0,
            "identity_break": frames.total(np.nan_to_num(dense(row, frame, broken, rows, total))) > 0,
            "touches_border": (mean(columns["touches_border"]) > rules.max_border_share) & estimated,
            "small": (mean(area) < rules.min_area_share) & estimated,
            "far": (mean(columns["range"]) > rules.max_range_m) & metric,
            "position_uncertain": mean(sigma) > rules.max_position_sigma,
        }
    return flags


def position_jumps(
    row: np.ndarray, time_s: np.ndarray, place: np.ndarray, rows: int, sigmas: float, least: float, reach_s: float = 0.5
) -> np.ndarray:
    """Return the samples `[M]` around which a track seems to go on as another object.

    The step between two samples is compared with the mean of the step before and the step after, all as velocities: a jump
    stands out there, while speed and turns cancel. Noise is judged by the median of these differences over the track.
    Samples within `reach_s` of a jump are returned as well: smoothing carries it that far.

    Args:
        row: `[M]` track of each sample, sorted; times sorted within.
        time_s: `[M]`.
        place: `[M, 3]`, NaN where unknown.
        rows: number of tracks.
        sigmas: how many robust standard deviations a jump must have.
        least: smallest jump, in the unit of `place`.
        reach_s: how far around a jump samples count.
    """
    found = np.zeros(len(row), bool)
    if len(row) < 4:
        return found
    step = np.diff(time_s)
    with np.errstate(invalid="ignore", divide="ignore"):
        velocity = np.diff(place, axis=0) / step[:, None]
        odd = np.linalg.norm(velocity[1:-1] - (velocity[:-2] + velocity[2:]) / 2, axis=1) * step[1:-1]
    use = (row[3:] == row[:-3]) & np.isfinite(odd) & (step[1:-1] < 0.6)
    owner, odd, begin = row[:-3][use], odd[use], np.flatnonzero(use) + 1
    order = np.lexsort((odd, owner))
    count = np.bincount(owner, minlength=rows)
    middle = np.zeros(rows)
    has = count > 0
    middle[has] = odd[order][(np.cumsum(count) - count + (count - 1) // 2)[has]]
    # the length of a 3D normal error has its median at 1.54 standard deviations per axis
    jumps = begin[odd > np.maximum(sigmas * middle[owner] / 1.54, least)]
    for jump in jumps.tolist():
        near = slice(*np.searchsorted(time_s[row == row[jump]], (time_s[jump] - reach_s, time_s[jump + 1] + reach_s)))
        found[np.flatnonzero(row == row[jump])[near]] = True
    return found
