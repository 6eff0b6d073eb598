"""A run, from images to report."""
