"""Commands about dataset versions: `diff`, `tag`, `untag`, `delete`, `splits`."""

import argparse
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.printing import Add, open_catalog, print_json, print_table
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.differences import Change, Difference

_SHOWN = 20  # rows of each table of a comparison; --json and --all have them all


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    parser = add("diff", _diff, "compare two dataset versions and say what explains the difference")
    parser.add_argument("a", metavar="A", help="NAME, NAME@V or NAME@TAG")
    parser.add_argument("b", metavar="B", help="the same of the other version")
    parser.add_argument("--all", action="store_true", help=f"every row of every table, not the first {_SHOWN}")
    parser = add("tag", _tag, "give a dataset version one more name, NAME@TAG")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("tag", metavar="TAG")
    _add_author(parser)
    parser = add("untag", _untag, "take a tag away")
    parser.add_argument("dataset", metavar="NAME@TAG")
    _add_author(parser)
    parser = add("delete", _delete, "delete a dataset version; gc then frees what no other version uses")
    parser.add_argument("dataset", metavar="NAME@V")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays on record")
    _add_author(parser)
    parser = add("splits", _splits, "show how a version's clips are split, and check that nothing leaks between the splits")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("--frames", action="store_true", help="compare the clips' first frames too (decodes every clip)")


def _add_author(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--author", metavar="WHO", default=os.environ.get("USER"), help="who says so (default $USER)")


def _diff(options: argparse.Namespace) -> None:
    from catalogs.differences import difference

    found = difference(open_catalog(options), options.a, options.b)
    if options.json:
        print_json(dataclasses.asdict(found))
        return
    _Comparison(found, None if options.all else _SHOWN).show()


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Prints what differs between two versions, and nothing that is equal."""

    found: "Difference"
    limit: int | None

    def show(self) -> None:
        """Print the whole comparison."""
        found = self.found
        counts = Counter(role.change for role in found.roles)
        told = {
            "same": "the same",
            "different": "different",
            "only in a": f"only in {found.a}",
            "only in b": f"only in {found.b}",
        }
        artifacts = ", ".join(f"{counts[change]} {text}" for change, text in told.items() if counts[change]) or "none"
        print(f"{found.a} -> {found.b}")
        print(f"artifacts  {artifacts}")
        changed = [role for role in found.roles if role.change != "same"]
        rows = [[role.role, role.kind, _short(role.a), _short(role.b)] for role in changed]
        self._table("artifacts that differ", "role", ["role", "kind"], rows)
        tables = [[table, a, b, f"{b - a:+d}"] for table, (a, b) in found.rows.items() if a != b]
        self._table("rows", "table", ["table"], tables, ["change"])
        moved = sorted((item for item in found.labels if item.a != item.b), key=lambda item: -abs(item.b - item.a))
        labels = [[item.kind, item.answer, item.a, item.b, f"{item.b - item.a:+d}"] for item in moved]
        distance = f"labels (total variation {found.label_distance:.3f}, 0 equal to 1 nothing in common)"
        self._table(distance, "kind and answer", ["kind", "answer"], labels, ["change"])
        figures = [[item.name, item.a, item.b, _change(item.a, item.b), item.unit] for item in found.figures if item.a != item.b]
        self._table("figures", "figure", ["figure"], figures, ["change", "unit"])
        for title, what, changes in (
            ("settings of the recipe", "setting", found.settings),
            ("sources", "source", found.sources),
            ("stages", "stage", found.stages),
            ("code", "file", found.code_files),
            ("packages", "package", found.packages),
            ("splits", "clip", found.splits),
            ("rejected by people", "question or artifact", found.rejected),
        ):
            self._table(title, what, [what], _texts(what, changes))

    def _table(self, title: str, what: str, columns: list[str], rows: Sequence[Sequence[Any]], last: Sequence[str] = ()) -> None:
        if not rows:
            return
        print(f"\n{title}")
        print_table([*columns, self.found.a, self.found.b, *last], rows[: self.limit])
        if self.limit is not None and len(rows) > self.limit:
            print(f"and {len(rows) - self.limit} more {what} rows: see --all or --json")


def _texts(what: str, changes: Sequence["Change"]) -> list[list[str]]:
    cut = 16 if what in ("source", "question or artifact") else None
    return [[item.name[:cut], "-" if item.a is None else item.a, "-" if item.b is None else item.b] for item in changes]


def _short(digest: str | None) -> str:
    return "-" if digest is None else digest[:12]


def _change(a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return ""
    return f"{b - a:+.4g}" + (f" ({100 * (b - a) / abs(a):+.1f} %)" if a else "")


def _tag(options: argparse.Namespace) -> None:
    from catalogs.versions import tag

    version = tag(open_catalog(options), options.dataset, options.tag, author=options.author)
    _say(options, {"tag": f"{version.name}@{options.tag}", "names": version.reference})


def _untag(options: argparse.Namespace) -> None:
    from catalogs.versions import untag

    version = untag(open_catalog(options), options.dataset, author=options.author)
    _say(options, {"removed": options.dataset, "named": version.reference})


def _delete(options: argparse.Namespace) -> None:
    from catalogs.versions import delete

    version = delete(open_catalog(options), options.dataset, options.reason, options.author or "unknown")
    _say(options, {"deleted": version.reference, "reason": options.reason})


def _say(options: argparse.Namespace, said: dict[str, str]) -> None:
    if options.json:
        print_json(said)
    else:
        print("  ".join(f"{what} {text}" for what, text in said.items()))


def _splits(options: argparse.Namespace) -> None:
    from catalogs.splits import SPLITS, SplitRule, leaks

    catalog = open_catalog(options)
    version = catalog.dataset(options.dataset)
    radius_m = float((version.recipe.get("splits") or {}).get("radius_m") or SplitRule().radius_m)
    found = leaks(catalog, version, radius_m=radius_m, frames=options.frames)
    if options.json:
        print_json(
            {"dataset": version.reference, "splits": version.splits, "leaks": [dataclasses.asdict(leak) for leak in found]}
        )
    else:
        counts = Counter(version.splits.values())
        total = sum(counts.values())
        print(f"{version.reference}  {total} clips")
        print_table(["split", "clips", "share %"], [[name, counts[name], 100 * counts[name] / max(total, 1)] for name in SPLITS])
        if total <= 100:
            print_table(["clip", "split"], [[clip or "(the only one)", name] for clip, name in version.splits.items()])
        looked = f"sources, worlds, named places, positions within {radius_m:g} m{', first frames' if options.frames else ''}"
        print(f"looked for clips of different splits that share {looked}: {len(found) or 'nothing'} found")
        if found:
            rows = [[leak.why, leak.shared[:40], _clips(leak.clips)] for leak in found]
            print_table(["shared", "what", "clips"], rows[:_SHOWN])
    if found:
        raise WorldlineError(
            f"{len(found)} things are shared by clips of different splits of {version.reference}: build it again, "
            "because splits are made when a version is published"
        )


def _clips(clips: dict[str, str]) -> str:
    named = [f"{clip} ({name})" for clip, name in clips.items()]
    return ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
