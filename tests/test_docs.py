"""What the documentation shows, runs."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from flows.command_line import main
from flows.recipes import compose_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(text, id=f"{page.name}-{number}"))
    return found


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    return sorted({line for line in lines if line.startswith("worldline ")})


@pytest.mark.parametrize("text", blocks("python"))
def test_python_on_the_page_runs(text, small_street, tmp_path, monkeypatch, capsys):
    (tmp_path / "worldline-data").symlink_to(small_street.home)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "page", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", commands())
def test_a_command_on_the_page_runs(line, small_street, tmp_path, monkeypatch, capsys):
    """Builds and plans of sources that are not here must at least compose; everything else runs on a small dataset."""
    _, command, *arguments = shlex.split(line)
    if command in ("build", "explain"):
        flow, *overrides = arguments
        assert compose_recipe(flow, overrides)["source"]
        return
    monkeypatch.chdir(tmp_path)
    arguments = [item.replace("my_street@1", "small_street@1").replace("my_street", "small_street", 1) for item in arguments]
    assert main([command, *arguments, "--home", str(small_street.home)]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


def test_every_file_that_a_page_links_to_exists():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_deployment_names_a_flow_and_settings_that_compose():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        file, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (ROOT / file).read_text()
        assert compose_recipe(function, deployment["parameters"]["overrides"])
