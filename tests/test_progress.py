"""Progress: a bar on a terminal, lines in a file."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.terminal import on_terminal

PROGRAM = """
import time
from snl.progress import bar, new_bar
long = new_bar("training", "step", 30, initial=10)
for _ in range(20):
    time.sleep(0.05)
    long.set_postfix(loss="0.5", refresh=False)
    long.update()
long.close()
short = bar("a short one")
for done in range(3):
    short(done + 1, 3)
"""
ENVIRONMENT = {**os.environ, "SNL_PROGRESS_SECONDS": "0.3"}


def test_a_file_gets_lines_and_nothing_of_what_is_done_at_once() -> None:
    run = [sys.executable, "-c", PROGRAM]
    written = subprocess.run(run, env=ENVIRONMENT, capture_output=True, check=True).stderr.decode()
    lines = written.splitlines()
    assert 2 <= len(lines) <= 5 and written.endswith("\n")
    assert "\r" not in written and "short" not in written
    for line in lines:
        assert line.startswith("training: ") and "/30 [00:0" in line and "loss=0.5]" in line


def test_a_terminal_gets_a_bar() -> None:
    """Also one that does not know its size, as in a container."""
    status, text = on_terminal([sys.executable, "-c", PROGRAM], ENVIRONMENT)
    assert status == 0
    assert text.count("\rtraining:") >= 2 and "a short one: 100%" in text and "30/30" in text
