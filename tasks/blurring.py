"""Faces and number plates blurred in the frames that an export writes, and what was blurred told beside them.

    blurring = open_blurring(["faces", "plates"], PlateConfig("OWNER/NAME"))

Only the exported frames change: the catalog keeps the clips as they came, and labels speak of what was seen in them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from schemas.canonical import hash_file
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.export.plates import PlateConfig, open_plate_detector
from stages.pretrained import licence_of
from worldline.privacy.blurring import CELLS, HELD_FRAMES, MARGIN, BlurredVideo

WHAT = ("faces", "plates")
BLURRED = (
    "Faces or number plates that were found are blurred; `blurred.json` names the detectors and counts the boxes of every "
    "frame. What a detector misses is not blurred, and how much that is has not been measured: look before you publish."
)
_FILE = "blurred.json"


@dataclass
class Blurring:
    """What is blurred in the clips of an export, and what was found so far.

    Attributes:
        find: "faces" or "plates" -> boxes `[N, 4]` in pixels of a frame.
        told: of the detectors, by the same names.
        clips: rows of `blurred.json` by the clip's name.
    """

    find: dict[str, Callable[[np.ndarray], np.ndarray]]
    told: dict[str, dict[str, Any]]
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)

    def clip(self, clip: Clip, name: str) -> Clip:
        """Return a clip that is blurred when its frames are read; `name` is the clip's in the dataset version."""

        def boxes(video: Video) -> list[np.ndarray]:
            found = [{what: find(frame) for what, find in self.find.items()} for frame in video]
            counts = {what: [len(item[what]) for item in found] for what in self.find}
            self.clips[name] = {"clip": name, "frames": len(found), "boxes": counts}
            return [np.concatenate(list(item.values())) for item in found]

        return replace(clip, frames=BlurredVideo(clip.frames, boxes))

    def write(self, folder: Path) -> dict[str, int]:
        """Write `blurred.json`, and return the number of boxes found as a row of the export's report."""
        clips = [self.clips[name] for name in sorted(self.clips)]
        told = {"blurred": self.told, "held_frames": HELD_FRAMES, "margin": MARGIN, "cells": CELLS, "clips": clips}
        (folder / _FILE).write_text(json.dumps(told, ensure_ascii=False) + "\n")
        return {"blurred": sum(sum(counts) for clip in clips for counts in clip["boxes"].values())}


def open_blurring(what: Sequence[str], plates: PlateConfig | None = None) -> Blurring:
    """Load what finds faces or plates.

    Args:
        what: of `WHAT`.
        plates: the detector of plates, where they are blurred.

    Raises:
        WorldlineError: if something else is named, plates are to be blurred and no detector is named or the other way
            round, LiteRT is not installed, or the detector is not at hand.
    """
    strange = [name for name in what if name not in WHAT]
    if strange or not (what or plates):
        problem = f"{', '.join(strange)} cannot be blurred" if strange else "nothing is named"
        raise WorldlineError(f"--blur: {problem}: name faces or plates, or both")
    if ("plates" in what) != (plates is not None):
        raise WorldlineError(
            "--plate-model goes with --blur plates: give both, or neither; it names an object detection checkpoint of "
            "transformers that knows number plates"
        )
    blurring = Blurring({}, {})
    if "faces" in what:
        from worldline.privacy import faces

        network = faces.open_face_network()
        blurring.find["faces"] = lambda frame: faces.find_faces(frame, network)[0]
        blurring.told["faces"] = {"model": faces.MODEL_NAME, "sha256": hash_file(faces.MODEL), "threshold": faces.THRESHOLD,
                                  "licence": faces.MODEL_LICENCE}  # fmt: skip
    if plates is not None:
        blurring.find["plates"], checkpoint = open_plate_detector(plates)
        blurring.told["plates"] = {"model": plates.model, "revision": checkpoint.revision, "weights": checkpoint.weights,
                                   "classes": list(plates.classes), "threshold": plates.threshold,
                                   "licence": licence_of(checkpoint.folder)}  # fmt: skip
    return blurring
