"""How an object is named where no image shows it: by where it is, as people would tell it, or not at all."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from motions import camera_path, straight, tracks_of

from schemas.tracks import Tracks
from stages.label.phrases import referring_phrases

TIMES = np.arange(41) * 0.1


def without_boxes(tracks: Tracks) -> Tracks:
    samples = tracks.samples
    for name in ("x0_px", "y0_px", "x1_px", "y1_px"):
        samples = samples.set_column(samples.schema.get_field_index(name), name, pa.nulls(samples.num_rows, pa.float64()))
    return dataclasses.replace(tracks, samples=samples)


def name(tracks: Tracks, path, *ids: int, start_s: float = 1.0) -> list[str | None]:
    count = len(ids)
    return referring_phrases(tracks, path, np.array(ids), np.full(count, start_s), np.full(count, start_s + 2))[0].tolist()


# The camera drives along x at 5 m/s and looks along x, so left of it is +y.
PLACES = {1: straight((17, 9), (0, 0)), 2: straight((17, -6.4), (0, 0)), 3: straight((-7, 0.2), (0, 0))}


def test_from_the_camera_in_whole_metres_at_the_first_sample_of_the_window() -> None:
    path = camera_path(TIMES, speed=5.0)
    tracks = without_boxes(tracks_of(path, PLACES))
    assert name(tracks, path, 1, 2, 3, 0) == [
        "the car 12 m ahead and 9 m left of the camera at 1.0 s",
        "the car 12 m ahead and 6 m right of the camera at 1.0 s",
        "the car 12 m behind the camera at 1.0 s",
        "the camera",
    ]
    assert name(tracks, path, 3, start_s=0.0) == ["the car 7 m behind the camera at 0.0 s"]
    assert name(tracks, path, 1, start_s=2.0) == ["the car 7 m ahead and 9 m left of the camera at 2.0 s"]


def test_in_coordinates_where_there_is_no_camera() -> None:
    path = camera_path(TIMES, verdict="none", registered=np.zeros(len(TIMES), bool))
    assert name(without_boxes(tracks_of(path, PLACES)), path, 2) == ["the car at x = 17 m, y = -6 m at 1.0 s"]


def test_two_of_a_kind_within_three_metres_have_no_name_and_another_kind_does_not_matter() -> None:
    path = camera_path(TIMES)
    near = {
        1: straight((17, 9), (0, 0)),
        2: straight((17, 11), (0, 0)),
        3: straight((17, 10), (0, 0)),
        4: straight((90, 0), (0, 0)),
    }
    near[5] = straight((60, 0), (0, 0))
    tracks = without_boxes(tracks_of(path, near, classes={3: "pedestrian", 5: "pedestrian"}))
    assert name(tracks, path, 1, 2) == [None, None]
    assert name(tracks, path, 3) == ["the pedestrian 17 m ahead and 10 m left of the camera at 1.0 s"]


@pytest.mark.parametrize("change", [{"origin": "video"}, {"scale_source": "none"}])
def test_places_are_told_of_annotated_tracks_in_metres_alone(change: dict) -> None:
    path = camera_path(TIMES)
    tracks = dataclasses.replace(without_boxes(tracks_of(path, PLACES)), **change)
    assert name(tracks, path, 1, 2) == [None, None]
