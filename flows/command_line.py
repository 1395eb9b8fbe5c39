"""The command line: `worldline COMMAND ...`.

Every command that reads prints a table for people and, with `--json`, one JSON document for programs. Exit status: 0
done, 1 the work failed (one sentence on stderr), 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from flows.commands import answering, asking, auditing, benching, building, governance, tracing, upkeep, versions, viewing
from schemas.errors import WorldlineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(item.startswith("-") for item in rest)):
        parser.error(f"unknown: {' '.join(rest)}")
    if rest:  # settings after an option, which argparse does not join to those before it
        options.overrides += rest
    try:
        options.command(options)
    except WorldlineError as error:
        if options.debug:
            raise
        print(f"worldline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "worldline: interrupted; finished stages are kept and a reconstruction goes on from its last checkpoint: "
            "run the same command again",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the reader of our pipe has gone)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"worldline: {message}; see worldline --help\n")


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    shared.add_argument("--home", type=Path, default=None, help="workspace (default $WORLDLINE_HOME or ./worldline-data)")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    printing = _Parser(add_help=False)
    printing.add_argument("--json", action="store_true", help="print one JSON document")
    parser = _Parser(prog="worldline", description="A 4D data engine: from video to versioned 4D datasets.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], None], text: str, *, prints_json: bool = True
    ) -> argparse.ArgumentParser:
        parents = [shared, printing] if prints_json else [shared]
        sub = commands.add_parser(name, parents=parents, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    for commands_of in (building, asking, auditing, viewing, versions, tracing, upkeep, governance, answering, benching):
        commands_of.add_commands(add)
    return parser
