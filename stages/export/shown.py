"""What a report shows of a clip: which frames, which objects, in which units."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.labels import EGO_TRACK_ID, Kinematics
from schemas.tracks import Tracks

PALETTE_SIZE = 10  # report.css names this many colours, --k0 to --k9
_SCALE_WORDS = {
    "gps": "GPS",
    "wheel_speed": "wheel speed",
    "camera_height": "camera height",
    "known_size": "objects of known height",
    "depth_model": "a metric depth model",
    "baseline": "the rig's baselines",
}


def scale_words(source: str) -> str:
    """Return where metres come from, in words: "GPS and camera height" for "gps+camera_height"."""
    return " and ".join(_SCALE_WORDS.get(part, part) for part in source.split("+"))


@dataclass(frozen=True)
class Units:
    """Units for people, and how many of them make one stored unit of speed (m/s or scene units/s)."""

    metric: bool

    @property
    def length(self) -> str:
        """Unit of length."""
        return "m" if self.metric else "scene units"

    @property
    def speed(self) -> str:
        """Unit of speed."""
        return "km/h" if self.metric else "scene units/s"

    @property
    def speed_factor(self) -> float:
        """Displayed speed over stored speed."""
        return 3.6 if self.metric else 1.0


@dataclass(frozen=True)
class ShownTrack:
    """The camera (track 0) or an object, with what is known of it.

    Attributes:
        track_id: as in the artifacts.
        name: what a person calls it: "Camera" or "#3 red car".
        palette: index of its colour.
        samples: rows of `TRACK_SAMPLES` by frame; empty for the camera.
        states: rows of `KINEMATIC_STATES` in order of time.
    """

    track_id: int
    name: str
    palette: int
    samples: dict[int, dict[str, Any]]
    states: list[dict[str, Any]]

    def state_near(self, time_s: float, tolerance_s: float) -> dict[str, Any] | None:
        """Return the kinematic state nearest in time, or None where there is none within the tolerance."""
        if not self.states:
            return None
        nearest = min(self.states, key=lambda row: abs(row["time_s"] - time_s))
        return nearest if abs(nearest["time_s"] - time_s) <= tolerance_s else None


def choose_frames(count: int, max_frames: int) -> np.ndarray:
    """Return indices of at most `max_frames` frames, every k-th one from the first."""
    return np.arange(0, count, max(1, -(-count // max_frames)))


def collect_tracks(tracks: Tracks, kinematics: Kinematics) -> tuple[ShownTrack, list[ShownTrack]]:
    """Return the camera and the objects, those with most samples first."""
    states: dict[int, list[dict[str, Any]]] = {}
    for row in kinematics.states.to_pylist():
        states.setdefault(row["track_id"], []).append(row)
    samples: dict[int, dict[int, dict[str, Any]]] = {}
    for row in tracks.samples.to_pylist():
        samples.setdefault(row["track_id"], {})[row["frame"]] = row
    objects = sorted(tracks.objects.to_pylist(), key=lambda row: (-row["samples"], row["track_id"]))
    shown = [
        ShownTrack(
            track_id=row["track_id"],
            name=object_name(row),
            palette=index % PALETTE_SIZE,
            samples=samples.get(row["track_id"], {}),
            states=states.get(row["track_id"], []),
        )
        for index, row in enumerate(objects)
    ]
    return ShownTrack(EGO_TRACK_ID, "Camera", -1, {}, states.get(EGO_TRACK_ID, [])), shown


def object_name(row: dict[str, Any]) -> str:
    """Return "#3 red car" from a row of `TRACK_OBJECTS`; an unknown class is called "object"."""
    kind = "object" if row["class_name"] == "unknown" else row["class_name"]
    return " ".join(word for word in (f"#{row['track_id']}", row["colour"], kind) if word)


def figure(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, without exponent for everyday sizes, thousands set apart."""
    if not np.isfinite(value):
        return "not a number"
    if value == 0:
        return "0"
    magnitude = int(np.floor(np.log10(abs(value))))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.{digits - 1}e}"
    if float(value).is_integer() and magnitude < 9:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}".replace(",", "\u202f")


def nice_step(span: float, count: int) -> float:
    """Return 1, 2 or 5 times a power of ten so that `span` holds about `count` such steps."""
    rough = max(span, 1e-12) / max(1, count)
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999) * power)
