"""The network of a bundle, run by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from snl.errors import SettingsError
from snl.model import device as devices
from snl.model.network import Network
from snl.runtime import bundle
from snl.runtime.engine import Outputs
from snl.runtime.fused import fused, halve
from snl.runtime.metadata import ModelMetadata

EXPORTS = (".onnx", ".xml")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_THREADS = Lock()


class TorchEngine:
    """Runs a network with PyTorch; see `snl.runtime.engine.Engine`.

    Args:
        network: with its weights.
        device: see `snl.model.device.choose`.
        threads: CPU threads of one call; 0: PyTorch's number. PyTorch has one number for the whole
            process, so calls of engines with a number of their own run one after another, and the
            process gets its number back.
        precision: `fp32`, `bf16` or `fp16`, of teacher and student; maps and scores are float32.

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
        self.precision = precision
        self.threads = threads
        self._fast = fused(self.network)
        if precision != "fp32":
            halve(self._fast, _HALF[precision])

    @property
    def device(self) -> str:
        """Runtime, device and precision in words."""
        half = "" if self.precision == "fp32" else f" {self.precision}"
        return f"torch {self.torch_device}{half}"

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.network.settings.image_size

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3)."""
        images = torch.from_numpy(pixels)
        if self.torch_device.type == "cuda":
            images = images.pin_memory()
        with _number_of_threads(self.threads):
            outputs = self._fast(images.to(self.torch_device, non_blocking=True))
        maps, scores, embeddings = (output.cpu().numpy() for output in outputs)
        return Outputs(maps, scores, embeddings)

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write a bundle; see `snl.runtime.bundle.save`."""
        if path.suffix.lower() in EXPORTS:
            raise SettingsError(
                f"{path}: the name of an export; a bundle's ends in .snl, and snl export makes it "
                "an export"
            )
        bundle.save(path, self.network, metadata)

    def close(self) -> None:
        """Release the network's memory."""
        for name in ("network", "_fast"):
            self.__dict__.pop(name, None)
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _number_of_threads(threads: int) -> Iterator[None]:
    """Run with this number of CPU threads; 0: leave the number unchanged."""
    if not threads:
        yield
        return
    with _THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
