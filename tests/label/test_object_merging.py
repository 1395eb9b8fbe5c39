"""Pieces of one rigid object become one object; neighbours in traffic stay apart."""

import numpy as np

from stages.label.object_merging import MergingConfig, merge_objects

FOCAL, CENTRE, HEIGHT, FRAMES = 900.0, np.array([480.0, 270.0]), 1.6, 40
NOTHING_STANDS = [np.zeros((0, 2))] * FRAMES


def drive_behind(pieces: list[tuple[float, tuple[float, float], tuple[float, float], float]]) -> tuple[np.ndarray, ...]:
    """Track vertical patches `(range, (left, right), (bottom, top), speed)` in metres, as a camera at the origin sees them."""
    rng = np.random.default_rng(0)
    objects, pixels = [], []
    for name, (start, columns, rows, speed) in enumerate(pieces, start=1):
        body = np.stack([rng.uniform(*columns, 30), HEIGHT - rng.uniform(*rows, 30)], axis=1)
        depth = start + speed * 0.1 * np.arange(FRAMES)
        pixels.append(CENTRE + FOCAL * body[:, None] / depth[None, :, None] + rng.normal(0, 0.7, (30, FRAMES, 2)))
        objects += [name] * 30
    xy_px = np.concatenate(pixels).astype(np.float32)
    return np.array(objects), xy_px, np.ones(xy_px.shape[:2], bool), xy_px[..., 1].astype(float) - CENTRE[1]


def count_after_merging(pieces: list[tuple[float, tuple[float, float], tuple[float, float], float]]) -> int:
    objects, xy_px, visible, below = drive_behind(pieces)
    return len(np.unique(merge_objects(objects, xy_px, visible, below, NOTHING_STANDS, 960, MergingConfig(), 6)))


def test_two_flanks_and_the_plate_hanging_between_them_are_one_car() -> None:
    left, plate, right = (20, (-0.9, -0.4), (0, 1.4), 2), (20, (-0.35, 0.35), (0.6, 1.0), 2), (20, (0.4, 0.9), (0, 1.4), 2)
    assert count_after_merging([left, plate, right]) == 1


def test_cars_that_drive_side_by_side_at_different_ranges_stay_two() -> None:
    near, far = (14, (-0.9, 0.9), (0, 1.4), 2), (22, (1.6, 3.4), (0, 1.4), 2)
    assert count_after_merging([near, far]) == 2


def test_neighbours_that_move_differently_stay_two() -> None:
    car, overtaking = (20, (-0.9, 0.9), (0, 1.4), 0.5), (20, (1.1, 2.9), (0, 1.4), 6)
    assert count_after_merging([car, overtaking]) == 2


def test_a_narrow_thing_above_that_moves_on_its_own_is_not_taken_for_a_part_of_the_car_below() -> None:
    car, walker = (14, (-0.9, 0.9), (0, 1.4), 0), (25, (1.6, 2.1), (0, 1.7), 6)
    assert count_after_merging([car, walker]) == 2
