"""Which files tell the poses of a clip: named by a person, or lying beside the frames."""

from pathlib import Path

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from worldline.camera_files import find_colmap

_MODEL_FILES = ("cameras.bin", "images.bin", "points3D.bin", "cameras.txt", "images.txt", "points3D.txt")
_TRAJECTORIES = ("poses.txt", "groundtruth.txt")


def find_pose_files(source: Path) -> Source:
    """Return the files that tell poses in a folder of frames, or `NAME.poses.txt` beside a video NAME (with or without suffix).

    Raises:
        WorldlineError: if there are none.
    """
    if source.is_dir():
        return describe_pose_files(source)
    for sidecar in (source.with_name(f"{source.name}.poses.txt"), source.with_name(f"{source.stem}.poses.txt")):
        if sidecar.is_file():
            return describe_pose_files(sidecar)
    beside = f", or put a TUM or KITTI trajectory there as {source.stem}.poses.txt" if source.exists() else ""
    raise WorldlineError(f"{source} has no poses beside it: give poses=FILE{beside}")


def describe_pose_files(path: Path | str) -> Source:
    """Return the files at a path that tell poses, and no others.

    A `.json` is "transforms" of nerfstudio, any other file a "trajectory" (TUM or KITTI). Of a folder is taken what comes
    first: `transforms.json`, a COLMAP model ("colmap": there, or in `sparse/0`, `sparse` or `colmap/sparse/0`), and a
    trajectory `poses.txt` or `groundtruth.txt`.

    Raises:
        WorldlineError: if there are none.
    """
    path = Path(path)
    if path.is_file():
        layout = "transforms" if path.suffix.lower() == ".json" else "trajectory"
        return Source(Files({path.name: path}), layout, path.name)
    if not path.is_dir():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as poses")
    if (path / "transforms.json").is_file():
        return describe_pose_files(path / "transforms.json")
    model = find_colmap(path)
    if model is not None:
        files = {name: model / name for name in _MODEL_FILES if (model / name).is_file()}
        return Source(Files(files), "colmap", path.resolve().name)
    for name in _TRAJECTORIES:
        if (path / name).is_file():
            return describe_pose_files(path / name)
    raise WorldlineError(
        f"{path} tells no poses: give poses=FILE or put beside the frames a transforms.json, a COLMAP model in sparse/0, or a "
        "TUM or KITTI trajectory called poses.txt"
    )
