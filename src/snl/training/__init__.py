"""Training of a student; importing any of these modules needs the extra `train`."""

from snl.dependencies import require

require(("torch",), "train", "training")
