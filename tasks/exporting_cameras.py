"""The camera paths of a dataset version as files that other programs open: `worldline.camera_files` as ways out of the catalog.

Every path becomes a file or a folder under `cameras/`; `cameras.json` says which is which, and which frames have no pose.
COLMAP models and transforms.json take the frames of their clip along, so that a program for Gaussian splatting can train
on the folder as it is.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from catalogs.exports import Format, Member, Selection
from schemas.artifact import Artifact
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.errors import WorldlineError
from tasks.blurring import BLURRED, Blurring
from worldline.cameras import invert_rigid

_ABOUT = (
    "The camera paths lie in `cameras/`; `cameras.json` names, for every one, its role and clip in the version, its file or "
    "folder, the times of its poses in seconds of the clip, and the frames of the clip that have no pose and are left out. "
    'The world is the clip\'s own, with z up where `gravity_source` is not "none" and in metres where `scale_source` is not '
    '"none"; cameras look along z, with y down.'
)
_ABOUT_TRANSFORMS = f"{_ABOUT[:-1]} in our files, along -z with y up in transforms.json."
_ABOUT_KITTI = f"{_ABOUT[:-1]}. As KITTI has it, the world of its files is the first camera."
FOLDERS = {"colmap": _ABOUT, "colmap-text": _ABOUT, "transforms": _ABOUT_TRANSFORMS}
_TRAJECTORIES = {"tum": (".tum", _ABOUT), "kitti": (".txt", _ABOUT_KITTI)}
_PNG_COMPRESSION = 3
_Kind = TypeVar("_Kind", bound=Artifact)


def camera_formats(form: str, *, undistort: bool = False, blurring: Blurring | None = None) -> dict[str, Format]:
    """Return the formats of camera paths by name, for `catalogs.exports.export`.

    Args:
        form: the one that the option is for.
        undistort: write images and lenses of a pinhole.
        blurring: of the images, for one export.

    Raises:
        WorldlineError: if the format has no images that could be undistorted.
    """
    if undistort and form not in FOLDERS:
        raise WorldlineError(f"{form} takes no --undistort: leave it out, or export as {', '.join(FOLDERS)}")
    formats = {}
    for name, about in FOLDERS.items():
        told = f"{about} {BLURRED}" if blurring else about
        formats[name] = Format(_writing(name, undistort, blurring), frozenset({"CameraPath", "PointCloud", "Clip"}), told)
    for name, (_, about) in _TRAJECTORIES.items():
        formats[name] = Format(_writing(name, False, None), frozenset({"CameraPath"}), about)
    return formats


def _writing(form: str, undistort: bool, blurring: Blurring | None) -> Callable[[Selection, Path], dict[str, int]]:
    """Return the function that writes all camera paths of a selection in one format."""

    def write(selection: Selection, folder: Path) -> dict[str, int]:
        (folder / "cameras").mkdir()
        members = [member for member in selection.members if member.ref.kind == "CameraPath"]
        rows = [_write_path(selection, member, form, folder, undistort, blurring) for member in members]
        written = [row for row in rows if row["file"]]
        if not written:
            why = rows[0]["left_out"] if rows else "it has no camera path"
            raise WorldlineError(f"{selection.version.reference} has nothing to export as {form}: {why}")
        (folder / "cameras.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        unposed = sum(len(row["frames_without_pose"]) for row in rows)
        counts = {"paths": len(written), "poses": sum(row["poses"] for row in written), "unposed": unposed}
        return counts | (blurring.write(folder) if blurring else {})

    return write


def _write_path(
    selection: Selection, member: Member, form: str, folder: Path, undistort: bool, blurring: Blurring | None
) -> dict[str, Any]:
    """Write one path, unless the format cannot hold it; return its row of `cameras.json`."""
    path = selection.catalog.load(member.ref.digest)
    assert isinstance(path, CameraPath)
    unposed = np.flatnonzero(~path.registered).tolist()
    row: dict[str, Any] = {"file": None, "left_out": _why_not(path, member.role, form), "role": member.role, "clip": member.clip,
           "split": member.split, "digest": member.ref.digest, "poses": len(path.registered) - len(unposed),
           "frames_without_pose": unposed, "times_s": path.times_s[path.registered].tolist(),
           "scale_source": path.scale_source, "gravity_source": path.gravity_source,
           "licence": member.licences.expression}  # fmt: skip
    if row["left_out"]:
        return row
    from worldline.camera_files import write_kitti, write_tum

    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", member.role).strip(".-") or "path"
    suffix = _TRAJECTORIES[form][0] if form in _TRAJECTORIES else ""
    row["file"] = f"cameras/{words[:80]}-{member.ref.digest[:12]}{suffix}"
    place = folder / row["file"]
    poses = path.world_from_camera[path.registered]
    if form == "tum":
        write_tum(path.times_s[path.registered], poses, place)
    elif form == "kitti":
        write_kitti(invert_rigid(poses[0]) @ poses, place)
    else:
        row |= _write_folder(path, selection, member, form, place, undistort, blurring)
    return row


def _why_not(path: CameraPath, role: str, form: str) -> str | None:
    without = int((~path.registered).sum())
    if without == len(path.registered):
        return f"no frame of {role} has a pose ({path.verdict})"
    if without and form == "kitti":
        return f"{without} of {len(path.registered)} frames of {role} have no pose, and KITTI needs one for each: export as tum"
    return None


def _write_folder(
    path: CameraPath,
    selection: Selection,
    member: Member,
    form: str,
    place: Path,
    undistort: bool,
    blurring: Blurring | None,
) -> dict[str, int]:
    """Write poses, points and frames for training; return how many points and images there are."""
    from worldline.camera_files import posed_images, undistorted, write_colmap, write_transforms

    points, clip = (_beside(selection, member, kind) for kind in (PointCloud, Clip))
    assert points is None or isinstance(points, PointCloud)
    assert clip is None or isinstance(clip, Clip)
    images = posed_images(path, points, [f"frame_{index:05d}.png" for index in range(len(path.registered))])
    if undistort:
        images = undistorted(images)
    place.mkdir()
    if form == "transforms":
        write_transforms(images, place / "transforms.json")
    else:
        write_colmap(images, place / "sparse" / "0", text=form == "colmap-text")
    if clip is not None:
        clip = blurring.clip(clip, member.clip) if blurring else clip
        _write_frames(clip, path, place / "images", undistort)
    return {"points": len(images.points.xyz), "images": 0 if clip is None else len(images.names)}


def _beside(selection: Selection, member: Member, kind: type[_Kind]) -> _Kind | None:
    """Return the artifact of a kind that belongs to a path's clip; None where there is none, or several could."""
    found = [other for other in selection.members if other.clip == member.clip and other.ref.kind == kind.kind]
    if len(found) != 1:
        return None
    artifact = selection.catalog.load(found[0].ref.digest)
    assert isinstance(artifact, kind)
    return artifact


def _write_frames(clip: Clip, path: CameraPath, folder: Path, undistort: bool) -> None:
    """Write the frames that have a pose, losslessly."""
    from PIL import Image

    from worldline.camera_files import undistorter

    folder.mkdir()
    straightened = undistorter(path.intrinsics, path.distortion if undistort else np.zeros(4), path.width, path.height)
    for index, frame in enumerate(clip.frames):
        if path.registered[index]:
            picture = Image.fromarray(straightened(frame))
            picture.save(folder / f"frame_{index:05d}.png", compress_level=_PNG_COMPRESSION)
