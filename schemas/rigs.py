"""Cameras that are fixed to one body: what they filmed on one clock, and where they sit on it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int32

from schemas.artifact import Artifact
from schemas.clips import Clip
from schemas.media import Video


@dataclass(frozen=True, eq=False)
class RigClip(Artifact):
    """What the cameras of one rig filmed, on one clock.

    The rig's frame is that of its first camera, the reference: OpenCV axes (x right, y down, z forward), metres. Every
    frame of another camera belongs to one frame of the reference: a set is what was filmed at about the same time.

    Attributes:
        name: what a person calls it.
        cameras: names of the C cameras, the reference first.
        frames: RGB `[T_c, H_c, W_c, 3]` uint8 by camera; sizes and numbers may differ.
        times_s: `[T_c]` by camera: when the middle row was exposed, in seconds from the reference's first frame, on the
            reference's clock (known offsets are applied); strictly increasing.
        sets: `[N, C]` which frame of each camera belongs to each frame of the reference, -1 where none does.
        calibrated: whether the intrinsics of all cameras are known; the two fields below are zeros where not.
        intrinsics: `[C, 3, 3]` pinhole matrices in pixels of `frames`, pixel centres at +0.5.
        distortion: `[C, 4]` OpenCV (k1, k2, p1, p2).
        placed: `[C]` whether `camera_from_rig` was given; true for the reference.
        camera_from_rig: `[C, 4, 4]` in metres; identity where not given.
        position_sigma_m, rotation_sigma_rad: `[C]` standard deviation of a given place: of the distance to the reference, and
            of the orientation about each axis.
        readout_s: `[C]` rolling shutter: time from the exposure of the first row to that of the last; 0 for a global shutter.
        provenance: how the frames came to be.
    """

    level: ClassVar[int] = 1
    name: str
    cameras: list[str]
    frames: dict[str, Video]
    times_s: dict[str, np.ndarray]
    sets: Int32[np.ndarray, "N C"]
    calibrated: bool
    intrinsics: Float64[np.ndarray, "C 3 3"]
    distortion: Float64[np.ndarray, "C 4"]
    placed: Bool[np.ndarray, " C"]
    camera_from_rig: Float64[np.ndarray, "C 4 4"]
    position_sigma_m: Float64[np.ndarray, " C"]
    rotation_sigma_rad: Float64[np.ndarray, " C"]
    readout_s: Float64[np.ndarray, " C"]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.cameras) != self.sets.shape[1] or len(self.cameras) < 2:
            raise ValueError(f"RigClip: {len(self.cameras)} cameras but sets of {self.sets.shape[1]}; a rig has two or more")
        for column, camera in enumerate(self.cameras):
            count, times = len(self.frames[camera]), self.times_s[camera]
            if count != len(times) or np.any(np.diff(times) <= 0):
                raise ValueError(f"RigClip: {camera} needs one time per frame ({count}), strictly increasing")
            if self.sets[:, column].max(initial=-1) >= count:
                raise ValueError(f"RigClip: a set names a frame of {camera} that is not there")
        if not np.array_equal(self.sets[:, 0], np.arange(len(self.frames[self.reference]))):
            raise ValueError("RigClip: there is one set per frame of the reference")

    @property
    def reference(self) -> str:
        """Name of the camera whose frame is the rig's."""
        return self.cameras[0]

    def size(self, camera: str) -> tuple[int, int]:
        """Return width and height of a camera's frames in pixels."""
        shape = self.frames[camera].shape
        return shape[2], shape[1]

    def clip(self, camera: str) -> Clip:
        """Return what one camera filmed, on the rig's clock."""
        return Clip(
            frames=self.frames[camera],
            times_s=self.times_s[camera],
            name=f"{self.name}/{camera}",
            intrinsics=self.intrinsics[self.cameras.index(camera)] if self.calibrated else None,
            provenance=self.provenance,
        )

    def facts(self) -> dict[str, Any]:
        """Return name, cameras, number of sets and what is known of the rig."""
        return {
            "name": self.name,
            "cameras": len(self.cameras),
            "sets": len(self.sets),
            "calibrated": self.calibrated,
            "placed": int(self.placed.sum()),
        }


@dataclass(frozen=True, eq=False)
class Rig(Artifact):
    """Where the cameras of a rig sit, in the unit of the camera path solved with it.

    The pose of a camera at its own time t is `world_from_reference(t) @ inv(camera_from_rig)`, where the reference's path is
    interpolated to t (`worldline.rigs.camera_poses`, and stage `pose.rig_camera` for a whole clip).

    Attributes:
        cameras: names, the reference first.
        camera_from_rig: `[C, 4, 4]`; identity where `placed_by` is "none".
        placed_by: where each place comes from: "reference", "given", "refined" (given, then adjusted to the frames),
            "solved" (from the frames alone), "none".
        position_sigma: `[C]` standard deviation of the distance to the reference, in the path's unit.
        rotation_sigma_rad: `[C]` of the orientation, per axis.
        intrinsics: `[C, 3, 3]` in pixels.
        distortion: `[C, 4]` OpenCV (k1, k2, p1, p2).
        widths, heights: `[C]` in pixels.
        frames_solved: `[C]` frames whose pose came out of the frames themselves.
        times_s: when each camera's frames were taken (middle row), by camera, on the path's clock.
        readout_s: `[C]` rolling shutter's time from first to last row.
        scale_source, scale_sigma: as in the path.
    """

    level: ClassVar[int] = 1
    cameras: list[str]
    camera_from_rig: Float64[np.ndarray, "C 4 4"]
    placed_by: list[str]
    position_sigma: Float64[np.ndarray, " C"]
    rotation_sigma_rad: Float64[np.ndarray, " C"]
    intrinsics: Float64[np.ndarray, "C 3 3"]
    distortion: Float64[np.ndarray, "C 4"]
    widths: Int32[np.ndarray, " C"]
    heights: Int32[np.ndarray, " C"]
    frames_solved: Int32[np.ndarray, " C"]
    times_s: dict[str, np.ndarray]
    readout_s: Float64[np.ndarray, " C"]
    scale_source: str
    scale_sigma: float

    def facts(self) -> dict[str, Any]:
        """Return the cameras, how each was placed, and the scale."""
        return {
            "cameras": ", ".join(self.cameras),
            "placed_by": ", ".join(self.placed_by),
            "scale_source": self.scale_source,
            "scale_sigma": self.scale_sigma,
        }
