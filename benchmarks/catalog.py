"""The bench `catalog`: nothing lost, everything explained, any dataset rebuilt; how fast, and beside what."""

from benchmarks.harness import Case

CASES: tuple[Case, ...] = ()
