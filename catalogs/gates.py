"""The publish gate: what a version must fulfil to become what its dataset's bare name stands for."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalogs.contents import COUNTED, Contents, Figure, contents_of
from catalogs.records import DatasetVersion
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_LIMITS = ("min", "max")


@dataclass(frozen=True)
class Gate:
    """What a version must fulfil; what is not named is not asked.

    Attributes:
        min_rows: least number of rows by table ("labels", "tracks", ...).
        min_artifacts, min_clips: least number of them.
        figures: `{"min": ..., "max": ...}` by metric name, in the metric's own unit; over many clips the mean counts.
        max_row_change: largest change of a table's rows against the previous latest version, relative to it (0.5: half).
        max_figure_change: the same for each figure that both versions have.
        max_label_distance: largest total variation distance of the labels' distribution by kind and answer from the
            previous latest version's, 0 (equal) to 1 (nothing in common).
    """

    min_rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    min_artifacts: int = 0
    min_clips: int = 0
    figures: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    max_row_change: float | None = None
    max_figure_change: float | None = None
    max_label_distance: float | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Gate":
        """Read a gate from a recipe's plain values.

        Raises:
            WorldlineError: if a setting is unknown or not a number, naming it.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                raise WorldlineError(f"gate.{name} is not a setting of the publish gate: there are {', '.join(sorted(known))}")
        gate = cls(**{name: value for name, value in settings.items() if value is not None})
        for table, count in gate.min_rows.items():
            if table not in COUNTED:
                raise WorldlineError(f"gate.min_rows.{table} is not a table: there are {', '.join(COUNTED)}")
            _check_number(f"min_rows.{table}", count)
        for name in known - {"min_rows", "figures"}:
            _check_number(name, getattr(gate, name))
        for name, limits in gate.figures.items():
            if not limits or set(limits) - set(_LIMITS):
                raise WorldlineError(f"gate.figures.{name} needs min, max or both, and nothing else")
            for limit, value in limits.items():
                _check_number(f"figures.{name}.{limit}", value, least=None)
        return gate


def _check_number(name: str, value: Any, least: float | None = 0.0) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= (-float("inf") if least is None else least):
        raise WorldlineError(
            f"gate.{name}={value} is not valid: give a number{'' if least is None else f' of at least {least:g}'}"
        )


def judge(catalog: "Catalog", gate: Gate, contents: Contents, previous: DatasetVersion | None) -> str | None:
    """Return None if a version passes its gate, else one sentence with each figure that fails, its unit and its limit.

    Args:
        catalog: the workspace.
        gate: what must be fulfilled.
        contents: what the version holds.
        previous: what the bare name stands for until now; drift is measured against it.
    """
    failures = list(_below_minimum(gate, contents)) + list(_figures_outside(gate, contents))
    if previous is not None and drift_is_asked(gate):
        try:
            before = contents_of(catalog, previous)
        except WorldlineError as error:  # what was lost long ago must not keep the new version from being recorded
            failures.append(f"drift could not be measured: of {previous.reference}, {error}")
        else:
            failures += _drifted(gate, contents, before, previous.reference)
    return "; ".join(failures) or None


def drift_is_asked(gate: Gate) -> bool:
    """Return whether a gate looks at the previous version at all."""
    return any(limit is not None for limit in (gate.max_row_change, gate.max_figure_change, gate.max_label_distance))


def _below_minimum(gate: Gate, contents: Contents) -> list[str]:
    asked = [("artifacts", contents.artifacts, gate.min_artifacts), ("clips", contents.clips, gate.min_clips)]
    asked += [(f"rows of {table}", contents.rows[table], least) for table, least in sorted(gate.min_rows.items())]
    return [f"{count} {what}, at least {least} are asked" for what, count, least in asked if count < least]


def _figures_outside(gate: Gate, contents: Contents) -> list[str]:
    failures = []
    for name, limits in sorted(gate.figures.items()):
        figure = contents.figures.get(name)
        if figure is None:
            failures.append(f"{name} was not measured, which the gate asks for")
            continue
        mean = f" (mean of {figure.count})" if figure.count > 1 else ""
        said = f"{name} is {_measured(figure.mean, figure)}{mean}"
        if "min" in limits and figure.mean < limits["min"]:
            failures.append(f"{said}, at least {_measured(limits['min'], figure)} is asked")
        if "max" in limits and figure.mean > limits["max"]:
            failures.append(f"{said}, at most {_measured(limits['max'], figure)} is allowed")
    return failures


def relative_change(before: float, after: float) -> float:
    """Return the size of a change relative to what was before; infinite where there was nothing."""
    if before == after:
        return 0.0
    return abs(after - before) / abs(before) if before else float("inf")


def total_variation(before: Mapping[Any, int], after: Mapping[Any, int]) -> float:
    """Return half the sum of the differences of two distributions given as counts: 0 equal, 1 nothing in common."""
    sums = sum(before.values()), sum(after.values())
    if not all(sums):
        return float(sums[0] != sums[1])
    keys = before.keys() | after.keys()
    return 0.5 * sum(abs(before.get(key, 0) / sums[0] - after.get(key, 0) / sums[1]) for key in keys)


def _drifted(gate: Gate, contents: Contents, before: Contents, reference: str) -> list[str]:
    failures = []
    if gate.max_row_change is not None:
        for table, count in contents.rows.items():
            said = f"{count} rows of {table} against {before.rows[table] or 'none'}"
            failures += _changed(said, reference, relative_change(before.rows[table], count), gate.max_row_change)
    if gate.max_figure_change is not None:
        for name in sorted(contents.figures.keys() & before.figures.keys()):
            figure, old = contents.figures[name], before.figures[name]
            said = f"{name} is {_measured(figure.mean, figure)} against {_measured(old.mean, old)}"
            failures += _changed(said, reference, relative_change(old.mean, figure.mean), gate.max_figure_change)
    if gate.max_label_distance is not None:
        distance = total_variation(before.labels, contents.labels)
        if distance > gate.max_label_distance:
            failures.append(
                f"labels by kind and answer differ from {reference} by a total variation of {distance:.3f} "
                f"(0 equal, 1 nothing in common), at most {gate.max_label_distance:.3f} is allowed"
            )
    return failures


def _changed(said: str, reference: str, change: float, limit: float) -> list[str]:
    if change <= limit:
        return []
    if change == float("inf"):
        return [f"{said} in {reference} (at most {100 * limit:.0f} % change is allowed)"]
    return [f"{said} in {reference} ({100 * change:.0f} % change, at most {100 * limit:.0f} % is allowed)"]


def _measured(value: float, figure: Figure) -> str:
    return f"{value:.4g} {figure.unit}".rstrip()
