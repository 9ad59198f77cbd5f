"""The last safety net: whatever happens, one line and an exit status, and never a traceback."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snl.cli import console, failures, options
from snl.cli.main import VERBS, main
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def failing(error: BaseException) -> Callable[[object], int]:
    def run(parsed: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "a.json: No space left"),
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), "check the disk"),
        (OSError(errno.ESTALE, "Stale file handle", "x"), "mount it again"),
        (OSError(errno.ELOOP, "Too many levels", "x"), "symbolic link"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y" * 5000), "use shorter names"),
        (PermissionError(errno.EACCES, "Permission denied", b"\xff"), "change the permissions"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\x1b[31m"), r"a\x1b[31m: No such file"),
        (RuntimeError("Symlink loop from '/a/b'"), "/a/b: Too many levels of symbolic links"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "save it as UTF-8"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "rename the file"),
        (ValueError("embedded null byte"), "NUL character"),
        (ImportError("libx.so: cannot open shared object file"), "cannot be imported"),
        (ImportError("libx.so: failed to map segment from shared object"), "out of memory"),
    ],
)
def test_errors_of_the_system_are_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: Exception, message: str
) -> None:
    monkeypatch.setattr(VERBS["info"], "run", failing(error))
    assert main(["info", "a.snl"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("snl: error: ") and message in text and len(text.splitlines()) == 1
    assert len(text) < 600 and "\x1b" not in text


class Unprintable(Exception):  # noqa: N818
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error", [KeyError("x"), AssertionError(), Unprintable(), GeneratorExit(), StopIteration()]
)
def test_unexpected_errors_exit_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path, error: BaseException
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(VERBS["info"], "run", failing(error))
    assert main(["info", "a.snl"]) == 70
    text = capsys.readouterr().err
    assert text.startswith(f"snl: internal error: {type(error).__name__}")
    assert len(text.splitlines()) == 1
    for file in (tmp_path / "snl").glob("*"):
        assert file.stat().st_mode & 0o777 == 0o600


def test_details_without_a_place_to_write(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(VERBS["info"], "run", failing(KeyError("x")))
    monkeypatch.setenv("XDG_STATE_HOME", str(file))  # not a folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["info", "a.snl"]) == 70
    assert f"details: {tmp_path}/snl-" in capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(file))
    assert main(["info", "a.snl"]) == 70
    assert "details could not be written" in capsys.readouterr().err
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "relative")  # no home: the folder for temporary files
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["info", "a.snl"]) == 70
    assert f"details: {tmp_path}/snl-" in capsys.readouterr().err


def test_old_details_are_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    files = [failures.write_details(KeyError(n), ["info"]) for n in range(failures.KEPT + 5)]
    left = sorted((tmp_path / "snl").iterdir())
    assert left == sorted(filter(None, files))[-failures.KEPT :]
    assert "command: snl 'info'" in left[0].read_text()


def test_debugging_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.setenv("SNL_DEBUG", "1")
    assert main(["info", str(tmp_path / "a.snl")]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SNL_DEBUG", "0")
    assert main(["info", str(tmp_path / "a.snl")]) == 2
    assert "Traceback" not in capsys.readouterr().err


# --- standard streams, in processes of their own ---


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `$SNL` is the command line."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    env |= {"SNL": f"{sys.executable} -m snl", **environment}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, env=env
    )


LOST = "snl: error: standard output cannot be written ("


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", ["info {bundle}", "--help", "train --help", "--version"])
def test_results_that_cannot_be_written_are_an_error(
    bundle: Path, verb: str, unbuffered: str
) -> None:
    words = verb.format(bundle=bundle)
    done = shell(f"$SNL {words} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.startswith(LOST) and len(done.stderr.splitlines()) == 1


def test_closed_streams(bundle: Path, tmp_path: Path) -> None:
    done = shell(f"$SNL info {bundle} >&-")
    assert done.returncode == 2 and done.stderr.startswith(LOST)
    done = shell(f"$SNL info {bundle} 2>&- <&-")
    assert done.returncode == 0 and done.stdout.startswith("file")
    done = shell("$SNL info missing.snl 2>&-")
    assert (done.returncode, done.stdout) == (2, "")  # not among the results
    file = tmp_path / "a.json"
    done = shell(f"$SNL info {bundle} --json {file} >&- 2>&- <&-")
    assert done.returncode == 2 and not done.stdout + done.stderr
    assert not file.exists() or file.read_text().startswith("{")  # no messages in it


def test_a_reader_that_leaves_is_no_error(bundle: Path) -> None:
    done = shell(f"$SNL train --help | head -1; $SNL info {bundle} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""
    done = shell(f"$SNL info {bundle} --json - 2>&1 | true; $SNL info missing 2> /dev/full")
    assert done.returncode == 2 and done.stdout == ""


def test_absurd_environments(bundle: Path) -> None:
    plain = shell(f"$SNL info {bundle}").stdout
    for setting in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii", "TZ": "nonsense", "TERM": "dumb", "COLUMNS": "0"},
    ):
        done = shell(f"$SNL info {bundle}; $SNL --help > /dev/null", **setting)
        assert (done.returncode, done.stdout, done.stderr) == (0, plain, "")
    done = shell(f"env -u HOME -u TMPDIR -u PATH $SNL info {bundle}")
    assert (done.returncode, done.stdout) == (0, plain)
    done = shell("$SNL info 'ö\x1b[31m\u202e.snl'", PYTHONIOENCODING="ascii")
    assert done.stderr.startswith("snl: error: \\xf6\\x1b[31m\\u202e.snl: no such file")


def test_a_deleted_working_directory(tmp_path: Path) -> None:
    for words in ("doctor .", "info a.snl", "train x -o y.snl"):
        done = shell(f"mkdir {tmp_path}/d && cd {tmp_path}/d && rmdir ../d && $SNL {words}")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "snl: error: the working directory does not exist any more; change to another folder"
        ]


def test_limits_of_the_process(bundle: Path, parts: Path, run_snl: Run) -> None:
    image = parts / "bolt" / "test" / "good" / "000.png"

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20,) * 2)

    done = run_snl("inspect", bundle, image, preexec_fn=little_memory)
    assert done.returncode == 2 and "not enough memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_while_importing_are_caught(tmp_path: Path) -> None:
    """The command line itself cannot be imported: half an installation, no memory, Ctrl-C."""
    code = (
        "import sys, builtins\n"
        "real = builtins.__import__\n"
        "def broken(name, *rest):\n"
        "    if name == 'snl.cli.main': raise {error}\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = broken\n"
        "from snl.__main__ import main\n"
        "raise SystemExit(main())\n"
    )
    for error, status, text in (
        ("MemoryError", 2, "out of memory"),
        ("SyntaxError('x')", 70, "internal error: SyntaxError: x; details: "),
        ("KeyboardInterrupt", 130, "stopped"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(error=error)],
            capture_output=True, text=True, timeout=60,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == status and text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_errors_of_threads_and_destructors_have_no_traceback(tmp_path: Path) -> None:
    code = (
        "import snl.__main__, snl.cli.main, threading\n"
        "class Bad:\n"
        "    def __del__(self): raise ValueError('destructor')\n"
        "def run(options):\n"
        "    t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); Bad(); return 0\n"
        "snl.cli.main.VERBS['info'].run = run\n"
        "import sys; sys.argv = ['snl', 'info', 'x']\n"
        "raise SystemExit(snl.__main__.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stderr.startswith("snl: internal error: ZeroDivisionError: division by zero; det")
    assert len(done.stderr.splitlines()) == 1


# --- messages ---


def test_messages_go_nowhere_without_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    console.say("a message")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    console.say("a message")
    assert capsys.readouterr().out == ""


def test_tables_and_titles_cannot_control_the_terminal(capsys: Capture) -> None:
    from snl import progress
    from snl.cli.common import aligned, table
    from snl.text_table import aligned as results

    evil = "bolt\x1b[2J\r\u202e\n"
    for text in (
        table([["a", "b"], [evil, "1"]]),
        aligned([(evil, evil)]),
        results([["a", "b"], [evil, "1"], ["mean", "1"]], last=1),
    ):
        assert not set(text) & set("\x1b\r\u202e") and r"bolt\x1b[2J" in text
    assert len(table([["a", "b"], [evil, "1"]]).splitlines()) == 3
    progress.bar(evil)(1, 1)
    assert "\x1b[2J" not in capsys.readouterr().err


def test_json_stays_exact(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    import json
    import shutil

    evil = tmp_path / "a\x1b[31m\u202e.snl"
    shutil.copy(bundle, evil)
    assert main(["info", str(evil), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["file"]["path"] == str(evil)
    assert main(["info", str(evil)]) == 0
    assert not set(capsys.readouterr().out) & set("\x1b\u202e")


# --- values of options ---

ABSURD = [
    *("-1", "nan", "inf", "-inf", "1e300", "1e400", "9" * 5000, "x", "", " ", "0x10", "1,5"),
    *("10000000000000000000000000000000", "--", "\x1b[31m"),
]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (options.number, 0, 1e9),
        (options.count, 1, 2**31 - 1),
        (options.index, 0, 2**31 - 1),
        (options.batch_size, 1, 4096),
        (options.threads, 0, 1024),
        (options.seed, 0, 2**63 - 1),
        (options.setting("image_size"), 64, 4096),
        (options.setting("training.steps"), 1, 10**9),
        (options.setting("training.lr"), 1e-12, 1e3),
    ],
)
def test_values_out_of_range_are_named_with_the_range(kind: Any, low: float, high: float) -> None:
    assert kind(str(low)) == low and kind(str(high)) == high
    for text in (*ABSURD, str(high * 1.1 + 1), str(low - 1)):
        with pytest.raises(options.argparse.ArgumentTypeError) as refused:
            kind(text)
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("text", [*ABSURD, "0", "1", "-0.0", "1.0000001"])
def test_rates_are_above_0_and_below_1(text: str) -> None:
    with pytest.raises(
        options.argparse.ArgumentTypeError, match="between 0 and 1, without 0 and 1"
    ):
        options.rate(text)
    assert options.rate("0.5") == 0.5


@pytest.mark.parametrize("text", [*ABSURD, "0", "1e-300", "1e200"])
@pytest.mark.parametrize("flag", ["--mm-per-pixel", "--smallest"])
def test_absurd_values_of_products(
    bundle: Path, tmp_path: Path, capsys: Capture, flag: str, text: str
) -> None:
    output = tmp_path / "new.snl"
    assert main(["calibrate", str(bundle), flag, f"bolt={text}", "-o", str(output)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and not output.exists()


def test_command_lines_that_cannot_be_parsed_get_one_line(capsys: Capture) -> None:
    for words in (["\x1b[31m"], ["info"], ["info", "a", "\u202e"], ["inspect", "a", "b", "--x"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        text = capsys.readouterr().err
        assert stop.value.code == 2 and len(text.splitlines()) == 1, text
        assert text.startswith("snl: error: ") and not set(text) & set("\x1b\u202e")


def test_a_pipe_is_no_data_set(tmp_path: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["doctor", str(tmp_path / "pipe"), "--quiet"]) == 2
    assert "neither a folder nor a manifest" in capsys.readouterr().err


def test_a_loop_of_links_is_one_bad_image(
    bundle: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    image = parts / "bolt" / "test" / "good" / "000.png"
    assert main(["inspect", str(bundle), str(loop), str(image)]) == 2
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1  # the rest is done
    assert "loop.png" in output.err and "Traceback" not in output.err


@pytest.mark.parametrize("words", [["probe", "a.snl", "data", "--seed=--"], ["info", "--json=--"]])
def test_two_dashes_are_no_value(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from snl.cli.main import main

    with pytest.raises(SystemExit, match="2"):
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected one argument" in line
