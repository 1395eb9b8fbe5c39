"""Start the command line, after a look at whether our packages are really ours.

`schemas`, `stages`, `catalogs`, `tasks` and `flows` are ordinary words: another package or a folder of that name that
comes earlier on the path would shadow ours and fail in confusing ways.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

_OURS = ("schemas", "stages", "catalogs", "tasks", "flows", "conf")


def misplaced_packages() -> dict[str, str | None]:
    """Return `{package: where it was found}` for each of our packages that is not beside this one; None is nowhere."""
    home = Path(__file__).resolve().parent.parent
    found: dict[str, str | None] = {}
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            found[name] = str(origin.parent) if origin else None
    return found


def main() -> int:
    """Run the command line and return its exit status."""
    for name, place in misplaced_packages().items():
        if place is None:
            print(f"worldline: its package {name!r} is missing: install Worldline again", file=sys.stderr)
        else:
            print(
                f"worldline: another package called {name!r} ({place}) hides Worldline's own: "
                "start from another folder, or remove it from PYTHONPATH",
                file=sys.stderr,
            )
        return 1
    # By name, so that the numerical library does not depend on the floors above it.
    return importlib.import_module("flows.command_line").main()


if __name__ == "__main__":
    sys.exit(main())
