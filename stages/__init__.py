"""Pure steps, artifacts in, artifacts out, in rooms named by role."""
