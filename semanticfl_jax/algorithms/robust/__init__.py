"""Aggregators that wrong updates cannot move far, one file each."""
