"""What tests share: one small dataset, built once through the real flow."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalog_rebuild import SMALL

os.environ.pop("PREFECT_API_URL", None)

SMALL_WORLD = (*SMALL, "reconstruct.gaussian_flow.checkpoint_every=20")


@dataclass(frozen=True)
class SmallStreet:
    """A built dataset: its workspace, the settings it was built with, and the build's outcome."""

    home: Path
    overrides: tuple[str, ...]
    outcome: dict[str, Any]


@pytest.fixture(scope="session")
def small_street(tmp_path_factory) -> SmallStreet:
    """Build `pseudo_labels` on a small procedural street, once per test session."""
    from flows.building import run_flow

    home = tmp_path_factory.mktemp("small_street")
    return SmallStreet(home, SMALL_WORLD, run_flow("pseudo_labels", SMALL_WORLD, home, quiet=True))
