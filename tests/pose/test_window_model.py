"""Windows that were joined are adjusted as one, and a path that what was matched contradicts does not look right.

A camera drives down a street of landmarks and back; its true poses and landmarks are known, and feature k of every frame is
landmark k.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drives import INTRINSICS, true_drive

from worldline.cameras import invert_rigid, project, transform_points

ROOT = Path(__file__).resolve().parents[2]
THERE, WINDOWS = 20, ((0, 24), (16, 40))
RETURN = 10  # frames apart from which two that match are a return

# COLMAP cannot live beside OpenCV
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, pycolmap
from stages.pose.window_model import adjust, judge_pairs, model_of_windows, verified_pairs
from stages.pose.windows import Piece, join_poses

folder = Path(sys.argv[1])
pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
given = dict(np.load(folder / "given.npz"))
path = folder / "colmap.db"
with pycolmap.Database.open(str(path)) as database:
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=360, params=given["lens"])
    camera.camera_id = database.write_camera(camera)
    count = len(given["keypoints"])
    for frame in range(count):
        number = database.write_image(pycolmap.Image(name=f"{frame}.png", camera_id=camera.camera_id))
        database.write_keypoints(number, given["keypoints"][frame].astype(np.float32))
    for first in range(count):
        for second in range(first + 1, count):
            both = np.flatnonzero(given["visible"][first] & given["visible"][second]).astype(np.uint32)
            if len(both) and given["paired"][first, second]:
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
                geometry.inlier_matches = np.stack([both, both], axis=1)
                database.write_two_view_geometry(first + 1, second + 1, geometry)
names = ("frames", "world_from_camera", "xyz", "observation_frame", "observation_feature", "observation_point")
pieces = [Piece(*(given[f"{name}_{number}"] for name in names)) for number in range(int(given["windows"]))]
joined, pairs = join_poses(pieces), verified_pairs(pycolmap, path)
model, features = model_of_windows(pycolmap, path, pieces, joined, pairs)
adjust(pycolmap, model, True)
agreement = judge_pairs(pycolmap, path, model, features, pairs, int(given["apart"]))
centres = [model.image(int(frame) + 1).projection_center().tolist() for frame in joined.frames]
points = [point.track.length() for point in model.points3D.values()]
print(json.dumps([agreement.kept.tolist(), agreement.returns, agreement.contradicted, centres, points]))
"""


@pytest.fixture
def street() -> dict[str, np.ndarray]:
    poses = true_drive(THERE)
    poses = np.concatenate([poses, poses[::-1]])
    landmarks = np.random.default_rng(5).uniform([0, -8, -1.6], [25, 12, 6], (400, 3))
    local = transform_points(invert_rigid(poses), landmarks[None])
    keypoints, depth = project(local, INTRINSICS)
    visible = (depth > 2) & np.all((keypoints > 0) & (keypoints < [640, 360]), axis=-1)
    frame = np.arange(len(poses))
    apart = abs(frame[:, None] - frame)
    paired = (apart <= 3) | (abs(frame[:, None] + frame - (2 * THERE - 1)) <= 1)  # neighbours, and the same place on the way back
    return {"poses": poses, "landmarks": landmarks, "keypoints": keypoints, "visible": visible, "paired": paired}


def judged(folder: Path, street: dict[str, np.ndarray], poses: np.ndarray, windows: tuple, parts: tuple = ()) -> tuple:
    """Join windows whose maps have these poses, each `part` of the frames with its own landmarks, carried along rigidly."""
    arrays: dict[str, np.ndarray] = {}
    count = len(street["landmarks"])
    for number, (start, stop) in enumerate(windows):
        frame, feature = np.nonzero(street["visible"][start:stop])
        frame += start
        part = np.searchsorted(np.array(parts), frame, side="right") if parts else np.zeros(len(frame), int)
        xyz = []
        for index in range(len(parts) + 1):
            of = parts[index - 1] if index else start  # a frame of the part, which says where the part lies
            xyz.append(transform_points(poses[of] @ invert_rigid(street["poses"][of]), street["landmarks"]))
        arrays |= {
            f"frames_{number}": np.arange(start, stop),
            f"world_from_camera_{number}": poses[start:stop],
            f"xyz_{number}": np.concatenate(xyz),
            f"observation_frame_{number}": frame,
            f"observation_feature_{number}": feature,
            f"observation_point_{number}": feature + count * part,
        }
    lens = INTRINSICS[[0, 1, 0, 1], [0, 1, 2, 2]]
    np.savez(folder / "given.npz", **street, **arrays, windows=len(windows), apart=RETURN, lens=lens)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kept, returns, contradicted, centres, lengths = json.loads(done.stdout.splitlines()[-1])
    return kept, returns, contradicted, np.array(centres), lengths


def test_windows_become_one_model_whose_points_are_seen_on_the_way_there_and_back(tmp_path: Path, street: dict) -> None:
    kept, returns, contradicted, centres, lengths = judged(tmp_path, street, street["poses"], WINDOWS)
    assert kept == list(range(2 * THERE))
    assert returns > 0
    assert contradicted == 0
    np.testing.assert_allclose(centres, street["poses"][:, :3, 3], atol=1e-3)
    assert max(lengths) > WINDOWS[0][1]  # longer than any window has frames


def test_frames_beyond_a_leap_that_matches_contradict_are_left_out(tmp_path: Path, street: dict) -> None:
    leaped = street["poses"].copy()
    leaped[25:, 1, 3] += 6.0
    kept, _, contradicted, _, _ = judged(tmp_path, street, leaped, ((0, 2 * THERE),), parts=(25,))
    assert kept == list(range(25))
    assert contradicted > 0
