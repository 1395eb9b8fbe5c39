"""The story of one label for people: from its question back to the frames, stages, scale, source and terms behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalogs.governance import licence_of
from catalogs.lineage import read_artifacts, upstream
from catalogs.records import ArtifactRef, Execution, listed
from schemas.canonical import canonical_json
from schemas.clips import Clip
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


@dataclass(frozen=True)
class Step:
    """One line of the story.

    Attributes:
        what: "question", "answer", "scale", "frames", "track", "dataset", "clip", "generator", "model", "source",
            "licence" or "stage".
        value: which one.
        detail: what else is known of it.
    """

    what: str
    value: str
    detail: str


def trace(catalog: "Catalog", label: str) -> list[Step]:
    """Return what is behind a label, by its question id or the first four or more characters of it.

    Raises:
        WorldlineError: if no label or several have this id.
    """
    rows = _label_rows(catalog, label)
    row = rows[0]
    executions = upstream(catalog.log, [row["artifact"]])
    made = {ref.digest: ref for execution in executions for ref in execution.outputs}
    given = {digest for execution in executions for digest in execution.inputs.values()} - made.keys()
    refs = made | read_artifacts(catalog.log, given)
    clips = [ref for ref in refs.values() if ref.kind == Clip.kind]
    steps = _question(row)
    steps += _frames(catalog, row, clips)
    steps += _objects(catalog, row, executions)
    steps += _datasets(rows)
    for ref in clips:
        steps += _clip(catalog, ref)
    for ref in refs.values():
        if ref.kind == "Model":
            steps.append(
                Step("model", str(ref.facts.get("name")), f"trained on {ref.facts.get('trained_on') or 'nothing recorded'}")
            )
        elif ref.kind == "Source" and ref.facts.get("files"):
            files = [f"{name.removeprefix('files/')} (SHA-256 {sha[:12]})" for name, sha in ref.parts.items() if "/" in name]
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            steps.append(Step("source", str(ref.facts.get("name")), f"{ref.facts.get('layout')}: {', '.join(files[:3])}{more}"))
    for origin in licence_of(catalog, row["artifact"]).origins:
        said = [text for text in (origin.terms, origin.attribution, origin.place) if text]
        steps.append(Step("licence", origin.licence, "; ".join([f"of {origin.name}", *said])))
    return steps + [_stage(execution) for execution in executions]


def _label_rows(catalog: "Catalog", label: str) -> list[dict[str, Any]]:
    """Return the rows of a label: the same one for every dataset version that holds it."""
    quoted = label.replace("'", "''")
    rows = catalog.sql(f"SELECT * FROM labels WHERE question_id = '{quoted}'").to_pylist()
    if not rows and len(label) >= 4:
        rows = catalog.sql(f"SELECT * FROM labels WHERE starts_with(question_id, '{quoted}')").to_pylist()
    if not rows:
        raise WorldlineError(f"no label {label} in {catalog.home}: give a question_id, or four or more characters of one")
    names = sorted({row["question_id"] for row in rows})
    if len(names) > 1:
        raise WorldlineError(f"{label} could mean the labels {listed(names[:5])}: give more characters")
    artifacts = sorted({row["artifact"] for row in rows})
    if len(artifacts) > 1:
        raise WorldlineError(f"{label} is in {len(artifacts)} artifacts {listed(artifacts)}: ask for the lineage of one of these")
    return rows


def _question(row: dict[str, Any]) -> list[Step]:
    unit, interval = row["answer_unit"], ""
    if row["answer_p5"] is not None and row["answer_p95"] is not None:
        interval = f"90 % between {row['answer_p5']:.4g} and {row['answer_p95']:.4g} {unit}"
    metric = "lengths in metres" if row["metric"] else "needs no lengths"
    return [
        Step("question", row["question_id"], f"{row['kind']}: {row['question']}"),
        Step("answer", row["answer"], interval),
        Step("scale", row["scale_source"], f"scale_sigma {100 * row['scale_sigma']:.2g} %; {metric}"),
    ]


def _frames(catalog: "Catalog", row: dict[str, Any], clips: Sequence[ArtifactRef]) -> list[Step]:
    frames, detail = row["frames"] or [], f"window {row['start_s']:.3f} to {row['end_s']:.3f} s"
    if len(clips) == 1 and frames:
        try:
            times = catalog.load(clips[0].digest).times_s  # type: ignore[attr-defined]
            detail = f"at {' and '.join(f'{times[frame]:.3f} s' for frame in frames if frame < len(times))} of the clip; {detail}"
        except WorldlineError as error:
            detail += f"; {error}"
    return [Step("frames", " to ".join(map(str, frames)), detail)]


def _objects(catalog: "Catalog", row: dict[str, Any], executions: Sequence[Execution]) -> list[Step]:
    """Say which objects it is about, as the tracks upstream describe them; track 0 is the camera."""
    described: dict[int, str] = {}
    for digest in (ref.digest for execution in executions for ref in execution.outputs if ref.kind == "Tracks"):
        try:
            objects = catalog.load(digest).objects.to_pylist()  # type: ignore[attr-defined]
        except WorldlineError:
            continue
        described |= {
            item[
                "track_id"
            ]: f"{item['colour']} {item['class_name']}, seen {item['first_s']:.1f} to {item['last_s']:.1f} s".strip()
            for item in objects
        }
    described[0] = "the camera"
    return [Step("track", str(track), described.get(track, "")) for track in row["track_ids"] or []]


def _datasets(rows: Sequence[dict[str, Any]]) -> list[Step]:
    named = {(row["dataset"], row["version"]): row["latest"] for row in rows if row["dataset"] is not None}
    return [Step("dataset", f"{name}@{version}", "latest" if latest else "") for (name, version), latest in sorted(named.items())]


def _clip(catalog: "Catalog", ref: ArtifactRef) -> list[Step]:
    facts = ref.facts
    size = f"{facts.get('frames')} frames of {facts.get('width_px')}x{facts.get('height_px')} px, {facts.get('duration_s'):.3f} s"
    steps = [Step("clip", str(facts.get("name")), f"{size}; {ref.digest[:12]}")]
    try:
        provenance = catalog.load(ref.digest).provenance  # type: ignore[attr-defined]
    except WorldlineError:
        return steps
    if "generator" in provenance or "model" in provenance:
        told = {name: value for name, value in provenance.items() if name not in ("generator", "model")}
        steps.append(Step("generator", str(provenance.get("model") or provenance["generator"]), canonical_json(told)))
    return steps


def _stage(execution: Execution) -> Step:
    detail = f"config {canonical_json(execution.config)}; seed {execution.seed}; code {execution.code[:12]}"
    return Step("stage", f"{execution.stage}@{execution.version}", detail)
