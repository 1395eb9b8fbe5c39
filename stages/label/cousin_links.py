"""Stage `label.cousin_links`: which recorded frame each generated one is a cousin of, as a table that can be queried."""

from dataclasses import dataclass
from typing import Any

from schemas.artifact import rows_to_table
from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.driving import COUSINS, CousinLinks, Trajectory
from schemas.errors import WorldlineError
from stages.contract import Progress, stage


@dataclass(frozen=True)
class CousinLinksConfig:
    """Nothing can be chosen: frames are cousins where their times are the same."""


@stage("label.cousin_links", version=1)
def link_cousins(
    clip: Clip,
    generated: tuple[Clip, ...],
    trajectories: tuple[Trajectory, ...],
    config: CousinLinksConfig,
    *,
    seed: int,
    progress: Progress,
) -> CousinLinks:
    """Link the generated clips' frames to the recorded clip's.

    Args:
        clip: recorded.
        generated: one clip per trajectory.
        trajectories: that they show.
        config: nothing.
        seed: not used.
        progress: not told.

    Raises:
        WorldlineError: if clips and trajectories do not go together.
    """
    recorded = content_digest(clip)
    rows: list[dict[str, Any]] = []
    for made, trajectory in _together(clip, generated, trajectories):
        digest, told = content_digest(made), made.provenance
        forward, left = (trajectory.checks[name].to_pylist() for name in ("forward_m", "left_m"))
        for frame, time_s in enumerate(made.times_s):
            rows.append(
                {
                    "trajectory": trajectory.name,
                    "manoeuvre": trajectory.manoeuvre,
                    "frame": frame,
                    "time_s": float(time_s),
                    "recorded": recorded,
                    "generated": digest,
                    "generator": str(told.get("generator", "")),
                    "model": str(told.get("model", "")),
                    "seed": told.get("seed"),
                    "forward_m": forward[frame],
                    "left_m": left[frame],
                }
            )
    return CousinLinks(rows_to_table(COUSINS, sorted(rows, key=lambda row: (row["trajectory"], row["frame"]))))


def _together(clip: Clip, generated: tuple[Clip, ...], trajectories: tuple[Trajectory, ...]) -> list[tuple[Clip, Trajectory]]:
    if len(generated) != len(trajectories):
        raise WorldlineError(
            f"label.cousin_links: {len(generated)} generated clips but {len(trajectories)} trajectories: give one per clip"
        )
    for made, trajectory in zip(generated, trajectories, strict=True):
        if not len(clip.times_s) == len(made.times_s) == trajectory.checks.num_rows:
            raise WorldlineError(
                f"label.cousin_links: {trajectory.name} has {trajectory.checks.num_rows} frames, its clip "
                f"{len(made.times_s)} and the log {len(clip.times_s)}: they must show the same times"
            )
    return list(zip(generated, trajectories, strict=True))
