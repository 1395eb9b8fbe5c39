"""Random clips per second out of a dataset version, beside WebDataset on the same encoded frames.

What is compared: our loader cuts windows out of the clips of a version where they lie, in a fully random order. The
peer reads tar shards in which every window was stored as a video of its own beforehand (a second copy of the data, of
one fixed length), one shard after the other through a shuffle buffer: what WebDataset is best at. Both decode the same
FFV1 frames with PyAV, one thread per worker, into uint8 `[T, H, W, 3]`, and collate the same batches in two workers.
(PyAV converts colours in threads of its own unless told not to. On a machine with more to do than cores, a process
that sleeps and wakes so often was given three times the CPU time per second of one that only computes, at equal CPU
time per window: readers of one thread each are compared, and CPU times are told beside rates.)
The third reader takes the same random windows out of the same shards of whole clips: what the peer has to do where
windows are not cut beforehand.
"""

import contextlib
import io
import json
import os
import resource
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader

from benchmarks.harness import Figure, figure
from catalogs.catalog import ArtifactRef, Catalog, Execution
from catalogs.datasets import Dataset
from catalogs.loaders import Windows, collate
from catalogs.versions import publish
from schemas.clips import Clip
from schemas.media import Video, write_video

HEIGHT, WIDTH, RATE_HZ = 160, 256, 25.0
WORKERS, BATCH, SHARDS = 2, 4, 6


def measure_loader(folder: Path, quick: bool) -> list[Figure]:
    """Return the figures of the case `loader`."""
    return loader_benchmark(folder, clips=24 if quick else 48, rounds=5 if quick else 9)


def loader_benchmark(folder: Path, clips: int = 48, frames: int = 64, window: int = 16, rounds: int = 9) -> list[Figure]:
    """Measure both readers in turns, because other work on the machine comes and goes.

    Args:
        folder: where the version and the shards lie, or are made.
        clips: how many, of `frames` frames each.
        frames: see above.
        window: frames in a sample.
        rounds: epochs that are timed of each reader.
    """
    dataset = _dataset(folder, clips, frames)
    windows = dataset.to_torch(window=window)
    shards = _shards(folder, dataset, window, "windows")
    whole = _shards(folder, dataset, frames, "clips")
    readers = {"ours": _ours(windows), "peer": _peer(shards, len(windows), window), "uncut": _peer(whole, len(windows), window)}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    work: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds):
        for name, epoch in readers.items():
            begin, worked = time.perf_counter(), _workers_s()
            seen = sum(len(batch) for batch in epoch(number))
            if seen != len(windows):
                raise RuntimeError(f"{name} read {seen} windows of {len(windows)}")
            rates[name].append(seen / (time.perf_counter() - begin))
            work[name].append((_workers_s() - worked) / seen)
        print(f"loader: round {number + 1} of {rounds}", file=sys.stderr)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    cpu_ms = {name: 1e3 * statistics.median(values) for name, values in work.items()}
    share = _decoding_share(windows)
    shape = f"windows of {window} frames {HEIGHT}x{WIDTH} out of {clips} clips of {frames}; {WORKERS} workers, batches of {BATCH}"
    told = f"{shape}; median of {rounds} epochs; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
    spread = f"by round {min(ratios):.2f} to {max(ratios):.2f}"
    return [
        figure("catalog.loader_clips_per_s", rate["ours"], "1/s", f"{rate['peer']:.1f}/s WebDataset, {rate['uncut']:.1f}/s uncut",
               told),
        figure("catalog.loader_ratio_to_peer", statistics.median(ratios), "", "1 (WebDataset, windows cut beforehand)",
               f"random access against shuffled shards, same encoded frames, same decoder; {spread}; {told}"),
        figure("catalog.loader_cpu_ms_per_clip", cpu_ms["ours"], "ms",
               f"{cpu_ms['peer']:.1f} ms WebDataset, {cpu_ms['uncut']:.1f} ms uncut",
               f"CPU time of the workers, which other work on the machine does not change; {told}"),
        figure("catalog.loader_decoding_share", share, "", "1 (nothing but decoding)",
               f"FFmpeg's share of the CPU time that one process spends on random windows; {shape}"),
    ]  # fmt: skip


def _workers_s() -> float:
    """Return the CPU time in seconds of the workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- what is read -----------------------------------------------------------------------------------------------------


def _moving_texture(seed: int, frames: int) -> np.ndarray:
    """A smooth random picture that drifts under a little sensor noise: it compresses about as well as film."""
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (HEIGHT + frames, WIDTH + 2 * frames, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(wide, (0, 0), 3).astype(np.float32)
    smooth = (smooth - smooth.min()) * (255 / np.ptp(smooth))
    drifting = np.stack([smooth[step : step + HEIGHT, 2 * step : 2 * step + WIDTH] for step in range(frames)])
    return np.clip(drifting + random.normal(0, 2, drifting.shape).astype(np.float32), 0, 255).astype(np.uint8)


def _dataset(folder: Path, clips: int, frames: int) -> Dataset:
    catalog = Catalog.open(folder / "workspace")
    name = f"textures-{clips}-{frames}"
    if name in {version.name for version in catalog.datasets()}:
        return catalog.dataset(name)
    roles: dict[str, str] = {}
    for seed in range(clips):
        clip = Clip(Video.from_array(_moving_texture(seed, frames)), np.arange(frames) / RATE_HZ, f"texture {seed}")
        with catalog.scratch_folder() as scratch:
            roles[f"texture-{seed:03d}/clip"] = catalog.record(_made_by_bench(catalog.put(clip, scratch), seed)).outputs[0].digest
    publish(catalog, name, {"clips": clips, "frames": frames}, roles, {})
    return catalog.dataset(name)


def _made_by_bench(clip: ArtifactRef, seed: int) -> Execution:
    return Execution(
        key=clip.digest, stage="bench.texture", version=1, code="", code_files={}, config={"frames": clip.facts["frames"]},
        seed=seed, inputs={}, outputs=(clip,), status="ok", error_type=None, error_message=None, started_at=time.time(),
        seconds=0.0, peak_memory_bytes=0, machine={}, packages={},
    )  # fmt: skip


def _shards(folder: Path, dataset: Dataset, length: int, name: str) -> list[str]:
    """Write shards with one video of `length` frames per sample, in the order of the clips."""
    target = folder / f"{dataset.name}-{name}-{length}"
    paths = [target / f"{number:03d}.tar" for number in range(SHARDS)]
    if target.exists():
        return [str(path) for path in paths]
    building = target.with_suffix(".building")
    building.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(building / path.name, "w")) for path in paths]
        for number, role in enumerate(sorted(dataset.artifacts)):
            clip = dataset.load(role)
            assert isinstance(clip, Clip)
            pictures = clip.frames.array()
            for first in range(0, len(pictures) - length + 1, length):
                part = building / "part.mkv"
                write_video(part, pictures[first : first + length], "rgb")
                times = json.dumps({"times_s": clip.times_s[first : first + length].tolist()}).encode()
                for suffix, data in (("mkv", part.read_bytes()), ("json", times)):
                    info = tarfile.TarInfo(f"{role.replace('/', '-')}-{first:05d}.{suffix}")
                    info.size = len(data)
                    tars[number % SHARDS].addfile(info, io.BytesIO(data))
                part.unlink()
    building.rename(target)
    return [str(path) for path in paths]


# -- who reads --------------------------------------------------------------------------------------------------------

Epoch = Callable[[int], Iterator[list[str]]]


def _ours(windows: Windows) -> Epoch:
    order = windows.order(seed=0)
    loader: Iterable[Any] = DataLoader(windows, batch_size=BATCH, sampler=order, num_workers=WORKERS, collate_fn=collate)

    def epoch(number: int) -> Iterator[list[str]]:
        order.set_epoch(number)
        for batch in loader:
            yield batch["clip"]

    return epoch


def _peer(shards: list[str], windows: int, window: int) -> Epoch:
    """WebDataset as its documentation sets it up: shards shuffled and split between workers, a buffer of samples shuffled."""
    pipeline = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), workersplitter=webdataset.split_by_worker, seed=0)
        .shuffle(windows // 4)
        .compose(_Cutter(window))
    )
    loader: Iterable[Any] = DataLoader(pipeline, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate)

    def epoch(number: int) -> Iterator[list[str]]:
        for batch in loader:
            yield batch["clip"]

    return epoch


class _Cutter:
    """Decodes samples of the shards into windows: one of each, or as many as its video has, in random order."""

    def __init__(self, window: int) -> None:
        self.window = window

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(0)
        for sample in samples:
            times = np.array(json.loads(sample["json"])["times_s"])
            for number in random.permutation(len(times) // self.window):
                first = int(number) * self.window
                pictures = _decode(sample["mkv"], first, self.window)
                times_s = torch.from_numpy(times[first : first + self.window])
                yield {"clip": sample["__key__"], "times_s": times_s, "frames": torch.from_numpy(pictures)}


def _decode(data: bytes, first: int, count: int) -> np.ndarray:
    """Decode `count` frames from the `first` on, with the decoder that our loader uses."""
    options = {"analyzeduration": "0", "probesize": "32", "fpsprobesize": "0"}
    with av.open(io.BytesIO(data), "r", options=options) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if first:
            container.seek(first, stream=stream)
        pictures = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
        decoded = container.decode(stream)
        for index in range(count):
            pictures[index] = next(decoded).to_ndarray(format="rgb24", threads=1)
        return pictures


def _decoding_share(windows: Windows) -> float:
    """Return the share of our reading that bare decoding of the same packets takes, in one process."""
    numbers = windows.order(seed=1).numbers()[:64].tolist()
    shares = []
    for _ in range(3):
        begin = time.process_time()
        for number in numbers:
            windows[number]
        ours = time.process_time() - begin
        bare = 0.0
        for number in numbers:
            bare += _bare_decoding_s(windows, number)
        shares.append(bare / ours)
    return statistics.median(shares)


def _bare_decoding_s(windows: Windows, number: int) -> float:
    """Return the seconds that FFmpeg takes to decode a window's packets, already in memory."""
    samples = windows.samples
    clip = samples._open(int(np.searchsorted(samples._ends, number, side="right")))
    wanted = set(windows.samples.sample(number)["frame_index"].tolist())
    with av.open(str(clip.reader.path), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.pts in wanted]
        begin = time.process_time()
        for packet in packets:
            packet.decode()
        return time.process_time() - begin
