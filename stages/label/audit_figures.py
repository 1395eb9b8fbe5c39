"""What audits say, summed up over any number of clips: errors by group, calibration, risk and coverage, split of the error.

Relative errors are taken over windows that are kept, called moving, follow a true object and have a true path long enough.
The mean speed that a label tells is its distance over the window's length, so that both have the same relative error.

Risk and coverage (El-Yaniv and Wiener, JMLR 2010): the candidates, most trusted first, and the error of those up to each;
the area under the mean error is the AURC (Geifman, Uziel and El-Yaniv, ICLR 2019), the mean over all shares.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from schemas.audits import LabelAudit
from worldline.kinematics.definitions import KMH_PER_MPS, clock_difference
from worldline.kinematics.words import choose, is_none

RANGES_M = (0.0, 10.0, 20.0, 40.0, np.inf)
SPEEDS_MPS = (0.0, 0.5, 2.5, 8.0, 17.0, np.inf)
LENGTHS_S = (0.0, 2.0, 4.0, 8.0, np.inf)
SHARES = tuple(percent / 100 for percent in range(10, 101, 10))
_NORMAL_90 = 3.29  # width of a normal distribution's 90 % interval in standard deviations


@dataclass(frozen=True)
class AuditFigure:
    """One figure of an audit.

    Attributes:
        grouping: "all", "class", "range", "speed", "track length", "confusion", "rejected", "risk and coverage"
            or "error split".
        group: which of its groups; "" where there is only one.
        measure: what was measured.
        value: of it.  unit: of the value.
        count: on how many windows, or objects, or tracks.
    """

    grouping: str
    group: str
    measure: str
    value: float
    unit: str
    count: int


@dataclass(frozen=True)
class RiskCoverage:
    """Error against the share of candidates kept.

    Attributes:
        share: `[S]` of the candidates, most trusted first.
        median, mean: `[S]` error of the candidates up to there.
        area: mean over every number of candidates of the mean error up to there (AURC).
        count: number of candidates.
    """

    share: Float[np.ndarray, " S"]
    median: Float[np.ndarray, " S"]
    mean: Float[np.ndarray, " S"]
    area: float
    count: int


def risk_coverage(
    error: Float[np.ndarray, " N"],
    sigma: Float[np.ndarray, " N"],
    kept: Bool[np.ndarray, " N"],
    shares: Sequence[float] = SHARES,
) -> RiskCoverage:
    """Order candidates by what is said of them, and return the error of the first few, of more, and of all.

    Args:
        error: of each candidate.
        sigma: its stated relative standard deviation; the smallest is the most trusted.
        kept: whether the filter keeps it; what it turns away comes last.
        shares: at which shares of the candidates the error is told.
    """
    order = np.lexsort((sigma, ~kept))
    error = error[order]
    upto = [max(1, round(share * len(error))) for share in shares] if len(error) else []
    running = np.cumsum(error) / np.arange(1, len(error) + 1)
    return RiskCoverage(
        share=np.array(shares[: len(upto)], float),
        median=np.array([np.median(error[:count]) for count in upto], float),
        mean=np.array([running[count - 1] for count in upto], float),
        area=float(running.mean()) if len(error) else np.nan,
        count=len(error),
    )


@dataclass(frozen=True)
class Audited:
    """The windows of all clips as arrays `[K]`, in metres and seconds.

    Attributes:
        columns: those of `AUDITED_WINDOWS`; NaN for null numbers.
        seconds: length of each window.
        candidate: called moving, whether kept or turned away.
        kept: not turned away.
        compared: candidates whose true object is known and moved far enough to take a relative error.
    """

    columns: dict[str, np.ndarray]
    seconds: np.ndarray
    candidate: np.ndarray
    kept: np.ndarray
    compared: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Signed relative error of distance and mean speed, `[K]`; sense only where `compared`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.columns["distance_p50_m"] / self.columns["true_distance_m"] - 1

    @property
    def sigma(self) -> np.ndarray:
        """Stated relative standard deviation of the distance, `[K]`."""
        low, middle, high = (self.columns[f"distance_{name}_m"] for name in ("p5", "p50", "p95"))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (high - low) / _NORMAL_90 / middle


def join_windows(audits: Sequence[LabelAudit], min_distance_m: float) -> Audited:
    """Put the windows of several clips together.

    Args:
        audits: of the clips.
        min_distance_m: relative errors are taken where the truth moved this far in the window.
    """
    table = pa.concat_tables([audit.windows for audit in audits])
    columns = {name: _column(table[name]) for name in table.column_names}
    with np.errstate(invalid="ignore"):
        candidate = (columns["state"] == "moving") & np.isfinite(columns["distance_p50_m"])
        compared = candidate & (columns["true_distance_m"] >= min_distance_m)
    return Audited(columns, columns["end_s"] - columns["start_s"], candidate, is_none(columns["rejected"]), compared)


def _column(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        return column.to_numpy(zero_copy_only=False).astype(object)
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def sum_up(audits: Sequence[LabelAudit], min_distance_m: float = 1.0) -> list[AuditFigure]:
    """Return every figure of the audits of one or several clips, pooled over their windows and objects."""
    windows = join_windows(audits, min_distance_m)
    objects = pa.concat_tables([audit.objects for audit in audits])
    found = {name: _column(objects[name]) for name in ("kind", "class_name", "range_m", "speed_mps", "seconds")}
    found |= {name: objects[name].to_numpy(zero_copy_only=False).astype(bool) for name in ("found", "labelled")}
    true_speed = windows.columns["true_distance_m"] / windows.seconds
    groupings = {
        "all": (np.full(len(windows.seconds), "", object), np.full(objects.num_rows, "", object)),
        "class": (windows.columns["class_name"], found["class_name"]),
        "range": (_bins(windows.columns["range_m"], RANGES_M, "m"), _bins(found["range_m"], RANGES_M, "m")),
        "speed": (_bins(true_speed, SPEEDS_MPS, "m/s"), _bins(found["speed_mps"], SPEEDS_MPS, "m/s")),
        "track length": (_bins(windows.columns["track_seconds"], LENGTHS_S, "s"), _bins(found["seconds"], LENGTHS_S, "s")),
    }
    figures = []
    for grouping, (of_windows, of_objects) in groupings.items():
        names = {name for column in (of_windows, of_objects) for name in column.tolist() if name is not None}
        for group in sorted(names, key=lambda name: (_lower_edge(name), name)):
            figures += _of_objects(grouping, group, found, of_objects == group)
            figures += _of_windows(grouping, group, windows, of_windows == group)
    return [*figures, *_decisions(windows), *_clocks(windows), *_refusals(windows), *_curve(windows), *_split(windows)]


def _bins(values: np.ndarray, edges: Sequence[float], unit: str) -> np.ndarray:
    """Name the bin of each value, None where there is none."""
    with np.errstate(invalid="ignore"):
        inside = [(values >= low) & (values < high) for low, high in itertools.pairwise(edges)]
    names = [
        f"{low:g} to {high:g} {unit}" if np.isfinite(high) else f"{low:g} {unit} and more"
        for low, high in itertools.pairwise(edges)
    ]
    return choose(inside, names)


def _lower_edge(name: str) -> float:
    first = name.partition(" ")[0]
    return float(first) if first.replace(".", "", 1).isdigit() else 0.0


def _of_objects(grouping: str, group: str, found: dict[str, np.ndarray], mine: np.ndarray) -> list[AuditFigure]:
    movers, false = mine & (found["kind"] == "mover"), mine & (found["kind"] == "false")
    counts = {
        "movers visible": movers,
        "movers found": movers & found["found"],
        "movers labelled": movers & found["labelled"],
        "false tracks": false,
        "false tracks labelled": false & found["labelled"],
    }
    number = int(mine.sum())
    return [AuditFigure(grouping, group, name, float(rows.sum()), "objects", number) for name, rows in counts.items()] * (
        number > 0
    )


def _of_windows(grouping: str, group: str, windows: Audited, mine: np.ndarray) -> list[AuditFigure]:
    use = windows.compared & windows.kept & mine
    if not use.any():
        return []
    error, columns, count = windows.error[use], {name: values[use] for name, values in windows.columns.items()}, int(use.sum())
    off = columns["distance_p50_m"] - columns["true_distance_m"]
    speed_off = KMH_PER_MPS * off / windows.seconds[use]
    inside = (columns["distance_p5_m"] <= columns["true_distance_m"]) & (columns["true_distance_m"] <= columns["distance_p95_m"])
    values = (
        ("labels compared", float(count), "windows"),
        ("error, median", 100 * float(np.median(np.abs(error))), "%"),
        ("error, mean", 100 * float(np.mean(np.abs(error))), "%"),
        ("within 10 %", 100 * float(np.mean(np.abs(error) <= 0.10)), "%"),
        ("within 25 %", 100 * float(np.mean(np.abs(error) <= 0.25)), "%"),
        ("bias", 100 * float(np.mean(error)), "%"),
        ("distance error, mean", float(np.mean(np.abs(off))), "m"),
        ("speed error, mean", float(np.mean(np.abs(speed_off))), "km/h"),
        ("within the stated 90 % interval", 100 * float(np.mean(inside)), "%"),
    )
    return [AuditFigure(grouping, group, measure, value, unit, count) for measure, value, unit in values]


def _decisions(windows: Audited, moving_mps: float = 0.5, static_mps: float = 0.25) -> list[AuditFigure]:
    """Return how kept windows that truly move or stand are called; between the two speeds the truth is neither."""
    speed = windows.columns["true_distance_m"] / windows.seconds
    with np.errstate(invalid="ignore"):
        truly = {"moving": windows.kept & (speed > moving_mps), "static": windows.kept & (speed < static_mps)}
    return [
        AuditFigure(
            "confusion",
            f"truly {truth}",
            f"called {word}",
            float((rows & (windows.columns["state"] == word)).sum()),
            "windows",
            int(rows.sum()),
        )
        for truth, rows in truly.items()
        for word in ("moving", "static", "undecided")
    ]


def _clocks(windows: Audited) -> list[AuditFigure]:
    both = windows.kept & np.isfinite(windows.columns["clock"]) & np.isfinite(windows.columns["true_clock"])
    if not both.any():
        return []
    off, count = clock_difference(windows.columns["clock"][both], windows.columns["true_clock"][both]), int(both.sum())
    return [
        AuditFigure("all", "", "clock direction error, mean", float(np.mean(off)), "hours", count),
        AuditFigure("all", "", "clock direction exact", 100 * float(np.mean(off == 0)), "%", count),
    ]


def _refusals(windows: Audited) -> list[AuditFigure]:
    """Return how many windows each rule of the filter turned away, and how wrong those that claim to move would have been."""
    figures = []
    reasons = windows.columns["rejected"]
    for reason in sorted({reason for reason in reasons.tolist() if reason is not None}):
        mine = reasons == reason
        figures.append(AuditFigure("rejected", reason, "windows", float(mine.sum()), "windows", int(mine.sum())))
        if (compared := mine & windows.compared).any():
            error = 100 * float(np.median(np.abs(windows.error[compared])))
            figures.append(AuditFigure("rejected", reason, "error, median", error, "%", int(compared.sum())))
    return figures


def curve_of(windows: Audited) -> RiskCoverage:
    """Return absolute relative errors of the candidates against the share kept, by their stated relative sigma."""
    use = windows.compared
    return risk_coverage(np.abs(windows.error[use]), windows.sigma[use], windows.kept[use])


def _curve(windows: Audited) -> list[AuditFigure]:
    candidates = int(windows.candidate.sum())
    if not candidates:
        return []
    kept = 100 * float(windows.kept[windows.candidate].mean())
    figures = [AuditFigure("all", "", "candidates kept", kept, "%", candidates)]
    curve = curve_of(windows)
    for share, median, mean in zip(curve.share, curve.median, curve.mean, strict=True):
        group = f"{share:.0%}"
        figures += [
            AuditFigure("risk and coverage", group, "error, median", 100 * float(median), "%", curve.count),
            AuditFigure("risk and coverage", group, "error, mean", 100 * float(mean), "%", curve.count),
        ]
    if curve.count:
        figures.append(AuditFigure("all", "", "area under risk and coverage", 100 * curve.area, "%", curve.count))
    return figures


def _split(windows: Audited) -> list[AuditFigure]:
    """Return the median error with better inputs, and what each step from the truth to the estimate adds to it."""
    names = {
        "true boxes, poses and scale": ("smoothing", "smoothing_distance_m"),
        "true boxes and scale, estimated poses": ("poses", "pose_distance_m"),
        "estimated tracks and poses, true scale": ("tracking", "tracking_distance_m"),
        "all estimated": ("scale", "distance_p50_m"),
    }
    use = windows.compared & windows.kept
    for _, column in names.values():
        use = use & np.isfinite(windows.columns[column])
    figures, before = [], 0.0
    for group, (adds, column) in names.items():
        if use.any():
            errors = np.abs(windows.columns[column][use] / windows.columns["true_distance_m"][use] - 1)
            error, count = 100 * float(np.median(errors)), int(use.sum())
            figures += [
                AuditFigure("error split", group, "error, median", error, "%", count),
                AuditFigure("error split", group, "error, mean", 100 * float(np.mean(errors)), "%", count),
                AuditFigure("error split", group, f"added by {adds}", error - before, "%", count),
            ]
            before = error
    return figures
