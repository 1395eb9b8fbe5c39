"""A dataset version to read from: its artifacts, tables and clips.

dataset = Catalog.open("worldline-data").dataset("streets@3")
print(dataset)                                   # streets@3: 120 clips (96 train, 12 val, 12 test), 840 artifacts
labels = dataset.table("labels")                 # Arrow, the rows of this version
path = dataset.load("street-0007/path")          # any artifact, by its role
windows = dataset.to_torch(window=16, include=("frames", "cameras", "labels"), split="train")
questions = dataset.to_huggingface("labels")
"""

import collections
import datetime
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalogs.contents import artifact_refs, clip_of
from catalogs.records import ArtifactRef, DatasetVersion
from catalogs.tables import CONTENT_TABLES
from schemas.artifact import Artifact
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    import datasets

    from catalogs.catalog import Catalog
    from catalogs.loaders import Windows


@dataclass(frozen=True)
class ClipMembers:
    """What a version holds of one clip.

    Attributes:
        name: what stands before "/" in the roles of its artifacts; "" in a version of a single clip.
        split: "train", "val" or "test"; None where the version has no splits.
        artifacts: artifacts by their role within the clip.
    """

    name: str
    split: str | None
    artifacts: dict[str, ArtifactRef]

    def of_kind(self, kind: str) -> dict[str, ArtifactRef]:
        """Return the artifacts of one type by role."""
        return {role: ref for role, ref in self.artifacts.items() if ref.kind == kind}


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset(DatasetVersion):
    """A dataset version together with the catalog that holds it.

    Artifacts that were taken down or removed after it was published are left out everywhere; `missing` names them.

    Attributes:
        catalog: where its artifacts are loaded from.
    """

    catalog: "Catalog"

    @functools.cached_property
    def members(self) -> dict[str, ArtifactRef]:
        """The artifacts that are still there, by role."""
        known = artifact_refs(self.catalog.log, self.artifacts.values())
        return {role: known[digest] for role, digest in self.artifacts.items() if digest in known}

    @functools.cached_property
    def missing(self) -> dict[str, str]:
        """Why an artifact of the version is not there any more, by role."""
        from catalogs.takedowns import removed_roles  # here, because other reading needs none of it (20 ms)

        return removed_roles(self.catalog.log, self)

    @functools.cached_property
    def clips(self) -> dict[str, ClipMembers]:
        """The clips by name, with their artifacts and split."""
        found: dict[str, dict[str, ArtifactRef]] = collections.defaultdict(dict)
        for role, ref in self.members.items():
            found[clip_of(role)][role.rpartition("/")[2]] = ref
        return {
            name: ClipMembers(name, self.splits.get(name), artifacts)
            for name, artifacts in sorted(found.items())
            if any(ref.kind == "Clip" for ref in artifacts.values())
        }

    def load(self, role: str) -> Artifact:
        """Return one artifact; videos decode on use.

        Args:
            role: as in `artifacts`.

        Raises:
            WorldlineError: if the version has no such role, or its artifact was removed, is lost or damaged.
        """
        if role in self.missing:
            raise WorldlineError(f"{role} of {self.reference} is not there any more: it was {self.missing[role]}")
        if role not in self.artifacts:
            near = difflib.get_close_matches(role, self.artifacts, n=3, cutoff=0.3) or sorted(self.artifacts)[:5]
            raise WorldlineError(f"{self.reference} has no artifact {role}: there is {', '.join(near)}")
        return self.catalog.load(self.artifacts[role])

    def table(self, name: str) -> pa.Table:
        """Return the rows of one content table ("labels", "tracks", ...) that belong to this version.

        Labels that people had rejected when it was published are left out.

        Raises:
            WorldlineError: if there is no such table.
        """
        if name not in CONTENT_TABLES:
            raise WorldlineError(f"{self.reference} has no table {name}: there is {', '.join(CONTENT_TABLES)}")
        return self.catalog.sql(f"SELECT * EXCLUDE (dataset, version, latest) FROM {name} WHERE {self.is_meant}")

    @property
    def is_meant(self) -> str:
        """The condition in SQL that picks this version's rows of a content table."""
        return f"dataset = '{self.name}' AND version = {self.version}"

    def to_torch(
        self,
        window: int = 16,
        *,
        per: str = "window",
        step: int | None = None,
        step_s: float | None = None,
        hop: int | None = None,
        include: Iterable[str] = ("frames",),
        split: str | None = None,
        channels_first: bool = False,
        roles: Mapping[str, str] | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> "Windows":
        """Return a map-style PyTorch dataset of windows of frames; see `catalogs.loaders` for orders and streams.

        Args:
            window: frames in a sample.
            per: "window" cuts the clips into windows; "label" gives one sample per label, its frames spread evenly over
                the label's time, with the label as the one row of `labels`.
            step: frames from one to the next; 1 by default.
            step_s: instead, seconds from one to the next: the frames nearest to these times are taken.
            hop: steps from the start of a window to that of the next; `window` by default, so that none overlap.
            include: of "frames", "cameras", "tracks", "kinematics", "windows" and "labels".
            split: "train", "val" or "test"; all by default.
            channels_first: frames as `[T, 3, H, W]` instead of `[T, H, W, 3]`.
            roles: which role to take where a clip has several artifacts of a type, such as `{"Clip": "novel"}`.
            transform: applied to every sample, in the worker.

        Raises:
            WorldlineError: if an argument makes no sense, or no window is found.
        """
        from catalogs.loaders import Windows
        from catalogs.samples import Cut, LabelCut, plan

        if per == "label" and (step, step_s, hop) == (None, None, None):
            cut: Cut | LabelCut = LabelCut(window)
        elif per == "window":
            cut = Cut(window, step, step_s, hop)
        else:
            raise WorldlineError(f'per must be "window" or "label" (without step, step_s and hop), not {per!r}')
        return Windows(plan(self, cut, tuple(include), split, roles, channels_first=channels_first), transform)

    def to_huggingface(self, table: str = "labels") -> "datasets.Dataset":
        """Return one content table as a Hugging Face dataset over the same Arrow memory; nothing is converted.

        Its fingerprint derives from this version and the table, so that what `map` caches is found again.

        Raises:
            WorldlineError: if there is no such table, or the package `datasets` is not installed.
        """
        from catalogs.loaders import huggingface_dataset

        return huggingface_dataset(self.table(table), f"{self.manifest}/{table}")

    def __repr__(self) -> str:
        if not self.clips:
            held = []
        elif not self.splits:
            held = [_counted(len(self.clips), "clip")]
        else:
            counts = collections.Counter(clip.split or "in no split" for clip in self.clips.values())
            order = [name for name in ("train", "val", "test", "in no split") if counts[name]]
            held = [f"{_counted(len(self.clips), 'clip')} ({', '.join(f'{counts[name]} {name}' for name in order)})"]
        held.append(_counted(len(self.members), "artifact"))
        published = datetime.datetime.fromtimestamp(self.published_at, datetime.UTC)
        text = f"{self.reference}: {', '.join(held)}, published {published:%Y-%m-%d}"
        if self.held:
            text += f"; held: {self.held}"
        if self.missing:
            text += f"; {len(self.missing)} missing: {', '.join(sorted(self.missing)[:3])}"
        return text


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
