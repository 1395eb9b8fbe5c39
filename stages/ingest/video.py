"""Video files: anything that FFmpeg decodes, upright, in square pixels, with the file's own frame times."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.gps import read_gps_csv, read_speed_csv
from stages.ingest.pictures import check_camera_height, given_intrinsics, keep_frame, stack_frames
from stages.ingest.timing import FramePicker, check_selection
from stages.ingest.video_file import FrameGeometry, VideoFile


@dataclass(frozen=True)
class VideoConfig:
    """How a video file is read.

    Attributes:
        start_s, end_s: span in seconds from the file's first frame; None goes to the end.
        max_frames: stop after this many frames; None keeps all.
        max_side: longer side of the frames in pixels; larger ones are shrunk by area, None keeps them.
        frames_per_second: keep at most this many frames per second, by their times; None keeps all.
        intrinsics: (fx, fy, cx, cy) in pixels of the upright original in square pixels (as players show it), pixel
            centres at +0.5; scaled with the frames.
        camera_height_m, camera_height_sigma_m: height of the camera over the ground and its standard deviation.
    """

    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    frames_per_second: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    camera_height_m: float | None = None
    camera_height_sigma_m: float | None = None


@stage("ingest.video", version=1)
def ingest_video(source: Source, config: VideoConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth]:
    """Decode a video file into a clip; there is no truth.

    Frame times are presentation timestamps times the stream's time base, so a variable frame rate survives. Frames whose
    time does not increase are dropped and counted. A file that breaks off keeps what decoded before, and says so in
    `provenance["truncated"]`. GPS comes from `NAME.gps.csv` and the wheels' speed from `NAME.speed.csv` among the source's
    files.

    Raises:
        WorldlineError: if the file is missing, empty, not a video, does not decode, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    check_camera_height(config.camera_height_m, config.camera_height_sigma_m)
    name = next((item for item in source.files if not item.endswith((".gps.csv", ".speed.csv"))), source.name)
    path = source.files.get(name)
    if path is None or not path.is_file():
        raise WorldlineError(f"there is no file {name}: check the path given as source")
    if path.stat().st_size == 0:
        raise WorldlineError(f"the file {name} is empty (0 bytes): record or download it again")

    picker = FramePicker(config, config.frames_per_second)
    reader = VideoFile(path, name, config.start_s)
    frames: list[np.ndarray] = []
    facts: dict[str, Any] = {}
    geometry: FrameGeometry | None = None
    with reader:
        total = reader.expected_frames(config.end_s, config.frames_per_second, config.max_frames)
        for time_s, frame in reader:
            if geometry is None:
                geometry = FrameGeometry.of(frame, reader.stream, config.max_side)
                facts = geometry.facts()
            elif (frame.width, frame.height) != geometry.decoded:
                raise WorldlineError(
                    f"{name} changes its frame size from {geometry.decoded[0]}x{geometry.decoded[1]} to "
                    f"{frame.width}x{frame.height} at {time_s:.2f} s: cut it there, or set end_s"
                )
            if picker.take(time_s):
                keep_frame(frames, geometry.apply(frame), name)
                progress(len(frames), max(total, len(frames)), "frames")
            if picker.finished:
                break
    _refuse_without_motion(name, reader, len(frames))
    assert geometry is not None
    times_s = np.array(picker.kept_s) - picker.kept_s[0]
    fixes, speeds = (
        next((item for item in sorted(source.files) if item.endswith(ending)), None) for ending in (".gps.csv", ".speed.csv")
    )
    clip = Clip(
        frames=stack_frames(frames),
        times_s=times_s,
        name=source.name,
        intrinsics=given_intrinsics(config.intrinsics, geometry.upright, geometry.kept),
        gps=read_gps_csv(source.files[fixes], fixes, picker.kept_s[0]) if fixes else None,
        wheel_speed=read_speed_csv(source.files[speeds], speeds, picker.kept_s[0]) if speeds else None,
        camera_height_m=config.camera_height_m,
        camera_height_sigma_m=config.camera_height_sigma_m,
        provenance={
            "kind": "video",
            "source": content_digest(source),
            **reader.facts,
            **facts,
            "first_kept_s": picker.kept_s[0],
            "dropped_out_of_order": picker.out_of_order,
            "variable_frame_rate": _varies(times_s),
            "stopped_at_max_frames": picker.finished and len(times_s) == config.max_frames,
            "frames_without_time": reader.untimed,
            "truncated": reader.broken and not picker.finished,
        },
    )
    return clip, Truth.unavailable()


def _refuse_without_motion(name: str, reader: VideoFile, kept: int) -> None:
    if kept >= 2:
        return
    if reader.decoded == 0:
        raise WorldlineError(
            f"{name} is damaged: not one frame of it decodes ({reader.error or 'it holds none'}); get a whole copy"
        )
    if reader.decoded == 1:
        raise WorldlineError(f"{name} holds one frame, and one frame has no motion: give a video of at least 2 frames")
    raise WorldlineError(
        f"{name}: {kept} of {reader.decoded} frames lie in the chosen span and a clip needs at least 2: "
        "check start_s, end_s and frames_per_second"
    )


def _varies(times_s: np.ndarray) -> bool:
    """Whether frame intervals differ by more than a rounding to milliseconds explains."""
    intervals = np.diff(times_s)
    return bool(intervals.max() - intervals.min() > 0.0021)
