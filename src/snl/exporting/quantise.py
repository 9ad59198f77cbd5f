"""Convolutions in int8, their ranges taken from normal images; everything else stays as it is.

An anomaly map is a difference of two features that are nearly equal, so it shows every rounding of
them. What is kept in float: the convolutions whose outputs are compared (from which a path leads to
an output of the graph through no other convolution).
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
_QUANTISED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData"}
_REST = {"Parameter", "Result", "Constant", "Convert"}


def quantise_onnx(raw: Path, made: Path, images: Sequence[np.ndarray]) -> None:
    """An ONNX file to another: convolutions per channel, activations by their extremes.

    Args:
        raw, made: the files; `made` is written.
        images: uint8 (B, size, size, 3) each, with a B that the graph takes.

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
            f"int8 of ONNX needs ONNX Runtime's tools ({error}): pip install 'snl-ad[export]'"
        ) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, a batch at a time."""

        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.rest, None)
            return None if pixels is None else {"pixels": pixels}

    ready = raw.with_name("ready.onnx")
    quant_pre_process(str(raw), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(made),
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
    """An OpenVINO model to another, as `quantise_onnx`.

    Raises:
        DependencyError: nncf is missing.
    """
    rest = {op.get_type_name() for op in model.get_ops()} - _QUANTISED - _REST
    silent = io.StringIO()  # it draws bars of its own
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        try:
            import nncf
        except ImportError as error:
            raise DependencyError(
                f"int8 of OpenVINO needs nncf ({error}): pip install 'snl-ad[export]'"
            ) from None
        logging.getLogger("nncf").setLevel(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            # features that are not rectified lie on both sides of 0, but not evenly
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(
                names=kept_of_openvino(model), types=sorted(rest), validate=False
            ),
            subset_size=len(images),
        )


def kept_of_onnx(graph: Any) -> list[str]:
    """Names of the convolutions that stay in float."""
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type in _CONVOLUTIONS]
    return _kept(
        {node.name for node in convolutions},
        (made_by[output.name] for output in graph.output),
        lambda node: node.name,
        lambda node: (made_by[name] for name in node.input if name in made_by),
    )


def kept_of_openvino(model: Any) -> list[str]:
    """Names of the convolutions that stay in float."""
    convolutions = [op for op in model.get_ops() if op.get_type_name() in _QUANTISED]
    return _kept(
        {op.get_friendly_name() for op in convolutions},
        model.get_results(),
        lambda op: op.get_friendly_name(),
        lambda op: (value.get_node() for value in op.input_values()),
    )


def _kept(
    convolutions: set[str],
    outputs: Iterable[Any],
    name_of: Callable[[Any], str],
    inputs_of: Callable[[Any], Iterable[Any]],
) -> list[str]:
    """The convolutions that are met first on all ways back from the outputs."""
    last: set[str] = set()
    seen: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        name = name_of(node)
        if name in seen:
            continue
        seen.add(name)
        if name in convolutions:
            last.add(name)
        else:
            waiting += inputs_of(node)
    return sorted(last)
