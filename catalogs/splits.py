"""Splits by source and by place, never by frame.

Clips that share a source, a named place, a position on the ground or a procedural world belong together: a model that
saw one of them has seen the others. They form a group, and a group goes to one split by a hash of its own, so that
clips that come later move no other group.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from catalogs.contents import artifact_refs, clip_of
from catalogs.lineage import rows_in
from catalogs.records import ArtifactRef, DatasetVersion, Execution
from schemas.clips import Clip
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

SPLITS = ("train", "val", "test")
EARTH_RADIUS_M = 6_371_008.8
_READERS = 4
_THINNED = 20  # fixes are thinned to one per radius / 20, ...
_REACH = 1.2  # ... and so compared within 1.2 radii, which misses no pair within the radius
_PLAIN_GREY_LEVELS = 3.0  # standard deviation, of 255
_LIKE_BITS = 16  # of the 256 bits of a first frame's hash; unrelated frames differ in about 128
# Made of many sources, or the same for all (the empty truth of plain videos): sharing them does not make clips alike.
_NO_ORIGIN = ("Model", "Lineage", "Truth")


class Origin(NamedTuple):
    """Something that two clips of one group share: a "source", a "world", a "place", a clip with "gps", or the "clip" itself."""

    kind: str
    name: str


@dataclass(frozen=True)
class SplitRule:
    """How clips are split.

    Attributes:
        train, val, test: shares of the groups.
        radius_m: clips whose GPS positions come this near are at the same place.
    """

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    radius_m: float = 100.0

    def __post_init__(self) -> None:
        shares = [self.train, self.val, self.test]
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise WorldlineError(f"splits train={self.train} val={self.val} test={self.test} are not shares that add up to 1")
        if not isinstance(self.radius_m, int | float) or not 0 < self.radius_m <= 100_000:
            raise WorldlineError(f"splits radius_m={self.radius_m} is not valid: give metres, more than 0 and at most 100000")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "SplitRule":
        """Read a rule from a recipe's plain values.

        Raises:
            WorldlineError: if a setting is unknown, or the shares do not add up to 1.
        """
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise WorldlineError(f"splits.{name} is not a setting: there are {', '.join(cls.__dataclass_fields__)}")
        return cls(**settings)


def split(
    catalog: "Catalog", artifacts: Mapping[str, ArtifactRef], executions: Sequence[Execution], rule: SplitRule
) -> dict[str, str]:
    """Return "train", "val" or "test" by clip.

    Args:
        catalog: the workspace.
        artifacts: by role.
        executions: everything upstream of the artifacts, makers before users.
        rule: shares and radius.
    """
    groups = group_clips(catalog, artifacts, executions, rule.radius_m)
    return {clip: _split_of(group, rule) for clip, group in sorted(groups.items())}


def _split_of(group: str, rule: SplitRule) -> str:
    draw = int.from_bytes(hashlib.sha256(f"split/1\n{group}".encode()).digest()[:8], "big") / 2.0**64
    end, last = 0.0, ""
    for name, share in zip(SPLITS, (rule.train, rule.val, rule.test), strict=True):
        end += share
        if share > 0:
            last = name
            if draw < end:
                return name
    return last  # shares add up to 1 but for rounding


def group_clips(
    catalog: "Catalog", artifacts: Mapping[str, ArtifactRef], executions: Sequence[Execution], radius_m: float
) -> dict[str, str]:
    """Return the group of every clip of a version: the least name of what its clips came from.

    Roles without a clip, in a version of many clips, are about all of them and belong to no group.
    """
    origins = _origins(catalog, {ref.digest for ref in artifacts.values()}, executions)
    many = any(clip_of(role) for role in artifacts)
    members: dict[str, list[ArtifactRef]] = {}
    for role in sorted(artifacts):
        if clip_of(role) or not many:
            members.setdefault(clip_of(role), []).append(artifacts[role])
    of_clip: dict[str, set[Origin]] = {}
    for clip, found in members.items():
        starts = [ref for ref in found if ref.kind == "Clip"] or found
        reached = set[Origin]().union(*(origins.get(ref.digest, ()) for ref in starts))
        of_clip[clip] = reached or {Origin("clip", min(ref.digest for ref in starts))}
    joined = _Joined()
    for clip, reached in of_clip.items():
        for origin in reached:
            joined.join(clip, origin)
    positioned = sorted({origin.name for reached in of_clip.values() for origin in reached if origin.kind == "gps"})
    for one, other in near_clips(_positions(catalog, artifact_refs(catalog.log, positioned).values()), radius_m):
        joined.join(Origin("gps", one), Origin("gps", other))
    names: dict[Any, str] = {}
    for clip, reached in of_clip.items():
        # A place given later must not move clips, so that the name comes from what they were made of.
        name = min(f"{origin.kind} {origin.name}" for origin in reached if origin.kind not in ("gps", "place"))
        root = joined.root(clip)
        names[root] = min(names.get(root, name), name)
    return {clip: names[joined.root(clip)] for clip in of_clip}


def _origins(catalog: "Catalog", digests: set[str], executions: Sequence[Execution]) -> dict[str, set[Origin]]:
    """Return what every artifact came from, by digest; weights and lineages hand nothing on."""
    made = {ref.digest for execution in executions for ref in execution.outputs}
    given = {digest for execution in executions for digest in execution.inputs.values()} | digests
    places = {note.subject: note.body["place"] for note in catalog.log.notes("terms") if note.body.get("place")}
    origins: dict[str, set[Origin]] = {}
    for digest, ref in artifact_refs(catalog.log, given - made).items():
        if ref.kind in _NO_ORIGIN or ref.facts.get("files") == 0:  # a source without files stands for "none"
            continue
        origins[digest] = {Origin("source", digest)} | _named_place(places, digest)
        if ref.kind == "Clip":
            origins[digest] |= _of_given_clip(catalog, ref)
    common = _common_inputs(catalog, made)
    for execution in executions:
        world = set()
        if not execution.inputs and "layout" in execution.config:
            world.add(world_origin(execution.config["layout"], execution.seed))
        for ref in execution.outputs:
            if ref.kind not in _NO_ORIGIN and ref.digest not in origins:
                used = set(execution.inputs.values())
                if ref.kind != "Clip":  # a clip stays where its first maker put it, whoever makes it again
                    used = common.get(ref.digest, used)
                reached = world.union(*(origins.get(digest, ()) for digest in used))
                own = {Origin("clip", ref.digest)} if ref.kind == "Clip" and not reached else set()
                gps = {Origin("gps", ref.digest)} if ref.kind == "Clip" and "gps.parquet" in ref.parts else set()
                origins[ref.digest] = reached | own | gps | _named_place(places, ref.digest)
    return origins


def _common_inputs(catalog: "Catalog", digests: set[str]) -> dict[str, set[str]]:
    """Return what all makers of an artifact used, for those that several executions made.

    The masks of two clips in which nothing moves are the same artifact; that says nothing of where either was filmed.
    """
    makers: dict[str, set[str]] = {}
    for digest, key in rows_in(catalog.log, "SELECT digest, key FROM edges WHERE direction = 'out' AND digest IN", digests):
        makers.setdefault(digest, set()).add(key)
    several = {digest: keys for digest, keys in makers.items() if len(keys) > 1}
    inputs: dict[str, set[str]] = {key: set() for keys in several.values() for key in keys}
    for key, digest in rows_in(catalog.log, "SELECT key, digest FROM edges WHERE direction = 'in' AND key IN", inputs):
        inputs[key].add(digest)
    return {digest: set.intersection(*(inputs[key] for key in keys)) for digest, keys in several.items()}


def _named_place(places: Mapping[str, Any], digest: str) -> set[Origin]:
    return {Origin("place", str(places[digest]))} if digest in places else set()


def world_origin(layout: Any, seed: Any) -> Origin:
    """Return the place that a procedural world is: its layout and seed draw the same street whatever the lens."""
    return Origin("world", f"{layout} seed {seed}")


def _of_given_clip(catalog: "Catalog", ref: ArtifactRef) -> set[Origin]:
    """Return world and GPS of a clip that no execution made."""
    provenance = provenance_of(catalog, ref)
    found = {Origin("gps", ref.digest)} if "gps.parquet" in ref.parts else set()
    if provenance.get("generator") == "worldline.worlds":
        found.add(world_origin(provenance.get("layout"), provenance.get("seed")))
    return found


def provenance_of(catalog: "Catalog", ref: ArtifactRef) -> dict[str, Any]:
    """Return how a clip says that its frames came to be, without decoding it."""
    meta = json.loads(_part(catalog, ref, "meta.json").read_text())
    return dict(meta["fields"].get("provenance") or {})


def _part(catalog: "Catalog", ref: ArtifactRef, name: str) -> Path:
    with contextlib.suppress(FileNotFoundError):
        if (path := catalog.objects.path(ref.parts[name])).is_file():
            return path
    raise WorldlineError(f"{ref.kind} {ref.digest[:12]} has lost its part {name}, which splits are made by: build it again")


class _Joined:
    """Sets of things that belong together, joined pair by pair (union-find with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[Any, Any] = {}

    def root(self, item: Any) -> Any:
        parent = self._parent
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, one: Any, other: Any) -> None:
        self._parent[self.root(one)] = self.root(other)


# -- leaks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leak:
    """Something that clips of different splits share.

    Attributes:
        why: "source", "clip", "world", "place", "position" or "frame".
        shared: what it is: a digest, a name, or how near.
        clips: split by clip, of all clips that share it.
    """

    why: str
    shared: str
    clips: dict[str, str]


def leaks(catalog: "Catalog", version: DatasetVersion, *, radius_m: float = 100.0, frames: bool = False) -> list[Leak]:
    """Look for what clips of different splits share, by other ways than the ones that made the splits.

    Sources and worlds are found through the edge index and in the clips' own provenance, positions by comparing every
    two clips, and near-duplicate first frames, where asked for, by a perceptual hash (about 10 ms per clip).
    """
    clips = _clips_by_role(catalog, version)
    above = _upstream_by_edges(catalog, {ref.digest for found in clips.values() for ref in found})
    places = {note.subject: note.body["place"] for note in catalog.log.notes("terms") if note.body.get("place")}
    reached_refs = artifact_refs(catalog.log, {digest for found in above.values() for digest in found})
    sharing: dict[tuple[str, str], set[str]] = {}
    positions = _positions(catalog, [ref for ref in reached_refs.values() if ref.kind == "Clip" and "gps.parquet" in ref.parts])
    tracks: dict[str, list[np.ndarray]] = {}
    for clip, starts in clips.items():
        for digest in set[str]().union(*(above[ref.digest] for ref in starts)):
            ref = reached_refs.get(digest)
            if ref is None:  # it was taken down
                continue
            if digest in places:
                sharing.setdefault(("place", str(places[digest])), set()).add(clip)
            if ref.kind == "Source" and ref.facts.get("files"):
                sharing.setdefault(("source", digest), set()).add(clip)
            if ref.kind == "Clip":
                sharing.setdefault(("clip", digest), set()).add(clip)
            if ref.kind == "Clip" and (world := _world_in_provenance(catalog, ref)):
                sharing.setdefault(("world", world), set()).add(clip)
            if digest in positions:
                tracks.setdefault(clip, []).append(positions[digest])
    found = [Leak(*what, {clip: version.splits[clip] for clip in sorted(shared)}) for what, shared in sorted(sharing.items())]
    found = [leak for leak in found if len(set(leak.clips.values())) > 1]
    found += _near_positions({clip: np.concatenate(points) for clip, points in tracks.items()}, version.splits, radius_m)
    return found + (_like_frames(catalog, clips, version.splits) if frames else [])


def _clips_by_role(catalog: "Catalog", version: DatasetVersion) -> dict[str, list[ArtifactRef]]:
    """Return the artifacts to trace by clip: its Clip where the version has it, else all of its artifacts."""
    refs = artifact_refs(catalog.log, version.artifacts.values())
    found: dict[str, list[ArtifactRef]] = {clip: [] for clip in version.splits}
    for role, digest in sorted(version.artifacts.items()):
        if clip_of(role) in found and digest in refs:
            found[clip_of(role)].append(refs[digest])
    return {clip: [ref for ref in members if ref.kind == "Clip"] or members for clip, members in found.items()}


def _upstream_by_edges(catalog: "Catalog", starts: set[str]) -> dict[str, set[str]]:
    """Return each artifact with all that lies upstream of it (weights and lineages aside), level by level in SQL."""
    makers: dict[str, set[str]] = {}
    level = set(starts)
    query = (
        "SELECT o.digest, o.key, i.digest FROM edges o JOIN edges i ON i.key = o.key AND i.direction = 'in' "
        "WHERE o.direction = 'out' AND o.digest IN"
    )
    while level:
        used: dict[str, dict[str, set[str]]] = {}
        for digest, key, above in rows_in(catalog.log, query, level):
            used.setdefault(digest, {}).setdefault(key, set()).add(above)
        # what several executions made, it has only from what all of them used
        makers |= {digest: set.intersection(*by_key.values()) for digest, by_key in used.items()}
        new = {above for digest in level for above in makers.get(digest, ())} - makers.keys() - level
        ignored = {digest for digest, ref in artifact_refs(catalog.log, new).items() if ref.kind in _NO_ORIGIN}
        for digest in level:
            makers[digest] = makers.get(digest, set()) - ignored
        level = new - ignored
    closure: dict[str, set[str]] = {}
    for start in starts:
        seen, stack = {start}, [start]
        while stack:
            for above in makers.get(stack.pop(), set()) - seen:
                seen.add(above)
                stack.append(above)
        closure[start] = seen
    return closure


def _world_in_provenance(catalog: "Catalog", ref: ArtifactRef) -> str | None:
    provenance = provenance_of(catalog, ref)
    if provenance.get("generator") != "worldline.worlds":
        return None
    return world_origin(provenance.get("layout"), provenance.get("seed")).name


def _near_positions(tracks: Mapping[str, np.ndarray], splits: Mapping[str, str], radius_m: float) -> list[Leak]:
    """Compare every two clips of different splits, fix by fix where their bounding boxes come near."""
    clips = sorted(clip for clip, points in tracks.items() if len(points))
    if not clips:
        return []
    low = np.stack([tracks[clip].min(axis=0) for clip in clips]) - radius_m
    high = np.stack([tracks[clip].max(axis=0) for clip in clips])
    found = []
    for index, clip in enumerate(clips):
        touching = np.all((low[index + 1 :] <= high[index]) & (low[index] <= high[index + 1 :]), axis=1)
        for other in (clips[index + 1 + offset] for offset in np.flatnonzero(touching)):
            if splits[clip] == splits[other]:
                continue
            nearest = min(
                float(np.sqrt(((tracks[other] - point) ** 2).sum(axis=1)).min()) for point in np.unique(tracks[clip], axis=0)
            )
            if nearest <= radius_m:
                found.append(Leak("position", f"{nearest:.0f} m apart", {clip: splits[clip], other: splits[other]}))
    return found


def _like_frames(catalog: "Catalog", clips: Mapping[str, Sequence[ArtifactRef]], splits: Mapping[str, str]) -> list[Leak]:
    """Compare the first frames of every two clips; nearly plain ones (a fade from black) say nothing and are left out."""
    hashes: dict[str, np.ndarray] = {}
    for clip, starts in sorted(clips.items()):
        for ref in (ref for ref in starts if ref.kind == "Clip"):
            artifact = catalog.load(ref.digest)
            assert isinstance(artifact, Clip)
            frame = next(iter(artifact.frames), None)
            if frame is not None and frame.std() >= _PLAIN_GREY_LEVELS:
                hashes[clip] = first_frame_hash(frame)
    found = []
    names, bits = list(hashes), np.array(list(hashes.values()))
    for index, clip in enumerate(names):
        apart = (bits[index + 1 :] != bits[index]).sum(axis=1)
        for offset in np.flatnonzero(apart <= _LIKE_BITS):
            other = names[index + 1 + offset]
            if splits[clip] != splits[other]:
                shared = f"first frames alike in {bits.shape[1] - apart[offset]} of {bits.shape[1]} bits"
                found.append(Leak("frame", shared, {clip: splits[clip], other: splits[other]}))
    return found


def first_frame_hash(frame: np.ndarray) -> np.ndarray:
    """Return 256 bits that stay through scaling, recompression and exposure: where the picture grows brighter to the right.

    Args:
        frame: RGB `[H, W, 3]` uint8.
    """
    grey = np.asarray(frame, float).mean(axis=2)
    rows, columns = (
        np.linspace(0, size, cells + 1).round().astype(int) for size, cells in zip(grey.shape, (16, 17), strict=True)
    )
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), columns[:-1], axis=1)
    means = sums / np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))
    return np.asarray(means[:, 1:] > means[:, :-1]).ravel()


# -- positions ------------------------------------------------------------------------------------------------------------


def _positions(catalog: "Catalog", clips: Iterable[ArtifactRef]) -> dict[str, np.ndarray]:
    """Return the positions of clips with satellite fixes, by digest."""

    def read(ref: ArtifactRef) -> np.ndarray:
        part = pq.ParquetFile(_part(catalog, ref, "gps.parquet"))
        table = part.read(columns=["latitude_deg", "longitude_deg"], use_threads=False)
        return on_the_globe(*(table.column(name).to_numpy() for name in ("latitude_deg", "longitude_deg")))

    with ThreadPoolExecutor(_READERS) as pool:  # a remote store answers several at once
        found = sorted(clips, key=lambda ref: ref.digest)
        return {ref.digest: points for ref, points in zip(found, pool.map(read, found), strict=True)}


def on_the_globe(latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> np.ndarray:
    """Return positions in metres from the Earth's centre `[N, 3]`; fixes without a position are left out.

    Straight distances between them are those on the ground for all that is near: 100 km are 1 m short.
    """
    latitude, longitude = np.radians(np.asarray(latitude_deg, float)), np.radians(np.asarray(longitude_deg, float))
    known = np.isfinite(latitude) & np.isfinite(longitude)
    latitude, longitude = latitude[known], longitude[known]
    flat = np.cos(latitude)
    return EARTH_RADIUS_M * np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=1)


def near_clips(positions: Mapping[str, np.ndarray], radius_m: float) -> Iterator[tuple[str, str]]:
    """Yield pairs that connect all clips which come within a radius of each other, not every such pair.

    Fixes are thinned, so that clips up to 1.2 radii apart may be connected; none within the radius is missed.

    Args:
        positions: metres `[N, 3]` by clip.
        radius_m: distance in metres.
    """
    joined = _Joined()
    fine: dict[tuple[int, ...], tuple[str, np.ndarray]] = {}
    coarse: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for clip, points in positions.items():
        cells = np.floor(points / (radius_m / _THINNED)).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        for index in first:
            cell, point = tuple(cells[index].tolist()), points[index]
            if cell in fine:  # at most a twelfth of the radius apart; the cell is compared once for all
                if joined.root(fine[cell][0]) != joined.root(clip):
                    joined.join(fine[cell][0], clip)
                    yield fine[cell][0], clip
                continue
            fine[cell] = (clip, point)
            coarse.setdefault(tuple(np.floor(point / (radius_m * _REACH)).astype(np.int64).tolist()), []).append(fine[cell])
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) >= (0, 0, 0)]
    for cell, here in coarse.items():
        for step in steps:
            there = coarse.get(tuple(at + by for at, by in zip(cell, step, strict=True)), [])
            if not there or len({joined.root(clip) for clip, _ in (*here, *there)}) < 2:
                continue
            for one, other in _near(here, there, radius_m * _REACH):
                if joined.root(one) != joined.root(other):
                    joined.join(one, other)
                    yield one, other


def _near(
    here: Sequence[tuple[str, np.ndarray]], there: Sequence[tuple[str, np.ndarray]], reach_m: float
) -> Iterable[tuple[str, str]]:
    ours, theirs = (np.stack([point for _, point in points]) for points in (here, there))
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=2))
    return {(here[one][0], there[other][0]) for one, other in np.argwhere(distances <= reach_m).tolist()}
