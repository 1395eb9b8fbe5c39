"""Hydra configuration: one file per flow, one group per stage role."""
