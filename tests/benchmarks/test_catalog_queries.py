"""The workspace that questions are timed in holds what its figures say."""

from pathlib import Path
from typing import Any

from benchmarks.catalog_queries import generated_workspace
from catalogs.catalog import Catalog
from catalogs.lineage import lineage_of


def test_the_generated_workspace_has_the_labels_versions_and_lineage_that_are_asked_for(tmp_path: Path) -> None:
    home, names = generated_workspace(tmp_path, rows=2000, artifacts=20)
    catalog = Catalog.open(home)

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in catalog.sql(sql).to_pylist()]

    counts = "SELECT dataset, version, count(*), count(DISTINCT artifact) FROM labels GROUP BY ALL ORDER BY ALL"
    assert rows(counts) == [("nightly", 1, 1800, 18), ("nightly", 2, 2000, 20), ("sample", 1, 300, 3)]
    assert rows(f"SELECT count(*) FROM labels WHERE question_id = '{names['label']}'") == [(2,)]  # in both versions
    assert lineage_of(catalog, names["label"]).nodes.column("stage").to_pylist() == ["ingest.cut", "label.ask"]
    assert len(rows(names["top"])) == 10
    assert sum(count for _, count, _ in rows(names["time_travel"])) == 1800
    assert generated_workspace(tmp_path, rows=2000, artifacts=20) == (home, names)  # used again
