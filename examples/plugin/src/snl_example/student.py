"""A small reverse student: project, compress, and decode with bilinear upsampling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.model.base import Student, StudentOutput, TeacherInfo
from snl.settings import Settings


class BilinearStudent(Student):
    """Teacher features to their reproductions through a code at half the deepest resolution.

    Args:
        teacher: its stages give channels and strides.
        width: channels of the code.
    """

    def __init__(self, teacher: TeacherInfo, width: int) -> None:
        super().__init__()
        self.stride = 2 * teacher.stages[-1].stride
        self.narrow = nn.ModuleList(nn.Conv2d(s.channels, width, 1) for s in teacher.stages)
        self.encode = nn.Sequential(
            nn.Conv2d(len(teacher.stages) * width, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.decode = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, s.channels, 1),
            )
            for s in teacher.stages
        )

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> StudentOutput:
        """Return the reproductions, and the code (B, width, h, w) as an auxiliary output."""
        size = features[-1].shape[-2:]
        narrow = [
            F.interpolate(layer(x), size, mode="bilinear")
            for layer, x in zip(self.narrow, features, strict=True)
        ]
        code = self.encode(torch.cat(narrow, 1))
        outputs = [
            layer(F.interpolate(code, x.shape[-2:], mode="bilinear"))
            for layer, x in zip(self.decode, features, strict=True)
        ]
        return StudentOutput(outputs, auxiliary={"code": code})


def make_bilinear(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the student from its own settings, `student.bilinear.*`."""
    return BilinearStudent(teacher, settings.student.of("bilinear").width)
