"""CRAM, the central residual aggregation module: centres that represent normal features.

Name and purpose are the paper's (arXiv 2402.17091). Its formulas are not public, so the forms here
are this project's design.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snl.kmeans import kmeans
from snl.model.base import DataInitialised
from snl.settings import CramSettings, Settings

_EPS = 1e-6


class Cram(DataInitialised):
    """K learnable centres c_k, a soft assignment a_ik of every position's feature x_i to them, and
    aggregated residuals to the centres.

    Forms, with r_k = sum_i a_ik (x_i - c_k) / (sum_i a_ik + eps), i over one image's positions:

    - `centres`: y_i = sum_k a_ik c_k. Only centres are output, so there is no identity path: no
      feature of the image itself is passed on.
    - `rebuild`: y_i = sum_k a_ik (c_k + r_k). The centres cancel: c_k + r_k is (up to eps) the mean
      of the image's own features, weighted by a_ik. A position that owns a centre alone is
      therefore passed on unchanged; this form blurs, but it has an identity path.
    - `dense`: y_i = x_i + W sum_k a_ik (x_i - c_k).
    - `gate`: y_i = x_i * sigmoid(V [r_1 .. r_K]), a channel gate from the aggregated residuals.

    The assignment is a_i = softmax_k(-sharpness * |x_i - c_k|^2), sharpness learnt, starting at
    one over the mean squared distance of a feature to its nearest centre.

    Args:
        channels: C of the features.
        centres: K, at least 1.
        form: one of the above.
    """

    full_precision = True
    """Computed in float32 also where the network runs in half precision."""

    def __init__(self, channels: int, centres: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.centres = nn.Parameter(torch.randn(centres, channels) * channels**-0.5)
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        if form == "dense":
            self.mix = nn.Linear(channels, channels, bias=False)
            nn.init.zeros_(self.mix.weight)  # starts as the identity
        elif form == "gate":
            hidden = max(channels // 16, 8)
            self.gate = nn.Sequential(
                nn.Linear(centres * channels, hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, channels),
            )
        elif form not in ("centres", "rebuild"):
            raise ValueError(f"unknown form '{form}'")

    def assign(self, x: Tensor) -> Tensor:
        """Features (B, N, C) to assignments (B, N, K), each row summing to 1."""
        c = self.centres.float()
        x = x.float()
        distance = x.square().sum(-1, keepdim=True) - 2 * x @ c.T + c.square().sum(-1)
        return torch.softmax(-self.log_sharpness.exp() * distance.clamp_min(0), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; computed in float32 under autocast too."""
        if torch.is_autocast_enabled(features.device.type):
            # the distances and residuals are small differences of large numbers
            with torch.autocast(features.device.type, enabled=False):
                return self.forward(features)
        x = features.flatten(2).transpose(1, 2)  # (B, N, C)
        a = self.assign(x)  # (B, N, K)
        x32, c = x.float(), self.centres.float()
        if self.form == "dense":
            # sum_k a_ik (x_i - c_k) = x_i - sum_k a_ik c_k, since the assignments sum to 1
            y = x32 + self.mix(x32 - a @ c)
        elif self.form == "centres":
            y = a @ c
        else:
            mass = a.sum(1).unsqueeze(-1)  # (B, K, 1)
            r = (a.transpose(1, 2) @ x32 - mass * c) / (mass + _EPS)  # (B, K, C)
            if self.form == "rebuild":
                y = a @ (c + r)
            else:
                y = x32 * torch.sigmoid(self.gate(F.normalize(r.flatten(1), dim=1))).unsqueeze(1)
        out: Tensor = y.transpose(1, 2).reshape(features.shape)
        return out.to(features.dtype)

    @torch.no_grad()
    def initialise(self, features: Tensor, seed: int) -> None:
        """Set the centres by k-means and the sharpness by the spread around them.

        Args:
            features: (M, C), a sample of the module's inputs; with fewer than K distinct rows the
                surplus centres are jittered copies.
            seed: of k-means++.
        """
        centres, distances = kmeans(
            features.detach().double().cpu().numpy(), len(self.centres), seed
        )
        self.centres.copy_(torch.as_tensor(centres, dtype=self.centres.dtype))
        self.log_sharpness.fill_(-np.log(max(float(distances.mean()), _EPS)))


def cram_settings(settings: Settings) -> CramSettings:
    """Return the settings of CRAM, with centres for the model's number of products."""
    return replace(settings.cram, centres=settings.sized(settings.cram.centres))


def make_cram(channels: int, settings: CramSettings) -> nn.Module:
    """Return CRAM of the chosen form; an identity for the form `none`."""
    if settings.form == "none":
        return nn.Identity()
    return Cram(channels, settings.centres, settings.form)


def initialised_crams(*modules: nn.Module) -> list[DataInitialised]:
    """Return those of the modules that are initialised from data, in order."""
    return [module for module in modules if isinstance(module, DataInitialised)]
