"""Checkpoints of a fit: one safetensors file, replaced atomically."""

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

NAME = "fit.safetensors"


def save_checkpoint(folder: Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays and the number of finished steps; a kill at any moment leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{NAME}.{os.getpid()}.tmp"
    save_file({**arrays, "step": np.array(step, np.int64)}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(folder / NAME)


def load_checkpoint(folder: Path) -> tuple[int, dict[str, np.ndarray]] | None:
    """Return the finished steps and the arrays (writable copies), or None where there is no whole checkpoint."""
    try:
        arrays = load_file(folder / NAME)
    except (FileNotFoundError, SafetensorError):
        return None
    return int(arrays.pop("step")), {name: array.copy() for name, array in arrays.items()}
