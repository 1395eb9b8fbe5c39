"""Video files, frame folders and logs become clips."""
