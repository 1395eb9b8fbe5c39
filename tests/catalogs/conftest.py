import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from catalogs.catalog import Catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(tmp_path / "home")


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["catalog_workers"])
    return context
