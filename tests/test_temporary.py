"""Temporary files of killed runs are removed, those of running ones never."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snl import temporary
from snl.files import write_text
from snl.temporary import temporary_folder, temporary_path


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def name_of(host: str, pid: int, name: str = "a.json", number: str = "-0") -> str:
    return f".{name}.{host}-{pid}{number}.tmp" if host else f".{name}.{pid}.tmp"


def test_files_of_dead_processes_are_removed(tmp_path: Path, dead: int) -> None:
    here, other = temporary._host(), "0123abcd"
    gone = [
        *(name_of(here, dead), name_of(here, dead, "b.png"), name_of("", dead)),
        *(name_of(here, os.getpid()), name_of(here, 10**18)),
    ]
    kept = [
        *(name_of(here, os.getppid()), name_of(other, dead), name_of("", dead, "b.png")),
        *(name_of("", os.getppid()), "notes.tmp", ".a.json.tmp", ".a.json.lock"),
    ]
    for name in (*gone, *kept):
        (tmp_path / name).write_text("half")
    old = tmp_path / name_of(other, 1)
    old.write_text("half")
    os.utime(old, (0, time.time() - 2 * temporary.FOREIGN_AGE))
    write_text(tmp_path / "a.json", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "a.json"])


def test_folders_of_dead_processes_are_removed(tmp_path: Path, dead: int) -> None:
    stale = tmp_path / name_of(temporary._host(), dead, "snl-export")
    (stale / "deep").mkdir(parents=True)
    with temporary_folder("snl-export", tmp_path) as folder:
        assert not stale.exists() and folder.is_dir()
        with temporary_folder("snl-export", tmp_path) as second:
            assert folder.is_dir() and second != folder
    assert not list(tmp_path.iterdir())


def test_threads_write_one_file_at_once(tmp_path: Path) -> None:
    target, errors = tmp_path / "a.txt", []

    def work(letter: str) -> None:
        try:
            for _ in range(100):
                write_text(target, letter * 1000)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(set(target.read_text())) == 1
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["a", "x" * 255, "ü" * 127, "a\nb.json"])
def test_any_name(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
    assert len(os.fsencode(temporary_path(tmp_path / name).name)) <= 255
