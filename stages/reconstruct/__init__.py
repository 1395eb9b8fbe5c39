"""4D Gaussian scenes from posed clips."""
