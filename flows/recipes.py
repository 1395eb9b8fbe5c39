"""Recipes: the resolved config of a flow, composed by Hydra from `conf/` and checked against the stages' dataclasses."""

import copy
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from catalogs.licences import normalise
from catalogs.splits import SplitRule
from catalogs.versions import check_dataset_name
from schemas.canonical import to_plain
from schemas.errors import WorldlineError
from stages.contract import load_stages
from tasks.build import read_gate
from tasks.configs import make_config, nearest

CONF = Path(conf.__file__).parent


def flow_names() -> list[str]:
    """Return the flows that can be built (one file each at the top of `conf/`)."""
    return sorted(file.stem for file in CONF.glob("*.yaml"))


def compose_recipe(flow: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the resolved recipe of a flow as plain values; see `_resolve`. Each is composed once per process (0.3 s)."""
    return copy.deepcopy(_resolve(flow, tuple(overrides)))


@functools.lru_cache(maxsize=64)
def _resolve(flow: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the resolved recipe of a flow as plain values.

    The defaults of every stage's config dataclass come first, then the presets of `conf/`, then the overrides.

    Raises:
        WorldlineError: for an unknown flow, key or preset, or a value of the wrong type, naming the nearest valid ones.
    """
    if "=" in flow:
        known = ", ".join(flow_names())
        raise WorldlineError(
            f"{flow} stands where the flow's name belongs: write worldline build FLOW {flow}, with one of {known}"
        )
    if flow not in flow_names():
        raise WorldlineError(f"there is no flow {flow!r}{nearest(flow, flow_names())}")
    _register_stage_defaults()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        defaults = _compose(flow, [])
        literal = [_with_literal_text(text, defaults) for text in overrides]
        _check_overrides(literal, defaults)
        recipe = _compose(flow, literal)
    _check_head(recipe)
    _check_methods(recipe)
    for name, stage in load_stages().items():
        node: Any = recipe
        for part in name.split("."):
            node = node[part]
        make_config(stage.config_type, node, name)
    return recipe


def _register_stage_defaults() -> None:
    rooms: dict[str, dict[str, Any]] = {}
    for name, stage in load_stages().items():
        room, what = name.split(".")
        rooms.setdefault(room, {})[what] = to_plain(dataclasses.asdict(stage.config_type()))
    ConfigStore.instance().store(name="stage_defaults", node=rooms)


def _compose(flow: str, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        resolved = OmegaConf.to_container(compose(flow, overrides=list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise WorldlineError(f"the settings cannot be read: {' '.join(str(error).split())}") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _with_literal_text(override: str, defaults: Mapping[str, Any]) -> str:
    """Quote the value of a setting that holds text, and any value that Hydra's grammar has no word for.

    File names are what people give most, and `source=my street (1).mp4` or `source=straße.mp4` must need no quotes
    beyond those of the shell; in return `source=5` and `name=null` are text too.
    """
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[\w.]+", key) or re.fullmatch(r"""(['"]).*\1""", value):
        return override
    node: Any = defaults
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    is_list = key == "source" and re.fullmatch(r"\[.*\]", value)
    if (is_list or not isinstance(node, str)) and _is_grammatical(override):
        return override
    # In Hydra's quotes a backslash counts only before a quote and at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}='{escaped}'"


def _is_grammatical(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _check_head(recipe: Mapping[str, Any]) -> None:
    """Refuse a seed, a source or a dataset name that would only fail after the work is done."""
    seed, source = recipe["seed"], recipe["source"]
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise WorldlineError(f"seed={seed} is not valid: give a whole number from 0 to 9223372036854775807")
    sources = source if isinstance(source, list) else [source]
    if not sources or not all(isinstance(item, str) and item.strip() for item in sources):
        raise WorldlineError(
            "source is empty: give a video file, a folder of frames or of videos, a list of these, world:LAYOUT or "
            "diffusers:ID_OR_FOLDER"
        )
    if type(recipe.get("mirror", False)) is not bool:
        raise WorldlineError(f"mirror={recipe['mirror']} is not valid: give true or false")
    check_dataset_name(str(recipe["name"]))
    read_gate(recipe.get("gate", {}))
    SplitRule(**recipe.get("splits", {}))
    if recipe.get("rights", {}).get("licence") is not None:
        normalise(recipe["rights"]["licence"])


def _check_methods(recipe: Mapping[str, Any]) -> None:
    """Refuse a method that is none of its room's stages (`reconstruct=NAME` chooses one)."""
    for room, node in recipe.items():
        if isinstance(node, Mapping) and "method" in node:
            names = [name.partition(".")[2] for name in load_stages() if name.startswith(f"{room}.")]
            if node["method"] not in names:
                raise WorldlineError(f"{room}.method={node['method']} is not a method{nearest(str(node['method']), names)}")


def _check_overrides(overrides: Sequence[str], recipe: Mapping[str, Any]) -> None:
    """Name the nearest valid key for every override that matches none."""
    groups = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in CONF.iterdir() if folder.is_dir()}
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            raise WorldlineError(f"{text!r} is not a setting: write KEY=VALUE, and quote a value with spaces or braces") from None
        key = override.key_or_group
        if key in groups:
            if override.value() not in groups[key]:
                raise WorldlineError(f"{key}={override.value()} is not a preset{nearest(str(override.value()), groups[key])}")
            continue
        node: Any = recipe
        for depth, part in enumerate(key.split(".")):
            if not isinstance(node, Mapping) or part not in node:
                parent = ".".join(key.split(".")[:depth])
                choices = [f"{parent}.{name}" if parent else name for name in node] if isinstance(node, Mapping) else []
                raise WorldlineError(f"{key} is not a setting{nearest(key, choices)}")
            node = node[part]
