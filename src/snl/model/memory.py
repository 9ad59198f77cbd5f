"""Memory of normal patches: how far a patch of an image lies from every patch seen in training.

The student's error measures how badly a feature is reproduced; a student that generalises
reproduces some anomalies, too. The memory does not generalise: it compares with patches that exist.
The distance to the nearest patch of a coreset is PatchCore's (Roth et al., arXiv 2106.08265,
sections 3.1 to 3.3). Different here: the deepest stage alone, its principal components, a bank of
fixed size for up to nine products, and a factor of the student's map (`snl.model.network`) instead
of a map of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 0.1
"""Novelty of a patch that is in the memory."""
_CHUNK = 1024
"""Patches compared at a time: bounds the memory of the distances to every patch."""
COMPONENTS = 32
"""Principal components of a patch that are kept, at the most."""
_SCALED = 4096
"""About as many patches, evenly spread, give the scale of the distances."""
_EPS = 1e-6


@dataclass(frozen=True)
class Bank:
    """What is remembered of the normal images of similar products.

    Attributes:
        centre: mean patch feature (C,).
        axes: principal axes (C, D).
        patches: principal components (M, D) of a coreset.
        scale: mean distance of the patches that were left out to the nearest one that was kept.
    """

    centre: Tensor
    axes: Tensor
    patches: Tensor
    scale: float


class PatchMemory(nn.Module):
    """Banks of patch features of normal images, one for each group of similar products.

    Each image is compared with the bank whose gate is nearest to its embedding, so neither the time
    nor the number of patches that could be confused grows with the number of products.

    Until `set_banks` is called, there is one bank of one patch, zero.

    Args:
        channels: C, the channels of the deepest stage.
        width: E, the width of an embedding.
        size: the largest number of patches of a bank.
    """

    patches: Tensor
    centres: Tensor
    axes: Tensor
    scales: Tensor
    gates: Tensor
    banks: Tensor

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        kept = min(channels, COMPONENTS)
        self.register_buffer("patches", torch.zeros(1, 1, kept))  # (G, M, D)
        self.register_buffer("centres", torch.zeros(1, channels))
        self.register_buffer("axes", torch.eye(channels, kept)[None])
        self.register_buffer("scales", torch.ones(1))
        self.register_buffer("gates", torch.zeros(1, width))  # (Q, E)
        self.register_buffer("banks", torch.zeros(1, dtype=torch.long))  # of every gate
        self.sizes: tuple[int, ...] = (1,)
        """Patches of every bank; behind them a bank repeats its own."""

    def forward(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Return the novelty (B, h, w), at least `FLOOR`, of every position: the distance to the
        nearest patch of the image's bank, relative to that of a normal patch.

        Args:
            features: (B, C, h, w) of the deepest stage.
            embeddings: (B, E) of the images, see `snl.model.error_statistics.embed`.
        """
        batch, _, height, width = features.shape
        rows = patch_features(features)
        if self.patches.shape[0] == 1:
            rows = (rows - self.centres) @ self.axes[0]
            distance = nearest_distance(rows, self.patches[0]) / self.scales
        else:
            apart = (embeddings.unsqueeze(1) - self.gates).square().sum(2)  # (B, Q)
            bank = self.banks[apart.argmin(1)]
            rows = (rows - self.centres[bank].unsqueeze(1)) @ self.axes[bank]
            distance = nearest_distance(rows, self.patches, bank)
            distance = distance / self.scales[bank].unsqueeze(1)
        return (distance.square() + FLOOR**2).sqrt().view(batch, height, width)

    @torch.no_grad()
    def set_banks(self, banks: Sequence[Bank], gates: Tensor, owners: Sequence[int]) -> None:
        """Replace what is remembered.

        Args:
            banks: G of them; those of fewer patches repeat theirs.
            gates: embeddings (Q, E).
            owners: the bank of every gate, in 0..G-1.
        """
        device = self.patches.device
        self.sizes = tuple(len(bank.patches) for bank in banks)
        self.patches = _padded([bank.patches for bank in banks]).to(device)
        self.centres = torch.stack([bank.centre for bank in banks]).to(device)
        self.axes = torch.stack([bank.axes for bank in banks]).to(device)
        self.scales = torch.tensor([bank.scale for bank in banks], device=device)
        self.gates = gates.to(self.gates)
        self.banks = torch.tensor(owners, dtype=torch.long, device=device)

    @torch.no_grad()
    def add_bank(self, bank: Bank, gates: Tensor, others: Tensor, strangers: Tensor) -> None:
        """Add what is remembered of new products.

        Args:
            bank: of them.
            gates: embeddings (Q, E) of the new products.
            others: embeddings (R, E) of the products that are there, which are gates of the first
                bank if it is alone, because it has none that distinguish.
            strangers: embeddings (S, E) of products that are no longer there; gates that are nearer
                to them than to all others are removed.
        """
        banks = [self._bank(number) for number in range(len(self.patches))]
        if len(banks) == 1:
            kept, owners = others, [0] * len(others)
        else:
            remains = remaining(self.gates, others, strangers)
            kept = self.gates[remains]
            owners = [int(self.banks[row]) for row in remains]
        used = sorted(set(owners))
        places = {number: place for place, number in enumerate(used)}
        self.set_banks(
            [*(banks[number] for number in used), bank],
            torch.cat([kept.to(self.gates), gates.to(self.gates)]),
            [places[owner] for owner in owners] + [len(used)] * len(gates),
        )

    def _bank(self, number: int) -> Bank:
        return Bank(
            self.centres[number],
            self.axes[number],
            self.patches[number, : self.sizes[number]],
            float(self.scales[number]),
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Store no repeated patches: banks of different sizes are stored on their own. So what two
        versions of a network share is equal."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if len(set(self.sizes)) > 1:
            del destination[f"{prefix}patches"]
            for bank, size in enumerate(self.sizes):
                destination[f"{prefix}patches.{bank}"] = self.patches[bank, :size].clone()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Take as many banks, patches and gates as are stored; other shapes are refused."""
        own: list[Tensor] = []
        while (key := f"{prefix}patches.{len(own)}") in state_dict:
            own.append(state_dict.pop(key))
        if own:
            if any(rows.ndim != 2 or not len(rows) for rows in own):
                raise ValueError("a bank of the memory has no patches")
            state_dict[f"{prefix}patches"] = _padded(own)
        stored = {name: state_dict.get(f"{prefix}{name}") for name in self._buffers}
        patches, gates = stored["patches"], stored["gates"]
        if patches is not None and patches.ndim == 3 and 1 <= patches.shape[1] <= self.size:
            full = [patches.shape[1]] * len(patches)
            self.sizes = tuple(map(len, own)) if own else tuple(full)
            for name in ("patches", "centres", "axes", "scales"):
                self._resize(name, len(patches))
            self.patches = self.patches.new_zeros(*patches.shape[:2], self.patches.shape[2])
        if gates is not None and gates.ndim == 2 and len(gates):
            self._resize("gates", len(gates))
            self._resize("banks", len(gates))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _resize(self, name: str, count: int) -> None:
        old: Tensor = getattr(self, name)
        setattr(self, name, old.new_zeros(count, *old.shape[1:]))


def remaining(gates: Tensor, others: Tensor, strangers: Tensor) -> list[int]:
    """Return the rows of gates (Q, E) that are not nearer to a stranger (S, E) than to all others
    (R, E)."""
    known = torch.cat([others, strangers]).to(gates)
    if not len(known):
        return list(range(len(gates)))
    nearest = torch.cdist(gates, known).argmin(1).tolist()
    return [row for row, place in enumerate(nearest) if place < len(others)]


def _padded(patches: Sequence[Tensor]) -> Tensor:
    """Return the patches of banks (G, M, D); those of shorter ones are repeated."""
    every = torch.arange(max(map(len, patches)))
    return torch.stack([rows[every % len(rows)] for rows in patches])


def bank_of(rows: Tensor, size: int) -> Bank:
    """Return the bank of normal patches: a coreset of their principal components.

    Args:
        rows: patch features (N, C), N at least 1.
        size: patches to keep, at least 1; at most N - 1 are kept, and at least one.
    """
    length = rows.square().sum(1).mean().sqrt()
    centre = rows.mean(0)
    rows = rows - centre
    axes = principal_axes(rows, min(rows.shape[1], COMPONENTS))
    rows = rows @ axes
    chosen = coreset(rows, max(1, min(size, len(rows) - 1)))
    patches = rows[chosen]
    others = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    others[chosen] = False
    # of the patches left out, because those in the memory have no distance to it
    left_out = rows[others][:: max(1, len(rows) // _SCALED)].unsqueeze(0)
    typical = nearest_distance(left_out, patches).mean() if left_out.numel() else 0
    return Bank(centre, axes, patches, max(float(typical), 1e-3 * float(length), _EPS))


def patch_features(features: Tensor) -> Tensor:
    """Return the patch features (B, h w, C), float32, of features (B, C, h, w): the mean over 3 x 3
    positions; those outside of the image count as zero, so that patches at an edge differ less."""
    return F.avg_pool2d(features.float(), 3, 1, 1).flatten(2).transpose(1, 2)


def principal_axes(rows: Tensor, count: int) -> Tensor:
    """Return the axes (C, count) of the largest variance of centred rows (N, C)."""
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for chunk in torch.split(rows, 2**16):
        covariance += chunk.T.double() @ chunk.double()
    vectors: Tensor = torch.linalg.eigh(covariance.cpu()).eigenvectors
    return vectors.flip(1)[:, :count].to(rows)


def nearest_distance(rows: Tensor, patches: Tensor, bank: Tensor | None = None) -> Tensor:
    """Return the Euclidean distance (B, N) of rows (B, N, D) to the nearest of some patches.

    Args:
        rows: centred.
        patches: (M, D), the same for all images, or (G, M, D), one set for each bank.
        bank: (B,) index of each image's bank; None: patches are (M, D).

    The matrices of an export must not be expanded to the batch: OpenVINO then computes other parts
    of an int8 graph wrongly.
    """
    best: Tensor | None = None
    for start in range(0, patches.shape[-2], _CHUNK):
        chunk = patches[..., start : start + _CHUNK, :]
        # |x - c|^2 - |x|^2; the rows are centred, so that little is lost by cancellation
        if bank is None:
            apart = F.linear(rows, -2 * chunk, chunk.square().sum(1))
        else:
            chosen = chunk[bank]
            apart = rows @ (-2 * chosen).mT + chosen.square().sum(2).unsqueeze(1)
        part = apart.amin(2)
        best = part if best is None else torch.minimum(best, part)
    assert best is not None
    return (best + rows.square().sum(2)).clamp_min(0).sqrt()


def coreset(rows: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows (N, D) chosen greedily (k-centre greedy): the first is
    the farthest from the origin, each other one the farthest from those before it."""
    squares = rows.square().sum(1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=rows.device)
    # in place: thousands of temporary tensors between kept ones would fragment the memory
    distance = torch.empty_like(squares)
    for i in range(count):
        chosen[i] = nearest.argmax() if i else squares.argmax()
        last = chosen[i : i + 1]
        torch.mv(rows, rows.index_select(0, last)[0], out=distance)
        distance.mul_(-2).add_(squares).add_(squares.index_select(0, last))
        torch.minimum(nearest, distance, out=nearest)
        nearest.index_fill_(0, last, -1)
    return chosen
