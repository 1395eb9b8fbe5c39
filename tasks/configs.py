"""From plain mappings to the frozen config dataclasses of stages, with messages that name the nearest valid key."""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from schemas.errors import WorldlineError


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ': did you mean A or B?' or ': valid are A, B, C.' for an unknown word."""
    valid = sorted(choices)
    close = difflib.get_close_matches(word, valid, n=3, cutoff=0.55)
    if close:
        return f": did you mean {' or '.join(close)}?"
    return f": valid are {', '.join(valid)}." if valid else "."


def make_config(config_type: type, values: Mapping[str, Any], where: str) -> Any:
    """Build a stage's config from plain values.

    Args:
        config_type: a frozen dataclass.
        values: values by field name; missing ones take their defaults.
        where: the config path for messages, such as "pose.colmap".

    Raises:
        WorldlineError: for an unknown key or a value of the wrong type or range, naming the path and the valid ones.
    """
    names = [field.name for field in dataclasses.fields(config_type)]
    for key in values:
        if key not in names:
            raise WorldlineError(f"{where}.{key} is not a setting{nearest(key, names)}")
    try:
        return _adapter(config_type).validate_python(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join([where, *(str(item) for item in first["loc"])])
        raise WorldlineError(f"{path}={first['input']!r} is not valid: {first['msg']}") from None


@functools.cache
def _adapter(config_type: type) -> pydantic.TypeAdapter[Any]:
    """Return the validator of a config; to make one takes longer than to look an execution up."""
    return pydantic.TypeAdapter(config_type)
