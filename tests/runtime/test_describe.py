"""`describe`: the same facts as the inspector, from every kind of file, without torch."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import snl
from snl.decision.calibration import CONFORMAL, SHARED_TAIL, Calibration, CalibrationSet, Rates
from snl.decision.products import Prototypes
from snl.decision.sample import PEAKS
from snl.errors import BundleError
from snl.files import save_tensors
from snl.runtime import graph_metadata
from snl.runtime.describe import describe
from snl.runtime.metadata import ModelMetadata, TrainingInfo, to_sections
from snl.runtime.onnx_file import join
from snl.runtime.sections import Section, join_sections


def make_metadata(counts: dict[str, int], **changes: Any) -> ModelMetadata:
    """Return the metadata of a model whose products have these numbers of held-out images."""
    rng = np.random.default_rng(0)
    sets = {}
    for name, count in counts.items():
        peaks = np.sort(rng.random((count, PEAKS), np.float32))[:, ::-1].copy()
        hashes = rng.integers(0, 2**63, count, np.uint64)
        sets[name] = CalibrationSet(peaks[:, 0], rng.random(count, np.float32), peaks, hashes)
    calibration = Calibration(
        sets,
        dict.fromkeys(counts, (-0.5, 0.3)),
        Prototypes(np.zeros((len(counts), 3), np.float32), tuple(counts)),
        network="0123456789abcdef",
        rule=CONFORMAL,
        created="2026-01-02T03:04:05+00:00",
    )
    later = dataclasses.replace(calibration, created="2026-02-03T04:05:06+00:00", reason="rates")
    training = TrainingInfo(
        {name: 10 * number for number, name in enumerate(counts, 1)},
        {"name": "parts", "layout": "mvtec", "fingerprint": "f", "images": 99},
        {"steps": 8, "batch_size": 4, "seconds": 1.5, "loss": 0.25, "device": "cpu",
         "precision": "fp32", "versions": {"snl": "0.1.0"}, "skipped": ["a.png: truncated"]},
        np.arange(3, dtype=np.uint64),
    )  # fmt: skip
    versions = [calibration, dataclasses.replace(later, **changes)]
    settings = snl.resolve("rd", overrides={"tile": 64})
    return ModelMetadata(
        settings, training, versions, (0.5,) * 3, (0.2,) * 3, network="0123456789abcdef"
    )


def save_bundle(path: Path, metadata: ModelMetadata) -> Path:
    """Write a bundle that holds only the metadata and a stand-in for the network."""
    network = Section({}, {"student.weight": np.zeros(5, np.float32)})
    document, arrays = join_sections({"network": network, **to_sections(metadata)})
    save_tensors(path, arrays, "bundle", document)
    return path


def save_onnx(path: Path, metadata: ModelMetadata, graph: bytes = b"") -> Path:
    """Write an ONNX file that holds only the metadata."""
    table = graph_metadata.to_metadata(metadata, graph_metadata.checksum(graph))
    path.write_bytes(join(graph, table))
    return path


def save_xml(path: Path, metadata: ModelMetadata) -> Path:
    """Write an OpenVINO file that holds only the metadata, and its .bin file of 7 bytes."""
    root = ElementTree.Element("net", name="x")
    information = ElementTree.SubElement(root, "rt_info")
    for key, value in graph_metadata.to_metadata(metadata, "a checksum").items():
        ElementTree.SubElement(information, key, value=value)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    path.with_suffix(".bin").write_bytes(b"weights")
    return path


WRITERS = {".snl": save_bundle, ".onnx": save_onnx, ".xml": save_xml}


def test_a_trained_bundle(calibrated: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    result = describe(calibrated)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["file"] == {
        "path": str(calibrated),
        "kind": "bundle",
        "format": 3,
        "bytes": calibrated.stat().st_size,
    }
    assert result["settings"] == inspector.settings.to_dict()
    assert result["model"]["teacher"] == "test_resnet" and result["model"]["image_size"] == 64
    training = result["training"]
    assert (training["steps"], training["batch_size"], training["precision"]) == (40, 4, "fp32")
    assert training["loss"] == inspector.training.facts["loss"]
    assert set(training["versions"]) == {"snl", "torch", "timm"}
    assert training["finished"] == inspector.calibration.created
    assert [product["name"] for product in result["products"]] == ["bolt", "plate"]
    for product in result["products"]:
        name = product["name"]
        assert product["training_images"] == inspector.training.products[name]
        assert product["held_out_images"] == 20 and product["rule"] == "shared-tail"
        assert product["least_rate"] == pytest.approx(1 / 41)
        for key, rate in (("anomalous", 0.05), ("uncertain", 0.1)):
            score = inspector.threshold(name, rate)
            wanted = {"rate": rate, "score": score, "guarantee": "shared tail"}
            assert product["thresholds"][key] == wanted
    assert result["history"] == [
        {
            "created": training["finished"],
            "reason": "training",
            "network": inspector.metadata.network,
            "held_out_images": 40,
        }
    ]
    assert result["calibration"]["least_rate"] == pytest.approx(1 / 41)
    assert result["plugins"] == []
    assert result["model"]["network"] == inspector.metadata.network != ""


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_file_gives_the_same(suffix: str, tmp_path: Path) -> None:
    metadata = make_metadata({"bolt": 20, "plate": 3, "naïve 名前": 0}, tile=64)
    path = WRITERS[suffix](tmp_path / f"parts{suffix}", metadata)
    result = describe(path)
    file = result.pop("file")
    kind = {".snl": "bundle", ".onnx": "onnx", ".xml": "openvino"}[suffix]
    assert (file["kind"], file["format"]) == (kind, 3)
    assert file["bytes"] == path.stat().st_size + 7 * (suffix == ".xml")
    other = describe(save_bundle(tmp_path / "other.snl", metadata))
    assert other.pop("file") and result == other
    assert result["training"]["skipped_images"] == 1 and result["calibration"]["tile"] == 64
    assert [version["reason"] for version in result["history"]] == ["training", "rates"]
    assert result["training"]["finished"] == "2026-01-02T03:04:05+00:00"


def test_the_guarantee_of_each_threshold(tmp_path: Path) -> None:
    counts = {"many": 120, "few": 30, "none": 0}  # 150 images together: rates from 1 / 151 up
    rates = Rates(anomalous=0.01, uncertain=0.05)

    def guarantees(**changes: Any) -> list[tuple[str, str]]:
        path = save_bundle(tmp_path / "a.snl", make_metadata(counts, rates=rates, **changes))
        products = describe(path)["products"]
        for product in products:
            for threshold in product["thresholds"].values():
                assert (threshold["score"] is None) == (threshold["guarantee"] == "nothing")
        return [
            (p["thresholds"]["anomalous"]["guarantee"], p["thresholds"]["uncertain"]["guarantee"])
            for p in products
        ]

    pooled = "all products"
    assert guarantees() == [("product", "product"), (pooled, "product"), (pooled, pooled)]
    tiny = Rates(anomalous=0.001, uncertain=0.001)
    strict = {"product_rates": {"few": tiny}}
    assert guarantees(**strict)[1] == ("nothing", "nothing")
    assert guarantees(**strict, fit_tail=True)[1] == ("tail fit", "tail fit")
    shared = ("shared tail", "shared tail")
    assert guarantees(rule=SHARED_TAIL) == [shared, shared, (pooled, pooled)]
    assert guarantees(product_rules={"few": SHARED_TAIL})[:2] == [("product", "product"), shared]
    few = {"rule": SHARED_TAIL, **strict}
    assert guarantees(**few)[1] == ("nothing", "nothing")
    assert guarantees(**few, fit_tail=True)[1] == ("tail fit", "tail fit")


def test_product_settings(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    rates = Rates(anomalous=0.2, uncertain=0.3)
    metadata = make_metadata(
        {"bolt": 20, "plate": 20},
        product_rates={"plate": rates},
        ignore_masks={"plate": mask},
        mm_per_pixel={"plate": 0.05},
        min_region_area={"plate": 9},
    )
    bolt, plate = describe(save_bundle(tmp_path / "a.snl", metadata))["products"]
    assert not bolt["ignore_mask"] and bolt["mm_per_pixel"] is None and bolt["min_region_area"] == 1
    assert plate["ignore_mask"] and plate["mm_per_pixel"] == 0.05 and plate["min_region_area"] == 9
    assert plate["rates"] == dataclasses.asdict(rates) and bolt["rates"]["anomalous"] == 0.05


def test_a_history_without_its_beginning_has_no_training_date(tmp_path: Path) -> None:
    metadata = make_metadata({"bolt": 20})
    metadata = dataclasses.replace(metadata, calibrations=metadata.calibrations[1:])
    assert describe(save_bundle(tmp_path / "a.snl", metadata))["training"]["finished"] is None


@pytest.mark.parametrize("suffix", WRITERS)
def test_150_products_take_well_under_a_second(suffix: str, tmp_path: Path) -> None:
    metadata = make_metadata({f"product {n:03}": 50 for n in range(150)})
    path = WRITERS[suffix](tmp_path / f"many{suffix}", metadata)
    seconds = math.inf
    for _ in range(3):
        started = time.perf_counter()
        assert len(describe(path)["products"]) == 150
        seconds = min(seconds, time.perf_counter() - started)
    assert seconds < 0.8


@pytest.mark.parametrize("suffix", WRITERS)
def test_no_runtime_is_imported(suffix: str, tmp_path: Path) -> None:
    path = WRITERS[suffix](tmp_path / f"parts{suffix}", make_metadata({"bolt": 20}))
    code = (
        "import sys\n"
        "from snl.runtime.describe import describe\n"
        "assert describe(sys.argv[1])['products'][0]['name'] == 'bolt'\n"
        "heavy = {'torch', 'timm', 'scipy', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


# --- files that cannot be read ---


@pytest.mark.parametrize("suffix", WRITERS)
def test_missing_folder_empty_or_foreign(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"parts{suffix}"
    with pytest.raises(BundleError, match="no such file"):
        describe(path)
    path.mkdir()
    with pytest.raises(BundleError, match="is a folder"):
        describe(path)
    path.rmdir()
    for content in (b"", b"text", b"<net/>", b"\xff" * 4096, b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=f"parts{suffix}") as caught:
            describe(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_truncated(suffix: str, tmp_path: Path) -> None:
    whole = WRITERS[suffix](tmp_path / f"whole{suffix}", make_metadata({"bolt": 20}))
    content = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    for size in (8, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(BundleError, match="cut"):
            describe(path)


def test_an_edited_export_description(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "a.onnx", make_metadata({"bolt": 20}))
    path.write_bytes(path.read_bytes().replace(b'"steps": 8', b'"steps": 9'))
    with pytest.raises(BundleError, match="checksum does not match"):
        describe(path)


def test_other_kinds_and_formats(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "a.snl"
    save_tensors(path, {}, "checkpoint", {})
    with pytest.raises(BundleError, match="is a checkpoint, not a bundle"):
        describe(path)
    shutil.copy(bundle, path)
    path.write_bytes(path.read_bytes().replace(rb"\"format\": 3", rb"\"format\": 9"))
    with pytest.raises(BundleError, match=r"written in format 9.*update snl"):
        describe(path)
    document, arrays = join_sections(to_sections(make_metadata({"bolt": 20})))
    document["sections"]["model"]["settings"] = {"no": "such"}
    save_tensors(path, arrays, "bundle", document)
    with pytest.raises(BundleError, match="unknown setting 'no'"):
        describe(path)
