"""Every format: what a render loses by a journey through a file, how many bytes that takes, and who else opens the file.

The drop is that of PSNR against a picture 40 dB from the original's render (its own with white noise of sigma 0.01), better
than any fit here reaches: 0.1 dB of drop means that the file adds a fortieth of the fit's own error.
"""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Figure, figure
from schemas.scenes import Scene4D
from worldline import formats
from worldline.cameras import rigid
from worldline.motion import state_at
from worldline.splatting import Cameras, rasterize

MODELS = ("static", "gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents")
SPAN_S = (1.0, 3.0)
AT_S = 2.0  # the moment of formats without time
FRAMES = 8
NOISE = 0.01
SIZE = 128


# -- scenes and pictures -----------------------------------------------------------------------------------------------


def random_scene(model: str, count: int = 2000, degree: int = 3, seed: int = 0) -> Scene4D:
    """Return Gaussians of a ball of radius about 1 that move as the model lets them; `degree` is that of the harmonics."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    quats = normal(count, 4)
    harmonics = (degree + 1) ** 2 - 1
    return Scene4D(
        motion_model=model,
        means=0.5 * normal(count, 3),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        scales=np.exp(-2.8 + 0.4 * normal(count, 3)),
        opacities=rng.uniform(0.2, 1.0, count).astype(np.float32),
        colors=rng.uniform(0.1, 0.9, (count, 3)).astype(np.float32),
        motion=_motion(model, quats, rng),
        start_s=SPAN_S[0],
        end_s=SPAN_S[1],
        background=np.zeros(3),
        scale_source="none",
        scale_sigma=0.0,
        harmonics=0.1 * normal(count, harmonics, 3) if harmonics else None,
        instances=rng.integers(0, 3, count).astype(np.int32),
    )


def _motion(model: str, quats: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = len(quats)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, count).astype(np.float32)

    if model == "gaussian_flow":
        moving = np.arange(0, count, 2)
        widths = {"position": 3, "rotation": 4, "color": 3}
        series = {f"{name}_polynomial": 0.1 * normal(len(moving), 3, width) for name, width in widths.items()}
        series |= {f"{name}_fourier": 0.05 * normal(len(moving), 4, width) for name, width in widths.items()}
        return series | {"moving": moving, "time_centers": 0.2 * normal(len(moving))}
    if model == "native_4d":
        return {"times": uniform(-0.1, 1.1), "time_scales": uniform(0.2, 0.6), "right_quats": quats + 0.05 * normal(count, 4)}
    if model == "periodic_vibration":
        return {"velocities": 0.3 * normal(count, 3), "peaks": uniform(0, 1), "lifespans": uniform(0.3, 1.0),
                "cycle": np.array([0.8], np.float32)}  # fmt: skip
    if model == "rigid_agents":
        turns = np.concatenate([np.ones((2, 5, 1)), 0.2 * rng.standard_normal((2, 5, 3)).cumsum(axis=1)], axis=2)
        return {"agents": rng.integers(0, 3, count), "agent_times": np.linspace(0, 1, 5).astype(np.float32),
                "agent_quats": turns.astype(np.float32), "agent_positions": 0.2 * normal(2, 5, 3).cumsum(axis=1),
                "agent_alive": np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], bool)}  # fmt: skip
    return {}


def pictures(scene: Scene4D, time_s: float, size: int = SIZE) -> np.ndarray:
    """Return what two cameras see at a time, one level and one from above, `[2, size, size, 3]` unclamped."""
    poses = []
    for centre in (np.array([0.0, -4.0, 0.5]), np.array([2.5, -1.0, 3.0])):
        forward = -centre / np.linalg.norm(centre)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses.append(rigid(rotation, -rotation @ centre))
    intrinsics = np.array([[1.3 * size, 0, size / 2], [0, 1.3 * size, size / 2], [0, 0, 1.0]])
    state = state_at(scene, time_s)
    with torch.no_grad():
        drawn = [rasterize(state, Cameras.single(pose, intrinsics, size, size)).colors[0] for pose in poses]
    return torch.stack(drawn).double().numpy()


def drop_db(original: Scene4D, again: Scene4D, times_s: Sequence[float], size: int = SIZE) -> float:
    """Return by how much a render of `again` is worse than one of `original`, in dB of PSNR, the worst of some times."""
    worst = -np.inf
    for number, time_s in enumerate(times_s):
        drawn = pictures(original, time_s, size)
        truth = drawn + NOISE * np.random.default_rng(number).standard_normal(drawn.shape)
        error, error_again = (np.mean((image - truth) ** 2) for image in (drawn, pictures(again, time_s, size)))
        worst = max(worst, 10 * np.log10(error_again / error))
    return float(worst)


# -- journeys ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Journey:
    """One format.

    Attributes:
        name, path: its name, and that of the file or folder.
        write: takes a scene and a path.
        times_s: when renders are compared.
        opens: says who opened the file at a path, or raises what that program holds against it.
        lossless: whether values are kept to float32.
        harmonics: whether scenes of all models keep their harmonics; those that lose them are measured on scenes without.
    """

    name: str
    path: str
    write: Callable[[Scene4D, Path], None]
    times_s: tuple[float, ...]
    opens: Callable[[Path], str]
    lossless: bool = False
    harmonics: bool = True


def _by_gsply(path: Path) -> str:
    import gsply

    paths = sorted(path.glob("*.ply")) if path.is_dir() else [path]
    for one in paths:
        data = gsply.read_spz(one) if one.suffix == ".spz" else gsply.plyread(one)
        if not len(data) or not all(np.isfinite(array).all() for array in (data.means, data.scales, data.quats, data.sh0)):
            raise RuntimeError(f"gsply reads nothing of use from {one.name}")
    return f"gsply {gsply.__version__}"


def _by_fourdgs(path: Path) -> str:
    import fourdgs
    from fourdgs.validate import validate

    report = validate(path.read_bytes())
    if not report.ok:
        raise RuntimeError(f"fourdgs' validator: {'; '.join(map(str, report.findings))}")
    return f"validator of fourdgs {fourdgs.__version__}"


def _by_gltf_readers(path: Path) -> str:
    import fourdgs

    count = fourdgs.from_gltf(str(path)).gaussians.count
    if not count:
        raise RuntimeError("fourdgs reads no Gaussians from the glTF")
    read_by = f"from_gltf of fourdgs {fourdgs.__version__}"
    modules = install_validator(path.parent / "validator")
    if modules is None:
        return f"{read_by}; Khronos' validator was not at hand (node, npm)"
    unknown = check_gltf(path, modules)
    return (
        f"{read_by}; Khronos' validator 2.0.0-dev.3.10: no errors but {unknown} times the name of an attribute of the extension"
    )


def install_validator(folder: Path, *, offline: bool = False) -> Path | None:
    """Install the pinned glTF validator in a folder with npm; return the folder, or None where there is no node or package."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    shutil.copytree(Path(__file__).with_name("gltf_validator"), folder, dirs_exist_ok=True)
    command = ["npm", "ci", "--no-audit", "--no-fund", *(["--offline"] if offline else [])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return folder


def check_gltf(path: Path, validator: Path) -> int:
    """Raise what Khronos' glTF validator holds against a .glb; return how many attributes of the extension it cannot name.

    The validator does not know attributes that an extension names yet (its issue 252) and calls each an error. So the file is
    validated twice: as it is, where these must be the only errors; and with these names behind an underscore, as if they were
    an application's own, where it checks their accessors like all others and must find nothing.
    """
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    own = [name for name in attributes if ":" in name]
    document["meshes"][0]["primitives"][0]["attributes"] = {
        f"_{name.replace(':', '_')}" if name in own else name: number for name, number in attributes.items()
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    renamed = path.with_name(f"renamed-{path.name}")
    header = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    renamed.write_bytes(header + text + rest)
    found, found_renamed = (_issues(one, validator) for one in (path, renamed))
    known = {"MESH_PRIMITIVE_INVALID_ATTRIBUTE", "UNSUPPORTED_EXTENSION"}
    told = [item for item in found if item["code"] not in known] + [item for item in found_renamed if item["severity"] < 2]
    names = sorted(item["pointer"].rpartition("/")[2] for item in found if item["severity"] == 0)
    if told or names != sorted(own):
        raise RuntimeError(f"the glTF validator: {told or names}")
    return len(names)


def _issues(path: Path, validator: Path) -> list[dict[str, Any]]:
    command = ["node", "validate.js", str(path)]
    done = subprocess.run(command, cwd=validator, capture_output=True, text=True, check=True, timeout=120)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


_FRAME_TIMES = tuple(np.linspace(*SPAN_S, FRAMES).tolist())

JOURNEYS = (
    Journey("ply", "scene.ply", lambda scene, path: formats.write_ply(scene, path, at_s=AT_S), (AT_S,), _by_gsply, True),
    Journey("ply_sequence", "frames", lambda scene, path: formats.write_ply_sequence(scene, path, frames=FRAMES),
            _FRAME_TIMES, _by_gsply, True),
    Journey("gltf", "scene.glb", lambda scene, path: formats.write_gltf(scene, path, at_s=AT_S), (AT_S,), _by_gltf_readers, True),
    Journey("compressed_ply", "scene.compressed.ply",
            lambda scene, path: formats.write_compressed_ply(scene, path, at_s=AT_S), (AT_S,), _by_gsply),
    Journey("spz", "scene.spz", lambda scene, path: formats.write_spz(scene, path, at_s=AT_S), (AT_S,), _by_gsply),
    Journey("fourdgs", "scene.4dgs", lambda scene, path: formats.write_fourdgs(scene, path, key_frames=FRAMES),
            tuple(np.linspace(*SPAN_S, FRAMES + 1)[:-1].tolist()), _by_fourdgs, harmonics=False),
)  # fmt: skip


def measure_formats(folder: Path, quick: bool) -> list[Figure]:
    count = 1000 if quick else 10_000
    scenes = {model: random_scene(model, count) for model in MODELS}
    plain = {model: random_scene(model, count, degree=0) for model in MODELS}
    figures, drops = [], {}
    for journey in JOURNEYS:
        lost, sizes, readers = {}, {}, set()
        for model, scene in (scenes if journey.harmonics else plain).items():
            path = folder / f"{model}-{journey.path}"
            journey.write(scene, path)
            again = formats.read_scene(path)
            readers.add(journey.opens(path))
            lost[model] = drop_db(scene, again, journey.times_s)
            sizes[model] = sum(one.stat().st_size for one in ([path] if path.is_file() else path.iterdir())) / count
            print(f"{journey.name} {model}: {lost[model]:.4f} dB, {sizes[model]:.0f} bytes per Gaussian", file=sys.stderr)
        drops[journey.name] = max(lost.values())
        figures += _figures(journey, lost, sizes, readers, count)
    lossless = [journey.name for journey in JOURNEYS if journey.lossless]
    detail = (
        f"worst of {', '.join(lossless)} and of {', '.join(MODELS)}; {count} random Gaussians, harmonics of degree 3, {SIZE} px"
    )
    worst = max(drops[name] for name in lossless)
    return [figure("formats.worst_lossless_drop_db", worst, "dB", "0.1 dB asked", detail), *figures]


def _figures(journey: Journey, lost: dict[str, float], sizes: dict[str, float], readers: set[str], count: int) -> list[Figure]:
    by_model = ", ".join(f"{model} {value:.4f}" for model, value in lost.items())
    bytes_by_model = ", ".join(f"{model} {value:.0f}" for model, value in sizes.items())
    opened = f"opened by {'; '.join(sorted(readers))}"
    return [
        figure(f"formats.{journey.name}.drop_db", max(lost.values()), "dB",
               "0.1 dB asked" if journey.lossless else "quantised", f"worst of {by_model}; {opened}"),
        figure(f"formats.{journey.name}.bytes_per_gaussian", float(np.median(list(sizes.values()))), "bytes", "",
               f"{bytes_by_model}; {count} Gaussians, harmonics of degree {3 if journey.harmonics else 0}"),
    ]  # fmt: skip
