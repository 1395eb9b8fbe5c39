"""What a path holds as a driving log: which layout it is, which files its reader needs, and with what settings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from stages.ingest import drivestudio, pandaset_log, plain_log
from stages.ingest.source import describe_source, is_image, natural_order
from stages.pose.pose_files import describe_pose_files

LAYOUTS = (
    "a PandaSet scene (camera/front_camera with poses.json), a scene processed by drivestudio (images, intrinsics, extrinsics)"
)


def describe_driving_log(path: Path | str) -> tuple[str, Source, Mapping[str, Any]]:
    """Return which stage reads the log at a path, the source to give it, and settings of the stage that the path decides.

    Raises:
        WorldlineError: if there is nothing at the path, or its layout is none that is known.
    """
    path = Path(path)
    if not path.exists():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as source")
    for recognise in (_pandaset, _drivestudio, _plain):
        found = recognise(path)
        if found is not None:
            return found
    raise WorldlineError(f"{path} is no driving log that Worldline knows: give {LAYOUTS}")


_Found = tuple[str, Source, Mapping[str, Any]] | None


def _pandaset(path: Path) -> _Found:
    if not (path / "camera" / pandaset_log.CAMERA / "poses.json").is_file():
        return None
    source = describe_source(path, camera=pandaset_log.CAMERA)
    sweeps = sorted(item for item in (path / "lidar").glob("*.npz") if item.stem.isdecimal())
    files = Files({**source.files, **{f"lidar/{item.name}": item for item in sweeps}})
    return "ingest.pandaset_log", replace(source, files=files), {}


def _drivestudio(path: Path) -> _Found:
    if not all((path / name).is_dir() for name in ("images", "intrinsics", "extrinsics")):
        return None
    folders = ("images", "intrinsics", "extrinsics", "ego_pose", "lidar", "lidar_pose")
    wanted = [drivestudio.INSTANCES, drivestudio.OWN_FILE, drivestudio.MAP_FILE]
    files = _files(path, wanted, (item for folder in folders for item in (path / folder).glob("*")))
    return "ingest.drivestudio", Source(files, "drivestudio", path.resolve().name), {}


def _plain(path: Path) -> _Found:
    """Return a folder of images that has poses, boxes or a map beside them."""
    folder = next((item for item in (path / "images", path) if item.is_dir() and any(map(is_image, item.iterdir()))), None)
    beside = [name for name in (*plain_log.BOX_FILES, plain_log.MAP_FILE) if (path / name).is_file()]
    if folder is None:
        return None
    try:
        poses = describe_pose_files(path)
    except WorldlineError:
        if beside:
            raise
        return None
    images = describe_source(folder).files
    sweeps = [item for item in (path / "lidar").glob("*") if item.suffix in (".npz", ".bin")]
    files = {f"{plain_log.FRAMES}/{name}": item for name, item in images.items()}
    files |= {f"{plain_log.POSES}/{name}": item for name, item in poses.files.items()}
    files |= _files(path, beside, iter(sweeps))
    return "ingest.plain_log", Source(Files(files), "plain_log", path.resolve().name), {}


def _files(path: Path, names: Iterable[str], found: Iterator[Path]) -> Files:
    """Return those of some names that there are, and what was found, hidden files left out, by their names below a path."""
    there = [item.relative_to(path).as_posix() for item in found if item.is_file() and not item.name.startswith(".")]
    return Files({name: path / name for name in natural_order([*(n for n in names if (path / n).is_file()), *there])})
