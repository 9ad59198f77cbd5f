"""Requests that nobody should send: the API by its own description, and hostile image files.

SNL_FUZZ=N sends N times as many; the figures of docs/service.md are with 20.
"""

from __future__ import annotations

import io
import logging
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from snl.service.access import create
from snl.service.service import Service
from tests.service.in_process import client_of, serve, service_of
from tests.trees import save_varied

log = logging.getLogger(__name__)
TIMES = int(os.environ.get("SNL_FUZZ", "1"))


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


def test_the_api_by_its_description(service: Service) -> None:
    """Valid and invalid requests to every route: no server error, and every answer as described."""
    counts: Counter[int] = Counter()
    headers = {"Authorization": f"Bearer {create(service.store, 'fuzz', 'admin')}"}
    with serve(service, open=False) as url:
        description = httpx.get(f"{url}/v1/openapi.json").json()
        for methods in description["paths"].values():
            for one in methods.values():
                one.pop("security", None)  # or tokens are made up, and nothing else is reached
        del description["paths"]["/v1/events"]  # a stream has no end
        del description["paths"]["/v1/session"]  # refuses made-up tokens with 401, as it should
        schema = schemathesis.openapi.from_dict(description)
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @hypothesis.settings(
                    max_examples=2 * TIMES, deadline=None, database=None, derandomize=True,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )  # fmt: skip
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def send(case: Any) -> None:
                    answer = case.call(base_url=url, headers=headers, timeout=30)
                    counts[answer.status_code] += 1
                    case.validate_response(answer, checks=[not_a_server_error])
                    text = answer.content[:100_000]
                    assert b"Traceback" not in text and str(service.data).encode() not in text

                try:
                    send()
                except hypothesis.errors.Unsatisfiable:
                    continue  # a route without anything that could be wrong
    assert counts[200] > 20 and counts[422] > 20 and not counts[401]
    assert not any(status >= 500 for status in counts)
    log.info("answers by status: %s", dict(sorted(counts.items())))


def _hostile(good: bytes, random_: random.Random) -> Iterator[bytes]:
    """Image files that are cut, changed, contradictory, huge, or something else."""
    makers = [
        lambda: good[: random_.randrange(1, len(good))],
        lambda: bytes(
            byte ^ (1 << random_.randrange(8)) if random_.random() < 0.02 else byte for byte in good
        ),
        lambda: random_.randbytes(random_.randrange(1, 4000)),
        lambda: good[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + good[24:],
        lambda: _bomb(30_000),
        lambda: good[:8] + random_.randbytes(200),
        lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + random_.randbytes(50),
        lambda: b"II*\0" + random_.randbytes(300),
        lambda: b"\xff\xd8\xff\xe0" + random_.randbytes(500),
        lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 " + random_.randbytes(100),
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file" + random_.randbytes(20),
        lambda: b"P6 99999 99999 255\n" + random_.randbytes(30),
        lambda: _tall(),
    ]
    while True:
        for make in makers:
            yield make()


def _bomb(side: int) -> bytes:
    """A small PNG that would be a large image."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(200_000))
    parts = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + parts


def _tall() -> bytes:
    """An image of one column."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_hostile_files_are_refused_in_one_line(service: Service, tmp_path: Path) -> None:
    good = save_varied(tmp_path / "good.png", 1).read_bytes()
    counts: Counter[int] = Counter()
    files = _hostile(good, random.Random(0))
    with client_of(service) as client:
        before = client.get("/v1/stats").json()["total"]
        for _ in range(50 * TIMES):
            content = next(files)
            answer = client.post("/v1/inspections", content=content, params={"name": "<b>../x\n"})
            counts[answer.status_code] += 1
            assert answer.status_code in (200, 422), (answer.status_code, content[:60])
            if answer.status_code == 422:
                message = answer.json()["error"]["message"]
                assert len(message.splitlines()) == 1 and str(service.data) not in message
                assert "Traceback" not in answer.text
        assert counts[422] > 25 * TIMES
        assert client.get("/v1/stats").json()["total"] == before + counts[200]
        assert client.post("/v1/inspections", content=good).status_code == 200
    assert not list((service.data / "files" / "incoming").iterdir())
