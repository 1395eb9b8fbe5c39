"""The readers that are compared read the same frames."""

import tarfile
from pathlib import Path

import numpy as np

from benchmarks.catalog_loader import _dataset, _decode, _shards, loader_benchmark


def test_both_readers_are_timed_on_the_same_windows(tmp_path: Path) -> None:
    figures = {figure["id"]: figure for figure in loader_benchmark(tmp_path, clips=3, frames=8, window=4, rounds=1)}
    assert set(figures) == {
        "catalog.loader_clips_per_s",
        "catalog.loader_ratio_to_peer",
        "catalog.loader_cpu_ms_per_clip",
        "catalog.loader_decoding_share",
    }
    assert all(figure["value"] is not None and figure["value"] > 0 for figure in figures.values())
    dataset = _dataset(tmp_path, 3, 8)
    windows = dataset.to_torch(window=4)
    stored = {}
    for shard in _shards(tmp_path, dataset, 4, "windows"):
        with tarfile.open(shard) as tar:
            stored |= {member.name: tar.extractfile(member).read() for member in tar if member.name.endswith(".mkv")}
    assert len(stored) == len(windows) == 6
    for number in range(6):
        sample = windows[number]
        name = f"{sample['clip']}-clip-{int(sample['frame_index'][0]):05d}.mkv"
        assert np.array_equal(_decode(stored[name], 0, 4), sample["frames"].numpy())
