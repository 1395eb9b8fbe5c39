"""Reports and formats that other tools read."""
