"""Run a program on a terminal, as a person does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

import pytest


def on_terminal(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command whose standard output and error are a terminal; return status and text."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(leader)
    return process.wait(60), text.decode().replace("\r\n", "\n")
