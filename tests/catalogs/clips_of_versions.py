"""Small published versions of many clips, with everything that a sample can hold."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from catalog_workers import key_of, put, run_of

from catalogs.catalog import Catalog
from catalogs.splits import SplitRule
from catalogs.versions import publish
from schemas.artifact import Artifact, make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.labels import KINEMATIC_STATES, KINEMATIC_WINDOWS, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks

RATE_HZ = 10.0


def rows(schema: pa.Schema, given: list[dict[str, Any]]) -> pa.Table:
    return rows_to_table(schema, [{**dict.fromkeys(schema.names), **row} for row in given])


def pictures(seed: int, frames: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def times_of(frames: int) -> np.ndarray:
    """Ten frames a second, not quite even."""
    return np.arange(frames) / RATE_HZ + 0.004 * (np.arange(frames) % 3)


def members(seed: int, frames: int, **size: int) -> dict[str, Artifact]:
    """Return a clip and what was found in it; a label of kind "n" spans the frames of [n, n + 3]."""
    times = times_of(frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = 100 * seed + np.arange(frames)
    labels = [
        {"question_id": hashlib.sha256(f"{seed}/{first}".encode()).hexdigest()[:20], "kind": str(first), "question": "How far?",
         "answer": "3 m", "track_ids": [1], "start_s": times[first], "end_s": times[first + 3], "metric": True}
        for first in range(0, frames - 3, 2)
    ]  # fmt: skip
    samples = [
        {"track_id": track, "frame": frame, "time_s": times[frame], "x": float(seed)}
        for track in (1, 2)
        for frame in range(frames)
    ]
    states = [{"track_id": 0, "time_s": time} for time in np.arange(0, times[-1], 0.05)]
    spans = [
        {"track_id": 0, "start_s": start, "end_s": start + 0.2, "state": "moving"} for start in np.arange(0, times[-1] - 0.2, 0.1)
    ]
    scale: Any = {"scale_source": "gps", "scale_sigma": 0.02, "gravity_source": "given"}
    rest: Any = {"gravity_sigma_rad": 0.01, "reprojection_error_px": 0.5}
    return {
        "clip": Clip(Video.from_array(pictures(seed, frames, **size)), times, f"clip {seed}"),
        "path": CameraPath(times, poses, np.ones(frames, bool), np.eye(3), np.zeros(4), 24, 16, "moving", **scale, **rest),
        "tracks": Tracks(rows(TRACK_SAMPLES, samples), rows(TRACK_OBJECTS, [{"track_id": 1}]), "video", **scale),
        "kinematics": Kinematics(rows(KINEMATIC_STATES, states), rows(KINEMATIC_WINDOWS, spans), 0.05, **scale),
        "questions": Questions(rows(QUESTIONS, labels), make_table(REJECTIONS, {"kind": [], "reason": [], "count": []})),
    }  # fmt: skip


def publish_clips(catalog: Catalog, lengths: dict[str, int], name: str = "streets") -> dict[str, dict[str, Artifact]]:
    """Publish clips of so many frames by name, half train, half test; the name "" makes a version of a single clip."""
    made = {clip: members(seed, frames) for seed, (clip, frames) in enumerate(lengths.items())}
    roles = {}
    for clip, artifacts in made.items():
        for role, artifact in artifacts.items():
            path = f"{clip}/{role}" if clip else role
            ref = put(catalog, artifact)
            catalog.record(run_of(key_of(name + path), f"toy.{role}", (ref,)))
            roles[path] = ref.digest
    publish(catalog, name, {"clips": len(made)}, roles, {}, split_rule=SplitRule(train=0.5, val=0.0, test=0.5))
    return made
