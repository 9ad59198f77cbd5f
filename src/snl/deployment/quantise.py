"""Convolutions in int8, their ranges taken from normal images; everything else stays as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import DependencyError

_KEPT = {"Parameter", "Result", "Constant", "Convert"}
_QUANTISED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData"}


def quantise_onnx(raw: Path, made: Path, images: np.ndarray) -> None:
    """An ONNX file to another: convolutions per channel, activations by their extremes.

    Args:
        raw, made: the files; `made` is written.
        images: uint8 (M, size, size, 3).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, one at a time."""

        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.rest, None)
            return None if pixels is None else {"pixels": pixels[None]}

    ready = raw.with_name("ready.onnx")
    quant_pre_process(str(raw), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(made),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def quantise_openvino(model: Any, images: np.ndarray) -> Any:
    """An OpenVINO model to another, as `quantise_onnx`.

    Raises:
        DependencyError: nncf is missing.
    """
    try:
        import nncf
    except ImportError as error:
        raise DependencyError(
            f"int8 of OpenVINO needs nncf ({error}): pip install 'snl-ad[export]'"
        ) from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    rest = {op.get_type_name() for op in model.get_ops()} - _QUANTISED - _KEPT
    return nncf.quantize(
        model,
        nncf.Dataset([pixels[None] for pixels in images]),
        ignored_scope=nncf.IgnoredScope(types=sorted(rest), validate=False),
        subset_size=len(images),
    )
