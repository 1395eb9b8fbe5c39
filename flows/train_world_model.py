"""The flow `train_world_model`: streets, views of them from where their camera never was, and the models trained on these."""

from typing import Any

from flows.building import begin, flow
from flows.driving_augmentation import Roles, conditions_of, points_of, recorded_scene
from tasks.build import Build

_TOLD = {"conditions": "conditions", "drawn": "drawn_conditions", "clips": "clip"}  # slots of the training, and roles


@flow(name="train_world_model")
def train_world_model(
    overrides: tuple[str, ...] = (), home: str = "worldline-data", explain: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Build (or with `explain` only plan) one dataset version with its models; see `Build.finish`."""
    build = begin("train_world_model", overrides, home, explain=explain, quiet=quiet)
    first, count = build.recipe["streets"]["first"], build.recipe["streets"]["count"]
    artifacts: Roles = {}
    logs: list[Roles] = []
    examples: list[Roles] = []
    for street in range(first, first + count):
        build.say(f"street {street - first + 1} of {count}")
        log = build.open_log("world:street", {"street": street})
        logs.append(log)
        for name, example in film_street(build, log, street).items():
            examples.append(example)
            artifacts |= {f"street-{street}-{name}/{role}": handle for role, handle in example.items()}
        artifacts |= {f"street-{street}/{role}": log[role] for role in ("clip", "path", "tracks", "road_map")}
    told = {slot: [item[role] for item in examples] for slot, role in _TOLD.items()}
    model, model_metrics = build.run("generate.train_street_video", **told)
    detector, detector_metrics = build.run(
        "label.train_street_detector", clips=[log["clip"] for log in logs], paths=[log["path"] for log in logs],
        tracks=[log["tracks"] for log in logs], maps=[log["road_map"] for log in logs],
    )  # fmt: skip
    return build.finish(
        artifacts
        | {
            "street_video": model,
            "street_video_metrics": model_metrics,
            "street_detector": detector,
            "street_detector_metrics": detector_metrics,
        }
    )


def film_street(build: Build, log: Roles, street: int) -> dict[str, Roles]:
    """Return what a world model is told of a street along every trajectory that the recipe asks for, and the true film.

    A trajectory that had to hold is as good as any other here: the world is there to film it.
    """
    scene = recorded_scene(build, log, points_of(build, log), {})
    films = {}
    for asked in build.recipe["trajectories"]:
        manoeuvre, _, metres = str(asked).partition(":")
        trajectory, path = build.run(
            "generate.trajectory", {"manoeuvre": manoeuvre, "target_m": float(metres)}, path=log["path"], tracks=log["tracks"],
            recorded=log["trajectory"], road_map=log["road_map"],
        )  # fmt: skip
        film, _ = build.run("generate.world_view", {**build.settings("ingest.world_log"), "street": street}, path=path)
        conditions = conditions_of(build, log, trajectory, path)
        (drawn,) = build.run("generate.scene_prior", scene=scene, conditions=conditions, novel_path=path)
        films[f"{manoeuvre}-{metres}m"] = {"conditions": conditions, "drawn_conditions": drawn, "clip": film}
    return films
