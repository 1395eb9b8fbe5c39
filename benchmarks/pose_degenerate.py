"""Footage that cannot, or must not simply, be reconstructed: is it told for what it is, and is honest motion left alone?

Every clip shows a procedural street, filmed by a camera that this bench holds, through the sensor model of the worlds. The
stages get frames and intrinsics, never the truth. Verdicts are right or wrong; several streets per case.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.harness import Figure, figure
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.media import Video
from schemas.tracks import Truth
from stages.contract import no_progress
from stages.ingest.shots import ShotConfig, ShotsConfig, find_shots, take_shot
from stages.pose.colmap import ColmapConfig, solve_camera_path
from worldline.cameras import rigid
from worldline.worlds import Lens, build_street
from worldline.worlds.renderer import Renderer
from worldline.worlds.sensor import expose

_LENS = Lens(480, 270, 380.0)
_FRAMES, _RATE = 20, 10.0
_TIMES = np.arange(_FRAMES) / _RATE
_REGISTERED = 0.9  # share of frames from which on a camera that moves counts as found


def measure_verdicts(folder: Path, quick: bool) -> list[Figure]:
    """Return the share of right verdicts over all cases, and that of every case."""
    seeds = range(1 if quick else 3)
    figures, right_of_all = [], []
    for name, case in CASES.items():
        right, told = [], []
        for seed in seeds:
            try:
                is_right, said = case(seed)
            except Exception as error:  # no crash is part of what is asked
                is_right, said = False, f"{type(error).__name__}: {error}"
            right.append(is_right)
            told.append(said)
            print(f"{name} {seed}: {'right' if is_right else 'WRONG'}, {said}", file=sys.stderr, flush=True)
        right_of_all += right
        figures.append(figure(f"pose.degenerate.{name}", float(np.mean(right)), "share", detail="; ".join(told)))
    detail = f"{len(right_of_all)} clips of {len(CASES)} kinds"
    return [figure("pose.degenerate.right_verdicts", float(np.mean(right_of_all)), "share", "1.0 asked", detail), *figures]


# -- filming -----------------------------------------------------------------------------------------------------------


def film(seed: int, poses: np.ndarray, times_s: np.ndarray, layout: str = "straight", noise: float = 1.5) -> np.ndarray:
    """Return frames `[T, H, W, 3]` of a street from camera poses `[T, 4, 4]` in the frame of the street's own first camera."""
    rng = np.random.default_rng(seed)
    scene = build_street(layout, rng, detail=0.5)
    world_from_street = scene.world_from_camera(0.0)
    with Renderer(scene, _LENS) as renderer:
        views = [renderer.draw(world_from_street @ pose, float(time)).rgb for pose, time in zip(poses, times_s, strict=True)]
    return np.stack([expose(rng, view, 1.0, noise, 0.0) for view in views])


def clip_of(frames: np.ndarray, rate: float = _RATE, known: bool = True) -> Clip:
    """Return frames as a clip."""
    return Clip(
        frames=Video.from_array(frames),
        times_s=np.arange(len(frames)) / rate,
        name="degenerate",
        intrinsics=_LENS.intrinsics if known else None,
    )


def still(count: int = _FRAMES) -> np.ndarray:
    """Return the poses of a tripod."""
    return np.repeat(np.eye(4)[None], count, axis=0)


def turning(seed: int) -> np.ndarray:
    """Return the poses of a camera that pans and nods about its centre."""
    rng = np.random.default_rng([seed, 1])
    pan = np.linspace(0, rng.choice([-1, 1]) * rng.uniform(25, 60), _FRAMES)
    nod = rng.uniform(1, 4) * np.sin(np.linspace(0, 4, _FRAMES))
    return rigid(Rotation.from_euler("YX", np.stack([pan, nod], axis=1), degrees=True).as_matrix(), np.zeros((_FRAMES, 3)))


def driving(count: int = _FRAMES, step_m: float = 0.6) -> np.ndarray:
    """Return the poses of a drive straight ahead."""
    centres = np.zeros((count, 3))
    centres[:, 2] = np.arange(count) * step_m
    return rigid(np.repeat(np.eye(3)[None], count, axis=0), centres)


def handheld(seed: int) -> np.ndarray:
    """Return the poses of somebody who walks a metre sideways and forwards, looks around, and shakes."""
    rng = np.random.default_rng([seed, 2])
    swing = np.linspace(0, 1, _FRAMES)
    centres = np.stack([swing * rng.choice([-1, 1]), 0.03 * np.sin(9 * swing), 0.5 * swing], axis=1)
    centres += rng.normal(size=centres.shape) * 0.005
    angles = np.stack([12 * np.sin(3 * swing), 3 * np.sin(7 * swing)], axis=1) + rng.normal(size=(_FRAMES, 2)) * 0.3
    return rigid(Rotation.from_euler("YX", angles, degrees=True).as_matrix(), centres)


def orbiting(seed: int) -> np.ndarray:
    """Return the poses of a camera that goes a ninth of the way round a point 8 m ahead and looks at it."""
    angle = np.linspace(-20, 20, _FRAMES) * (-1 if seed % 2 else 1)
    rotation = Rotation.from_euler("Y", angle[:, None], degrees=True).as_matrix()
    return rigid(rotation, np.array([0.0, 0.0, 8.0]) - 8.0 * rotation[:, :, 2])


def recode(frames: np.ndarray) -> np.ndarray:
    """Return frames as they come out of a lossy codec at a usual quality."""
    import av

    file = io.BytesIO()
    codec, quality = ("libx264", {"crf": "23"}) if "libx264" in av.codecs_available else ("mpeg4", {"qmin": "4", "qmax": "4"})
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=30, options=quality)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as coded:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)])


# -- judging -----------------------------------------------------------------------------------------------------------


def solve(clip: Clip) -> CameraPath:
    """Return the path that `pose.colmap` finds."""
    path, _ = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    return path


def says(path: CameraPath) -> str:
    """Return a path's verdict in a few words."""
    return f"{path.verdict}, {path.registered.sum()} of {len(path.registered)} registered"


def moves(path: CameraPath) -> bool:
    """Return whether a path says that the camera moved, and knows where it was."""
    return path.verdict == "moving" and float(path.registered.mean()) >= _REGISTERED


def static(seed: int) -> tuple[bool, str]:
    """A tripod before a crossing with traffic."""
    path = solve(clip_of(film(seed, still(), 4 * _TIMES, "junction")))
    return path.verdict == "static" and bool(path.registered.all()), says(path)


def rotation(seed: int) -> tuple[bool, str]:
    """A pan, calibrated: right to 0.5 degrees in every frame."""
    return _rotation(seed, known=True)


def rotation_uncalibrated(seed: int) -> tuple[bool, str]:
    """A pan whose focal length is unknown: told for what it is."""
    return _rotation(seed, known=False)


def _rotation(seed: int, known: bool) -> tuple[bool, str]:
    poses = turning(seed)
    path = solve(clip_of(film(seed, poses, np.zeros(_FRAMES)), known=known))
    relative = np.linalg.inv(poses[0]) @ poses
    error = Rotation.from_matrix(np.swapaxes(relative[:, :3, :3], 1, 2) @ path.world_from_camera[:, :3, :3]).magnitude()
    worst = float(np.degrees(error.max()))
    right = path.verdict == "rotation" and bool(path.registered.all()) and (worst < 0.5 or not known)
    return right, f"{says(path)}, largest error {worst:.2f} degrees"


def cut(seed: int) -> tuple[bool, str]:
    """Two drives in two streets, cut together in the middle: two shots, each solved by itself."""
    half = driving(15)
    first, second = (
        film(street, half, np.arange(15) / _RATE, layout) for street, layout in ((seed, "straight"), (seed + 50, "curve"))
    )
    clip = clip_of(np.concatenate([first, second]))
    shots = find_shots(clip, ShotsConfig(), seed=0, progress=no_progress)
    starts = shots.shots["start_frame"].to_pylist()
    if starts != [0, 15]:
        return False, f"shots begin at {starts}"
    parts = [take_shot(clip, Truth.unavailable(), shots, ShotConfig(index), seed=0, progress=no_progress)[0] for index in (0, 1)]
    paths = [solve(part) for part in parts]
    return all(map(moves, paths)), f"cut at 15; {' and '.join(map(says, paths))}"


def textureless(seed: int) -> tuple[bool, str]:
    """A wall with uneven light and a noisy sensor."""
    rng = np.random.default_rng(seed)
    light = np.linspace(90, 150, _LENS.width)[None, :, None] + np.linspace(0, 20, _LENS.height)[:, None, None]
    frames = light[None] + rng.normal(size=(_FRAMES, _LENS.height, _LENS.width, 3)) * rng.uniform(1, 4)
    path = solve(clip_of(np.clip(frames, 0, 255).astype(np.uint8)))
    return path.verdict == "textureless" and not path.registered.any(), says(path)


def black(seed: int) -> tuple[bool, str]:
    """A lens cap."""
    path = solve(clip_of(np.full((_FRAMES, _LENS.height, _LENS.width, 3), seed, np.uint8)))
    return path.verdict == "textureless" and not path.registered.any(), says(path)


def one_frame(seed: int) -> tuple[bool, str]:
    """One frame: nothing can be said of motion."""
    path = solve(clip_of(film(seed, still(1), np.zeros(1))))
    return path.verdict == "failed" and not path.registered.any(), says(path)


def two_frames(seed: int) -> tuple[bool, str]:
    """Two frames a metre and a half apart, sideways: both placed with the direction between them right to 5 degrees, or none."""
    poses = still(2)
    poses[1, :3, 3] = [1.5, 0.0, 0.3]
    path = solve(clip_of(film(seed, poses, np.zeros(2))))
    if path.verdict == "failed":
        return not path.registered.any(), says(path)
    moved = path.world_from_camera[1, :3, 3]
    angle = np.degrees(
        np.arccos(np.clip(moved @ poses[1, :3, 3] / np.linalg.norm(moved) / np.linalg.norm(poses[1, :3, 3]), -1, 1))
    )
    return moves(path) and bool(angle < 5), f"{says(path)}, direction {angle:.1f} degrees off"


def frozen(seed: int) -> tuple[bool, str]:
    """A drive whose picture stands still for ten frames."""
    return _repeated(seed, np.concatenate([np.arange(10), np.full(10, 9), np.arange(10, _FRAMES)]), _RATE)


def duplicated(seed: int) -> tuple[bool, str]:
    """A drive whose rate was doubled by showing every frame twice, through a lossy codec."""
    return _repeated(seed, np.repeat(np.arange(_FRAMES), 2), 2 * _RATE)


def _repeated(seed: int, shown: np.ndarray, rate: float) -> tuple[bool, str]:
    frames = recode(film(seed, driving(), np.zeros(_FRAMES))[shown])
    path = solve(clip_of(frames, rate))
    first = np.searchsorted(shown, shown)  # of each run
    found = path.repeats if path.repeats is not None else np.arange(len(shown))
    same = bool(np.array_equal(path.world_from_camera, path.world_from_camera[first]))
    right = moves(path) and same and bool(np.array_equal(found, first))
    copies = int((first != np.arange(len(shown))).sum())
    missed, invented = (
        int(((found == np.arange(len(shown))) & (first != np.arange(len(shown)))).sum()),
        int((found < first).sum()),
    )
    return right, f"{says(path)}; {copies} copies, {missed} missed, {invented} too many"


def drive(seed: int) -> tuple[bool, str]:
    """A drive straight ahead."""
    path = solve(clip_of(film(seed, driving(), np.zeros(_FRAMES))))
    return moves(path) and path.repeats is None, says(path)


def orbit(seed: int) -> tuple[bool, str]:
    """A camera that goes round a point and looks at it."""
    path = solve(clip_of(film(seed, orbiting(seed), np.zeros(_FRAMES))))
    return moves(path) and path.repeats is None, says(path)


def walk(seed: int) -> tuple[bool, str]:
    """A handheld camera that looks around while its holder moves."""
    path = solve(clip_of(film(seed, handheld(seed), np.zeros(_FRAMES)), known=False))
    return moves(path) and path.repeats is None, says(path)


def uncut(seed: int) -> tuple[bool, str]:
    """A fast pan, a flash, and traffic right before the lens: one shot each."""
    pan = turning(seed)
    pan[:, :3, :3] = Rotation.from_euler("Y", 12.0 * np.arange(_FRAMES)[:, None], degrees=True).as_matrix()
    flash = film(seed, driving(), np.zeros(_FRAMES))
    flash[11] = np.clip(flash[11].astype(int) + 160, 0, 255)
    films = {"pan": film(seed, pan, np.zeros(_FRAMES)), "flash": flash, "traffic": film(seed, still(), 4 * _TIMES, "junction")}
    counts = {
        name: find_shots(clip_of(film), ShotsConfig(), seed=0, progress=no_progress).shots.num_rows
        for name, film in films.items()
    }
    return set(counts.values()) == {1}, ", ".join(f"{name}: {count} shot{'s' * (count > 1)}" for name, count in counts.items())


CASES: dict[str, Callable[[int], tuple[bool, str]]] = {
    case.__name__: case
    for case in (
        static,
        rotation,
        rotation_uncalibrated,
        cut,
        uncut,
        textureless,
        black,
        one_frame,
        two_frames,
        frozen,
        duplicated,
        drive,
        orbit,
        walk,
    )
}
