"""Kernels' threads and torch's leave each other alone."""

import subprocess
import sys

KERNEL_AFTER_LIMIT = """
import torch
{first}
torch.set_num_threads(1)
from worldline.threads import map_pieces
assert map_pieces(lambda piece: piece + 1, 3) == [1, 2, 3]
print(torch.get_num_threads())
"""


def test_the_first_kernel_does_not_undo_a_limit_on_torchs_threads():
    for first in ("", "import worldline.threads"):
        command = [sys.executable, "-c", KERNEL_AFTER_LIMIT.format(first=first)]
        environment = {"NUMBA_NUM_THREADS": "2"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert result.stdout.strip() == "1"
