"""Check what decisions promise: false-alarm rates, known and unknown products, a common ranking."""

RATES = (0.01, 0.05, 0.1)
"""Nominal false-alarm rates."""
ALL = "all products"
"""Key of the figures of all products together."""
