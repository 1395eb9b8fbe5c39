"""Commands that look after a workspace: `verify`, `repair`, `gc`."""

import argparse
from collections import Counter
from dataclasses import asdict

from flows.printing import Add, open_catalog, print_json, print_table, show_rows, workspace
from schemas.errors import WorldlineError


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    parser = add("verify", _verify, "read every byte again and name what is damaged or missing")
    parser.add_argument("dataset", nargs="?", metavar="NAME[@V]", help="only the objects that this dataset version needs")
    add("repair", _repair, "heal what verify finds; what can only be built again is removed, so that the next build makes it")
    parser = add("gc", _gc, "list what nothing needs; remove it with --yes")
    parser.add_argument("--yes", action="store_true", help="remove it")
    parser.add_argument("--grace-days", type=float, default=7.0, help="keep what was recorded later than this ago (default 7)")


def _verify(options: argparse.Namespace) -> None:
    from catalogs.upkeep import verify

    found = verify(open_catalog(options), options.dataset)
    rows = [[item.kind, item.name, item.state, item.of, item.remedy] for item in found]
    show_rows(options, ["kind", "name", "state", "of", "remedy"], rows)
    if found:
        raise WorldlineError(f"{_counted([item.kind for item in found])} damaged or missing: run `worldline repair`")


def _repair(options: argparse.Namespace) -> None:
    from catalogs.repair import repair
    from catalogs.upkeep import heal

    home = workspace(options)
    if not home.is_dir():
        raise WorldlineError(f"there is no workspace at {home}: name one with --home")
    done = repair(home)  # of the log, without which the workspace cannot be opened
    healed = heal(open_catalog(options))
    if options.json:
        print_json({"log": done, "files": [{**asdict(finding), "done": what} for finding, what in healed]})
        return
    for sentence in done:
        print(sentence)
    print_table(["kind", "name", "was", "of", "done"], [[f.kind, f.name, f.state, f.of, what] for f, what in healed])


def _gc(options: argparse.Namespace) -> None:
    from catalogs.garbage import collect_garbage

    if options.grace_days < 0:
        raise WorldlineError(f"--grace-days {options.grace_days:g} must not be negative")
    found = collect_garbage(open_catalog(options), dry_run=not options.yes, grace_seconds=options.grace_days * 86_400)
    if options.json:
        print_json({"removed": options.yes, "building": found.building, "garbage": [asdict(item) for item in found.garbage]})
        return
    sizes: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for item in found.garbage:
        sizes[item.kind, item.reason] += item.bytes
        counts[item.kind, item.reason] += 1
    rows = [[*key, counts[key], f"{sizes[key] / 1e6:.2f}" if sizes[key] else ""] for key in sorted(counts)]
    print_table(["kind", "reason", "count", "MB"], rows)
    print(f"{'removed' if options.yes else 'would remove'} {sum(sizes.values()) / 1e6:.2f} MB")
    if found.building:
        print("something builds in this workspace: nothing that is recorded goes; run this again when it is done")


def _counted(kinds: list[str]) -> str:
    counts = Counter(kinds)
    return ", ".join(f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}" for kind in sorted(counts))
