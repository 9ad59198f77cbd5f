"""Signals raise `Stopped`, wait for a block, and leave the handlers as they were."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from snl import signals
from snl.signals import SIGNALS, Stopped, deferred, stoppable


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_with_its_status(number: int) -> None:
    with pytest.raises(Stopped) as stop, stoppable():
        os.kill(os.getpid(), number)
        for _ in range(3000):  # another thread may receive it: this one hears of it later
            time.sleep(0.01)
    assert stop.value.number == number and stop.value.status == 128 + number


@pytest.mark.parametrize("number", SIGNALS)
def test_a_block_is_finished_first(number: int) -> None:
    done = []
    with pytest.raises(Stopped) as stop, stoppable():
        with deferred() as requested:
            assert requested() == 0
            os.kill(os.getpid(), number)
            done.append(requested())
        done.append("after")
    assert done == [number] and stop.value.number == number


def test_two_signals_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager sends SIGHUP right after SIGTERM; a later one stops a block at once."""
    with pytest.raises(Stopped) as stop, deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.value.number == signal.SIGTERM
    monkeypatch.setattr(signals, "_PAUSE", 0.0)
    finished = False
    with pytest.raises(Stopped), deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        finished = True
    assert not finished


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    class Closing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))

    with pytest.raises(Stopped), stoppable():
        Closing()
        for _ in range(10**6):
            pass


def test_an_error_of_the_block_is_kept() -> None:
    with pytest.raises(ZeroDivisionError), deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        _ = 1 / 0


def test_nohup_is_respected_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with stoppable(), deferred() as requested:
                assert requested() == 0
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_a_forked_process_ends_by_the_signal_without_a_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Libraries fork processes, such as OpenVINO's telemetry, and end them with SIGTERM."""
    with stoppable():
        pid = os.fork()
        if pid == 0:
            try:
                signal.pause()
            finally:
                os._exit(0)
        time.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert capfd.readouterr().err == ""
