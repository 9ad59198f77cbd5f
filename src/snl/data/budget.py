"""A budget of bytes that decoded images may take together, however large each of them is."""

from __future__ import annotations

import weakref
from threading import Condition

import numpy as np

from snl.data.memory import give_back
from snl.errors import ImageError

DECODED_BYTES = 2**30
"""Default of what one reader may take; an image that takes more is decoded alone."""
_LARGE = 2**25  # bytes of an image after which memory is given back; it takes milliseconds


class Budget:
    """Lets images that are numbered in the order of their use be decoded while memory allows it.

    An image is admitted when all before it have been admitted, and it fits. It is also admitted
    when nothing else is held, because it may be larger than the budget, and when the consumer is
    waiting for it, because the consumer may hold what the budget was spent on. So there is no
    deadlock, and at most one image is decoded beyond the budget.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = Condition()  # its lock is reentrant: a finalizer may run anywhere
        self._used = 0
        self._most_used = 0
        self._charged: dict[int, int] = {}  # bytes of the images that are being decoded
        self._settled: set[int] = set()
        self._turn = 0  # the lowest number that is neither admitted nor settled
        self._awaited = -1
        self._closed = False

    @property
    def most_used(self) -> int:
        """The most bytes that were held at a time."""
        return self._most_used

    def admit(self, number: int, size: int) -> None:
        """Wait until image `number` may take `size` bytes for decoding.

        Raises:
            ImageError: the budget was closed: nobody waits for the image.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._may_begin(number, size))
            if self._closed:
                raise ImageError("reading was stopped")
            self._charged[number] = size
            self._charge(size)
            self._pass(number)

    def settle(self, number: int, kept: np.ndarray | None = None) -> None:
        """Say that image `number` is decoded, or cannot be: only `kept` remains of it.

        Args:
            number: of the image.
            kept: an array that counts until it is freed; None: nothing is kept.
        """
        if self._charged.get(number, 0) >= _LARGE:
            give_back()
        with self._changed:
            self._charge(-self._charged.pop(number, 0))
            if kept is not None:
                self._charge(kept.nbytes)
                weakref.finalize(kept, self._charge, -kept.nbytes).atexit = False
            if number >= self._turn:
                self._pass(number)

    def wait_for(self, number: int) -> None:
        """Say that the consumer needs image `number` next, and can do nothing before it comes."""
        with self._changed:
            self._awaited = max(self._awaited, number)
            self._changed.notify_all()

    def close(self) -> None:
        """Admit no image any more, and end all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_begin(self, number: int, size: int) -> bool:
        if number != self._turn:
            return False
        fits = self._used + size <= self._limit
        return fits or self._used == 0 or number <= self._awaited

    def _charge(self, size: int) -> None:
        with self._changed:
            self._used += size
            self._most_used = max(self._most_used, self._used)
            self._changed.notify_all()

    def _pass(self, number: int) -> None:
        self._settled.add(number)
        while self._turn in self._settled:
            self._settled.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()
