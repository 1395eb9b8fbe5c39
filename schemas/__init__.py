"""Artifact types, their Arrow schemas, their encoding and their digests.

Importing the package registers every artifact type.
"""

from schemas import cameras, clips, depth, driving, labels, models, motion, reports, scenes, shots, tracks  # noqa: F401  (registers the types)
