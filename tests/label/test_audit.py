"""The audit: labels beside a truth that was made by hand."""

import dataclasses

import numpy as np
import pytest
from motions import camera_path, right_turn, straight, tracks_of, truth_of

from schemas.tracks import Truth
from stages.contract import no_progress
from stages.label.audit import AuditConfig, audit_labels
from stages.label.audit_figures import risk_coverage, sum_up
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.window_rules import WindowRules

TIMES = np.arange(81) * 0.1
MOTIONS = {11: straight((30, 9), (0, -2)), 12: right_turn((10, 2), 3.0, 3.0, 4.6), 13: straight((25, 4), (0, 0))}
MOVING = {11: True, 12: True, 13: False}
KINEMATICS = KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9, min_box_iou=0.0))


def audit(estimated, truth=None, path=None, true_path=None, **options):
    path = path or camera_path(TIMES)
    truth = truth or truth_of(true_path or path, MOTIONS, MOVING)
    tracks = tracks_of(path, estimated, **options)
    kinematics = estimate_kinematics(tracks, path, KINEMATICS, seed=0, progress=no_progress)
    return audit_labels(tracks, kinematics, path, truth, AuditConfig(kinematics=KINEMATICS), seed=0, progress=no_progress)


def told(*audits):
    return {(item.grouping, item.group, item.measure): item.value for item in sum_up(audits)}


def longer(factor):
    """Tracks of the two movers with all lengths from the (standing) camera too long by a factor, in the same image boxes."""
    return {1: lambda times: factor * MOTIONS[11](times), 2: lambda times: factor * MOTIONS[12](times)}


BOXES = {1: MOTIONS[11], 2: MOTIONS[12]}


def test_perfect_tracks_have_no_error_and_their_objects_are_found_and_labelled():
    found = told(audit(dict(zip((1, 2, 3), MOTIONS.values(), strict=True))))
    assert found["all", "", "error, median"] < 0.5
    assert [found["all", "", f"movers {word}"] for word in ("visible", "found", "labelled")] == [2, 2, 2]
    assert found["all", "", "false tracks"] == 0
    assert found["confusion", "truly moving", "called static"] == found["confusion", "truly static", "called moving"] == 0
    assert found["confusion", "truly static", "called static"] > 0
    assert found["all", "", "clock direction exact"] > 90


def test_a_wrong_scale_is_told_as_such_and_nothing_else_is_blamed():
    found = told(audit(longer(1.2), boxes=BOXES))
    added = {key[2]: value for key, value in found.items() if key[0] == "error split" and key[2].startswith("added")}
    assert added["added by scale"] == pytest.approx(20.0, abs=0.7)
    for name in ("smoothing", "poses", "tracking"):
        assert added[f"added by {name}"] == pytest.approx(0.0, abs=0.7)
    assert found["all", "", "bias"] == pytest.approx(20.0, abs=0.7)
    assert found["all", "", "within 25 %"] == 100.0
    assert found["all", "", "within 10 %"] == 0.0


def test_poses_that_drift_sideways_are_blamed_for_the_error_that_they_carry_into_true_boxes():
    """The estimated camera claims to slide left at 1.5 m/s while it truly drives straight ahead at 5 m/s."""
    true_path, crossing = camera_path(TIMES, speed=5.0), straight((60, -8), (0, 2))
    poses = true_path.world_from_camera.copy()
    poses[:, 1, 3] = 1.5 * TIMES
    path = dataclasses.replace(true_path, world_from_camera=poses)
    carried = straight((60, -8), (0, 3.5))  # where the wrong camera puts what it sees
    tracks = tracks_of(true_path, {1: carried}, boxes={1: crossing})
    kinematics = estimate_kinematics(tracks, path, KINEMATICS, seed=0, progress=no_progress)
    truth, config = truth_of(true_path, {11: crossing}, {11: True}), AuditConfig(kinematics=KINEMATICS)
    found = told(audit_labels(tracks, kinematics, path, truth, config, seed=0, progress=no_progress))
    scale = 1 / np.hypot(1, 0.3)  # that fits the slanted path to the true one
    expected = 100 * (np.hypot(5 * (scale - 1), 2 + 1.5 * scale) / 2 - 1)
    assert found["error split", "true boxes, poses and scale", "error, median"] < 0.2
    assert found["error split", "true boxes and scale, estimated poses", "error, median"] == pytest.approx(expected, abs=0.3)
    assert found["error split", "all estimated", "error, median"] == pytest.approx(75.0, abs=0.3)


def test_a_track_beside_every_true_box_is_a_false_one_that_carries_labels():
    found = told(audit({1: MOTIONS[11], 4: straight((15, -8), (0, 1))}))
    assert [found["all", "", name] for name in ("movers found", "false tracks", "false tracks labelled")] == [1, 1, 1]


def test_groups_hold_the_windows_that_belong_to_them():
    found = told(audit(longer(1.1), boxes=BOXES))
    # 11 moves at 2 m/s, 12 at 3 m/s; both are some 10 to 30 m away
    assert found["speed", "0.5 to 2.5 m/s", "movers found"] == found["speed", "2.5 to 8 m/s", "movers found"] == 1
    labels = [found["speed", group, "labels compared"] for group in ("0.5 to 2.5 m/s", "2.5 to 8 m/s")]
    assert sum(labels) == found["all", "", "labels compared"] == found["class", "car", "labels compared"]
    assert found["speed", "0.5 to 2.5 m/s", "speed error, mean"] == pytest.approx(3.6 * 0.2, abs=0.03)
    assert found["track length", "8 s and more", "labels compared"] == found["all", "", "labels compared"]


def test_two_clips_are_pooled():
    one = audit(longer(1.1), boxes=BOXES)
    both = told(one, audit(longer(1.3), boxes=BOXES))
    assert both["all", "", "movers visible"] == 4
    assert both["all", "", "bias"] == pytest.approx(20.0, abs=0.5)


def test_a_clip_without_truth_tells_of_nothing():
    made = audit(longer(1.0), truth=Truth.unavailable())
    assert (made.windows.num_rows, made.objects.num_rows) == (0, 0)
    assert told(made) == dict.fromkeys(told(made), 0)


def test_risk_and_coverage_by_hand():
    """Five candidates; the filter turns the fourth away, which therefore comes last whatever it says of itself."""
    error, sigma = np.array([0.1, 0.3, 0.2, 0.9, 0.5]), np.array([0.01, 0.02, 0.03, 0.001, 0.04])
    kept = np.array([True, True, True, False, True])
    curve = risk_coverage(error, sigma, kept, (0.2, 0.4, 0.8, 1.0))
    assert curve.median == pytest.approx([0.1, 0.2, 0.25, 0.3])
    assert curve.mean == pytest.approx([0.1, 0.2, 1.1 / 4, 2.0 / 5])
    assert curve.area == pytest.approx(np.mean([0.1, 0.2, 0.2, 1.1 / 4, 0.4]))


def test_no_candidates_have_no_curve():
    curve = risk_coverage(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    assert curve.count == len(curve.share) == 0


def test_where_nothing_was_tracked_the_movers_count_as_visible_and_not_found():
    found = told(audit({}))
    assert [found["all", "", f"movers {word}"] for word in ("visible", "found", "labelled")] == [2, 0, 0]
    assert ("all", "", "error, median") not in found


def test_labels_without_metres_are_audited_at_the_true_length_of_the_camera_path():
    """Everything, the camera's path too, is half as long as it is: only the unit is unknown, and no error is made."""
    true_path, ahead = camera_path(TIMES, speed=5.0), straight((30, 5), (6, 0))
    path = camera_path(TIMES, speed=2.5, scale_source="none")
    tracks = tracks_of(path, {1: lambda times: ahead(times) / 2}, boxes={1: lambda times: ahead(times) / 2}, height=0.75)
    kinematics = estimate_kinematics(tracks, path, KINEMATICS, seed=0, progress=no_progress)
    truth, config = truth_of(true_path, {11: ahead}, {11: True}), AuditConfig(kinematics=KINEMATICS)
    made = audit_labels(tracks, kinematics, path, truth, config, seed=0, progress=no_progress)
    found = told(made)
    assert made.scale_source == "none"
    assert found["all", "", "labels compared"] > 0
    assert found["all", "", "error, mean"] < 0.5
    for key, value in found.items():
        if key[0] == "error split":
            assert value == pytest.approx(0.0, abs=0.5)
