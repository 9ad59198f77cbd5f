"""Dynamic batching: requests that arrive while the network runs are processed together.

One thread runs the network. It takes what waits, at most a batch; nothing waits for a batch to
fill, so a single request is as fast as without batching. The queue is bounded: where it is full, a
request is refused at once instead of waiting for an answer that comes too late.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from snl.data.stream import Loaded
from snl.decision.calibration import Calibration
from snl.decision.prediction import Prediction
from snl.decision.recognition import nearest_view
from snl.errors import SnlError
from snl.runtime.predictor import Predictor, predict_loaded


class FullError(SnlError):
    """More requests wait than the server takes."""


class LateError(SnlError):
    """A request was not processed before its deadline."""


class ClosedError(SnlError):
    """The server is shutting down."""


@dataclass
class _Job:
    loaded: Loaded
    deadline: float
    future: Future[Prediction] = field(default_factory=Future)


class Batcher:
    """Runs a predictor for many threads.

    Args:
        predictor: computes predictions.
        calibration: in force.
        batch_size: images that the network processes together at the most.
        waiting: images that may wait at the most.
    """

    def __init__(
        self,
        predictor: Predictor,
        calibration: Calibration,
        batch_size: int = 16,
        waiting: int = 64,
    ) -> None:
        self.predictor, self.calibration = predictor, calibration
        self.batch_size, self.waiting = batch_size, waiting
        self._queue: queue.Queue[_Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._inside = 0
        self._closed = False
        self._seconds = 0.1
        """Of one image, lately."""
        self._thread = threading.Thread(target=self._run, name="snl-network", daemon=True)
        self._thread.start()

    def submit(self, loaded: Loaded, deadline: float = float("inf")) -> Future[Prediction]:
        """Process a decoded image.

        Args:
            loaded: as `snl.data.stream.load` returns it.
            deadline: `time.monotonic()` after which nobody needs the result.

        Raises:
            FullError: too many images wait.
            ClosedError: the batcher was closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the server is shutting down")
            if self._inside >= self.waiting:
                raise FullError("the server is busy; try again later")
            self._inside += 1
            job = _Job(loaded, deadline)
            self._queue.put(job)
        return job.future

    @property
    def length(self) -> int:
        """Number of images that wait or are being processed."""
        return self._inside

    def wait_seconds(self) -> float:
        """Return about how long a request would wait now."""
        return self._inside * self._seconds

    def close(self) -> None:
        """Process what was accepted, and stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last and (first := self._queue.get()) is not None:
            jobs = [first]
            while len(jobs) < self.batch_size:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                jobs.append(job)
            began = time.perf_counter()
            self._process(jobs)
            seconds = (time.perf_counter() - began) / len(jobs)
            self._seconds += 0.2 * (seconds - self._seconds)

    def _process(self, jobs: Sequence[_Job]) -> None:
        """Complete the futures of jobs."""
        now = time.monotonic()
        wanted = []
        for job in jobs:
            if job.deadline < now:
                self._finish(job, LateError("the deadline passed before the image was processed"))
            else:
                wanted.append(job)
        if not wanted:
            return
        try:
            results: Sequence[Prediction | Exception] = predict_loaded(
                self.predictor,
                [job.loaded for job in wanted],
                tile=self.calibration.tile,
                scoring=self.calibration.scoring,
                choose=partial(nearest_view, calibration=self.calibration),
                max_pixels=self.predictor.max_pixels,
            )
        except Exception as error:  # the thread must live, and every request gets an answer
            results = [error] * len(wanted)
        for job, result in zip(wanted, results, strict=True):
            self._finish(job, result)

    def _finish(self, job: _Job, result: Prediction | Exception) -> None:
        with self._lock:
            self._inside -= 1
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
