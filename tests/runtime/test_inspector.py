"""The API a user meets, and bundles that were tampered with."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import snl
from snl.decision.calibration import Rates
from snl.decision.decide import decision_at
from snl.errors import BundleError, ImageError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.runtime.engine import Outputs
from tests.trees import draw, draw_varied


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> snl.Inspector:
    return snl.load(bundle, device="cpu")


@pytest.fixture(scope="module")
def image(parts: Path) -> Path:
    return parts / "bolt" / "test" / "dent" / "000.png"


def test_path_text_pil_and_array_give_the_same(inspector: snl.Inspector, image: Path) -> None:
    array = np.asarray(Image.open(image).convert("RGB"))
    sources = [image, str(image), Image.open(image), array]
    results = [inspector.inspect(source) for source in sources]
    for result in results:
        assert result.score == results[0].score
        np.testing.assert_array_equal(result.anomaly_map, results[0].anomaly_map)
    assert [r.path for r in results] == [str(image), str(image), None, None]


def test_list_gives_a_list_in_order(inspector: snl.Inspector) -> None:
    images = [draw(seed)[0] for seed in range(11)]
    together = inspector.inspect(images)
    for one, many in zip((inspector.inspect(i) for i in images), together, strict=True):
        assert many.score == pytest.approx(one.score, rel=1e-5)
        np.testing.assert_allclose(many.anomaly_map, one.anomaly_map, rtol=1e-4, atol=1e-5)
    assert inspector.inspect([]) == []


def test_map_has_the_size_of_the_image_and_is_raw(inspector: snl.Inspector) -> None:
    for shape in ((40, 48, 3), (300, 20, 3), (7, 5, 3), (64, 64, 3)):
        result = inspector.inspect(np.full(shape, 90, np.uint8))
        assert result.anomaly_map.shape == shape[:2]
        assert result.anomaly_map.dtype == np.float32
        assert result.anomaly_map.max() <= result.score + 1e-5
        assert isinstance(result.score, float)


def test_grey_and_rgb_of_the_same_image_agree(inspector: snl.Inspector) -> None:
    grey = draw(3)[0][:, :, 0]
    rgb = np.repeat(grey[:, :, None], 3, 2)
    assert inspector.inspect(grey).score == inspector.inspect(rgb).score


@pytest.mark.parametrize(("height", "width"), [(40, 48), (480, 200), (64, 64), (31, 517)])
def test_map_lies_on_the_image(bundle: Path, height: int, width: int) -> None:
    """What the network sees at a place of its input comes out at that place of the image."""
    inspector = snl.load(bundle, device="cpu")
    planted = np.zeros((1, 64, 64), np.float32)
    planted[0, 15:17, 47:49] = 1.0  # around (x, y) = (48, 16) of 64: three quarters, one quarter
    embedding = inspector.calibration.prototypes.centres[:1]
    inspector.predictor.predict = lambda pixels: Outputs(  # type: ignore[method-assign]
        planted, np.ones(1, np.float32), embedding
    )
    result = inspector.inspect(np.zeros((height, width, 3), np.uint8))
    ys, xs = np.mgrid[:height, :width] + 0.5
    mass = result.anomaly_map.sum()
    assert (result.anomaly_map * xs).sum() / mass == pytest.approx(0.75 * width, abs=0.6)
    assert (result.anomaly_map * ys).sum() / mass == pytest.approx(0.25 * height, abs=0.6)


def test_decision_follows_the_threshold(calibrated: Path) -> None:
    inspector = snl.load(calibrated, device="cpu")
    limit, uncertain = inspector.threshold("bolt"), inspector.threshold("bolt", rate=0.1)
    assert limit is not None and uncertain is not None and uncertain < limit
    images = [draw_varied(seed)[0] for seed in range(3000, 3060)]
    images += [draw_varied(seed, defect=True)[0] for seed in range(3100, 3110)]
    told = set()
    for result in inspector.inspect(images, product="bolt"):
        assert (result.threshold, result.uncertain_threshold) == (limit, uncertain)
        assert result.threshold_from == "product" and result.product_from == "given"
        wanted = "anomalous" if result.score > limit else "normal"
        if uncertain < result.score <= limit:
            wanted = "uncertain"
        assert result.decision == wanted
        told.add(wanted)
    assert told == {"normal", "uncertain", "anomalous"}


def test_where_nothing_can_be_promised_decisions_are_uncertain(
    inspector: snl.Inspector, image: Path
) -> None:
    """Two held-out images per product allow a third each, a fifth together, and no less."""
    assert inspector.threshold("bolt") is None
    result = inspector.inspect(image, product="bolt")
    assert (result.decision, result.threshold) == ("uncertain", None)
    assert inspector.inspect(image, product="bolt", rate=0.34).threshold_from == "product"
    assert inspector.inspect(image, product="bolt", rate=0.2).threshold_from == "all products"
    with pytest.raises(SettingsError, match=r"rate of 0\.19 needs 5 held-out normal images"):
        inspector.inspect(image, product="bolt", rate=0.19)
    rates = Rates(0.05, 0.1)
    assert (
        decision_at(0.051, rates, 1.0) == "uncertain"
        and decision_at(0.05, rates, 1.0) == "anomalous"
    )
    assert decision_at(0.101, rates, 1.0) == "normal"
    assert decision_at(0.001, rates, None) == decision_at(None, rates, None) == "uncertain"


def test_threshold_of_a_product(inspector: snl.Inspector, image: Path) -> None:
    assert set(inspector.products) == {"bolt", "plate"}
    assert inspector.inspect(image, product="bolt").product == "bolt"
    with pytest.raises(
        SettingsError, match=r"'nut' is not known to this inspector; known: bolt, plate"
    ):
        inspector.inspect(image, product="nut")
    for rate in (0, 1, -1, 2, float("nan")):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            inspector.inspect(image, rate=rate)


def test_bad_images_are_told(inspector: snl.Inspector, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    for bad in (
        tmp_path / "missing.png",
        tmp_path / "empty.png",
        tmp_path,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ):
        with pytest.raises(ImageError):
            inspector.inspect(bad)  # type: ignore[arg-type]


def test_result_is_plain_and_frozen(inspector: snl.Inspector, image: Path) -> None:
    result = inspector.inspect(image)
    with pytest.raises(FrozenInstanceError):
        result.score = 0.0  # type: ignore[misc]
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["width"] == 48 and record["height"] == 40
    assert "anomaly_map" not in repr(result)


def test_saved_again_it_is_the_same(inspector: snl.Inspector, image: Path, tmp_path: Path) -> None:
    inspector.save(tmp_path / "again.snl")
    again = snl.load(tmp_path / "again.snl", device="cpu")
    assert again.network.settings == inspector.network.settings
    assert again.training.facts == inspector.training.facts
    assert again.threshold("bolt", rate=0.4) == inspector.threshold("bolt", rate=0.4)
    left, right = inspector.inspect(image), again.inspect(image)
    np.testing.assert_array_equal(left.anomaly_map, right.anomaly_map)
    for name, value in inspector.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])


def test_bundle_says_everything_needed(bundle: Path) -> None:
    _, document = load_tensors(bundle, "bundle")
    model, training = document["sections"]["model"], document["sections"]["training"]
    assert training["products"] == {"bolt": 2, "plate": 2}
    assert model["preprocessing"]["mean"] and model["preprocessing"]["image_size"] == 64
    assert model["settings"]["teacher"]["stages"] == [1, 2]
    assert len(training["data"]["fingerprint"]) == 64
    needed = {"seconds", "device", "versions", "loss", "terms", "precision", "threads"}
    assert needed <= training["facts"].keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda a, f: f["model"]["settings"].pop("teacher") and a.popitem(),
        lambda a, f: f["model"]["settings"]["teacher"].update(name="no_such_network"),
        lambda a, f: f["model"]["settings"]["teacher"].update(name="hf-hub:someone/network"),
        lambda a, f: f["model"]["settings"]["teacher"].update(name="resnet18"),
        lambda a, f: f["model"]["settings"]["cram"].update(centres=7),
        lambda a, f: f["model"]["settings"].update(image_size="large"),
        lambda a, f: f["model"]["settings"].update(image_size=10**9),
        lambda a, f: f["model"]["settings"].update(unknown=1),
        lambda a, f: f["model"].update(settings=None),
        lambda a, f: f["model"].update(network="0" * 16),
        lambda a, f: f["model"].update(plugins=[{"name": "a"}]),
        lambda a, f: f["calibration"]["versions"][0].update(map_range=["a", "b"]),
        lambda a, f: f["calibration"]["versions"][0].update(map_range=[1]),
        lambda a, f: f["training"].update(products=3),
        lambda a, f: f["calibration"].update(versions=["x", "y", "z"]),
        lambda a, f: f["model"].pop("preprocessing"),
        lambda a, f: f["model"]["preprocessing"].update(mean=[0.5]),
        lambda a, f: f["model"]["preprocessing"].update(mean="dark"),
        lambda a, f: f.pop("training"),
        lambda a, f: a.update({"alone": np.zeros(3, np.float32)}),
        lambda a, f: a.pop(next(n for n in a if n.startswith("network/student."))),
        lambda a, f: a.update({"network/student.extra": np.zeros(3, np.float32)}),
    ],
)
def test_tampered_description_is_told(bundle: Path, tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    arrays, document = load_tensors(bundle, "bundle")
    change(arrays, document["sections"])
    bad = tmp_path / "bad.snl"
    save_tensors(bad, arrays, "bundle", document)  # checksum right, contents wrong
    with pytest.raises(BundleError, match=r"bad\.snl") as caught:
        snl.load(bad)
    assert "\n" not in str(caught.value)


def test_public_names_load_late() -> None:
    import subprocess
    import sys

    code = (
        "import sys, snl; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules); "
        "snl.Settings; assert 'torch' not in sys.modules; snl.Catalog; "
        "assert 'torch' not in sys.modules; print(sorted(snl.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in json.loads(done.stdout.replace("'", '"')):
        assert getattr(snl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        snl.nothing  # noqa: B018


def test_a_threshold_needs_a_product_where_there_are_several(inspector: snl.Inspector) -> None:
    with pytest.raises(SettingsError, match="give one of the products bolt, plate"):
        inspector.threshold(rate=0.4)
    calibration = inspector.calibration
    one = dataclasses.replace(
        calibration,
        sets={"bolt": calibration.sets["bolt"]},
        log_score_stats={"bolt": calibration.log_score_stats["bolt"]},
    )
    alone = snl.Inspector(inspector.predictor, [one])
    assert alone.threshold(rate=0.4) == alone.threshold("bolt", rate=0.4) is not None


def test_any_iterable_of_images_is_taken(inspector: snl.Inspector, image: Path) -> None:
    array = np.asarray(Image.open(image).convert("RGB"))
    expected = inspector.inspect(array).score
    many = (array for _ in range(3)), iter([image, image]), (image,), {image}
    for sources, count in zip(many, (3, 2, 1, 1), strict=True):
        results = inspector.inspect(sources)
        assert isinstance(results, list)
        assert [result.score for result in results] == pytest.approx([expected] * count)
    streamed = list(inspector.stream(draw(seed)[0] for seed in range(10)))
    assert len(streamed) == 10


def test_the_map_at_the_size_of_the_image_is_computed_on_access(inspector: snl.Inspector) -> None:
    result = inspector.inspect(np.full((300, 400, 3), 90, np.uint8))
    assert result.prediction.anomaly_map.shape == (64, 64)
    result.to_dict()
    assert "anomaly_map" not in vars(result)
    assert result.anomaly_map.shape == (300, 400) and "anomaly_map" in vars(result)


def test_one_network_serves_many_threads(inspector: snl.Inspector, bundle: Path) -> None:
    images = [draw(seed)[0] for seed in range(32)]
    for threads in (0, 1, 2):
        shared = snl.load(bundle, "cpu", threads)
        expected = [shared.inspect(image).score for image in images]
        before = torch.get_num_threads()
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(shared.inspect, images * 3))
        assert [result.score for result in results] == expected * 3
        assert torch.get_num_threads() == before


def test_a_closed_inspector_has_given_its_network_back(bundle: Path) -> None:
    inspector = snl.load(bundle, "cpu")
    inspector.close()
    with pytest.raises(SettingsError, match="no network"):
        _ = inspector.network
