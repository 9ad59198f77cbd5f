"""Exports give the numbers and inspections of their bundle, also in fp16 and int8."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.cli.main import main
from snl.errors import SettingsError
from snl.exporting.check import Checked
from tests.conftest import FILES
from tests.runtime.compare import close, same
from tests.trees import draw

PRECISIONS = ("fp16", "int8")


@pytest.fixture(scope="module", params=FILES)
def runtime(request: pytest.FixtureRequest, exported: dict[str, Path]) -> snl.Inspector:
    return snl.load(exported[request.param], "cpu", threads=1)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Of both products, with and without defects, of several sizes."""
    return [
        *(
            draw(300 + n, defect=n % 2 > 0, product=("bolt", "plate")[n % 3 > 0])[0]
            for n in range(6)
        ),
        np.repeat(np.repeat(draw(7)[0], 3, 0), 4, 1),
        draw(8, defect=True)[0][:, :31],
        np.full((5, 200, 3), 90, np.uint8),
    ]


@pytest.fixture(scope="module")
def low(
    inspector: snl.Inspector, plant: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Checked]:
    """Exports in half precision and int8, by format and precision."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("nncf", reason="the extra `export` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from snl.exporting.write import export

    folder, data = tmp_path_factory.mktemp("low"), snl.Catalog.read(plant)
    return {
        (kind, precision): export(
            inspector,
            folder / f"{precision}{suffix}",
            format=kind,
            precision=precision,
            data=data,
        )
        for kind, suffix in FILES.items()
        for precision in PRECISIONS
    }


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_same_numbers(inspector: snl.Inspector, runtime: snl.Inspector, count: int) -> None:
    noise = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    left, right = inspector.predict(noise), runtime.predict(noise)
    assert left.extra == right.extra == {}
    for a, b in zip(left[:3], right[:3], strict=True):
        assert len(a) == count
        close(a, b)


def test_the_same_inspections(
    inspector: snl.Inspector, runtime: snl.Inspector, images: list[np.ndarray]
) -> None:
    decisions = set()
    for product in (None, "bolt", "plate"):
        for image in images:
            a, b = (each.inspect(image, product, rate=0.1) for each in (inspector, runtime))
            assert b.anomaly_map.shape == image.shape[:2]
            same(a, b)
            decisions.add(a.decision)
    assert {"normal", "anomalous"} <= decisions  # both kinds are compared
    for a, b in zip(inspector.inspect(images), runtime.inspect(images), strict=True):
        same(a, b)


def test_the_same_in_tiles(
    trained: Path, exported: dict[str, Path], images: list[np.ndarray]
) -> None:
    inspectors = [snl.load(file, "cpu", threads=1) for file in (trained, *exported.values())]
    for inspector in inspectors:
        inspector.recalibrate(dataclasses.replace(inspector.calibration, tile=24))
    for image in images[4:8]:
        first, *others = [inspector.inspect(image) for inspector in inspectors]
        for other in others:
            same(first, other)


def test_the_device_is_named(runtime: snl.Inspector) -> None:
    assert runtime.engine.device in ("ONNX Runtime cpu", "OpenVINO CPU")
    assert runtime.products == ("bolt", "plate") and runtime.image_size == 64
    with pytest.raises(SettingsError, match="has no network"):
        runtime.network  # noqa: B018


@pytest.mark.parametrize("kind", FILES)
def test_a_fixed_batch_takes_any_number(
    inspector: snl.Inspector, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from snl.exporting.write import export

    path = tmp_path / f"three{FILES[kind]}"
    export(inspector, path, format=kind, batch=3)
    fixed = snl.load(path, "cpu", threads=1)
    for count in (1, 3, 7):
        noise = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        for a, b in zip(inspector.predict(noise)[:3], fixed.predict(noise)[:3], strict=True):
            close(a, b)
    image = draw(300)[0]
    same(inspector.inspect(image), fixed.inspect(image))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", FILES)
def test_low_precision_detects_as_much(
    low: dict[tuple[str, str], Checked], exported: dict[str, Path], kind: str, precision: str
) -> None:
    checked = low[kind, precision]
    assert checked.aurocs is not None and checked.aurocs.keys() == {"image", "pixel"}
    for name, (before, after) in checked.aurocs.items():
        assert before is not None and after is not None
        assert before > 0.95, name  # high enough that a loss would show
        assert after > before - (0.002 if precision == "fp16" else 0.005), name
    assert checked.differences["maps"] > 1e-5  # it is not fp32
    sizes = [
        (path if kind == "onnx" else path.with_suffix(".bin")).stat().st_size
        for path in (checked.path, exported[kind])
    ]
    # graph and metadata are the larger part of the ONNX file of this tiny network
    assert sizes[0] < sizes[1] * (0.6 if kind == "openvino" else 1.0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", FILES)
def test_held_out_images_are_measured_again(
    low: dict[tuple[str, str], Checked],
    inspector: snl.Inspector,
    plant: Path,
    kind: str,
    precision: str,
) -> None:
    from snl.files import content_hash

    checked = low[kind, precision]
    assert checked.recalibrated
    runtime = snl.load(checked.path, "cpu", threads=1)
    assert [c.reason for c in runtime.calibrations] == ["training", "export"]
    files = {content_hash(f): f for f in plant.glob("*/train/good/*.png")}
    for product, data in runtime.calibration.sets.items():
        before = inspector.calibration.sets[product]
        assert set(data.hashes.tolist()) == set(before.hashes.tolist()) and len(data) >= 10
        for content, score in zip(data.hashes.tolist(), data.scores, strict=True):
            again = runtime.inspect(files[content], product).score
            assert again == pytest.approx(float(score), rel=1e-4)
        if precision == "int8":
            assert not np.allclose(np.sort(data.scores), np.sort(before.scores), rtol=1e-3)


def test_what_int8_quantises(low: dict[tuple[str, str], Checked]) -> None:
    """The features that are compared stay float; most other convolutions do not."""
    import onnx

    graph = onnx.load(low["onnx", "int8"].path).graph
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantised = [
        node
        for node in convolutions
        if node.input[0] in made_by and made_by[node.input[0]].op_type == "DequantizeLinear"
        and made_by[node.input[1]].op_type == "DequantizeLinear"
    ]  # fmt: skip
    assert len(convolutions) / 3 < len(quantised) < len(convolutions)
    # every path from an output back to a quantised convolution passes one that is not quantised
    kept, waiting = set(), [made_by[output.name] for output in graph.output]
    while waiting:
        node = waiting.pop()
        assert node not in quantised
        if node.name in kept:
            continue
        kept.add(node.name)
        if node.op_type not in ("Conv", "ConvTranspose"):
            waiting += [made_by[name] for name in node.input if name in made_by]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_tiles_with_an_export(
    kind: str, exported: dict[str, Path], plant: Path, tmp_path: Path
) -> None:
    source = exported[kind]
    for part in source.parent.glob("parts.*"):
        shutil.copy(part, tmp_path)
    file = tmp_path / source.name
    image, output = plant / "bolt" / "test" / "dent" / "000.png", tmp_path / "results.json"
    options = ["--device", "cpu", "--quiet"]
    tiles = ["--tile", "32", "--json", str(output)]
    assert main(["inspect", str(file), str(image), *options, *tiles]) == 0
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(file), str(image), *options, "--tile", "3"])
    assert main(["calibrate", str(file), str(plant), "--tile", "32", *options]) == 0
    assert snl.load(file, "cpu").tile == 32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_openvino_in_half_precision(
    precision: str, exported: dict[str, Path], images: list[np.ndarray]
) -> None:
    import openvino

    offered = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision.upper() not in offered:
        with pytest.raises(SettingsError, match=f"does not compute in {precision} here"):
            snl.load(exported["openvino"], "cpu", precision=precision)
        return
    exact = snl.load(exported["openvino"], "cpu", threads=1)
    half = snl.load(exported["openvino"], "cpu", threads=1, precision=precision)
    for a, b in zip(exact.inspect(images), half.inspect(images), strict=True):
        assert b.score == pytest.approx(a.score, rel=0.05)
        assert a.product == b.product


def test_an_onnx_file_has_its_own_precision(
    exported: dict[str, Path], plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normals = str(plant / "bolt" / "train" / "good")
    assert main(["inspect", str(exported["onnx"]), normals, "--precision", "bf16"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "leave out --precision" in printed.err
    assert not printed.out
    with pytest.raises(SettingsError, match="'half': choose of fp32"):
        snl.load(exported["openvino"], "cpu", precision="half")
