"""A thin client of the inspection service."""

from __future__ import annotations

import random
import secrets
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from snl.dependencies import require
from snl.errors import SnlError

require(("httpx", "pydantic"), "client", "snl.Client")

import httpx  # noqa: E402

from snl.service.api import schemas  # noqa: E402

RETRIED = frozenset({408, 429, 502, 503, 504})
"""Statuses after which a request is sent again."""
LONGEST_WAIT = 30.0


class ServiceError(SnlError):
    """The service refused a request, or could not be reached.

    Attributes:
        status: of HTTP; 0: no answer came.
        code: of the refusal, such as `bad_image`.
    """

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Client:
    """Sends images to an inspection service, and asks for what it decided.

    Requests without an answer, and those that the service could not serve yet (RETRIED), are
    repeated until `timeout`. Each image is sent with an idempotency key, so repetitions do not
    inspect it twice.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        token: of `snl token create`; None: the service has none.
        timeout: seconds that a request may take with all its repetitions.
        verify: file with the certificate to trust, for a service with a certificate of its own;
            True: those of the system.

    Example:
        >>> with snl.Client("http://127.0.0.1:8000") as client:
        ...     client.inspect("new.png").decision
        'normal'
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        verify: bool | str | Path = True,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        trusted: Any = verify
        if isinstance(verify, str | Path):
            trusted = ssl.create_default_context(cafile=str(verify))
        self.timeout = timeout
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, verify=trusted, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def inspect(
        self,
        image: str | Path | bytes,
        *,
        product: str | None = None,
        part: str = "",
        model: str = "",
        name: str = "",
        key: str | None = None,
    ) -> schemas.Inspection:
        """Inspect an image; when this returns, the result is in the service's store.

        Args:
            image: path, or the content of an image file.
            product: that it shows; None: it is recognised.
            part: physical part that it shows.
            model: that inspects; empty: the first one.
            name: of the image in the store; empty: that of the file.
            key: idempotency key; None: a new one.

        Raises:
            ServiceError: the service refused it, or could not be reached in time.
            OSError: the file cannot be read.
        """
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        query = {
            "name": name or ("" if isinstance(image, bytes) else Path(image).name),
            "part": part,
            "model": model,
            **({} if product is None else {"product": product}),
        }
        headers = {
            "Content-Type": "application/octet-stream",
            "Idempotency-Key": key or secrets.token_hex(16),
        }
        answer = self._send(
            "POST", "/v1/inspections", params=query, content=content, headers=headers
        )
        (result,) = schemas.InspectedAll.model_validate(answer.json()).results
        if result.inspection is None:
            problem = result.error or schemas.Problem(code="refused", message="refused")
            raise ServiceError(problem.message, answer.status_code, problem.code)
        return result.inspection

    def inspections(
        self, *, most: int | None = None, **filters: Any
    ) -> Iterator[schemas.Inspection]:
        """Yield inspections, newest first.

        Args:
            most: how many; None: all.
            filters: `product`, `decision`, `review`, `since`, `until` as the API takes them; times
                may be `datetime`.
        """
        query = {
            name: value.isoformat() if hasattr(value, "isoformat") else value
            for name, value in filters.items()
            if value is not None
        }
        after: str | None = ""
        count = 0
        while after is not None and (most is None or count < most):
            limit = 500 if most is None else min(500, most - count)
            answer = self._send(
                "GET", "/v1/inspections", params={**query, "after": after, "limit": limit}
            )
            page = schemas.Page.model_validate(answer.json())
            yield from page.inspections
            count += len(page.inspections)
            after = page.next

    def inspection(self, id: str) -> schemas.Inspection:
        """Return an inspection of the store."""
        answer = self._send("GET", f"/v1/inspections/{_safe(id)}")
        return schemas.Inspection.model_validate(answer.json())

    def image(self, id: str, what: str = "image") -> bytes:
        """Return a picture of an inspection: `image` as it came, `overlay.png` or `map.png`."""
        return self._send("GET", f"/v1/inspections/{_safe(id)}/{_safe(what)}").content

    def review(self, id: str, verdict: str, note: str = "") -> schemas.Review:
        """Review an inspection: `confirmed`, `false alarm` or `miss`."""
        new = {"verdict": verdict, "note": note}
        answer = self._send("POST", f"/v1/inspections/{_safe(id)}/review", json=new)
        return schemas.Review.model_validate(answer.json())

    def products(self, model: str = "") -> list[schemas.Product]:
        """Return the products of a model; empty: of the first one."""
        answer = self._send("GET", "/v1/products", params={"model": model})
        return [schemas.Product.model_validate(one) for one in answer.json()]

    def models(self) -> list[schemas.Model]:
        """Return the models with their versions."""
        answer = self._send("GET", "/v1/models")
        return [schemas.Model.model_validate(one) for one in answer.json()]

    def wait_until_ready(self) -> None:
        """Return when the service answers; it may still be starting.

        Raises:
            ServiceError: it does not, within `timeout`.
        """
        self._send("GET", "/readyz")

    def _send(self, method: str, path: str, **words: Any) -> httpx.Response:
        """Send a request, again where that may help, and return the answer."""
        end = time.monotonic() + self.timeout
        for attempt in range(1_000_000):
            wait = min(LONGEST_WAIT, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            try:
                answer = self._http.request(method, path, **words)
            except httpx.TransportError as error:
                refused = ServiceError(f"{self._http.base_url}: no answer ({error})")
            else:
                if answer.status_code < 300:
                    return answer
                refused = _refusal(answer)
                if answer.status_code not in RETRIED:
                    raise refused
                wait = max(wait, _retry_after(answer.headers))
            if time.monotonic() + wait >= end:
                break
            time.sleep(wait)
        raise refused


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        problem = schemas.ProblemAnswer.model_validate(answer.json()).error
    except ValueError:
        return ServiceError(f"the service answered {answer.status_code}", answer.status_code)
    return ServiceError(problem.message, answer.status_code, problem.code)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(LONGEST_WAIT, float(text)) if text.isdecimal() else 0.0


def _safe(text: str) -> str:
    """Return a part of a path; a part cannot lead elsewhere."""
    return urllib.parse.quote(text, safe="")
