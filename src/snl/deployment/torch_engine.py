"""The network of a bundle, run by PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from snl import device as devices
from snl.deployment.engine import Prediction
from snl.deployment.fused import fused
from snl.model.network import Network


class TorchEngine:
    """See `snl.deployment.engine.Engine`.

    Args:
        network: with its weights.
        device: see `snl.device.choose`.
        threads: of the whole process on a CPU; 0: PyTorch's own choice.
    """

    def __init__(self, network: Network, device: str = "auto", threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.torch_device = devices.choose(device)
        self.network = network.to(self.torch_device).eval()
        self._fast = fused(self.network)

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        return f"torch {self.torch_device}"

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        outputs = self._fast(torch.from_numpy(pixels).to(self.torch_device))
        return Prediction(*(output.cpu().numpy() for output in outputs))
