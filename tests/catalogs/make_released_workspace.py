"""Write a small workspace with one record of every kind, to be kept as what a released version left on disk.

    python tests/catalogs/make_released_workspace.py tests/catalogs/released/log-4

Run it with the code of the version that is released, once, before the log's version is raised; the test of
migrations opens a copy of every folder under `released/` with the code of today.
"""

import sqlite3
import sys
from pathlib import Path

from catalog_workers import figures, key_of, make, put, run_of

from catalogs.catalog import Catalog
from catalogs.governance import give_terms
from catalogs.versions import publish, tag


def main(home: Path) -> None:
    catalog = Catalog.open(home)
    source = catalog.adopt(put(catalog, figures(1)))
    first = make(catalog, "first", 2, {"source": source.digest})
    second = make(catalog, "second", 3, {"figures": first.outputs[0].digest}, stage="toy.refine")
    catalog.log.compact(minimum=1)
    error = {"status": "error", "error_type": "OSError", "error_message": "the disk is gone"}
    catalog.record(run_of(key_of("failed"), "toy.make", (), **error))
    make(catalog, "second", 4, {"figures": first.outputs[0].digest}, stage="toy.refine")  # other bytes under the same key
    publish(catalog, "released", {"name": "released", "iterations": 800}, {"figures": second.outputs[0].digest}, {"numpy": "2.0"})
    tag(catalog, "released@1", "paper", author="somebody")
    give_terms(catalog, source.digest, licence="CC-BY-4.0", place="Main Street")
    with sqlite3.connect(home / "catalog.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
