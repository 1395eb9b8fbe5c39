import numpy as np
import pytest
from drives import INTRINSICS, draw_corridor, texture, true_drive

from schemas.media import Video
from stages.pose.pairs import sequential_pairs
from stages.pose.strategy import StrategyConfig, choose_strategy, measure_continuity

SMALL = np.diag([0.75, 0.75, 1.0]) @ INTRINSICS
SIZE = (480, 270)


def continuity(frames: np.ndarray) -> float:
    return measure_continuity(Video.from_array(frames), (frames.shape[2], frames.shape[1]), 5.0)


def test_a_film_is_continuous_and_photos_are_not() -> None:
    film = draw_corridor(true_drive(6), SMALL, SIZE)  # at half a metre from frame to frame, past walls three metres away
    photos = np.stack([texture(270, seed, stretch=2)[:, :480] for seed in range(5)])
    assert continuity(film) > 0.3
    assert continuity(photos) < 0.1


def test_frames_without_corners_and_a_single_frame_count_as_film() -> None:
    assert continuity(np.full((3, 90, 160, 3), 80, np.uint8)) == 1.0
    assert continuity(np.full((1, 90, 160, 3), 80, np.uint8)) == 1.0


@pytest.mark.parametrize(
    ("count", "share", "pairing", "loops"),
    [
        (12, 0.9, "sequential", False),
        (200, 0.9, "sequential", True),
        (29, 0.05, "exhaustive", False),
        (500, 0.05, "retrieval", False),
    ],
)
def test_pairs_follow_from_continuity_and_number(count: int, share: float, pairing: str, loops: bool) -> None:
    strategy = choose_strategy(count, share, 8, StrategyConfig())
    assert (strategy.pairing, strategy.loops) == (pairing, loops)
    assert f"{100 * share:.0f} % of corners" in strategy.why
    assert strategy.photos == (pairing != "sequential")


def test_what_is_asked_for_is_done_whatever_the_footage() -> None:
    strategy = choose_strategy(29, 0.95, 8, StrategyConfig(pairs="exhaustive"))
    assert (strategy.pairing, strategy.pairs, strategy.why) == ("exhaustive", 29 * 28 / 2, "asked for")
    assert not choose_strategy(400, 0.9, 8, StrategyConfig(loop_neighbours=0)).loops


def test_ten_thousand_frames_are_planned_without_reading_any() -> None:
    strategy = choose_strategy(10_000, 0.9, 8, StrategyConfig())
    assert len(strategy.windows) == 67
    assert max(stop - start for start, stop in strategy.windows) <= 200
    near = len(sequential_pairs(10_000, 8))
    assert near < strategy.pairs < 3 * near  # the rest is room for loops


def test_a_clip_that_fits_one_window_is_solved_at_once() -> None:
    assert choose_strategy(200, 0.9, 8, StrategyConfig()).windows == ((0, 200),)
    assert choose_strategy(5000, 0.0, 8, StrategyConfig()).windows == ((0, 5000),)  # photos have no order to cut
