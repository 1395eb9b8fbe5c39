"""Driving logs seen from where nobody drove: trajectories, boxes and road lines in the view, recorded frames warped into it."""
