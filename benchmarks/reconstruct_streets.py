"""Procedural street clips with moving cars: what each motion model makes of a drive.

All models begin on the same points, as a log with lidar gives them: pixels of known depth, with their colours, when they
were seen, and on which moving object if on one. How an object moves the 4D models are told by a parabola through the
middles of its points, which needs no boxes; the rigid agents get the boxes instead.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.harness import Figure, figure
from schemas.scenes import Scene4D
from stages.generate.world import DEPTH_UNIT_M, WorldConfig, generate_world
from stages.reconstruct.box_seeds import Boxes, read_boxes, seeds_from_boxes
from stages.reconstruct.driving_seeds import Sightings
from stages.reconstruct.fitting import draw, fit_scene, one_torch_thread
from stages.reconstruct.motion_seeds import gaussian_flow_drive, native_4d_drive, periodic_vibration_drive
from stages.reconstruct.seeding import OPACITY, Seeds, neighbour_spacing, unproject
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views
from worldline import motion
from worldline.cameras import invert_rigid
from worldline.metrics import psnr

MODELS = ("static", "gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents")
LAYOUTS = ("straight", "junction")
CLIP = WorldConfig(frames=40, width=192, height=108, texture_detail=0.3)
GAUSSIANS, MOVING, PER_AGENT = 9000, 1200, 300  # in all; of them on what moves; and of these on each agent
HOLD_OUT_EVERY = 8
LIFE = 0.1  # for how long a Gaussian on a moving object is there at first, where the model lets it: share of the clip
CYCLE = 1.0  # of periodic vibration, share of the clip; the paper's 0.2 bends a car's way within its life (4 dB worse)
SKY_M = 200.0  # where the first Gaussians of the sky go
NEAR_M = 0.3
STEPS = 1000
SMALLEST_REGION = 40  # pixels of movers that a frame must show to be scored


@dataclass(frozen=True)
class Street:
    """A clip to fit.

    Attributes:
        views: in metres, with true depths (the sky's `SKY_M`) and labels of what moves.
        boxes: of what moves.
        held_out: `[V]` bool.
    """

    views: Views
    boxes: Boxes
    held_out: np.ndarray


@dataclass(frozen=True)
class Score:
    """Of one fit: mean PSNR in dB over the held-out frames, whole and in what moves, and the seconds of the fit."""

    psnr: float
    dynamic_psnr: float
    seconds: float


def film(layout: str, seed: int) -> Street:
    """Draw a clip and keep what a log with lidar and boxes would know of it."""
    clip, truth = generate_world(config=dataclasses.replace(CLIP, layout=layout), seed=seed)
    assert truth.instances is not None
    assert truth.depth_2mm is not None
    boxes = read_boxes(truth.boxes, clip.times_s, minimum_travel=1.0)
    labels = truth.instances.array()
    depths = truth.depth_2mm.array().astype(np.float32) * DEPTH_UNIT_M
    views = Views(
        images=clip.frames.array(),
        labels=np.where(np.isin(labels, boxes.track_ids), labels, 0).astype(np.uint16),
        camera_from_world=invert_rigid(truth.world_from_camera),
        intrinsics=truth.intrinsics,
        times=boxes.times,
        frames=np.arange(len(labels)),
        depths=np.where(depths > 0, depths, np.float32(SKY_M)),
    )
    return Street(views, boxes, np.arange(len(labels)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY // 2)


@dataclass(frozen=True)
class Points:
    """Pixels put where their depth says, those on moving objects first.

    Attributes:
        means: `[N, 3]` metres.  sizes: `[N]` metres.  colors: `[N, 3]`.  times: `[N]` when seen.
        labels: `[N]` number of the moving object, 0 for none.
    """

    means: np.ndarray
    sizes: np.ndarray
    colors: np.ndarray
    times: np.ndarray
    labels: np.ndarray


def sample_points(views: Views, rng: np.random.Generator) -> Points:
    """Draw points from pixels of all views."""
    assert views.depths is not None
    parts = []
    for moving, count in ((True, MOVING), (False, GAUSSIANS - MOVING)):
        pixels = np.stack(np.nonzero((views.labels > 0) == moving))
        parts.append(pixels[:, np.sort(rng.permutation(pixels.shape[1])[:count])])
    view, y, x = np.concatenate(parts, axis=1)
    depths = views.depths[view, y, x].astype(np.float64)
    means = unproject(views, view, np.stack([x, y], axis=1) + 0.5, depths)
    pixel = depths / views.intrinsics[0, 0]
    sizes = np.clip(0.5 * neighbour_spacing(means), 0.5 * pixel, 6.0 * pixel)
    return Points(means, sizes, views.images[view, y, x] / 255.0, views.times[view], views.labels[view, y, x])


def follow(views: Views, points: Points) -> Sightings:
    """Return when each point on a moving object was seen, and its object's parabola about then."""
    assert views.depths is not None
    moving = points.labels > 0
    paths = np.zeros((int(moving.sum()), 2, 3))
    for label in np.unique(points.labels[moving]):
        times, middles = [], []
        for view in np.flatnonzero((views.labels == label).sum(axis=(1, 2)) >= SMALLEST_REGION // 4):
            y, x = np.nonzero(views.labels[view] == label)
            every = unproject(views, np.full(len(x), view), np.stack([x, y], axis=1) + 0.5, views.depths[view, y, x])
            times.append(views.times[view])
            middles.append(np.median(every, axis=0))
        if len(times) < 4:
            continue
        curve = np.polynomial.polynomial.polyfit(times, np.array(middles), 2)
        own = points.labels[moving] == label
        paths[own, 0] = curve[1] + 2 * curve[2] * points.times[moving][own, None]
        paths[own, 1] = curve[2]
    return Sightings(points.times[moving], paths)


def first_gaussians(model: str, street: Street, views: Views, rng: np.random.Generator) -> Seeds:
    """Return where a model begins; `views` are those to fit."""
    points = sample_points(views, rng)
    count = len(points.means)
    seeds = Seeds(points.means, points.sizes, points.colors, np.full(count, OPACITY))
    if model == "rigid_agents":
        still = points.labels == 0
        street_seeds = Seeds(points.means[still], points.sizes[still], points.colors[still], np.full(still.sum(), OPACITY))
        return seeds_from_boxes(street.boxes, views, street_seeds, PER_AGENT, rng)
    sightings = follow(views, points)
    if model == "gaussian_flow":
        return dataclasses.replace(seeds, motion=gaussian_flow_drive(sightings))
    if model == "native_4d":
        return native_4d_drive(seeds, sightings, time_scale=LIFE)
    if model == "periodic_vibration":
        return dataclasses.replace(seeds, motion=periodic_vibration_drive(seeds, sightings, cycle=CYCLE, lifespan=LIFE))
    return seeds


def choose(views: Views, chosen: np.ndarray) -> Views:
    """Return some of the views."""
    names = ("images", "labels", "camera_from_world", "times", "frames", "depths")
    return dataclasses.replace(views, **{name: getattr(views, name)[chosen] for name in names})


def fit_and_score(model: str, street: Street, steps: int, seed: int) -> tuple[Score, Scene4D]:
    """Fit one model to the frames that are not held out and compare it with those that are."""
    training, held_out = np.flatnonzero(~street.held_out), np.flatnonzero(street.held_out)
    views = street.views
    background = views.images[:, 0].reshape(-1, 3).mean(axis=0) / 255.0  # the mean of the top row: sky
    started = time.perf_counter()
    seeds = first_gaussians(model, street, choose(views, training), np.random.default_rng([seed, 4]))
    scene = fit_scene(
        views, seeds, model, FitSettings(steps=steps), training=training, validation=held_out, background=background,
        seed=seed, near_plane=NEAR_M,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    whole, moving = [], []
    with torch.no_grad(), one_torch_thread():
        behind = torch.from_numpy(background.astype(np.float32))
        for view in held_out:
            image = draw(motion.state_at(scene, float(views.times[view])), views, int(view), behind, NEAR_M).colors
            target = torch.from_numpy(views.images[view] / np.float32(255))
            whole.append(psnr(image, target))
            region = torch.from_numpy(views.labels[view] > 0)
            if int(region.sum()) >= SMALLEST_REGION:
                moving.append(psnr(image, target, region))
    return Score(float(np.mean(whole)), float(np.mean(moving)) if moving else math.nan, seconds), scene


def measure(folder: Path, quick: bool) -> Sequence[Figure]:
    """Fit every model to every clip, with three seeds (quick: one)."""
    seeds = range(1) if quick else range(3)
    scores: dict[str, list[Score]] = {model: [] for model in MODELS}
    for seed in seeds:
        for layout in LAYOUTS:
            street = film(layout, seed)
            for model in MODELS:
                score, _ = fit_and_score(model, street, STEPS, seed)
                scores[model].append(score)
                print(f"{layout} {seed} {model}: {score}", file=sys.stderr, flush=True)
    begun = dict.fromkeys(MODELS, "movers begin on the parabola of their object's points") | {
        "static": "nothing moves",
        "periodic_vibration": f"movers begin on the parabola of their object's points; cycle {CYCLE}, not the paper's 0.2",
        "rigid_agents": "given the true boxes",
    }
    of = (
        f"median of {len(LAYOUTS)} clips ({', '.join(LAYOUTS)}) x {len(seeds)} seeds, {CLIP.frames} frames of "
        f"{CLIP.width}x{CLIP.height} px, every {HOLD_OUT_EVERY}th held out, {GAUSSIANS} Gaussians on true depths, {STEPS} steps"
    )
    figures = []
    for model, rows in scores.items():
        name, detail = f"reconstruct.street.{model}", f"{of}; {begun[model]}"
        static = median(row.psnr for row in scores["static"])
        still = median(row.dynamic_psnr for row in scores["static"])
        figures += [
            figure(f"{name}.psnr_db", median(row.psnr for row in rows), "dB", f"static {static:.2f} dB", detail),
            figure(f"{name}.dynamic_psnr_db", median(row.dynamic_psnr for row in rows), "dB", f"static {still:.2f} dB",
                   f"in the pixels of what moves; {detail}"),
            figure(f"{name}.seconds", median(row.seconds for row in rows), "s", "", f"of a fit; {detail}"),
        ]  # fmt: skip
    return figures
