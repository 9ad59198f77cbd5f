"""The network of a bundle, run by PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from snl.model import device as devices
from snl.model.network import Network
from snl.runtime.engine import Prediction
from snl.runtime.fused import fused, halve

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """See `snl.runtime.engine.Engine`.

    Args:
        network: with its weights.
        device: see `snl.model.device.choose`.
        threads: of the whole process on a CPU; 0: PyTorch's own choice.
        precision: `fp32`, `bf16` or `fp16`; what the networks compute in, not what maps and scores
            are made in.

    Raises:
        SettingsError: a device that is not there.
    """

    def __init__(
        self,
        network: Network,
        device: str = "auto",
        threads: int = 0,
        precision: str = "fp32",
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.torch_device = devices.choose(device)
        self.network = network.to(self.torch_device).eval()
        self.precision = precision
        self._fast = fused(self.network)
        if precision != "fp32":
            halve(self._fast, _HALF[precision])

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        half = "" if self.precision == "fp32" else f" {self.precision}"
        return f"torch {self.torch_device}{half}"

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        images = torch.from_numpy(pixels)
        if self.torch_device.type == "cuda":
            images = images.pin_memory()
        outputs = self._fast(images.to(self.torch_device, non_blocking=True))
        return Prediction(*(output.cpu().numpy() for output in outputs))
