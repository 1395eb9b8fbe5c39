"""The command `bench`: measure the engine on this machine."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from flows.printing import Add, print_table
from schemas.errors import WorldlineError


def add_commands(add: Add) -> None:
    """Add this command to the command line."""
    text = "measure the engine on this machine; finished cases are kept, so run it again to go on"
    parser = add("bench", _bench, text, prints_json=False)
    parser.add_argument("bench", metavar="NAME", help="such as catalog")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", default="", metavar="ID_PREFIX", help="only the cases of these figures, such as catalog.noop")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where to work (default ./worldline-bench/NAME)")


def _bench(options: argparse.Namespace) -> None:
    harness = _find_harness()
    folder = (options.folder or Path("worldline-bench") / options.bench).expanduser().absolute()
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise WorldlineError(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
    document = harness.run_bench(
        options.bench,
        folder,
        quick=options.quick,
        only=options.only,
        fresh=options.fresh,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    columns = ("id", "value", "unit", "compared_with", "detail")
    print_table(columns, [[row[name] for name in columns] for row in document["figures"]])
    failed = [case["case"] for case in document["cases"] if case["failed"]]
    if failed:
        raise WorldlineError(f"{len(failed)} of {len(document['cases'])} cases failed ({', '.join(failed)}): run again to retry")


def _find_harness() -> Any:
    """Return the module that runs benches; they are part of a checkout, not of an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "harness.py").is_file():
        raise WorldlineError("the benches are not part of an installed Worldline: run worldline bench from a git checkout")
    if sys.path[0] != str(root):
        sys.path.insert(0, str(root))  # first, because other packages are called benchmarks too
    return importlib.import_module("benchmarks.harness")
