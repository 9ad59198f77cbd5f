"""Limits: rates of clients, slow heads and bodies, TLS, the configuration file."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from snl.cli.main import main
from snl.errors import SettingsError
from snl.service.api import limits
from snl.service.config import read_config
from snl.service.service import Service
from tests.service.conftest import Start
from tests.service.in_process import client_of, serve, service_of


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


def test_a_client_gets_its_rate_and_no_more() -> None:
    """Against the definition: in any time t at most burst + rate * t requests."""
    now = [0.0]
    rates = limits.RateLimit(10.0, 5, now=lambda: now[0])
    allowed: list[float] = []
    for step in range(400):
        now[0] = step * 0.01
        if not rates.wait("a"):
            allowed.append(now[0])
    for i, first in enumerate(allowed):
        for j in range(i, len(allowed)):
            assert j - i + 1 <= 5 + 10.0 * (allowed[j] - first) + 1e-6
    assert len(allowed) >= 5 + 10.0 * 3.98 - 1
    assert not rates.wait("b")  # another client is not held up
    wait = rates.wait("a") or rates.wait("a")
    assert 0 < wait <= 0.1
    now[0] += wait + 1e-6
    assert not rates.wait("a")
    assert limits.RateLimit(0, 1).wait("a") == limits.RateLimit(0, 1).wait("a") == 0


def test_clients_beyond_the_most_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CLIENTS", 10)
    rates = limits.RateLimit(1.0, 1)
    for number in range(1000):
        rates.wait(str(number))
    assert len(rates._clients) == 10


def test_too_many_requests_are_refused(service: Service) -> None:
    with client_of(service, requests_per_second=1.0, burst=3) as client:
        answers = [client.get("/v1/stats") for _ in range(8)]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert answers[-1].status_code == 429
        assert answers[-1].json()["error"]["code"] == "rate"
        assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_head_that_does_not_end_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
    with serve(service) as url:
        port = httpx.URL(url).port
        assert port is not None
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
                one.sendall(sent)
                began = time.monotonic()
                assert one.recv(100) == b""
                assert 0.3 < time.monotonic() - began < 5
        # drop by drop, each well within the time: the head as a whole is too late
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as one,
            pytest.raises(OSError),
        ):
            for letter in b"GET /healthz HTTP/1.1\r\n" * 20:
                one.sendall(bytes([letter]))
                time.sleep(0.05)
        with httpx.Client(base_url=url) as client:
            for _ in range(2):  # a connection that was good may be used again, and rest
                assert client.get("/healthz").status_code == 200


def test_a_body_that_comes_too_slowly_is_refused(service: Service) -> None:
    with serve(service, body_seconds=0.5) as url:
        port = httpx.URL(url).port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            head = (
                "POST /v1/inspections HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
            )
            one.sendall(head.encode() + b"abc")
            text = one.recv(4000)
            assert text.split()[1] == b"408"
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert not list((service.data / "files" / "incoming").iterdir())


def test_a_cut_upload_is_no_defect(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with serve(service) as url:
        for kind in ("application/octet-stream", "multipart/form-data; boundary=x"):
            with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as one:
                head = "POST /v1/inspections HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                head += f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\nhalf"
                one.sendall(head.encode())
        time.sleep(0.5)
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert not [one for one in caplog.records if one.name == "snl.service"]


# --- TLS ---


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    return cert, secret


def test_https_with_a_configuration_file(
    start: Start, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = _certificate(tmp_path)
    (tmp_path / "snl.toml").write_text(
        f'[server]\nmodels = ["{calibrated.as_posix()}"]\ntls_cert = "cert.pem"\n'
        'tls_key = "key.pem"\n[limits]\nbody_mib = 1\n'
    )
    server = start(None, "--config", tmp_path / "snl.toml", wait=False)
    trusted = ssl.create_default_context(cafile=str(cert))
    url = f"https://127.0.0.1:{server.port}"
    end = time.monotonic() + 60
    while True:
        try:
            assert httpx.get(f"{url}/readyz", verify=trusted).status_code == 200
            break
        except httpx.TransportError:
            assert time.monotonic() < end and server.process.poll() is None
            time.sleep(0.1)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/readyz")
    large = httpx.post(f"{url}/v1/inspections", content=b"x" * 2**20 + b"x", verify=trusted)
    assert large.status_code == 413
    for words, message in (
        (["--tls-cert", cert], "needs both"),
        (["--tls-cert", key, "--tls-key", key], "cannot be used"),
        (["--tls-cert", tmp_path / "none", "--tls-key", key], "cannot be used"),
    ):
        options = [*words, "--data", tmp_path / "other"]
        assert main(["serve", str(calibrated), *map(str, options)]) == 2
        errors = capsys.readouterr().err
        assert message in errors and len(errors.strip().splitlines()) == 1


# --- the configuration file ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server", "is not a TOML file"),
        ("[server]\nprot = 1", "server.prot: unknown key"),
        ("[server]\nport = 99999", "server.port"),
        ("[limits]\nbody_mib = 'a'", "limits.body_mib"),
        ("[retention]\ndays = -1", "retention.days"),
        ("[sinks.a]\nurl = '${SNL_TEST_NOT_SET}'", "SNL_TEST_NOT_SET is not set"),
        ("[sinks]\na = 1", "sinks.a"),
    ],
)
def test_wrong_configurations(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "snl.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as found:
        read_config(file)
    assert len(str(found.value).splitlines()) == 1
    with pytest.raises(SettingsError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_paths_and_variables_of_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNL_TEST_SECRET", "hush")
    file = tmp_path / "snl.toml"
    file.write_text(
        "[server]\nmodels = ['a.snl', '/b.snl']\ndata = 'd'\n[allow]\nfolders = ['in']\n"
        "[sinks.mes]\nkind = 'webhook'\nsecret = '${SNL_TEST_SECRET}!'\n"
        "headers = ['${SNL_TEST_SECRET}']\n"
    )
    config = read_config(file)
    base = tmp_path.resolve()
    assert config.server.models == [base / "a.snl", Path("/b.snl")]
    assert config.server.data == base / "d" and config.server.tls_key is None
    assert config.allow.folders == [base / "in"]
    assert config.sinks["mes"] == {"kind": "webhook", "secret": "hush!", "headers": ["hush"]}
