"""Names of things: canonical JSON and type-tagged hashes."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from schemas.canonical import TaggedHash, canonical_json, hash_file


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    name: str = "a"


def test_key_order_does_not_matter():
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'


def test_a_dataclass_equals_its_mapping():
    assert canonical_json(Settings()) == canonical_json({"name": "a", "rate": 0.5})


def test_numpy_scalars_equal_python_ones():
    assert canonical_json([np.float64(0.1), np.int32(3)]) == canonical_json([0.1, 3])


@pytest.mark.parametrize("value", [math.nan, math.inf, Path("x"), {1: 2}, object(), b"x"])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError):
        canonical_json({"value": value} if not isinstance(value, dict) else value)


def test_fields_do_not_run_into_each_other():
    assert TaggedHash("t").field(b"ab").field(b"c").hexdigest() != TaggedHash("t").field(b"a").field(b"bc").hexdigest()


def test_record_types_never_share_a_digest():
    assert TaggedHash("key/1").json([1]).hexdigest() != TaggedHash("seed/1").json([1]).hexdigest()


def test_a_file_is_named_by_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"street")
    assert hash_file(tmp_path / "file") == hashlib.sha256(b"street").hexdigest()
