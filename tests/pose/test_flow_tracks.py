import numpy as np
from drives import texture

from stages.pose.flow_tracks import features_per_frame, follow_corners

SIZE = (400, 240)
STEP = np.array([6, 2])


def panned(count: int) -> np.ndarray:
    """A window that moves over a picture: what it shows moves by -STEP from frame to frame."""
    picture = texture(512, 5, stretch=2)
    corners = np.arange(count)[:, None] * STEP + 40
    return np.stack([picture[y : y + SIZE[1], x : x + SIZE[0]] for x, y in corners])


def test_corners_move_as_the_picture_does() -> None:
    tracks = follow_corners(panned(8), SIZE, 5.0)
    assert np.all(np.diff(tracks.frame) >= 0)
    errors, lengths = [], []
    for number in np.unique(tracks.track):
        rows = np.flatnonzero(tracks.track == number)
        assert np.all(np.diff(tracks.frame[rows]) == 1)  # followed without a gap, once per frame
        errors += np.abs(np.diff(tracks.xy[rows], axis=0) + STEP).max(axis=1).tolist()
        lengths.append(len(rows))
    assert np.median(lengths) >= 4
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.95) < 0.1  # at the border half a window is left to follow


def test_corners_begin_where_none_is_followed() -> None:
    tracks = follow_corners(panned(8), SIZE, 5.0)
    last = tracks.xy[tracks.frame == 7]
    assert (last[:, 0] > SIZE[0] - 5 * STEP[0]).any()  # what came into view after the first frame
    distance = np.linalg.norm(last[:, None] - last, axis=2) + 100 * np.eye(len(last))
    assert distance.min() > 2


def test_large_frames_are_followed_reduced_and_come_out_in_their_own_pixels() -> None:
    large = np.repeat(np.repeat(panned(3), 4, axis=1), 4, axis=2)
    tracks = follow_corners(large, (1600, 960), 5.0)
    rows = [np.flatnonzero(tracks.track == number) for number in np.unique(tracks.track[tracks.frame == 2])]
    moved = np.concatenate([np.diff(tracks.xy[row], axis=0) for row in rows if len(row) > 1])
    assert np.abs(np.median(moved, axis=0) + 4 * STEP).max() < 0.2


def test_a_wall_without_texture_has_no_features_and_no_tracks() -> None:
    wall = np.full((3, 120, 160, 3), 90, np.uint8)
    assert features_per_frame(wall, 0.0067) == 0
    assert len(follow_corners(wall, (160, 120), 5.0).frame) == 0
    assert features_per_frame(panned(1), 0.0067) > 50
