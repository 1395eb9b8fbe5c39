"""The bench `catalog`: nothing lost, everything explained, any dataset rebuilt; how fast, and beside what."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Case, Figure, figure, measured_by


def _disk_full(folder: Path, quick: bool) -> Sequence[Figure]:
    from benchmarks.catalog_faults import disk_full

    found = disk_full(8 if quick else 40, folder)
    if found["skipped"]:
        raise RuntimeError(f"no small disk could be mounted: {found['skipped']}")
    told = "; ".join(f"{count} x {sentence!r}" for sentence, count in found["told"].items())
    of = f"{found['rounds']} builds on a disk that ran full at a random moment"
    return [
        figure("catalog.diskfull.rounds", found["rounds"], "builds", "", of),
        figure("catalog.diskfull.lost", len(found["lost"]), "", "0 asked",
               _with_first(f"of {found['promised']} acknowledged; {of}", found["lost"])),
        figure("catalog.diskfull.unclean", len(found["unclean"]), "rounds", "0 asked",
               _with_first("verify, leftovers, next build once there is space again", found["unclean"])),
        figure("catalog.diskfull.unclear", len(found["unclear"]), "builds", "0 asked",
               _with_first(f"ended by other than one sentence that names the space; told: {told}", found["unclear"])),
    ]  # fmt: skip


def _flips(folder: Path, quick: bool) -> Sequence[Figure]:
    from benchmarks.catalog_faults import byte_flips

    found = byte_flips(folder, 2 if quick else 6)
    kinds = ", ".join(f"{kind} {share}" for kind, share in found["kinds"].items())
    flips = f"{found['flips']} flipped bits ({kinds})"
    healed = f"of {flips}; {found['harmless']} more lay where the log's file holds nothing"
    return [
        figure("catalog.flips.found_share", found["found"] / found["flips"], "share", "1 asked",
               _with_first(flips, found["missed"])),
        figure("catalog.flips.healed_share", found["healed"] / found["flips"], "share", "1 asked",
               _with_first(healed, found["unhealed"])),
    ]  # fmt: skip


def _with_first(text: str, findings: Sequence[str]) -> str:
    return text + (f"; the first: {findings[0]}" if findings else "")


def _queries(folder: Path, quick: bool) -> Sequence[Figure]:
    from benchmarks.catalog_queries import query_benchmark

    rows, artifacts = (1_000_000, 10_000) if quick else (10_000_000, 100_000)
    return [figure(**row) for row in query_benchmark(folder, rows, artifacts)]


_QUESTIONS = ("point", "lineage", "group", "top", "time_travel", "datasets", "show", "artifact_lineage")

CASES = (
    Case(
        "commits",
        ("catalog.commits_per_s", "catalog.lost", "catalog.partial", "catalog.caller_errors"),
        measured_by("catalog_commits", "measure_commits"),
    ),
    Case(
        "s3",
        ("catalog.s3.commits_per_s", "catalog.s3.lost", "catalog.s3.partial", "catalog.s3.caller_errors"),
        measured_by("catalog_commits", "measure_s3"),
    ),
    Case(
        "kill9",
        ("catalog.kill9.rounds", "catalog.kill9.lost", "catalog.kill9.unclean"),
        measured_by("catalog_kills", "measure_kills"),
    ),
    Case("diskfull", ("catalog.diskfull.lost", "catalog.diskfull.unclean", "catalog.diskfull.unclear"), _disk_full),
    Case("flips", ("catalog.flips.found_share", "catalog.flips.healed_share"), _flips),
    Case("noop", ("catalog.noop_1000_s", "catalog.noop_10000_s"), measured_by("catalog_noop", "measure_noop"), limit_s=7200.0),
    Case("queries", (*(f"catalog.query.{kind}_s" for kind in _QUESTIONS), "catalog.query_rss_mb"), _queries),
    Case(
        "loader", ("catalog.loader_clips_per_s", "catalog.loader_ratio_to_peer"), measured_by("catalog_loader", "measure_loader")
    ),
    Case("rebuild", ("catalog.rebuild.identical_share",), measured_by("catalog_rebuild", "measure_rebuild"), limit_s=7200.0),
    Case(
        "changed_constant",
        ("catalog.rebuild.changed_constant_named",),
        measured_by("catalog_rebuild", "measure_changed_constant"),
    ),
)
