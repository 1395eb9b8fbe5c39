"""Readers of label exports that cannot share our environment: each runs in one of its own and prints what it read as JSON."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

# What each reader needs on top of our own packages, without what these would pull in (older numpy, other OpenCV builds).
REQUIREMENTS = {
    "nuscenes": (
        "nuscenes-devkit==1.2.0", "pyquaternion==0.9.9", "descartes==1.1.0", "shapely==2.2.0", "scikit-learn==1.9.1",
        "joblib==1.6.0", "threadpoolctl==3.8.0", "narwhals==2.29.0",
    ),
    "argoverse2": ("av2==0.3.6", "universal-pathlib==0.3.10", "pathlib-abc==0.5.2"),
    "kitti-tracking": ("pykitti==0.3.1",),
    "lerobot": ("lerobot==0.4.4", "torchvision==0.28.0"),
}  # fmt: skip


def read_apart(reader: str, export: Path, folder: Path) -> Any:
    """Return what a reader reads in an export.

    Args:
        reader: a name in `REQUIREMENTS`, and of a script in this folder.
        export: the folder of the export.
        folder: where its environment is made, or was.

    Raises:
        RuntimeError: if its packages cannot be installed, or it does not read the export.
    """
    place = folder / f"reader-{reader}"
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        venv.create(place, with_pip=False)
        packages = sysconfig.get_path("purelib", vars={"base": str(place)})
        (Path(packages) / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *REQUIREMENTS[reader]])
        (place / "ready").touch()
    script = Path(__file__).with_name(f"read_{reader.replace('-', '_')}.py")
    return json.loads(_run([str(python), str(script), str(export)]))


def _run(command: list[str]) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"MPLBACKEND": "agg"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{' '.join(command[:5])} ... failed: {' '.join(last)}")
    return done.stdout
