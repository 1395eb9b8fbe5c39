import numpy as np
import pytest

from schemas.cameras import CameraPath
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.scenes import Scene4D
from stages.generate.scene_prior import ScenePriorConfig, draw_scene_prior
from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, rigid

TIMES = np.array([0.0, 0.1])


def _path(places: list[tuple[float, float, float]], times: np.ndarray = TIMES) -> CameraPath:
    """At twice the conditions' size."""
    intrinsics = np.array([[160.0, 0, 64], [0, 160, 48], [0, 0, 1]])
    return CameraPath(
        times, rigid(WORLD_FROM_LEVEL_CAMERA, np.array(places)), np.ones(len(times), bool), intrinsics, np.zeros(4), 128, 96,
        "moving", "given", 0.0, "given", 0.0, 0.0,
    )  # fmt: skip


def _conditions() -> Conditions:
    colours, numbers = np.zeros((2, 48, 64, 3), np.uint8), np.zeros((2, 48, 64), np.uint16)
    return Conditions(
        TIMES, *(Video.from_array(array) for array in (colours, colours, numbers, colours, numbers)),
        first_frame=colours[0], text="", offset_m=np.zeros((2, 2)), prior_source="none",
    )  # fmt: skip


def _ball() -> Scene4D:
    """One opaque red Gaussian ten metres ahead, on green."""
    return Scene4D(
        "static", np.array([[10.0, 0, 0]], np.float32), np.array([[1.0, 0, 0, 0]], np.float32), np.full((1, 3), 0.4, np.float32),
        np.array([0.99], np.float32), np.array([[1.0, 0, 0]], np.float32), {}, 0.0, 0.1, np.array([0.0, 1, 0]), "given", 0.0,
    )  # fmt: skip


def test_the_prior_is_the_scene_seen_from_the_novel_path_and_known_as_far_as_it_is_opaque() -> None:
    seen = draw_scene_prior(_ball(), _conditions(), _path([(0, 0, 0), (0, 2.0, 0)]), ScenePriorConfig(), seed=0)
    assert seen.prior_source == "scene"
    prior, known, depth = seen.prior.array(), seen.known.array(), seen.depth_cm.array()
    shifted = round(80 * 2.0 / 10)  # pixels to the right at the conditions' size, for a camera two metres to the left
    for frame, column in ((0, 32), (1, 32 + shifted)):
        assert prior[frame, 24, column, 0] > 230
        assert known[frame, 24, column] > 230
        assert depth[frame, 24, column] == pytest.approx(1000, abs=1)
        assert prior[frame, 2, 2].tolist() == [0, 255, 0]
        assert known[frame, 2, 2] == depth[frame, 2, 2] == 0
    assert known[1, 24, 32] < known[1, 24, 32 + shifted]


def test_a_path_of_another_log_is_refused() -> None:
    with pytest.raises(WorldlineError, match="2 frames, the path 3"):
        draw_scene_prior(_ball(), _conditions(), _path([(0, 0, 0)] * 3, np.arange(3) / 10), ScenePriorConfig(), seed=0)
