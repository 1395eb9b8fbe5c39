"""What a path holds as a driving log: which layout it is, which files its reader needs, and with what settings."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from stages.ingest.pandaset_log import CAMERA
from stages.ingest.source import describe_source

LAYOUTS = "a PandaSet scene (camera/front_camera with poses.json)"


def describe_driving_log(path: Path | str) -> tuple[str, Source, Mapping[str, Any]]:
    """Return which stage reads the log at a path, the source to give it, and settings of the stage that the path decides.

    Raises:
        WorldlineError: if there is nothing at the path, or its layout is none that is known.
    """
    path = Path(path)
    if not path.exists():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as source")
    if (path / "camera" / CAMERA / "poses.json").is_file():
        return "ingest.pandaset_log", _pandaset(path), {}
    raise WorldlineError(f"{path} is no driving log that Worldline knows: give {LAYOUTS}")


def _pandaset(path: Path) -> Source:
    source = describe_source(path, camera=CAMERA)
    sweeps = sorted(item for item in (path / "lidar").glob("*.npz") if item.stem.isdecimal())
    return replace(source, files=Files({**source.files, **{f"lidar/{item.name}": item for item in sweeps}}))
