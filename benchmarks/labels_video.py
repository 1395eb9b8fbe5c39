"""From pixels to labels with no box given: the real flow on a real street and on procedural ones, audited against the truth.

The flow gets frames, times and what a user would have (calibration; satellite fixes of the log, the camera's height of a
world). Boxes and true poses go into the audit alone. The 4D scene, which no label depends on, is hardly fitted.

Candidates are windows of tracks that are called moving, kept or turned away; errors are those of travelled distance (and of
mean speed, which is distance over the window's length) of candidates that follow a true object that moved at least 1 m.
Called again on the same folder, a measurement goes on from what the workspace there has recorded.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Figure, figure
from benchmarks.pose import real_data
from benchmarks.pose_pandaset import SCENE
from catalogs.catalog import Catalog
from flows.building import run_flow
from schemas.audits import LabelAudit
from schemas.errors import WorldlineError
from stages.label.audit_figures import AuditFigure, sum_up
from tasks.auditing import audit_version

LIGHT = (
    "reconstruct=static",
    "reconstruct.static.steps=1",
    "reconstruct.static.gaussians=64",
    "reconstruct.static.max_side=64",
    "export.report.max_side=320",
)
WORLDS = (
    *((layout, seed) for layout in ("straight", "curve", "junction") for seed in (11, 12, 13)),
    ("straight", 14),
)
QUICK_WORLDS = (("straight", 11), ("curve", 11), ("junction", 11))
QUICK_FRAMES = 40


def measure_pandaset(folder: Path, quick: bool) -> Sequence[Figure]:
    """Label the front camera's clip of the PandaSet scene and audit it; quick: its first four seconds."""
    some = (f"ingest.pandaset.max_frames={QUICK_FRAMES}",) if quick else ()
    audit = label_and_audit(folder, "pandaset", f"source={real_data(SCENE)}", *some)
    of = f"{SCENE}, front camera, {'4 s' if quick else '8 s'}, metres from {audit.scale_source}"
    return [*video_figures("labels.pandaset_video", [audit], of)]


def measure_worlds(folder: Path, quick: bool) -> Sequence[Figure]:
    """Label ten procedural street clips, one after the other, and audit them together; quick: three."""
    audits, failed = [], []
    clips = QUICK_WORLDS if quick else WORLDS
    for layout, seed in clips:
        name = f"{layout}_{seed}"
        try:
            audits.append(label_and_audit(folder, name, f"source=world:{layout}", f"seed={seed}"))
        except WorldlineError as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    of = f"{len(audits)} of {len(clips)} street clips of 7.2 s, 640x360 px, metres from the camera's height"
    lacking = f"{', '.join(failed) or 'none'}; their movers are in no other figure"
    lost = figure("labels.worlds_video.not_built", len(failed), "clips", "0", lacking)
    return [*(video_figures("labels.worlds_video", audits, of) if audits else []), lost]


def label_and_audit(folder: Path, name: str, *settings: str) -> LabelAudit:
    """Run the flow on one clip in the workspace `folder` and return its audit."""
    outcome = run_flow("pseudo_labels", (f"name={name}", *settings, *LIGHT), folder / "workspace", quiet=True)
    found = audit_version(Catalog.open(folder / "workspace"), outcome["dataset"], quiet=True)
    (audit,) = found.audits.values()
    print(f"{name}: {_in_short(sum_up([audit]))}", file=sys.stderr, flush=True)
    return audit


def video_figures(prefix: str, audits: Sequence[LabelAudit], of: str) -> list[Figure]:
    """Return the figures of a bench from audits, pooled: what is asked first, then risk and coverage and the split."""
    found = sum_up(audits)
    everything = {item.measure: item for item in found if item.grouping == "all"}

    def told(measure: str) -> tuple[float | None, int]:
        item = everything.get(measure)
        return (None, 0) if item is None else (item.value / (100 if item.unit == "%" else 1), item.count)

    visible, movers = told("movers visible")[0] or 0.0, told("movers found")[0] or 0.0
    false, false_labelled = told("false tracks")[0] or 0.0, told("false tracks labelled")[0] or 0.0
    kept, candidates = told("candidates kept")
    median, count = told("error, median")
    mean, _ = told("error, mean")
    inside, _ = told("within the stated 90 % interval")
    quarter, _ = told("within 25 %")
    area, curve_count = told("area under risk and coverage")
    labels = f"{count} kept windows of true movers; {of}"
    figures = [
        figure(f"{prefix}.found_moving", movers, "objects", f"half of {visible:.0f} asked",
               f"of the movers within 40 m that can be seen; {told('movers labelled')[0] or 0:.0f} of them labelled; "
               f"{false:.0f} tracks follow nothing true, {false_labelled:.0f} of them with labels; {of}"),
        figure(f"{prefix}.distance_error_median", median, "share", "at most 0.15 aimed at", labels),
        figure(f"{prefix}.distance_error_mean", mean, "share", "0.29 published (ST-VLM, filtered)", labels),
        figure(f"{prefix}.speed_error_median", median, "share", "",
               f"of mean speed, which is distance over time and shares its relative error; {labels}"),
        figure(f"{prefix}.kept_share", kept, "share", "at least 0.5 asked", f"of {candidates} windows called moving; {of}"),
        figure(f"{prefix}.within_25", quarter, "share", "at least 0.70 (notes, section 8)", labels),
        figure(f"{prefix}.coverage90", inside, "share", "0.87 to 0.93", f"truth within the stated interval; {labels}"),
        figure(f"{prefix}.aurc", area, "share", "",
               f"area under mean error and share kept, {curve_count} candidates that follow true movers; {of}"),
    ]  # fmt: skip
    curve: dict[str, dict[str, float]] = {}
    for item in found:
        if item.grouping == "risk and coverage":
            curve.setdefault(item.group, {})[item.measure] = item.value / 100
    for share, errors in curve.items():
        name = f"{prefix}.risk_coverage.{int(share.rstrip('%')):03d}"
        detail = f"median error of the {share} most trusted candidates, mean {errors['error, mean']:.3f}; {of}"
        figures.append(figure(name, errors["error, median"], "share", "", detail))
    for item in found:
        if item.grouping == "error split" and item.measure.startswith("added by"):
            name, detail = item.measure.removeprefix("added by "), f"added to the median error, last step: {item.group}"
            figures.append(figure(f"{prefix}.error_added_by.{name}", item.value / 100, "share", "", f"{detail}; {labels}"))
    return figures


def _in_short(figures: Sequence[AuditFigure]) -> str:
    told = [f"{item.measure} {item.value:.4g} {item.unit}" for item in figures if item.grouping == "all"]
    return "; ".join(told)
