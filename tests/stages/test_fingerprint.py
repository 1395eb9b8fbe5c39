"""Which edits make a stage run again."""

from dataclasses import replace

import pytest

from stages import fingerprint
from stages.contract import Stage

STAGE = Stage("pose.toy", 1, lambda: None, object, {}, (), False, ())
FILES = {
    "stages/__init__.py": "",
    "stages/pose/__init__.py": "",
    "stages/pose/toy.py": '"""Solve."""\nfrom worldline.cameras import project\nimport numpy\n\nsolve = project\n',
    "worldline/__init__.py": "",
    "worldline/cameras.py": "from schemas import clips\n\ndef project(x):\n    return x + 1\n",
    "worldline/unrelated.py": "x = 1\n",
    "schemas/__init__.py": "from schemas import labels\n",
    "schemas/clips.py": "class Clip: ...\n",
    "schemas/labels.py": "class Labels: ...\n",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_ROOT", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def take(**edits: str) -> dict[str, str]:
        for name, text in edits.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        fingerprint._hash_module.cache_clear()
        return fingerprint.fingerprint_stage(stage)

    def solve(): ...

    solve.__module__ = "stages.pose.toy"
    stage = replace(STAGE, function=solve)
    yield take
    fingerprint._hash_module.cache_clear()


def test_it_follows_imports_through_the_project_and_no_further(project):
    assert set(project()) == {"stages/pose/toy.py", "worldline/cameras.py", "schemas/clips.py"}


def test_comments_docstrings_and_layout_do_not_count(project):
    before = project()
    after = project(**{"stages/pose/toy.py": FILES["stages/pose/toy.py"].replace('"""Solve."""', '"""Other."""  # why') + "\n\n"})
    assert before == after


def test_code_in_an_imported_module_counts(project):
    before = project()
    after = project(**{"worldline/cameras.py": FILES["worldline/cameras.py"].replace("x + 1", "x + 2")})
    assert {name for name in before if before[name] != after[name]} == {"worldline/cameras.py"}


def test_templates_beside_the_stage_count(project):
    before = project()
    assert project(**{"stages/pose/page.html": "<p>"}) != before


def test_templates_beside_an_imported_module_count_and_others_do_not(project):
    room = {"worldline/room/__init__.py": "", "worldline/room/made.py": "y = 1\n", "worldline/other/page.html": "<p>"}
    uses = {"stages/pose/toy.py": "from worldline.room import made\n" + FILES["stages/pose/toy.py"]}
    before = project(**room, **uses)
    after = project(**room, **uses, **{"worldline/room/shade.vert": "void main() {}"})
    assert set(after) - set(before) == {"worldline/room/shade.vert"}
    assert not any("other" in name for name in after)


def test_a_module_that_is_not_imported_does_not_count(project):
    before = project()
    assert project(**{"worldline/unrelated.py": "x = 2\n"}) == before


def test_definitions_name_what_changed_inside_a_file_and_enter_no_fingerprint(project):
    text = 'LIMIT_M = 0.3\nWIDE: tuple[int, ...] = (1, 2)\nTABLE = make()\n\ndef solve(x):\n    """Solve."""\n    return x\n'
    files = project(**{"stages/pose/toy.py": text})
    before = fingerprint.list_definitions(files)
    assert before["stages/pose/toy.py:LIMIT_M"] == "0.3"
    assert before["stages/pose/toy.py:WIDE"] == "(1, 2)"
    assert not set(before) & set(files)
    edited = text.replace("0.3", "0.4").replace("return x", "return -x").replace("Solve.", "Say.")
    after = fingerprint.list_definitions(project(**{"stages/pose/toy.py": edited}))
    assert {name for name in before if before[name] != after[name]} == {"stages/pose/toy.py:LIMIT_M", "stages/pose/toy.py:solve"}
