"""Frames per second and peak memory of each part of a driving augmentation, on one street.

Every part runs once on a small street first, so that nothing is compiled or loaded for the first time when it counts. Frames
are those of the log. Beside each rate stand the rate at which the log was recorded and, where a part is mostly one
computation, that computation alone in the same run: the network of the world model and of the detector, the rasteriser.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.driving import SPEED_PARTS
from benchmarks.harness import Figure, figure
from schemas.driving import Conditions
from schemas.models import Model
from schemas.scenes import Scene4D
from stages.contract import no_progress
from stages.generate.conditions import ConditionsConfig, generate_conditions
from stages.generate.scene_prior import ScenePriorConfig, draw_scene_prior
from stages.generate.street_video import StreetVideoConfig, generate_street_video
from stages.generate.trajectory import TrajectoryConfig, generate_trajectory
from stages.ingest.lidar_points import LidarPointsConfig, colour_lidar_points
from stages.ingest.log_source import describe_driving_log
from stages.ingest.pandaset_log import PandasetLogConfig, ingest_pandaset_log
from stages.ingest.world_log import WorldLogConfig, ingest_world_log
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.novel_tracks import NovelTracksConfig, see_novel_tracks
from stages.label.questions import QuestionsConfig, ask_questions
from stages.reconstruct.cousin import CousinConfig, fit_cousins
from stages.reconstruct.draw_path import DrawPathConfig, draw_path
from tasks.memory import forget_peak_memory, peak_memory
from tasks.models import shipped_model
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.detection.network import StreetDetector, detect_vehicles, pixels_of
from worldline.detection.weights import load_detector
from worldline.diffusion.devices import autocast, resolve_device, resolve_dtype
from worldline.diffusion.network import open_network
from worldline.diffusion.sampling import window_starts
from worldline.diffusion.windows import read_window, to_inputs
from worldline.gaussians import Gaussians
from worldline.motion import state_at
from worldline.splatting import Cameras, rasterize

STREET, TARGET_M = 900, 3.5
PANDASET = Path(__file__).resolve().parents[2] / "shared" / "data" / "pandaset_002"
_SMALL = WorldLogConfig(street=STREET, frames=12, width=96, height=64, texture_detail=0.1)
_TOLD: dict[str, Any] = {"seed": 0, "progress": no_progress}
_ON_DEVICE = ("generating", "detector")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Spent:
    """What a part took.

    Attributes:
        frames: of the log.
        seconds: of wall time.  cpu_seconds: of all processors together.
        held_mb, peak_mb: memory of the process before it, and the most in it.
        gpu_mb: the most that torch held on a GPU meanwhile, 0 where there is none.
    """

    frames: int
    seconds: float
    cpu_seconds: float
    held_mb: float
    peak_mb: float
    gpu_mb: float


@dataclass
class Ledger:
    """What every part took, and what was measured beside it.

    Attributes:
        spent: by part.
        alone: seconds and processor seconds that the one computation takes that a part mostly is, and what it is, by part.
        steps: optimisation steps of the fit.
        views: drawn per step.
    """

    spent: dict[str, Spent] = field(default_factory=dict)
    alone: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    steps: int = 0
    views: int = 0

    def run(self, part: str, frames: int, call: Callable[[], _T]) -> _T:
        """Call something as a part and write down what it took."""
        cuda = torch.cuda.is_available()
        forget_peak_memory()
        held = peak_memory()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        began, cpu_began = time.perf_counter(), time.process_time()
        result = call()
        if cuda:
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        gpu = torch.cuda.max_memory_allocated() / 1e6 if cuda else 0.0
        self.spent[part] = Spent(frames, seconds, cpu_seconds, held / 1e6, peak_memory() / 1e6, gpu)
        print(f"{part}: {frames} frames in {seconds:.2f} s ({cpu_seconds:.2f} s CPU)", file=sys.stderr)
        return result


def measure(folder: Path, quick: bool) -> Sequence[Figure]:
    """Run all parts on a small street, then on the one that counts, and put what they took into figures."""
    del folder
    run_parts(_SMALL, steps=20)
    ledger = run_parts(WorldLogConfig(street=STREET), steps=100 if quick else CousinConfig().steps)
    if PANDASET.is_dir():
        read_recorded_log(ledger)
    return figures(ledger)


def run_parts(world: WorldLogConfig, steps: int) -> Ledger:
    """Augment a street by one lane change, part by part.

    Args:
        world: the street.
        steps: of each fit.
    """
    ledger = Ledger(steps=steps)
    count = world.frames
    clip, path, tracks, recorded, road_map, lidar, _ = ledger.run(
        "street", count, lambda: ingest_world_log(config=world, **_TOLD)
    )
    change = TrajectoryConfig(target_m=TARGET_M) if count > 12 else TrajectoryConfig(target_m=1.0, duration_s=1.0)
    novel, novel_path = ledger.run(
        "trajectory", count, lambda: generate_trajectory(path, tracks, recorded, road_map, change, **_TOLD)
    )
    told = (clip, path, tracks, recorded, novel, novel_path, road_map, lidar)
    conditions = ledger.run("conditions", count, lambda: generate_conditions(*told, ConditionsConfig(), **_TOLD))
    points = colour_lidar_points(clip, path, tracks, lidar, LidarPointsConfig(), **_TOLD)
    config = CousinConfig(steps=steps)
    ledger.views = 2 * config.batch

    def fit(*films: Any) -> Scene4D:
        with tempfile.TemporaryDirectory() as checkpoints:
            paths = (novel_path,) * len(films)
            return fit_cousins(clip, path, points, tracks, lidar, films, paths, config, checkpoints=Path(checkpoints), **_TOLD)[0]

    scene = fit()
    drawn = ledger.run("scene_prior", count, lambda: draw_scene_prior(scene, conditions, novel_path, ScenePriorConfig(), **_TOLD))
    model, how = shipped_model("street_video"), StreetVideoConfig()
    film = ledger.run("generating", count, lambda: generate_street_video(conditions, drawn, model, how, **_TOLD))
    scene = ledger.run("cousin_fit", count, lambda: fit(film))
    ledger.run("drawing", count, lambda: draw_path(scene, novel_path, DrawPathConfig(), **_TOLD))

    def label() -> None:
        seen = see_novel_tracks(tracks, novel, novel_path, NovelTracksConfig(), **_TOLD)
        kinematics = estimate_kinematics(seen, novel_path, KinematicsConfig(), **_TOLD)
        ask_questions(kinematics, seen, novel_path, QuestionsConfig(), **_TOLD)

    ledger.run("labelling", count, label)
    network = load_detector(shipped_model("street_detector").files, resolve_device("auto"))
    frames = film.frames.array()
    ledger.run("detector", count, lambda: detect_vehicles(network, frames))

    drawing = _rasterise(scene, novel_path, clip.size, backward=False)
    ledger.alone["drawing"] = ledger.alone["scene_prior"] = (*drawing, "the rasteriser alone")
    share = steps * ledger.views / count
    wall, cpu = (share * seconds for seconds in _rasterise(scene, path, clip.size, backward=True))
    ledger.alone["cousin_fit"] = (wall, cpu, "as many full-sized pictures, forward and backward through the rasteriser alone")
    ledger.alone["generating"] = (*_denoise(model, conditions, drawn, how), "the network's forward passes alone")
    ledger.alone["detector"] = (*_detect(network, frames), "the network's forward pass alone")
    return ledger


def read_recorded_log(ledger: Ledger) -> None:
    """Read PandaSet's scene, and beside it only decode its pictures."""
    import cv2

    _, source, _ = describe_driving_log(PANDASET)
    config = PandasetLogConfig(max_side=256)
    log = ledger.run("reading", 0, lambda: ingest_pandaset_log(source, config, **_TOLD))
    count = len(log[0].frames)
    ledger.spent["reading"] = dataclasses.replace(ledger.spent["reading"], frames=count)
    pictures = [file for name, file in sorted(source.files.items()) if name.endswith((".jpg", ".png"))][:count]
    decoding = _fastest(lambda: [cv2.imread(str(file)) for file in pictures])
    ledger.alone["reading"] = (*decoding, "decoding its pictures alone, without lidar and boxes,")


def _rasterise(scene: Scene4D, path: Any, size: tuple[int, int], *, backward: bool) -> tuple[float, float]:
    """Return wall and processor seconds of a picture for every frame of a path, whose Gaussians are placed beforehand."""
    width, height = size
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    chosen = range(0, len(path.times_s), 4)
    states = [state_at(scene, float(path.times_s[frame])) for frame in chosen]
    cameras = [Cameras.single(invert_rigid(path.world_from_camera[frame]), intrinsics, width, height) for frame in chosen]
    if backward:
        states = [Gaussians._make(item if item is None else item.clone().requires_grad_() for item in state) for state in states]

    def draw() -> None:
        for gaussians, camera in zip(states, cameras, strict=True):
            with torch.set_grad_enabled(backward):
                picture = rasterize(gaussians, camera, depths=True, antialiased=True)
            if backward:
                assert picture.depths is not None
                (picture.colors.square().sum() + picture.depths.sum()).backward()

    wall, cpu = (len(path.times_s) / len(states) * seconds for seconds in _fastest(draw))
    return wall, cpu


def _denoise(model: Model, conditions: Conditions, drawn: Conditions, how: StreetVideoConfig) -> tuple[float, float]:
    """Return wall and processor seconds of the passes that a film takes, whose inputs are made beforehand."""
    device = resolve_device(how.device)
    dtype = resolve_dtype(how.dtype, device)
    network = open_network(model).to(device)
    count = len(conditions.times_s)
    starts, window = window_starts(count, how.window, how.overlap), min(how.window, count)
    parts = [to_inputs([read_window(conditions, drawn, range(start, start + window))]).to(device) for start in starts]
    noise = torch.randn(1, window, 3, *conditions.known.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)

    def passes() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            for inputs in parts:
                network.forward(noise, torch.ones(1, device=device), inputs)

    wall, cpu = (how.steps * seconds for seconds in _fastest(passes))
    return wall, cpu


def _detect(network: StreetDetector, frames: np.ndarray) -> tuple[float, float]:
    pixels = pixels_of(frames, next(network.parameters()).device)

    def look() -> None:
        with torch.inference_mode():
            for part in pixels.split(16):
                network(part)

    return _fastest(look)


def _fastest(call: Callable[[], Any], times: int = 2) -> tuple[float, float]:
    """Return wall and processor seconds of the fastest of a few calls."""
    taken = []
    for _ in range(times):
        began, cpu_began = time.perf_counter(), time.process_time()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - began, time.process_time() - cpu_began))
    return min(taken)


def figures(ledger: Ledger) -> list[Figure]:
    """Return the figures of a run; a part that was not run has figures that say why."""
    device = resolve_device("auto")
    threads = f"{torch.get_num_threads()} threads"
    found = []
    for part in SPEED_PARTS:
        name = f"driving.speed.{part}"
        spent = ledger.spent.get(part)
        if spent is None:
            detail = f"not run: there is no {PANDASET}"
            found += [figure(f"{name}.frames_per_second", None, "1/s", "", detail),
                      figure(f"{name}.peak_memory_mb", None, "MB", "", detail)]  # fmt: skip
            continue
        compared = "the log was recorded at 10 frames per second"
        if part in ledger.alone:
            seconds, cpu_seconds, what = ledger.alone[part]
            compared += f"; {what} {spent.frames / seconds:.3g} ({cpu_seconds:.3g} s CPU)"
        where = f"on {device}" if part in _ON_DEVICE and device != "cpu" else f"on the processor, {threads}"
        took = f"{spent.frames} frames in {spent.seconds:.3g} s ({spent.cpu_seconds:.3g} s CPU) {where}, {_of(part, ledger)}"
        memory = f"of the process with all libraries and what was made before, which held {spent.held_mb:.0f} MB; {where}"
        if spent.gpu_mb:
            memory += f"; {spent.gpu_mb:.0f} MB on the GPU"
        found += [figure(f"{name}.frames_per_second", spent.frames / spent.seconds, "1/s", compared, took),
                  figure(f"{name}.peak_memory_mb", spent.peak_mb, "MB", "", memory)]  # fmt: skip
    fit = ledger.spent["cousin_fit"]
    seconds, _, what = ledger.alone["cousin_fit"]
    compared = f"{what} {ledger.steps / seconds:.3g}"
    detail = f"{ledger.steps} steps of {ledger.views} views in {fit.seconds:.1f} s, {threads}; the first half small"
    found.append(figure("driving.speed.cousin_fit.steps_per_second", ledger.steps / fit.seconds, "1/s", compared, detail))
    return found


def _of(part: str, ledger: Ledger) -> str:
    if part == "reading":
        return "PandaSet scene 002 at 256x144 px"
    of = {
        "street": "drawing it, with lidar and boxes",
        "conditions": "canvases, and recorded frames warped into the view",
        "generating": f"{StreetVideoConfig().steps} steps in windows of {StreetVideoConfig().window} frames",
        "cousin_fit": f"{ledger.steps} steps of two recorded and two generated views",
        "labelling": "tracks, kinematics and questions of the novel path",
        "detector": "ours, on generated frames",
    }.get(part)
    return f"street {STREET} at 192x112 px" + (f": {of}" if of else "")
