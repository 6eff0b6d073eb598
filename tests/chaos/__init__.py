"""Faults on purpose, and what comes of them; too slow for the test suite."""
