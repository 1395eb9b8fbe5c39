"""What a fit trains: one table over the arrays of a scene and of all motion models, and the state that goes with it.

A raw parameter has the name of the array it becomes in `Scene4D` (or in its `motion`): `exp` and `sigmoid` of it where those keep
the array in its range; quaternions and colours are put back into theirs after each step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from schemas.scenes import Scene4D
from stages.reconstruct.seeding import Seeds, neighbour_spacing
from worldline.cameras import rotation_from_quaternion
from worldline.gaussians import Gaussians
from worldline.motion.regularisers import find_neighbours

Rows = Literal["gaussians", "movers", "scene"]


@dataclass(frozen=True)
class Parameter:
    """How one array is trained.

    Attributes:
        rate: Adam's step size at the start.
        activation: "exp" and "sigmoid" make the array from the raw parameter; "unit" and "share" leave it as it is and
            normalise it, or clip it to [0, 1], after each step.
        rows: what its first axis counts: Gaussians, those that may move (the first M of them), or anything else.
        travels: whether the rate is multiplied with the distance to the nearest camera, so that one step is the same
            number of pixels for near and far Gaussians.
        final: share of the rate at the last step, exponential in between; None for that of `FitSettings.final_place_rate`.
    """

    rate: float
    activation: Literal["none", "exp", "sigmoid", "unit", "share"] = "none"
    rows: Rows = "gaussians"
    travels: bool = False
    final: float | None = 0.3


PARAMETERS: Mapping[str, Parameter] = {
    "means": Parameter(3e-3, travels=True, final=None),
    "quats": Parameter(4e-3, "unit"),
    "scales": Parameter(3e-2, "exp"),
    "opacities": Parameter(5e-2, "sigmoid"),
    "colors": Parameter(2e-2, "share"),
    "harmonics": Parameter(1e-3),
    # Gaussian-Flow
    "time_centers": Parameter(5e-4, rows="movers"),
    "time_rates": Parameter(1e-4, rows="movers"),
    "position_polynomial": Parameter(3e-3, rows="movers", travels=True, final=None),
    "position_fourier": Parameter(1e-3, rows="movers", travels=True, final=None),
    "rotation_polynomial": Parameter(2e-3, rows="movers"),
    "rotation_fourier": Parameter(1e-3, rows="movers"),
    "color_polynomial": Parameter(4e-3, rows="movers"),
    "color_fourier": Parameter(2e-3, rows="movers"),
    # native 4D Gaussians
    "times": Parameter(2e-3),
    "time_scales": Parameter(1e-2, "exp"),
    "right_quats": Parameter(2e-3, "unit"),
    "time_colors": Parameter(2e-3),
    "time_harmonics": Parameter(1e-3),
    # periodic vibration
    "velocities": Parameter(5e-3, travels=True),
    "peaks": Parameter(2e-3),
    "lifespans": Parameter(1e-2, "exp"),
    # rigid agents
    "agent_quats": Parameter(3e-4, "unit", rows="scene"),
    "agent_positions": Parameter(3e-4, rows="scene", travels=True, final=0.1),
    # of generated views, not of the scene
    "appearance": Parameter(1e-3, rows="scene"),
}
APPEARANCE = "appearance"  # `[G, 3, 4]` affine map of colours for each generated view
CANONICAL = ("means", "quats", "scales", "opacities", "colors", "harmonics")
NEIGHBOURS = 8  # that rigidity ties a Gaussian to
OPACITY_RANGE = (0.005, 0.9999)


@dataclass
class FitState:
    """All that a fit knows, and all that a checkpoint holds.

    Attributes:
        values: raw parameters by name, float32.
        first: Adam's running means, by name.
        second: Adam's running mean squares, by name.
        fixed: arrays that are not trained, by name: those of the motion model, and `instances`.
        importance: `[N]`, each Gaussian's image gradients summed since the last growth, in half images.
        seen: `[N]`, in how many views it was since then.
        distance: `[N]`, from each Gaussian to the nearest camera at the last growth.
        best: raw and fixed arrays with the best score on held-out views so far, as "values.means".
        waited: `[2]` that score in dB, and evaluations since then.
        neighbours: `[K, 8]` int64, of those that may move the nearest others at the last growth; K = 0 where none is asked for.
        closeness: `[K, 8]` their weights.
    """

    values: dict[str, np.ndarray]
    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]
    fixed: dict[str, np.ndarray]
    importance: np.ndarray
    seen: np.ndarray
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    best: dict[str, np.ndarray] = field(default_factory=dict)
    waited: np.ndarray = field(default_factory=lambda: np.array([-np.inf, 0.0]))
    neighbours: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    closeness: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def movers(self) -> int:
        """How many Gaussians may move, of those that Gaussian-Flow tells apart; they are the first."""
        return len(self.fixed.get("moving", ()))

    def groups(self) -> np.ndarray:
        """Return `[N]` the group of each Gaussian: none takes the place of one of another group."""
        count = len(self.values["means"])
        if "agents" in self.fixed:
            return self.fixed["agents"]
        return (np.arange(count) >= self.movers).astype(np.int64)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by flat names, for a checkpoint."""
        flat = {f"{part}/{name}": array for part in _PARTS for name, array in getattr(self, part).items()}
        flat |= {f"best/{name}": array for name, array in self.best.items()}
        return flat | {name: getattr(self, name) for name in (*_COUNTS, *_OTHERS)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "FitState":
        """Take back what `arrays` gave."""
        parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in (*_PARTS, "best")}
        for name, array in arrays.items():
            if "/" in name:
                part, key = name.split("/")
                parts[part][key] = array
        rest: dict[str, Any] = {name: arrays[name] for name in (*_COUNTS, *_OTHERS)}
        return cls(**(parts | rest))

    def keep_best(self) -> None:
        """Remember the scene as it is now."""
        parts = {"values": self.values, "fixed": self.fixed}
        self.best = {f"{part}.{name}": array.copy() for part, arrays in parts.items() for name, array in arrays.items()}

    def restore_best(self) -> None:
        """Go back to the scene that was remembered; the moments stay those of the last step."""
        for name, array in self.best.items():
            part, key = name.split(".")
            getattr(self, part)[key] = array


_PARTS = ("values", "first", "second", "fixed")
_COUNTS = ("importance", "seen", "distance")
_OTHERS = ("waited", "neighbours", "closeness")


def rows_of(name: str) -> Rows:
    """Return what the first axis of an array counts."""
    if name in PARAMETERS:
        return PARAMETERS[name].rows
    return {"instances": "gaussians", "agents": "gaussians", "moving": "movers"}.get(name, "scene")  # type: ignore[return-value]


def initial_state(seeds: Seeds, primitive: str, degree: int, frozen: tuple[str, ...] = ()) -> FitState:
    """Make raw parameters from seeds.

    Args:
        seeds: with all arrays of the motion model.
        primitive: "gaussian" or "surfel".
        degree: of the spherical harmonics.
        frozen: names of arrays in the table that are not trained.
    """
    count = len(seeds.means)
    axes = 2 if primitive == "surfel" else 3
    stored: dict[str, np.ndarray] = {
        "means": seeds.means,
        "quats": np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)) if seeds.quats is None else seeds.quats,
        "scales": np.broadcast_to(seeds.sizes[:, None] if seeds.sizes.ndim == 1 else seeds.sizes, (count, 3))[:, :axes],
        "opacities": seeds.opacities,
        "colors": seeds.colors,
    }
    if degree:
        stored["harmonics"] = np.zeros((count, (degree + 1) ** 2 - 1, 3))
    values, fixed = {}, {}
    for name, array in (stored | dict(seeds.motion)).items():
        if name in PARAMETERS and name not in frozen:
            values[name] = _raw(name, array)
        else:
            fixed[name] = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else array.dtype)
    if seeds.instances is not None:
        fixed["instances"] = seeds.instances.astype(np.int32)
    first, second = ({name: np.zeros_like(array) for name, array in values.items()} for _ in range(2))
    return FitState(values, first, second, fixed, np.zeros(count, np.float32), np.zeros(count, np.float32))


def _raw(name: str, array: np.ndarray) -> np.ndarray:
    """Return the raw parameter of an array."""
    activation = PARAMETERS[name].activation
    array = np.asarray(array, np.float64)
    if activation == "exp":
        array = np.log(array)
    elif activation == "sigmoid":
        array = np.log(array / (1.0 - array))
    return np.ascontiguousarray(array, np.float32)


def activate(values: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> tuple[Gaussians, dict[str, Tensor]]:
    """Return the canonical Gaussians and the motion model's arrays from raw parameters, differentiably."""
    arrays = dict(fixed)
    arrays.pop("instances", None)
    for name, value in values.items():
        if name == APPEARANCE:
            continue
        activation = PARAMETERS[name].activation
        arrays[name] = value.exp() if activation == "exp" else value.sigmoid() if activation == "sigmoid" else value
    if arrays["scales"].shape[1] == 2:  # a surfel has no thickness
        arrays["scales"] = torch.nn.functional.pad(arrays["scales"], (0, 1))
    canonical = Gaussians(**{name: arrays.pop(name) for name in CANONICAL if name in arrays})
    return canonical, arrays


def hold_in_range(values: Mapping[str, np.ndarray]) -> None:
    """Put quaternions back to length 1 and colours into [0, 1], in place."""
    for name, value in values.items():
        activation = PARAMETERS[name].activation
        if activation == "unit":
            value /= np.sqrt(np.einsum("...i,...i->...", value, value))[..., None]
        elif activation == "share":
            np.clip(value, 0.0, 1.0, out=value)


def measure_distances(state: FitState, cameras: np.ndarray) -> None:
    """Set `distance`: from each Gaussian's own place to the nearest of the cameras `[V, 3]`."""
    means = state.values["means"]
    if "agents" in state.fixed:
        means = _in_world(means, state)
    state.distance = cKDTree(cameras).query(means)[0].astype(np.float32).clip(1e-3)


def measure_neighbours(state: FitState) -> None:
    """Set `neighbours` and `closeness` of the Gaussians that may move: all, or Gaussian-Flow's movers."""
    means = torch.from_numpy(state.values["means"][: state.movers or None])
    spacing = np.median(neighbour_spacing(means.numpy())) if len(means) else 1.0
    found = find_neighbours(means, NEIGHBOURS, falloff=float(0.1 / spacing**2))
    state.neighbours, state.closeness = found.indices.numpy(), found.weights.numpy()


def _in_world(means: np.ndarray, state: FitState) -> np.ndarray:
    """Return the means with those of agents where their agent is halfway through its life."""
    arrays = {**state.fixed, **state.values}
    means = means.copy()
    for agent, alive in enumerate(arrays["agent_alive"], 1):
        frames, own = np.flatnonzero(alive), arrays["agents"] == agent
        if len(frames) and own.any():
            middle = frames[len(frames) // 2]
            rotation = rotation_from_quaternion(arrays["agent_quats"][agent - 1, middle])
            means[own] = means[own] @ rotation.T + arrays["agent_positions"][agent - 1, middle]
    return means


def take_rows(state: FitState, rows: np.ndarray) -> None:
    """Keep the Gaussians `rows` `[K]`, in that order, with all that belongs to them; an index may occur more than once.

    Args:
        state: changed in place.
        rows: indices of Gaussians; those that may move first.
    """
    movers = rows[rows < state.movers]
    taken = {"gaussians": rows, "movers": movers}
    for part in _PARTS:
        arrays = getattr(state, part)
        for name, array in arrays.items():
            if (kind := rows_of(name)) in taken:
                arrays[name] = np.ascontiguousarray(array[taken[kind]])
    if "moving" in state.fixed:
        state.fixed["moving"] = np.arange(len(movers))
    for name in _COUNTS:
        setattr(state, name, getattr(state, name)[rows])


def to_scene(state: FitState, model: str, primitive: str, background: np.ndarray) -> Scene4D:
    """Return the scene over the time span [0, 1] in the unit of the views."""
    canonical, motion = activate(
        *({name: torch.from_numpy(array) for name, array in part.items()} for part in (state.values, state.fixed))
    )
    stored = {name: array.numpy().copy() for name, array in canonical._asdict().items() if array is not None}
    return Scene4D(
        motion_model=model,
        **stored,
        motion={name: array.numpy().copy() for name, array in motion.items()},
        start_s=0.0,
        end_s=1.0,
        background=np.asarray(background, np.float64),
        scale_source="none",
        scale_sigma=0.0,
        instances=None if "instances" not in state.fixed else state.fixed["instances"].copy(),
        primitive=None if primitive == "gaussian" else primitive,
    )
