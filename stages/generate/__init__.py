"""Clips that nobody filmed: procedural worlds and video generators."""
