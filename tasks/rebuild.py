"""Make a dataset version again from its manifest, in an empty workspace, and say how equal it came out.

The recorded executions are replayed in order with their recorded settings and seeds on what the replay itself made;
only what no execution made (a source, a lineage) is copied.
"""

from dataclasses import dataclass
from pathlib import Path

from catalogs.catalog import ArtifactRef, Catalog, DatasetVersion, Execution
from schemas.errors import WorldlineError
from stages.contract import STAGES, load_stages
from stages.fingerprint import fingerprint_stage
from tasks.edge import Work, execute
from tasks.keys import code_digest, execution_key


@dataclass(frozen=True)
class Remade:
    """How one artifact came out.

    Attributes:
        stage: what made it.
        kind: of the artifact.
        level: "same bits" (every part), "same content" (decoded values), or "different".
        code: "same code" or "other code" than when it was recorded.
        recorded, remade: content digests.
    """

    stage: str
    kind: str
    level: str
    code: str
    recorded: str
    remade: str


def rebuild_dataset(catalog: Catalog, reference: str, home: Path, *, quiet: bool) -> list[Remade]:
    """Replay the executions of a dataset version in the workspace `home`.

    A replay that was interrupted goes on where it stopped.

    Returns:
        One row per artifact, in the order in which they were made.

    Raises:
        WorldlineError: if the version is not whole, or a stage that made it is gone.
    """
    load_stages()
    version, fresh = catalog.dataset(reference), Catalog.open(home)
    remade: dict[str, str] = {}  # recorded digest -> digest in the fresh workspace
    rows = []
    for recorded in _executions(catalog, version):
        if recorded.stage not in STAGES:
            raise WorldlineError(
                f"{reference} was made by the stage {recorded.stage}, which this version of Worldline does not have"
            )
        for digest in recorded.inputs.values():
            if digest not in remade:
                with fresh.scratch_folder() as scratch:
                    remade[digest] = fresh.adopt(fresh.put(catalog.load(digest), scratch)).digest
        inputs = {name: remade[digest] for name, digest in recorded.inputs.items()}
        stage, files = STAGES[recorded.stage], fingerprint_stage(STAGES[recorded.stage])
        code = code_digest(files)
        key = execution_key(stage, code, recorded.config, inputs, recorded.seed)
        why = f"rebuilding {reference}"
        work = Work(str(home), key, recorded.stage, code, files, recorded.config, recorded.seed, inputs, why, quiet)
        for before, after in zip(recorded.outputs, execute(work), strict=True):
            remade[before.digest] = after.digest
            same_code = "same code" if code == recorded.code else "other code"
            rows.append(Remade(recorded.stage, before.kind, _level(before, after), same_code, before.digest, after.digest))
    return rows


def _level(before: ArtifactRef, after: ArtifactRef) -> str:
    if before.parts == after.parts:
        return "same bits"
    return "same content" if before.digest == after.digest else "different"


def _executions(catalog: Catalog, version: DatasetVersion) -> list[Execution]:
    """Return the executions that a version came from, each after those that made its inputs (as the manifest has them)."""
    executions = []
    for key in version.executions:
        found = catalog.find(key)
        if found is None:
            raise WorldlineError(f"{version.reference} is not whole: see worldline verify {version.reference}")
        executions.append(found)
    return executions
