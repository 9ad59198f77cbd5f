"""Quantise convolutions to int8, calibrated on normal images; the rest stays in float.

An anomaly map is the difference of two features that are nearly equal, so it is sensitive
to rounding errors in both. Therefore the convolutions whose outputs are compared also stay in
float: the last convolution on each path to an output of the graph.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import DependencyError

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_OPENVINO_CONVOLUTIONS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData"}
_WITHOUT_ARITHMETIC = {"Parameter", "Result", "Constant", "Convert"}


def quantise_onnx(source: Path, target: Path, images: Sequence[np.ndarray]) -> None:
    """Write an ONNX file with int8 weights per channel and min-max calibrated activations.

    Args:
        source: ONNX file in fp32; a file `ready.onnx` is written beside it.
        target: file to write.
        images: uint8 (B, size, size, 3) each, with a batch size that the graph accepts.

    Raises:
        DependencyError: a package is missing.
    """
    try:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise DependencyError(
            f"int8 quantisation for ONNX needs ONNX Runtime's tools ({error}): "
            "pip install 'snl-ad[export]'"
        ) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, one batch per call."""

        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.remaining, None)
            return None if pixels is None else {"pixels": pixels}

    ready = source.with_name("ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=kept_of_onnx(onnx.load(ready).graph),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def quantise_openvino(model: Any, images: Sequence[np.ndarray]) -> Any:
    """Return an OpenVINO model quantised as by `quantise_onnx`.

    Raises:
        DependencyError: nncf is missing.
    """
    types = {op.get_type_name() for op in model.get_ops()}
    silent = io.StringIO()  # nncf draws progress bars
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        try:
            import nncf
        except ImportError as error:
            raise DependencyError(
                f"int8 quantisation for OpenVINO needs nncf ({error}): pip install 'snl-ad[export]'"
            ) from None
        logging.getLogger("nncf").setLevel(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            # activations without a ReLU are signed but asymmetric
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(
                names=kept_of_openvino(model),
                types=sorted(types - _OPENVINO_CONVOLUTIONS - _WITHOUT_ARITHMETIC),
                validate=False,
            ),
            subset_size=len(images),
        )


def kept_of_onnx(graph: Any) -> list[str]:
    """Return the names of the convolutions of an ONNX graph that stay in float."""
    producers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type in _CONVOLUTIONS]
    return _last_convolutions(
        {node.name for node in convolutions},
        (producers[output.name] for output in graph.output),
        lambda node: node.name,
        lambda node: (producers[name] for name in node.input if name in producers),
    )


def kept_of_openvino(model: Any) -> list[str]:
    """Return the names of the convolutions of an OpenVINO model that stay in float."""
    convolutions = [op for op in model.get_ops() if op.get_type_name() in _OPENVINO_CONVOLUTIONS]
    return _last_convolutions(
        {op.get_friendly_name() for op in convolutions},
        model.get_results(),
        lambda op: op.get_friendly_name(),
        lambda op: (value.get_node() for value in op.input_values()),
    )


def _last_convolutions(
    convolutions: set[str],
    outputs: Iterable[Any],
    name_of: Callable[[Any], str],
    inputs_of: Callable[[Any], Iterable[Any]],
) -> list[str]:
    """Return the convolutions that are reached first when walking back from each output."""
    last: set[str] = set()
    visited: set[str] = set()
    pending = list(outputs)
    while pending:
        node = pending.pop()
        name = name_of(node)
        if name in visited:
            continue
        visited.add(name)
        if name in convolutions:
            last.add(name)
        else:
            pending += inputs_of(node)
    return sorted(last)
