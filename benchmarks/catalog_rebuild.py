"""Rebuild a dataset from its manifest in another folder and with one thread, and count what comes out with the same bits."""

import collections
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import ROOT, Figure, figure

# A short, small, coarse world: everything real, nothing good.
SMALL = (
    "name=small_street",
    "generate.world.frames=30",
    "generate.world.width=320",
    "generate.world.height=180",
    "generate.world.texture_detail=0.4",
    "pose.colmap.overlap=4",
    "reconstruct.gaussian_flow.steps=120",
    "reconstruct.gaussian_flow.gaussians=1500",
    "reconstruct.gaussian_flow.max_side=128",
    "export.report.max_side=320",
)
_CODE = ("schemas", "worldline", "stages", "catalogs", "tasks", "flows", "conf", "benchmarks")
_CHANGE = ("stages/generate/world.py", "DEPTH_UNIT_M = 0.002", "DEPTH_UNIT_M = 0.004")  # of the truth's depth maps
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_REBUILD = "import sys; from benchmarks.catalog_rebuild import rebuild_here; rebuild_here(*sys.argv[1:])"


def measure_rebuild(folder: Path, quick: bool) -> list[Figure]:
    """Build the demo (quick: a small street) with all threads, and rebuild it with one."""
    settings = SMALL if quick else ()
    name = "small_street" if quick else "pseudo_labels"
    command = [sys.executable, "-m", "worldline", "build", "pseudo_labels", *settings, "--home", str(folder / "home")]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    built, began = time.monotonic() - began, time.monotonic()
    one_core = {"preexec_fn": _stay_on_one_core} if hasattr(os, "sched_setaffinity") else {}
    answer = folder / "verdicts.json"
    command = [sys.executable, "-c", _REBUILD, str(folder / "home"), name, str(folder / "elsewhere"), str(answer)]
    subprocess.run(command, check=True, env=os.environ | _ONE_THREAD, **one_core)  # type: ignore[call-overload]
    told, rebuilt = json.loads(answer.read_text()), time.monotonic() - began
    levels = ", ".join(f"{count} {level}" for level, count in collections.Counter(told["levels"]).items())
    detail = (
        f"{name}: {len(told['levels'])} artifacts, {levels}; built on {os.cpu_count()} cores in {built:.0f} s, rebuilt in "
        f"another folder on one core with one thread in {rebuilt:.0f} s{told['differing']}"
    )
    return [figure("catalog.rebuild.identical_share", told["share"], "share", "1 asked: the recorded bits", detail)]


def measure_changed_constant(folder: Path, quick: bool) -> list[Figure]:
    """Build a small street, change one constant of one stage in a copy of the code, and rebuild the street with that copy."""
    home, copy, answer = folder / "home", folder / "changed", folder / "verdicts.json"
    command = [sys.executable, "-m", "worldline", "build", "pseudo_labels", *SMALL, "--home", str(home)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    file, before, after = _CHANGE
    for package in _CODE:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    if before not in text:
        raise RuntimeError(f"{file} no longer has the line {before}: choose another constant to change")
    (copy / file).write_text(text.replace(before, after))
    command = [sys.executable, "-c", _REBUILD, str(home), "small_street", str(folder / "elsewhere"), str(answer)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(copy)}, cwd=copy)
    told = json.loads(answer.read_text())["differing"]
    name, old, new = before.partition(" = ")[0], before.partition(" = ")[2], after.partition(" = ")[2]
    named = file in told and f"{name} {old} -> {new}" in told
    detail = f"{file}: {before} changed to {new}; the verdicts say{told or ' nothing'}"
    return [figure("catalog.rebuild.changed_constant_named", named, "", "1 asked: file, constant and both values named", detail)]


def rebuild_here(home: str, reference: str, into: str, answer: str) -> None:
    """Rebuild a dataset in this process and write down how every artifact came out."""
    from catalogs.catalog import Catalog
    from tasks.rebuild import rebuild_dataset

    rebuilt = rebuild_dataset(Catalog.open(Path(home)), reference, Path(into), quiet=False)
    levels = [item.level for verdict in rebuilt.verdicts for item in verdict.artifacts]
    differing = "".join(f"; {verdict.stage} {verdict.level}: {verdict.cause}" for verdict in rebuilt.differing)
    Path(answer).write_text(json.dumps({"share": rebuilt.identical_share, "levels": levels, "differing": differing}))


def _stay_on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
