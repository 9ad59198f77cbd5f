"""`snl drift`: the state of a monitor, and alarms that stand until somebody acknowledges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snl.cli.main import main
from snl.monitoring import baseline
from snl.monitoring.drift import DriftMonitor
from snl.runtime.inspector import Inspector
from tests.conftest import TINY_OPTIONS as TINY_OPTIONS

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def alarmed(inspector: Inspector, tmp_path: Path) -> Path:
    """The state of a monitor of `trained` with an alarm of bolts, and none of plates."""
    monitor = baseline.start(inspector.calibration)
    for number in range(300):
        monitor.update("bolt", (1000.0 + number, 50.0), when=f"part {number}")
    assert monitor.status()["bolt"].alarm and not monitor.status()["plate"].alarm
    monitor.save(tmp_path / "drift.json")
    return tmp_path / "drift.json"


def status(file: Path) -> dict[str, Any]:
    return DriftMonitor.load(file).status()


def test_the_state_as_a_table_and_as_json(alarmed: Path, capsys: Capture) -> None:
    assert main(["drift", str(alarmed)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["bolt", "300", "ALARM"] and "scores are higher" in lines[2]
    assert "part " in lines[2] and "ALARM" not in lines[3]
    assert main(["drift", str(alarmed), "--json"]) == 1
    rows = {one["product"]: one for one in json.loads(capsys.readouterr().out)}
    assert rows["bolt"]["alarm"] and rows["bolt"]["images"] == 300 and not rows["plate"]["alarm"]


def test_an_alarm_is_repeated_in_every_run_until_it_is_acknowledged(
    alarmed: Path, trained: Path, plant: Path, capsys: Capture
) -> None:
    image = next(plant.glob("plate/test/good/*.png"))
    inspect = ["inspect", str(trained), str(image), "--product", "plate", "--device", "cpu"]
    for _ in range(2):
        assert main([*inspect, "--monitor", str(alarmed)]) == 0
        said = capsys.readouterr().err
        assert f"drift alarm of bolt: snl drift {alarmed}" in said and "--acknowledge" in said
    assert main(["drift", str(alarmed), "--acknowledge", "bolt"]) == 0
    assert "bolt: acknowledged after 300 images: scores are higher" in capsys.readouterr().err
    assert not status(alarmed)["bolt"].alarm and status(alarmed)["bolt"].images == 0
    assert status(alarmed)["plate"].images == 2
    assert main([*inspect, "--monitor", str(alarmed)]) == 0
    assert "drift alarm" not in capsys.readouterr().err


def test_a_run_of_rejects_is_said_even_without_an_alarm(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture
) -> None:
    dents = sorted(plant.glob("bolt/test/dent/*.png"))
    folder = tmp_path / "dents"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number}.png").write_bytes(dents[number % len(dents)].read_bytes())
    state = tmp_path / "s.json"
    words = ["inspect", str(trained), str(folder), "--product", "bolt", "--device", "cpu"]
    assert main([*words, "--monitor", str(state)]) == 0
    said = capsys.readouterr().err
    count = sum(one["alarm"] for one in map(vars, status(state).values()))
    expected = "drift alarm of bolt" if count else "of 24 images of bolt were rejected in this run"
    assert expected in said


def test_all_alarms_at_once(alarmed: Path, capsys: Capture) -> None:
    assert main(["drift", str(alarmed), "--acknowledge"]) == 0
    assert not any(one.alarm for one in status(alarmed).values())
    before = alarmed.read_bytes()
    capsys.readouterr()
    assert main(["drift", str(alarmed), "--acknowledge"]) == 0
    assert "nothing was changed" in capsys.readouterr().err and alarmed.read_bytes() == before


@pytest.mark.parametrize(
    ("products", "says"),
    [
        (["gear"], "gear: is not monitored"),
        (["plate"], "plate: has no alarm"),
        (["bolt", "gear"], "gear: is not monitored"),
        (["\x1b[31m"], "is not monitored"),
    ],
)
def test_wrong_products_change_nothing(
    alarmed: Path, products: list[str], says: str, capsys: Capture
) -> None:
    before = alarmed.read_bytes()
    assert main(["drift", str(alarmed), "--acknowledge", *products]) == 2
    said = capsys.readouterr().err
    assert says in said and "\x1b" not in said and said.count("\n") == 1
    assert alarmed.read_bytes() == before


@pytest.mark.parametrize("more", [[], ["--acknowledge"]])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"kind": "drift"}', "folder"])
def test_files_that_are_no_state(
    content: bytes | str | None, more: list[str], tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "deep" / "state.json"
    if content == "folder":
        file.mkdir(parents=True)
    elif isinstance(content, bytes):
        file.parent.mkdir()
        file.write_bytes(content)
    assert main(["drift", str(file), *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("snl: error: ") and str(file) in said and said.count("\n") == 1
    assert file.parent.exists() is (content is not None)
    assert not isinstance(content, bytes) or file.read_bytes() == content


def test_random_monitors_survive_the_way_through_the_command(
    inspector: Inspector, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    monitor = baseline.start(inspector.calibration)
    for _ in range(50):
        monitor.update("plate", tuple(rng.uniform(0, 1, 2)), when="x")
    state = tmp_path / "s.json"
    monitor.save(state)
    before = state.read_bytes()
    assert main(["drift", str(state)]) == 0 and state.read_bytes() == before
