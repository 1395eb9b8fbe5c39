"""Recipes: every setting has a default, and a wrong one names the nearest right one."""

import re

import pytest

from flows.recipes import compose_recipe, flow_names
from schemas.errors import WorldlineError
from stages.contract import load_stages


def test_every_flow_composes_and_names_every_setting_of_every_stage():
    for flow in flow_names():
        recipe = compose_recipe(flow)
        for stage in load_stages():
            room, what = stage.split(".")
            assert what in recipe[room]


def test_an_override_reaches_its_stage():
    assert compose_recipe("pseudo_labels", ["label.window_seconds=3.0"])["label"]["kinematics"]["window_seconds"] == 3.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("label.windw_seconds=3", "label.window_seconds"),
        ("sorce=x.mp4", "did you mean source"),
        ("pose=globl_mapping", "global_mapping"),
        ("pose.colmap.nothing.at.all=1", "pose.colmap.nothing.at.all is not a setting"),
        ("reconstruct.gaussian_flow.gaussians=0", "reconstruct.gaussian_flow.gaussians=0 is not valid"),
        ("reconstruct.method=natve_4d", "reconstruct.method=natve_4d is not a method: did you mean native_4d"),
        ("reconstruct=natve_4d", "reconstruct=natve_4d is not a preset: did you mean native_4d"),
        ("reconstruct.gaussian_flow.steps=-3", "reconstruct.gaussian_flow.steps=-3 is not valid"),
        ("reconstruct.gaussian_flow.iterations=many", "reconstruct.gaussian_flow.iterations"),
        ("what", "KEY=VALUE"),
        ("seed=1.5", "seed=1.5 is not valid: give a whole number"),
        ("seed=-1", "seed=-1 is not valid"),
        ("source=", "source is empty: give a video file"),
        ("name=../elsewhere", "'../elsewhere' cannot name a dataset"),
        ("label.window_seconds=-1", "label.kinematics.window_seconds=-1 is not valid: Input should be greater than 0"),
        ("label.window_seconds=2 s", "label.kinematics.window_seconds='2 s' is not valid"),
    ],
)
def test_a_wrong_setting_names_the_nearest_right_one(override, message):
    with pytest.raises(WorldlineError, match=re.escape(message)):
        compose_recipe("pseudo_labels", [override])


@pytest.mark.parametrize(
    "name",
    [
        "my street, take 1 (final)=v2.mp4",
        "straße.mp4",
        "[a].mp4",
        "it's.mp4",
        "C:\\clips\\a.mp4",
        "ends in \\",
        "\\'",
        "5",
        "null",
    ],
)
def test_a_file_name_needs_no_quotes_but_those_of_the_shell(name):
    assert compose_recipe("pseudo_labels", [f"source={name}"])["source"] == name


def test_text_in_quotes_is_read_without_them():
    assert compose_recipe("pseudo_labels", ["source='my street.mp4'"])["source"] == "my street.mp4"


def test_a_sentence_is_text_where_text_is_expected():
    recipe = compose_recipe("pseudo_labels", ["generate.diffusers.prompt=a red car, at night"])
    assert recipe["generate"]["diffusers"]["prompt"] == "a red car, at night"


def test_an_unknown_flow_names_the_nearest():
    with pytest.raises(WorldlineError, match="did you mean pseudo_labels"):
        compose_recipe("pseudo_label")


def test_a_setting_in_the_place_of_the_flow_is_told_apart():
    with pytest.raises(WorldlineError, match="belongs: write worldline build FLOW seed=1, with one of driving_augmentation, "):
        compose_recipe("seed=1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gate.figures=pose.ate < 1", r"gate\.figures='pose\.ate < 1' cannot be read"),
        ("splits.train=0.9", "not shares that add up to 1"),
        ("rights.licence=do-what-you-like", "do-what-you-like"),
        ("source=[]", "source is empty"),
    ],
)
def test_what_would_only_fail_at_publishing_is_refused_before_anything_runs(setting, message):
    with pytest.raises(WorldlineError, match=message):
        compose_recipe("pseudo_labels", (setting,))


def test_a_list_of_sources_is_read_as_a_list():
    assert compose_recipe("pseudo_labels", ("source=[a.mp4,world:curve]",))["source"] == ["a.mp4", "world:curve"]


@pytest.mark.parametrize("method", ["gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents", "static"])
def test_one_setting_chooses_the_method_of_reconstruction_and_the_recipe_says_which(method):
    recipe = compose_recipe("pseudo_labels", [f"reconstruct={method}", f"reconstruct.{method}.steps=7"])
    assert recipe["reconstruct"]["method"] == method
    assert recipe["reconstruct"][method]["steps"] == 7


def test_without_a_choice_the_method_is_gaussian_flow():
    assert compose_recipe("pseudo_labels", [])["reconstruct"]["method"] == "gaussian_flow"
