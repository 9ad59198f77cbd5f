"""The speed table of `snl bench inference`."""

from __future__ import annotations

from pathlib import Path

import pytest

from snl.bench import inference
from snl.bench.inference import Speed, format_speeds, measure


def figures(speed: Speed) -> tuple[float, float]:
    return speed.milliseconds, 1000 * speed.batch / speed.milliseconds


def test_the_table_names_the_settings_of_lowest_latency_and_highest_throughput() -> None:
    speeds = [
        Speed("fp32", 1, 1, 10.0),
        Speed("fp32", 1, 8, 40.0),  # 200 images/s
        Speed("fp32", 4, 1, 12.0),
        Speed("fp32", 4, 8, 20.0),  # 400 images/s
        Speed("bf16", 1, 1, 8.0),  # 125 images/s
        Speed("bf16", 4, 1, 5.0),  # 200 images/s
        Speed("bf16", 4, 8, 80.0),  # 100 images/s
    ]
    lines = format_speeds(speeds).splitlines()
    assert [line.split() for line in lines[1:8]] == [
        [s.precision, str(s.threads), str(s.batch), *(f"{v:.1f}" for v in figures(s))]
        for s in speeds
    ]
    assert len({len(line) for line in lines[:8]}) == 1
    assert lines[8:] == [
        "fp32, lowest latency: 10.0 ms per image, --batch-size 1 --threads 1",
        "fp32, highest throughput: 400.0 images/s, --batch-size 8 --threads 4",
        "bf16, lowest latency: 5.0 ms per image, --batch-size 1 --threads 4 --precision bf16",
        "bf16, highest throughput: 200.0 images/s, --batch-size 1 --threads 4 --precision bf16",
    ]


def test_every_combination_is_measured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SECONDS", 0.0)
    monkeypatch.setattr(inference, "BATCHES", (1, 3))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    calls: list[tuple[int, int]] = []
    speeds = measure(bundle, "cpu", lambda done, total: calls.append((done, total)))
    precisions = list(dict.fromkeys(s.precision for s in speeds))
    assert precisions[0] == "fp32" and set(precisions) <= {"fp32", "bf16"}
    assert [(s.precision, s.threads, s.batch) for s in speeds] == [
        (precision, threads, batch)
        for precision in precisions
        for threads in (1, 2, 4)
        for batch in (1, 3)
    ]
    assert calls == [(n, len(speeds)) for n in range(1, len(speeds) + 1)]
    assert all(s.milliseconds > 0 for s in speeds)
