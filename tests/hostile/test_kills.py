"""kill -9, SIGTERM, SIGHUP and Ctrl-C at random moments; all of them with SNL_HOSTILE=full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `train` is not installed")
FULL = os.environ.get("SNL_HOSTILE") == "full"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.timeout(3600 if FULL else 300)
def test_killed_commands_lose_nothing(tmp_path: Path) -> None:
    """In a process of its own, which forks: pytest's may have threads."""
    counts = (
        ["--count", "25", "--few", "5", "--cold", "1"] if FULL else ["--count", "1", "--few", "0"]
    )
    output = tmp_path / "kills.json"
    command = [sys.executable, "-m", "tests.hostile.kills", *counts, "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(output.read_text()) if output.exists() else None
    assert result is not None, done.stderr[-2000:]
    assert result["failures"] == []
    assert result["tested"], "most signals came after the commands had ended"
    assert done.returncode == 0
