"""How a clip is reconstructed: which frames are matched, by which mapper, in how many windows; chosen from the footage.

What decides is continuity: the share of a frame's corners that optical flow finds again in the next frame. In video it is
high whatever the frame rate says; photos of a walk share a view with their neighbours, but flow cannot follow from one to
the next. Times are not asked: folders of frames often have none, and photos are sometimes taken in bursts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas.media import Video
from stages.pose.footage import find_corners, track, working_images
from stages.pose.pairs import loop_gap, sequential_steps
from stages.pose.windows import plan_windows

Pairing = Literal["sequential", "exhaustive", "retrieval"]
_LOOKED_AT = 12  # pairs of consecutive frames that continuity is measured on


@dataclass(frozen=True)
class Strategy:
    """What was chosen.

    Attributes:
        pairing: "sequential", "exhaustive", or "retrieval" (frames that look alike).
        loops: whether frames far apart in time that look alike are matched as well.
        windows: ranges of frames `(start, stop)` that are solved one by one and joined; one for all unless the clip is long.
        pairs: how many pairs are matched at most.
        why: the reason, in words for people.
    """

    pairing: Pairing
    loops: bool
    windows: tuple[tuple[int, int], ...]
    pairs: int
    why: str

    @property
    def photos(self) -> bool:
        """Whether the frames are not a film: each needs all the features that it can give."""
        return self.pairing != "sequential"


@dataclass(frozen=True)
class StrategyConfig:
    """What may be matched with what.

    Attributes:
        pairs: "auto" chooses from the footage.
        continuity: share of corners found again in the next frame from which frames count as video.
        loop_neighbours: frames far away in time that every few frames of a video are compared with; 0 looks for no loops.
        exhaustive_up_to: photos up to which all are matched with all.
        photo_neighbours: beyond that, photos that look most alike which each photo is matched with.
        window: frames of a video that are solved at once; longer ones are solved in windows.
        window_overlap: frames that neighbouring windows share.
    """

    pairs: Literal["auto", "sequential", "exhaustive", "retrieval"] = "auto"
    continuity: float = 0.2
    loop_neighbours: int = 3
    exhaustive_up_to: int = 80
    photo_neighbours: int = 20
    window: int = 200
    window_overlap: int = 50


def measure_continuity(frames: Video, size: tuple[int, int], corner_strength: float) -> float:
    """Return the share of corners found again in the next frame, the median over pairs spread over the clip."""
    if len(frames) < 2:
        return 1.0
    firsts = np.unique(np.linspace(0, len(frames) - 2, _LOOKED_AT).round().astype(int))
    images, _ = working_images(frames.at(sorted({*firsts.tolist(), *(firsts + 1).tolist()})), size)
    place = {index: position for position, index in enumerate(sorted({*firsts.tolist(), *(firsts + 1).tolist()}))}
    shares = []
    for first in firsts:
        one, next_one = images[place[int(first)]], images[place[int(first) + 1]]
        corners = find_corners(one, corner_strength)
        if len(corners):
            shares.append(float(track(one, next_one, corners, corners)[1].mean()))
    return float(np.median(shares)) if shares else 1.0


def choose_strategy(count: int, continuity: float, overlap: int, config: StrategyConfig) -> Strategy:
    """Choose how `count` frames of a measured continuity are matched and mapped; `overlap` is that of sequential pairs.

    Nothing is decoded: for the plan of a clip that is not at hand, give the continuity that is expected.
    """
    found = f"{100 * continuity:.0f} % of corners found again in the next frame"
    pairing, why = config.pairs, "asked for"
    if pairing == "auto":
        if continuity >= config.continuity:
            pairing, why = "sequential", f"video: {found}"
        elif count <= config.exhaustive_up_to:
            pairing, why = "exhaustive", f"photos: {found}"
        else:
            pairing, why = "retrieval", f"{count} photos: {found}"
    if pairing == "sequential":
        loops = config.loop_neighbours > 0 and count > loop_gap(count, overlap)
        looked_for = config.loop_neighbours * len(range(0, count, max(overlap // 2, 1))) if loops else 0
        near = sum(max(count - step, 0) for step in sequential_steps(overlap))
        windows = plan_windows(count, config.window, config.window_overlap)
        # every loop that is verified may bring the eight pairs around it
        return Strategy(pairing, loops, tuple(windows), near + 9 * looked_for, why)
    every = count * (count - 1) // 2
    pairs = every if pairing == "exhaustive" else min(every, count * (config.photo_neighbours + 2))
    return Strategy(pairing, False, ((0, count),), pairs, why)


def describe_strategy(strategy: Strategy, mapped: Sequence[str]) -> str:
    """Return a strategy in one phrase: pairs, mapper, windows, and why."""
    parts = [f"{strategy.pairing} pairs", *mapped]
    return f"{', '.join(parts)} ({strategy.why})"
