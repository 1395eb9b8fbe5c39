"""The flow `pseudo_labels`: from one video or many to a labelled, catalogued 4D dataset.

Metric scale, the moving regions and the 4D scene come from the frames alone; the truth of a procedural world or an
annotated log goes into the two evaluation stages and nowhere else.
"""

from typing import Any

from flows.building import begin, flow
from tasks.build import Build, Handle


@flow(name="pseudo_labels")
def pseudo_labels(
    overrides: tuple[str, ...] = (), home: str = "worldline-data", explain: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Build (or with `explain` only plan) one dataset version from the recipe's source; see `Build.finish`."""
    build = begin("pseudo_labels", overrides, home, explain=explain, quiet=quiet)
    artifacts: dict[str, Handle] = {}
    for name, source in build.clips():
        shots: dict[str, tuple[Handle, ...]] = {}
        with build.clip(name):
            shots = take_shots(build, name, source)
        for place, (clip, truth, *rig_clip) in shots.items():
            with build.clip(place):
                made = {place: label_clip(build, source, clip, truth, rig_clip)}
                if build.settings("mirror"):
                    made = made_twice(build, place, made[place])
                for name, own in made.items():
                    artifacts |= {f"{name}/{role}" if name else role: handle for role, handle in own.items()}
    return build.finish(artifacts)


def made_twice(build: Build, place: str, made: dict[str, Handle]) -> dict[str, dict[str, Handle]]:
    """Return a clip's artifacts and, of its mirrored copy, all that labels need, by the names of the two clips."""
    clip, path, tracks = build.run("label.mirror", clip=made["clip"], path=made["path"], tracks=made["tracks"])
    (kinematics,) = build.run("label.kinematics", tracks=tracks, path=path)
    (questions,) = build.run("label.questions", kinematics=kinematics, tracks=tracks, path=path)
    copy = {"clip": clip, "path": path, "tracks": tracks, "kinematics": kinematics, "questions": questions}
    original = place or build.part_name(place, "original")  # clips of a version with several need names
    return {original: made, build.part_name(place, "mirrored"): {**copy, "lineage": build.lineage(copy)}}


def take_shots(build: Build, name: str, source: str) -> dict[str, tuple[Handle, ...]]:
    """Return clip and truth of every shot of a source by the shot's name: the clip's own, and a rig's clips, where it is one."""
    clip, truth, *rig_clip = build.open_source(source)
    # a rig records without cuts, and given poses are of all frames of the source, whatever they show
    if rig_clip or build.settings("pose")["method"] == "given":
        return {name: (clip, truth, *rig_clip)}
    (shots,) = build.run("ingest.shots", clip=clip)
    facts = build.facts(shots)
    if facts.get("shots", 1) == 1:
        return {name: (clip, truth)}
    return {
        build.part_name(name, f"shot-{index + 1}"): build.run(
            "ingest.shot", {"index": index}, clip=clip, truth=truth, shots=shots
        )
        for index in range(facts["kept"])
    }


def label_clip(build: Build, source: str, clip: Handle, truth: Handle, rig_clip: list[Handle]) -> dict[str, Handle]:
    """Take one clip through all stages; return its artifacts by role."""
    camera, structure, *rig = solve_or_take_poses(build, clip, source, rig_clip)
    (depth,) = build.run("pose.depth", clip=clip)
    scale, path, points, ground = place_in_world(build, clip, camera, structure, depth)

    (point_tracks,) = build.run("label.point_tracks", clip=clip)
    (masks,) = build.run("label.moving_regions", clip=clip, path=path, points=points, ground=ground, point_tracks=point_tracks)
    if build.settings("pose")["method"] == "colmap" and not rig:  # one camera alone would lose what the rig's others saw
        ignored = masks
        if build.settings("pose.segment")["model"]:
            (ignored,) = build.run("pose.segment", clip=clip, masks=masks)
        camera, structure = build.run(
            "pose.refine", clip=clip, path=camera, points=structure, masks=ignored, point_tracks=point_tracks
        )
        # where the first pass stands, these are in the catalog already
        scale, path, points, ground = place_in_world(build, clip, camera, structure, depth)
        (masks,) = build.run(
            "label.moving_regions", clip=clip, path=path, points=points, ground=ground, point_tracks=point_tracks
        )
    (tracks,) = build.run(
        "label.object_tracks", clip=clip, path=path, points=points, ground=ground, point_tracks=point_tracks, masks=masks
    )
    (kinematics,) = build.run("label.kinematics", tracks=tracks, path=path)
    (questions,) = build.run("label.questions", kinematics=kinematics, tracks=tracks, path=path)
    method = f"reconstruct.{build.settings('reconstruct')['method']}"
    scene, fit_metrics = build.run(method, clip=clip, path=path, points=points, masks=masks, tracks=tracks)

    (pose_metrics,) = build.run("pose.evaluate", path=path, truth=truth)
    (label_metrics,) = build.run(
        "label.evaluate", tracks=tracks, kinematics=kinematics, questions=questions, path=path, truth=truth
    )

    artifacts = {
        "clip": clip,
        "scale": scale,
        "path": path,
        "points": points,
        "ground": ground,
        "masks": masks,
        "scene": scene,
        "tracks": tracks,
        "kinematics": kinematics,
        "questions": questions,
        "fit_metrics": fit_metrics,
        "pose_metrics": pose_metrics,
        "label_metrics": label_metrics,
    }
    if rig:
        (artifacts["rig"],) = build.run("pose.align_rig", rig=rig[0], camera=camera, path=path)
    if build.settings("pose.depth")["model"]:
        artifacts["depth"] = depth
    lineage = build.lineage(artifacts)
    (report,) = build.run("export.report", **artifacts, lineage=lineage)
    return {**artifacts, "lineage": lineage, "report": report}


def solve_or_take_poses(build: Build, clip: Handle, source: str, rig_clip: list[Handle]) -> tuple[Handle, ...]:
    """Return the camera path of a clip and the points of its static scene, solved or as they were given; and a rig solved."""
    method = f"pose.{build.settings('pose')['method']}"
    if method == "pose.given":
        return build.run(method, clip=clip, poses=build.open_poses(source))
    return build.run("pose.rig", rig_clip=rig_clip[0]) if rig_clip else build.run(method, clip=clip)


def place_in_world(
    build: Build, clip: Handle, camera: Handle, structure: Handle, depth: Handle
) -> tuple[Handle, Handle, Handle, Handle]:
    """Give a solved path metres and gravity; return its metric scale, path, points and ground."""
    (plane,) = build.run("pose.ground", path=camera, points=structure)
    (scale,) = build.run("pose.scale", clip=clip, path=camera, points=structure, ground=plane, depth=depth)
    path, points, ground = build.run("pose.align", path=camera, points=structure, ground=plane, scale=scale)
    return scale, path, points, ground
