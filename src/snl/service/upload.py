"""An image on its way into the service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Upload:
    """An image that was sent.

    Attributes:
        content: of the file.
        name: that the client gave; it is only shown.
        model: that inspects; empty: the first one.
        product: that the image shows; None: it is recognised.
        part: physical part.
        key: idempotency key; None: none.
        client: who sent it.
        deadline: `time.monotonic()` after which nobody needs the answer.
    """

    content: bytes
    name: str = ""
    model: str = ""
    product: str | None = None
    part: str = ""
    key: str | None = None
    client: str = ""
    deadline: float = float("inf")
