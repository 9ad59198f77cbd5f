"""What `snl inspect` shows to people: on a real terminal, and where the results go to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from snl.cli.inspect_summary import FEW, Summary
from snl.cli.main import main
from tests.terminal import on_terminal


def snl_on_terminal(*words: object) -> tuple[int, str]:
    return on_terminal([sys.executable, "-m", "snl", *map(str, words)])


def test_a_terminal_gets_a_line_for_each_of_few_images(trained: Path, plant: Path) -> None:
    images = [*sorted(plant.glob("bolt/test/dent/*.png"))[:2],
              *sorted(plant.glob("bolt/test/good/*.png"))[:1]]  # fmt: skip
    status, text = snl_on_terminal("inspect", trained, *images, "--product", "bolt")
    assert status == 0 and "{" not in text
    shown = [line for line in text.splitlines() if ", bolt, score " in line]
    assert len(shown) == 3 and "normal" in shown[-1] and "threshold" in shown[0]
    assert "--out DIR" in text


def test_a_terminal_gets_a_table_of_many_images(trained: Path, plant: Path) -> None:
    status, text = snl_on_terminal(
        "inspect", trained, plant / "bolt" / "test", plant / "plate" / "test"
    )
    assert status == 0 and "{" not in text
    lines = text.splitlines()
    heading = next(n for n, line in enumerate(lines) if line.startswith("product "))
    end = next(n for n, line in enumerate(lines) if line.startswith("all "))
    rows = {line.split()[0]: line.split() for line in lines[heading + 2 : end + 1]}
    assert rows.pop(next(name for name in rows if name[0] == "-"))  # the rule above the sums
    assert rows.keys() <= {"bolt", "plate", "(unknown)", "all"}
    total = rows["all"]
    assert total[1] == "24" and sum(map(int, total[2:6])) == 24
    assert sum(int(rows[name][1]) for name in rows if name != "all") == 24
    assert "most unusual" in text


def test_json_lines_where_they_are_asked_for(trained: Path, plant: Path) -> None:
    image = next(plant.glob("bolt/test/good/*.png"))
    status, text = snl_on_terminal("inspect", trained, image, "--json", "-")
    assert status == 0
    (line,) = [line for line in text.splitlines() if line.startswith("{")]
    assert json.loads(line)["path"] == str(image)


def test_json_lines_go_to_pipes_and_files(
    trained: Path, plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(plant.glob("bolt/test/good/*.png"))

    def run(*words: str) -> tuple[str, str]:
        assert main(["inspect", str(trained), str(image), "--device", "cpu", *words]) == 0
        out, errors = capsys.readouterr()
        return out, errors

    piped, errors = run()
    assert json.loads(piped)["path"] == str(image) and "score" not in errors
    assert run("--json", "-")[0] == piped and not Path("-").exists()
    out, errors = run("--json", str(tmp_path / "a.jsonl"))
    assert out == "" and f"{image.name}: " in errors
    assert f"{image.name}: " not in run("--json", str(tmp_path / "a.jsonl"), "--quiet")[1]


def test_the_most_unusual_come_first_however_many_there_are(trained: Path, plant: Path) -> None:
    import dataclasses

    import snl

    result = snl.load(trained, "cpu").inspect(next(plant.glob("bolt/test/good/*.png")))
    summary = Summary()
    for n in range(500):
        p = ((n * 37) % 500 + 1) / 500
        decision = "anomalous" if p <= 0.01 else "uncertain" if p <= 0.1 else "normal"
        summary.add(dataclasses.replace(result, p_value=p, decision=decision))
    lines = [*summary.lines(shown=True, sorted_out=False, written=False)]
    listed = [line for line in lines if line.startswith("  ")]
    assert ["1 in 500 " in listed[0], "1 in 250 " in listed[1]] == [True, True]
    assert "450" in lines[0] and "10.0 %" in lines[0]
    assert [*Summary().lines(shown=False, sorted_out=False, written=False)] == []
    assert FEW < 500


@pytest.mark.parametrize("shown", [True, False])
def test_nothing_is_advised_where_nothing_was_flagged(
    trained: Path, plant: Path, shown: bool
) -> None:
    import dataclasses

    import snl

    result = snl.load(trained, "cpu").inspect(next(plant.glob("bolt/test/good/*.png")))
    summary = Summary()
    summary.add(dataclasses.replace(result, decision="normal"))
    assert not any(
        "--out" in line for line in summary.lines(shown, sorted_out=False, written=False)
    )
