"""Artifacts survive storage unchanged, and their digest depends on their values alone."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifact import Files, make_table
from schemas.clips import GPS_FIXES, Clip, Source
from schemas.codec import content_digest, decode, encode
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.media import Video
from schemas.motion import Masks
from schemas.scenes import Scene4D

RNG = np.random.default_rng(3)


def make_clip(**changes) -> Clip:
    values = {
        "frames": Video.from_array(np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)),
        "times_s": np.array([0.0, 0.1, 0.25, 0.3, 1 / 3]),
        "name": "street <b>",
        "gps": make_table(
            GPS_FIXES,
            {
                "time_s": [0.0, 0.3],
                "latitude_deg": [1.5, 2.5],
                "longitude_deg": [0.0, 0.0],
                "altitude_m": [2.0, 2.0],
                "speed_mps": [None, 3.0],
            },
        ),
        "provenance": {"prompt": "Straße", "seed": 3},
    }
    return Clip(**(values | changes))


def make_scene() -> Scene4D:
    def array(*shape):
        return np.random.default_rng(len(shape)).random(shape).astype(np.float32)

    return Scene4D(
        motion_model="gaussian_flow", means=array(4, 3), quats=array(4, 4), scales=array(4, 3), opacities=array(4),
        colors=array(4, 3), motion={"position": array(4, 2, 3, 3), "time_center": array(4, 1)}, start_s=0.0, end_s=2.0,
        background=np.zeros(3), scale_source="gps", scale_sigma=0.01,
    )  # fmt: skip


def test_a_clip_is_stored_without_loss(tmp_path):
    clip = make_clip()
    copy = decode(encode(clip, tmp_path))
    assert np.array_equal(copy.frames.array(), clip.frames.array())
    assert np.array_equal(copy.times_s, clip.times_s)
    assert copy.gps.equals(clip.gps)
    assert (copy.name, copy.provenance, copy.intrinsics) == (clip.name, clip.provenance, None)


def test_sixteen_bit_labels_are_stored_without_loss(tmp_path):
    labels = RNG.integers(0, 65536, (3, 31, 22), dtype=np.uint16)
    copy = decode(encode(Masks(labels=Video.from_array(labels), scale=0.5, method="test"), tmp_path))
    assert np.array_equal(copy.labels.array(), labels)


def test_a_dictionary_of_arrays_is_stored_without_loss(tmp_path):
    copy = decode(encode(make_scene(), tmp_path))
    assert {name: item.tolist() for name, item in copy.motion.items()} == {
        name: item.tolist() for name, item in make_scene().motion.items()
    }


def test_given_files_are_kept_byte_for_byte(tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"\x00\x01video")
    folder = tmp_path / "parts"
    folder.mkdir()
    source = Source(files=Files({"in.mp4": tmp_path / "in.mp4"}), layout="video", name="in")
    assert decode(encode(source, folder)).files["in.mp4"].read_bytes() == b"\x00\x01video"


def test_the_same_values_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (encode(make_clip(), tmp_path / name) for name in ("a", "b"))
    assert {name: path.read_bytes() for name, path in first.items()} == {name: path.read_bytes() for name, path in second.items()}


def test_the_digest_survives_storage(tmp_path):
    for index, artifact in enumerate([make_clip(), make_scene()]):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert content_digest(decode(encode(artifact, folder))) == content_digest(artifact)


def test_the_digest_does_not_depend_on_how_a_table_is_cut_into_chunks():
    rows = {field.name: None for field in QUESTIONS} | {"question_id": "a", "track_ids": [1, 2], "answer": "3 m"}
    one = pa.Table.from_pylist([rows, rows | {"track_ids": [], "answer": "ab"}], schema=QUESTIONS)
    cut = pa.concat_tables([one.slice(0, 1), one.slice(1, 1)])
    empty = REJECTIONS.empty_table()
    assert content_digest(Questions(rows=one, rejections=empty)) == content_digest(Questions(rows=cut, rejections=empty))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"times_s": np.array([0.0, 0.1, 0.25, 0.3, 0.33333])},
        {"gps": None},
        {"intrinsics": np.eye(3)},
        {"frames": Video.from_array(np.zeros((5, 33, 47, 3), np.uint8))},
    ],
)
def test_every_field_enters_the_digest(change):
    assert content_digest(make_clip(**change)) != content_digest(make_clip())


def test_a_null_differs_from_the_value_beneath_it():
    def gps(speed):
        fix = {"time_s": [0.0], "latitude_deg": [1.0], "longitude_deg": [1.0], "altitude_m": [1.0], "speed_mps": [speed]}
        return content_digest(make_clip(gps=make_table(GPS_FIXES, fix)))

    assert gps(None) != gps(0.0)


def test_a_wrong_shape_names_the_field():
    with pytest.raises(ValueError, match=r"Scene4D\.quats"):
        Scene4D(**(make_scene().__dict__ | {"quats": np.zeros((3, 4), np.float32)}))


def test_wrong_columns_name_the_field():
    with pytest.raises(ValueError, match=r"Questions\.rows"):
        Questions(rows=REJECTIONS.empty_table(), rejections=REJECTIONS.empty_table())


def test_times_must_increase():
    with pytest.raises(ValueError, match="increase"):
        make_clip(times_s=np.array([0.0, 0.1, 0.1, 0.3, 0.4]))


def test_a_newer_schema_is_refused_in_one_sentence(tmp_path):
    parts = encode(make_clip(), tmp_path)
    meta = json.loads(parts["meta.json"].read_text()) | {"schema_version": 99}
    parts["meta.json"].write_text(json.dumps(meta))
    with pytest.raises(WorldlineError, match="upgrade"):
        decode(parts)


def test_tables_are_plain_parquet(tmp_path):
    parts = encode(make_clip(), tmp_path)
    assert pq.read_table(parts["gps.parquet"]).num_rows == 2
