"""Execution keys and item seeds: what makes two executions the same."""

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from schemas.canonical import TaggedHash
from stages.contract import Stage


def code_digest(files: Mapping[str, str]) -> str:
    """Return one hash over the fingerprints of a stage's files."""
    return TaggedHash("code/1").json(dict(files)).hexdigest()


def execution_key(stage: Stage, code: str, config: Any, inputs: Mapping[str, str], seed: int) -> str:
    """Return the type-tagged hash that names one execution.

    Inputs are content digests of artifacts, never keys of the executions that made them, so that a stage whose output
    stays the same re-runs nothing downstream.
    """
    environment = {name: _version(name) for name in sorted(stage.environment_packages)}
    parts = [stage.name, stage.version, code, config, dict(inputs), seed, environment]
    return TaggedHash("execution/1").json(parts).hexdigest()


def item_seed(seed: int, stage: str, inputs: Mapping[str, str]) -> int:
    """Return the seed that a stage sees: it depends on what is computed, not on order or worker."""
    return int(TaggedHash("seed/1").json([seed, stage, dict(inputs)]).hexdigest()[:15], 16)


_version = functools.cache(importlib.metadata.version)  # 2 ms each
