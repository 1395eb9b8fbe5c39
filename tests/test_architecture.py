"""The architecture is the folder tree: these tests hold it to its word."""

import ast
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "worldline", "stages", "catalogs", "tasks", "flows")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def test_imports_run_only_down_the_house(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    status = lint_imports(cache_dir=None)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("word", ["utils", "util", "common", "helpers", "misc"])
def test_no_room_goes_without_a_name_of_its_own(word):
    assert [file for file in MODULES if word in (file.stem, *file.parent.parts)] == []


def test_every_module_says_what_it_is_for():
    assert [str(file) for file in MODULES if not ast.get_docstring(ast.parse(file.read_text()))] == []


def test_nothing_is_unpickled():
    forbidden = ("pickle.load", "torch.load(", "allow_pickle=True")
    assert [str(file) for file in MODULES if any(word in file.read_text() for word in forbidden)] == []
