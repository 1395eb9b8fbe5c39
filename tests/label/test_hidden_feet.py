"""How far a walker goes on below the region that was found of it, from the background that it hides."""

import numpy as np
import pytest

from stages.label.hidden_feet import hidden_share

FRAMES = 25


def background(hide: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of the background, one per 10 x 10 pixels and new in every frame; none in `hide` (x0, y0, x1, y1 per frame)."""
    xy_px = np.random.default_rng(seed).uniform([0, 0], [320, 240], (768, FRAMES, 2)).astype(np.float32)
    hidden = ((xy_px > hide[None, :, :2]) & (xy_px < hide[None, :, 2:])).all(axis=2)
    return xy_px, ~hidden


def walker(share: float, height: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of an upper half that walks to the right, and of the whole, which is longer by a share of that half."""
    left = 40 + 4.0 * np.arange(FRAMES)
    half = np.stack([left, np.full(FRAMES, 60.0), left + 16, np.full(FRAMES, 60.0 + height)], axis=1)
    return half, half + np.array([0, 0, 0, share * height])


@pytest.mark.parametrize("share", [0.5, 0.9, 1.1])
def test_legs_without_points_are_as_long_as_the_background_that_they_hide(share: float) -> None:
    half, whole = walker(share)
    assert hidden_share(half, np.arange(FRAMES), *background(whole)) == pytest.approx(share, abs=0.11)


def test_what_stands_where_its_region_ends_hides_nothing_below() -> None:
    half, _ = walker(0.0)
    assert hidden_share(half, np.arange(FRAMES), *background(half)) == 0


def test_a_wide_region_has_no_legs_whatever_its_shadow_hides() -> None:
    half, whole = walker(0.5)
    wide = np.array([-20, 0, 20, 0.0])
    assert hidden_share(half + wide, np.arange(FRAMES), *background(whole + wide)) == 0


def test_where_the_background_does_not_come_back_the_end_is_unknown() -> None:
    half, whole = walker(2.5)
    assert hidden_share(half, np.arange(FRAMES), *background(whole)) == np.inf


def test_a_road_without_any_points_tells_nothing() -> None:
    half, _ = walker(0.0)
    xy_px, visible = background(half)
    visible &= xy_px[..., 1] < 100
    assert hidden_share(half, np.arange(FRAMES), xy_px, visible) == 0
