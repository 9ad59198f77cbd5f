"""Limits that protect the memory of the machine. Imports nothing."""

MAX_PIXELS = 160_000_000
"""Default limit of an image's height times width; `max_pixels` and `--max-pixels` change it."""
