"""A representative part of the hostile attempts; all of them: `python -m tests.hostile`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.attempt import KINDS, Attempt
from tests.hostile.kinds import all_attempts
from tests.hostile.kinds.k04_outputs import INPUTS, OUTPUTS, unknown_options

ATTEMPTS = all_attempts()
FAST = [attempt for attempt in ATTEMPTS if attempt.fast]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The verdicts of all fast attempts, which run in a process of their own."""
    file = tmp_path_factory.mktemp("hostile") / "verdicts.json"
    command = [sys.executable, "-m", "tests.hostile", "--fast", "--jobs", "1", "--json", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=900
    )
    assert file.is_file(), done.stderr
    return {v["id"]: v for v in json.loads(file.read_text(encoding="utf-8"))["attempts"]}


@pytest.mark.parametrize("attempt", FAST, ids=lambda a: a.id)
def test_outcome(attempt: Attempt, verdicts: dict[str, dict[str, Any]]) -> None:
    found = verdicts[attempt.id]
    assert found["verdict"] == "ok", f"{found['detail']}\n{found['command']}\n{found['err']}"


def test_there_are_a_thousand_attempts_of_every_kind() -> None:
    assert len(ATTEMPTS) >= 1000
    assert {attempt.kind for attempt in ATTEMPTS} == set(KINDS)
    assert {attempt.kind for attempt in FAST} == set(KINDS)


def test_every_attempt_says_what_it_expects() -> None:
    assert all(attempt.expected for attempt in ATTEMPTS)


def test_every_path_option_is_in_the_table_of_outputs() -> None:
    assert unknown_options() == []
    assert not set(OUTPUTS) & INPUTS
