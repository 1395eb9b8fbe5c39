"""Which backends this machine has, and what each missing one needs."""

import importlib.util
import os
import platform
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Backend:
    """One way to do one step.

    Attributes:
        step: what it does.
        backend: with what.
        available: whether it works here.
        needs: what is missing, or what was found.
    """

    step: str
    backend: str
    available: bool
    needs: str


def examine_backends() -> list[Backend]:
    """Return the backends of each heavy step, as DESIGN names them."""
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if cuda else "an NVIDIA GPU and a CUDA build of torch"
    server = os.environ.get("PREFECT_API_URL")
    return [
        Backend("rasterise", "numba on the CPU", True, f"{os.cpu_count()} cores, {platform.machine()}"),
        Backend("rasterise", "gsplat on CUDA", cuda and _installed("gsplat"), device),
        Backend("pose", "pycolmap on the CPU", _installed("pycolmap"), ""),
        Backend("generate", "procedural worlds (PyVista)", _installed("pyvista"), ""),
        Backend("generate", "diffusers on the CPU", _installed("diffusers"), "a pipeline by id or local folder"),
        Backend("generate", "diffusers on CUDA", cuda and _installed("diffusers"), device),
        Backend("execute", "this process", True, ""),
        Backend(
            "execute", "Prefect server", server is not None, server or "PREFECT_API_URL; without it execute=prefect starts one"
        ),
    ]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
