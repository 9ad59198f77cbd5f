"""Every route with every role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from snl.service.access import ROLES, create
from snl.service.api.app import make_app
from snl.service.service import Service
from tests.service.in_process import client_of, service_of

ID = "0" * 32
NEEDED = {
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": "read",
    "GET /v1/stats": "read",
    "GET /v1/statistics": "read",
    "GET /v1/events": "read",
    "POST /v1/session": None,
    "GET /v1/session": "read",
    "DELETE /v1/session": None,
    "GET /v1/storage": "read",
    "PUT /v1/storage": "admin",
    "DELETE /v1/storage/limits": "admin",
    "GET /v1/backup": "admin",
    "GET /v1/tokens": "admin",
    "POST /v1/tokens": "admin",
    "DELETE /v1/tokens/{id}": "admin",
    "GET /v1/drift": "read",
    "POST /v1/drift/acknowledge": "review",
    "GET /v1/audit": "admin",
    "POST /v1/inspections": "inspect",
    "GET /v1/inspections": "read",
    "GET /v1/inspections.csv": "read",
    "GET /v1/inspections.parquet": "read",
    "GET /v1/inspections/{id}": "read",
    "GET /v1/inspections/{id}/image": "read",
    "GET /v1/inspections/{id}/map.png": "read",
    "GET /v1/inspections/{id}/overlay.png": "read",
    "GET /v1/inspections/{id}/heat.png": "read",
    "GET /v1/inspections/{id}/thumbnail.jpg": "read",
    "GET /v1/inspections/{id}/reviews": "read",
    "POST /v1/inspections/{id}/review": "review",
    "DELETE /v1/inspections/{id}/review": "review",
    "POST /v1/inspections/seen": "review",
    "GET /v1/inspections/{id}/nearest": "read",
    "GET /v1/products": "read",
    "GET /v1/products/{name}/scores": "read",
    "PUT /v1/products/{name}/calibration": "admin",
    "GET /v1/products/{name}/ignore-mask": "read",
    "PUT /v1/products/{name}/ignore-mask": "admin",
    "DELETE /v1/products/{name}/ignore-mask": "admin",
    "GET /v1/models": "read",
    "GET /v1/models/{id}/products": "read",
    "POST /v1/models": "admin",
    "GET /v1/models/{id}/comparison": "read",
    "GET /v1/models/{id}/decisions/{inspection}": "read",
    "GET /v1/versions": "read",
    "GET /v1/connectors": "admin",
    "POST /v1/models/{id}/shadow": "admin",
    "POST /v1/models/{id}/promote": "admin",
    "POST /v1/models/{id}/discard": "admin",
    "POST /v1/rollback": "admin",
    "GET /v1/sets": "read",
    "POST /v1/sets/{set}/images": "admin",
    "GET /v1/sets/{set}/images": "read",
    "GET /v1/sets/{set}/images/{id}": "read",
    "GET /v1/sets/{set}/images/{id}/thumbnail.jpg": "read",
    "GET /v1/sets/{set}/check": "read",
    "DELETE /v1/sets/{set}": "admin",
    "DELETE /v1/sets/{set}/images/{id}": "admin",
    "POST /v1/jobs": "admin",
    "GET /v1/jobs": "read",
    "GET /v1/jobs/{id}": "read",
    "GET /v1/jobs/{id}/log": "admin",
    "POST /v1/jobs/{id}/cancel": "admin",
    "GET /v1/sinks": "admin",
    "PUT /v1/sinks/{name}": "admin",
    "DELETE /v1/sinks/{name}": "admin",
    "POST /v1/sinks/{name}/pause": "admin",
    "POST /v1/sinks/{name}/resume": "admin",
    "POST /v1/sinks/{name}/test": "admin",
    "GET /v1/sinks/{name}/dead": "admin",
    "POST /v1/sinks/{name}/dead/retry": "admin",
    "DELETE /v1/sinks/{name}/dead": "admin",
    "GET /v1/sources": "read",
    "PUT /v1/sources/{name}": "admin",
    "DELETE /v1/sources/{name}": "admin",
    "POST /v1/sources/{name}/start": "admin",
    "POST /v1/sources/{name}/{action}": "review",
}
"""The role that a route needs; None: none."""


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


def test_the_table_has_every_route(service: Service) -> None:
    paths = make_app(service).openapi()["paths"]
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert found == NEEDED.keys()


def test_every_route_refuses_what_its_role_does_not_allow(service: Service) -> None:
    tokens = {role: create(service.store, role, role) for role in ROLES}
    wrong = f"{tokens['admin'][:-1]}{'a' if tokens['admin'][-1] != 'a' else 'b'}"
    with client_of(service, open=False) as client:
        for route, needed in NEEDED.items():
            for role in ROLES:
                status = _status(client, route, tokens[role])
                is_allowed = needed is None or ROLES.index(role) >= ROLES.index(needed)
                assert (status not in (401, 403)) == is_allowed, (route, role, status)
                assert status < 500, (route, role, status)
            for token in (None, wrong, "snl_", "Bearer", tokens["read"].upper()):
                status = _status(client, route, token)
                assert (status == 401) == (needed is not None), (route, token, status)


def _status(client: httpx.Client, route: str, token: str | None) -> int:
    method, path = route.split()
    for name in ("{id}", "{set}", "{name}"):
        path = path.replace(name, ID)
    path = path.replace("{action}", "pause")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with client.stream(method, path, headers=headers, content=b"") as answer:
        return answer.status_code  # a stream of events has no end
