"""Moving regions, tracks, kinematics, questions, and their evaluation against truth."""
