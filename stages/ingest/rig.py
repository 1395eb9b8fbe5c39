"""A rig of cameras as a folder: one sub-folder of images or one video per camera, and `rig.json` beside them.

    {"cameras": [
        {"name": "left", "intrinsics": [fx, fy, cx, cy]},
        {"name": "right", "intrinsics": [fx, fy, cx, cy], "distortion": [k1, k2, p1, p2],
         "camera_from_rig": {"translation_m": [-0.54, 0, 0], "quaternion_wxyz": [1, 0, 0, 0]},
         "time_offset_s": 0.004, "readout_s": 0.03}
    ]}

The first camera is the reference. `intrinsics` are in pixels of the upright originals, pixel centres at +0.5; `distortion` is
OpenCV's. `camera_from_rig`, also as 4x4 rows, maps from any frame of the body that all entries share, in metres;
the reference's may be left out where that frame is its own. `time_offset_s` is added to the camera's times to give those of the
middle row on the reference's clock; `readout_s` is the time from the first row to the last of a rolling shutter.
`position_sigma_m` (of the distance to the reference) and `rotation_sigma_deg` say how well the place is known. `files` names the
sub-folder or video where it is not the camera's name.

Times of images: `timestamps.csv` or `times.txt` in every sub-folder, all on one clock; else file names that are Unix
nanoseconds, microseconds or milliseconds; else equal numbers of images at an assumed rate. Of videos: their own,
from their first frame.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated

import numpy as np
import pydantic

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.rigs import RigClip
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.frames import read_time_file
from stages.ingest.gps import read_gps_csv
from stages.ingest.pictures import read_picture
from stages.ingest.rig_sets import RigConfig, Strip, assemble_rig_clip, check_rig_config, check_rigid, reference_clip
from stages.ingest.source import GPS_FILE, IMAGE_SUFFIXES, RIG_FILE, TIME_FILES, VIDEO_SUFFIXES, natural_order
from stages.ingest.video_file import FrameGeometry, VideoFile
from worldline.cameras import rigid, rotation_from_quaternion

_UNIX_DIGITS = {19: 1_000_000_000, 16: 1_000_000, 13: 1_000}  # of a Unix time of this century, and its units per second

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class Pose(pydantic.BaseModel, extra="forbid"):
    """A rigid transform in `rig.json`."""

    translation_m: tuple[Finite, Finite, Finite]
    quaternion_wxyz: tuple[Finite, Finite, Finite, Finite]


class Camera(pydantic.BaseModel, extra="forbid"):
    """One camera in `rig.json`."""

    name: Annotated[str, pydantic.Field(pattern=r"^[\w.-]+$")]
    files: str | None = None
    intrinsics: tuple[Positive, Positive, Finite, Finite] | None = None
    distortion: tuple[Finite, Finite, Finite, Finite] = (0.0, 0.0, 0.0, 0.0)
    camera_from_rig: (
        Pose | Annotated[list[tuple[Finite, Finite, Finite, Finite]], pydantic.Field(min_length=3, max_length=4)] | None
    ) = None
    position_sigma_m: Positive | None = None
    rotation_sigma_deg: Positive | None = None
    time_offset_s: Finite = 0.0
    readout_s: Finite = 0.0


class Cameras(pydantic.BaseModel, extra="forbid"):
    """What `rig.json` holds."""

    cameras: Annotated[list[Camera], pydantic.Field(min_length=2)]


@stage("ingest.rig", version=1)
def ingest_rig(source: Source, config: RigConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth, RigClip]:
    """Read a rig of cameras.

    Returns:
        What the reference filmed as a clip like any other, with the fixes of `gps.csv` beside `rig.json` (`time_s` counts
        from the reference's first frame); no truth; what all cameras filmed.

    Raises:
        WorldlineError: if `rig.json` does not parse, frames are missing or unreadable, or times do not fit together.
    """
    check_rig_config(config)
    cameras = _read_cameras(source)
    found = [_find_frames(source, camera, config.frames_per_second) for camera in cameras]
    strips = _read_strips(source, cameras, found)
    provenance = {"kind": "rig", "source": content_digest(source), "times": found[0].clock}
    rig_clip = assemble_rig_clip(source.name, strips, config, progress, provenance)
    start_s = rig_clip.provenance["first_kept_s"]
    epoch_ns = found[0].epoch_ns
    clip = reference_clip(
        rig_clip,
        config,
        epoch_ns=None if epoch_ns is None else epoch_ns + round((start_s + cameras[0].time_offset_s) * 1e9),
        gps=read_gps_csv(source.files[GPS_FILE], f"{source.name}/{GPS_FILE}", start_s) if GPS_FILE in source.files else None,
    )
    return clip, Truth.unavailable(), rig_clip


def _read_cameras(source: Source) -> list[Camera]:
    if RIG_FILE not in source.files:
        raise WorldlineError(f"{source.name} has no {RIG_FILE}, which names the cameras of a rig: write one")
    where = f"{source.name}/{RIG_FILE}"
    try:
        cameras = Cameras.model_validate_json(source.files[RIG_FILE].read_bytes()).cameras
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WorldlineError(f"{where}: {place or 'the file'} is not valid ({first['msg']}): correct that field") from None
    names = [camera.name for camera in cameras]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise WorldlineError(f"{where} names two cameras {twice[0]}: give each its own name")
    return cameras


def _place(camera: Camera, where: str) -> np.ndarray | None:
    given = camera.camera_from_rig
    if given is None:
        return None
    if isinstance(given, Pose):
        if np.linalg.norm(given.quaternion_wxyz) < 1e-6:
            raise WorldlineError(f"{where}: quaternion_wxyz of camera {camera.name} is zero: no rotation is (1, 0, 0, 0)")
        return rigid(rotation_from_quaternion(np.array(given.quaternion_wxyz)), np.array(given.translation_m))
    matrix = np.eye(4)
    matrix[:3] = given[:3]
    return check_rigid(matrix, f"{where}: camera_from_rig of camera {camera.name}")


@dataclass(frozen=True)
class _Frames:
    """The frames of a camera as they lie in the source.

    Attributes:
        clock: where their times come from, in words; cameras are on one clock where these agree.
        first_s: time of the first frame on that clock: exact, because Unix nanoseconds need more digits than a float has.
        seconds: `[T]` from the first frame.
        read: as in `Strip`.
        epoch_ns: Unix time of the first frame, where the clock tells it.
    """

    clock: str
    first_s: Decimal
    seconds: np.ndarray
    read: Callable[[Sequence[int], Callable[[np.ndarray], None]], None]
    epoch_ns: int | None = None


def _read_strips(source: Source, cameras: list[Camera], found: list[_Frames]) -> list[Strip]:
    """Put every camera on the reference's clock."""
    where = f"{source.name}/{RIG_FILE}"
    for camera, frames in zip(cameras, found, strict=True):
        if frames.clock != found[0].clock:
            raise WorldlineError(
                f"{source.name}: times of camera {cameras[0].name} come from {found[0].clock}, those of {camera.name} from "
                f"{frames.clock}, which are two clocks: give every camera a {TIME_FILES[0]} of one clock"
            )
        if frames.clock.startswith("assumed") and len(frames.seconds) != len(found[0].seconds):
            raise WorldlineError(
                f"{source.name}: camera {cameras[0].name} has {len(found[0].seconds)} images, {camera.name} has "
                f"{len(frames.seconds)}, and nothing says which belong together: give every camera a {TIME_FILES[0]}"
            )
        if np.any(np.diff(frames.seconds) <= 0):
            raise WorldlineError(f"{source.name}: times of camera {camera.name} do not increase in the order of its file names")
    places = [_place(camera, where) for camera in cameras]
    if places[0] is None and any(place is not None for place in places):
        places[0] = np.eye(4)
    return [
        Strip(
            name=camera.name,
            times_s=float(frames.first_s - found[0].first_s) + frames.seconds + camera.time_offset_s,
            read=frames.read,
            intrinsics=camera.intrinsics,
            distortion=camera.distortion,
            camera_from_body=place,
            position_sigma_m=camera.position_sigma_m,
            rotation_sigma_rad=None if camera.rotation_sigma_deg is None else math.radians(camera.rotation_sigma_deg),
            readout_s=camera.readout_s,
        )
        for camera, frames, place in zip(cameras, found, places, strict=True)
    ]


def _find_frames(source: Source, camera: Camera, rate: float) -> _Frames:
    """Find a camera's images or video among the files of a source."""
    folder = camera.files or camera.name
    images = [name for name in source.files if PurePosixPath(name).parent.as_posix() == folder]
    names = natural_order([name for name in images if name.lower().endswith(IMAGE_SUFFIXES)])
    if names:
        return _image_frames(source, folder, names, rate)
    videos = [name for name in source.files if name == folder or PurePosixPath(name).stem == folder]
    videos = [name for name in videos if name.lower().endswith(VIDEO_SUFFIXES)]
    if not videos:
        raise WorldlineError(
            f"{source.name} has neither a folder {folder} with images nor a video {folder}.mp4 for camera {camera.name}: "
            f"add it, or name it in {RIG_FILE} as files"
        )
    return _video_frames(source, videos[0])


def _image_frames(source: Source, folder: str, names: list[str], rate: float) -> _Frames:
    def read(indices: Sequence[int], take: Callable[[np.ndarray], None]) -> None:
        for index in indices:
            take(read_picture(source.files[names[index]], f"{source.name}/{names[index]}"))

    for time_file in TIME_FILES:
        path = source.files.get(f"{folder}/{time_file}")
        if path is not None:
            stems = [PurePosixPath(name).name for name in names]
            times = read_time_file(path, f"{source.name}/{folder}/{time_file}", stems, time_file)
            return _Frames(time_file, times.first_s, np.array(times.seconds), read, times.epoch_ns)
    stems = [PurePosixPath(name).stem for name in names]
    units = {_UNIX_DIGITS.get(len(stem)) if stem.isdecimal() else None for stem in stems}
    unit = units.pop() if len(units) == 1 else None
    if unit is not None:
        ticks = [int(stem) for stem in stems]
        seconds = np.array([(tick - ticks[0]) / unit for tick in ticks])
        return _Frames("file names", Decimal(ticks[0]) / unit, seconds, read, ticks[0] * (1_000_000_000 // unit))
    return _Frames(f"assumed {rate:g} frames per second", Decimal(0), np.arange(len(names)) / rate, read)


def _video_frames(source: Source, name: str) -> _Frames:
    path = source.files[name]
    with VideoFile(path, name) as reader:
        times = [time_s for time_s, _ in reader]
        problem = reader.error
    if len(times) < 2:
        raise WorldlineError(
            f"{name} holds {len(times)} frames that decode {problem}: give a whole video of at least 2 frames".replace("  ", " ")
        )

    def read(indices: Sequence[int], take: Callable[[np.ndarray], None]) -> None:
        wanted, geometry = set(indices), None
        with VideoFile(path, name) as reader:
            for index, (_, frame) in enumerate(reader):
                geometry = geometry or FrameGeometry.of(frame, reader.stream, None)
                if index in wanted:
                    take(geometry.apply(frame))
                if index >= indices[-1]:
                    break

    return _Frames("the videos' own clocks", Decimal(0), np.array(times), read)
