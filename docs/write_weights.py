"""Put the weights that `worldline build train_world_model` made into the package.

python docs/write_weights.py WORKSPACE [NAME[@V]]
"""

import dataclasses
import shutil
import sys
from typing import Any

from catalogs.catalog import Catalog
from tasks.models import PRETRAINED, save_model

ROLES = ("street_video", "street_detector")


def main() -> None:
    """Write both models of the dataset version over those of the package."""
    if len(sys.argv) < 2:
        sys.exit("name the workspace, and the dataset where it is not train_world_model")
    dataset = Catalog.open(sys.argv[1]).dataset(sys.argv[2] if len(sys.argv) > 2 else "train_world_model")
    first, count = (dataset.recipe["streets"][name] for name in ("first", "count"))
    for role in ROLES:
        model: Any = dataset.load(role)
        told = f"procedural streets {first} to {first + count - 1}, by the flow train_world_model"
        shutil.rmtree(PRETRAINED / role, ignore_errors=True)
        save_model(dataclasses.replace(model, name=role, trained_on=told), PRETRAINED / role)
        print(PRETRAINED / role)


if __name__ == "__main__":
    main()
