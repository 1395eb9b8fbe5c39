"""Figures, lineage and reports: what people read."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from schemas.artifact import Artifact, Files

FIGURES = pa.schema(
    [
        ("name", pa.string()),  # stable id, dotted
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("detail", pa.string()),  # what it was measured on and against
    ]
)

LINEAGE_NODES = pa.schema(
    [
        ("execution_key", pa.string()),
        ("stage", pa.string()),
        ("version", pa.int32()),
        ("config", pa.string()),  # canonical JSON
        ("seed", pa.int64()),
    ]
)
LINEAGE_EDGES = pa.schema(
    [
        ("execution_key", pa.string()),
        ("slot", pa.string()),  # parameter or output name
        ("direction", pa.string()),  # "in" or "out"
        ("kind", pa.string()),
        ("digest", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Metrics(Artifact):
    """Measured figures.

    Attributes:
        figures: `FIGURES`, sorted by name.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"figures": FIGURES}
    figures: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {row["name"]: row["value"] for row in self.figures.to_pylist()}


@dataclass(frozen=True, eq=False)
class Lineage(Artifact):
    """The executions that a set of artifacts came from, and the artifacts between them.

    Attributes:
        nodes: `LINEAGE_NODES`.  edges: `LINEAGE_EDGES`.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"nodes": LINEAGE_NODES, "edges": LINEAGE_EDGES}
    nodes: pa.Table
    edges: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return the number of executions."""
        return {"executions": self.nodes.num_rows}


@dataclass(frozen=True, eq=False)
class Report(Artifact):
    """A page for people.

    Attributes:
        files: "report.html", self-contained.
    """

    level: ClassVar[int] = 1
    files: Files

    def facts(self) -> dict[str, Any]:
        """Return the size of the page."""
        return {"bytes": self.files["report.html"].stat().st_size}
