"""The network of a bundle, run by PyTorch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import numpy as np
import torch

from snl.model import device as devices
from snl.model.network import Network
from snl.runtime import bundle
from snl.runtime.bundle_file import check_name
from snl.runtime.engine import Outputs, closed
from snl.runtime.fused import fused, halve
from snl.runtime.metadata import ModelMetadata

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs a network with PyTorch; see `snl.runtime.engine.Engine`.

    Threads may share an engine: a call changes nothing in the network.

    Args:
        network: with its weights.
        device: see `snl.model.device.choose`.
        threads: CPU threads of one call; 0: PyTorch's number. PyTorch has one number for the whole
            process, on which rounding depends, so a call of an engine with a number of its own
            runs alone, and the process gets its number back.
        precision: `fp32`, `bf16` or `fp16`, of teacher and student; maps and scores are float32.
            `fp32` excludes TF32, which PyTorch uses by default in convolutions on CUDA devices and
            which has 10 bits of mantissa.

    Raises:
        SettingsError: a device that is not available.
    """

    def __init__(
        self,
        network: Network,
        device: str = "auto",
        threads: int = 0,
        precision: str = "fp32",
    ) -> None:
        self.torch_device = devices.choose(device)
        self.network = network.to(self.torch_device).eval()
        self._size = network.settings.image_size
        self.precision = precision
        self.threads = threads
        fast = fused(self.network)
        if precision != "fp32":
            halve(fast, _HALF[precision])
        self._fast: Network | None = fast

    @property
    def device(self) -> str:
        """Runtime, device and precision in words."""
        half = "" if self.precision == "fp32" else f" {self.precision}"
        return f"torch {self.torch_device}{half}"

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self._size

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3)."""
        fast = self._fast
        if fast is None:
            raise closed()
        images = torch.from_numpy(pixels)
        if self.torch_device.type == "cuda":
            images = images.pin_memory()
        with _number_of_threads(self.threads), self._arithmetic():
            outputs = fast(images.to(self.torch_device, non_blocking=True))
        maps, scores, embeddings = (output.cpu().numpy() for output in outputs)
        return Outputs(maps, scores, embeddings)

    def _arithmetic(self) -> AbstractContextManager[None]:
        """Return the context of a call: without TF32 for fp32 on a CUDA device."""
        exact = self.torch_device.type == "cuda" and self.precision == "fp32"
        return _WITHOUT_TF32 if exact else nullcontext()

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write a bundle; see `snl.runtime.bundle.save`."""
        check_name(path)
        if self._fast is None:
            raise closed()
        bundle.save(path, self.network, metadata)

    def close(self) -> None:
        """Release the network's memory, after the calls that use it."""
        self._fast = None
        self.__dict__.pop("network", None)
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _number_of_threads(threads: int) -> Iterator[None]:
    """Run with this number of CPU threads; 0: with the number of the process, which no other call
    changes meanwhile."""
    with _TURNS.of(threads):
        if not threads:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Turns:
    """Turns of calls in the order in which they ask; calls without a number run together."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: deque[object] = deque()
        self._running = 0
        self._alone = False

    @contextmanager
    def of(self, threads: int) -> Iterator[None]:
        """Wait for the turn of a call with this number of threads, and hold it."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._is_next(ticket, threads))
                self._running, self._alone = self._running + 1, threads > 0
            finally:  # also after an interruption
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _is_next(self, ticket: object, threads: int) -> bool:
        together = not threads and not self._alone
        return self._waiting[0] is ticket and (not self._running or together)


_TURNS = _Turns()


class _WithoutTf32(AbstractContextManager[None]):
    """While any call is inside, convolutions and matrix products on CUDA devices use float32.

    PyTorch has one setting for the whole process; the last call that leaves restores it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [part.fp32_precision for part in self._parts()]
                for part in self._parts():
                    part.fp32_precision = "ieee"
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for part, before in zip(self._parts(), self._before, strict=True):
                    part.fp32_precision = before

    @staticmethod
    def _parts() -> tuple[Any, ...]:
        cudnn: Any = torch.backends.cudnn
        return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul


_WITHOUT_TF32 = _WithoutTf32()
