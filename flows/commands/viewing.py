"""The command `view`: walk around a version's 4D scene in a browser."""

import argparse
import os
import re
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.printing import Add, open_catalog, print_json
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.records import DatasetVersion

_NAMED = 8  # clips in a sentence


def add_commands(add: Add) -> None:
    """Add this command to the command line."""
    parser = add("view", _view, "write a page that plays a version's 4D scene, and open it in the browser")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("destination", nargs="?", type=Path, metavar="FILE", help="the page (default: beside the workspace)")
    parser.add_argument("--clip", metavar="CLIP", help="whose scene, where the version has several clips")
    parser.add_argument("--no-open", action="store_true", help="only write the page and print where it is")


def _view(options: argparse.Namespace) -> None:
    from catalogs.contents import artifact_refs
    from worldline.formats.player import write_player  # here, because no other command needs the numerical library

    catalog = open_catalog(options)
    version = catalog.dataset(options.dataset)
    refs = artifact_refs(catalog.log, version.artifacts.values())
    kinds = {role: refs[digest].kind for role, digest in version.artifacts.items() if digest in refs}
    role, path_role = choose_scene(version, kinds, options.clip)
    clip = role.rpartition("/")[0]
    scene: Any = version.load(role)
    cameras: Any = version.load(path_role) if path_role else None
    named = re.sub(r"[^A-Za-z0-9_.-]+", "-", clip).strip("-.")
    beside = catalog.home.parent / f"{version.name}-{version.version}{'-' if named else ''}{named}-scene.html"
    file = (options.destination or beside).absolute()
    title = f"{version.reference} {clip}".strip()
    size = write_player(scene, file, title=title, cameras=cameras)
    opened = not options.no_open and has_display(os.environ, sys.platform) and webbrowser.open(file.as_uri())
    if options.json:
        print_json({"file": str(file), "bytes": size, "gaussians": len(scene.means), "clip": clip, "opened": opened})
        return
    print(file)
    if not opened and not options.no_open:
        print("no browser could be opened from here: open this file in one, on any machine", file=sys.stderr)


def choose_scene(version: "DatasetVersion", kinds: Mapping[str, str], clip: str | None) -> tuple[str, str | None]:
    """Return the role of a clip's 4D scene, and that of its camera path if there is one.

    Args:
        version: the dataset version.
        kinds: of its artifacts by role.
        clip: whose scene; None where the version has only one.

    Raises:
        WorldlineError: if there is no such scene, or the version has several and none is named.
    """
    scenes = {role.rpartition("/")[0]: role for role, kind in sorted(kinds.items(), reverse=True) if kind == "Scene4D"}
    if not scenes:
        raise WorldlineError(
            f"{version.reference} has no 4D scene: build one with a flow that reconstructs, such as `pseudo_labels`"
        )
    if clip is None and len(scenes) > 1:
        raise WorldlineError(f"{version.reference} has the scenes of {len(scenes)} clips: name one with --clip {_either(scenes)}")
    if clip is not None and clip not in scenes:
        known = _either(scenes) if any(scenes) else "one scene without a clip's name: leave --clip out"
        raise WorldlineError(f"{version.reference} has no scene of a clip {clip!r}; it has {known}")
    name = next(iter(scenes)) if clip is None else clip
    path = f"{name}/path".lstrip("/")
    return scenes[name], path if kinds.get(path) == "CameraPath" else None


def has_display(environment: Mapping[str, str], platform: str) -> bool:
    """Tell whether a browser window could be seen."""
    return platform in ("darwin", "win32") or any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _either(scenes: Mapping[str, str]) -> str:
    names: Sequence[str] = sorted(scenes)
    more = f" or one of {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
