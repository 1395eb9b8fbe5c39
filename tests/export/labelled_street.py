"""A published version of two clips of the checkered street: `free` may be sold, `bound` may not."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from street_dataset import TIMES_S, draw_frame, make_kinematics, make_path, make_questions, make_tracks

from catalogs.catalog import Catalog, Execution
from catalogs.governance import give_terms
from catalogs.versions import publish
from schemas.artifact import Artifact, Files
from schemas.clips import Clip, Source
from schemas.labels import Questions
from schemas.media import Video

LICENCES = {"free": "CC-BY-4.0", "bound": "CC-BY-NC-4.0"}


def made_clip(name: str, width: int = 320) -> Clip:
    poses = make_path().world_from_camera
    frames = np.stack([draw_frame(pose, time_s)[0] for pose, time_s in zip(poses, TIMES_S, strict=True)])
    return Clip(frames=Video.from_array(frames[:, :, :width]), times_s=TIMES_S, name=name)


def asked(name: str) -> Questions:
    """The street's questions with ids of their own."""
    questions = make_questions()
    ids = [hashlib.sha256(f"{name}/{key}".encode()).hexdigest()[:32] for key in questions.rows["question_id"].to_pylist()]
    rows = questions.rows.set_column(0, questions.rows.schema.field(0), [ids])
    return Questions(rows=rows.sort_by([("kind", "ascending"), ("question_id", "ascending")]), rejections=questions.rejections)


def artifacts_of(name: str) -> dict[str, Artifact]:
    path = make_path()
    return {"clip": made_clip(name), "path": path, "tracks": make_tracks(path), "kinematics": make_kinematics(),
            "questions": asked(name)}  # fmt: skip


def publish_street(home: Path, changes: dict[str, Any] | None = None) -> Catalog:
    """Publish `street`; `changes` replaces artifacts of `free` by role (None leaves one out)."""
    catalog = Catalog.open(home)
    roles = {}
    for name, licence in LICENCES.items():
        path = home.parent / f"{name}.mp4"
        path.write_bytes(name.encode())
        source = Source(files=Files({path.name: path}), layout="video", name=path.name)
        with catalog.scratch_folder() as scratch:
            given = catalog.adopt(catalog.put(source, scratch)).digest
        give_terms(catalog, given, licence=licence, attribution=f"{name} people")
        found = artifacts_of(name) | ((changes or {}) if name == "free" else {})
        for role, artifact in found.items():
            if artifact is not None:
                roles[f"{name}/{role}"] = record(catalog, artifact, f"{name}/{role}", given)
    publish(catalog, "street", {"source": "two"}, roles, {})
    return catalog


def record(catalog: Catalog, artifact: Artifact, name: str, source: str) -> str:
    with catalog.scratch_folder() as scratch:
        made = catalog.put(artifact, scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        key = hashlib.sha256(name.encode()).hexdigest()
        run = Execution(key=key, stage=f"toy.{name.rpartition('/')[2]}", version=3, code="c",
                        code_files={}, config={}, seed=0, inputs={"source": source}, outputs=(made,), status="ok",
                        started_at=0.0, seconds=1.0, peak_memory_bytes=1, machine={}, packages={}, **fields)  # fmt: skip
        catalog.record(run)
    return made.digest
