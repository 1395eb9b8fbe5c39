"""The labels and tracks of a dataset version in the formats that others train on: `worldline.label_files` as ways out.

Videos go along as H.264, every frame at its own time and in the pixels that the questions speak of. Beside the files of the
format lie `label_facts.parquet`, a row per label with what a trainer or a doubter needs of it, and `dropped.json`, which
counts every question that was not asked and every box that the format could not hold, by reason. Licences, splits and the
folder that appears whole or not at all are the catalog's (`catalogs.exports`).
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs.exports import Format, Member, Selection
from schemas.artifact import Artifact
from schemas.cameras import CameraPath
from schemas.canonical import hash_file
from schemas.clips import Clip
from schemas.driving import LidarSweeps, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.labels import Kinematics, Questions
from schemas.tracks import Tracks
from tasks.blurring import BLURRED, Blurring
from worldline.cameras import scale_intrinsics
from worldline.label_files.labelled_clip import LABEL_FACTS, Boxes, LabelledClip, boxes_of, of_split, split_folder

_KINDS = frozenset({"Clip", "CameraPath", "Tracks", "Kinematics", "Questions"})
_LOG_KINDS = frozenset({"Trajectory", "RoadMap", "LidarSweeps"})
_CRF = 18  # no visible loss
_FACTS = (
    "Videos are H.264, without visible loss, at the frames' own times. `label_facts.parquet` has a row per label: its window, "
    "frames, tracks, number, unit, 90 % interval, scale, wording, licence, and the SHA-256 and frame rate of its video. "
    "`dropped.json` counts, by kind and reason, what was not asked or could not be written."
)
_DRIVING = (
    "Boxes are in metres; `sequences.json` tells which file is which clip. Clips without metric scale or camera path, frames "
    "without a pose, and boxes without position, size or heading have no place in it; `dropped.json` counts them."
)
_JPEG_QUALITY = 95
_PNG_COMPRESSION = 3
_ABOUT = {
    "llava": "`train.json` (and val, test) lists conversations as LLaVA and Qwen-VL read them; about logs without video they "
    f"are text alone. {_FACTS}",
    "sharegpt": "`dataset_info.json` names the files for LLaMA-Factory: this folder is its dataset_dir. About logs without video "
    f"conversations are text alone. {_FACTS}",
    "videofolder": f'`datasets.load_dataset("videofolder", data_dir="data")` reads it, a row per label. {_FACTS}',
    "webdataset": "Shards `train-000000.tar`, ...; a clip is `KEY.mp4`, `KEY.json`, `KEY.cameras.npy`, `KEY.tracks.npy`. "
    f"{_FACTS}",
    "kitti-tracking": f"`label_02`, `calib` and `image_02` as KITTI tracking has them. {_DRIVING}",
    "argoverse2": f"`logs/NAME` holds annotations, ego poses and calibration as feather files. {_DRIVING}",
    "nuscenes": f"`NuScenes(version='v1.0-worldline', dataroot=FOLDER)` opens it: one camera, key frames at 2 Hz. {_DRIVING}",
    "drivestudio": "`scenes/NAME` is a scene in drivestudio's processed Waymo layout: images, lens, poses, lidar, boxes. Sky and "
    f"dynamic masks are made by drivestudio's own tools. {_DRIVING}",
    "rerun": "`recordings/NAME.rrd` opens in Rerun: video, camera, boxes, paths, speeds and questions on one timeline. Its bytes "
    f"differ from export to export, its data do not. {_FACTS}",
    "lerobot": "A LeRobot dataset v3.0: an episode per clip at one frame rate, with the camera's pose as its state. "
    f"Frames are those nearest to the ticks of that rate. {_FACTS}",
}
_Kind = TypeVar("_Kind", bound=Artifact)


@dataclass
class _Written:
    """What the clips written so far add up to.

    Attributes:
        facts: `LABEL_FACTS` of each clip.
        dropped: counts by (what, reason): kinds of questions, or "boxes".
        rows: of the report.
    """

    facts: list[pa.Table] = field(default_factory=list)
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """Return the facts of all labels."""
        return pa.concat_tables([LABEL_FACTS.empty_table(), *self.facts]).combine_chunks()


def label_formats(blurring: Blurring | None = None) -> dict[str, Format]:
    """Return the formats of labels by name, for `catalogs.exports.export`; `blurring` is for one export."""
    told = f" {BLURRED}" if blurring else ""
    kinds = {"drivestudio": _KINDS | _LOG_KINDS}
    return {name: Format(_writing(name, blurring), kinds.get(name, _KINDS), about + told) for name, about in _ABOUT.items()}


def _writing(form: str, blurring: Blurring | None) -> Callable[[Selection, Path], dict[str, int]]:
    """Return the function that writes a selection in one format."""

    def write(selection: Selection, folder: Path) -> dict[str, int]:
        written = _Written()
        _WRITERS[form](_clips(selection, blurring), folder, re.sub(r"\W+", "_", selection.version.name), written)
        facts = written.table()
        pq.write_table(facts, folder / "label_facts.parquet", compression="zstd")
        dropped = [{"what": what, "reason": reason, "count": count} for (what, reason), count in sorted(written.dropped.items())]
        (folder / "dropped.json").write_text(json.dumps(dropped, indent=1) + "\n")
        return {"labels": len(facts)} | written.rows | (blurring.write(folder) if blurring else {})

    return write


# -- text and shards -----------------------------------------------------------------------------------------------------


def _write_llava(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.conversations import write_llava

    _write_videos_or_text(items, folder, written)
    write_llava(_asked(written, "there are no questions to export").to_pylist(), folder, name)


def _write_sharegpt(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.conversations import write_sharegpt

    _write_videos_or_text(items, folder, written)
    write_sharegpt(_asked(written, "there are no questions to export").to_pylist(), folder, name)


def _write_video_folder(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.video_folder import video_place, write_video_folder

    _write_videos(items, folder, written, lambda item: video_place(item.split, item.file))
    write_video_folder(_asked(written), folder)


def _write_web_dataset(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.web_dataset import web_sample, write_shards

    samples: list[tuple[str, dict[str, bytes | Path]]] = []
    splits: list[str] = []
    for item in _filmed(items, written):
        place = folder / f"{item.file}.mp4"
        facts = _write_video(item, folder, place.name, written)
        samples.append((item.file, {"mp4": place, **web_sample(item, facts)}))
        splits.append(item.split)
    written.rows["shards"] = write_shards(of_split(samples, splits), folder)
    for _, parts in samples:
        Path(str(parts["mp4"])).unlink()


# -- driving -------------------------------------------------------------------------------------------------------------


def _write_kitti(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from PIL import Image

    from worldline.label_files.kitti_tracking import write_kitti_tracking

    def write(item: LabelledClip, boxes: Boxes, number: int) -> tuple[str, int]:
        assert item.path is not None
        count = write_kitti_tracking(boxes, item.path, folder, number)
        pictures = folder / "image_02" / f"{number:04d}"
        pictures.mkdir(parents=True)
        for index, frame in enumerate(item.frames):
            Image.fromarray(frame).save(pictures / f"{index:06d}.png", compress_level=_PNG_COMPRESSION)
        _count(item, None, None, written)
        return f"label_02/{number:04d}.txt", count

    _write_driving(items, folder, written, write)


def _write_argoverse(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.argoverse import CAMERA, timestamps_ns, write_argoverse

    def write(item: LabelledClip, boxes: Boxes, number: int) -> tuple[str, int]:
        log = folder / "logs" / item.file
        log.mkdir(parents=True)
        count = write_argoverse(item, boxes, log)
        pictures = log / "sensors" / "cameras" / CAMERA
        pictures.mkdir(parents=True)
        for frame, time_ns in zip(item.frames, timestamps_ns(item), strict=item.clip is not None):
            _write_jpeg(frame, pictures / f"{time_ns}.jpg")
        _count(item, None, None, written)
        return f"logs/{item.file}", count

    _write_driving(items, folder, written, write)


def _write_nuscenes(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.nuscenes_tables import SENSOR, NuscenesTables

    tables = NuscenesTables()
    for kind in ("samples", "sweeps"):
        (folder / kind / SENSOR).mkdir(parents=True)

    def write(item: LabelledClip, boxes: Boxes, number: int) -> tuple[str, int]:
        wanted: dict[int, str] = {}
        count = tables.add(item, boxes, wanted.__setitem__)
        for index, frame in enumerate(item.frames):
            if index in wanted:
                _write_jpeg(frame, folder / wanted[index])
        _count(item, None, None, written)
        return item.file, count

    _write_driving(_filmed(items, written), folder, written, write)
    tables.write(folder)


def _write_drivestudio(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.drivestudio_scene import write_drivestudio

    def write(item: LabelledClip, boxes: Boxes, number: int) -> tuple[str, int]:
        scene = folder / "scenes" / item.file
        dropped: dict[str, int] = {}
        count, frames = write_drivestudio(item, boxes, scene, dropped)
        for reason, rows in dropped.items():
            written.dropped["boxes", reason] = written.dropped.get(("boxes", reason), 0) + rows
        places = {frame: place for place, frame in enumerate(frames)}
        for index, frame in enumerate(item.frames):
            if index in places:
                _write_jpeg(frame, scene / "images" / f"{places[index]:03d}_0.jpg")
        _count(item, None, None, written)
        return f"scenes/{item.file}", count

    _write_driving(_filmed(items, written), folder, written, write)


def _write_driving(
    items: Iterator[LabelledClip],
    folder: Path,
    written: _Written,
    write: Callable[[LabelledClip, Boxes, int], tuple[str, int]],
) -> None:
    """Write every clip that has boxes, and say which file is which clip."""
    sequences: list[dict[str, Any]] = []
    for item in items:
        dropped: dict[str, int] = {}
        boxes = boxes_of(item, dropped)
        for reason, count in dropped.items():
            written.dropped["boxes", reason] = written.dropped.get(("boxes", reason), 0) + count
        if boxes is None:
            key = ("clips", "no_camera_path" if item.path is None else "no_tracks" if item.tracks is None else "no_boxes")
            written.dropped[key] = written.dropped.get(key, 0) + 1
            continue
        file, count = write(item, boxes, len(sequences))
        written.rows["boxes"] = written.rows.get("boxes", 0) + count
        sequences.append({"file": file, "clip": item.name, "split": item.split, "boxes": count, "fps": item.rate_hz,
                          "times_s": item.times_s.tolist(), "scale_source": item.path.scale_source if item.path else "",
                          "scale_sigma": item.path.scale_sigma if item.path else 0.0, **item.told})  # fmt: skip
    if not sequences:
        reasons = ", ".join(f"{count} {what} {reason}" for (what, reason), count in sorted(written.dropped.items()))
        raise WorldlineError(f"there are no boxes in metres to export ({reasons}): build with tracks and a metric scale")
    (folder / "sequences.json").write_text(json.dumps(sequences, indent=1, ensure_ascii=False) + "\n")


def _write_jpeg(frame: np.ndarray, path: Path) -> None:
    from stages.export.media import encode_jpeg

    path.write_bytes(encode_jpeg(frame, _JPEG_QUALITY))


# -- viewing -------------------------------------------------------------------------------------------------------------


def _write_rerun(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    try:
        import rerun  # noqa: F401
    except ImportError as error:
        raise WorldlineError("the format rerun needs the package rerun-sdk: pip install 'worldline[rerun]'") from error
    from worldline.label_files.rerun_recording import write_rerun

    (folder / "recordings").mkdir()
    for item in items:
        place = f"videos/{item.file}.mp4" if item.clip is not None else None
        if place is not None:
            _write_video(item, folder, place, written)
        else:
            _count(item, None, None, written)
        write_rerun(item, folder / "recordings" / f"{item.file}.rrd", folder / place if place else None, name)


# -- robots --------------------------------------------------------------------------------------------------------------


def _write_lerobot(items: Iterator[LabelledClip], folder: Path, name: str, written: _Written) -> None:
    from worldline.label_files.lerobot_dataset import LerobotWriter, common_size_and_rate, facts_at_rate

    clips = list(_filmed(items, written))  # frames are decoded when they are written
    if not clips:
        raise WorldlineError("there are no clips with frames to export as lerobot: choose argoverse2, kitti-tracking or rerun")
    sizes = [item.clip.size for item in clips if item.clip is not None]
    size, fps = common_size_and_rate([(own, item.rate_hz) for own, item in zip(sizes, clips, strict=True)])
    writer = LerobotWriter(folder, fps, size, encode)
    for own in of_split(clips, [item.split for item in clips]).values():
        for item in own:
            if item.clip is None or item.clip.size != size:
                key = ("clips", "other_frame_size")
                written.dropped[key] = written.dropped.get(key, 0) + 1
                continue
            video = writer.add(dataclasses.replace(item, split=split_folder(item.split)))
            facts = _count(item, video, hash_file(folder / video), written)
            written.facts[-1] = facts_at_rate(facts, item.times_s, fps)
    writer.finish()


def _asked(written: _Written, none: str = "there are no questions about clips with frames to export") -> pa.Table:
    """Return the facts of all labels, of which there must be one."""
    facts = written.table()
    if not len(facts):
        raise WorldlineError(f"{none}: choose parquet, argoverse2, kitti-tracking or rerun")
    return facts


# -- clips ---------------------------------------------------------------------------------------------------------------


def _clips(selection: Selection, blurring: Blurring | None) -> Iterator[LabelledClip]:
    """Yield every clip of a selection with what was found in it, loaded one at a time; its frames blurred where asked."""
    by_clip: dict[str, list[Member]] = {}
    for member in selection.members:
        by_clip.setdefault(member.clip, []).append(member)
    producers = _producers(selection)
    taken: set[str] = set()
    for name, members in by_clip.items():
        clip, path = _only(selection, members, Clip), _only(selection, members, CameraPath)
        tracks, kinematics = _only(selection, members, Tracks), _only(selection, members, Kinematics)
        questions = _only(selection, members, Questions)
        if clip is None and path is None:
            continue
        member = clip[1] if clip else path[1]  # type: ignore[index]
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", name or (clip[0].name if clip else selection.version.name)).strip("-")[:80]
        file = words if words and words not in taken else f"{words or 'clip'}-{member.ref.digest[:12]}"
        taken.add(file)
        licences = questions[1].licences if questions else member.licences
        made = questions[1].ref.digest if questions else ""
        frames = clip[0] if clip else None
        given, seen = (path[0] if path else None), (tracks[0] if tracks else None)
        if frames is not None and given is not None and given.width and (given.width, given.height) != frames.size:
            given, seen = _in_pixels_of(frames, given, seen)
        if frames is not None and blurring is not None:
            frames = blurring.clip(frames, name)
        recorded = by_clip.get(name.rpartition("/")[0], [])
        yield LabelledClip(
            name=name, file=file, split=member.split, clip=frames, path=given, tracks=seen,
            kinematics=kinematics[0] if kinematics else None,
            questions=_accepted(questions[0], selection) if questions else None,
            told={"licence": licences.expression, "attribution": licences.attribution,
                  "clip_digest": member.ref.digest if clip else "", "artifact": made, "producer": producers.get(made, "")},
            trajectory=_log_part(selection, members, (), Trajectory),
            road_map=_log_part(selection, members, recorded, RoadMap),
            lidar=_log_part(selection, members, recorded, LidarSweeps),
        )  # fmt: skip


def _filmed(items: Iterable[LabelledClip], written: _Written) -> Iterator[LabelledClip]:
    """Yield the clips that have frames, and count the others."""
    for item in items:
        if item.clip is not None:
            yield item
        else:
            written.dropped["clips", "no_frames"] = written.dropped.get(("clips", "no_frames"), 0) + 1


def _only(selection: Selection, members: Iterable[Member], kind: type[_Kind]) -> tuple[_Kind, Member] | None:
    """Return the artifact of a kind and its place; of several, the one whose role is the shortest ("clip", not "clip_left")."""
    found = sorted((member for member in members if member.ref.kind == kind.kind), key=lambda item: (len(item.role), item.role))
    if not found:
        return None
    artifact = selection.catalog.load(found[0].ref.digest)
    assert isinstance(artifact, kind)
    return artifact, found[0]


def _log_part(selection: Selection, members: Iterable[Member], recorded: Iterable[Member], kind: type[_Kind]) -> _Kind | None:
    """Return a part of a driving log, of the recorded log where a trajectory that nobody drove has none of its own."""
    found = _only(selection, members, kind) or _only(selection, recorded, kind)
    return found[0] if found else None


def _in_pixels_of(clip: Clip, path: CameraPath, tracks: Tracks | None) -> tuple[CameraPath, Tracks | None]:
    """Return a path and tracks that were told in pixels of another size of the clip, in its own: a generated clip is smaller."""
    factor_x, factor_y = clip.size[0] / path.width, clip.size[1] / path.height
    intrinsics = scale_intrinsics(path.intrinsics, factor_x, factor_y)
    path = dataclasses.replace(path, intrinsics=intrinsics, width=clip.size[0], height=clip.size[1])
    if tracks is None:
        return path, None
    samples = tracks.samples
    for name, factor in (("x0_px", factor_x), ("x1_px", factor_x), ("y0_px", factor_y), ("y1_px", factor_y)):
        samples = samples.set_column(samples.schema.get_field_index(name), name, pc.multiply(samples[name], factor))
    return path, dataclasses.replace(tracks, samples=samples.combine_chunks())


def _accepted(questions: Questions, selection: Selection) -> Questions:
    """Return the questions without those that people rejected."""
    rejected = pa.array(selection.version.rejected, pa.string())
    rows = questions.rows.filter(pc.invert(pc.is_in(questions.rows["question_id"], value_set=rejected)))
    return Questions(rows=rows, rejections=questions.rejections)


def _producers(selection: Selection) -> dict[str, str]:
    """Return stage and version by the digest of the questions that they made."""
    digests = sorted({member.ref.digest for member in selection.members if member.ref.kind == "Questions"})
    if not digests:
        return {}
    told = ", ".join(f"'{digest}'" for digest in digests)
    rows = selection.catalog.sql(
        "SELECT DISTINCT digest, stage, executions.version AS version FROM edges JOIN executions ON key = execution_key "
        f"WHERE direction = 'out' AND digest IN ({told}) ORDER BY ALL"
    )
    return {row["digest"]: f"{row['stage']}@{row['version']}" for row in rows.to_pylist()}


def _write_videos(items: Iterable[LabelledClip], folder: Path, written: _Written, place: Callable[[LabelledClip], str]) -> None:
    for item in _filmed(items, written):
        _write_video(item, folder, place(item), written)


def _write_videos_or_text(items: Iterable[LabelledClip], folder: Path, written: _Written) -> None:
    """Write the videos of clips that have frames; of the others the questions alone go out."""
    for item in items:
        if item.clip is not None:
            _write_video(item, folder, f"videos/{item.file}.mp4", written)
        else:
            _count(item, None, None, written)


def _write_video(item: LabelledClip, folder: Path, place: str, written: _Written) -> pa.Table:
    """Write one clip's video, and count its labels; return their facts."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, item.frames, item.times_s)
    return _count(item, place, hash_file(path), written)


def _count(item: LabelledClip, video: str | None, sha256: str | None, written: _Written) -> pa.Table:
    facts = item.label_facts(video, sha256)
    written.facts.append(facts)
    written.rows["clips"] = written.rows.get("clips", 0) + 1
    for row in item.questions.rejections.to_pylist() if item.questions is not None else []:
        key = (row["kind"], row["reason"])
        written.dropped[key] = written.dropped.get(key, 0) + row["count"]
    return facts


def encode(path: Path, frames: Iterable[np.ndarray], times_s: np.ndarray) -> None:
    """Write frames as H.264 at their times; an odd side gains a row or column, so that no pixel moves."""
    from stages.export.media import encode_mp4

    def even() -> Iterator[np.ndarray]:
        for frame in frames:
            height, width = frame.shape[0] % 2, frame.shape[1] % 2
            yield np.pad(frame, ((0, height), (0, width), (0, 0)), mode="edge") if height or width else frame

    encode_mp4(path, even(), times_s, _CRF)


_WRITERS: dict[str, Callable[[Iterator[LabelledClip], Path, str, _Written], None]] = {
    "llava": _write_llava,
    "sharegpt": _write_sharegpt,
    "videofolder": _write_video_folder,
    "webdataset": _write_web_dataset,
    "kitti-tracking": _write_kitti,
    "argoverse2": _write_argoverse,
    "nuscenes": _write_nuscenes,
    "drivestudio": _write_drivestudio,
    "rerun": _write_rerun,
    "lerobot": _write_lerobot,
}
