"""Histogram of scores in bounded memory, from which every metric is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snl.errors import DataError

Array = NDArray[Any]

CAP = 2**20
_PAGES = 2**16  # of 2**16 keys each: the upper half of a key is its page
_PART = 7
"""Of so many new keys one is sampled to see whether the scores have left the finely resolved range.
A prime, because a divisor of an image's width would skip whole columns."""


class ScoreHistogram:
    """Weights of scores: exact up to `cap` distinct scores, then in cells of about equal weight.

    A score is stored as its key, a uint32 with the same order as the float32. Up to `cap` distinct
    keys, every key has a separate bin. Beyond that, every page of keys (1/128 of an octave) is
    divided into a power of two of cells, the more the more weight it has. So concentrated scores,
    long tails and outliers are all resolved, and no cell of a smooth distribution holds more than
    about 16 / cap of the weight.

    Args:
        cap: maximum number of bins, at least 2**17.
    """

    def __init__(self, cap: int = CAP) -> None:
        if cap < 2 * _PAGES:
            raise ValueError(f"cap must be at least {2 * _PAGES}, not {cap}")
        self.cap = cap
        self._grid: _Grid | None = None  # None: exact
        self._keys: Array = np.empty(0, np.uint32)  # sorted, distinct; unused with a grid
        self._weights: Array = np.empty(0, np.float64)  # per key, or per cell of the grid
        self._pending: Array = np.empty(1024, np.uint32)  # unsorted keys; grows up to a limit
        self._pending_weights: Array | None = None  # None: 1 each; 1 wherever not yet written
        self._held = 0

    def add(self, scores: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Add scores.

        Args:
            scores: finite, of any shape.
            weights: positive, one per score; None: 1 each.

        Raises:
            DataError: a score is NaN or infinite (in float32), or the number of weights differs
                from that of scores; nothing is added then.
        """
        keys = keys_of(scores, "scores")
        if weights is not None:
            weights = np.asarray(weights, np.float64).ravel()
            if weights.size != keys.size:
                raise DataError(f"{weights.size} weights for {keys.size} scores; give one for each")
        self._add(keys, weights)

    def merge(self, other: ScoreHistogram) -> None:
        """Add the content of `other`, as if its scores had been added here."""
        keys, weights = other._bins()
        if other._grid is not None and self._grid is None:
            self._settle(coarsen=True)  # the result is not exact either
        self._add(keys, weights)

    @property
    def exact(self) -> bool:
        """Whether every distinct score still has a separate bin."""
        self._settle()
        return self._grid is None

    @property
    def bins(self) -> int:
        """Current number of bins, including empty cells; at most `cap`."""
        self._settle()
        return self._weights.size

    @property
    def total(self) -> float:
        """Sum of all weights."""
        self._settle()
        return float(self._weights.sum())

    def _add(self, keys: Array, weights: Array | None) -> None:
        limit = 2 * self.cap
        while keys.size:
            if self._held == limit:
                self._settle()
            end = min(self._held + keys.size, limit)
            if end > self._pending.size:
                self._reserve(min(max(end, 4 * self._pending.size), limit))
            target = slice(self._held, end)
            size = end - self._held
            self._pending[target] = keys[:size]
            if weights is not None:
                if self._pending_weights is None:
                    self._pending_weights = np.ones(self._pending.size)
                self._pending_weights[target] = weights[:size]
                weights = weights[size:]
            keys = keys[size:]
            self._held = end

    def _reserve(self, size: int) -> None:
        pending = np.empty(size, np.uint32)
        pending[: self._held] = self._pending[: self._held]
        self._pending = pending
        if self._pending_weights is not None:
            more = size - self._pending_weights.size
            self._pending_weights = np.concatenate([self._pending_weights, np.ones(more)])

    def _settle(self, coarsen: bool = False) -> None:
        """Sort the pending keys into bins; change to a grid beyond `cap` bins, or if `coarsen`."""
        if not self._held and not coarsen:
            return
        keys = self._pending[: self._held]
        weights = None if self._pending_weights is None else self._pending_weights[: self._held]
        self._held, self._pending_weights = 0, None
        if self._grid is None:
            sort = not _surely_more(keys, self.cap)
            if sort:
                keys, weights = _distinct(keys, weights)
            if self._keys.size:
                weights = np.ones(keys.size) if weights is None else weights
                keys = np.concatenate([self._keys, keys])
                weights = np.concatenate([self._weights, weights])
                if sort:
                    keys, weights = _distinct(keys, weights)
            if sort and weights is not None and keys.size <= self.cap and not coarsen:
                self._keys, self._weights = keys, weights
                return
            self._keys = np.empty(0, np.uint32)
        self._add_to_grid(keys, weights)

    def _add_to_grid(self, keys: Array, weights: Array | None) -> None:
        grid = self._grid
        mass = np.zeros(_PAGES) if grid is None else np.add.reduceat(self._weights, grid.first)
        if grid is not None and weights is None:  # a sample suffices to detect a shift
            _tally(mass, _page, keys[::_PART], None, float(_PART))  # an int would be slow
        else:
            _tally(mass, _page, keys, weights)
        bits = _resolution(mass, self.cap)
        if grid is None:
            self._grid = grid = _Grid(bits)
            self._weights = np.zeros(grid.size)
        elif np.any((bits > grid.bits + 1) & (mass * self.cap > 8 * mass.sum() * grid.cells)):
            # The scores have moved to where the cells are coarse. The weight already there moves
            # to the start of its old cell; it is small, or the cells would have been finer.
            old = self._bins_of(grid)
            self._grid = grid = _Grid(bits)
            self._weights = np.zeros(grid.size)
            _tally(self._weights, grid.cell, *old)
        _tally(self._weights, grid.cell, keys, weights)

    def _bins(self) -> tuple[Array, Array]:
        """Return ascending keys and their weights."""
        self._settle()
        if self._grid is None:
            return self._keys, self._weights
        return self._bins_of(self._grid)

    @property
    def _surely_exact(self) -> bool:
        """Whether sorting the pending keys cannot make a grid necessary."""
        return self._grid is None and self._keys.size + self._held <= self.cap

    def _parts(self) -> list[tuple[Array, Array | None]]:
        """Return keys and their weights (None: 1 each) without sorting the pending ones."""
        settled = (self._keys, self._weights) if self._grid is None else self._bins_of(self._grid)
        weights = None if self._pending_weights is None else self._pending_weights[: self._held]
        return [settled, (self._pending[: self._held], weights)]

    def _bins_of(self, grid: _Grid) -> tuple[Array, Array]:
        occupied = np.flatnonzero(self._weights)
        return grid.starts()[occupied], self._weights[occupied]


class _Grid:
    """A partition of all keys: page p is divided into `2**bits[p]` cells of equal width."""

    def __init__(self, bits: Array) -> None:
        self.bits = bits
        self.cells: Array = np.left_shift(1, bits.astype(np.int64))
        self.first: Array = np.cumsum(self.cells) - self.cells
        self.size = int(self.cells.sum())
        self._shift: Array = (16 - bits).astype(np.uint32)
        self._base: Array = self.first - ((np.arange(_PAGES) << 16) >> self._shift)

    def cell(self, keys: Array) -> Array:
        """Return the cell of each key."""
        page = _page(keys)
        cells: Array = self._base.take(page)
        cells += keys >> self._shift.take(page)
        return cells

    def starts(self) -> Array:
        """Return the smallest key of each cell."""
        page = np.repeat(np.arange(_PAGES), self.cells)
        within = np.arange(self.size) - self.first[page]
        starts: Array = ((page << 16) + (within << self._shift[page])).astype(np.uint32)
        return starts


def _page(keys: Array) -> Array:
    pages: Array = (keys >> 16).astype(np.intp)
    return pages


def _tally(
    target: Array,
    place: Callable[[Array], Array],
    keys: Array,
    weights: Array | None,
    weight: float = 1.0,
) -> None:
    """Add the weight of each key (`weight` if None) to `target` at `place(key)`, in chunks that fit
    the cache."""
    for start in range(0, keys.size, 2**17):
        chunk = slice(start, start + 2**17)
        np.add.at(target, place(keys[chunk]), weight if weights is None else weights[chunk])


def _surely_more(keys: Array, cap: int) -> bool:
    """Return True if more than `cap` keys are certainly distinct: much cheaper than sorting.

    Keys are hashed into at least 4 `cap` slots. At least as many keys are distinct as slots are
    hit.
    """
    if keys.size <= cap:
        return False
    bits = min((cap - 1).bit_length() + 2, 32)
    hit = np.zeros(1 << bits, bool)
    for start in range(0, keys.size, 2**16):
        hashed = (keys[start : start + 2**16] * np.uint32(2654435769)) >> np.uint32(32 - bits)
        hit[hashed.astype(np.intp)] = True
    return int(np.count_nonzero(hit)) > cap


def _resolution(mass: Array, cap: int) -> Array:
    """Return log2 of the number of cells per page.

    Half of the cells are distributed by mass, half evenly over the pages in use: this keeps tails
    fine, where few normal scores meet the anomalous ones.
    """
    used = mass > 0
    total, pages = mass.sum(), np.count_nonzero(used)
    if not pages:
        return np.zeros(_PAGES, np.uint8)
    cells = cap / 8 * (mass / total + used / pages)
    bits: Array = np.clip(np.floor(np.log2(np.maximum(cells, 1))), 0, 16).astype(np.uint8)
    return bits


def keys_of(scores: ArrayLike, what: str) -> Array:
    """Return flat uint32 keys that order as the float32 scores do; -0.0 and 0.0 have the same key.

    Raises:
        DataError: a score is NaN or infinite in float32; `what` names the scores in the message.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(scores, dtype=np.float32).ravel() + np.float32(0)
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(values.size - np.count_nonzero(finite))
        raise DataError(
            f"{bad} of {values.size} {what} are NaN or infinite in float32; check the input image, "
            "the weights, and the precision of inference"
        )
    bits = values.view(np.uint32)
    flip = (values.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
    keys: Array = bits ^ flip
    return keys


def _distinct(keys: Array, weights: Array | None) -> tuple[Array, Array]:
    """Return ascending distinct keys and the weight of each (its count if `weights` is None)."""
    if weights is None:
        keys = np.sort(keys)
    else:
        # sorting key and index together is faster than argsort
        both = (keys.astype(np.uint64) << np.uint64(32)) | np.arange(keys.size, dtype=np.uint64)
        both.sort()
        order = (both & np.uint64(2**32 - 1)).astype(np.intp)
        keys, weights = keys[order], weights[order]
    new = np.ones(keys.size, bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    if weights is None:
        return keys[starts], np.diff(starts, append=keys.size).astype(np.float64)
    return keys[starts], np.add.reduceat(weights, starts)


def class_weights(*histograms: ScoreHistogram) -> list[Array]:
    """Return the weights of each histogram at every distinct threshold, highest score first."""
    for histogram in histograms:
        if not histogram._surely_exact:
            histogram._settle()
    grids = [h._grid for h in histograms if h._grid is not None]
    if grids:  # exact histograms are added to the grid unsorted
        # The coarsest grid of every page, so that equal scores stay equal.
        at = _on_grid(_Grid(np.minimum.reduce([g.bits for g in grids])), histograms)
    else:
        for histogram in histograms:
            histogram._settle()
        union, _ = _distinct(np.concatenate([h._keys for h in histograms]), None)
        at = [np.zeros(union.size) for _ in histograms]
        for weights, histogram in zip(at, histograms, strict=True):
            weights[np.searchsorted(union, histogram._keys)] = histogram._weights
    occupied = np.flatnonzero(np.logical_or.reduce(at))[::-1]
    return [weights[occupied] for weights in at]


def _on_grid(grid: _Grid, histograms: Iterable[ScoreHistogram]) -> list[Array]:
    """Return the weight of each histogram in the cells of a grid."""
    at = []
    for histogram in histograms:
        if histogram._grid is not None and np.array_equal(histogram._grid.bits, grid.bits):
            weights = histogram._weights
        else:
            weights = np.zeros(grid.size)
            for keys, weight in histogram._parts():
                _tally(weights, grid.cell, keys, weight)
        at.append(weights)
    return at


def histogram_of(scores: ScoreHistogram | ArrayLike) -> ScoreHistogram:
    """Return the histogram of scores; a histogram is returned unchanged."""
    if isinstance(scores, ScoreHistogram):
        return scores
    histogram = ScoreHistogram()
    histogram.add(scores)
    return histogram
