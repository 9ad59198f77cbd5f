"""Numbers that several layers share. Imports nothing."""

MAX_PIXELS = 160_000_000
"""Default limit of an image's height times width; `max_pixels` and `--max-pixels` change it."""

TEST_SHARE = 0.2
"""Share of the normal images of a product without a split that are test images, by default."""

STEPS_PER_PRODUCT = 60
"""Training steps of a batch of 8 for each of many products; with fewer, many are not learnt."""

MIN_IMAGES = 4
"""Normal images of a product that are enough to begin: one is held out, three are trained on."""
