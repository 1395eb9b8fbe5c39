"""Write docs/benchmarks.md: the figures of one or more files of `worldline bench NAME --json FILE`.

python docs/write_benchmarks.py FILE [FILE ...]

Figures that none of the files holds stay as they are, under when and how they were measured.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "benchmarks.md"
INTRODUCTION = """# Benchmarks

What `worldline bench` measured, written by `docs/write_benchmarks.py` (`make bench`): raw values without verdicts, each
beside a peer in the same run or the limit that was asked for. A figure without a value failed, and says how. The load is
the number of processes that wanted to run when a case began, itself not counted: above 0.5 something else was using the
machine, and times are too long.

"""


def main() -> None:
    """Write the page."""
    documents = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    if not documents:
        sys.exit("name the files that worldline bench --json wrote")
    PAGE.write_text(write_page(documents, PAGE.read_text() if PAGE.exists() else ""))
    print(PAGE)


def write_page(documents: Sequence[dict[str, Any]], before: str = "") -> str:
    """Return the page for the documents of some benches; figures that none of them measured stay as on the page `before`."""
    measured = {row["id"] for document in documents for row in document["figures"]}
    kept = [_without(part, measured) for part in ("\n" + before).split("\n## ")[1:]]
    sections = [f"## {part.rstrip()}\n" for part in kept if part] + [describe(document) for document in _joined(documents)]
    return INTRODUCTION + "\n".join(sections)


def _without(section: str, measured: set[str]) -> str:
    """Return a section without the rows of figures that were measured again; "" if it has no others."""
    lines = [line for line in section.split("\n") if not (line.startswith("| `") and line.split("`")[1] in measured)]
    return "\n".join(lines) if any(line.startswith("| `") for line in lines) else ""


def _joined(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the files of runs with `--only` that measured parts of the same bench on the same machine at the same size."""
    joined: dict[str, dict[str, Any]] = {}
    for document in documents:
        same = json.dumps([document["bench"], document["quick"], document["machine"]], sort_keys=True)
        if same in joined:
            joined[same] |= {part: joined[same][part] + document[part] for part in ("cases", "figures")}
        else:
            joined[same] = document
    return list(joined.values())


def describe(document: dict[str, Any]) -> str:
    """Return a bench's section."""
    machine, cases = document["machine"], document["cases"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    size = "quick (small sizes)" if document["quick"] else "full"
    seconds, loads = sum(case["seconds"] for case in cases), [case["load"] for case in cases]
    began = time.strftime("%Y-%m-%d", time.gmtime(min((case["measured_at"] for case in cases), default=0.0)))
    commits = sorted({case["commit"][:12] + "+" * case["commit"].endswith("+") for case in cases})
    lines = [
        f"## {document['bench']}",
        "",
        f"{began}, commit {', '.join(commits)}, {size} run of {seconds / 60:.0f} min, load {min(loads):.1f} to {max(loads):.1f}. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['file_system']}, "
        f"{machine['system']}, Python {machine['python']}, {packages}.",
        "",
        "| figure | value | unit | compared with | detail |",
        "|---|---|---|---|---|",
    ]
    for row in document["figures"]:
        value = "-" if row["value"] is None else f"{row['value']:.4g}" if abs(row["value"]) < 1e4 else f"{row['value']:.0f}"
        cells = (f"`{row['id']}`", value, row["unit"], row["compared_with"], row["detail"])
        lines.append(f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
