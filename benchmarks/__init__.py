"""Benches: what the engine is measured by. Each module with a table `CASES` is one bench; `worldline bench NAME` runs it."""
