"""What tests of label exports share: the published street, and each of its exports, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from exported_street import write

from benchmarks.labels_street import publish_street
from catalogs.catalog import Catalog


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return publish_street(tmp_path_factory.mktemp("street") / "home")


@pytest.fixture(scope="session")
def exported(street: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of an export by its format."""
    made: dict[str, Path] = {}

    def folder(form: str) -> Path:
        if form not in made:
            made[form] = tmp_path_factory.mktemp("exports") / form
            write(street, form, made[form])
        return made[form]

    return folder
