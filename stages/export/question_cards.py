"""Sample questions with the frames that they refer to."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from schemas.labels import Questions
from stages.export.media import data_uri, encode_jpeg, resize
from stages.export.shown import ShownTrack, figure, scale_words
from stages.export.track_overlay import draw_boxes

_QUALITY = 82


def sample_questions(questions: Questions, per_kind: int) -> dict[str, list[dict[str, Any]]]:
    """Return up to `per_kind` questions of every kind, spread evenly over the kind's questions in their order by id."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in questions.rows.to_pylist():
        by_kind.setdefault(row["kind"], []).append(row)
    return {
        kind: [rows[index] for index in np.unique(np.linspace(0, len(rows) - 1, per_kind).round().astype(int))]
        for kind, rows in sorted(by_kind.items())
    }


def question_frames(sampled: dict[str, list[dict[str, Any]]], count: int) -> list[int]:
    """Return the frames that the questions refer to, without those that the clip does not have."""
    return sorted({frame for rows in sampled.values() for row in rows for frame in row["frames"] or [] if 0 <= frame < count})


def make_cards(
    sampled: dict[str, list[dict[str, Any]]],
    questions: Questions,
    objects: list[ShownTrack],
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]],
    times_s: np.ndarray,
    width: int,
) -> list[dict[str, Any]]:
    """Return one group of cards per kind.

    Args:
        sampled: from `sample_questions`.
        questions: all of them, for the counts.
        objects: all objects, for the boxes.
        pictures: frames of the clip by index.
        times_s: times of all frames.
        width: of a thumbnail in pixels.
    """
    counts: dict[str, int] = {}
    for kind in questions.rows.column("kind").to_pylist():
        counts[kind] = counts.get(kind, 0) + 1
    by_id = {item.track_id: item for item in objects}
    thumbnails: dict[tuple[int, tuple[int, ...]], str] = {}
    groups = []
    for kind, rows in sampled.items():
        cards = []
        for row in rows:
            shots = []
            for frame in dict.fromkeys(row["frames"] or []):
                if frame not in pictures:
                    continue
                key = (frame, tuple(row["track_ids"] or []))
                if key not in thumbnails:
                    thumbnails[key] = _thumbnail(pictures[frame], frame, [by_id[i] for i in key[1] if i in by_id], width)
                shots.append({"src": thumbnails[key], "time": f"{times_s[frame]:.1f} s", "frame": frame})
            cards.append(_card(row, shots))
        groups.append({"kind": kind.replace("_", " "), "count": counts[kind], "cards": cards})
    return groups


def _thumbnail(frame_pixels: UInt8[np.ndarray, "H W 3"], frame: int, objects: list[ShownTrack], width: int) -> str:
    height = round(frame_pixels.shape[0] * width / frame_pixels.shape[1])
    scale = width / frame_pixels.shape[1]
    boxes = []
    for item in objects:
        row = item.samples.get(frame)
        if row is not None and row["x0_px"] is not None:
            boxes.append(tuple(row[name] * scale for name in ("x0_px", "y0_px", "x1_px", "y1_px")))
    return data_uri(encode_jpeg(draw_boxes(resize(frame_pixels, (width, height)), boxes), _QUALITY), "image/jpeg")


def _card(row: dict[str, Any], shots: list[dict[str, Any]]) -> dict[str, Any]:
    facts = [("window", f"{row['start_s']:.1f} to {row['end_s']:.1f} s")]
    if row["answer_p5"] is not None and row["answer_p95"] is not None:
        unit = f" {row['answer_unit']}" if row["answer_unit"] else ""
        facts.append(("90 % interval", f"{figure(row['answer_p5'])} to {figure(row['answer_p95'])}{unit}"))
    if row["metric"]:
        sigma = f" ± {100 * row['scale_sigma']:.1f} %" if row["scale_sigma"] else ""
        facts.append(("lengths", f"scale from {scale_words(row['scale_source'])}{sigma}"))
    else:
        facts.append(("lengths", "not needed for the answer"))
    facts.append(("level", f"{row['requires_level']} of 5"))
    return {"question": row["question"], "answer": row["answer"], "facts": facts, "shots": shots, "id": row["question_id"][:10]}
