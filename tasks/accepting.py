"""Keep what a stage recorded before a refactoring: a sample is run again, and where it agrees, nothing else is.

After a change of code that was meant to change no result, every recorded execution of the stage would run again,
because the code is part of its key. Accepting records each of them under its new key, with the outputs, machine,
packages and times of the execution that really ran, and with a note in `machine` that says so.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catalogs.catalog import Catalog, Execution
from catalogs.lineage import read_artifacts, read_executions
from catalogs.records import execution_row
from schemas.canonical import to_plain
from schemas.errors import WorldlineError
from stages.contract import STAGES, Stage, load_stages
from stages.fingerprint import fingerprint_stage, list_definitions
from tasks.configs import make_config, nearest
from tasks.keys import code_digest, execution_key
from tasks.rebuild import Verdict, copy_artifact, judge, sample


@dataclass(frozen=True)
class Acceptance:
    """What came of accepting a stage's new code.

    Attributes:
        stage: which stage.
        candidates: recorded executions of this version with other code, one per new key.
        sampled: how many of them were run again; all agreed.
        accepted: how many are now recorded under their new key.
        left_out: recorded executions that could not be candidates: artifacts lost, settings gone.
    """

    stage: str
    candidates: int
    sampled: int
    accepted: int
    left_out: int


@dataclass(frozen=True)
class _Candidate:
    """A recorded execution and what a build would call it now."""

    recorded: Execution
    key: str
    config: dict[str, Any]


def accept(catalog: Catalog, stage_name: str, share: float, seed: int, *, quiet: bool) -> Acceptance:
    """Run a sample of a stage's recorded executions with today's code and, where all agree, keep all under their new keys.

    Results agree that have the same content digests, or lie within the stage's declared tolerance. Of every state of
    the code that was recorded, at least one execution is run again.

    Args:
        catalog: the workspace.
        stage_name: the stage.
        share: of the executions that is run again, above 0 and up to 1.
        seed: another seed takes others.
        quiet: no progress.

    Raises:
        WorldlineError: if there is no such stage, its declared version was raised, or an execution came out different;
            nothing is then recorded.
    """
    load_stages()
    if stage_name not in STAGES:
        raise WorldlineError(f"there is no stage {stage_name}{nearest(stage_name, STAGES)}")
    stage, files = STAGES[stage_name], fingerprint_stage(STAGES[stage_name])
    code, files = code_digest(files), files | list_definitions(files)
    with catalog.log.lease(exclusive=False):
        candidates, left_out = _candidates(catalog, stage, code)
        groups: dict[str, list[_Candidate]] = {}
        for candidate in candidates:
            groups.setdefault(candidate.recorded.code, []).append(candidate)
        verdicts = _run_again(catalog, [item.recorded for group in groups.values() for item in _drawn(group, share, seed)], quiet)
        _refuse_disagreement(stage, verdicts)
        marks = {
            old: {"code": old, "of": len(group), "run_again": len(_drawn(group, share, seed)), "seed": seed}
            for old, group in groups.items()
        }
        accepted = 0
        with catalog.log.write() as commit:  # all or none
            for candidate in candidates:
                known = commit.execution(candidate.key)
                if known is not None and catalog.intact(known):  # a build was faster
                    continue
                recorded = candidate.recorded
                kept = dataclasses.replace(
                    recorded,
                    key=candidate.key,
                    code=code,
                    code_files=files,
                    config=candidate.config,
                    machine={**recorded.machine, "accepted": marks[recorded.code]},
                )
                commit.append(execution_row(kept, "execution"))
                accepted += 1
    return Acceptance(stage_name, len(candidates), len(verdicts), accepted, left_out)


def _candidates(catalog: Catalog, stage: Stage, code: str) -> tuple[list[_Candidate], int]:
    """Return the newest recorded execution for every new key that is not recorded yet, and how many cannot be one."""
    query = "SELECT key FROM executions WHERE stage = ? ORDER BY number, key"
    keys = [key for (key,) in catalog.log.rows(query, (stage.name,))]
    recorded = read_executions(catalog.log, keys)
    newest: dict[str, _Candidate] = {}
    versions, left_out = set(), 0
    for execution in (recorded[key] for key in keys if key in recorded):
        versions.add(execution.version)
        if execution.version != stage.version or execution.code == code:
            continue
        try:
            config = to_plain(make_config(stage.config_type, execution.config, stage.name))
        except WorldlineError:
            left_out += 1
            continue
        key = execution_key(stage, code, config, execution.inputs, execution.seed)
        if key in recorded and catalog.intact(recorded[key]):
            continue
        if not catalog.intact(execution):
            left_out += 1
            continue
        newest[key] = _Candidate(execution, key, config)
    if versions and stage.version not in versions:
        raise WorldlineError(
            f"{stage.name} is now version {stage.version} and was recorded as version {', '.join(map(str, sorted(versions)))}: "
            "a raised version says that results change, so that nothing can be accepted"
        )
    return list(newest.values()), left_out


def _drawn(group: Sequence[_Candidate], share: float, seed: int) -> list[_Candidate]:
    keys = {execution.key for execution in sample([item.recorded for item in group], share, seed)}
    return [item for item in group if item.recorded.key in keys]


def _run_again(catalog: Catalog, chosen: Sequence[Execution], quiet: bool) -> list[Verdict]:
    """Run executions on their recorded inputs in a workspace of their own, which vanishes at the end."""
    verdicts = []
    known = read_artifacts(catalog.log, [digest for execution in chosen for digest in execution.inputs.values()])
    with catalog.scratch_folder() as folder:
        fresh = Catalog.open(folder / "workspace")
        for number, recorded in enumerate(chosen, 1):
            for digest in recorded.inputs.values():
                if digest not in known:
                    raise WorldlineError(
                        f"{recorded.stage}: its input {digest[:12]} is no longer recorded: nothing can be accepted"
                    )
                copy_artifact(catalog, fresh, digest)
            why = f"accepting, {number} of {len(chosen)}"
            verdicts.append(judge(recorded, recorded.inputs, fresh, catalog.load, why, quiet))
    return verdicts


def _refuse_disagreement(stage: Stage, verdicts: Sequence[Verdict]) -> None:
    wrong = [verdict for verdict in verdicts if verdict.level in ("different", "failed")]
    if not wrong:
        return
    first = wrong[0]
    difference = next((f" ({item.difference})" for item in first.artifacts if item.difference is not None), "")
    raise WorldlineError(
        f"nothing was accepted: {len(wrong)} of {len(verdicts)} executions of {stage.name} came out different, first "
        f"{first.key[:12]}{difference}; {first.cause}: raise the stage's version if that is meant"
    )
