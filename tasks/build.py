"""A build in progress: what flows call. It asks the catalog first, runs what is missing, or only explains.

A flow receives handles (digest and kind), never arrays. In explain mode nothing runs: a stage that would run yields
handles with unknown digests, and what depends on them is reported as "may run".
"""

import contextlib
import dataclasses
import math
import os
import re
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.catalog import ArtifactRef, Catalog, DatasetVersion
from catalogs.gates import Gate
from catalogs.governance import give_terms
from catalogs.licences import normalise
from catalogs.lineage import as_artifact, upstream
from catalogs.splits import SplitRule
from catalogs.versions import publish
from schemas.artifact import Artifact, Files
from schemas.canonical import hash_file, to_plain
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.models import Model
from schemas.reports import Lineage, Report
from stages.contract import STAGES, load_stages, slots
from stages.fingerprint import fingerprint_stage, list_definitions
from stages.ingest.log_source import describe_driving_log
from stages.ingest.source import describe_source
from stages.ingest.track_source import TrackLog, describe_logs
from stages.pose.pose_files import describe_pose_files, find_pose_files
from tasks.causes import explain_difference
from tasks.configs import make_config, nearest
from tasks.edge import Work, execute, machine, packages
from tasks.keys import code_digest, execution_key
from tasks.models import shipped_model
from tasks.progress import Display
from tasks.sources import list_clips

_LOG_ROLES = ("clip", "path", "tracks", "trajectory", "road_map", "lidar", "truth")


@dataclass(frozen=True)
class Handle:
    """An artifact that a flow passes on: its kind, and its digest once that is known."""

    kind: str
    digest: str | None


@dataclass(frozen=True)
class Decision:
    """What a build did, or would do, about one stage and why."""

    clip: str  # "" in a dataset of one clip
    stage: str
    action: str  # "keep", "run", "may run"
    why: str
    seconds: float | None  # how long it took last time, of what runs; None where it never did


class Build:
    """Runs stages through the catalog for one flow run.

    Args:
        recipe: the resolved config; a stage's settings lie at its own name ("pose.colmap").
        home: the workspace.
        explain: decide and say why, but run and record nothing.
    """

    def __init__(self, recipe: Mapping[str, Any], home: Path, display: Display, *, explain: bool = False) -> None:
        self.recipe = recipe
        self.home = home
        self.display = display
        self.explain = explain
        self.decisions: list[Decision] = []
        self.failures: dict[str, str] = {}  # sentence by clip
        self.catalog = Catalog.open(home)
        load_stages()
        self._configs: dict[str, dict[str, Any]] = {}  # these two are the same for every clip
        self._codes: dict[str, tuple[dict[str, str], str]] = {}
        self._clip, self._clips = "", list_clips(recipe["source"]) if "source" in recipe else {"": ""}
        # Until the version is published nothing protects what was found in the catalog from `gc` but this.
        self._lease = contextlib.ExitStack()
        if not explain:
            self._lease.enter_context(self.catalog.log.lease(exclusive=False))
        weakref.finalize(self, self._lease.close)

    def clips(self) -> Iterator[tuple[str, str]]:
        """Yield name and source of every clip; the name of an only one is ""."""
        for number, (name, source) in enumerate(self._clips.items(), 1):
            if name and not self.explain:
                self.display.say(f"clip {number} of {len(self._clips)}: {name}")
            yield name, source

    def track_logs(self) -> Iterator[tuple[str, TrackLog]]:
        """Yield name and log of every log of annotated tracks in the sources; the name of an only one is ""."""
        found: list[tuple[str, TrackLog]] = []
        for name, source in self._clips.items():
            with self.clip(name):
                logs = describe_logs(Path(source).expanduser())
                alone = len(logs) == 1
                found += [(name if alone else "-".join(filter(None, (name, log.name))), log) for log in logs]
        for number, (name, log) in enumerate(found, 1):
            if name and not self.explain:
                self.display.say(f"log {number} of {len(found)}: {name}")
            yield name, log

    @contextlib.contextmanager
    def clip(self, name: str) -> Iterator[None]:
        """Work on one clip; where there are several, one that fails is told at the end and does not stop the others."""
        self._clip = name
        try:
            yield
        except WorldlineError as error:
            if not name:
                raise
            self.failures[name] = str(error)
            self.display.say(f"  failed: {error}")

    def say(self, text: str) -> None:
        """Tell a line of progress, unless only explaining."""
        if not self.explain:
            self.display.say(text)

    def part_name(self, clip: str, part: str) -> str:
        """Return a name for a part of a clip that no clip of this build has."""
        name = f"{clip}-{part}" if clip else part
        while name in self._clips:
            name += "-part"
        return name

    def facts(self, handle: Handle) -> Mapping[str, Any]:
        """Return what the catalog lists of an artifact; nothing where it is not made yet."""
        known = None if handle.digest is None else self.catalog.log.artifact(handle.digest)
        return {} if known is None else known.facts

    def settings(self, stage: str) -> Mapping[str, Any]:
        """Return the recipe's settings of a stage (an empty mapping where it names none)."""
        node: Any = self.recipe
        for part in stage.split("."):
            node = node.get(part, {})
        return node

    def run(
        self, stage_name: str, settings: Mapping[str, Any] | None = None, /, **inputs: Handle | Sequence[Handle]
    ) -> tuple[Handle, ...]:
        """Return the outputs of a stage for these inputs, from the catalog where it has them.

        Args:
            stage_name: the stage; its settings are the recipe's.
            settings: settings that the flow itself decides, over those of the recipe.
            **inputs: handles by the stage's parameter names; a sequence of them where the stage takes several.
        """
        stage = STAGES[stage_name]
        config = self._config(stage_name, settings or {})
        files, code = self._code(stage_name)
        digests = {slot: handle.digest for slot, handle in slots(stage, inputs).items()}
        unknown = [name for name, digest in digests.items() if digest is None]
        if unknown:
            previous = self.catalog.last_execution(stage_name)
            if previous is None:
                self._decide(stage_name, "run", "never run before")
            else:
                self._decide(stage_name, "may run", f"if {' or '.join(unknown)} comes out different", previous.seconds)
            return tuple(Handle(kind.kind, None) for kind in stage.outputs)
        known = {name: digest for name, digest in digests.items() if digest is not None}
        key = execution_key(stage, code, config, known, self.recipe["seed"])
        found = self.catalog.find(key)
        if found is not None:
            self._decide(stage_name, "keep", "recorded and intact")
            return _handles(found.outputs)
        previous = self.catalog.last_execution(stage_name, like=known)
        why = explain_difference(stage, previous, config, files, known, self.recipe["seed"], packages())
        self._decide(stage_name, "run", why, previous.seconds if previous else None)
        if self.explain:
            return tuple(Handle(kind.kind, None) for kind in stage.outputs)
        work = Work(str(self.home), key, stage_name, code, files, config, self.recipe["seed"], known, why, self.display.quiet)
        return _handles(execute(work))

    def _config(self, stage_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        if settings or stage_name not in self._configs:
            stage = STAGES[stage_name]
            config = make_config(stage.config_type, {**self.settings(stage_name), **settings}, stage_name)
            config = config if stage.pin is None else stage.pin(config)
            if settings:
                return dict(to_plain(config))
            self._configs[stage_name] = to_plain(config)
        return self._configs[stage_name]

    def _code(self, stage_name: str) -> tuple[dict[str, str], str]:
        """Return the fingerprints of a stage's files and of what they define, and one hash over the files."""
        if stage_name not in self._codes:
            files = fingerprint_stage(STAGES[stage_name])
            self._codes[stage_name] = files | list_definitions(files), code_digest(files)
        return self._codes[stage_name]

    def open_source(self, source: str) -> tuple[Handle, ...]:
        """Return clip and truth of `world:LAYOUT` (`world:street` is the default layout), `diffusers:MODEL` or a path.

        A rig of cameras has a third: what all of them filmed; its clip is what the reference did.

        Raises:
            WorldlineError: if nothing can be read there.
        """
        scheme, _, rest = source.partition(":")
        rig: list[Handle] = []
        if scheme == "world":
            clip, truth = self.run("generate.world", {} if rest == "street" else {"layout": rest})
            origin = clip
        elif scheme == "diffusers":
            conditioning = self._given(_conditioning(self.recipe["generate"]["image"]))
            clip, truth = self.run("generate.diffusers", {"model": rest}, conditioning=conditioning)
            origin = clip
        elif rest and not Path(source).expanduser().exists() and "/" not in scheme:
            raise WorldlineError(f"source={source!r}: unknown kind {scheme!r}{nearest(scheme, ['world', 'diffusers'])}")
        else:
            given = describe_source(Path(source).expanduser(), camera=self.recipe["ingest"]["pandaset"]["camera"])
            origin = self._given(given)
            clip, truth, *rig = self.run(f"ingest.{given.layout}", source=origin)
        self._give_rights(origin)
        return clip, truth, *rig

    def open_tracks(self, log: TrackLog) -> tuple[Handle, Handle, Handle]:
        """Return tracks, camera path and the counts of what was wrong, of a log of annotated tracks.

        Raises:
            WorldlineError: if the log cannot be read.
        """
        if log.trouble:
            raise WorldlineError(log.trouble)
        origin = self._given(log.source)
        tracks, path, figures = self.run(log.stage, log.settings, source=origin)
        self._give_rights(origin)
        return tracks, path, figures

    def open_log(self, source: str, settings: Mapping[str, Any] | None = None) -> dict[str, Handle]:
        """Return a driving log by role: clip, path, tracks, trajectory (as it was driven), road_map, lidar and truth.

        Args:
            source: `world:street`, `world:LAYOUT` or a path.
            settings: of the stage that reads it, over those of the recipe.

        Raises:
            WorldlineError: if the source is no driving log.
        """
        scheme, _, rest = source.partition(":")
        if scheme == "world":
            made = self.run("ingest.world_log", {"layout": rest, **(settings or {})})
            origin = made[0]
        else:
            stage, given, own = describe_driving_log(Path(source).expanduser())
            origin = self._given(given)
            made = self.run(stage, {**own, **(settings or {})}, source=origin)
        self._give_rights(origin)
        return dict(zip(_LOG_ROLES, made, strict=True))

    def open_model(self, role: str) -> Handle:
        """Return the weights that the recipe's `world_model` names: those of the package, or of a dataset that trained some.

        Args:
            role: "street_video" or "street_detector".

        Raises:
            WorldlineError: if there are none.
        """
        named = self.recipe["world_model"]
        if named == "shipped":
            return self._given(shipped_model(role))
        version = self.catalog.dataset(named)
        if role not in version.artifacts:
            raise WorldlineError(f"world_model={named}: {version.reference} holds no {role}; take a version of train_world_model")
        return Handle(Model.kind, version.artifacts[role])

    def open_poses(self, source: str) -> Handle:
        """Return the files that tell the poses of a clip: those of the recipe's `poses`, else those beside its frames.

        Raises:
            WorldlineError: if there are none, or `poses` is told for several clips.
        """
        told = self.recipe["poses"]
        if told is not None and len(self._clips) > 1:
            raise WorldlineError(
                f"poses={told} is of one clip and there are {len(self._clips)}: put the files beside their frames"
            )
        found = find_pose_files(Path(source).expanduser()) if told is None else describe_pose_files(Path(told).expanduser())
        files = self._given(found)
        self._give_rights(files)
        return files

    def _give_rights(self, origin: Handle) -> None:
        """Record the recipe's rights as the terms of where a clip came from, unless they stand there already."""
        rights = {name: value for name, value in self.recipe.get("rights", {}).items() if value is not None}
        if "licence" in rights:
            rights["licence"] = normalise(rights["licence"])
        if self.explain or not rights or origin.digest is None:
            return
        known = self.catalog.log.note("terms", origin.digest)
        if known is None or any(known.body.get(name) != value for name, value in rights.items()):
            give_terms(self.catalog, origin.digest, **rights)

    def lineage(self, artifacts: Mapping[str, Handle]) -> Handle:
        """Return the lineage of some artifacts as an artifact that a report can draw."""
        digests = {handle.digest for handle in artifacts.values() if handle.digest is not None}
        if any(handle.digest is None for handle in artifacts.values()):
            return Handle(Lineage.kind, None)
        found = as_artifact(upstream(self.catalog.log, sorted(digests)), self.catalog.log)
        return self._given(Lineage(nodes=_sorted(found.nodes), edges=_sorted(found.edges)))

    def finish(self, artifacts: Mapping[str, Handle]) -> dict[str, Any]:
        """Publish the artifacts as the next version of the recipe's dataset and return the outcome as plain values.

        Returns:
            `decisions` (stage, action and why, in order) and, unless only explaining, `dataset` (NAME@V), `artifacts`
            (digest by role), `report` (path of the page) and `figures` (rows of all metrics).
        """
        outcome: dict[str, Any] = {
            "decisions": [dataclasses.asdict(decision) for decision in self.decisions],
            "failures": self.failures,
        }
        if self.explain:
            return outcome
        if self.failures and not artifacts:
            first = next(iter(self.failures.values()))
            raise WorldlineError(f"none of the {len(self.failures)} clips could be built, the first because {first}")
        digests = {role: handle.digest for role, handle in artifacts.items() if handle.digest is not None}
        lock = {"machine": machine(), "packages": packages()}
        gate, split_rule = read_gate(self.recipe.get("gate", {})), SplitRule(**self.recipe.get("splits", {}))
        version = publish(self.catalog, self.recipe["name"], dict(self.recipe), digests, lock, gate=gate, split_rule=split_rule)
        self._lease.close()
        return outcome | {
            "dataset": version.reference,
            "held": version.held,
            "artifacts": version.artifacts,  # without what people rejected
            "reports": [
                str(self._link_report(version, role)) for role in version.artifacts if artifacts[role].kind == Report.kind
            ],
            "figures": self._figures(version),
        }

    def _figures(self, version: DatasetVersion) -> list[dict[str, Any]]:
        """Return the rows of all metrics of a version with the clip that each was measured on, by role and name."""
        rows = self.catalog.dataset(version.reference).table("metrics").to_pylist()
        by_digest: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: str(row["name"])):
            by_digest.setdefault(row.pop("artifact"), []).append(row)
        return [
            {"clip": role.rpartition("/")[0]} | row
            for role, digest in sorted(version.artifacts.items())
            for row in by_digest.get(digest, [])
        ]

    def _link_report(self, version: DatasetVersion, role: str) -> Path:
        """Copy a report to a name that people can find."""
        report: Any = self.catalog.load(version.artifacts[role])
        clip = role.rpartition("/")[0]
        link = self.home / "reports" / f"{version.name}-{version.version}{'-' if clip else ''}{clip}.html"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() or hash_file(link) != self.catalog.artifact(version.artifacts[role]).parts["files/report.html"]:
            temporary = link.with_suffix(f".{os.getpid()}")
            shutil.copyfile(report.files["report.html"], temporary)
            os.replace(temporary, link)
        return link

    def _given(self, artifact: Artifact) -> Handle:
        """Bring an artifact that no stage made (a source, a lineage) into the catalog."""
        digest = content_digest(artifact)
        known = self.catalog.log.artifact(digest)
        if self.explain or (known is not None and self.catalog.whole(known)):
            return Handle(artifact.kind, digest)
        with self.catalog.scratch_folder() as scratch:
            return Handle(artifact.kind, self.catalog.adopt(self.catalog.put(artifact, scratch)).digest)

    def _decide(self, stage: str, action: str, why: str, seconds: float | None = None) -> None:
        self.decisions.append(Decision(self._clip, stage, action, why, seconds))
        if action == "keep" and not self.explain:
            self.display.kept(stage)


def read_gate(settings: Mapping[str, Any]) -> Gate:
    """Return a recipe's publish gate; its figures are written as "NAME >= NUMBER, NAME <= NUMBER".

    Raises:
        WorldlineError: if a setting cannot be read, naming it.
    """
    figures: dict[str, dict[str, float]] = {}
    for text in filter(None, (item.strip() for item in settings.get("figures", "").split(","))):
        found = re.fullmatch(r"([\w.]+)\s*(<=|>=)\s*(\S+)", text)
        try:
            limit = float(found[3]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or math.isnan(limit):
            raise WorldlineError(f"gate.figures={text!r} cannot be read: write a figure's name, <= or >=, and a number")
        figures.setdefault(found[1], {})["max" if found[2] == "<=" else "min"] = limit
    asked = {table: count for table, count in settings.get("min_rows", {}).items() if count}
    return Gate.of({**settings, "figures": figures, "min_rows": asked})


def _conditioning(image: str | None) -> Source:
    """Return the first frame for an image-to-video model as a source without files where there is none."""
    if image is None:
        return Source(files=Files(), layout="none", name="")
    path = Path(image).expanduser()
    if not path.is_file():
        raise WorldlineError(f"generate.image={image}: there is no such file")
    return Source(files=Files({path.name: path}), layout="image", name=path.name)


def _handles(outputs: tuple[ArtifactRef, ...]) -> tuple[Handle, ...]:
    return tuple(Handle(output.kind, output.digest) for output in outputs)


def _sorted(table: pa.Table) -> pa.Table:
    """Return a table's rows in an order that does not depend on which artifact was asked for first."""
    return table.sort_by([(name, "ascending") for name in table.column_names])
