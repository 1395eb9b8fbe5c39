"""Audit the labels of a dataset version against the truth of its clips; each clip's audit is recorded like any execution."""

from dataclasses import dataclass

from catalogs.catalog import Catalog
from catalogs.contents import clip_of
from catalogs.datasets import Dataset
from schemas.audits import LabelAudit
from schemas.errors import WorldlineError
from tasks.build import Build, Handle
from tasks.progress import Display

_AUDITED = ("tracks", "kinematics", "path")


@dataclass(frozen=True)
class VersionAudit:
    """The audits of a version.

    Attributes:
        reference: NAME@V.
        audits: by clip; "" in a version of one clip.
        without_truth: clips that have labels and no truth.
    """

    reference: str
    audits: dict[str, LabelAudit]
    without_truth: list[str]


def audit_version(catalog: Catalog, reference: str, *, quiet: bool) -> VersionAudit:
    """Compare the labels of every clip that has a truth with it, from the catalog where that is recorded already.

    Raises:
        WorldlineError: if there is no such version, or none of its clips has labels and a truth.
    """
    version = catalog.dataset(reference)
    clips = sorted({clip_of(role) for role in version.members if role.rpartition("/")[2] == "kinematics"})
    build = Build({"seed": version.recipe["seed"]}, catalog.home, Display(quiet=quiet))
    audits: dict[str, LabelAudit] = {}
    without = []
    for clip in clips:
        truth = _truth_of(catalog, version, clip)
        named = {role: version.members.get(f"{clip}/{role}" if clip else role) for role in _AUDITED}
        inputs = {role: Handle(ref.kind, ref.digest) for role, ref in named.items() if ref is not None}
        if truth is None or len(inputs) < len(_AUDITED):
            without.append(clip)
            continue
        made = catalog.producer(str(inputs["kinematics"].digest))
        settings = {"kinematics": made.config} if made else {}
        (handle,) = build.run("label.audit", settings, **inputs, truth=truth)
        audit = catalog.load(str(handle.digest))
        assert isinstance(audit, LabelAudit)
        audits[clip] = audit
    if not audits:
        what = "truth to audit against" if clips else "labels to audit"
        raise WorldlineError(
            f"{version.reference} has no {what}: truth comes with procedural worlds (source=world:LAYOUT) and with PandaSet "
            "logs that have cuboids"
        )
    return VersionAudit(version.reference, audits, without)


def _truth_of(catalog: Catalog, version: Dataset, clip: str) -> Handle | None:
    """Return the truth that the clip's labels were evaluated against, None where there is none."""
    evaluated = version.members.get(f"{clip}/label_metrics" if clip else "label_metrics")
    made = None if evaluated is None else catalog.producer(evaluated.digest)
    digest = None if made is None else made.inputs.get("truth")
    known = None if digest is None else catalog.log.artifact(digest)
    return None if known is None or not known.facts.get("available") else Handle(known.kind, known.digest)
