"""Hugging Face's VideoFolder: videos by split, each with a `metadata.parquet` of one row per question."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldline.label_files.labelled_clip import split_folder


def video_place(split: str, file: str) -> str:
    """Return where the video of a clip goes, relative to the folder of the export."""
    return f"data/{split_folder(split)}/{file}.mp4"


def write_video_folder(facts: pa.Table, folder: Path) -> None:
    """Write the metadata of every split beside its videos.

    Args:
        facts: `LABEL_FACTS`, with videos where `video_place` says.
        folder: of the export.
    """
    places = pc.extract_regex(facts["video"], r"^data/(?P<split>\w+)/(?P<file>.+)$")
    split, file = (pc.struct_field(places, name) for name in ("split", "file"))
    for name in pc.unique(split).to_pylist():
        own = pc.equal(split, name)
        rows = facts.drop_columns(["video"]).filter(own)
        rows = rows.add_column(0, "file_name", file.filter(own))
        pq.write_table(rows.combine_chunks(), folder / "data" / name / "metadata.parquet", compression="zstd")
