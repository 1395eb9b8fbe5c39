"""Scenes read from files with time: moments, each with the span in which it holds, become one scene."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.scenes import Scene4D
from worldline.formats.moments import Moment, joined, scene_of


@dataclass(frozen=True)
class Births:
    """Gaussians of one piece of a file and their lives, in seconds of the clip.

    Attributes:
        moment: the Gaussians as they are at their peaks.
        velocities: `[N, 3]` scene units per second.  peaks, lifespans, starts, ends: `[N]` s; lifespans and the window may be
            infinite.
    """

    moment: Moment
    velocities: np.ndarray
    peaks: np.ndarray
    lifespans: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def held(moment: Moment, start_s: float, end_s: float) -> Births:
    """Return Gaussians that stand still and are there from `start_s` until before `end_s`."""
    count = len(moment)
    return Births(moment, np.zeros((count, 3)), np.full(count, start_s if np.isfinite(start_s) else 0.0),
                  np.full(count, np.inf), np.full(count, start_s), np.full(count, end_s))  # fmt: skip


def scene_of_births(pieces: Sequence[Births], start_s: float, end_s: float, instances: np.ndarray | None = None) -> Scene4D:
    """Return one scene of all pieces, with the motion model `gaussian_birth`.

    Windows that close at the end of the span stay open, because a scene shows its last moment at its end and after it.
    """
    span = end_s - start_s if end_s > start_s else 1.0
    lives = {name: np.concatenate([getattr(piece, name) for piece in pieces])
              for name in ("velocities", "peaks", "lifespans", "starts", "ends")}  # fmt: skip
    motion: dict[str, np.ndarray] = {
        "velocities": (lives["velocities"] * span).astype(np.float32),
        "peaks": ((lives["peaks"] - start_s) / span).astype(np.float32),
        "lifespans": (lives["lifespans"] / span).astype(np.float32),
        "starts": (lives["starts"] - start_s) / span,
        "ends": np.where(lives["ends"] >= end_s, np.inf, (lives["ends"] - start_s) / span),
    }
    return scene_of(joined([piece.moment for piece in pieces]), "gaussian_birth", motion, start_s, end_s, instances)
