"""Where a video is cut, told from everything else that changes a picture at once.

A step between two frames is suspected where small pictures of them differ more than their neighbours do. That is cheap, and
also true of flashes, of something large that jumps into view, and of the start of a fast pan. A suspect is a cut only if
SIFT features (Lowe 2004) of the two sides agree on no homography, neither across the step nor within a second around it
(after a flash or a passing truck the old scene is back), although on each side of it neighbours do: where features fail
anyway, as in motion blur, their silence means nothing. Dissolves of one shot into another are not found.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from schemas.media import Video

THUMB_PX, _WORKING_SIDE_PX = (64, 36), 640
_FEATURES, _RATIO = 600, 0.8  # strongest kept; distance to the nearest over that to the second nearest descriptor
_SPREAD_PX = 10.0  # so far may parallax take a feature off the homography of frames close in time
_CELLS, _FEWEST_CELLS = (8, 5), 5  # a logo or a bonnet that outlives the cut fills few cells of the picture
_BLANK = 4.0  # standard deviation in grey levels up to which a small picture shows nothing
_AROUND, _LOOKS_PER_SECOND = 3, 4
_ISOLATED = 4.0  # times the steps around it: such a step needs no proof that features work on either side
_BACK_AGAIN = 0.35  # of the step: so little does the scene of before differ when it comes back


@dataclass(frozen=True)
class Cut:
    """The first frame after a cut, what it comes after ("cut", or "blank" frames), and what told it."""

    frame: int
    kind: str
    evidence: str


class Scenes:
    """Features of single frames, each found once, and whether two frames show the same scene."""

    def __init__(self, frames: Video, fewest_links: int) -> None:
        self._frames, self._fewest_links = frames, fewest_links
        height, width = frames.shape[1:3]
        factor = min(1.0, _WORKING_SIDE_PX / max(width, height))
        self._size = (max(1, round(width * factor)), max(1, round(height * factor)))
        self._sift, self._matcher = cv2.SIFT.create(nfeatures=_FEATURES), cv2.BFMatcher(cv2.NORM_L2)
        self._found: dict[int, tuple[np.ndarray, Any]] = {}

    def features(self, index: int) -> tuple[np.ndarray, Any]:
        """Return positions `[N, 2]` in pixels of the working size, and descriptors (None where there are none)."""
        if index not in self._found:
            picture = cv2.resize(self._frames.at([index])[0], self._size, interpolation=cv2.INTER_AREA)
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            points, descriptors = self._sift.detectAndCompute(_full_range(grey), None)
            self._found[index] = np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors
        return self._found[index]

    def linked(self, first: int, second: int) -> bool:
        """Return whether enough features, spread over the picture, follow one homography."""
        (points_a, described_a), (points_b, described_b) = self.features(first), self.features(second)
        if min(len(points_a), len(points_b)) < max(self._fewest_links, 4):
            return False
        near, back = self._matcher.knnMatch(described_a, described_b, k=2), self._matcher.match(described_b, described_a)
        good = [pair[0] for pair in near if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
        good = [match for match in good if back[match.trainIdx].trainIdx == match.queryIdx]  # not many to one
        if len(good) < max(self._fewest_links, 4):
            return False
        a, b = points_a[[match.queryIdx for match in good]], points_b[[match.trainIdx for match in good]]
        _, inlier = cv2.findHomography(a, b, cv2.RANSAC, _SPREAD_PX, maxIters=1000)
        if inlier is None or inlier.sum() < self._fewest_links:
            return False
        return min(self._cells(points[inlier[:, 0] > 0]) for points in (a, b)) >= _FEWEST_CELLS

    def _cells(self, points: np.ndarray) -> int:
        """Return how many cells of the picture hold one of the points."""
        return len(np.unique((points / np.array(self._size) * _CELLS).astype(int), axis=0))


def _full_range(grey: np.ndarray) -> np.ndarray:
    """Stretch grey levels to the full range: SIFT's threshold is absolute, and a scene that fades is still that scene."""
    return cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload, no-any-return]


def small_pictures(frames: Video) -> Float32[np.ndarray, "T 36 64 3"]:
    """Return all frames at `THUMB_PX`."""
    thumbs = [cv2.resize(frame, THUMB_PX, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.array(thumbs, np.float32).reshape(-1, THUMB_PX[1], THUMB_PX[0], 3)


def find_cuts(
    frames: Video,
    thumbs: Float32[np.ndarray, "T h w 3"],
    times_s: Float64[np.ndarray, " T"],
    suspect_ratio: float,
    suspect_levels: float,
    fewest_links: int,
) -> list[Cut]:
    """Return the cuts of a video in order; none lies within two frames of its ends.

    Args:
        frames: the video.
        thumbs: small pictures of its frames.
        times_s: their times.
        suspect_ratio: a step is suspected from this many times the steps around it on,
        suspect_levels: and from this mean difference in grey levels on.
        fewest_links: so many features must agree for two frames to show one scene.
    """
    scenes = Scenes(frames, fewest_links)
    steps = np.array([0.0, *(np.abs(a - b).mean() for a, b in itertools.pairwise(thumbs))])
    blank = thumbs.mean(axis=3).std(axis=(1, 2)) < _BLANK
    cuts = []
    for index in range(2, len(thumbs) - 1):
        around = [part for part in (steps[max(1, index - _AROUND) : index], steps[index + 1 : index + 1 + _AROUND]) if len(part)]
        ratio = float(steps[index] / max(1.0, *(float(np.median(part)) for part in around)))
        if steps[index] < suspect_levels or ratio < suspect_ratio or blank[index - 1] or blank[index]:
            continue
        if _is_cut(scenes, thumbs, times_s, index, float(steps[index]), ratio):
            evidence = f"differs by {steps[index]:.0f} grey levels, {ratio:.1f} times as much as around it; no features in common"
            cuts.append(Cut(index, "cut", evidence))
    return sorted([*cuts, *_cuts_at_blanks(scenes, blank, times_s)], key=lambda cut: cut.frame)


def _is_cut(scenes: Scenes, thumbs: np.ndarray, times_s: np.ndarray, index: int, step: float, ratio: float) -> bool:
    before, after = _looks(times_s, index - 1, -1), _looks(times_s, index, 1)
    across = [(index - 1, look) for look in after] + [(look, index) for look in before[1:]]
    if any(float(np.abs(thumbs[a] - thumbs[b]).mean()) < _BACK_AGAIN * step for a, b in across):
        return False
    if ratio >= _ISOLATED:  # features may be few: a shot of a wall is a shot
        return not any(scenes.linked(a, b) for a, b in across)
    if not (scenes.linked(index - 2, index - 1) and scenes.linked(index, index + 1)):
        return False
    return not any(scenes.linked(a, b) for a, b in across)


def _cuts_at_blanks(scenes: Scenes, blank: np.ndarray, times_s: np.ndarray) -> list[Cut]:
    """Return a cut after every run of blank frames on whose two sides different scenes are seen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(np.int8)))
    cuts = []
    for start, end in edges.reshape(-1, 2).tolist():
        if start < 2 or end > len(blank) - 2:
            continue
        before, after = _looks(times_s, start - 1, -1), _looks(times_s, end, 1)
        features_work = all(any(scenes.linked(a, b) for a, b in itertools.pairwise(side)) for side in (before, after))
        if features_work and not any(scenes.linked(a, b) for a in before for b in after):
            cuts.append(Cut(end, "blank", f"{end - start} blank frames, with no features in common before and after them"))
    return cuts


def _looks(times_s: np.ndarray, first: int, direction: int) -> list[int]:
    """Return a frame, the two next to it, and a few within a second of it, going forwards or backwards."""
    wanted = times_s[first] + direction * np.arange(1, _LOOKS_PER_SECOND + 1) / _LOOKS_PER_SECOND
    later = np.abs(times_s[:, None] - wanted[None]).argmin(axis=0)
    chosen = dict.fromkeys([first, first + direction, first + 2 * direction, *later.tolist()])
    return [index for index in chosen if 0 <= index < len(times_s) and (index - first) * direction >= 0]
