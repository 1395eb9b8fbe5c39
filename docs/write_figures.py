"""Write docs/figures.md: what the newest version of each given dataset measured of itself, and how long its stages took.

python docs/write_figures.py WORKSPACE DATASET [DATASET ...]
"""

import sys
from pathlib import Path
from typing import Any

from catalogs.catalog import Catalog
from catalogs.lineage import lineage_of

PAGE = Path(__file__).parent / "figures.md"
INTRODUCTION = """# Figures

What builds measured of themselves, written by `docs/write_figures.py` from a catalog (`make figures` for the demo).
`reconstruct.*` needs no truth. `pose.*` and `labels.*` compare with the truth of a procedural world or an annotated log,
which no other stage reads. Two CPU cores, no GPU; times are of one run and depend on what else the machine does.

The thresholds of the moving regions and object tracks, and the window length, were chosen while looking at PandaSet
scene 002 and the default street: their label figures are in-sample, and few windows stand behind them.

"""


def main() -> None:
    """Write the page."""
    catalog = Catalog.open(Path(sys.argv[1]))
    PAGE.write_text(INTRODUCTION + "\n".join(describe(catalog, name) for name in sys.argv[2:]))
    print(PAGE)


def describe(catalog: Catalog, name: str) -> str:
    """Return a dataset's section."""
    version = catalog.dataset(name)
    lines = [
        f"## {name}",
        "",
        f"`source={Path(version.recipe['source']).name}`",
        "",
        "| figure | value | unit | measured on |",
        "|---|---|---|---|",
    ]
    for role in ("fit_metrics", "pose_metrics", "label_metrics"):
        metrics: Any = catalog.load(version.artifacts[role])
        for row in metrics.figures.to_pylist():
            lines.append(f"| `{row['name']}` | {row['value']:.4g} | {row['unit']} | {row['detail']} |")
    lines += ["", "| stage | seconds | peak memory of the process, GB |", "|---|---|---|"]
    for node in lineage_of(catalog, version.artifacts["report"]).nodes.to_pylist():
        found = catalog.find(node["execution_key"])
        if found is not None:
            lines.append(f"| {found.stage} | {found.seconds:.1f} | {found.peak_memory_bytes / 1e9:.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
