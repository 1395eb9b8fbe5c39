"""What a stage is: a pure function from artifacts, a config and a seed to artifacts, under a declared name and version.

    @dataclass(frozen=True)
    class ColmapConfig:
        max_features: int = 4096

    @stage("pose.colmap", version=1)
    def solve_camera_path(clip: Clip, config: ColmapConfig, *, seed: int, progress: Progress) -> tuple[CameraPath, PointCloud]:
        ...

Inputs are the positional parameters with artifact types, in order; `clips: tuple[Clip, ...]` takes any number of one type.
Outputs are the return annotation: one artifact type or a tuple of them. A stage that can continue after being killed also
takes `checkpoints: Path`, a private folder that outlives the process until the execution is recorded. Same inputs, config
and seed give the same bytes on the same kind of machine, whether or not the run was interrupted. Where exact equality is
impossible (atomics of a GPU), the stage declares by which metric and limit two results of each artifact type compare equal:

    @stage("reconstruct.toy", version=1, tolerance={Metrics: Tolerance("largest difference of a figure", 0.1, "dB")})

A config may leave to the machine what it decides ("auto") or name what can change (a model): `pin` resolves both before
the execution's key is made from it.
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.artifact import Artifact


class Progress(Protocol):
    """Called by long stages: `done` of `total` steps are finished; `note` is a short figure for people."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps are finished."""


def no_progress(done: int, total: int, note: str = "") -> None:
    """Ignore progress (tests, notebooks)."""


@dataclass(frozen=True)
class Tolerance:
    """How far apart two results of one execution may lie and still count as equal.

    Attributes:
        metric: what is measured, in words for people.
        limit: largest figure that counts as equal, in `unit`.
        unit: of the figure.
        measure: the figure from the recorded and the remade artifact; None takes the largest absolute difference of any
            two numbers in them, which is infinite where anything else differs.
    """

    metric: str
    limit: float
    unit: str
    measure: Callable[[Any, Any], float] | None = None


@dataclass(frozen=True)
class Stage:
    """A registered stage.

    Attributes:
        name: "room.what", unique.
        version: raised by hand when results change on purpose.
        function: the stage function.
        config_type: its frozen config dataclass.
        inputs: artifact type by parameter name, in order.
        several: those of the inputs that take any number of artifacts, as a tuple.
        outputs: artifact types in order.
        resumable: whether it takes `checkpoints`.
        environment_packages: packages whose version enters the key because the stage's bytes depend on them.
        tolerances: by output kind, where results of the same execution are not exactly equal.
        pin: the config with everything resolved that this machine or the present state of a model decides.
    """

    name: str
    version: int
    function: Callable[..., Any]
    config_type: type
    inputs: dict[str, type[Artifact]]
    outputs: tuple[type[Artifact], ...]
    resumable: bool
    environment_packages: tuple[str, ...]
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    pin: Callable[[Any], Any] | None = None
    several: frozenset[str] = frozenset()


STAGES: dict[str, Stage] = {}
_NOT_INPUTS = ("config", "seed", "progress", "checkpoints")


def slots(stage: Stage, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stage is given by the names under which executions record it: those of several are numbered.

    Args:
        stage: the stage.
        inputs: one thing per parameter, or a sequence of them where the stage takes several.
    """
    named: dict[str, Any] = {}
    for name in stage.inputs:
        if name in stage.several:
            named |= {f"{name}.{number:04d}": item for number, item in enumerate(inputs[name])}
        else:
            named[name] = inputs[name]
    return named


def parameters(stage: Stage, slotted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a stage by parameter from what is recorded by slot; undoes `slots`."""
    return {
        name: tuple(slotted[slot] for slot in sorted(slotted) if slot.rpartition(".")[0] == name)
        if name in stage.several
        else slotted[name]
        for name in stage.inputs
    }


def stage(
    name: str,
    *,
    version: int,
    environment_packages: tuple[str, ...] = (),
    tolerance: Mapping[type[Artifact], Tolerance] | None = None,
    pin: Callable[[Any], Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a stage and return it unchanged.

    Raises:
        TypeError: if the signature is not that of a stage, the name is taken by another function, or a tolerance is
            given for what the stage does not make.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(function)
        returned = hints.get("return")
        outputs = typing.get_args(returned) if typing.get_origin(returned) is tuple else (returned,)
        inputs = {item: hints.get(item) for item in inspect.signature(function).parameters if item not in _NOT_INPUTS}
        several = frozenset(item for item, kind in inputs.items() if typing.get_args(kind)[1:] == (...,))
        inputs = {item: typing.get_args(kind)[0] if item in several else kind for item, kind in inputs.items()}
        wrong = [item for item, kind in inputs.items() if not _is_artifact(kind)]
        if wrong or not all(_is_artifact(kind) for kind in outputs) or "config" not in hints:
            raise TypeError(f"{name}: a stage takes artifacts and a config and returns artifacts; see {wrong or returned}")
        if name in STAGES and STAGES[name].function.__module__ != function.__module__:
            raise TypeError(f"two stages are called {name}")
        if unmade := set(tolerance or {}) - set(outputs):
            raise TypeError(f"{name} declares a tolerance for {sorted(kind.kind for kind in unmade)}, which it does not make")
        STAGES[name] = Stage(
            name=name,
            version=version,
            function=function,
            config_type=hints["config"],
            inputs=typing.cast(dict[str, type[Artifact]], inputs),
            outputs=typing.cast(tuple[type[Artifact], ...], tuple(outputs)),
            resumable="checkpoints" in hints,
            environment_packages=environment_packages,
            tolerances={kind.kind: limit for kind, limit in (tolerance or {}).items()},
            pin=pin,
            several=several,
        )
        return function

    return register


def _is_artifact(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Artifact)


def load_stages() -> dict[str, Stage]:
    """Import every module of every room, so that all stages are registered, and return them by name."""
    import stages

    for module in pkgutil.walk_packages(stages.__path__, "stages."):
        importlib.import_module(module.name)
    return STAGES
