"""A student and a loss for snl: registration and settings; imports no torch."""

from dataclasses import dataclass
from typing import Annotated

from snl import register_loss, register_student
from snl.settings import Range


@register_student("bilinear", implementation="snl_example.student:make_bilinear")
@dataclass(frozen=True)
class BilinearSettings:
    """Settings of the student `bilinear`."""

    width: Annotated[int, Range(1, 4096)] = 64
    """Channels of the bottleneck's code."""


@register_loss("sparse_code", implementation="snl_example.losses:sparse_code", scope="batch")
@dataclass(frozen=True)
class SparseCodeSettings:
    """Settings of the loss `sparse_code`."""

    weight: Annotated[float, Range(0, 1e6)] = 0.0
    """Weight of the term; 0: not computed."""
    margin: Annotated[float, Range(0, 10)] = 0.05
    """Absolute values of the code up to this cost nothing."""
