"""The drift monitor of an inspector: its baseline, rejected images, and changes in real images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import snl
from snl.cli.main import main
from snl.data.records import Record
from snl.decision.calibration import CONFORMAL, Calibration, CalibrationSet, Rates
from snl.decision.products import Prototypes
from snl.decision.sample import PEAKS
from snl.errors import SnlError
from snl.monitoring import baseline as monitor
from snl.monitoring.drift import DriftMonitor
from snl.runtime.recalibrate import add_normals
from tests.trees import PRODUCTS, draw, save_part

Change = Callable[[np.ndarray], np.ndarray]


def random_calibration(
    seed: int, counts: dict[str, int], rates: Rates | None = None
) -> Calibration:
    """Return a calibration with random values: `counts` calibration images by product."""
    rng = np.random.default_rng(seed)
    normals = {
        name: CalibrationSet(
            rng.lognormal(size=n).astype(np.float32),
            rng.lognormal(size=n).astype(np.float32),
            np.zeros((n, PEAKS), np.float32),
            rng.integers(0, 2**63, n).astype(np.uint64),
        )
        for name, n in counts.items()
    }
    return Calibration(
        normals,
        {name: (0.02 * i, 1.1) for i, name in enumerate(counts)},
        Prototypes(np.zeros((len(counts), 1), np.float32), tuple(counts)),
        rates=rates or Rates(),
        rule=CONFORMAL,
    )


@pytest.fixture(scope="module")
def inspector(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> snl.Inspector:
    """An inspector with 40 more calibration images per product; tests must not change it."""
    inspector = snl.load(bundle, "cpu")
    folder = tmp_path_factory.mktemp("normals")
    records = []
    for product in PRODUCTS:
        for n in range(40):
            save_part(folder / product / f"{n}.png", 1000 + n, product=product)
            records.append(Record(folder / product / f"{n}.png", product, "test", "normal"))
    calibration, _ = add_normals(inspector, inspector.calibration, records, add=True)
    inspector.recalibrate(calibration)
    return inspector


def count_accepted(state: DriftMonitor, product: str) -> int:
    """Return the number of images after the baseline that were not rejected."""
    content = state.to_dict()["products"][product]
    return len(content["bags"][0]) - len(content["baseline"])


@pytest.mark.parametrize("seed", range(20))
def test_baseline_contains_values_strictly_below_the_thresholds(seed: int) -> None:
    calibration = random_calibration(seed, {"many": 150, "medium": 100, "few": 5})
    baselines = monitor.baseline(calibration)
    allowed = 256 // 100  # number of the 255 images that may be unknown at a rate of 1 %
    relative = [  # to the median of the other images of the product
        d / np.median(np.delete(n.distances.astype(np.float64), i))
        for n in calibration.sets.values()
        for i, d in enumerate(n.distances.astype(np.float64))
    ]
    limit_of_all = np.sort(relative)[-allowed]
    for product, at_threshold in (("many", 7), ("medium", 5)):
        normals = calibration.sets[product]
        limit = np.sort(normals.scores)[-at_threshold]  # at_threshold is floor(0.05 (n + 1))
        expected = [
            (score, distance)
            for score, distance in zip(normals.scores, normals.distances, strict=True)
            if score < limit and distance <= limit_of_all * np.median(normals.distances)
        ]
        np.testing.assert_array_equal(baselines[product], np.array(expected, np.float64))


def test_the_image_that_sets_the_pooled_threshold_is_left_out() -> None:
    count = 0
    for seed in range(100):
        calibration = random_calibration(seed, {"one": 12, "two": 12}, Rates(0.04, 0.1))
        for product, normals in calibration.sets.items():
            limit, basis = calibration.scores.threshold(0.04, product)
            assert limit is not None and basis == "all products"
            highest = float(normals.scores.max())
            if abs(highest / limit - 1) < 1e-9:
                count += 1
                assert highest not in monitor.baseline(calibration)[product][:, 0]
    assert count >= 100  # in each of the 100 calibrations one image sets the threshold


def test_without_thresholds_all_calibration_images_are_baseline() -> None:
    calibration = random_calibration(0, {"one": 2, "two": 0})
    assert {k: len(v) for k, v in monitor.baseline(calibration).items()} == {"one": 2, "two": 0}


def test_resume_continues_and_refuses_another_calibration(tmp_path: Path) -> None:
    calibration = random_calibration(1, {"one": 30, "two": 30})
    started = monitor.start(calibration)
    started.update("one", (1.0, 1.0))
    started.save(tmp_path / "state.json")
    assert monitor.resume(tmp_path / "state.json", calibration).to_dict() == started.to_dict()
    others = [
        random_calibration(2, {"one": 30, "two": 30}),
        random_calibration(1, {"one": 30}),
        random_calibration(1, {"one": 30, "two": 30}, Rates(anomalous=0.1)),
        random_calibration(1, {"one": 30, "other": 30}),
    ]
    for other in others:
        with pytest.raises(
            SnlError,
            match=r"state\.json: belongs to another bundle or calibration.*give another file",
        ) as caught:
            monitor.resume(tmp_path / "state.json", other)
        assert "\n" not in str(caught.value)


def test_rejected_images_are_counted_but_not_compared(inspector: snl.Inspector) -> None:
    state = monitor.start(inspector.calibration)
    results = inspector.inspect([draw(2000 + n, defect=n % 2 > 0)[0] for n in range(8)])
    results += inspector.inspect([np.zeros((40, 48, 3), np.uint8)])  # a black image: no product
    assert results[-1].decision == "unknown product"
    rejected = [result.decision in ("anomalous", "unknown product") for result in results]
    assert sum(rejected) >= 5
    for result in results:
        monitor.watch(state, inspector.calibration, result)
    counts = state.status()
    assert sum(drift.images for drift in counts.values()) == len(results)
    accepted = sum(count_accepted(state, product) for product in PRODUCTS)
    assert accepted == len(results) - sum(rejected)


def test_rates_of_a_single_run_do_not_change_which_images_count_as_rejected(
    inspector: snl.Inspector,
) -> None:
    images = [draw(3000 + n)[0] for n in range(12)]
    states = []
    for rate in (None, 0.5):
        states.append(monitor.start(inspector.calibration))
        results = inspector.inspect(images, "bolt", rate=rate)
        for result in results:
            monitor.watch(states[-1], inspector.calibration, result)
    assert sum(result.decision == "anomalous" for result in results) >= 3
    assert states[0].to_dict() == states[1].to_dict()


QUIET, CHANGED = 30, 20


def monitored(inspector: snl.Inspector, change: Change | None) -> DriftMonitor:
    """Return a monitor after QUIET normal and CHANGED changed images, or after 200 normal ones."""
    state = monitor.start(inspector.calibration)
    for n in range(QUIET + CHANGED if change else 200):
        image = draw(5000 + n)[0]
        result = inspector.inspect(change(image) if change and n >= QUIET else image, "bolt")
        drift = monitor.watch(state, inspector.calibration, result, str(n))
        assert n >= QUIET or not drift.alarm
    return state


CHANGES: dict[str, Change] = {
    "darker": lambda image: (image * 0.8).astype(np.uint8),
    "brighter": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "blurred": lambda image: ndimage.gaussian_filter(image, (1, 1, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_detected_and_dated(inspector: snl.Inspector, change: str) -> None:
    drift = monitored(inspector, CHANGES[change]).status()["bolt"]
    assert drift.alarm and drift.reason
    assert drift.since_when is not None and abs(int(drift.since_when) - QUIET) <= 5


def test_images_of_the_same_distribution_raise_no_alarm(inspector: snl.Inspector) -> None:
    status = monitored(inspector, None).status()
    assert not any(drift.alarm for drift in status.values())
    assert status["bolt"].images == 200


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of twelve images, bolts and plates alternating; the last six are darker."""
    folder = tmp_path_factory.mktemp("stream")
    paths = []
    for n in range(12):
        image = draw(7000 + n, product=PRODUCTS[n % 2])[0]
        paths.append(str(folder / f"{n:02}.png"))
        Image.fromarray(image if n < 6 else CHANGES["darker"](image)).save(paths[-1])
    return paths


def test_two_runs_of_inspect_equal_one_run(bundle: Path, stream: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"  # state after one run, after two runs
    quiet = ["--device", "cpu", "--json", str(tmp_path / "lines.jsonl"), "--quiet"]
    assert main(["inspect", str(bundle), *stream, "--monitor", str(one), *quiet]) == 0
    lines = (tmp_path / "lines.jsonl").read_text().splitlines()
    for part in (stream[:5], stream[5:]):
        # a different rate in a run does not change the monitor
        rate = ["--rate", "0.4"]
        assert main(["inspect", str(bundle), *part, "--monitor", str(two), *rate, *quiet]) == 0
    assert one.read_text() == two.read_text()
    again = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert [json.loads(x)["drift"] for x in again] == [json.loads(x)["drift"] for x in lines[5:]]
    counts = {name: drift.images for name, drift in DriftMonitor.load(one).status().items()}
    assert sum(counts.values()) == len(stream)


def test_damaged_and_foreign_states_are_refused_in_one_line(
    bundle: Path, stream: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state.json"
    command = ["inspect", str(bundle), stream[0], "--monitor", str(state), "--device", "cpu"]
    assert main(command) == 0
    whole = state.read_text()
    other = tmp_path / "other.json"
    monitor.start(random_calibration(0, {"bolt": 3})).save(other)
    for content in ("", whole[:-30], whole.replace('"images": 1', '"images": 2'), "[]",
                    other.read_text()):  # fmt: skip
        state.write_text(content)
        capsys.readouterr()
        assert main(command) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and len(printed.err.splitlines()) == 1
        assert str(state) in printed.err
        assert state.read_text() == content  # unchanged


def test_rejections_are_compared_with_the_limit_only_where_calibration_images_show_it() -> None:
    """Independent reference: scipy's beta distribution of the share above an order statistic."""
    from scipy.stats import beta

    from snl.monitoring.baseline import REJECTED, _rejects_few

    for images in (5, 10, 19, 20, 50, 200):
        for accepted in range(max(images // 2, 1), images):
            k = images - accepted  # the threshold is the k-th largest value
            exceeds = beta.sf(REJECTED, k, images - k + 1)
            assert _rejects_few(images, accepted, 0.01) == (exceeds <= 0.01 / 3)
    assert _rejects_few(20, 19, 0.01) and not _rejects_few(5, 4, 0.01)


def test_the_command_says_which_products_have_too_few_images(
    bundle: Path, stream: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", str(bundle), *stream[:1], "--monitor", str(tmp_path / "d.json"), "--quiet"]
    assert main(words) == 0
    text = capsys.readouterr().err
    assert "fewer than 15 usable held-out images" in text and "--add" in text
