"""File formats of 4D Gaussian scenes."""
