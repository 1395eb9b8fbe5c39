"""Sources, clips and generation records: what comes in."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from schemas.artifact import ADDED, Artifact, Files
from schemas.media import Video

GPS_FIXES = pa.schema(
    [
        ("time_s", pa.float64()),  # seconds from the start of the clip
        ("latitude_deg", pa.float64()),
        ("longitude_deg", pa.float64()),
        ("altitude_m", pa.float64()),
        ("speed_mps", pa.float64()),  # over ground; null where the receiver gives none
    ]
)

WHEEL_SPEEDS = pa.schema(
    [
        ("time_s", pa.float64()),  # seconds from the start of the clip
        ("speed_mps", pa.float64()),  # along the road, of either sign, as the wheels tell it
    ]
)
ATTITUDES = pa.schema(
    [
        ("time_s", pa.float64()),  # seconds from the start of the clip
        ("roll_rad", pa.float64()),  # of the vehicle (x forward, y left, z up): R = Rz(yaw) Ry(pitch) Rx(roll)
        ("pitch_rad", pa.float64()),
        ("yaw_rad", pa.float64()),  # 0 is east, a quarter turn is north
    ]
)


@dataclass(frozen=True, eq=False)
class Source(Artifact):
    """A video file, a folder of frames or a log, byte for byte as it was given.

    Attributes:
        files: the files by relative name; a single video is one entry.
        layout: "video", "frames" or "pandaset".
        name: what a person calls it (file or folder name).
    """

    level: ClassVar[int] = 1
    files: Files
    layout: str
    name: str

    def facts(self) -> dict[str, Any]:
        """Return layout and number of files."""
        return {"name": self.name, "layout": self.layout, "files": len(self.files)}


@dataclass(frozen=True, eq=False)
class Clip(Artifact):
    """Frames of one camera in upright orientation, with their true times.

    Attributes:
        frames: RGB, `[T, H, W, 3]` uint8.
        times_s: seconds from the first frame, strictly increasing, from the file's timestamps.
        name: what a person calls it.
        epoch_ns: absolute time of `times_s = 0` in Unix nanoseconds, where the source has it.
        intrinsics: pinhole matrix `[3, 3]` in pixels of `frames` (pixel centres at +0.5), where calibrated.
        gps: fixes in `GPS_FIXES` columns, where the source has them.
        camera_height_m: given height of the camera over the ground, and `camera_height_sigma_m`.
        wheel_speed: `WHEEL_SPEEDS`, where the source has them.
        attitudes: `ATTITUDES` of the vehicle that carries the camera, where an inertial unit tells them.
        provenance: how the frames came to be: source digest, file facts, or generator, prompt, seed, revision.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"gps": GPS_FIXES, "wheel_speed": WHEEL_SPEEDS, "attitudes": ATTITUDES}
    frames: Video
    times_s: Float64[np.ndarray, " T"]
    name: str
    epoch_ns: int | None = None
    intrinsics: Float64[np.ndarray, "3 3"] | None = None
    gps: pa.Table | None = None
    camera_height_m: float | None = None
    camera_height_sigma_m: float | None = None
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    wheel_speed: pa.Table | None = dataclasses.field(default=None, metadata=ADDED)
    attitudes: pa.Table | None = dataclasses.field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.frames) != len(self.times_s):
            raise ValueError(f"Clip: {len(self.frames)} frames but {len(self.times_s)} times")
        if np.any(np.diff(self.times_s) <= 0):
            raise ValueError("Clip.times_s must increase strictly")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    def facts(self) -> dict[str, Any]:
        """Return name, number of frames, size and duration."""
        width, height = self.size
        duration = float(self.times_s[-1] - self.times_s[0]) if len(self.times_s) else 0.0
        return {"name": self.name, "frames": len(self.frames), "width_px": width, "height_px": height, "duration_s": duration}
