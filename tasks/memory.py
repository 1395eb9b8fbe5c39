"""The most memory that this process held, from a moment on."""

import resource
import sys
from contextlib import suppress
from pathlib import Path


def forget_peak_memory() -> bool:
    """Let the peak begin anew at what is held now; return whether this system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Return the most memory held since it was forgotten, in bytes; since the start of the process where that cannot be had."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
