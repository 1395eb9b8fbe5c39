"""What a path holds: a video file, a folder of frames or a PandaSet scene, and which of its files matter."""

import re
from collections.abc import Iterable
from pathlib import Path

from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from stages.ingest.kitti import STAMPS_FILE, files_beside_images

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".gif")
TIME_FILES = ("timestamps.csv", "times.txt", STAMPS_FILE)
GPS_FILE, SPEED_FILE = "gps.csv", "speed.csv"
RIG_FILE = "rig.json"
KITTI_CALIBRATION = "calib_cam_to_cam.txt"


def describe_source(path: Path | str, *, camera: str = "front_camera") -> Source:
    """Return the source at a path, with the files that its ingest stage needs and no others.

    A file is a "video", with `NAME.gps.csv` and `NAME.speed.csv` (of the wheels) beside it if there are such (NAME with or
    without the video's suffix). A folder
    with `camera/NAME/poses.json` is a "pandaset" scene, of which the files of one camera, the GPS and the boxes are taken,
    never the lidar; of several cameras it is a "pandaset_rig". A folder with `rig.json` is a "rig", with the images (and
    their times) of all its sub-folders, its videos and its `gps.csv`. A KITTI raw drive is "kitti_stereo": two cameras, their
    calibration, the inertial unit's fixes. A folder with images, or whose folder `images` or `data` has some, is "frames",
    with its `timestamps.csv`, `times.txt`, `timestamps.txt`, `gps.csv` and `speed.csv`, and for one camera of a KITTI drive
    with the time stamps and the oxts records that belong to it.

    Args:
        path: file or folder.
        camera: which camera of a PandaSet scene; the ingest config must name the same. Several are joined by plus signs.

    Raises:
        WorldlineError: if the path is missing, empty or a device, or a folder holds none of these.
    """
    path = Path(path)
    if not path.exists():
        raise WorldlineError(f"there is no file or folder {path}: check the path given as source")
    if path.is_file():
        return _video(path)
    if not path.is_dir():
        raise WorldlineError(f"{path} is a device or pipe and not a file: record it to a video file first")
    if not any(path.iterdir()):
        raise WorldlineError(f"the folder {path} is empty: give a video file, a folder of images or a PandaSet scene")
    if (path / "camera").is_dir() and any((path / "camera").glob("*/poses.json")):
        return _pandaset(path, camera)
    if (path / RIG_FILE).is_file():
        return _rig(path)
    if any((path / f"image_{number}" / "data").is_dir() for number in ("00", "02")):
        return _kitti(path)
    for folder in (path, path / "images", path / "data"):
        names = natural_order([item.name for item in folder.glob("*") if is_image(item)])
        if names:
            extra = [name for name in (*TIME_FILES, GPS_FILE, SPEED_FILE) if (folder / name).is_file()]
            files = Files({name: folder / name for name in names + extra})
            files |= files_beside_images(folder.resolve())
            return Source(files, "frames", path.resolve().name)
    videos = natural_order([item.name for item in path.glob("*") if item.suffix.lower() in VIDEO_SUFFIXES])
    if videos:
        raise WorldlineError(f"{path} is a folder of videos: give one of its files, such as {path / videos[0]}")
    raise WorldlineError(
        f"the folder {path} holds no images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}) and no PandaSet camera: "
        "give a video file, a folder of images or a PandaSet scene"
    )


def is_image(path: Path) -> bool:
    """Return whether a file counts as a frame by its name (hidden files do not)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def natural_order(names: list[str]) -> list[str]:
    """Sort names so that numbers in them count by value: frame2 before frame10."""
    return sorted(
        names, key=lambda name: ([(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name.lower())], name)
    )


def _video(path: Path) -> Source:
    if path.stat().st_size == 0:
        raise WorldlineError(f"the file {path} is empty (0 bytes): record or download it again")
    files = Files({path.name: path})
    for ending in (GPS_FILE, SPEED_FILE):
        for sidecar in (path.with_name(f"{path.name}.{ending}"), path.with_name(f"{path.stem}.{ending}")):
            if sidecar.is_file():
                files[sidecar.name] = sidecar
                break
    return Source(files, "video", path.name)


def _rig(path: Path) -> Source:
    wanted = [item for item in path.iterdir() if item.suffix.lower() in VIDEO_SUFFIXES or item.name in (RIG_FILE, GPS_FILE)]
    wanted += [item for item in path.rglob("*") if is_image(item) or item.name in TIME_FILES]
    names = natural_order([item.relative_to(path).as_posix() for item in wanted if item.is_file()])
    return Source(Files({name: path / name for name in names}), "rig", path.resolve().name)


def _kitti(path: Path) -> Source:
    images = {item.relative_to(path).as_posix(): item for item in sorted(path.glob("image_0[0-3]/data/*")) if is_image(item)}
    pair = kitti_pair(images) or ("image_02", "image_03")
    files = Files({name: item for name, item in images.items() if name.startswith(pair)})
    for item in (path / pair[0] / "timestamps.txt", path / "oxts" / "timestamps.txt", *sorted(path.glob("oxts/data/*.txt"))):
        if item.is_file():
            files[item.relative_to(path).as_posix()] = item
    for folder in (path, path.resolve().parent):  # one file serves all drives of a day
        if (folder / KITTI_CALIBRATION).is_file():
            files.setdefault(KITTI_CALIBRATION, folder / KITTI_CALIBRATION)
    return Source(files, "kitti_stereo", path.resolve().name)


def kitti_pair(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the folders of the stereo pair among a KITTI drive's files: colour, else grey; None where there is none."""
    there = {name.partition("/")[0] for name in names}
    pairs = (("image_02", "image_03"), ("image_00", "image_01"))
    return next((pair for pair in pairs if there.issuperset(pair)), None)


def _pandaset(path: Path, camera: str) -> Source:
    asked = camera.split("+")
    cameras = sorted(item.parent.name for item in (path / "camera").glob("*/poses.json"))
    for name in asked:
        if name not in cameras:
            raise WorldlineError(f"{path} has no camera {name}: it has {', '.join(cameras)}")
    wanted = [item for name in asked for item in (path / "camera" / name).iterdir() if is_image(item) or item.suffix == ".json"]
    wanted += [path / "meta" / "gps.json", path / "meta" / "timestamps.json"]
    if len(asked) == 1:
        wanted.append(path / "cuboids.csv.gz")
    names = sorted(item.relative_to(path).as_posix() for item in wanted if item.is_file())
    layout = "pandaset" if len(asked) == 1 else "pandaset_rig"
    return Source(Files({name: path / name for name in names}), layout, path.resolve().name)
