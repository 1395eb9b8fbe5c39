"""Commands about who may use what, and what goes out: `terms`, `review`, `takedown`, `export`."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.printing import Add, open_catalog, print_json, print_table, show_rows
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.takedowns import Takedown
    from tasks.blurring import Blurring


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    parser = add("terms", _terms, "say what holds for a source, model or generated clip; or show what holds for anything")
    parser.add_argument("subject", metavar="ID", help="digest or name of a source, model:NAME, or NAME[@V] to show")
    parser.add_argument(
        "--licence", metavar="SPDX", help="such as CC-BY-4.0, 'MIT OR Apache-2.0', LicenseRef-NAME, nuscenes, own"
    )
    parser.add_argument("--terms", metavar="TEXT", help="what else holds, in words or as a web address")
    parser.add_argument("--attribution", metavar="TEXT", help="whom to name")
    parser.add_argument("--place", metavar="NAME", help="where it was recorded; versions are split by place")
    parser.add_argument("--author", metavar="WHO", default=os.environ.get("USER"), help="who says so (default $USER)")
    parser = add("review", _review, "accept or reject a sample, a question, or a version that its gate holds")
    parser.add_argument("subject", metavar="ID", help="digest, question id or NAME@V")
    parser.add_argument("verdict", choices=["accept", "reject"])
    parser.add_argument("--reason", metavar="TEXT", help="why (a reject needs one)")
    parser.add_argument("--author", metavar="WHO", default=os.environ.get("USER"), help="who says so (default $USER)")
    parser = add("takedown", _takedown, "remove a source and everything made from it, in all versions, for good")
    parser.add_argument("source", metavar="SOURCE", help="digest or name")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; it stays on record")
    parser.add_argument("--author", metavar="WHO", default=os.environ.get("USER"), help="who says so (default $USER)")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser = add("export", _export, "write a dataset version into a new folder that needs no Worldline")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument(
        "format", metavar="FORMAT",
        help="parquet; 4D scenes as ply, ply-sequence, compressed-ply, spz, splat, glb, 4dgs or html; camera paths as colmap, "
        "colmap-text, transforms, tum or kitti; labels as llava, sharegpt, videofolder or webdataset; boxes as "
        "kitti-tracking, argoverse2, nuscenes or drivestudio; all of it as rerun or lerobot",
    )  # fmt: skip
    parser.add_argument("destination", type=Path, metavar="DEST")
    parser.add_argument("--licence", metavar="USE", help="only what may be used so: commercial or redistribution")
    parser.add_argument("--split", metavar="NAME", help="only this split: train, val or test")
    parser.add_argument(
        "--at", type=float, metavar="SECONDS", help="which moment of scenes goes into files of one moment (the first)"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="files of a ply-sequence, key frames of a 4dgs (24)")
    parser.add_argument(
        "--up", choices=["z", "y", "-y"], help="axis of PLY and .splat files that points up (-y, as viewers expect)"
    )
    parser.add_argument(
        "--blur", metavar="WHAT", help="faces, plates or faces,plates: blur those that are found in the frames (nothing is)"
    )
    parser.add_argument("--plate-model", metavar="ID", help="what finds plates: an object detection checkpoint of transformers")
    parser.add_argument("--plate-revision", metavar="NAME", help="commit, tag or branch of that repository (its main branch)")
    parser.add_argument("--plate-classes", metavar="NAMES", help="its classes that are plates, by commas (the usual names)")
    parser.add_argument(
        "--undistort", action="store_true", help="images of colmap and transforms as a pinhole camera would have taken them"
    )


def _terms(options: argparse.Namespace) -> None:
    from catalogs.governance import give_terms, licences_of

    catalog = open_catalog(options)
    said = {name: getattr(options, name) for name in ("licence", "terms", "attribution", "place")}
    if any(value is not None for value in said.values()):
        origins = [give_terms(catalog, options.subject, **said, author=options.author)]
    else:
        named = "@" in options.subject or catalog.log.headings(options.subject)
        digests = (
            list(catalog.dataset(options.subject).artifacts.values()) if named else [catalog.artifact(options.subject).digest]
        )
        found = {origin.subject: origin for item in licences_of(catalog, digests).values() for origin in item.origins}
        origins = [found[subject] for subject in sorted(found)]
    rows = [
        [item.name, item.subject if options.json else item.subject[:40], item.licence, item.attribution, item.terms, item.place]
        for item in origins
    ]
    show_rows(options, ["name", "origin", "licence", "attribution", "terms", "place"], rows)


def _review(options: argparse.Namespace) -> None:
    from catalogs.governance import review

    subject = review(open_catalog(options), options.subject, options.verdict, reason=options.reason, author=options.author)
    show_rows(options, ["subject", "verdict", "reason", "author"], [[subject, options.verdict, options.reason, options.author]])


def _takedown(options: argparse.Namespace) -> None:
    from catalogs.takedowns import takedown

    catalog = open_catalog(options)
    said = {"reason": options.reason, "author": options.author}
    if not options.yes:
        report = takedown(catalog, options.source, **said, dry_run=True)
        _show_takedown(options, report, removed=False)
        if (
            options.json
            or not sys.stdin.isatty()
            or input("remove all this for good? [y/N] ").strip().lower() not in ("y", "yes")
        ):
            print("nothing was removed: say --yes to remove it", file=sys.stderr)
            return
    _show_takedown(options, takedown(catalog, options.source, **said), removed=True)


def _show_takedown(options: argparse.Namespace, report: "Takedown", *, removed: bool) -> None:
    if options.json:
        print_json({**dataclasses.asdict(report), "removed": removed})
        return
    rows = [
        [item.reference, f"{item.lost} of {item.artifacts}", "deleted, nothing is left" if item.deleted else ""]
        for item in report.versions
    ]
    print_table(["version", "artifacts lost", ""], rows)
    print_table(["table", "rows"], list(report.rows.items()))
    print(
        f"{'removed' if removed else 'would remove'} {report.name} ({report.source[:12]}): {len(report.artifacts)} artifacts, "
        f"{len(report.executions)} executions, {report.bytes / 1e6:.2f} MB; exports made earlier are not touched"
    )


def _blurring(options: argparse.Namespace) -> "Blurring | None":
    """Return what the options want blurred.

    Raises:
        WorldlineError: if the format cannot be blurred, options do not fit together, or a detector is not at hand.
    """
    if options.plate_model is None:
        for name in ("plate_revision", "plate_classes"):
            if getattr(options, name) is not None:
                raise WorldlineError(f"--{name.replace('_', '-')} goes with --plate-model: give both, or neither")
        if options.blur is None:
            return None
    from stages.export.plates import PlateConfig
    from tasks.blurring import open_blurring
    from tasks.exporting_cameras import FOLDERS
    from tasks.exporting_labels import label_formats

    able = [*label_formats(), *FOLDERS]
    if options.format not in able:
        raise WorldlineError(f"{options.format} takes no --blur: leave it out, or export as {', '.join(able)}")
    plates = None if options.plate_model is None else PlateConfig(options.plate_model, options.plate_revision)
    if plates is not None and options.plate_classes is not None:
        plates = dataclasses.replace(plates, classes=tuple(_parts(options.plate_classes)))
    return open_blurring(_parts(options.blur or ""), plates)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _export(options: argparse.Namespace) -> None:
    from catalogs.exports import FORMATS, export
    from tasks.exporting import scene_formats
    from tasks.exporting_cameras import camera_formats
    from tasks.exporting_labels import label_formats

    blurring = _blurring(options)
    scenes = scene_formats(options.format, at_s=options.at, frames=options.frames, up=options.up)
    cameras = camera_formats(options.format, undistort=options.undistort, blurring=blurring)
    formats = FORMATS | scenes | cameras | label_formats(blurring)
    catalog, chosen = open_catalog(options), {"licence": options.licence, "split": options.split}
    report = export(catalog, options.dataset, options.format, options.destination, **chosen, formats=formats)
    if options.json:
        print_json(dataclasses.asdict(report))
        return
    rows = [[table, count] for table, count in report.rows.items()]
    print_table(["table", "rows"], rows)
    print_table(["licence", "artifacts"], list(report.licences.items()))
    for item in report.left_out:
        told = ", ".join(f"{count} rows of {table}" for table, count in item.rows.items()) or "no rows"
        print(f"left out  {item.clips} clips, {told}: {item.licence} does not allow {report.licence} use")
    if report.others:
        others = ", ".join(f"{count} {kind}" for kind, count in report.others.items())
        print(f"not in    {others}: {report.format} has no place for these")
    if report.missing:
        print(f"missing   {len(report.missing)} artifacts that were taken down or lost since {report.reference} was published")
    print(f"wrote     {report.destination} (clips: {report.clips}; {report.bytes / 1e6:.2f} MB)")
