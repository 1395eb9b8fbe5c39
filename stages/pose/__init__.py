"""Camera paths, the ground, gravity and metric scale."""
