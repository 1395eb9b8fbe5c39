"""The scenes of a dataset version as files that other programs open: `worldline.formats` as ways out of the catalog.

Every scene becomes one file, or one folder of frames, under `scenes/`; `scenes.json` says which is which. Licences, splits
and the folder that appears whole or not at all are the catalog's (`catalogs.exports`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.exports import Format, Member, Selection
from schemas.cameras import CameraPath
from schemas.errors import WorldlineError
from schemas.scenes import Scene4D

_ABOUT = (
    "The scenes lie in `scenes/`; `scenes.json` names, for every one, its role and clip in the version, its file, its number "
    "of Gaussians and its time span in seconds of the clip. Scenes without Gaussians have no file."
)


@dataclass(frozen=True)
class _Way:
    """How a scene is written.

    Attributes:
        suffix: of its file.
        options: of the command line that it takes -> argument of the writer.
        writer: name of the function in `worldline.formats`, imported when it is needed: other commands wait for no numba.
    """

    suffix: str
    options: dict[str, str]
    writer: str = ""


_MOMENT, _TURNED = {"--at": "at_s"}, {"--at": "at_s", "--up": "up"}
_WAYS = {
    "ply": _Way(".ply", _TURNED, "write_ply"),
    "ply-sequence": _Way("", {"--frames": "frames", "--up": "up"}, "write_ply_sequence"),
    "compressed-ply": _Way(".compressed.ply", _TURNED, "write_compressed_ply"),
    "spz": _Way(".spz", _MOMENT, "write_spz"),
    "splat": _Way(".splat", _TURNED, "write_splat"),
    "glb": _Way(".glb", _MOMENT, "write_gltf"),
    "4dgs": _Way(".4dgs", {"--frames": "key_frames"}, "write_fourdgs"),
    "html": _Way(".html", {}),
}


def scene_formats(form: str, *, at_s: float | None = None, frames: int | None = None, up: str | None = None) -> dict[str, Format]:
    """Return the formats of scenes by name, for `catalogs.exports.export`.

    Args:
        form: the one that the options are for.
        at_s: seconds of the clip that a file of one moment shows, the nearest that a scene has; None for its first moment.
        frames: of a sequence, or key frames; None for 24.
        up: axis that points up; None for what viewers of the format expect.

    Raises:
        WorldlineError: if the format does not take an option that is given.
    """
    given = {name: value for name, value in (("--at", at_s), ("--frames", frames), ("--up", up)) if value is not None}
    taken = _WAYS[form].options if form in _WAYS else {}
    for option in given:
        if option not in taken:
            takers = [name for name, way in _WAYS.items() if option in way.options]
            raise WorldlineError(f"{form} takes no {option}: leave it out, or export as {', '.join(takers)}")
    arguments = {taken[option]: value for option, value in given.items()}
    return {name: Format(_writing(name, arguments if name == form else {}), frozenset({"Scene4D"}), _ABOUT) for name in _WAYS}


def _writing(name: str, arguments: dict[str, Any]) -> Callable[[Selection, Path], dict[str, int]]:
    """Return the function that writes all scenes of a selection in one format."""

    def write(selection: Selection, folder: Path) -> dict[str, int]:
        (folder / "scenes").mkdir()
        rows: dict[str, dict[str, Any]] = {}
        for member in selection.members:
            if member.ref.kind == "Scene4D":
                row = _write_scene(selection, member, folder, name, arguments)
                rows[member.role] = row | {"role": member.role, "clip": member.clip, "split": member.split}
        if not any(row["file"] for row in rows.values()):
            raise WorldlineError(
                f"no scene of {selection.version.reference} has any Gaussians: there is nothing to export as {name}"
            )
        (folder / "scenes.json").write_text(json.dumps(list(rows.values()), indent=2, ensure_ascii=False) + "\n")
        return {"scenes": len(rows)}

    return write


def _write_scene(selection: Selection, member: Member, folder: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    scene = selection.catalog.load(member.ref.digest)
    assert isinstance(scene, Scene4D)
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", member.role).strip(".-") or "scene"
    file = f"scenes/{words[:80]}-{member.ref.digest[:12]}{_WAYS[name].suffix}" if len(scene.means) else None
    if file is not None:
        try:
            _write(scene, folder / file, name, arguments, selection, member)
        except WorldlineError as error:
            raise WorldlineError(f"{member.role} of {selection.version.reference}: {error}") from error
    return {"file": file, "digest": member.ref.digest, "gaussians": len(scene.means), "motion_model": scene.motion_model,
            "start_s": scene.start_s, "end_s": scene.end_s, "licence": member.licences.expression}  # fmt: skip


def _write(scene: Scene4D, path: Path, name: str, arguments: dict[str, Any], selection: Selection, member: Member) -> None:
    from worldline import formats

    if name != "html":
        getattr(formats, _WAYS[name].writer)(scene, path, **arguments)
        return
    from worldline.formats.player import write_player

    beside = [other for other in selection.members if other.ref.kind == "CameraPath" and other.clip == member.clip]
    cameras = selection.catalog.load(beside[0].ref.digest) if beside else None
    assert cameras is None or isinstance(cameras, CameraPath)
    write_player(scene, path, title=f"{selection.version.reference} {member.role}", cameras=cameras)
