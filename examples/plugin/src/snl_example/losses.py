"""A loss on an auxiliary output of the student."""

from torch import Tensor

from snl.model.losses import BatchFeatures
from snl_example import SparseCodeSettings


def sparse_code(features: BatchFeatures, settings: SparseCodeSettings) -> Tensor:
    """Return the mean absolute value of the student's code above the margin; 0 without a code."""
    code = features.output.auxiliary.get("code")
    if code is None:
        return features.stages[0].student.new_zeros(())
    return (code.float().abs() - settings.margin).clamp_min(0).mean()
