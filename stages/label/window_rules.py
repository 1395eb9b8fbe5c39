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
class WindowSamples:
    """The samples in each window of a track; P pairs of a track and a window, among M samples.

    Attributes:
        row: `[P]` track of each pair.
        first, stop: `[P]` half-open range of its samples.
        frames: `[P]` frames of the clip in the window.
        gap_first, gap_stop: `[P]` half-open range of the samples that lie after its first frame, or first after its last:
            the steps that lead to them are those that the window has a part of.
        once: `[M]` false for samples that another one of the same track and frame follows; they do not count.
    """

    row: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    frames: np.ndarray
    gap_first: np.ndarray
    gap_stop: np.ndarray
    once: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum values of the samples `[M]` over each window, `[P]`."""
        return _range_sums(np.where(self.once, values, 0.0), self.first, self.stop)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of the finite values `[M]` in each window, `[P]`; NaN where there are none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.total(np.nan_to_num(values)) / self.total(np.isfinite(values))


def window_samples(
    row: np.ndarray, frame: np.ndarray, pair_row: np.ndarray, first_frame: np.ndarray, stop_frame: np.ndarray
) -> WindowSamples:
    """Find the samples in each window.

    Args:
        row: `[M]` track of each sample, sorted.
        frame: `[M]`, sorted within a track.
        pair_row: `[P]` track of each pair of a track and a window.
        first_frame: `[P]` first frame of its window.
        stop_frame: `[P]` the one after its last.
    """
    width = int(max(frame.max(initial=0), stop_frame.max(initial=0))) + 1
    key = row * width + frame
    first, stop = (np.searchsorted(key, pair_row * width + bound) for bound in (first_frame, stop_frame))
    after = np.searchsorted(key, pair_row * width + first_frame, side="right")
    once = np.append(key[1:] != key[:-1], np.ones(min(len(key), 1), bool))
    return WindowSamples(pair_row, first, stop, stop_frame - first_frame, after, stop + 1, once)


def _range_sums(values: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the sum of `values[first:stop]` for each of the ranges; nothing that lies outside one can touch its sum."""
    if not len(first):
        return np.zeros(0)
    padded = np.append(values, [0.0, 0.0]).astype(np.float64)
    return np.where(stop > first, np.add.reduceat(padded, np.stack([first, stop], 1).ravel())[::2], 0.0)


def visible_share(row: np.ndarray, frame: np.ndarray, rows: int, windows: WindowSamples) -> np.ndarray:
    """Return the share of expected samples present in each window, `[P]`; a track sampled every k-th frame expects 1/k."""
    gaps = _median_step(row[windows.once], frame[windows.once], rows)
    expected = np.maximum(windows.frames / gaps[windows.row], 1.0)
    return np.minimum(1.0, windows.total(np.ones(len(row))) / np.floor(expected).clip(1))


def _median_step(row: np.ndarray, frame: np.ndarray, rows: int) -> np.ndarray:
    """Return the median number of frames from one sample to the next, `[rows]`; 1 for fewer than two samples."""
    inner = row[1:] == row[:-1]
    owner, step = row[1:][inner], np.diff(frame)[inner]
    step = step[np.lexsort((step, owner))]
    count = np.bincount(owner, minlength=rows)
    result = np.ones(rows)
    middle = np.cumsum(count) - count + (count - 1) // 2
    result[count > 0] = step[middle[count > 0]]
    return result


def sample_rules(
    row: np.ndarray,
    columns: dict[str, np.ndarray],
    rows: int,
    windows: WindowSamples,
    rules: WindowRules,
    image_area: float,
    estimated: bool,
    metric: bool,
    unit: float,
) -> dict[str, np.ndarray]:
    """Return `[P]` flags by reason, most telling reason first, from rules that look at samples."""
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
    gaps = same & (step > rules.max_gap_s)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / image_area
    sigma = np.sqrt(np.maximum(columns["cov_xx"] + columns["cov_yy"], 0)) / columns["range"]
    with np.errstate(invalid="ignore"):
        flags = {
            "gap": (_range_sums(gaps, windows.gap_first, windows.gap_stop) > 0) & (windows.frames > 0),
            "identity_break": windows.total(broken) > 0,
            "touches_border": (windows.mean(columns["touches_border"]) > rules.max_border_share) & estimated,
            "small": (windows.mean(area) < rules.min_area_share) & estimated,
            "far": (windows.mean(columns["range"]) > rules.max_range_m) & metric,
            "position_uncertain": windows.mean(sigma) > rules.max_position_sigma,
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
    starts, stops = (np.searchsorted(row, row[jumps], side) for side in ("left", "right"))
    for jump, start, stop in zip(jumps.tolist(), starts.tolist(), stops.tolist(), strict=True):
        near = np.searchsorted(time_s[start:stop], (time_s[jump] - reach_s, time_s[jump + 1] + reach_s))
        found[start + near[0] : start + near[1]] = True
    return found
