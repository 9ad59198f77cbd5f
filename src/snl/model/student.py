"""The convolutional students: reverse (from the teacher's features) and forward (from the image).

They are built from the teacher's stages (channels and strides) only; no backbone is hard-coded.
The reverse student follows RD4AD (Deng & Li, arXiv 2201.10703): a one-class bottleneck embedding
and a decoder that mirrors the teacher's stages. CRAM is applied to the bottleneck's output
(reverse), after the deepest stage or after every stage (forward). `transformer.py` has the reverse
student of vision transformers, `uniad.py` the UniAD student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.model.base import DataInitialised, Stage, Student, StudentOutput, TeacherInfo
from snl.model.cram import cram_settings, initialised_crams, make_cram
from snl.model.teacher import arrange, create, default_stages
from snl.model.transformer import TransformerStudent
from snl.registry import STUDENTS
from snl.settings import CramSettings, Settings, StudentSettings, TeacherSettings

WIDE = 512
"""Blocks are bottleneck blocks if the deepest stage has at least this many channels."""


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and a batch norm; the output has the size H / stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def up_bn(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 2 x 2 transposed convolution of stride 2 and a batch norm; H and W double."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False), nn.BatchNorm2d(outputs)
    )


def resample(inputs: int, outputs: int, kernel: int, scale: str) -> nn.Sequential:
    """Return a layer that keeps (`same`), halves (`down`) or doubles (`up`) the resolution."""
    if scale == "up":
        return up_bn(inputs, outputs)
    return conv_bn(inputs, outputs, kernel, 2 if scale == "down" else 1)


class Block(nn.Module):
    """Residual block, basic or bottleneck (`inner` narrower than `outputs`).

    Args:
        inputs, outputs: channels.
        inner: channels of the inner layers; equal to `outputs` for a basic block.
        scale: `same`, `down` or `up`; the shortcut is resampled too.
        rectified: whether a ReLU follows the sum.
    """

    def __init__(
        self, inputs: int, outputs: int, inner: int, scale: str = "same", rectified: bool = True
    ) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        if inner == outputs:
            body = [resample(inputs, inner, 3, scale), relu, conv_bn(inner, outputs, 3)]
        else:
            body = [conv_bn(inputs, inner, 1), relu, resample(inner, inner, 3, scale), relu]
            body += [conv_bn(inner, outputs, 1)]
        self.body = nn.Sequential(*body)
        same_shape = scale == "same" and inputs == outputs
        self.shortcut = nn.Identity() if same_shape else resample(inputs, outputs, 1, scale)
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return F.relu(y) if self.rectified else y


class ReverseStudent(Student):
    """One-class bottleneck embedding, CRAM, decoder.

    Args:
        stages: of the teacher, shallow to deep.
        settings: depth and block type.
        cram: form and number of centres of CRAM, or the form `none`.
        rectified: whether the teacher's features end in a ReLU.
        halvings: how many times the bottleneck halves the resolution of the deepest stage, at
            least 1.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        settings: StudentSettings,
        cram: CramSettings,
        rectified: bool = True,
        halvings: int = 1,
    ) -> None:
        super().__init__()
        deepest = stages[-1]
        self.stride = 2**halvings * deepest.stride
        wide = deepest.channels >= WIDE

        def inner(channels: int) -> int:
            return max(channels // settings.expansion, 8) if wide else channels

        # brings every stage to the deepest stage's size and width
        self.gather = nn.ModuleList(_descent(stages[i:]) for i in range(len(stages)))
        # twice the deepest stage's width
        code = 2 * deepest.channels
        embed = [Block(len(stages) * deepest.channels, code, inner(code), "down")]
        embed += [
            Block(code, code, inner(code), "down" if number < halvings else "same")
            for number in range(1, max(settings.bottleneck_blocks, halvings))
        ]
        self.embed = nn.Sequential(*embed)
        self.cram = make_cram(code, cram)
        # mirrors the teacher's stages, deepest first
        depths = settings.blocks * len(stages) if len(settings.blocks) == 1 else settings.blocks
        if len(depths) != len(stages):
            raise ValueError(f"it has {len(depths)} numbers, the teacher {len(stages)} stages")
        self.decoder = nn.ModuleList()
        channels, stride = code, self.stride
        for stage, depth in zip(reversed(stages), depths, strict=True):
            scales = ["up"] * int(math.log2(stride // stage.stride)) or ["same"]
            scales += ["same"] * (depth - len(scales))
            blocks = []
            for i, scale in enumerate(scales):
                last = i == len(scales) - 1
                blocks.append(
                    Block(
                        channels,
                        stage.channels,
                        inner(stage.channels),
                        scale,
                        rectified=rectified or not last,
                    )
                )
                channels = stage.channels
            self.decoder.append(nn.Sequential(*blocks))
            stride = stage.stride

    def encode(self, teacher_features: Sequence[Tensor]) -> Tensor:
        """Return the bottleneck's output (B, 2 C, h / 2^n, w / 2^n) for teacher features of all
        stages, n being the number of halvings.

        The features of the deepest stage are (B, C, h, w).
        """
        gathered = [descend(x) for descend, x in zip(self.gather, teacher_features, strict=True)]
        return self.embed(torch.cat(gathered, 1))  # type: ignore[no-any-return]

    def data_initialised(self) -> list[DataInitialised]:
        """Return CRAM, if there is one."""
        return initialised_crams(self.cram)

    def initialisation_inputs(
        self, images: Tensor | None, features: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the bottleneck's output, which is CRAM's input."""
        return [self.encode(features)]

    def forward(self, images: Tensor | None, features: Sequence[Tensor]) -> StudentOutput:
        """Return the reproductions of the teacher features; the images are not used."""
        x = self.cram(self.encode(features))
        outputs = []
        for stage in self.decoder:
            x = stage(x)
            outputs.append(x)
        return StudentOutput(outputs[::-1])


class ForwardStudent(Student):
    """The teacher's architecture with randomly initialised weights; its input is the image."""

    def __init__(self, teacher: TeacherSettings, cram: CramSettings) -> None:
        super().__init__()
        self.net = create(teacher.name, out_indices=teacher.stages or default_stages(teacher.name))
        self.arrangement = arrange(self.net, teacher)
        channels = [stage.channels for stage in self.arrangement.stages]
        self.stride = self.arrangement.stages[-1].stride
        count = len(channels) if cram.place == "stages" else 1
        self.cram = nn.ModuleList(
            make_cram(c, cram) if i >= len(channels) - count else nn.Identity()
            for i, c in enumerate(channels)
        )

    def data_initialised(self) -> list[DataInitialised]:
        """Return the CRAM modules, shallow to deep."""
        return initialised_crams(*self.cram)

    def initialisation_inputs(
        self, images: Tensor | None, features: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the features of the stages that have a CRAM module."""
        outputs = self.arrangement(self.net(images))
        pairs = zip(outputs, self.cram, strict=True)
        return [x for x, cram in pairs if isinstance(cram, DataInitialised)]

    def forward(self, images: Tensor | None, features: Sequence[Tensor]) -> StudentOutput:
        """Return features of the teacher's shapes for normalised images (B, 3, H, W)."""
        outputs = self.arrangement(self.net(images))
        return StudentOutput([cram(x) for x, cram in zip(outputs, self.cram, strict=True)])


def make_student(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the student that `student.architecture` names.

    Raises:
        SettingsError: settings that do not fit the teacher.
        PluginError: a plug-in that cannot be imported.
    """
    student: Student = STUDENTS.get(settings.student.architecture).load()(teacher, settings)
    return student


def make_forward(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the forward student."""
    return ForwardStudent(settings.teacher, cram_settings(settings))


def make_reverse(teacher: TeacherInfo, settings: Settings) -> Student:
    """Build the reverse student: transformer blocks for a vision transformer, else convolutions."""
    if teacher.depths:
        return TransformerStudent(teacher.stages, teacher.depths, cram_settings(settings))
    try:
        return ReverseStudent(
            teacher.stages,
            settings.student,
            cram_settings(settings),
            teacher.rectified,
            _halvings(settings.image_size // teacher.stages[-1].stride, settings.student),
        )
    except ValueError as error:
        raise SettingsError(f"setting 'student.blocks' does not fit the teacher: {error}") from None


def _halvings(side: int, settings: StudentSettings) -> int:
    """Return how many times the bottleneck halves a deepest stage of this many positions a side."""
    count = 1
    while settings.bottleneck_size and not side % 2 ** (count + 1):
        if side // 2 ** (count + 1) < settings.bottleneck_size:
            break
        count += 1
    return count


def _descent(stages: Sequence[Stage]) -> nn.Sequential:
    """Return 3 x 3 convolutions of stride 2 from the first stage's size and width to the last's."""
    layers: list[nn.Module] = []
    channels, stride = stages[0].channels, stages[0].stride
    for stage in stages[1:]:
        while stride < stage.stride:
            stride *= 2
            layers += [conv_bn(channels, stage.channels, 3, 2), nn.ReLU(inplace=True)]
            channels = stage.channels
        if channels != stage.channels:
            layers += [conv_bn(channels, stage.channels, 3), nn.ReLU(inplace=True)]
            channels = stage.channels
    return nn.Sequential(*layers)
