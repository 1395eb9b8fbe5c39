"""The street detector's parts: what is taught, what is read off, how frames are changed, and where vehicles are placed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import WorldlineError
from worldline.detection import StreetDetector, detect_vehicles, encoder_features, load_detector, save_detector, segment_lanes
from worldline.detection.agents import projected_extents
from worldline.detection.augmentation import degrade, random_view
from worldline.detection.placing import place_detections
from worldline.detection.targets import centre_loss, lane_loss, sides_loss, targets_of
from worldline.metrics.driving import box_iou
from worldline.worlds import Lens
from worldline.worlds.truth import projected_extent

INTRINSICS = np.array([[154.0, 0, 96], [0, 154, 56], [0, 0, 1]])
WORLD_FROM_CAMERA = np.array([[0.0, 0, 1, 2], [-1, 0, 0, 3], [0, -1, 0, 1.6], [0, 0, 0, 1]])


class ToldNetwork(StreetDetector):
    """Answers with given maps whatever it is shown."""

    def __init__(self, centre: np.ndarray, sides: np.ndarray, lanes: np.ndarray):
        super().__init__()
        self.told = tuple(torch.from_numpy(part.astype(np.float32)) for part in (centre, sides, lanes))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first, second, third = (part.expand(len(pixels), *part.shape) for part in self.told)
        return first, second, third


def test_boxes_that_are_taught_are_those_that_are_read_off():
    boxes = np.array([[10.0, 20, 31, 33], [60.5, 40.25, 75, 50], [100, 30, 107, 37], [150, 20, 192, 80]])
    targets = targets_of(boxes, np.ones(4, bool), 192, 112)
    network = ToldNetwork(np.where(targets.centre == 1, 5.0, -5.0), targets.sides, np.full((112, 192), -5.0))
    found = detect_vehicles(network, np.zeros((1, 112, 192, 3), np.uint8))[0]
    assert len(found) == 4
    np.testing.assert_allclose(box_iou(boxes, found[:, :4]).max(axis=1), 1, atol=1e-6)


def test_what_must_not_be_judged_is_not_taught():
    boxes = np.array([[10.0, 20, 31, 33], [60, 40, 75, 50]])
    targets = targets_of(boxes, np.array([True, False]), 192, 112)
    assert (targets.centre == 1).sum() == 1
    assert targets.counted[11, 16] == 0  # the middle of the second box
    assert targets.counted[6, 5] == 1
    assert targets.taught.sum() == pytest.approx(1)


def test_of_two_vehicles_that_claim_a_cell_the_smaller_has_it():
    boxes = np.array([[10.0, 10, 90, 90], [46, 46, 56, 56]])
    targets = targets_of(boxes, np.ones(2, bool), 192, 112)
    np.testing.assert_allclose(targets.sides[:, 12, 12], [50 - 46, 50 - 46, 56 - 50, 56 - 50])


def test_of_boxes_that_cover_each_other_almost_fully_the_better_is_kept():
    centre = np.full((28, 48), -5.0)
    centre[10, 10], centre[10, 13] = 3.0, 2.0
    sides = np.full((4, 28, 48), 40.0)
    assert len(detect_vehicles(ToldNetwork(centre, sides, np.zeros((112, 192))), np.zeros((1, 112, 192, 3), np.uint8))[0]) == 1


def test_losses_are_smallest_for_the_truth():
    boxes = np.array([[10.0, 20, 31, 33], [60, 40, 75, 50]])
    targets = targets_of(boxes, np.ones(2, bool), 192, 112)
    centre, counted, sides, taught = (
        torch.from_numpy(part)[None] for part in (targets.centre, targets.counted, targets.sides, targets.taught)
    )
    true = torch.where(centre == 1, 9.0, -9.0)
    assert centre_loss(true, centre, counted) < 0.01 < centre_loss(-true, centre, counted)
    assert sides_loss(sides, sides, taught) == pytest.approx(0, abs=1e-6)
    half = sides_loss(sides / 2, sides, taught)  # a box of half the size inside: IoU 1/4, nothing around but the union
    assert half == pytest.approx(0.75, abs=1e-5)
    lanes = (torch.rand(1, 8, 8, generator=torch.manual_seed(0)) > 0.5).float()
    assert lane_loss(20 * (2 * lanes - 1), lanes, torch.ones(1, 8, 8)) == pytest.approx(0, abs=1e-3)
    assert lane_loss(-20 * (2 * lanes - 1), lanes, torch.ones(1, 8, 8)) > 5
    assert lane_loss(-20 * (2 * lanes - 1), lanes, torch.zeros(1, 8, 8)) == pytest.approx(0)


def test_boxes_follow_what_they_surround_into_a_random_view():
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(30):
        image = np.zeros((112, 192, 3), np.uint8)
        image[40:70, 80:120] = 255
        view, boxes, lanes = random_view(rng, image, np.array([[80.0, 40, 120, 70]]), image[..., 0] > 0, 160, 96)
        assert view.shape == (96, 160, 3)
        rows, columns = np.nonzero(view[..., 0] > 160)
        expected = np.clip(boxes[0], 0, (160, 96, 160, 96))
        assert np.abs(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - expected).max() <= 1.01
        assert np.mean(lanes != (view[..., 0] > 127)) < 0.005
        seen += not np.allclose(boxes[0] @ [1, 0, -1, 0], -40 * 96 / 112)
    assert seen > 10


def test_degraded_frames_are_still_about_the_same_and_decided_by_the_generator():
    image = np.random.default_rng(0).integers(0, 255, (7, 12, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    first, again, other = (degrade(np.random.default_rng(seed), image) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    correlations = [np.corrcoef(degrade(np.random.default_rng(seed), image).ravel(), image.ravel())[0, 1] for seed in range(40)]
    assert np.median(correlations) > 0.9


def test_extents_are_those_of_the_worlds_own_projection():
    lens = Lens(192, 112, 154.0)
    rng = np.random.default_rng(6)
    for _ in range(30):
        bottom, size = rng.uniform([2, -6, -1], [30, 6, 1]), rng.uniform([1, 1, 1], [6, 2.5, 3])
        yaw = rng.uniform(-np.pi, np.pi)
        flat = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * size[:2] / 2
        turned = flat @ np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        corners = np.concatenate([np.column_stack([turned, np.full(4, level)]) for level in (0, size[2])]) + bottom
        expected = projected_extent(corners, lens, WORLD_FROM_CAMERA)
        found = projected_extents(bottom[None], size[None], np.array([yaw]), WORLD_FROM_CAMERA, INTRINSICS)[0]
        found = np.clip(found, 0, (192, 112, 192, 112))
        if expected is None:
            assert not (np.isfinite(found).all() and (found[2:] > found[:2]).all())
        else:
            np.testing.assert_allclose(found, expected, atol=0.5 if bottom[0] < 7 else 1e-6)


def test_a_box_behind_the_camera_has_no_extent():
    behind = projected_extents(np.array([[-20.0, 3, 0]]), np.ones((1, 3)), np.zeros(1), WORLD_FROM_CAMERA, INTRINSICS)
    assert np.isnan(behind).all()


def test_a_vehicle_is_placed_where_it_was_seen_whatever_place_it_is_expected_at():
    true = np.array([[20.0, 1.5, 0], [35, 6, 0.2], [12, 4, 0], [45, -1, 0]])
    sizes, yaws = np.array([[4.4, 1.8, 1.5]] * 4), np.array([0.0, 3.0, 0.4, 1.5])
    seen = projected_extents(true, sizes, yaws, WORLD_FROM_CAMERA, INTRINSICS)
    expected = true + np.array([[3.0, -1, 0], [-4, 0.5, 0], [1, 1, 0], [6, -2, 0]])
    placed = place_detections(seen, expected, sizes, yaws, WORLD_FROM_CAMERA, INTRINSICS)
    np.testing.assert_allclose(placed, true, atol=0.02)


def test_frames_of_any_size_and_none_are_looked_at():
    network = StreetDetector().eval()
    images = np.random.default_rng(0).integers(0, 255, (2, 70, 100, 3)).astype(np.uint8)
    assert [boxes.shape[1] for boxes in detect_vehicles(network, images, 0.0)] == [5, 5]
    assert segment_lanes(network, images).shape == (2, 70, 100)
    assert detect_vehicles(network, images[:0]) == []
    assert segment_lanes(network, images[:0]).shape == (0, 70, 100)
    assert np.isfinite(encoder_features(network, images)).all()
    assert len(encoder_features(network, images)) == 2


def test_weights_survive_in_half_precision_and_are_small(tmp_path: Path):
    torch.manual_seed(0)
    network = StreetDetector().eval()
    files = save_detector(tmp_path, network, {"steps": 3})
    assert sum(path.stat().st_size for path in files.values()) < 3e6
    images = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3)).astype(np.uint8)
    again = encoder_features(load_detector(files), images)
    np.testing.assert_allclose(again, encoder_features(network, images), rtol=0.02, atol=5e-3)


def test_files_that_are_no_detector_are_refused_in_one_sentence(tmp_path: Path):
    with pytest.raises(WorldlineError, match=r"lacks config\.json and model\.safetensors"):
        load_detector({})
    files = save_detector(tmp_path, StreetDetector((8, 8, 8, 8)), {})
    other = save_detector(tmp_path / "other", StreetDetector(), {})
    with pytest.raises(WorldlineError, match="holds no street detector") as caught:
        load_detector(files | {"model.safetensors": other["model.safetensors"]})
    assert "\n" not in str(caught.value)
