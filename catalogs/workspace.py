"""A workspace: the folder `home`, and what an optional `home/worldline.toml` says about where its bytes and log live.

    log = "postgresql://me@db.example/worldline"    # default: SQLite in the folder, for one host
    store = "s3://bucket/worldline"                 # default: the folder

    [store_options]                                 # passed to obstore: endpoint, region, allow_http ...
    region = "eu-central-1"

Secrets come from the environment (PGPASSWORD, AWS_SECRET_ACCESS_KEY ...), never from the file, so that it can be
shared. The folder itself always exists: scratch folders, checkpoints and copies of remote files lie there.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import WorldlineError

SETTINGS_FILE = "worldline.toml"
_STORE_SCHEMES = ("s3", "gs", "gcs", "az", "azure", "abfs", "abfss", "file")
_NETWORK_FILE_SYSTEMS = (
    *(
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "orangefs",
        "ocfs2",
        "gfs2",
    ),
    *("sshfs", "s3fs", "gcsfuse", "goofys", "rclone", "blobfuse", "blobfuse2", "davfs", "juicefs", "mount-s3", "s3backer"),
)
# No journal and no rename that replaces a file in one step (FAT), or a file server's guess at both (shared folders).
_LOOSE_FILE_SYSTEMS = ("vfat", "msdos", "exfat", "vboxsf", "prl_fs", "drvfs")


@dataclass(frozen=True)
class Settings:
    """Where a workspace keeps its log and its bytes.

    Attributes:
        log: URL of a Postgres database, or None for SQLite in the folder.
        store: URL of an object store, or None for the folder.
        store_options: given to the object store's client.
    """

    log: str | None = None
    store: str | None = None
    store_options: Mapping[str, str] = field(default_factory=dict)


def default_home() -> Path:
    """Return the workspace of this environment: $WORLDLINE_HOME, or `worldline-data` in the current folder."""
    return Path(os.environ.get("WORLDLINE_HOME") or "worldline-data")


def read_settings(home: Path) -> Settings:
    """Read the settings file of a workspace; without one everything lies in the folder.

    Raises:
        WorldlineError: if the file cannot be read, or a key or value in it is not known.
    """
    path = home / SETTINGS_FILE
    try:
        given = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorldlineError(f"{path} is not TOML ({error}): correct it") from error
    unknown = sorted(set(given) - {"log", "store", "store_options"})
    if unknown:
        raise WorldlineError(f"{path} has the unknown key {unknown[0]}: the keys are log, store and the table store_options")
    for key in ("log", "store"):
        if not isinstance(given.get(key, ""), str):
            raise WorldlineError(f"{path}: {key} must be a URL in quotes, not {given[key]!r}")
    options = given.get("store_options", {})
    if not isinstance(options, dict) or not all(isinstance(value, str | bool | int) for value in options.values()):
        raise WorldlineError(f"{path}: store_options must be a table of strings, such as region = 'eu-central-1'")
    plain = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}
    settings = Settings(given.get("log") or None, given.get("store") or None, plain)
    _check_urls(path, settings)
    return settings


def _check_urls(path: Path, settings: Settings) -> None:
    if settings.log is not None:
        try:
            url = urlsplit(settings.log)
            fits, secret = url.scheme in ("postgresql", "postgres") and url.path.strip("/"), url.password
        except ValueError:
            fits, secret = "", None
        if not fits:
            raise WorldlineError(f"{path}: log = {settings.log!r} must look like postgresql://user@host/database")
        if secret:
            raise WorldlineError(f"{path}: take the password out of log and set PGPASSWORD in the environment instead")
    if settings.store is not None:
        if urlsplit(settings.store).scheme not in _STORE_SCHEMES:
            raise WorldlineError(f"{path}: store = {settings.store!r} must look like s3://bucket/prefix, gs://... or az://...")
        if settings.log is None:
            raise WorldlineError(
                f"{path}: store = {settings.store!r} can be reached from several hosts and SQLite cannot: give "
                "log = 'postgresql://user@host/database' with it"
            )


def check_file_system(home: Path, mounts: str | None = None) -> None:
    """Refuse a folder for the SQLite log where locks or renames do not hold.

    Args:
        home: an absolute path.
        mounts: text of /proc/self/mountinfo, read from there by default (nothing is refused where it is missing).

    Raises:
        WorldlineError: if the folder lies on a network file system, or one without atomic renames.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return
    best, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split(" ")[4].encode().decode("unicode_escape")  # spaces are written \040
        if home.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, rest.split(" ")[0]
    name = kind.removeprefix("fuse.")
    if name in _NETWORK_FILE_SYSTEMS:
        raise WorldlineError(
            f"{home} lies on a network file system ({kind}), where the catalog's SQLite log can lose data: choose a folder on a "
            f"local disk with --home, or keep the log in Postgres (log = 'postgresql://user@host/database' in {SETTINGS_FILE})"
        )
    if name in _LOOSE_FILE_SYSTEMS:
        raise WorldlineError(
            f"{home} lies on a file system that cannot replace a file in one step ({kind}), so that a crash could damage the "
            "catalog: choose a folder on a local disk such as ext4, xfs or apfs with --home"
        )
