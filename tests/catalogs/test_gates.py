"""The publish gate: a version that fails it is there to be looked at and never becomes the latest by itself."""

from typing import Any

import pytest
from catalog_workers import key_of, put, run_of

from catalogs.catalog import Catalog, DatasetVersion, Note
from catalogs.contents import measure
from catalogs.gates import Gate, relative_change, total_variation
from catalogs.versions import publish
from schemas.artifact import make_table
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.reports import FIGURES, Metrics


def questions(answers: list[str | tuple[float, str]], kind: str = "turn", offset: int = 0) -> Questions:
    """Questions answered in words, or by (value, unit)."""
    count = len(answers)
    columns: dict[str, Any] = {name: [None] * count for name in QUESTIONS.names}
    columns |= {"question_id": [f"{kind}{offset + index:018d}" for index in range(count)], "kind": [kind] * count}
    columns["answer"] = [answer if isinstance(answer, str) else f"{answer[0]:g} {answer[1]}" for answer in answers]
    columns["answer_value"] = [None if isinstance(answer, str) else answer[0] for answer in answers]
    columns["answer_unit"] = ["" if isinstance(answer, str) else answer[1] for answer in answers]
    return Questions(make_table(QUESTIONS, columns), REJECTIONS.empty_table())


def metrics(**values: float) -> Metrics:
    names = sorted(values)
    columns = {"name": names, "value": [values[name] for name in names], "unit": ["m"] * len(names), "detail": [""] * len(names)}
    return Metrics(make_table(FIGURES, columns))


def made(catalog: Catalog, artifact: Any) -> str:
    digest = put(catalog, artifact)
    return catalog.record(run_of(key_of(digest.digest), "toy.make", (digest,))).outputs[0].digest


def published(catalog: Catalog, gate: Gate | None, build: int = 0, **artifacts: Any) -> DatasetVersion:
    roles = {role.replace("__", "/"): made(catalog, artifact) for role, artifact in artifacts.items()}
    return publish(catalog, "streets", {"build": build}, roles, {}, gate=gate)


GOOD = ["left"] * 40 + ["right"] * 60


def test_without_a_gate_and_with_one_that_asks_nothing_everything_passes(catalog: Catalog) -> None:
    assert published(catalog, None, 0, labels=questions([])).held is None
    assert published(catalog, Gate(), 1, labels=questions([])).held is None


@pytest.mark.both_dialects
def test_a_version_that_fails_is_published_and_held_and_the_one_before_stays_the_latest(catalog: Catalog) -> None:
    gate = Gate(min_rows={"labels": 50})
    good = published(catalog, gate, 0, labels=questions(GOOD))
    bad = published(catalog, gate, 1, labels=questions(GOOD[:20]))
    assert (good.held, bad.held) == (None, "20 rows of labels, at least 50 are asked")
    assert catalog.dataset("streets").version == 1
    assert catalog.dataset("streets@2").held == bad.held
    assert [item.reference for item in catalog.datasets()] == ["streets@1", "streets@2"]


def test_building_the_same_bad_version_again_makes_no_other_one(catalog: Catalog) -> None:
    gate = Gate(min_rows={"labels": 50})
    published(catalog, gate, 0, labels=questions(GOOD))
    for _ in range(2):
        assert published(catalog, gate, 1, labels=questions(GOOD[:20])).reference == "streets@2"
    assert published(catalog, gate, 0, labels=questions(GOOD)).reference == "streets@1"  # what the bare name stands for


def test_a_person_releases_a_held_version_or_keeps_it_held(catalog: Catalog) -> None:
    gate = Gate(min_rows={"labels": 50})
    published(catalog, gate, 0, labels=questions(GOOD))
    published(catalog, gate, 1, labels=questions(GOOD[:20]))
    catalog.note(Note("review", "streets@2", {"verdict": "accept"}, reason="a quiet night", author="ada"))
    assert catalog.dataset("streets").reference == "streets@2"
    assert catalog.dataset("streets@2").held is None
    catalog.note(Note("review", "streets@2", {"verdict": "reject"}, reason="no, the lens was dirty", author="ada"))
    assert catalog.dataset("streets").reference == "streets@1"
    assert catalog.dataset("streets@2").held == "rejected by ada: no, the lens was dirty"


def test_minimum_counts_name_each_shortfall_with_its_limit(catalog: Catalog) -> None:
    gate = Gate(min_rows={"labels": 5, "metrics": 3}, min_artifacts=4, min_clips=3)
    roles = {"a__labels": questions(GOOD[:4]), "b__metrics": metrics(ate=0.5)}
    assert published(catalog, gate, **roles).held == (
        "2 artifacts, at least 4 are asked; 2 clips, at least 3 are asked; "
        "4 rows of labels, at least 5 are asked; 1 rows of metrics, at least 3 are asked"
    )


def test_figures_are_held_to_limits_in_their_unit_and_a_missing_one_fails(catalog: Catalog) -> None:
    gate = Gate(figures={"pose.ate": {"max": 0.5}, "pose.length": {"min": 100.0, "max": 200.0}, "pose.gone": {"min": 0.0}})
    assert published(catalog, gate, **{"metrics": metrics(**{"pose.ate": 0.75, "pose.length": 150.0})}).held == (
        "pose.ate is 0.75 m, at most 0.5 m is allowed; pose.gone was not measured, which the gate asks for"
    )
    far = published(catalog, gate, 1, **{"metrics": metrics(**{"pose.ate": 0.1, "pose.length": 90.0, "pose.gone": 1.0})})
    assert far.held == "pose.length is 90 m, at least 100 m is asked"
    good = metrics(**{"pose.ate": 0.5, "pose.length": 100.0, "pose.gone": 0.0})
    assert published(catalog, gate, 2, metrics=good).held is None  # limits are inclusive


def test_over_many_clips_the_mean_of_the_finite_values_counts(catalog: Catalog) -> None:
    roles = {"a__m": metrics(ate=0.2), "b__m": metrics(ate=0.6), "c__m": metrics(ate=float("nan"))}
    assert published(catalog, Gate(figures={"ate": {"max": 0.41}}), **roles).held is None
    held = published(catalog, Gate(figures={"ate": {"max": 0.39}}), 1, **roles).held
    assert held == "ate is 0.4 m (mean of 2), at most 0.39 m is allowed"


@pytest.mark.both_dialects
def test_drift_is_measured_against_the_latest_and_not_against_a_held_version(catalog: Catalog) -> None:
    gate = Gate(max_row_change=0.5)
    published(catalog, gate, 0, labels=questions(GOOD))
    bad = published(catalog, gate, 1, labels=questions(GOOD[:30]))
    assert bad.held == "30 rows of labels against 100 in streets@1 (70 % change, at most 50 % is allowed)"
    assert published(catalog, gate, 2, labels=questions(GOOD[:40])).held is not None  # 33 % more than the held one
    assert published(catalog, gate, 3, labels=questions(GOOD[:60])).held is None


def test_rows_of_a_table_that_were_none_before_are_no_small_change(catalog: Catalog) -> None:
    gate = Gate(max_row_change=10.0)
    published(catalog, gate, 0, labels=questions(GOOD))
    held = published(catalog, gate, 1, labels=questions(GOOD), metrics=metrics(ate=1.0)).held
    assert held == "1 rows of metrics against none in streets@1 (at most 1000 % change is allowed)"


def test_figures_may_change_by_a_share_of_what_they_were(catalog: Catalog) -> None:
    gate = Gate(max_figure_change=0.2)
    published(catalog, gate, 0, m=metrics(ate=0.5, rmse=1.0))
    assert published(catalog, gate, 1, m=metrics(ate=0.7, rmse=1.1)).held == (
        "ate is 0.7 m against 0.5 m in streets@1 (40 % change, at most 20 % is allowed)"
    )
    assert published(catalog, gate, 2, m=metrics(ate=0.55, new=3.0)).held is None  # a new figure has no before


def test_the_distribution_of_labels_may_move_so_far(catalog: Catalog) -> None:
    gate = Gate(max_label_distance=0.1)
    published(catalog, gate, 0, labels=questions(GOOD))
    more_of_the_same = published(catalog, gate, 1, labels=questions(GOOD * 3))
    assert more_of_the_same.held is None
    turned = published(catalog, gate, 2, labels=questions(["left"] * 60 + ["right"] * 40))
    assert turned.held == (
        "labels by kind and answer differ from streets@2 by a total variation of 0.200 (0 equal, 1 nothing in common), "
        "at most 0.100 is allowed"
    )


def test_numbers_as_answers_are_compared_by_magnitude_and_not_one_by_one(catalog: Catalog) -> None:
    def speeds(*values: float) -> dict[tuple[str, str], int]:
        digest = made(catalog, questions([(value, "km/h") for value in values], "speed"))
        return measure(catalog, {"labels": digest}).labels

    assert speeds(36.2, 41.9, 12.0) == speeds(49.9, 20.0, 19.0) == {("speed", "20 to 50 km/h"): 2, ("speed", "10 to 20 km/h"): 1}
    assert speeds(0.0, -0.3, 0.7, -7.5, 1000.0) == {
        ("speed", "-10 to -5 km/h"): 1,
        ("speed", "-0.5 to 0.5 km/h"): 2,
        ("speed", "0.5 to 1 km/h"): 1,
        ("speed", "1000 to 2000 km/h"): 1,
    }


def test_rejected_questions_do_not_count(catalog: Catalog) -> None:
    labels = questions(GOOD[:10])
    for subject in labels.rows.column("question_id").to_pylist()[:3]:
        catalog.note(Note("review", subject, {"verdict": "reject"}))
    version = published(catalog, Gate(min_rows={"labels": 8}), labels=labels)
    assert version.held == "7 rows of labels, at least 8 are asked"


def test_an_artifact_in_two_roles_counts_once(catalog: Catalog) -> None:
    digest = made(catalog, questions(GOOD))
    contents = measure(catalog, {"a": digest, "b": digest})
    assert (contents.artifacts, contents.rows["labels"]) == (1, 100)


def test_drift_that_cannot_be_measured_holds_the_version(catalog: Catalog) -> None:
    gate = Gate(max_label_distance=0.1)
    before = published(catalog, gate, 0, labels=questions(GOOD))
    ref = catalog.artifact(before.artifacts["labels"])
    catalog.objects.path(ref.parts["rows.parquet"]).unlink()
    held = published(catalog, gate, 1, labels=questions(GOOD, offset=1000)).held
    assert held is not None
    assert held.startswith("drift could not be measured: ")
    assert "streets@1" in held


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_label": 3}, "gate.min_label is not a setting"),
        ({"min_rows": {"lables": 3}}, "gate.min_rows.lables is not a table"),
        ({"min_rows": {"labels": "many"}}, "gate.min_rows.labels=many is not valid"),
        ({"min_clips": -1}, "gate.min_clips=-1 is not valid"),
        ({"max_label_distance": float("nan")}, "gate.max_label_distance=nan is not valid"),
        ({"figures": {"ate": {"maximum": 1}}}, "gate.figures.ate needs min, max or both"),
        ({"figures": {"ate": {"max": "1 m"}}}, "gate.figures.ate.max=1 m is not valid"),
    ],
)
def test_a_gate_that_says_nothing_sensible_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldlineError, match=message):
        Gate.of(settings)


def test_distances_are_what_their_definitions_say() -> None:
    assert total_variation({"a": 1}, {"a": 7}) == 0
    assert total_variation({"a": 1}, {"b": 7}) == 1
    assert total_variation({"a": 50, "b": 50}, {"a": 25, "b": 75}) == pytest.approx(0.25)
    assert (total_variation({}, {}), total_variation({}, {"a": 1})) == (0, 1)
    assert [relative_change(2, 3), relative_change(-2, -1), relative_change(0, 0), relative_change(0, 1)] == [
        0.5, 0.5, 0, float("inf")
    ]  # fmt: skip
