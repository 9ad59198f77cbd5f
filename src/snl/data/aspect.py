"""Whether two images have the same shape, whatever their sizes."""

SAME_ASPECT = 0.01
"""Largest relative difference of aspect ratios that are the same."""


def same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Return True if two sizes have nearly the same ratio of height to width."""
    return abs((first[1] * second[0]) / (first[0] * second[1]) - 1) <= SAME_ASPECT
