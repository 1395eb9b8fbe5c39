"""Where two artifacts first differ, told for people, and how far their numbers lie apart."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.artifact import Files, make_table
from schemas.clips import Clip, Source
from schemas.media import Video
from schemas.motion import PointTracks
from schemas.reports import FIGURES, Metrics
from tasks.comparing import first_difference, largest_difference


def metrics(*values: float, unit: str = "m") -> Metrics:
    count = len(values)
    names = [f"figure{index}" for index in range(count)]
    return Metrics(make_table(FIGURES, {"name": names, "value": values, "unit": [unit] * count, "detail": [""] * count}))


def points(x: float = 1.0) -> PointTracks:
    xy = np.ones((2, 3, 2), np.float32)
    xy[1, 2, 0] = x
    return PointTracks(times_s=np.arange(3.0), xy_px=xy, visible=np.ones((2, 3), bool), first_frame=np.zeros(2, np.int32))


def clip(value: int = 0, **fields: object) -> Clip:
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    frames[2, 1, 3] = value
    return replace(Clip(frames=Video.from_array(frames), times_s=np.arange(3.0), name="toy"), **fields)  # type: ignore[arg-type]


def source(folder: Path, data: bytes) -> Source:
    path = folder / f"{len(data)}-{data[:4].hex()}"
    path.write_bytes(data)
    return Source(files=Files({"film.mp4": path}), layout="video", name="film")


def test_equal_values_have_no_difference_and_no_distance():
    for one, other in ((metrics(1.0, math.nan), metrics(1.0, math.nan)), (points(), points()), (clip(), clip())):
        assert first_difference(one, other) is None
        assert largest_difference(one, other) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "told", "distance"),
    [
        (metrics(1.0, 2.0), metrics(1.0, 2.5), "Metrics.figures row 1 (name figure1), value: 2.0 -> 2.5", 0.5),
        (metrics(1.0), metrics(1.0, 2.0), "Metrics.figures: 1 rows -> 2 rows", math.inf),
        (metrics(1.0), metrics(1.0, unit="km"), "Metrics.figures row 0 (name figure0), unit: 'm' -> 'km'", math.inf),
        (metrics(1.0), metrics(math.nan), "Metrics.figures row 0 (name figure0), value: 1.0 -> nan", math.inf),
        (points(), points(1.5), "PointTracks.xy_px [1, 2, 0]: 1.0 -> 1.5", 0.5),
        (clip(), clip(7), "Clip.frames frame 2, pixel x 3 y 1: [0, 0, 0] -> [7, 7, 7]", 7.0),
        (clip(), clip(name="other"), "Clip.name: 'toy' -> 'other'", math.inf),
        (clip(), clip(camera_height_m=1.5), "Clip.camera_height_m: nothing -> 1.5", math.inf),
        (clip(provenance={"a": {"b": [1, 2]}}), clip(provenance={"a": {"b": [1, 3]}}), "Clip.provenance a.b[1]: 2 -> 3", 1.0),
        (clip(intrinsics=np.eye(3)), clip(), "Clip.intrinsics: float64 [3, 3] -> nothing", math.inf),
        (metrics(1.0), points(), "Metrics: 'Metrics' -> 'PointTracks'".replace("'", ""), math.inf),
    ],
)
def test_the_first_difference_names_field_place_and_both_values(one, other, told, distance):
    assert str(first_difference(one, other)) == told
    assert largest_difference(one, other) == distance


def test_negative_zero_differs_as_it_does_for_the_digest():
    assert str(first_difference(points(0.0), points(-0.0))) == "PointTracks.xy_px [1, 2, 0]: 0.0 -> -0.0"


def test_files_are_told_apart_by_their_first_byte_that_differs(tmp_path):
    before, after = source(tmp_path, b"a" * 3_000_000 + b"left"), source(tmp_path, b"a" * 3_000_000 + b"lift!")
    difference = first_difference(before, after)
    assert difference is not None
    assert (difference.field, difference.where) == ("files", "film.mp4, byte 3000001")
    assert "left" in difference.recorded
    assert "lift" in difference.remade
