"""Seeded k-means with exactly k distinct centres."""

from __future__ import annotations

import warnings

import numpy as np

_EPS = 1e-6


def kmeans(rows: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute centres by k-means++ and ten iterations of Lloyd's algorithm.

    Args:
        rows: (M, C) float64, M at least 1. With fewer than k distinct rows, the surplus centres are
            copies with jitter.
        k: number of centres.
        seed: seed of the random draws.

    Returns:
        Centres (k, C), and the squared distance of every row to the centre it was assigned to,
        (max(M, k),): with fewer than k rows, rows are repeated at random up to k.
    """
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    if len(rows) < k:
        rows = np.concatenate([rows, rows[rng.integers(len(rows), size=k - len(rows))]])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty clusters are replaced below
        centres, label = kmeans2(rows, _initial_centres(rows, k, rng), minit="matrix", iter=10)
    lost = ~np.isfinite(centres).all(1)  # a centre that lost all its rows
    centres[lost] = rows[rng.integers(len(rows), size=int(lost.sum()))]
    # equal centres would get equal gradients and stay equal
    _, first = np.unique(centres.astype(np.float32), axis=0, return_index=True)
    copies = np.setdiff1d(np.arange(k), first)
    jitter = 1e-3 * (np.sqrt(np.square(rows).mean()) + _EPS)
    centres[copies] += jitter * rng.standard_normal((len(copies), rows.shape[1]))
    return centres, np.square(rows - centres[label]).sum(1)


def _initial_centres(rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Choose k rows far from each other by k-means++ (SciPy's takes time quadratic in k)."""
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, np.square(rows - rows[chosen[-1]]).sum(1))
        total = nearest.sum()
        chance = nearest / total if total > 0 else None
        chosen.append(int(rng.choice(len(rows), p=chance)))
    return rows[chosen]
