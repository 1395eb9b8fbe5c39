"""Commands that say where things came from and whether they can be made again: `lineage`, `rebuild`, `accept`."""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.printing import Add, open_catalog, print_json, print_table, show_rows
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog
    from tasks.rebuild import Rebuilt, Verdict

_LISTED = 1000  # executions that a table for people lists one by one


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    parser = add("lineage", _lineage, "show what an artifact, dataset or label came from, or with --down what something touched")
    parser.add_argument("identifier", metavar="ID", help="digest, key, NAME[@V] or question id; with --down also a stage[@V], "
                        "code file, package==version, path or name of a source, or model")  # fmt: skip
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--down", action="store_true", help="every execution, artifact and dataset version that it touched")
    ways.add_argument("--trace", action="store_true", help="the story of one label: frames, scale, source, terms, stages")
    ways.add_argument("--manifest", type=Path, metavar="FILE", help="write the manifest of NAME[@V], which alone rebuilds it")
    parser = add("rebuild", _rebuild, "make a dataset version again in an empty workspace and compare")
    parser.add_argument("dataset", nargs="?", metavar="NAME[@V]")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="keep the new workspace here (default: discard it)")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="rebuild from this manifest instead of NAME[@V]")
    parser.add_argument("--sources", type=Path, metavar="FOLDER", help="with --manifest: where the files of its sources lie")
    parser.add_argument("--sample", type=float, metavar="SHARE", help="only this share of the executions, on recorded inputs")
    parser.add_argument("--seed", type=int, default=0, help="which executions --sample takes (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser = add("accept", _accept, "keep what a stage recorded before a refactoring, if a sample comes out the same")
    parser.add_argument("stage", metavar="STAGE")
    parser.add_argument("--share", type=float, default=0.1, help="share of the executions that is run again (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="which executions are run again (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _lineage(options: argparse.Namespace) -> None:
    catalog = open_catalog(options)
    if options.down:
        _print_down(options, catalog)
    elif options.trace:
        _print_trace(options, catalog)
    elif options.manifest:
        _write_manifest(options, catalog)
    else:
        _print_up(options, catalog)


def _print_up(options: argparse.Namespace, catalog: "Catalog") -> None:
    from catalogs.lineage import identify, lineage_of, summary_of

    if not options.json:
        subject = identify(catalog, options.identifier)
        if len(subject.keys) > _LISTED:
            print(f"{subject.name} came from {len(subject.keys)} executions; with --json each is listed")
            print_table(["stage", "executions", "states of its code"], summary_of(catalog, subject.keys))
            return
    lineage = lineage_of(catalog, options.identifier)
    edges: dict[tuple[str, str], list[str]] = {}
    for edge in lineage.edges.to_pylist():
        edges.setdefault((edge["execution_key"], edge["direction"]), []).append(f"{edge['kind']} {edge['digest'][:12]}")
    rows = [
        [
            node["stage"],
            node["version"],
            node["execution_key"][:12],
            ", ".join(edges.get((node["execution_key"], "in"), [])),
            ", ".join(edges.get((node["execution_key"], "out"), [])),
        ]
        for node in lineage.nodes.to_pylist()
    ]
    show_rows(options, ["stage", "version", "execution", "from", "made"], rows)


def _print_trace(options: argparse.Namespace, catalog: "Catalog") -> None:
    from catalogs.traces import trace

    show_rows(
        options,
        ["what", "value", "detail"],
        [[step.what, step.value, step.detail] for step in trace(catalog, options.identifier)],
    )


def _print_down(options: argparse.Namespace, catalog: "Catalog") -> None:
    from catalogs.downstream import downstream_of

    found = downstream_of(catalog, options.identifier)
    if options.json:
        print_json(
            {
                "subject": {"what": found.subject.what, "name": found.subject.name},
                "datasets": [dataclasses.asdict(item) for item in found.datasets],
                "executions": [dataclasses.asdict(item) for item in found.executions],
                "artifacts": found.artifacts,
            }
        )
        return
    counted = f"{len(found.executions)} executions, {len(found.artifacts)} artifacts and {len(found.datasets)} dataset versions"
    print(f"{found.subject.what} {found.subject.name} touched {counted}")
    datasets = [
        [item.reference, item.state, f"{len(item.roles)} of {item.artifacts}", _few(item.roles)] for item in found.datasets
    ]
    print_table(["dataset", "state", "touched artifacts", "roles"], datasets)
    counts: dict[tuple[str, int], list[int]] = {}
    for item in found.executions:
        count = counts.setdefault((item.stage, item.version), [0, 0])
        count[0] += item.direct
        count[1] += not item.direct
    print_table(["stage", "version", "touched directly", "downstream"], [[*stage, *count] for stage, count in counts.items()])


def _write_manifest(options: argparse.Namespace, catalog: "Catalog") -> None:
    version = catalog.dataset(options.identifier)
    if not catalog.objects.verify(version.manifest):
        raise WorldlineError(f"the manifest of {version.reference} ({version.manifest[:12]}) is missing or damaged: restore it")
    try:
        with options.manifest.open("xb") as stream:
            stream.write(catalog.objects.path(version.manifest).read_bytes())
    except OSError as error:
        raise WorldlineError(
            f"the manifest cannot be written to {options.manifest} ({error.strerror}): name a new file"
        ) from None
    if options.json:
        print_json({"dataset": version.reference, "manifest": str(options.manifest), "sha256": version.manifest})
    else:
        print(options.manifest)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _rebuild(options: argparse.Namespace) -> None:
    from tasks.rebuild import rebuild_dataset, rebuild_manifest, rebuild_sample

    if (options.dataset is None) == (options.manifest is None):
        raise WorldlineError("name what to rebuild: either NAME[@V] or --manifest FILE")
    if options.manifest is not None and options.sample is not None:
        raise WorldlineError("--sample runs on recorded inputs and needs the workspace: name NAME[@V] instead of --manifest")
    quiet = options.quiet or options.json
    if options.manifest is not None:
        with tempfile.TemporaryDirectory(prefix="worldline-rebuild-") as temporary:
            rebuilt = rebuild_manifest(options.manifest, options.sources, options.into or Path(temporary), quiet=quiet)
    else:
        catalog = open_catalog(options)
        with catalog.scratch_folder() as temporary:  # swept by the next command, should this one be killed
            home = options.into or temporary / "workspace"
            if options.sample is None:
                rebuilt = rebuild_dataset(catalog, options.dataset, home, quiet=quiet)
            else:
                rebuilt = rebuild_sample(catalog, options.dataset, options.sample, options.seed, home, quiet=quiet)
    _print_rebuilt(options, rebuilt)


def _print_rebuilt(options: argparse.Namespace, rebuilt: "Rebuilt") -> None:
    if options.json:
        verdicts = [dataclasses.asdict(verdict) for verdict in rebuilt.verdicts]
        for verdict in verdicts:
            for item in verdict["artifacts"]:
                item["tolerance"] = item["tolerance"] and {name: item["tolerance"][name] for name in ("metric", "limit", "unit")}
        outcome = {"dataset": rebuilt.reference, "published": rebuilt.published}
        print_json(outcome | {"verdicts": verdicts, "figures": rebuilt.figures()})
    else:
        columns = ["stage", "verdict", "code", "artifacts", "first difference", "likely cause"]
        print_table(columns, [_verdict_row(verdict) for verdict in rebuilt.verdicts])
        same = round(rebuilt.identical_share * rebuilt.recorded_artifacts)
        print(f"identical  {same} of {rebuilt.recorded_artifacts} artifacts of {rebuilt.reference} have the same bits "
              f"(share {rebuilt.identical_share:.4g})")  # fmt: skip
        if rebuilt.published and options.into:
            print(f"dataset    {rebuilt.published} in {options.into}")
    if rebuilt.differing:
        first = rebuilt.differing[0]
        raise WorldlineError(
            f"{len(rebuilt.differing)} of {len(rebuilt.verdicts)} executions of {rebuilt.reference} came out different, "
            f"first {first.stage}: {first.cause}"
        )


def _verdict_row(verdict: "Verdict") -> list[str]:
    figures = []
    for item in verdict.artifacts:
        figure = item.kind
        if item.tolerance is not None and item.measured is not None:
            limit = f"{item.tolerance.limit:.4g} {item.tolerance.unit}"
            figure += f" ({item.tolerance.metric} {item.measured:.4g} of {limit})"
        figures.append(figure)
    difference = next((str(item.difference) for item in verdict.artifacts if item.difference is not None), "")
    return [
        verdict.stage,
        verdict.level,
        "changed" if verdict.other_code else "same",
        ", ".join(figures),
        difference,
        verdict.cause,
    ]


def _accept(options: argparse.Namespace) -> None:
    from tasks.accepting import accept

    catalog = open_catalog(options)
    found = accept(catalog, options.stage, options.share, options.seed, quiet=options.quiet or options.json)
    if options.json:
        print_json(dataclasses.asdict(found))
    elif found.candidates == 0:
        print(f"nothing to accept: no execution of {found.stage} was recorded with other code of the same version")
    else:
        print(f"{found.stage}: {found.sampled} of {found.candidates} executions were run again with the new code and all agree")
        print(f"accepted  {found.accepted} executions keep their results under the new code")
        if found.left_out:
            print(f"left out  {found.left_out} executions whose artifacts are lost or whose settings are gone")
