"""Weights of street detectors as files: "config.json" and "model.safetensors"."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from schemas.errors import WorldlineError
from worldline.detection.network import StreetDetector

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_detector(folder: Path, network: StreetDetector, training: Mapping[str, Any]) -> dict[str, Path]:
    """Write a detector in half precision and what it was trained on, and return its files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: _halved(value).contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    settings = {"architecture": StreetDetector.__name__, "widths": list(network.widths), "training": dict(training)}
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return {name: folder / name for name in (CONFIG, WEIGHTS)}


def _halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def load_detector(files: Mapping[str, Path], device: str = "cpu") -> StreetDetector:
    """Return a detector in evaluation mode.

    Args:
        files: "config.json" and "model.safetensors", as `save_detector` returns them or a `Model` artifact holds them.
        device: torch's name of where it is to run.

    Raises:
        WorldlineError: if a file is missing or damaged, or they are those of another model.
    """
    where = "the street detector"
    missing = [name for name in (CONFIG, WEIGHTS) if name not in files or not files[name].is_file()]
    if missing:
        raise WorldlineError(f"{where} lacks {' and '.join(missing)}: train it again with label.train_street_detector")
    try:
        settings = json.loads(files[CONFIG].read_text())
        state = {name: value.float() for name, value in load_file(files[WEIGHTS]).items()}
        network = StreetDetector(tuple(settings["widths"]))
        network.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorldlineError(
            f"{files[CONFIG].parent} holds no street detector ({said}): give the files that label.train_street_detector made"
        ) from error
    return network.to(device).eval()
