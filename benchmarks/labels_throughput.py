"""How fast labels are made: kinematics of the traffic past a camera, and questions about clips of ten objects.

Questions are asked of ten windows of each object, from their measured kinematics to question tables.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Figure, figure
from benchmarks.labels_noise import SIGMA_M, Motions, as_tracks, traffic
from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.labels import Kinematics
from schemas.tracks import TRACK_SAMPLES, Tracks
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.questions import QuestionsConfig, ask_questions
from worldline.kinematics.noise import corrupt_positions

OBJECTS, WINDOWS, VARIANTS = 10, 10, 40  # of a clip; and clips that differ, which are asked about in turn
# Everything that can be asked is: quotas and the balance of answers are for training sets, and would hide the work.
EVERYTHING = QuestionsConfig(max_per_kind=1_000_000, max_answer_share=1.0)


def make_clip(seed: int) -> tuple[Kinematics, Tracks, CameraPath]:
    """Make the kinematics of one clip, with boxes side by side in the image so that every object can be pointed at."""
    motions = traffic(OBJECTS, seed, seconds=2.0 + WINDOWS - 1)
    tracks, path = as_tracks(motions, motions.position, np.ones(len(motions.track), bool))
    left = 90.0 * (tracks.samples["track_id"].to_numpy() - 1)
    columns = {name: tracks.samples[name] for name in TRACK_SAMPLES.names}
    columns |= {"x0_px": left, "x1_px": left + 80.0, "y0_px": np.full(len(left), 200.0), "y1_px": np.full(len(left), 280.0)}
    tracks = Tracks(make_table(TRACK_SAMPLES, columns), tracks.objects, "boxes", "given", 0.0, "given")
    return estimate_kinematics(tracks, path, KinematicsConfig(draws=32), seed=seed, progress=no_progress), tracks, path


def ask(clips: list[tuple[Kinematics, Tracks, CameraPath]], questions: int) -> tuple[int, int, float, float]:
    """Ask about clip after clip until there are so many questions; return their number, windows, seconds and CPU seconds."""
    began, cpu, asked, windows, index = time.monotonic(), time.process_time(), 0, 0, 0
    while asked < questions:
        kinematics, tracks, path = clips[index % len(clips)]
        table: pa.Table = ask_questions(kinematics, tracks, path, EVERYTHING, seed=index, progress=no_progress).rows
        asked, windows, index = asked + table.num_rows, windows + kinematics.windows.num_rows, index + 1
    return asked, windows, time.monotonic() - began, time.process_time() - cpu


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
    """Ask a hundred thousand and a million questions; how the time grows, and whether the memory does."""
    small, large = (10_000, 100_000) if quick else (100_000, 1_000_000)
    clips = [make_clip(seed) for seed in range(VARIANTS)]
    ask(clips, 1_000)
    unit = 1 if sys.platform == "darwin" else 1024
    asked_few, _, few_s, _ = ask(clips, small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    asked, windows, seconds, cpu = ask(clips, large)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    detail = (
        f"{asked} questions from {windows} track windows of clips with {OBJECTS} objects, one process, {seconds:.1f} s "
        f"({cpu:.1f} s of it CPU); peak memory grew by {grown / 1e6:.0f} MB from {asked_few} questions to {asked}"
    )
    exponent = float(np.log(seconds / few_s) / np.log(asked / asked_few))
    return [
        figure("labels.seconds_per_million_questions", seconds * 1e6 / asked, "s", "under 60 s on two cores", detail),
        figure("labels.growth_exponent", exponent, "", "1 is linear", f"{asked_few} questions in {few_s:.1f} s; {detail}"),
    ]
