"""A small video diffusion model of streets: it repairs what is known of a view that nobody filmed.

The model is told a prior (recorded frames warped into the view), boxes, lines of the road, depth, the first recorded frame,
words and offsets, and makes the frames. What it learns is the difference to the prior with its holes filled smoothly, so
that an untrained model returns the prior: `windows` reads and augments examples, `network` is the model, `sampling` makes
frames of any number from noise, `training` trains.
"""
