"""What the documentation shows, runs."""

import re
import shlex
import shutil
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


def commands(page: Path) -> list[str]:
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)).splitlines()
    return [line for line in lines if line.startswith("worldline ")]


@pytest.mark.parametrize("text", blocks("python"))
def test_python_on_the_page_runs(text, small_street, tmp_path, monkeypatch, capsys):
    (tmp_path / "worldline-data").symlink_to(small_street.home)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "page", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run_in_its_order(page, small_street, tmp_path, monkeypatch, capsys):
    """Builds and plans of sources that are not here must at least compose; the rest runs on a small dataset instead."""
    home = shutil.copytree(small_street.home, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    built = set()
    for line in commands(page):
        _, command, *arguments = shlex.split(line)
        if command in ("build", "explain"):
            flow, *overrides = arguments
            recipe = compose_recipe(flow, overrides)
            assert recipe["source"]
            built.add(recipe["name"])
            continue
        arguments = ["small_street" if item in built else item for item in arguments]
        arguments = [item.replace("my_street", "small_street", 1) for item in arguments]
        assert main([command, *arguments, "--home", str(home)]) == 0, f"{line}: {capsys.readouterr().err}"
        assert capsys.readouterr().out.strip(), f"{line} printed nothing"


def test_every_file_that_a_page_links_to_exists():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_deployment_names_a_flow_and_settings_that_compose():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        file, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (ROOT / file).read_text()
        assert compose_recipe(function, deployment["parameters"]["overrides"])
