"""Motion of tracked objects: definitions of distance, clock direction and turn, and a smoother with posterior draws."""
