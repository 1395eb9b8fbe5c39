"""The weights that come with the package, as artifacts."""

import json
from pathlib import Path

import worldline
from schemas.artifact import Files
from schemas.errors import WorldlineError
from schemas.models import Model

PRETRAINED = Path(worldline.__file__).parent / "pretrained"
FACTS = "training.json"  # beside the weights: what `Model` says beyond its files


def shipped_model(role: str) -> Model:
    """Return the package's own weights for a role.

    Raises:
        WorldlineError: if the package holds none.
    """
    folder = PRETRAINED / role
    if not (folder / FACTS).is_file():
        raise WorldlineError(
            f"this installation holds no weights for {role}: train them with `worldline build train_world_model`"
        )
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    files = {path.name: path for path in sorted(folder.iterdir()) if path.name != FACTS}
    return Model(files=Files(files), role=role, **facts)


def save_model(model: Model, folder: Path) -> None:
    """Write a model's files and facts where `shipped_model` finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in model.files.items():
        (folder / name).write_bytes(Path(path).read_bytes())
    facts = {name: getattr(model, name) for name in ("architecture", "parameters", "training", "name", "trained_on")}
    (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
