"""What a path holds as a driving log: which layout it is, which files its reader needs, and with what settings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from stages.ingest import drivestudio, kitti_log, nuscenes, nuscenes_log, pandaset_log, plain_log
from stages.ingest.source import describe_source, is_image, natural_order
from stages.pose.pose_files import describe_pose_files

LAYOUTS = (
    "a PandaSet scene (camera/front_camera with poses.json), a scene processed by drivestudio (images, intrinsics, extrinsics)"
)


def describe_driving_log(path: Path | str, *, part: str = "", camera: str = "") -> tuple[str, Source, Mapping[str, Any]]:
    """Return which stage reads the log at a path, the source to give it, and settings of the stage that the path decides.

    Args:
        path: folder of one log, or of a data set that holds several.
        part: which of several: a scene of nuScenes, a sequence of KITTI; "" takes the first.
        camera: which of several: a channel of nuScenes, a number in drivestudio's layout; "" takes the front one.

    Raises:
        WorldlineError: if there is nothing at the path, its layout is none that is known, or it has no such part or camera.
    """
    path = Path(path)
    if not path.exists():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as source")
    for recognise in (_pandaset, _nuscenes, _kitti, _kitti_raw, _drivestudio, _plain):
        found = recognise(path, part, camera)
        if found is not None:
            return found
    raise WorldlineError(f"{path} is no driving log that Worldline knows: give {LAYOUTS}")


_Found = tuple[str, Source, Mapping[str, Any]] | None


def _pandaset(path: Path, part: str, camera: str) -> _Found:
    if not (path / "camera" / pandaset_log.CAMERA / "poses.json").is_file():
        return None
    _refuse(path, "a PandaSet scene is read by its front camera", part=part, camera=camera)
    source = describe_source(path, camera=pandaset_log.CAMERA)
    sweeps = sorted(item for item in (path / "lidar").glob("*.npz") if item.stem.isdecimal())
    files = Files({**source.files, **{f"lidar/{item.name}": item for item in sweeps}})
    return "ingest.pandaset_log", replace(source, files=files), {}


def _nuscenes(path: Path, part: str, camera: str) -> _Found:
    """Return a scene with the images of one camera, the sweeps of its key frames and its map."""
    tables = next((item.parent for item in sorted(path.glob("v1.0-*/sample_data.json"))), path)
    if not (tables / "sample_data.json").is_file():
        return None
    names = [f"{name}.json" for name in (*nuscenes.NEEDED, *nuscenes.OPTIONAL, "log")]
    there = {name: tables / name for name in names if (tables / name).is_file()}
    source = Source(Files(there), "nuscenes", path.resolve().name)
    camera = camera or nuscenes_log.NuscenesLogConfig().camera
    scene, _, images, sweeps = nuscenes_log.scene_data(source, part, camera)
    root = path if (path / "samples").is_dir() else path.parent  # where the tables themselves were given
    data = [str(row.get("filename")) for row in (*images, *sweeps)]
    if images and not any((root / name).is_file() for name in data):
        raise WorldlineError(f"{root} has none of the images of {scene['name']}, such as {data[0]}: give the folder of samples")
    maps = [item.relative_to(root).as_posix() for item in sorted((root / "maps" / "expansion").glob("*.json"))]
    where = {row.get("location") for row in nuscenes_log.optional_table(source, "log") if row["token"] == scene.get("log_token")}
    data += [name for name in maps if Path(name).stem in where]
    files = Files(there | {name: root / name for name in data if (root / name).is_file()})
    return "ingest.nuscenes_log", replace(source, files=files), {"scene": str(scene["name"]), "camera": camera}


def _kitti(path: Path, part: str, camera: str) -> _Found:
    """Return a sequence of the tracking benchmark with its images and sweeps."""
    if not (path / "label_02").is_dir():
        return None
    _refuse(path, "KITTI's labels belong to image_02", camera=camera)
    sequences = natural_order([item.stem for item in (path / "label_02").glob("*.txt")])
    if part and part not in sequences:
        raise WorldlineError(f"{path} has no sequence {part}: it has {', '.join(sequences[:5]) or 'none'}")
    if not sequences:
        raise WorldlineError(f"{path}/label_02 holds no NNNN.txt: complete the folder")
    sequence = part or sequences[0]
    wanted = [f"{folder}/{sequence}.txt" for folder in ("label_02", "calib", "oxts", "timestamps")]
    data = [item for folder in ("image_02", "velodyne") for item in (path / folder / sequence).glob("*")]
    return "ingest.kitti_log", Source(_files(path, wanted, iter(data)), "kitti_tracking", sequence), {}


def _kitti_raw(path: Path, part: str, camera: str) -> _Found:
    """Return a raw drive with its left colour images, its sweeps, and the calibration beside or above it."""
    if not (path / "image_02" / "data").is_dir() or not (path / "oxts" / "data").is_dir():
        return None
    _refuse(path, "a raw drive is read by image_02", part=part, camera=camera)
    data = [item for folder in ("image_02", "oxts", "velodyne_points") for item in (path / folder / "data").glob("*")]
    files = _files(path, (kitti_log.RAW_TIMES, kitti_log.TRACKLETS), iter(data))
    for name in kitti_log.RAW_CALIBRATION:
        for folder in (path, path.resolve().parent):  # one calibration serves all drives of a day
            if (folder / name).is_file():
                files.setdefault(name, folder / name)
    return "ingest.kitti_log", Source(files, "kitti_raw", path.resolve().name), {}


def _drivestudio(path: Path, part: str, camera: str) -> _Found:
    """Return a processed scene with the images of one camera."""
    if not all((path / name).is_dir() for name in ("images", "intrinsics", "extrinsics")):
        return None
    _refuse(path, "it is one scene", part=part)
    number = camera or "0"
    if not number.isdecimal():
        raise WorldlineError(f"camera={camera} is no number, as drivestudio's layout has them: give 0, 1, ...")
    wanted = [drivestudio.INSTANCES, drivestudio.OWN_FILE, drivestudio.MAP_FILE]
    patterns = (f"images/*_{number}.*", f"intrinsics/{number}.txt", f"extrinsics/{number}.txt", f"extrinsics/*_{number}.txt")
    found = [item for pattern in (*patterns, "ego_pose/*", "lidar/*", "lidar_pose/*") for item in path.glob(pattern)]
    source = Source(_files(path, wanted, iter(found)), "drivestudio", path.resolve().name)
    return "ingest.drivestudio", source, {"camera": int(number)}


def _plain(path: Path, part: str, camera: str) -> _Found:
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
    _refuse(path, "a plain folder is one log of one camera", part=part, camera=camera)
    images = describe_source(folder).files
    sweeps = [item for item in (path / "lidar").glob("*") if item.suffix in (".npz", ".bin")]
    files = {f"{plain_log.FRAMES}/{name}": item for name, item in images.items()}
    files |= {f"{plain_log.POSES}/{name}": item for name, item in poses.files.items()}
    files |= _files(path, beside, iter(sweeps))
    return "ingest.plain_log", Source(Files(files), "plain_log", path.resolve().name), {}


def _refuse(path: Path, why: str, **given: str) -> None:
    """Refuse what does not belong to a layout."""
    for name, value in given.items():
        if value:
            raise WorldlineError(f"{path} takes no {name}={value}: {why}")


def _files(path: Path, names: Iterable[str], found: Iterator[Path]) -> Files:
    """Return those of some names that there are, and what was found, hidden files left out, by their names below a path."""
    there = [item.relative_to(path).as_posix() for item in found if item.is_file() and not item.name.startswith(".")]
    return Files({name: path / name for name in natural_order([*(n for n in names if (path / n).is_file()), *there])})
