"""How fast labels are made: kinematics of the traffic past a camera, and questions about clips of ten objects.

Questions are asked of ten windows of each object, from their measured kinematics to question tables.
"""

import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Figure, figure
from benchmarks.labels_noise import SIGMA_M, Motions, as_tracks, traffic
from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID, Kinematics
from schemas.tracks import TRACK_SAMPLES, Tracks
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.questions import QuestionsConfig, ask_questions
from worldline.kinematics.noise import corrupt_positions

OBJECTS, WINDOWS, VARIANTS = 10, 10, 40  # of a clip; and clips that differ, which are asked about in turn
# About eleven questions are asked of every window of an object, out of some 29 that could be: a million of 100,000 windows.
# The balance of answers is for training sets, and would hide the work.
ASKED = QuestionsConfig(max_per_kind=60, max_answer_share=1.0)
CORES, CLIPS_AT_ONCE = 2, 10
_clips: list[tuple[Kinematics, Tracks, CameraPath]] = []  # of a worker process


def make_clip(seed: int) -> tuple[Kinematics, Tracks, CameraPath]:
    """Make the kinematics of one clip, with boxes side by side in the image so that every object can be pointed at."""
    motions = traffic(OBJECTS, seed, seconds=2.0 + WINDOWS - 1)
    tracks, path = as_tracks(motions, motions.position, np.ones(len(motions.track), bool))
    left = 90.0 * (tracks.samples["track_id"].to_numpy() - 1)
    columns = {name: tracks.samples[name] for name in TRACK_SAMPLES.names}
    columns |= {"x0_px": left, "x1_px": left + 80.0, "y0_px": np.full(len(left), 200.0), "y1_px": np.full(len(left), 280.0)}
    tracks = Tracks(make_table(TRACK_SAMPLES, columns), tracks.objects, "boxes", "given", 0.0, "given")
    return estimate_kinematics(tracks, path, KinematicsConfig(draws=32), seed=seed, progress=no_progress), tracks, path


def _take_clips(clips: list[tuple[Kinematics, Tracks, CameraPath]]) -> None:
    _clips[:] = clips
    _ask_clips(range(2))


def _ask_clips(indices: Sequence[int]) -> tuple[int, int, float, int]:
    """Ask about some clips; return questions, windows of objects, CPU seconds, and the peak memory of this process in bytes."""
    asked, windows, cpu = 0, 0, time.process_time()
    for index in indices:
        kinematics, tracks, path = _clips[index % len(_clips)]
        rows: pa.Table = ask_questions(kinematics, tracks, path, ASKED, seed=index, progress=no_progress).rows
        asked += rows.num_rows
        windows += int((kinematics.windows["track_id"].to_numpy() != EGO_TRACK_ID).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return asked, windows, time.process_time() - cpu, peak


@dataclass(frozen=True)
class Asking:
    """What asking about many clips took: seconds by the clock and of all processes, and the largest process's peak in bytes."""

    questions: int
    windows: int
    seconds: float
    cpu_s: float
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.questions} questions from {self.windows} windows in {self.seconds:.1f} s ({self.cpu_s:.1f} s of CPU in "
            f"{CORES} processes, peak {self.peak_bytes / 1e6:.0f} MB in each)"
        )


def ask(pool: Executor, questions: int, windows: int) -> Asking:
    """Ask about clip after clip in a pool's processes until there are at least so many questions and windows."""
    began, asked, seen, cpu, peak, index = time.monotonic(), 0, 0, 0.0, 0, 0
    running: set[Future[tuple[int, int, float, int]]] = set()
    while asked < questions or seen < windows:
        while len(running) < 2 * CORES:
            running.add(pool.submit(_ask_clips, range(index, index + CLIPS_AT_ONCE)))
            index += CLIPS_AT_ONCE
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for part in done:
            more, also, took, held = part.result()
            asked, seen, cpu, peak = asked + more, seen + also, cpu + took, max(peak, held)
    seconds = time.monotonic() - began
    wait(running)
    return Asking(asked, seen, seconds, cpu, peak)


def passing_traffic(tracks: int, seed: int, seconds: float) -> Motions:
    """Make up traffic past a standing camera: each object is seen for 30 to 60 s, some time in a recording of `seconds`."""
    generator = np.random.default_rng([seed, 8])
    made = traffic(tracks, seed, seconds=60.0)
    longest, frames = len(made.times_s), round(seconds * 10) + 1
    seen = generator.integers(longest // 2, longest + 1, tracks)
    begins = generator.integers(0, frames - seen + 1)
    frame = np.tile(np.arange(longest), tracks)
    keep = frame < np.repeat(seen, longest)
    times = np.arange(frames) / 10
    place = frame[keep] + np.repeat(begins, seen)
    return Motions(made.track[keep], times[place], made.position[keep], times, np.zeros((frames, 3)))


def measure_traffic(tracks: int, seconds: float) -> tuple[float, float, int]:
    """Estimate the kinematics of noisy passing traffic; return seconds, CPU seconds and the number of samples."""
    motions = passing_traffic(tracks, 0, seconds)
    position, _, keep = corrupt_positions(
        "dropouts", motions.track, motions.time_s, motions.position, motions.range_m, SIGMA_M, seed=0
    )
    given = as_tracks(motions, position, keep)
    began, cpu = time.monotonic(), time.process_time()
    estimate_kinematics(*given, KinematicsConfig(), seed=0, progress=no_progress)
    return time.monotonic() - began, time.process_time() - cpu, int(keep.sum())


def measure_kinematics(folder: Path, quick: bool) -> list[Figure]:
    """Estimate the kinematics of four times the traffic in a recording four times as long; how fast, and how the cost grows."""
    tracks, seconds = (50, 150.0) if quick else (500, 900.0)
    measure_traffic(2, 60.0)  # compiles
    _, cpu_few, samples_few = measure_traffic(tracks, seconds)
    unit = 1 if sys.platform == "darwin" else 1024
    took, cpu, samples = measure_traffic(4 * tracks, 4 * seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    detail = (
        f"{4 * tracks} tracks of 30 to 60 s ({samples} samples) in {4 * seconds:g} s of recording: {took:.1f} s, "
        f"{cpu:.1f} s of CPU; {tracks} tracks ({samples_few} samples) in {seconds:g} s: {cpu_few:.1f} s of CPU; "
        f"peak memory {peak / 1e6:.0f} MB"
    )
    exponent = float(np.log(cpu / cpu_few) / np.log(samples / samples_few))
    return [
        figure("labels.kinematics_tracks_per_s", 4 * tracks / took, "tracks/s", "", detail),
        figure("labels.kinematics_growth_exponent", exponent, "", "1 is linear", f"of CPU time with samples; {detail}"),
    ]


def measure_throughput(folder: Path, quick: bool) -> list[Figure]:
    """Ask a million questions of 100,000 windows and ten times as many, or a tenth of both; how time and memory grow."""
    few, many = (10_000, 100_000) if quick else (1_000_000, 10_000_000)
    clips = [make_clip(seed) for seed in range(VARIANTS)]
    with ProcessPoolExecutor(CORES, get_context("spawn"), _take_clips, (clips,)) as pool:
        ask(pool, 2_000, 0)  # both processes are there
        small = ask(pool, few, few // 10)
        large = ask(pool, many, many // 10)
    detail = f"{small}; then {large}; clips of {OBJECTS} objects, at most {ASKED.max_per_kind} questions of a kind and clip"
    exponent = float(np.log(large.seconds / small.seconds) / np.log(large.questions / small.questions))
    of = large if quick else small
    million = of.seconds * max(1e6 / of.questions, 1e5 / of.windows)
    return [
        figure("labels.seconds_per_million_questions", million, "s", "under 60 s on two cores, of 100,000 windows", detail),
        figure("labels.growth_exponent", exponent, "", "1 is linear", f"from the first to ten times as many: {detail}"),
    ]
