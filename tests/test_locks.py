"""Locks between processes and threads: no lost update, gone with their process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snl.errors import SnlError
from snl.files import write_text
from snl.locks import lock_path, locked

_COUNT = """
import sys
from pathlib import Path
from snl.files import write_text
from snl.locks import locked
path = Path(sys.argv[1])
for _ in range(40):
    with locked(path, "busy", wait=60):
        write_text(path, str(int(path.read_text()) + 1))
"""
_HOLD = """
import sys, time
from snl.locks import locked
with locked(sys.argv[1], "busy"):
    print("locked", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def test_processes_and_threads_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    (tmp_path / "link").symlink_to("count")  # one lock for all names
    names = [path, tmp_path / "link", path]
    processes = [subprocess.Popen([sys.executable, "-c", _COUNT, str(name)]) for name in names]

    def work() -> None:
        for _ in range(40):
            with locked(path, "busy", wait=60):
                write_text(path, str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert path.read_text() == "200"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "link"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    process = hold(path)
    with pytest.raises(SnlError, match=r"state\.json: in use"), locked(path, "in use"):
        pass
    notes: list[str] = []
    started = time.monotonic()
    with pytest.raises(SnlError), locked(path, "in use", wait=0.8, note=notes.append):
        pass
    assert 0.8 <= time.monotonic() - started < 5 and len(notes) == 1 and "waiting" in notes[0]
    process.kill()
    process.communicate()
    assert lock_path(path).exists()
    with locked(path, "in use"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SnlError, match="cannot be written"),
        locked(tmp_path / "file" / "a", "busy"),
    ):
        pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a", "busy"):
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
