"""Questions to a catalog of 10 million labels, each asked by a process that has just started.

The workspace is generated straight into records and consolidated files: a dataset "nightly" of many clips with 100
questions each (version 1 holds nine tenths of them, version 2 all), made from clips that were cut from sources, and a
small dataset "sample" whose artifacts are read part by part. Nothing in it was measured; only its sizes matter.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogs.catalog import ArtifactRef, Catalog, DatasetVersion, Execution
from catalogs.consolidation import SEGMENT_ROWS, write_segment
from catalogs.records import Note, Record, dataset_row, execution_row, note_row, output_row
from catalogs.tables import CONTENT_TABLES
from schemas.artifact import make_table
from schemas.labels import QUESTIONS, REJECTIONS, Questions

_FORMAT = 1  # raise when the generated workspace changes
_ROWS_PER_COMMIT = 20_000
_CLIPS_PER_SOURCE = 100
_KINDS = ("speed", "acceleration", "distance", "direction", "turn", "closing", "order", "relation")
_WORDS = {"direction": ("left", "right", "toward", "away"), "turn": ("straight", "left", "right", "u_turn"),
          "closing": ("yes", "no"), "order": ("first", "second"), "relation": ("in front", "behind", "beside")}  # fmt: skip
_REPEATS = 5

# What is asked, as the body of a program; `catalog` is the opened workspace.
_QUERIES = {
    "point": "print(catalog.sql(\"SELECT * FROM labels WHERE question_id = '{label}'\").to_pylist())",
    "lineage": "from catalogs.lineage import lineage_of; print(lineage_of(catalog, '{label}').edges.to_pylist())",
    "group": 'print(catalog.sql("{group}").to_pylist())',
    "top": 'print(catalog.sql("{top}").to_pylist())',
    "time_travel": 'print(catalog.sql("{time_travel}").to_pylist())',
    "datasets": "print([(item.reference, len(item.artifacts)) for item in catalog.datasets()])",
    "show": "version = catalog.dataset('nightly'); "
    "print(len(version.artifacts), [catalog.artifact(digest) for digest in list(version.artifacts.values())[:100]])",
    "artifact_lineage": "from catalogs.lineage import lineage_of; print(lineage_of(catalog, '{artifact}').edges.to_pylist())",
}
_COMMANDS = {
    "point": ["query", "SELECT * FROM labels WHERE question_id = '{label}'"],
    "lineage": ["lineage", "{label}"],
    "group": ["query", "{group}"],
    "top": ["query", "{top}"],
    "time_travel": ["query", "{time_travel}"],
    "datasets": ["datasets"],
    "show": ["show", "nightly"],
    "artifact_lineage": ["lineage", "{artifact}"],
}
_SQL = {
    "group": "SELECT kind, answer, count(*) AS labels, avg(answer_value) AS mean FROM labels WHERE latest "
    "GROUP BY ALL ORDER BY labels DESC LIMIT 20",
    "top": "SELECT question_id, question, answer, artifact FROM labels WHERE latest ORDER BY answer_value DESC LIMIT 10",
    "time_travel": "SELECT kind, count(*) AS labels, avg(answer_value) AS mean FROM labels "
    "WHERE dataset = 'nightly' AND version = 1 GROUP BY kind ORDER BY kind",
}


def query_benchmark(folder: Path, rows: int = 10_000_000, artifacts: int = 100_000) -> list[dict[str, Any]]:
    """Time each question from the start of a process to its printed answer; median of five.

    Args:
        folder: where the workspace is generated, or was by an earlier call.
        rows: number of labels.
        artifacts: number of clips, each with one artifact that holds its share of the labels.

    Returns:
        Figures with id, value, unit, compared_with and detail.
    """
    # In a process of its own: on Linux a child's peak memory counts that of its parent before it became another program.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        home, names = apart.submit(_opened_workspace, folder, rows, artifacts).result()
    figures: list[dict[str, Any]] = []
    peak = ("", 0.0)
    for kind, body in _QUERIES.items():
        limit = 1.0 if kind in ("datasets", "show", "artifact_lineage") else 0.5
        program = f"from catalogs.catalog import Catalog; catalog = Catalog.open({str(home)!r}); {body.format(**names)}"
        seconds, cpu, rss = _median([sys.executable, "-c", program])
        words = [word.format(**names) for word in _COMMANDS[kind]]
        command = [sys.executable, "-m", "worldline", words[0], "--home", str(home), *words[1:]]
        by_command, command_cpu, command_rss = _median(command)
        peak = max(peak, (kind, rss), (f"{kind} (command)", command_rss), key=lambda item: item[1])
        what = (
            f"{rows:,} labels, {artifacts:,} clips, from the start of a process, median of {_REPEATS}, {cpu:.2f} s of it CPU; "
            f"as a command {by_command:.3f} s, {command_cpu:.2f} s of it CPU"
        )
        figures.append(_figure(f"catalog.query.{kind}_s", seconds, "s", f"at most {limit} s", what))
    detail = f"largest peak resident memory of these processes, of {peak[0]}; {rows:,} labels"
    return [*figures, _figure("catalog.query_rss_mb", peak[1], "MB", "at most 1000 MB", detail)]


def _figure(name: str, value: float, unit: str, compared_with: str, detail: str) -> dict[str, Any]:
    return {"id": name, "value": value, "unit": unit, "compared_with": compared_with, "detail": detail}


def _median(command: list[str]) -> tuple[float, float, float]:
    """Run a command a few times; return its median wall and CPU time in seconds and its largest peak memory in MB."""
    seconds, cpu, peaks = [], [], []
    for _ in range(_REPEATS):
        with tempfile.TemporaryFile() as said:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.perf_counter() - start)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            if process.returncode:
                raise RuntimeError(f"{command} failed: {said.read().decode()[-2000:]}")
        cpu.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss / 1000)
    return statistics.median(seconds), statistics.median(cpu), max(peaks)


# -- the workspace --------------------------------------------------------------------------------------------------------


def _opened_workspace(folder: Path, rows: int, artifacts: int) -> tuple[Path, dict[str, str]]:
    """Generate the workspace and open it once: a log from before an upgrade is made anew here, not in a process that is timed."""
    home, names = generated_workspace(folder, rows, artifacts)
    Catalog.open(home)
    return home, names


def generated_workspace(folder: Path, rows: int, artifacts: int) -> tuple[Path, dict[str, str]]:
    """Return a workspace of this size and the names that the questions use; one generated earlier is used again."""
    home = folder / f"queries-{rows}-{artifacts}-{_FORMAT}"
    if not (home / "generated.json").exists():
        shutil.rmtree(home, ignore_errors=True)
        names = _generate(Catalog.open(home), rows // artifacts, artifacts)
        (home / "generated.json").write_text(json.dumps(names))
    return home, json.loads((home / "generated.json").read_text()) | _SQL


def _generate(catalog: Catalog, questions: int, clips: int) -> dict[str, str]:
    records = _records(clips)
    while some := [row for _, row in zip(range(_ROWS_PER_COMMIT), records, strict=False)]:
        with catalog.log.write() as commit:
            for row in some:
                commit.append(row)
    files, label = _label_files(catalog, questions, clips)
    for version, share in ((1, 0.9), (2, 1.0)):
        held = round(len(files) * share)
        _publish(catalog, version, min(held * _clips_per_file(questions, clips), clips), files[:held])
    _sample(catalog)
    catalog.log.compact(minimum=1)
    return {"label": label, "artifact": _digest("labels", clips // 2)}


def _digest(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind}/{number}".encode()).hexdigest()


def _clip(number: int) -> str:
    return f"drive-{number:06d}"


def _ref(kind: str, number: int, facts: dict[str, Any]) -> ArtifactRef:
    parts = {name: _digest(name, number) for name in ("meta.json", "arrays.safetensors" if kind == "Clip" else "rows.parquet")}
    return ArtifactRef(_digest(kind, number), kind, 1, 1, 20_000, facts, parts)


def _labels(number: int) -> ArtifactRef:
    ref = _ref("Questions", number, {"questions": 100})
    return ArtifactRef(_digest("labels", number), *list(vars(ref).values())[1:])


def _records(clips: int) -> Iterator[Record]:
    """Yield sources, and for every clip the executions that cut it and asked about it."""
    for number in range(clips):
        source = _ref("Source", number // _CLIPS_PER_SOURCE, {"name": f"camera {number // _CLIPS_PER_SOURCE}"})
        if number % _CLIPS_PER_SOURCE == 0:
            yield {"record": "source", "outputs": [output_row("Source", source)]}
        facts = {"name": _clip(number), "frames": 300, "width_px": 1920, "height_px": 1080, "duration_s": 10.0}
        clip = _ref("Clip", number, facts)
        yield _ran("ingest.cut", number, {"source": source.digest}, clip)
        yield _ran("label.ask", number, {"clip": clip.digest}, _labels(number))


def _ran(stage: str, number: int, inputs: dict[str, str], output: ArtifactRef) -> Record:
    config = {"start_s": number % 100 * 10.0, "seconds": 10.0, "grid_s": 0.1, "kinds": list(_KINDS)}
    execution = Execution(
        _digest(stage, number), stage, 1, "c0de", {f"stages/{stage}.py": "f1"}, config, number, inputs, (output,), "ok",
        None, None, 1.7e9 + number, 1.5, 1 << 28, {"cpu": "made up", "cores": 2}, {"numpy": "2.0"},
    )  # fmt: skip
    return execution_row(execution, "execution")


def _publish(catalog: Catalog, version: int, clips: int, files: list[str]) -> None:
    artifacts = {f"{_clip(number)}/labels": _digest("labels", number) for number in range(clips)}
    keys = tuple(_digest(stage, number) for number in range(clips) for stage in ("ingest.cut", "label.ask"))
    splits = {_clip(number): "test" if number % 10 == 0 else "train" for number in range(clips)}
    manifest = catalog.objects.put_bytes(f"generated {version}".encode())
    published = DatasetVersion("nightly", version, {"flow": "made up"}, artifacts, keys, {}, manifest, 0.0, splits=splits)
    tables = {name: files if name == "labels" else [] for name in CONTENT_TABLES}
    with catalog.log.write() as commit:
        commit.append(dataset_row(published, f"generated {version}"))
        commit.append(note_row(Note("tables", published.reference, {"tables": tables})))


def _clips_per_file(questions: int, clips: int) -> int:
    return min(SEGMENT_ROWS // questions, -(-clips // 10))


def _label_files(catalog: Catalog, questions: int, clips: int) -> tuple[list[str], str]:
    """Store the labels of all clips as consolidated files; return their names and the id of one label."""
    step = _clips_per_file(questions, clips)
    files = []
    label = ""
    with catalog.scratch_folder() as scratch:
        for first in range(0, clips, step):
            rows = _label_rows(range(first, min(first + step, clips)), questions)
            label = label or rows.column("question_id")[len(rows) // 2].as_py()
            write_segment(CONTENT_TABLES["labels"], rows, scratch / "rows")
            files.append(catalog.objects.put(scratch / "rows", take=True))
    return files, label


def _label_rows(clips: range, questions: int) -> pa.Table:
    random = np.random.default_rng(clips.start)
    count = len(clips) * questions
    kinds = random.integers(0, len(_KINDS), count)
    values = np.round(random.gamma(2.0, 12.0, count), 0)
    numeric = kinds < 3
    units = np.array(["km/h", "m/s2", "m", "", "", "", "", ""])[kinds]
    words = np.array(
        [[_WORDS.get(kind, ("",))[number % len(_WORDS.get(kind, ("",)))] for number in range(12)] for kind in _KINDS]
    )
    spoken = words[kinds, random.integers(0, 12, count)]
    answers = np.where(numeric, np.char.add(np.char.add(values.astype(int).astype(str), " "), units), spoken)
    tracks = random.integers(1, 30, count)
    starts = np.round(random.uniform(0, 8, count), 1)
    asked = [f"What can be said of the {_KINDS[kind]} of object {track} between {start:.1f} s and {start + 2:.1f} s?"
             for kind, track, start in zip(kinds, tracks, starts, strict=True)]  # fmt: skip
    bits = random.bytes(10 * count)
    columns: dict[str, Any] = dict.fromkeys(QUESTIONS.names)
    columns |= {
        "question_id": [bits[10 * row : 10 * row + 10].hex() for row in range(count)],
        "kind": np.array(_KINDS)[kinds],
        "question": asked,
        "answer": answers,
        "answer_value": pa.array(values, mask=~numeric),
        "answer_unit": units,
        "answer_p5": pa.array(values * 0.9, mask=~numeric),
        "answer_p95": pa.array(values * 1.1, mask=~numeric),
        "track_ids": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), pa.array(tracks, pa.int32())),
        "frames": pa.ListArray.from_arrays(
            np.arange(0, 2 * count + 1, 2, dtype=np.int32),
            pa.array(np.stack([starts * 30, starts * 30 + 60], 1).ravel(), pa.int32(), safe=False),
        ),
        "start_s": starts,
        "end_s": starts + 2.0,
        "wording": random.integers(0, 4, count),
        "requires_level": random.integers(1, 5, count),
        "metric": numeric,
        "scale_source": ["gps"] * count,
        "scale_sigma": [0.02] * count,
    }
    columns = {name: [None] * count if column is None else column for name, column in columns.items()}
    owners = pa.array([_digest("labels", number) for number in clips], pa.string()).take(
        pa.array(np.repeat(np.arange(len(clips)), questions))
    )
    columns = {field.name: pa.array(columns[field.name]).cast(field.type) for field in QUESTIONS}
    return make_table(QUESTIONS, columns).append_column("artifact", owners)


def _sample(catalog: Catalog) -> None:
    """Publish a small dataset of real artifacts, whose rows stay in their own parts."""
    artifacts = {}
    for number in range(3):
        rows = _label_rows(range(10_000_000 + number, 10_000_001 + number), 100).drop_columns(["artifact"])
        rejections = make_table(REJECTIONS, {name: [] for name in REJECTIONS.names})
        with catalog.scratch_folder() as scratch:
            ref = catalog.put(Questions(rows.cast(QUESTIONS), rejections), scratch)
        with catalog.log.write() as commit:
            commit.append(_ran("label.ask", 10_000_000 + number, {}, ref))
        artifacts[f"{_clip(number)}/labels"] = ref.digest
    manifest = catalog.objects.put_bytes(b"generated sample")
    version = DatasetVersion("sample", 1, {"flow": "made up"}, artifacts, (), {}, manifest, 0.0)
    with catalog.log.write() as commit:
        commit.append(dataset_row(version, "generated sample"))


if __name__ == "__main__":
    for line in query_benchmark(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:])):
        print(f"{line['id']:32} {line['value']:9.3f} {line['unit']:3} {line['compared_with']:16} {line['detail']}")
