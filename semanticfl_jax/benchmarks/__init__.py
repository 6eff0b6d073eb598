"""What the project measures of itself: `launch.benchmark`."""
