"""The flow `track_labels`: from annotated 3D tracks to labels and questions, without any video."""

from collections.abc import Mapping
from typing import Any

from flows.building import begin, flow
from tasks.build import Build, Handle, TrackLog


@flow(name="track_labels")
def track_labels(
    overrides: tuple[str, ...] = (), home: str = "worldline-data", explain: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Build (or with `explain` only plan) one dataset version from the recipe's logs; see `Build.finish`."""
    build = begin("track_labels", overrides, home, explain=explain, quiet=quiet)
    artifacts: dict[str, Handle] = {}
    for name, log in build.track_logs():
        with build.clip(name):
            made = label_log(build, log)
            artifacts |= {f"{name}/{role}" if name else role: handle for role, handle in made.items()}
    return build.finish(artifacts)


def label_log(build: Build, log: TrackLog) -> dict[str, Handle]:
    """Take one log through all stages; return its artifacts by role."""
    tracks, path, track_metrics = build.open_tracks(log)
    (kinematics,) = build.run("label.kinematics", tracks=tracks, path=path)
    (questions,) = build.run("label.questions", kinematics=kinematics, tracks=tracks, path=path)
    artifacts = {
        "path": path,
        "tracks": tracks,
        "track_metrics": track_metrics,
        "kinematics": kinematics,
        "questions": questions,
    }
    build.say(summarise(build, artifacts))
    lineage = build.lineage(artifacts)
    (report,) = build.run("export.track_report", **artifacts, lineage=lineage)
    return {**artifacts, "lineage": lineage, "report": report}


def summarise(build: Build, made: Mapping[str, Handle]) -> str:
    """Return in one line what became of a log's rows, and how much was labelled."""
    figures, windows, asked = (build.facts(made[role]) for role in ("track_metrics", "kinematics", "questions"))
    dropped = [
        f"{count:.0f} {name.removeprefix('tracks.dropped.').replace('_', ' ')}"
        for name, count in figures.items()
        if name.startswith("tracks.dropped.") and count
    ]
    read = " of ".join(f"{figures.get(f'tracks.{what}', 0):.0f} {what}" for what in ("rows", "objects"))
    return (
        f"        {read}, dropped: {', '.join(dropped) or 'none'}; {windows.get('windows', 0)} windows, "
        f"{asked.get('questions', 0)} questions"
    )
