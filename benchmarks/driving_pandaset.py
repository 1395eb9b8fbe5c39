"""A real log: PandaSet scene 002 along trajectories that nobody drove, with and without generated cousins.

NTA-IoU and obedience take a detector that knows filmed streets: an object-detection checkpoint that the environment variable
WORLDLINE_DETECTOR names, by repository id or folder. Ours knows procedural streets alone; without another these figures
say that they were not run.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, figure
from schemas.errors import WorldlineError

DETECTOR = "WORLDLINE_DETECTOR"
SOURCE = Path(__file__).resolve().parents[2] / "shared" / "data" / "pandaset_002"


def measure(folder: Path, quick: bool) -> Sequence[Figure]:
    """Build the augmented dataset, fit the same log without generated frames, and compare both on the novel paths.

    Raises:
        WorldlineError: if the scene is not at hand.
    """
    if not SOURCE.is_dir():
        raise WorldlineError(f"there is no {SOURCE}: the case needs PandaSet scene 002")
    from catalogs.catalog import Catalog
    from flows.building import run_flow
    from stages.contract import no_progress
    from stages.label.detect_vehicles import open_detector
    from stages.reconstruct.cousin import CousinConfig, fit_cousins
    from stages.reconstruct.draw_path import DrawPathConfig, draw_path
    from stages.reconstruct.evaluate_novel import EvaluateNovelConfig, agent_figures, depth_figures
    from tasks.configs import make_config
    from tasks.models import shipped_model

    told: dict[str, Any] = {"seed": 0, "progress": no_progress}
    steps = ["reconstruct.cousin.steps=200", "generate.tune_street_video.steps=20"] if quick else []
    named = os.environ.get(DETECTOR, "")
    asked = [f"{stage}.model={named}" for stage in ("reconstruct.evaluate_novel", "label.obedience")] if named else []
    started = time.monotonic()
    outcome = run_flow("driving_augmentation", [f"source={SOURCE}", *steps, *asked], folder / "home")
    seconds = time.monotonic() - started
    catalog = Catalog.open(folder / "home")
    version = catalog.dataset(outcome["dataset"])
    novel = sorted(role.rpartition("/")[0] for role in version.artifacts if role.endswith("/generated"))
    load: dict[str, Any] = {role: version.load(role) for role in ("clip", "path", "points", "tracks", "lidar")}
    settings = version.recipe["reconstruct"]["cousin"]
    with tempfile.TemporaryDirectory() as checkpoints:
        scene, metrics = fit_cousins(
            load["clip"], load["path"], load["points"], load["tracks"], load["lidar"], (), (),
            make_config(CousinConfig, settings, "reconstruct.cousin"), checkpoints=Path(checkpoints), **told,
        )  # fmt: skip
    original = {row["name"]: row for row in metrics.figures.to_pylist()}
    fitted: Any = version.load("fit_metrics")
    cousin = {row["name"]: row for row in fitted.figures.to_pylist()}
    errors: dict[str, list[float]] = {"original": [], "cousin": []}
    overlaps: dict[str, list[float]] = {"original": [], "cousin": []}
    obeyed: list[float] = []
    rules = EvaluateNovelConfig(model=named)
    detect = open_detector(rules, shipped_model("street_detector"), DETECTOR) if named else None
    for name in novel:
        path: Any = version.load(f"{name}/path")
        seen: Any = version.load(f"{name}/tracks")
        drawn: dict[str, Any] = {"original": draw_path(scene, path, DrawPathConfig(), **told),
                                 "cousin": (version.load(f"{name}/clip"), version.load(f"{name}/depth"))}  # fmt: skip
        for arm, (frames, depth) in drawn.items():
            errors[arm] += [row["value"] for row in depth_figures(depth, path, load["lidar"])]
            if detect is not None:
                rows = agent_figures(detect, named, frames.frames.array(), seen, path, rules)
                overlaps[arm] += [row["value"] for row in rows if row["name"] == "driving.nta_iou"]
        if detect is not None:
            obedience: Any = version.load(f"{name}/obedience")
            obeyed += [value for row, value in obedience.facts().items() if row == "driving.condition_obedience_m"]
    where = f"PandaSet 002, {len(load['clip'].frames)} frames of {load['clip'].size[0]}x{load['clip'].size[1]} px"
    print(f"built {', '.join(novel)} in {seconds:.0f} s", file=sys.stderr)
    found = [figure("driving.pandaset.trajectories", len(novel), "trajectories", "3 asked", ", ".join(novel)),
             figure("driving.pandaset.seconds", seconds, "s", "", f"the whole build; {where}")]  # fmt: skip
    for arm, figures in (("original", original), ("cousin", cousin)):
        held_out = figures["reconstruct.heldout_psnr_db"]
        found.append(
            figure(f"driving.pandaset.{arm}.heldout_psnr_db", held_out["value"], "dB", "", f"{held_out['detail']}; {where}")
        )
        error = float(np.mean(errors[arm])) if errors[arm] else None
        detail = f"median over lidar points from each novel path, mean over {len(errors[arm])} paths; {where}"
        found.append(figure(f"driving.pandaset.{arm}.lidar_depth_error_m", error, "m", "", detail))
        found.append(_judged(f"driving.pandaset.{arm}.nta_iou", overlaps[arm], "of 1", named, where))
        unseen = "not run: the only segmenter of lane lines at hand is ours, which knows procedural streets alone"
        found.append(figure(f"driving.pandaset.{arm}.ntl_iou_lane", None, "of 1", "", unseen))
    found.append(_judged("driving.pandaset.condition_obedience_m", obeyed, "m", named, where))
    return found


def _judged(id: str, values: list[float], unit: str, named: str, where: str) -> Figure:
    """Return the mean of what a detector found on the novel paths; without a detector, a figure that says so."""
    if not named:
        detail = f"not run: our detector knows procedural streets alone; name one that knows filmed ones in {DETECTOR}"
        return figure(id, None, unit, "", detail)
    mean = float(np.mean(values)) if values else None
    return figure(id, mean, unit, "", f"mean over {len(values)} paths, detector {named}; {where}")
