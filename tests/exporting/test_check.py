"""The comparison of an export with its bundle: it rejects exports that differ."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import snl
from snl.cli.main import main
from snl.decision.calibration import CalibrationSet
from snl.exporting import write as exporting
from snl.exporting.check import (
    ExportError,
    check_aurocs,
    check_images,
    compare_aurocs,
    output_differences,
    recalibrate,
)
from snl.exporting.quantise import kept_of_onnx
from snl.files import content_hash
from snl.runtime.engine import Outputs
from tests.conftest import FILES
from tests.exporting.files import Capture, error_line

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")


def change_weights(monkeypatch: pytest.MonkeyPatch, share: float, tensors: int = 1) -> None:
    """Make `snl.export` write a graph whose largest weight tensors are scaled by 1 + `share`."""
    write = exporting._write_graph

    def wrong(network: Any, file: Path, size: int, batch: int | None) -> None:
        write(network, file, size, batch)
        model = onnx.load(file)
        floats = [v for v in model.graph.initializer if v.data_type == onnx.TensorProto.FLOAT]
        floats.sort(key=lambda value: -int(np.prod(value.dims)))
        for largest in floats[:tensors]:
            values = onnx.numpy_helper.to_array(largest) * np.float32(1 + share)
            largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
        onnx.save(model, file)

    monkeypatch.setattr(exporting, "_write_graph", wrong)


@pytest.mark.parametrize("kind", FILES)
def test_a_graph_that_differs_is_not_kept(
    trained: Path,
    exported: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    kind: str,
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    change_weights(monkeypatch, 0.01)
    output = tmp_path / f"parts{FILES[kind]}"
    before = {}
    if kind == "onnx":  # an existing file stays
        shutil.copy(exported[kind], output)
        before = {output.name: output.read_bytes()}
    assert main(["export", str(trained), "-o", str(output), "--device", "cpu", "--quiet"]) == 2
    line = error_line(capsys)
    assert "differs from the bundle" in line and "maps" in line and output.name in line
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_an_export_that_loses_auroc_is_not_kept(
    inspector: snl.Inspector, plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_weights(monkeypatch, -1.0, tensors=20)  # weights of 0
    with pytest.raises(ExportError, match=r"AUROC \S+ became \S+; at most 0.2 points"):
        snl.export(inspector, tmp_path / "a.onnx", precision="fp16", data=snl.Catalog.read(plant))
    assert not list(tmp_path.iterdir())


def test_an_auroc_may_fall_by_the_bound_of_its_precision() -> None:
    path = Path("a.onnx")
    check_aurocs(path, "fp16", {"image": (0.9, 0.8985), "pixel": (0.9, None)})
    check_aurocs(path, "int8", {"image": (0.9, 0.8955), "pixel": (None, 0.1)})
    check_aurocs(path, "int8", {"image": (0.9, 1.0), "pixel": (0.9, 0.9)})
    with pytest.raises(ExportError, match=r"a.onnx: not written: pixel AUROC 90.00 became 89.75"):
        check_aurocs(path, "fp16", {"image": (0.9, 0.9), "pixel": (0.9, 0.8975)})
    with pytest.raises(ExportError, match=r"image AUROC 90.00 became 89.45; at most 0.5 points"):
        check_aurocs(path, "int8", {"image": (0.9, 0.8945), "pixel": (0.9, 0.9)})


# ---------------------------------------------------------------- outputs


class Brightness:
    """A stand-in for an inspector: maps are the pixels, with an error in one of the images."""

    def __init__(self, error: float = 0.0, image: int = 0, output: str = "maps") -> None:
        self.error, self.image, self.output = error, image, output
        self.batches: list[int] = []

    def predict(self, pixels: np.ndarray) -> Outputs:
        self.batches.append(len(pixels))
        maps = pixels[..., 0].astype(np.float32)
        outputs = {"maps": maps, "scores": maps.max((1, 2)), "embeddings": maps.mean(1)}
        # the first pixel of an image is its number
        outputs[self.output][pixels[:, 0, 0, 1] == self.image] += self.error
        return Outputs(**outputs)


def numbered_images(count: int) -> np.ndarray:
    pixels = np.random.default_rng(count).integers(1, 256, (count, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 1] = np.arange(count)
    return pixels


def differences(
    bundle: Any, export: Any, pixels: np.ndarray, batch: int | None
) -> dict[str, float]:
    return output_differences(bundle, export, pixels, batch)


@pytest.mark.parametrize("output", ["maps", "scores", "embeddings"])
@pytest.mark.parametrize(("count", "batch"), [(16, None), (5, None), (1, None), (7, 3), (3, 64)])
def test_every_image_is_compared_in_every_output(
    count: int, batch: int | None, output: str
) -> None:
    pixels = numbered_images(count)
    for image in range(count):
        bundle, export = Brightness(), Brightness(2.0, image, output)
        largest = differences(bundle, export, pixels, batch)
        assert bundle.batches == export.batches and sum(bundle.batches) == count
        assert {name for name, value in largest.items() if value} == {output}
        # relative to the largest value of the group that the image is in
        first = 0
        for size in bundle.batches:
            if first <= image < first + size:
                group = Brightness().predict(pixels[first : first + size])
            first += size
        scale = np.abs(getattr(group, output).astype(np.float64)).max()
        assert largest[output] == pytest.approx(2 / scale, rel=1e-5)


def test_a_graph_for_any_batch_size_is_compared_at_several() -> None:
    bundle = Brightness()
    assert differences(bundle, Brightness(), numbered_images(30), None) == dict.fromkeys(
        ("maps", "scores", "embeddings"), 0.0
    )
    assert bundle.batches == [1, 3, 8, 1, 3, 8, 1, 3, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_differ_without_bound(value: float) -> None:
    pixels = numbered_images(5)
    for bundle, export in ((0.0, value), (value, 0.0), (value, value)):
        result = differences(Brightness(bundle, 3), Brightness(export, 3), pixels, None)
        assert result["maps"] == np.inf


def test_a_batch_larger_than_the_number_of_images_is_compared(
    inspector: snl.Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_weights(monkeypatch, 0.01)
    with pytest.raises(ExportError, match="differs from the bundle"):
        snl.export(inspector, tmp_path / "a.onnx", batch=64)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- images


def test_images_are_compared_on_the_data_or_on_generated_ones(
    inspector: snl.Inspector, plant: Path, tmp_path: Path
) -> None:
    catalog = snl.Catalog.read(plant)
    pixels = check_images(inspector, catalog)
    assert pixels.dtype == np.uint8 and pixels.shape == (32 + 24, 64, 64, 3)  # of 48 + 24
    generated = check_images(inspector, None)
    assert generated.shape[1:] == (64, 64, 3) and len(generated) >= 10
    assert len(np.unique(generated.reshape(len(generated), -1), axis=0)) == len(generated)

    root = tmp_path / "damaged"
    shutil.copytree(plant, root)
    for file in sorted(root.rglob("*.png"))[::2]:
        file.write_bytes(b"no image")
    readable = check_images(inspector, snl.Catalog.read(root))
    assert 0 < len(readable) < len(pixels)
    for file in root.rglob("*.png"):
        file.write_bytes(b"no image")
    np.testing.assert_array_equal(check_images(inspector, snl.Catalog.read(root)), generated)


def test_auroc_needs_labelled_test_images(inspector: snl.Inspector, plant: Path) -> None:
    catalog = snl.Catalog.read(plant)
    calls: list[tuple[int, int]] = []
    aurocs = compare_aurocs(
        inspector, inspector, catalog, lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 48) for done in range(1, 49)]
    mean = snl.evaluate(inspector, catalog).mean
    assert aurocs == {
        name: (mean[f"{name}_auroc"], mean[f"{name}_auroc"]) for name in ("image", "pixel")
    }
    train = dataclasses.replace(catalog, records=tuple(catalog.train()))
    assert compare_aurocs(inspector, inspector, train) is None
    unlabelled = tuple(dataclasses.replace(r, label=None) for r in catalog.test())
    unknown = dataclasses.replace(catalog, records=unlabelled)
    assert compare_aurocs(inspector, inspector, unknown) is None


# ---------------------------------------------------------------- calibration


def test_held_out_images_are_measured_again_if_all_of_them_are_given(
    inspector: snl.Inspector, plant: Path
) -> None:
    catalog = snl.Catalog.read(plant)
    copy = snl.Inspector(inspector.predictor, inspector.calibrations)
    assert recalibrate(inspector, copy, catalog)
    assert [c.reason for c in copy.calibrations] == ["training", "export"]
    for product, held_out in inspector.calibration.sets.items():
        again = copy.calibration.sets[product]
        assert sorted(again.hashes.tolist()) == sorted(held_out.hashes.tolist())
        order, before = np.argsort(again.hashes), np.argsort(held_out.hashes)
        np.testing.assert_allclose(again.scores[order], held_out.scores[before], rtol=1e-4)
    # one image less
    hashes = set(inspector.calibration.sets["bolt"].hashes.tolist())
    missing = next(r for r in catalog.records if content_hash(r.path) in hashes)
    fewer = tuple(r for r in catalog.records if r != missing)
    copy = snl.Inspector(inspector.predictor, inspector.calibrations)
    assert not recalibrate(inspector, copy, dataclasses.replace(catalog, records=fewer))
    assert copy.calibrations == inspector.calibrations


def test_a_bundle_without_held_out_images_can_be_exported(
    inspector: snl.Inspector, plant: Path, tmp_path: Path
) -> None:
    empty = {product: CalibrationSet.empty() for product in inspector.products}
    calibration = dataclasses.replace(inspector.calibration, sets=empty)
    bare = snl.Inspector(inspector.predictor, [calibration])
    checked = snl.export(bare, tmp_path / "a.onnx", precision="fp16", data=snl.Catalog.read(plant))
    assert not checked.recalibrated and checked.aurocs is not None
    assert snl.load(checked.path, "cpu").threshold("bolt") is None


# ---------------------------------------------------------------- int8


def test_convolutions_before_an_output_stay_in_float() -> None:
    """a -> b -> relu -> difference of b and c -> map; d -> e -> embedding; f only feeds b."""

    def node(kind: str, name: str, *inputs: str) -> SimpleNamespace:
        return SimpleNamespace(op_type=kind, name=name, input=inputs, output=[f"{name}_out"])

    nodes = [
        node("Conv", "f", "pixels", "weights"),
        node("Conv", "a", "pixels", "weights"),
        node("Conv", "b", "a_out", "f_out"),
        node("Relu", "relu", "b_out"),
        node("ConvTranspose", "c", "a_out", "weights"),
        node("Sub", "difference", "relu_out", "c_out"),
        node("Conv", "d", "relu_out", "weights"),
        node("Conv", "e", "d_out", "weights"),
        node("Mean", "mean", "e_out"),
    ]
    outputs = [SimpleNamespace(name=name) for name in ("difference_out", "mean_out")]
    assert kept_of_onnx(SimpleNamespace(node=nodes, output=outputs)) == ["b", "c", "e"]
