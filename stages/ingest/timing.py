"""Which frames of a sequence are kept: chosen by their true times alone."""

from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import WorldlineError

# A frame may come this share of a picking interval early and still count for it: containers round times to ms.
_EARLY = 0.05


class Selection(Protocol):
    """The fields that every ingest config has for picking frames."""

    @property
    def start_s(self) -> float:
        """Frames before this time, in seconds from the source's first frame, are skipped."""

    @property
    def end_s(self) -> float | None:
        """Frames after this time are skipped."""

    @property
    def max_frames(self) -> int | None:
        """Stop after this many kept frames."""


def check_selection(selection: Selection, rate: float | None, max_side: int | None) -> None:
    """Refuse a selection that can keep nothing.

    Raises:
        WorldlineError: naming the field.
    """
    if selection.start_s < 0:
        raise WorldlineError(f"start_s is {selection.start_s} s: it counts from the first frame and cannot be negative")
    if selection.end_s is not None and selection.end_s <= selection.start_s:
        raise WorldlineError(f"end_s ({selection.end_s} s) must be later than start_s ({selection.start_s} s)")
    if selection.max_frames is not None and selection.max_frames < 2:
        raise WorldlineError(f"max_frames is {selection.max_frames}: a clip needs at least 2 frames")
    if rate is not None and rate <= 0:
        raise WorldlineError(f"frames_per_second is {rate}: it must be positive")
    if max_side is not None and max_side < 16:
        raise WorldlineError(f"max_side is {max_side} pixels: it must be at least 16")


@dataclass
class FramePicker:
    """Decides frame by frame, in file order, whether a frame is kept.

    Attributes:
        selection: span and number of frames to keep.
        rate: at most one frame per 1 / rate seconds is kept (the first at or after each instant of a grid that
            starts at the first kept frame); None keeps all.
        kept_s: times of the kept frames, from the source's first frame.
        out_of_order: frames dropped because their time was not later than that of the frame before.
    """

    selection: Selection
    rate: float | None = None
    kept_s: list[float] = field(default_factory=list)
    out_of_order: int = 0
    finished: bool = False
    _last_s: float = -float("inf")
    _slot: int = -1

    def take(self, time_s: float) -> bool:
        """Return whether the frame at `time_s` (seconds from the source's first frame) is kept."""
        if time_s <= self._last_s:
            self.out_of_order += 1
            return False
        self._last_s = time_s
        limit, end_s = self.selection.max_frames, self.selection.end_s
        if (end_s is not None and time_s > end_s) or (limit is not None and len(self.kept_s) >= limit):
            self.finished = True
        if self.finished or time_s < self.selection.start_s:
            return False
        if self.rate is not None:
            since_first = time_s - (self.kept_s[0] if self.kept_s else time_s)
            slot = int(since_first * self.rate + _EARLY)
            if slot <= self._slot:
                return False
            self._slot = slot
        self.kept_s.append(time_s)
        return True
