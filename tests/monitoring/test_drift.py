"""Drift: uniform ranks, fair bets, guaranteed false-alarm rate, detection, exact saved state."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from snl.errors import SnlError
from snl.monitoring import martingale
from snl.monitoring.drift import Drift, DriftMonitor
from snl.monitoring.martingale import SHIFTS, Bag, Jumper, share_bets, shift_bets

ONE = ("score",)


def monitor_of(n: int, seed: int, **settings: Any) -> tuple[DriftMonitor, np.random.Generator]:
    """Return a monitor with n scores from N(0, 1) as baseline, and the generator they came from."""
    random = np.random.default_rng(seed)
    baseline = {"nut": random.normal(size=(n, 1))}
    return DriftMonitor(baseline, statistics=ONE, seed=seed, **settings), random


def feed(monitor: DriftMonitor, values: np.ndarray) -> int | None:
    """Return the number, from 1, of the value that raises the alarm; None without an alarm."""
    for number, value in enumerate(values.tolist(), 1):
        if monitor.update("nut", [value]).alarm:
            return number
    return None


# Ranks


def test_rank_lies_between_those_below_and_those_equal() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 5, 200).astype(float)
    bag = Bag(values[:20])
    for n, value in enumerate(values[20:], 20):
        rank = bag.rank(float(value), random)
        below, equal = np.sum(values[:n] < value), np.sum(values[:n] == value)
        assert below / (n + 1) <= rank <= (below + equal + 1) / (n + 1)
    assert list(bag.values) == sorted(values.tolist())


@pytest.mark.parametrize("levels", [None, 3])
def test_ranks_are_uniform_and_independent_for_any_distribution(levels: int | None) -> None:
    ranks = []
    for seed in range(400):
        random = np.random.default_rng(seed)
        values = random.standard_cauchy(14)
        if levels is not None:
            values = np.floor(stats.cauchy.cdf(values) * levels)  # many ties
        bag = Bag(values[:4].tolist())
        ranks.append([bag.rank(value, random) for value in values[4:].tolist()])
    table = np.array(ranks)  # (runs, 10)
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    pairs = table.reshape(-1, 2).mean(axis=1)  # of adjacent ranks, in pairs that do not overlap
    assert stats.kstest(pairs, stats.triang(0.5).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(table.T) - np.eye(10)).max() < 4.5 / math.sqrt(400)


def test_ranks_stay_uniform_when_a_full_bag_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(martingale, "CAPACITY", 20)
    ranks, drops = [], 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        bag = Bag()
        for value in random.normal(size=60).tolist():
            ranks.append(bag.rank(value, random))
            drops += len(bag.values) == 10 and len(ranks) % 60 > 20
    table = np.array(ranks).reshape(300, 60)
    assert drops > 300
    for part in (table[:, :20], table[:, 20:40], table[:, 40:]):
        assert stats.kstest(part.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(table.T) - np.eye(60)).max() < 5 / math.sqrt(300)


# Bets


def test_every_bet_is_fair_or_unfavourable() -> None:
    for bet in range(len(SHIFTS)):
        mean, _ = integrate.quad(
            lambda z, bet=bet: math.exp(shift_bets(stats.norm.cdf(z))[bet]) * stats.norm.pdf(z),
            -7,
            7,
        )
        assert mean == pytest.approx(1, abs=1e-5)
    for share in (0.01, 0.25, 0.9):
        win, loss = np.exp(share_bets(True, share)), np.exp(share_bets(False, share))
        np.testing.assert_allclose(share * win + (1 - share) * loss, 1, rtol=1e-12)
        assert np.all(win > 1)  # so a smaller probability gives a smaller mean
    assert all(math.isfinite(factor) for rank in (0.0, 1.0) for factor in shift_bets(rank))


def test_capital_equals_that_of_the_markov_chain_over_bets() -> None:
    factors = np.exp(np.random.default_rng(1).normal(size=(50, 3)))
    jumper = Jumper(3)
    capital = np.array([1.0, 0, 0, 0])  # reserve, then the three bets
    for k, won in enumerate(factors, 1):
        jumper.step(np.log(won).tolist(), k, None)
        stake = 1 - math.log(3 + k) / math.log(4 + k)
        move = np.full((4, 4), 0.01 / 3)
        move[1:, 1:] += 0.99 * np.eye(3)
        move[:, 0], move[0, :] = 0, stake / 3
        move[0, 0] = 1 - stake
        np.testing.assert_allclose(move.sum(axis=1), 1)
        capital = capital @ move * np.array([1.0, *won])
        assert jumper.log_capital == pytest.approx(math.log(capital.sum()), abs=1e-9)
        assert [jumper.reserve, *jumper.staked] == pytest.approx(capital / capital.sum(), abs=1e-9)


def test_mean_capital_is_one() -> None:
    """Importance sampling: tails are drawn more often, and runs weighted by likelihood ratios."""
    random, runs, steps = np.random.default_rng(2), 3000, 8
    normal = random.normal(scale=2, size=(runs, steps))
    weights = np.exp((stats.norm.logpdf(normal) - stats.norm.logpdf(normal, scale=2)).sum(axis=1))
    capital = []
    for row in stats.norm.cdf(normal).tolist():
        jumper = Jumper(len(SHIFTS))
        for number, rank in enumerate(row, 1):
            jumper.step(shift_bets(rank), number, None)
        capital.append(math.exp(jumper.log_capital))
    worth = weights * (np.array(capital) - 1)
    assert abs(worth.mean()) < 4 * worth.std() / math.sqrt(runs)
    assert worth.std() / math.sqrt(runs) < 0.05


def test_change_point_is_the_last_minimum() -> None:
    random = np.random.default_rng(3)
    won = random.normal(-0.1, 1, 200)
    won[150:] += 0.6
    jumper = Jumper(1)
    for number, value in enumerate(won.tolist(), 1):
        jumper.step([value], number, f"at {number}")
    before = int(np.argmin(np.concatenate([[0], np.cumsum(won)])))  # images before the rise
    assert jumper.change([0]) == (before + 1, f"at {before + 1}")


# False alarms


def test_false_alarm_rate_is_at_most_the_stated_one() -> None:
    """200 streams of 2000 images, with ties and 25 % rejected: the limits of both assumptions."""
    stated, runs, alarms = 0.1, 200, 0
    for seed in range(runs):
        random = np.random.default_rng(seed)
        baseline = {"nut": random.gumbel(size=(20, 1)).round(2)}
        monitor = DriftMonitor(baseline, statistics=ONE, false_alarm=stated, seed=seed)
        values, rejected = random.gumbel(size=2000).round(2), random.random(2000) < 0.25
        for value, reject in zip(values.tolist(), rejected.tolist(), strict=True):
            last = monitor.update("nut", [value], rejected=reject)
        alarms += last.alarm
    assert alarms <= stated * runs  # in fact fewer: Ville's bound is not tight


def test_ten_long_quiet_streams_raise_no_alarm() -> None:
    """The guarantee allows an alarm in ten streams with a probability of 10 %; seeds are fixed."""
    for seed in range(10):
        monitor, random = monitor_of(50, seed)
        assert feed(monitor, random.normal(size=10_000)) is None
        assert monitor.status()["nut"].images == 10_000


def test_truncation_by_thresholds_of_the_same_calibration_is_no_drift() -> None:
    """Baseline strictly below its 90 % threshold; images above the same threshold are rejected."""
    alarms = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        scores = np.sort(random.normal(size=50))
        limit = float(scores[45])
        monitor = DriftMonitor({"nut": scores[:45, None]}, statistics=ONE, false_alarm=0.1)
        for value in random.normal(size=1000).tolist():
            last = monitor.update("nut", [value], rejected=value > limit)
        alarms += last.alarm
    assert alarms <= 13 and stats.binom.sf(13, 60, 0.1) < 0.01


def test_rejected_defects_are_no_drift() -> None:
    monitor, random = monitor_of(50, 4)
    for number in range(5000):
        defect = number % 20 == 0
        last = monitor.update("nut", [random.normal() + 8 * defect], rejected=defect)
    assert not last.alarm and last.evidence < 1


# Detection


@pytest.mark.parametrize(
    ("quiet", "shift", "within", "seeds"),
    [
        (100, 2, 25, 12),
        (100, -2, 25, 12),
        (100, 1, 100, 12),
        (100, -1, 100, 12),
        (10_000, 2, 30, 2),
        (10_000, -2, 30, 2),
        (10_000, 1, 120, 2),
        (10_000, -1, 120, 2),
    ],
)
def test_shifts_are_detected_quickly_and_dated(
    quiet: int, shift: int, within: int, seeds: int
) -> None:
    errors = []
    for seed in range(seeds):
        monitor, random = monitor_of(100, seed)
        assert feed(monitor, random.normal(size=quiet)) is None
        assert feed(monitor, random.normal(shift, size=within)) is not None
        last = monitor.status()["nut"]
        assert last.since is not None and last.reason is not None
        assert ("higher" if shift > 0 else "lower") + " than at calibration" in last.reason
        errors.append(abs(last.since - (quiet + 1)))
    assert np.median(errors) <= 10


def test_small_baselines_detect_large_shifts_and_empty_ones_changes_within_the_stream() -> None:
    monitor, random = monitor_of(20, 5)
    assert (feed(monitor, random.normal(3, size=60)) or 99) <= 60
    monitor = DriftMonitor({}, statistics=ONE)
    assert feed(monitor, random.normal(3, size=500)) is None  # one distribution, no reference
    assert (feed(monitor, random.normal(0, size=40)) or 99) <= 40
    last = monitor.status()["nut"]
    assert last.reason == "scores are lower than earlier" and abs((last.since or 0) - 501) <= 3


def test_all_images_rejected_is_detected_and_dated() -> None:
    monitor, random = monitor_of(50, 6)
    for number in range(2000):
        monitor.update("nut", [random.normal()], rejected=number % 20 == 0, when=f"t{number + 1}")
    for number in range(2001, 2021):
        last = monitor.update("nut", [9.0], rejected=True, when=f"t{number}")
    assert last.alarm and last.reason == "more images are rejected than 25 %"
    assert last.since == 2001 and last.since_when == "t2001"


def test_each_statistic_and_product_is_monitored_and_an_alarm_stays_until_reset() -> None:
    random = np.random.default_rng(7)
    monitor = DriftMonitor({name: random.normal(size=(60, 2)) for name in ("nut", "tile")})
    for _ in range(60):
        monitor.update("nut", [random.normal(), random.normal() - 3])
        monitor.update("tile", random.normal(size=2).tolist())
    status = monitor.status()
    assert status["nut"].alarm and status["nut"].evidence >= 1 and not status["tile"].alarm
    assert status["nut"].reason == (
        "images look different (distance to the product's prototypes is lower than at calibration)"
    )
    for _ in range(300):
        monitor.update("nut", random.normal(size=2).tolist())
    assert monitor.status()["nut"].since == status["nut"].since
    monitor.reset("nut")
    assert monitor.status()["nut"] == Drift(
        "nut", False, None, None, None, 0, pytest.approx(0.01 / 3)
    )
    assert monitor.status()["tile"] == status["tile"]
    monitor.reset()
    assert monitor.status()["tile"].images == 0
    with pytest.raises(
        SnlError, match="bolt: no such product in the drift monitor; it has: nut, tile"
    ):
        monitor.reset("bolt")


# Saved state


def test_a_saved_monitor_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        martingale, "CAPACITY", 100
    )  # the reduction of full bags must be the same too
    random = np.random.default_rng(8)
    values = random.normal(size=(600, 2)).round(1)
    values[450:] += 1.5

    def run(break_at: tuple[int, ...]) -> tuple[list[Drift], dict[str, Any]]:
        monitor, seen = DriftMonitor({"nut": values[:30]}, seed=3), []
        for number, row in enumerate(values[30:].tolist()):
            if number in break_at:
                monitor.save(tmp_path / "drift.json")
                monitor = DriftMonitor.load(tmp_path / "drift.json")
            product, rejected = ("nut", "new")[number % 3 == 0], number % 7 == 0
            seen.append(monitor.update(product, row, rejected=rejected, when=f"{number} h"))
        return seen, monitor.to_dict()

    uninterrupted = run(())
    statuses, state = uninterrupted
    assert statuses[-1].alarm
    assert run((0, 100, 101, 440, 560)) == uninterrupted
    assert DriftMonitor.from_dict(json.loads(json.dumps(state))).to_dict() == state


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets one value of a state; KeyError as value: deletes its key."""

    def apply(state: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        target: Any = state
        for key in parents:
            target = target[int(key) if isinstance(target, list) else key]
        if value is KeyError:
            del target[last]
        else:
            target[int(last) if isinstance(target, list) else last] = value

    return apply


def monitor_with_alarm() -> DriftMonitor:
    monitor, random = monitor_of(5, 9)
    feed(monitor, random.normal(size=20))
    feed(monitor, random.normal(9, size=60))
    return monitor


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "bundle"),
        ("kind", KeyError),
        ("format", 0.5),
        ("format", 3),
        ("statistics", "score"),
        ("statistics", []),
        ("false_alarm", 2),
        ("rejected", math.nan),
        ("seed", -1),
        ("seed", True),
        ("products", []),
        ("products/nut", 3),
        ("products/nut/baseline", [[1.0, 2.0]]),
        ("products/nut/baseline/0/0", math.nan),
        ("products/nut/images", "80"),
        ("products/nut/images", 3),
        ("products/nut/random", "xyz"),
        ("products/nut/random", "f" * 40),
        ("products/nut/random", None),
        ("products/nut/bags", [[], []]),
        ("products/nut/bags/0/0", math.inf),
        ("products/nut/bags/0/0", 10**400),
        ("products/nut/bags/0/0", 99.0),
        ("products/nut/bags/0/0", None),
        ("products/nut/tests", []),
        ("products/nut/tests/0", []),
        ("products/nut/tests/0/staked/2", -0.5),
        ("products/nut/tests/0/reserve", 0.99),
        ("products/nut/tests/0/rise", [0.0]),
        ("products/nut/tests/0/start/0", 10**6),
        ("products/nut/tests/0/start_when/0", 5),
        ("products/nut/tests/0/log_peak", -1.0),
        ("products/nut/tests/1/log_capital", KeyError),
        ("products/nut/alarm", True),
        ("products/nut/alarm", [1, None, None]),
        ("products/nut/alarm", KeyError),
    ],
)
def test_damaged_states_are_refused_in_one_line(path: str, value: Any, tmp_path: Path) -> None:
    state = monitor_with_alarm().to_dict()
    change(path, value)(state)
    with pytest.raises(SnlError) as caught:
        DriftMonitor.from_dict(state)
    assert "\n" not in str(caught.value)
    file = tmp_path / "drift.json"
    file.write_text(json.dumps(state))
    with pytest.raises(SnlError) as caught:
        DriftMonitor.load(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_foreign_truncated_and_newer_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "drift.json"
    monitor = monitor_with_alarm()
    monitor.save(file)
    text = file.read_text()
    assert DriftMonitor.load(file).status() == monitor.status()
    images = monitor.status()["nut"].images
    damaged = text.replace(f'"images": {images}', f'"images": {images + 1}', 1)
    assert damaged != text
    for content, reason in [
        (text[: len(text) // 2], "truncated"),
        ("", "truncated"),
        ("[" * 100_000, "truncated"),
        ("[1, 2]", "not a JSON object"),
        ('{"a": 1}', "not written by a drift monitor"),
        (damaged, "checksum"),
        (text.replace('"format": 2', '"format": 3'), "update snl"),
    ]:
        file.write_text(content)
        with pytest.raises(SnlError, match=reason):
            DriftMonitor.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    for path in (file, tmp_path, tmp_path / "none.json"):
        with pytest.raises(SnlError):
            DriftMonitor.load(path)
    with pytest.raises(SnlError, match="cannot be written"):
        monitor.save(file / "below")


# Invalid arguments


@pytest.mark.parametrize(
    "values", [[math.nan], [math.inf], [], [1.0, 2.0], [None], ["a"], 3, [[1.0]]]
)
def test_values_that_are_not_finite_numbers_change_nothing(values: Any) -> None:
    monitor = monitor_with_alarm()
    before = monitor.to_dict()
    for product in ("nut", "new"):
        with pytest.raises(SnlError, match="give one finite number each for score") as caught:
            monitor.update(product, values)
        assert "\n" not in str(caught.value)
    assert monitor.to_dict() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"false_alarm": 0},
        {"false_alarm": math.nan},
        {"rejected": 1},
        {"statistics": ()},
        {"statistics": ("a", "a")},
        {"statistics": "score"},
        {"seed": -1},
        {"baseline": {"nut": np.zeros(3)}},
        {"baseline": {"nut": np.full((3, 2), np.nan)}},
        {"baseline": {"nut": [["a", "b"]]}},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SnlError):
        DriftMonitor(**{"baseline": {}, **settings})


# --- few images ---


@pytest.mark.parametrize("images", [0, 1, 5, 14])
def test_few_baseline_images_are_no_evidence(images: int) -> None:
    """A stream far above a handful of held-out images is not called drift: they may be unlike it,
    as images of the same minute as the training images are."""
    alarms = 0
    for seed in range(40):
        random = np.random.default_rng([seed, images])
        monitor = DriftMonitor({"nut": random.normal(size=(images, 1))}, statistics=["score"])
        values = random.normal(3.0, 1.0, size=300)
        alarms += any(monitor.update("nut", [value]).alarm for value in values.tolist())
    assert alarms <= 2  # the old monitor: 40 with 14 images
    assert monitor.uncompared == ["nut"]
    assert len(monitor.baseline["nut"]) == images  # kept, so that a state can be recognised


def test_few_baseline_images_still_detect_a_change_within_the_stream() -> None:
    random = np.random.default_rng(3)
    monitor = DriftMonitor({"nut": random.normal(size=(5, 1))}, statistics=["score"])
    for value in random.normal(3.0, 1.0, size=100).tolist():
        assert not monitor.update("nut", [value]).alarm
    for value in random.normal(5.0, 1.0, size=40).tolist():
        drift = monitor.update("nut", [value])
        if drift.alarm:
            break
    assert drift.alarm and drift.images < 125
    assert drift.reason == "scores are higher than earlier" and abs((drift.since or 0) - 101) < 10


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_without_baseline_a_constant_share_of_rejections_is_no_drift(share: float) -> None:
    """Few images may have set the threshold far too low by chance."""
    alarms = 0
    for seed in range(40):
        random = np.random.default_rng([seed, 5])
        monitor = DriftMonitor({"nut": random.normal(size=(5, 1))}, statistics=["score"])
        for value, rejected in zip(
            random.normal(size=300).tolist(), random.random(300) < share, strict=True
        ):
            last = monitor.update("nut", [value], rejected=bool(rejected))
        alarms += last.alarm
    assert alarms <= 2


def test_without_baseline_more_rejections_than_earlier_are_drift(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    monitor = DriftMonitor({"nut": np.empty((0, 1))}, statistics=["score"])
    for number, value in enumerate(random.normal(size=100).tolist()):
        assert not monitor.update("nut", [value], rejected=number % 10 == 0).alarm
    monitor.save(tmp_path / "drift.json")
    monitor = DriftMonitor.load(tmp_path / "drift.json")
    for _ in range(30):
        drift = monitor.update("nut", [0.0], rejected=True)
    assert drift.alarm and drift.reason == "more images are rejected than earlier"


def test_own_share_of_rejections_is_saved() -> None:
    baseline = {"nut": np.random.default_rng(0).normal(size=(30, 2))}
    monitor = DriftMonitor(baseline, own_share=["nut"])
    copy = DriftMonitor.from_dict(monitor.to_dict())
    for each in (monitor, copy):
        for _ in range(30):
            assert not each.update("nut", [0.0, 0.0], rejected=True).alarm
    assert not monitor.uncompared and monitor.to_dict() == copy.to_dict()
    old = monitor.to_dict() | {"format": 1}
    for product in old["products"].values():
        del product["own_share"], product["rejections"]
    assert DriftMonitor.from_dict(old).status() == monitor.status()


def test_a_pipe_is_no_drift_state(tmp_path: Path) -> None:
    """Reading it would wait forever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SnlError, match="not a regular file"):
        DriftMonitor.load(tmp_path / "pipe")
