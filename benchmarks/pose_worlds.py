"""What leaving out moving traffic does to camera paths: procedural street clips, some of them filled by buses.

Every clip is solved as the flow does it: a first pass from the frames alone, the moving regions found with it, and
`pose.refine`. Errors are root mean square distances of camera centres after a similarity alignment. The seeds of these
clips are not those that the thresholds were chosen on (101 and 102).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.pose_placing import place_in_world
from schemas.tracks import Truth
from stages.contract import no_progress
from stages.generate.world import WorldConfig, generate_world
from stages.label.moving_regions import MovingRegionsConfig, find_moving_regions
from stages.label.point_tracks import PointTracksConfig, track_points
from stages.pose.colmap import ColmapConfig, solve_camera_path
from stages.pose.refine import RefineConfig, refine_camera_path
from worldline.cameras import absolute_trajectory_error

CLIPS = (
    ("buses_across", 0), ("buses_across", 1), ("bus_beside", 0), ("bus_beside", 1), ("bus_ahead", 0), ("bus_ahead", 1),
    ("straight", 0), ("straight", 1), ("curve", 0), ("junction", 0),
)  # fmt: skip
QUICK_CLIPS = (("buses_across", 0), ("bus_ahead", 0), ("straight", 0))
FRAMES, WIDTH, HEIGHT, DETAIL = 40, 384, 216, 0.4
DOMINANT = 0.25  # share of all pixels that moving objects cover, from which they dominate a clip


@dataclass(frozen=True)
class Trial:
    """One clip solved.

    Attributes:
        covered: share of the pixels that moving objects cover, by the truth.
        plain_cm, masked_cm: errors of the first pass, and of what is kept after the second.
        length_m: of the true path.
        solved_again: whether the second pass was kept.
    """

    covered: float
    plain_cm: float
    masked_cm: float
    length_m: float
    solved_again: bool

    @property
    def ratio(self) -> float:
        """Error with masks over error without."""
        return self.masked_cm / self.plain_cm


def measure_masks(folder: Path, quick: bool) -> Sequence[Figure]:
    """Solve every clip with and without masks."""
    trials: dict[str, Trial] = {}
    for layout, seed in QUICK_CLIPS if quick else CLIPS:
        trials[f"{layout}_{seed}"] = trial = solve(layout, seed)
        print(f"{layout} {seed}: {trial}", file=sys.stderr, flush=True)
    filled = [trial.ratio for trial in trials.values() if trial.covered >= DOMINANT]
    others = [trial.ratio for trial in trials.values() if trial.covered < DOMINANT]
    of = f"of {len(trials)} clips of {FRAMES} frames of {WIDTH}x{HEIGHT} px; errors after similarity alignment"
    figures = [
        figure(
            "pose.worlds.ate_ratio_with_masks",
            median(filled),
            "ratio",
            "at most 0.5 asked",
            f"median over the {len(filled)} clips in which movers cover at least {DOMINANT:.0%} of the picture "
            f"({', '.join(f'{ratio:.3f}' for ratio in filled)}), {of}",
        ),
        figure(
            "pose.worlds.worst_ratio",
            max(others),
            "ratio",
            "at most 1.1 asked",
            f"worst of the {len(others)} clips in which they cover less, {of}",
        ),
    ]
    for name, trial in trials.items():
        detail = (
            f"path of {trial.length_m:.1f} m, movers cover {trial.covered:.0%}, "
            f"{'solved again' if trial.solved_again else 'the first pass stood'}"
        )
        figures += [
            figure(f"pose.worlds.{name}.ate_cm_plain", trial.plain_cm, "cm", "", detail),
            figure(f"pose.worlds.{name}.ate_cm_masked", trial.masked_cm, "cm", f"{trial.plain_cm:.2f} cm without masks", detail),
        ]
    return figures


def solve(layout: str, seed: int) -> Trial:
    """Draw a clip and solve it; a path of which frames are missing counts them at the distance of the nearest solved one."""
    config = WorldConfig(layout=layout, frames=FRAMES, width=WIDTH, height=HEIGHT, texture_detail=DETAIL)
    clip, truth = generate_world(config=config, seed=seed)
    clip.frames.array()
    first = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    tracks = track_points(clip, PointTracksConfig())
    masks = find_moving_regions(clip, *place_in_world(clip, *first), tracks, MovingRegionsConfig())
    second = refine_camera_path(clip, *first, masks, tracks, RefineConfig(), seed=0, progress=no_progress)
    assert truth.world_from_camera is not None
    true = truth.world_from_camera[:, :3, 3]
    return Trial(
        covered=covered_share(truth),
        plain_cm=error_cm(first[0].world_from_camera[:, :3, 3], first[0].registered, true),
        masked_cm=error_cm(second[0].world_from_camera[:, :3, 3], second[0].registered, true),
        length_m=float(np.linalg.norm(np.diff(true, axis=0), axis=1).sum()),
        solved_again=second[0] is not first[0],
    )


def error_cm(centres: np.ndarray, registered: np.ndarray, true: np.ndarray) -> float:
    """Return the error in cm; a frame that was not solved stands where the nearest solved one does."""
    solved = np.flatnonzero(registered)
    if len(solved) < 3:
        return float("nan")
    nearest = solved[np.abs(np.arange(len(true))[:, None] - solved).argmin(axis=1)]
    return 100 * absolute_trajectory_error(centres[nearest], true, with_scale=True)[0]


def covered_share(truth: Truth) -> float:
    """Return the share of all pixels that moving objects cover."""
    assert truth.boxes is not None
    assert truth.instances is not None
    moving: dict[int, list[int]] = {}
    for row in truth.boxes.select(["frame", "track_id", "moving"]).to_pylist():
        if row["moving"]:
            moving.setdefault(row["frame"], []).append(row["track_id"])
    return float(np.mean([np.isin(ids, moving.get(frame, [])).mean() for frame, ids in enumerate(truth.instances)]))
