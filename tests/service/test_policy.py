"""What the API may reach: exactly the addresses and folders of the configuration."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.errors import SettingsError
from snl.service.policy import Policy, parse

ALLOWED = (
    "https://mes.plant:8443",
    "http://10.1.2.3/",
    "mqtt://broker",
    "rtsp://10.1.2.3",
    "http://[2001:DB8::1]:8080",
)
POLICY = Policy(ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "https://mes.plant:8443/a/b?c=d#e",
        "HTTPS://MES.Plant:8443",
        "http://10.1.2.3",
        "http://10.1.2.3:80/x",
        "mqtt://broker:1883",
        "rtsp://10.1.2.3:554/stream?channel=1",
        "http://[2001:db8:0:0::1]:8080/",
    ],
)
def test_allowed(url: str) -> None:
    POLICY.check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        *("https://mes.plant", "http://mes.plant:8443", "https://mes.plant:8444", "mqtts://broker"),
        *("https://mes.plant.evil:8443", "https://evil-mes.plant:8443", "https://plant:8443"),
        *("https://mes.plant:8443@evil", "https://mes.plant:8443%2f@evil", "http://u:p@10.1.2.3"),
        *("https://evil#mes.plant:8443", "https://evil?mes.plant:8443", "https://evil/mes.plant"),
        *("https://mes.plant\\@evil:8443", "https://evil\\.mes.plant:8443", "http:\\\\10.1.2.3"),
        *("http://169.254.169.254/latest/meta-data", "http://localhost", "http://127.0.0.1"),
        *("http://[::1]", "http://[::ffff:10.1.2.3]", "http://0.0.0.0", "http://0", "http://[::]"),
        *("http://167838211", "http://0x0a010203", "http://10.1.515", "http://012.1.2.3"),
        *("http://10.1.02.3", "http://10.1.2.3.", "http://0x0a.1.2.3", "http://10.1.2.3.nip.io"),
        *("https://mes.plant.:8443", "https://mes..plant:8443", "https://-mes.plant:8443"),
        *("https://\uff4des.plant:8443", "https://mes。plant:8443", "https://xn--ms-5ia:8443"),
        *("https://mes.plant:8443\r\nHost: evil", "https://mes.plant:8443 ", "\thttp://10.1.2.3"),
        *("http://10.1.2.3:", "http://10.1.2.3:0", "http://10.1.2.3:65616", "http://10.1.2.3:+80"),
        *("http:10.1.2.3", "http:/10.1.2.3", "//10.1.2.3", "10.1.2.3", "http:///10.1.2.3", ""),
        *("file:///etc/passwd", "ftp://10.1.2.3", "unix://10.1.2.3", "http://[fe80::1%eth0]"),
        *("http://10.1.2.3\0.evil", "http://\u202e10.1.2.3", "http://10.1.2.3:8\u0661"),
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        POLICY.check_address(url)
    text = str(refused.value)
    assert "\n" not in text and text.isprintable() and "u:p" not in text


def test_nothing_is_allowed_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="allow this address in the configuration file"):
        Policy().check_address("http://10.1.2.3")
    with pytest.raises(SettingsError, match="in no allowed folder"):
        Policy().check_folder(str(tmp_path))


@pytest.mark.parametrize("url", ["https://mes.plant/path", "mes.plant", "https://u@mes", "x://y"])
def test_addresses_that_cannot_be_allowed(url: str) -> None:
    with pytest.raises(SettingsError):
        Policy((url,))


@given(
    st.sampled_from(("http://", "https://", "HTTP://", "http:/", "http:\\\\")),
    st.text(st.sampled_from("a1.:@/\\?#[]%0x-_ \t\u3002\uff0e"), max_size=14),
    st.sampled_from(("", "10.1.2.3", "@10.1.2.3", "10.1.2.3@", "[::1]", "mes.plant:8443")),
    st.text(st.sampled_from("a1.:@/\\?#%-"), max_size=6),
)
def test_the_client_reads_an_address_like_the_policy(
    scheme: str, before: str, host: str, after: str
) -> None:
    """What is accepted, httpx connects to; two readings of a URL are the usual way around."""
    url = f"{scheme}{before}{host}{after}"
    try:
        address = parse(url)
    except SettingsError:
        return
    read = httpx.URL(url)
    port = read.port or {"http": 80, "https": 443}[read.scheme]
    assert (read.scheme, read.host, port) == address.origin
    assert not read.userinfo


def test_folders(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "allowed-not"
    (allowed / "deep").mkdir(parents=True)
    other.mkdir()
    (allowed / "link").symlink_to(other)
    (tmp_path / "way").symlink_to(allowed)
    (allowed / "loop").symlink_to(allowed / "loop")
    policy = Policy(folders=(tmp_path / "way",))
    assert policy.check_folder(f"{allowed}/deep/new.csv") == allowed.resolve() / "deep" / "new.csv"
    assert policy.check_folder(f"{tmp_path}/way") == allowed.resolve()
    for path in (
        *(f"{allowed}/link/x.csv", f"{allowed}/../x.csv", f"{allowed}/deep/../../x", f"{other}/x"),
        *(str(tmp_path), "/etc/passwd", "relative/x.csv", "", "~/x", f"{allowed}/a\0b"),
    ):
        with pytest.raises(SettingsError) as refused:
            policy.check_folder(path)
        assert "\n" not in str(refused.value)
