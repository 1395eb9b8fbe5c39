"""Trained weights, recorded with what trained them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from schemas.artifact import Artifact, Files


@dataclass(frozen=True, eq=False)
class Model(Artifact):
    """The weights of a small model of ours and how they came to be.

    Attributes:
        files: "config.json" and weights in safetensors, as diffusers' `save_pretrained` lays them out, or as the role says.
        role: what it does: "street_video" (conditions to frames) or "street_detector" (frames to vehicle boxes and lane lines).
        architecture: name of the class that reads the files.
        parameters: number of trained numbers.
        training: how it was trained: examples, frames, steps, seed, loss, package versions.
        name: what a person calls it.
        trained_on: the examples in words, or the dataset version that holds them.
    """

    level: ClassVar[int] = 2
    files: Files
    role: str
    architecture: str
    parameters: int
    training: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    trained_on: str = ""

    def facts(self) -> dict[str, Any]:
        """Return name, role, size, and how it was trained."""
        own = {"name": self.name, "role": self.role, "parameters": self.parameters, "trained_on": self.trained_on}
        return {**self.training, **own}
