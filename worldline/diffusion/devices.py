"""Where the network runs and how precisely: what "auto" means on this machine.

torch is imported where it is used: it takes seconds to load, and settings are read without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schemas.errors import WorldlineError


def resolve_device(device: str) -> str:
    """Return a torch device by name; "auto" is CUDA where there is one.

    Raises:
        WorldlineError: if it is CUDA and there is none.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise WorldlineError(f"device is {device} and torch finds no GPU here: take auto or cpu")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """Return "float32" or "bfloat16" (mixed precision); "auto" is the latter on CUDA and on processors that multiply it.

    Raises:
        WorldlineError: if it is another.
    """
    if dtype == "auto":
        import torch

        fast = device.startswith("cuda") or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if fast else "float32"
    if dtype not in ("float32", "bfloat16"):
        raise WorldlineError(f"dtype is {dtype}: it must be auto, float32 or bfloat16")
    return dtype


def autocast(device: str, dtype: str) -> Any:
    """Return the context in which a network runs in mixed precision for "bfloat16", and as it is for "float32"."""
    import torch

    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=dtype == "bfloat16")


def count_threads() -> int:
    """Return the number of threads that torch has here."""
    import torch

    return torch.get_num_threads()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch on so many threads, as it did before with 0."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
