"""Training code reads windows of clips: the right frames, with what is known of them, in any number of processes."""

import functools
import pickle
import re
import shutil
import textwrap
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from clips_of_versions import publish_clips, times_of
from torch.utils.data import DataLoader

import catalogs.loaders
from catalogs.catalog import Catalog
from catalogs.datasets import Dataset
from catalogs.loaders import Windows, collate
from catalogs.records import Note
from schemas.errors import WorldlineError

LENGTHS = {"avenue": 23, "bridge": 5, "corner": 16}
EVERYTHING = ("frames", "cameras", "tracks", "kinematics", "windows", "labels")


@pytest.fixture(scope="module")
def published(tmp_path_factory: Any) -> tuple[Catalog, dict[str, dict[str, Any]]]:
    catalog = Catalog.open(tmp_path_factory.mktemp("published"))
    return catalog, publish_clips(catalog, LENGTHS)


@pytest.fixture(scope="module")
def made(published: Any) -> dict[str, dict[str, Any]]:
    """The artifacts that were published, by clip and role."""
    return published[1]


@pytest.fixture(scope="module")
def dataset(published: Any) -> Dataset:
    return published[0].dataset("streets")


@pytest.fixture
def windows(dataset: Dataset) -> Windows:
    return dataset.to_torch(window=4, include=EVERYTHING)


def where(sample: dict[str, Any]) -> tuple[str, int]:
    return sample["clip"], int(sample["frame_index"][0])


def places(batches: Any) -> list[tuple[str, int]]:
    return [
        (clip, int(first)) for batch in batches for clip, first in zip(batch["clip"], batch["frame_index"][:, 0], strict=True)
    ]


# -- what a sample is -------------------------------------------------------------------------------------------------


def test_windows_cover_every_clip_without_overlapping(windows: Windows) -> None:
    expected = [(clip, first) for clip, frames in LENGTHS.items() for first in range(0, frames - 3, 4)]
    assert [where(windows[number]) for number in range(len(windows))] == expected


def test_frames_are_those_of_the_clip_at_their_true_times(windows: Windows, made: Any) -> None:
    for number in reversed(range(len(windows))):
        sample = windows[number]
        clip, first = where(sample)
        assert torch.equal(sample["frames"], torch.from_numpy(made[clip]["clip"].frames.array()[first : first + 4]))
        assert sample["times_s"].tolist() == times_of(LENGTHS[clip])[first : first + 4].tolist()


def test_cameras_are_those_of_the_frames(windows: Windows, made: Any) -> None:
    sample = windows[7]
    clip, first = where(sample)
    assert torch.equal(sample["world_from_camera"], torch.from_numpy(made[clip]["path"].world_from_camera[first : first + 4]))
    assert sample["intrinsics"].tolist() == np.eye(3).tolist()
    assert (sample["registered"].tolist(), sample["scale_source"]) == ([True] * 4, "gps")


def test_labels_are_those_whose_time_lies_in_the_window(windows: Windows, made: Any) -> None:
    """In these clips a label of kind "n" spans the frames n to n + 3."""
    for number in range(len(windows)):
        clip, first = where(windows[number])
        assert windows[number]["labels"]["kind"].to_pylist() == [str(first)]
        ids = {row["kind"]: row["question_id"] for row in made[clip]["questions"].rows.to_pylist()}
        assert windows[number]["labels"]["question_id"].to_pylist() == [ids[str(first)]]


def test_tracks_are_those_of_the_frames_and_states_those_between_their_times(windows: Windows) -> None:
    sample = windows[1]
    times = sample["times_s"].tolist()
    assert sample["tracks"].select(["track_id", "frame"]).to_pylist() == [
        {"track_id": track, "frame": frame} for track in (1, 2) for frame in (4, 5, 6, 7)
    ]
    states = np.arange(0, times_of(23)[-1], 0.05)
    inside = states[(states >= times[0]) & (states <= times[-1])]
    assert len(inside) == 6
    assert sample["kinematics"]["time_s"].to_pylist() == inside.tolist()
    assert all(row["start_s"] >= times[0] and row["end_s"] <= times[-1] for row in sample["windows"].to_pylist())
    assert 1 <= len(sample["windows"]) <= 2


def test_a_window_may_step_over_frames_and_overlap_the_next(dataset: Dataset, made: Any) -> None:
    windows = dataset.to_torch(window=3, step=5, hop=1)
    frames = [windows[number]["frame_index"].tolist() for number in range(len(windows))]
    assert frames == [[0, 5, 10], [5, 10, 15], [10, 15, 20], [0, 5, 10], [5, 10, 15]]
    assert torch.equal(windows[1]["frames"], torch.from_numpy(made["avenue"]["clip"].frames.array()[5:16:5]))
    assert windows.left_out == {"bridge": "it is shorter than a window"}


def test_a_window_may_step_by_seconds_to_the_nearest_frames(dataset: Dataset) -> None:
    """The frames are 0.1 s apart, every second one 4 ms and every third one 8 ms late."""
    windows = dataset.to_torch(window=3, step_s=0.25, hop=2)
    starts_s = {"avenue": [0.0, 0.5, 1.0, 1.5], "corner": [0.0, 0.5, 1.0]}
    expected = [
        (clip, [int(np.abs(times_of(LENGTHS[clip]) - (start + later)).argmin()) for later in (0.0, 0.25, 0.5)])
        for clip, starts in starts_s.items()
        for start in starts
    ]
    assert [
        (sample["clip"], sample["frame_index"].tolist()) for sample in map(windows.__getitem__, range(len(windows)))
    ] == expected
    assert expected[1] == ("avenue", [5, 7, 10])


def test_frames_come_with_their_channels_first_where_asked(dataset: Dataset, made: Any) -> None:
    windows = dataset.to_torch(window=4, channels_first=True)
    expected = made["avenue"]["clip"].frames.array()[:4].transpose(0, 3, 1, 2)
    assert torch.equal(windows[0]["frames"], torch.from_numpy(expected.copy()))


def test_only_what_was_asked_for_is_in_a_sample(dataset: Dataset, made: Any) -> None:
    windows = dataset.to_torch(window=4, include=("labels",))
    assert set(windows[0]) == {"clip", "split", "frame_index", "times_s", "labels"}


def test_windows_print_as_what_they_are(dataset: Dataset) -> None:
    windows = dataset.to_torch(window=8, include=("frames", "labels"))
    assert repr(windows) == "4 windows of 2 clips, 8 frames each, with frames, labels; 1 clips left out"


def test_a_split_takes_its_own_clips_alone(dataset: Dataset, made: Any) -> None:
    for split in sorted(set(dataset.splits.values())):
        windows = dataset.to_torch(window=4, include=("labels",), split=split)
        samples = [windows[number] for number in range(len(windows))]
        assert {sample["clip"] for sample in samples} == {clip for clip in LENGTHS if dataset.splits[clip] == split}
        assert {sample["split"] for sample in samples} == {split}


def test_a_label_that_a_person_rejected_is_in_no_sample(catalog: Catalog) -> None:
    publish_clips(catalog, LENGTHS)
    windows = catalog.dataset("streets").to_torch(window=4, include=("labels",))
    question = windows[2]["labels"]["question_id"][0].as_py()
    catalog.note(Note("review", question, {"verdict": "reject"}, author="reader"))
    publish_clips(catalog, LENGTHS)
    assert catalog.dataset("streets").reference == "streets@2"
    again = catalog.dataset("streets").to_torch(window=4, include=("labels",))
    assert len(again[2]["labels"]) == 0
    assert len(again[1]["labels"]) == 1


def test_a_sample_per_label_spreads_its_frames_over_the_time_of_the_label(dataset: Dataset, made: Any) -> None:
    """A label of kind "n" spans the frames n to n + 3."""
    windows = dataset.to_torch(window=2, per="label")
    samples = [windows[number] for number in range(len(windows))]
    rows = [(clip, row) for clip in LENGTHS for row in made[clip]["questions"].rows.to_pylist()]
    assert [(sample["clip"], sample["labels"].to_pylist()) for sample in samples] == [(clip, [row]) for clip, row in rows]
    for sample, (clip, row) in zip(samples, rows, strict=True):
        first = int(row["kind"])
        assert sample["frame_index"].tolist() == [first, first + 3]
        assert np.array_equal(sample["frames"], made[clip]["clip"].frames.array()[[first, first + 3]])


def test_a_rejected_label_gives_no_sample_of_its_own(catalog: Catalog) -> None:
    publish_clips(catalog, LENGTHS)
    first = catalog.dataset("streets").to_torch(window=2, per="label")
    before = [first[number]["labels"] for number in range(len(first))]
    catalog.note(Note("review", before[3]["question_id"][0].as_py(), {"verdict": "reject"}, author="reader"))
    publish_clips(catalog, LENGTHS)
    windows = catalog.dataset("streets@2").to_torch(window=2, per="label")
    assert [windows[number]["labels"] for number in range(len(windows))] == before[:3] + before[4:]


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window must be greater than 0, not 0"),
        ({"step": 2, "step_s": 0.5}, "give step or step_s, not both"),
        ({"window": 30}, "long enough for a window of 30 frames that are 1 frames apart: the longest has 23 frames in 2.2 s"),
        ({"per": "label", "hop": 2}, 'per must be "window" or "label" \\(without step, step_s and hop\\), not \'label\''),
        ({"include": ("depth",)}, "a sample cannot include depth: it can include frames, cameras, tracks"),
        ({"split": "tests"}, "streets@1 has no split tests: it has "),
        ({"roles": {"Clip": "novel"}}, "streets@1 has no clip to cut windows from: it has no Clip"),
    ],
)
def test_what_cannot_be_cut_is_one_sentence(dataset: Dataset, made: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldlineError, match=message):
        dataset.to_torch(**arguments)


def test_a_lost_video_is_named_with_its_clip(catalog: Catalog) -> None:
    publish_clips(catalog, {"avenue": 5})
    windows = catalog.dataset("streets").to_torch(window=4)
    catalog.objects.discard([catalog.dataset("streets").members["avenue/clip"].parts["frames.mkv"]])
    with pytest.raises(WorldlineError, match=r"clip avenue has lost its Clip/frames\.mkv"):
        windows[0]


def test_a_damaged_table_is_named_with_its_clip(catalog: Catalog) -> None:
    publish_clips(catalog, {"avenue": 5})
    windows = catalog.dataset("streets").to_torch(window=4, include=("labels",))
    path = catalog.objects.path(catalog.dataset("streets").members["avenue/questions"].parts["rows.parquet"])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WorldlineError, match=r"Questions/rows\.parquet of clip avenue is damaged"):
        windows[0]


# -- orders -----------------------------------------------------------------------------------------------------------


def test_two_epochs_of_one_seed_are_equal_and_another_epoch_is_not(windows: Windows) -> None:
    first, second = windows.order(seed=3), windows.order(seed=3)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert sorted(first) == sorted(second) == list(range(len(windows)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_of_ranks_are_disjoint_and_complete(windows: Windows, world_size: int) -> None:
    orders = [windows.order(seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(number for order in orders for number in order) == list(range(len(windows)))
    assert [len(order) for order in orders] == [len(list(order)) for order in orders]


def test_ranks_take_equally_many_steps_where_asked(windows: Windows) -> None:
    orders = [windows.order(rank=rank, world_size=4, equal=True) for rank in range(4)]
    assert {len(list(order)) for order in orders} == {len(windows) // 4}


def test_a_rank_outside_the_world_is_refused(windows: Windows) -> None:
    with pytest.raises(WorldlineError, match="rank must be from 0 to world_size - 1"):
        windows.order(rank=2, world_size=2)


def test_an_epoch_goes_on_where_it_was_left(windows: Windows) -> None:
    order = windows.order(seed=5)
    order.set_epoch(2)
    whole = list(order)
    state = order.state_dict(consumed=4)
    resumed = windows.order(seed=5)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert list(resumed) == whole[4:]
    resumed.set_epoch(3)
    assert len(list(resumed)) == len(windows)


def test_a_state_of_another_order_is_refused(windows: Windows) -> None:
    with pytest.raises(WorldlineError, match="the state was taken with seed=5, not 6"):
        windows.order(seed=6).load_state_dict(windows.order(seed=5).state_dict(consumed=1))


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def read_before(windows: Windows) -> Windows:
    """Windows that this process has open already when it starts workers."""
    windows[0], windows[5]
    return windows


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_workers_read_what_one_process_reads(read_before: Windows, start: str, workers: int) -> None:
    alone = [read_before[number] for number in range(len(read_before))]
    loader = DataLoader(read_before, batch_size=3, num_workers=workers, collate_fn=collate, multiprocessing_context=start)
    batches = list(loader)
    assert torch.equal(torch.cat([batch["frames"] for batch in batches]), torch.stack([sample["frames"] for sample in alone]))
    assert [table for batch in batches for table in batch["labels"]] == [sample["labels"] for sample in alone]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_stream_gives_the_same_batches_with_any_number_of_workers(windows: Windows, workers: int) -> None:
    stream = windows.stream(batch_size=2, seed=4)
    batches = list(DataLoader(stream, batch_size=None, num_workers=workers))
    order = [where(windows[number]) for number in windows.order(seed=4)]
    assert places(batches) == order
    assert len(batches) == len(stream)


def test_a_stream_is_shared_out_to_ranks_and_their_workers(windows: Windows) -> None:
    seen = []
    for rank in range(2):
        seen += places(DataLoader(windows.stream(batch_size=2, rank=rank, world_size=2), batch_size=None, num_workers=2))
    assert sorted(seen) == sorted(where(windows[number]) for number in range(len(windows)))
    assert len(seen) == len(windows)


def test_workers_that_live_on_see_the_next_epoch_and_a_resumed_one(windows: Windows) -> None:
    stream = windows.stream(batch_size=2, seed=4)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    first = places(loader)
    stream.set_epoch(1)
    second = places(loader)
    assert first != second
    assert sorted(first) == sorted(second)
    stream.load_state_dict(stream.state_dict(consumed=4))
    assert places(loader) == second[4:]


def test_a_stream_of_single_samples_holds_each_once(windows: Windows) -> None:
    loader = DataLoader(windows.stream(seed=1), batch_size=3, num_workers=2, collate_fn=collate)
    assert sorted(places(loader)) == sorted(where(windows[number]) for number in range(len(windows)))


def frame_mean(sample: dict[str, Any]) -> float:
    return float(sample["frames"].float().mean())


def test_a_transform_runs_in_the_worker(dataset: Dataset, made: Any) -> None:
    plain = dataset.to_torch(window=4)
    windows = dataset.to_torch(window=4, transform=functools.partial(frame_mean))
    loader = DataLoader(windows, batch_size=None, num_workers=1)
    assert list(loader) == [frame_mean(plain[number]) for number in range(len(plain))]


def test_threads_read_side_by_side(windows: Windows) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alone = [windows[number]["frames"] for number in range(len(windows))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: windows[number % len(windows)]["frames"], range(60)))
    assert all(torch.equal(frames, alone[number % len(alone)]) for number, frames in enumerate(together))


def test_nothing_open_crosses_to_another_process(read_before: Windows) -> None:
    assert len(pickle.dumps(read_before)) < 20_000
    copy = pickle.loads(pickle.dumps(read_before))
    assert torch.equal(copy[5]["frames"], read_before[5]["frames"])


@pytest.mark.both_dialects
def test_workers_read_from_either_store(catalog: Catalog) -> None:
    made = publish_clips(catalog, {"avenue": 8})
    windows = catalog.dataset("streets").to_torch(window=4, include=EVERYTHING)
    loader = DataLoader(windows, batch_size=2, num_workers=1, collate_fn=collate, multiprocessing_context="forkserver")
    (batch,) = loader
    assert torch.equal(batch["frames"].flatten(0, 1), torch.from_numpy(made["avenue"]["clip"].frames.array()))
    assert [table["kind"].to_pylist() for table in batch["labels"]] == [["0"], ["4"]]


@pytest.mark.parametrize("home", ["postgres+s3"], indirect=True)
def test_a_forked_worker_on_a_remote_store_says_what_to_do(catalog: Catalog) -> None:
    publish_clips(catalog, {"avenue": 8})
    windows = catalog.dataset("streets").to_torch(window=4)
    with pytest.raises(WorldlineError, match="give the DataLoader multiprocessing_context='forkserver'"):
        list(DataLoader(windows, num_workers=1, multiprocessing_context="fork"))


@pytest.mark.parametrize("home", ["postgres+s3"], indirect=True)
def test_labels_are_read_from_a_remote_store_without_its_videos(catalog: Catalog) -> None:
    publish_clips(catalog, {"avenue": 8})
    dataset = catalog.dataset("streets")
    shutil.rmtree(catalog.objects.folder)
    assert len(dataset.to_torch(window=4, include=("labels",))[0]["labels"]) == 1
    fetched = {path.parent.name + path.name for path in catalog.objects.folder.rglob("*") if path.is_file()}
    assert fetched == {dataset.members["avenue/clip"].parts["arrays.safetensors"],
                       dataset.members["avenue/questions"].parts["rows.parquet"]}  # fmt: skip


# -- batches ----------------------------------------------------------------------------------------------------------


def test_equal_shapes_collate_without_help(dataset: Dataset, made: Any) -> None:
    windows = dataset.to_torch(window=4, include=("frames", "cameras"))
    batch = next(iter(DataLoader(windows, batch_size=4)))
    assert batch["frames"].shape == (4, 4, 16, 24, 3)
    assert batch["world_from_camera"].shape == (4, 4, 4, 4)
    assert batch["clip"] == ["avenue"] * 4


def test_tables_and_unequal_shapes_become_lists() -> None:
    sizes = (4, 6)
    batch = collate([{"frames": torch.zeros(2, size, 3), "labels": pa.table({"kind": ["x"]}), "split": "val"} for size in sizes])
    assert [tuple(frames.shape) for frames in batch["frames"]] == [(2, 4, 3), (2, 6, 3)]
    assert [len(table) for table in batch["labels"]] == [1, 1]
    assert batch["split"] == ["val", "val"]


# -- Hugging Face -----------------------------------------------------------------------------------------------------


def test_a_hugging_face_dataset_equals_the_answer_in_sql(dataset: Dataset, made: Any) -> None:
    answer = dataset.catalog.sql(
        "SELECT * EXCLUDE (dataset, version, latest) FROM labels WHERE dataset = 'streets' AND version = 1"
    )
    labels = dataset.to_huggingface("labels")
    assert labels.num_rows == len(answer) > 0
    key = lambda row: row["question_id"]  # noqa: E731
    assert sorted(labels.to_list(), key=key) == sorted(answer.to_pylist(), key=key)
    assert labels.features.arrow_schema.types == answer.schema.types


def test_its_fingerprint_is_that_of_the_version_and_the_table(dataset: Dataset, made: Any) -> None:
    same, other = dataset.to_huggingface("labels"), dataset.to_huggingface("tracks")
    assert same._fingerprint == dataset.catalog.dataset("streets@1").to_huggingface("labels")._fingerprint
    assert same._fingerprint != other._fingerprint


# -- what the documentation shows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_the_examples_run_as_they_stand(number: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    example = [part for part in re.split(r"\n(?=\S)", catalogs.loaders.__doc__ or "") if "\n\n    " in part][number]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    publish_clips(Catalog.open("worldline-data"), {f"clip{number}": 16 for number in range(6)})
    shown: dict[str, Any] = {}
    exec(textwrap.dedent(example.partition("\n")[2]), shown)
    batch = shown.get("batch")
    if number < 2:
        assert batch["frames"].shape[1:] == (8, 16, 24, 3)
    else:
        assert len(shown["metric"]) == len(shown["questions"]) > 0
