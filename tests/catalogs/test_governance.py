from pathlib import Path
from typing import Any

import pytest
from catalog_workers import figures, key_of, make, put, run_of

from catalogs.catalog import Catalog, Note
from catalogs.governance import give_terms, licence_of, licences_of, rejected_by_people, review
from catalogs.licences import allows, normalise
from catalogs.versions import publish
from schemas.artifact import Files, rows_to_table
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.reports import LINEAGE_EDGES, LINEAGE_NODES, Lineage


def source(catalog: Catalog, tmp_path: Path, name: str) -> str:
    path = tmp_path / name
    path.write_bytes(name.encode() * 10)
    return catalog.adopt(put(catalog, Source(files=Files({name: path}), layout="video", name=name))).digest


def empty_source(catalog: Catalog) -> str:
    return catalog.adopt(put(catalog, Source(files=Files(), layout="none", name=""))).digest


def questions(*ids: str) -> Questions:
    blank: dict[str, Any] = dict.fromkeys(QUESTIONS.names) | {"kind": "speed", "question": "?", "answer": "!"}
    rows = rows_to_table(QUESTIONS, [blank | {"question_id": name} for name in ids])
    return Questions(rows=rows, rejections=REJECTIONS.empty_table())


def made(catalog: Catalog, name: str, artifact: Any, inputs: dict[str, str], stage: str = "toy.make", **other: Any) -> str:
    return catalog.record(run_of(key_of(name), stage, (put(catalog, artifact),), inputs, **other)).outputs[0].digest


# -- licences ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "commercial", "redistribution"),
    [
        ("CC0-1.0", True, True),
        ("CC-BY-4.0", True, True),
        ("CC-BY-SA-4.0", True, True),
        ("CC-BY-NC-4.0", False, True),
        ("CC-BY-NC-SA-4.0", False, True),
        ("CC-BY-ND-4.0", False, False),  # what was derived may not be passed on
        ("Apache-2.0", True, True),
        ("ODbL-1.0", True, True),
        ("CDLA-Permissive-2.0", True, True),
        ("LicenseRef-CreativeML-OpenRAIL-M", True, True),
        ("LicenseRef-Waymo-Open-Dataset", False, False),
        ("LicenseRef-Own", True, True),
        ("LicenseRef-a-contract-that-nobody-has-read", False, False),
        ("unknown", False, False),
        ("MIT OR CC-BY-NC-4.0", True, True),
        ("MIT AND CC-BY-NC-4.0", False, True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True, True),
        ("CC-BY-4.0 AND unknown", False, False),
    ],
)
def test_a_licence_allows_what_it_is_known_to_allow(licence, commercial, redistribution):
    assert (allows(licence, "commercial"), allows(licence, "redistribution")) == (commercial, redistribution)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        (" mit ", "MIT"),
        ("nuScenes", "CC-BY-NC-SA-4.0"),
        ("KITTI", "CC-BY-NC-SA-3.0"),
        ("PandaSet", "CC-BY-4.0"),
        ("own", "LicenseRef-Own"),
        ("openrail++", "LicenseRef-CreativeML-OpenRAIL-PlusPlus-M"),
        ("apache-2.0 or mit", "Apache-2.0 OR MIT"),
    ],
)
def test_people_may_write_a_licence_as_they_know_it(written, meant):
    assert normalise(written) == meant


@pytest.mark.parametrize("written", ["", "mitt", "MIT AND", "( MIT", "proprietary", "unknown", "'; DROP TABLE", "📄"])
def test_what_is_no_licence_is_refused_in_one_sentence(written):
    with pytest.raises(WorldlineError, match="licence") as refused:
        normalise(written)
    assert "\n" not in str(refused.value)


def test_a_misspelt_licence_is_answered_with_the_nearest():
    with pytest.raises(WorldlineError, match="did you mean CC-BY"):
        normalise("CC-BY-4.1")


# -- terms flow down ---------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_a_label_has_the_licences_of_every_source_upstream_of_it(catalog, tmp_path):
    video, weights = source(catalog, tmp_path, "street.mp4"), source(catalog, tmp_path, "weights.bin")
    clip = made(catalog, "clip", figures(1), {"source": video})
    labels = made(catalog, "labels", figures(2), {"clip": clip, "weights": weights})
    give_terms(catalog, video, licence="CC-BY-NC-SA-4.0", attribution="Ann Example")
    give_terms(catalog, "weights.bin", licence="Apache-2.0", attribution="Model Makers")
    found = licence_of(catalog, labels)
    assert found.expression == "Apache-2.0 AND CC-BY-NC-SA-4.0"
    assert found.attribution == "Ann Example; Model Makers"
    assert not found.allow("commercial")
    assert licence_of(catalog, clip).expression == "CC-BY-NC-SA-4.0"


def test_a_source_without_terms_is_unknown_and_never_commercial(catalog, tmp_path):
    clip = made(catalog, "clip", figures(1), {"source": source(catalog, tmp_path, "street.mp4")})
    assert licence_of(catalog, clip).expression == "unknown"
    assert not licence_of(catalog, clip).allow("commercial")


def test_procedural_worlds_are_free_for_all(catalog):
    clip = made(catalog, "clip", figures(1), {}, stage="generate.world")
    labels = made(catalog, "labels", figures(2), {"clip": clip})
    assert licence_of(catalog, labels).expression == "CC0-1.0"
    assert licence_of(catalog, labels).allow("commercial")


def test_generated_video_is_unknown_until_terms_are_given_for_its_model(catalog):
    model = {"model": "Maker/Video-1B"}
    clip = made(catalog, "clip", figures(1), {"conditioning": empty_source(catalog)}, stage="generate.diffusers", config=model)
    labels = made(catalog, "labels", figures(2), {"clip": clip})
    assert licence_of(catalog, labels).expression == "unknown"
    give_terms(catalog, "model:Maker/Video-1B", licence="creativeml-openrail-m")
    assert licence_of(catalog, labels).expression == "LicenseRef-CreativeML-OpenRAIL-M"


def test_a_generated_clip_may_have_a_licence_of_its_own(catalog):
    model = {"model": "Maker/Video-1B"}
    clips = [made(catalog, f"clip {n}", figures(n), {}, stage="generate.diffusers", config=model, seed=n) for n in (1, 2)]
    give_terms(catalog, "model:Maker/Video-1B", licence="CC-BY-NC-4.0")
    catalog.note(Note("terms", clips[0], {"licence": "CC-BY-4.0"}))
    found = licences_of(catalog, clips)
    assert [found[clip].expression for clip in clips] == ["CC-BY-4.0", "CC-BY-NC-4.0"]


def test_what_the_catalog_itself_wrote_carries_no_licence(catalog):
    page = put(catalog, Lineage(nodes=LINEAGE_NODES.empty_table(), edges=LINEAGE_EDGES.empty_table()))
    report = made(catalog, "report", figures(1), {"lineage": catalog.adopt(page).digest})
    assert licence_of(catalog, report).origins == ()


@pytest.mark.both_dialects
def test_the_empty_truth_that_all_videos_share_carries_no_licence_from_one_to_the_other(catalog, tmp_path):
    labels = {}
    for name, licence in (("free", "CC0-1.0"), ("bound", "CC-BY-NC-4.0")):
        video = source(catalog, tmp_path, f"{name}.mp4")
        give_terms(catalog, video, licence=licence)
        clip, nothing = put(catalog, figures(len(name))), put(catalog, figures(0, rows=0))
        catalog.record(run_of(key_of(name), "ingest.toy", (clip, nothing), {"source": video}))
        labels[name] = made(catalog, f"{name} metrics", figures(90 + len(name)), {"clip": clip.digest, "truth": nothing.digest})
    found = licences_of(catalog, labels.values())
    assert {name: found[digest].expression for name, digest in labels.items()} == {"free": "CC0-1.0", "bound": "CC-BY-NC-4.0"}
    assert licence_of(catalog, labels["bound"]).expression == "CC-BY-NC-4.0"


def test_terms_of_something_derived_are_refused_and_its_origin_named(catalog, tmp_path):
    video = source(catalog, tmp_path, "street.mp4")
    clip = made(catalog, "clip", figures(1), {"source": video})
    with pytest.raises(WorldlineError, match=video[:16]):
        give_terms(catalog, clip, licence="CC0-1.0")
    assert catalog.log.notes("terms") == []


def test_terms_given_later_add_to_those_given_before(catalog, tmp_path):
    video = source(catalog, tmp_path, "street.mp4")
    give_terms(catalog, video, licence="CC-BY-4.0", attribution="Ann Example")
    given = give_terms(catalog, video[:10], place="Berlin", author="me")
    assert (given.licence, given.attribution, given.place) == ("CC-BY-4.0", "Ann Example", "Berlin")


# -- reviews -----------------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_the_newest_review_of_a_sample_or_question_counts(catalog):
    labels = made(catalog, "labels", questions("aaaa1111", "bbbb2222"), {})
    assert review(catalog, labels[:12], "reject", reason="blurred") == labels
    assert review(catalog, "aaaa1111", "reject", reason="wrong side") == "aaaa1111"
    assert review(catalog, "bbbb", "reject", reason="wrong side") == "bbbb2222"
    review(catalog, "aaaa1111", "accept")
    assert rejected_by_people(catalog.log) == {labels, "bbbb2222"}


def test_a_review_of_a_version_is_no_review_of_a_sample(catalog):
    publish(catalog, "streets", {}, {"figures": make(catalog, "base", 1).outputs[0].digest}, {})
    assert review(catalog, "streets@1", "reject", reason="too dark") == "streets@1"
    assert rejected_by_people(catalog.log) == set()


@pytest.mark.parametrize(
    ("subject", "verdict", "reason"),
    [("nowhere", "accept", None), ("streets@9", "accept", None), ("streets", "accept", None), ("streets@1", "reject", None),
     ("streets@1", "maybe", "so"), ("it's", "accept", None)],
)  # fmt: skip
def test_a_review_that_says_nothing_clear_is_refused_and_not_recorded(catalog, subject, verdict, reason):
    publish(catalog, "streets", {}, {"figures": make(catalog, "base", 1).outputs[0].digest}, {})
    with pytest.raises(WorldlineError) as refused:
        review(catalog, subject, verdict, reason=reason)
    assert "\n" not in str(refused.value)
    assert catalog.log.notes("review") == []
