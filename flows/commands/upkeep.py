"""Commands that look after a workspace: `verify`, `gc`."""

import argparse

from flows.printing import Add, open_catalog, show_rows
from schemas.errors import WorldlineError


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    parser = add("verify", _verify, "hash every object again and name what is damaged or missing")
    parser.add_argument("dataset", nargs="?", metavar="NAME[@V]")
    parser = add("gc", _gc, "list the objects that nothing needs; remove them with --yes")
    parser.add_argument("--yes", action="store_true", help="remove them")
    parser.add_argument("--grace-days", type=float, default=7.0, help="keep what was touched later than this ago (default 7)")


def _verify(options: argparse.Namespace) -> None:
    from catalogs.upkeep import verify

    bad = verify(open_catalog(options), options.dataset)
    show_rows(options, ["object", "found"], bad)
    if bad:
        raise WorldlineError(f"{len(bad)} objects are damaged or missing: delete the damaged ones and build again")


def _gc(options: argparse.Namespace) -> None:
    from catalogs.upkeep import collect_garbage

    gone = collect_garbage(open_catalog(options), dry_run=not options.yes, grace_seconds=options.grace_days * 86400)
    show_rows(options, ["object", "bytes"], gone)
    if not options.json:
        size = sum(count for _, count in gone) / 1e6
        print(f"{'removed' if options.yes else 'would remove'} {len(gone)} objects, {size:.1f} MB")
