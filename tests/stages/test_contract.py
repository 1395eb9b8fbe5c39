"""The stage contract: what a function must look like to become a stage."""

from dataclasses import dataclass, is_dataclass

import pytest

from schemas.clips import Clip
from schemas.motion import Masks, PointTracks
from schemas.tracks import Truth
from stages.contract import Progress, load_stages, parameters, slots, stage


@dataclass(frozen=True)
class EmptyConfig:
    pass


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    # loaded before, or the modules' one import would fill the first test's registry and leave every later one empty
    monkeypatch.setattr("stages.contract.STAGES", dict(load_stages()))


def test_inputs_and_outputs_are_read_from_the_signature():
    @stage("test.pair", version=3)
    def make(clip: Clip, config: EmptyConfig, *, seed: int, progress: Progress) -> tuple[PointTracks, Masks]:
        raise NotImplementedError

    from stages import contract

    registered = contract.STAGES["test.pair"]
    assert (registered.inputs, registered.outputs) == ({"clip": Clip}, (PointTracks, Masks))
    assert (registered.version, registered.config_type, registered.resumable) == (3, EmptyConfig, False)


def test_any_number_of_artifacts_of_one_type_is_recorded_by_numbered_slots_and_given_back_in_order():
    @stage("test.many", version=1)
    def make(masks: Masks, clips: tuple[Clip, ...], config: EmptyConfig, *, seed: int, progress: Progress) -> Masks:
        raise NotImplementedError

    from stages import contract

    registered = contract.STAGES["test.many"]
    assert (registered.inputs, registered.several) == ({"masks": Masks, "clips": Clip}, {"clips"})
    clips = [f"clip {number}" for number in range(12)]
    slotted = slots(registered, {"masks": "masks", "clips": clips})
    assert set(slotted) == {"masks", *(f"clips.{number:04d}" for number in range(12))}
    assert parameters(registered, dict(reversed(slotted.items()))) == {"masks": "masks", "clips": tuple(clips)}
    assert parameters(registered, slots(registered, {"masks": "masks", "clips": []})) == {"masks": "masks", "clips": ()}


def test_a_function_that_returns_no_artifact_is_refused():
    with pytest.raises(TypeError, match=r"test\.number"):

        @stage("test.number", version=1)
        def make(clip: Clip, config: EmptyConfig, *, seed: int, progress: Progress) -> int:
            raise NotImplementedError


def test_two_modules_cannot_share_a_name():
    def make(clip: Clip, config: EmptyConfig, *, seed: int, progress: Progress) -> Masks:
        raise NotImplementedError

    stage("test.twice", version=1)(make)
    other = type(make)(make.__code__, make.__globals__, "other")
    other.__module__ = "elsewhere"
    other.__annotations__ = make.__annotations__
    with pytest.raises(TypeError, match=r"two stages are called test\.twice"):
        stage("test.twice", version=1)(other)


def shipped() -> dict:
    """The stages of the engine, without toys that benches and other tests have registered in this process."""
    return {name: item for name, item in load_stages().items() if item.function.__module__.startswith("stages.")}


def test_every_stage_has_a_frozen_config_with_defaults_and_is_named_after_its_room():
    for name, registered in shipped().items():
        assert is_dataclass(registered.config_type), name
        assert registered.config_type.__dataclass_params__.frozen, name
        registered.config_type()
        assert registered.function.__module__.split(".")[1] == name.split(".")[0]


def test_only_evaluation_stages_read_the_truth():
    readers = {name for name, registered in shipped().items() if "truth" in registered.inputs}
    cutters = {"ingest.shot"}  # truth goes in and comes out, with the frames that it is of
    assert all(Truth in shipped()[name].outputs for name in cutters)
    assert readers - cutters <= {"pose.evaluate", "label.evaluate", "label.audit"}
