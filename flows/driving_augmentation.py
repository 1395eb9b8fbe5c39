"""The flow `driving_augmentation`: from a driving log to the same drive along trajectories that nobody drove, labelled.

DriveDreamer4D (Zhao et al. 2025): novel trajectories, structured conditions, a world model that films them, a scene fitted to
recorded and generated frames together, and labels that are computed for the new trajectory, not copied.
"""

from typing import Any

from flows.building import begin, flow
from tasks.build import Build, Handle

Roles = dict[str, Handle]


@flow(name="driving_augmentation")
def driving_augmentation(
    overrides: tuple[str, ...] = (), home: str = "worldline-data", explain: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Build (or with `explain` only plan) one dataset version from the recipe's logs; see `Build.finish`."""
    build = begin("driving_augmentation", overrides, home, explain=explain, quiet=quiet)
    artifacts: Roles = {}
    for name, source in build.clips():
        with build.clip(name):
            made = augment(build, build.open_log(source), real=not source.startswith("world:"))
            artifacts |= {f"{name}/{role}" if name else role: handle for role, handle in made.items()}
    return build.finish(artifacts)


def augment(build: Build, log: Roles, real: bool) -> Roles:
    """Take one log through all stages; return its artifacts by role, those of a novel trajectory under its name.

    Args:
        build: the build.
        log: its artifacts by role.
        real: whether it was filmed, so that a model of procedural streets has to learn first what it looks like.
    """
    points = points_of(build, log)
    planned = plan(build, log)
    novel = {name: roles for name, roles in planned.items() if build.facts(roles["trajectory"]).get("accepted", True)}
    rejected = {name: roles for name, roles in planned.items() if name not in novel}
    for name, roles in rejected.items():
        build.say(f"  {name} is rejected: {build.facts(roles['trajectory'])['reason']}")
    generate(build, log, novel, points, real)
    generated = [roles["generated"] for roles in novel.values()]
    scene, fit_metrics = build.run(
        "reconstruct.cousin", clip=log["clip"], path=log["path"], points=points, tracks=log["tracks"], lidar=log["lidar"],
        novel_clips=generated, novel_paths=[roles["path"] for roles in novel.values()],
    )  # fmt: skip
    detector = build.open_model("street_detector")
    for roles in novel.values():
        roles["clip"], roles["depth"] = build.run("reconstruct.draw_path", scene=scene, path=roles["path"])
        (roles["kinematics"],) = build.run("label.kinematics", tracks=roles["tracks"], path=roles["path"])
        (roles["questions"],) = build.run(
            "label.questions", kinematics=roles["kinematics"], tracks=roles["tracks"], path=roles["path"]
        )
        if not real or build.recipe["label"]["obedience"]["model"]:  # our own detector knows procedural streets alone
            (roles["obedience"],) = build.run(
                "label.obedience", clip=roles["generated"], novel_path=roles["path"], tracks=roles["tracks"], detector=detector
            )
        (roles["novel_metrics"],) = build.run(
            "reconstruct.evaluate_novel", clip=roles["clip"], depth=roles["depth"], path=roles["path"], tracks=roles["tracks"],
            road_map=log["road_map"], lidar=log["lidar"], recorded=log["clip"], detector=detector,
        )  # fmt: skip
    (links,) = build.run(
        "label.cousin_links", clip=log["clip"], generated=generated,
        trajectories=[roles["trajectory"] for roles in novel.values()],
    )  # fmt: skip
    artifacts = {role: handle for role, handle in log.items() if role != "truth"}
    artifacts |= {"points": points, "scene": scene, "fit_metrics": fit_metrics, "cousins": links}
    for name, roles in (novel | rejected).items():
        artifacts |= {f"{name}/{role}": handle for role, handle in roles.items()}
    lineage = build.lineage(artifacts)
    (report,) = build.run(
        "export.driving_report", clip=log["clip"], path=log["path"], tracks=log["tracks"], recorded=log["trajectory"],
        road_map=log["road_map"], fit_metrics=fit_metrics,
        trajectories=[roles["trajectory"] for roles in (novel | rejected).values()],
        conditions=[roles["conditions"] for roles in novel.values()], generated=generated,
        drawn=[roles["clip"] for roles in novel.values()], novel_tracks=[roles["tracks"] for roles in novel.values()],
        metrics=[roles[role] for roles in novel.values() for role in ("obedience", "novel_metrics") if role in roles],
        lineage=lineage,
    )  # fmt: skip
    return artifacts | {"lineage": lineage, "report": report}


def points_of(build: Build, log: Roles) -> Handle:
    """Return the points of a log's static scene: those of its lidar, or triangulated between its frames."""
    if build.facts(log["lidar"]).get("sweeps", 1):
        return build.run("ingest.lidar_points", clip=log["clip"], path=log["path"], tracks=log["tracks"], lidar=log["lidar"])[0]
    return build.run("pose.triangulate", clip=log["clip"], path=log["path"])[0]


def plan(build: Build, log: Roles) -> dict[str, Roles]:
    """Return trajectory, path and tracks of every novel trajectory that the recipe asks for, by its name."""
    planned: dict[str, Roles] = {}
    for asked in build.recipe["trajectories"]:
        manoeuvre, _, metres = str(asked).partition(":")
        settings = {"manoeuvre": manoeuvre} | ({"target_m": float(metres)} if metres else {})
        trajectory, path = build.run(
            "generate.trajectory", settings, path=log["path"], tracks=log["tracks"], recorded=log["trajectory"],
            road_map=log["road_map"],
        )  # fmt: skip
        (tracks,) = build.run("label.novel_tracks", tracks=log["tracks"], trajectory=trajectory, novel_path=path)
        planned[f"{manoeuvre}-{metres}m" if metres else manoeuvre] = {"trajectory": trajectory, "path": path, "tracks": tracks}
    return planned


def generate(build: Build, log: Roles, novel: dict[str, Roles], points: Handle, real: bool) -> None:
    """Add conditions and generated frames to every novel trajectory, by the recipe's generator.

    The world model is told what a scene fitted to the recorded frames alone shows of a view, and what those frames show of it
    when they are warped there: its work is to make one good picture of both.
    """
    for roles in novel.values():
        roles["conditions"] = conditions_of(build, log, roles["trajectory"], roles["path"])
    generator = build.recipe["generator"]
    if generator == "controlled_video":
        for roles in novel.values():
            (roles["generated"],) = build.run("generate.controlled_video", conditions=roles["conditions"], path=roles["path"])
        return
    tuned = generator == "tuned" or (generator == "auto" and real)
    scene = recorded_scene(build, log, points, build.recipe["underfit"] if tuned else {})
    model = build.open_model("street_video")
    if tuned and novel:
        model = tune(build, log, scene, model)
    for roles in novel.values():
        (roles["drawn_conditions"],) = build.run(
            "generate.scene_prior", scene=scene, conditions=roles["conditions"], novel_path=roles["path"]
        )
        (roles["generated"],) = build.run(
            "generate.street_video", conditions=roles["conditions"], drawn=roles["drawn_conditions"], model=model
        )


def recorded_scene(build: Build, log: Roles, points: Handle, settings: dict[str, Any]) -> Handle:
    """Return a scene fitted to the recorded frames alone."""
    return build.run(
        "reconstruct.cousin", settings, clip=log["clip"], path=log["path"], points=points, tracks=log["tracks"],
        lidar=log["lidar"], novel_clips=[], novel_paths=[],
    )[0]  # fmt: skip


def tune(build: Build, log: Roles, scene: Handle, model: Handle) -> Handle:
    """Train the world model further to repair drawings of this log (ReconDreamer's recipe).

    An under-fitted scene is drawn along the recorded path, where the frames tell what each drawing should have been. Every
    second frame was not fitted, and no frame is warped into its own view: what is told looks as a novel view's does.
    """
    seen = conditions_of(build, log, log["trajectory"], log["path"], build.recipe["unseen"])
    (drawn,) = build.run("generate.scene_prior", scene=scene, conditions=seen, novel_path=log["path"])
    return build.run("generate.tune_street_video", model=model, conditions=[seen], drawn=[drawn], clips=[log["clip"]])[0]


def conditions_of(build: Build, log: Roles, trajectory: Handle, path: Handle, settings: dict[str, Any] | None = None) -> Handle:
    """Return what a world model is told of a log seen along a trajectory."""
    return build.run(
        "generate.conditions", settings, clip=log["clip"], path=log["path"], tracks=log["tracks"], recorded=log["trajectory"],
        trajectory=trajectory, novel_path=path, road_map=log["road_map"], lidar=log["lidar"],
    )[0]  # fmt: skip
