"""Recipes: every setting has a default, and a wrong one names the nearest right one."""

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
        ("reconstruct.gaussian_flow.iterations=many", "reconstruct.gaussian_flow.iterations"),
        ("what", "KEY=VALUE"),
    ],
)
def test_a_wrong_setting_names_the_nearest_right_one(override, message):
    with pytest.raises(WorldlineError, match=message.replace(".", r"\.")):
        compose_recipe("pseudo_labels", [override])


def test_an_unknown_flow_names_the_nearest():
    with pytest.raises(WorldlineError, match="did you mean pseudo_labels"):
        compose_recipe("pseudo_label")
