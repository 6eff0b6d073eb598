"""Command-line entry points; each parses its flags and calls the package."""
