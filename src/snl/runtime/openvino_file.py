"""Read and write the metadata of an OpenVINO file (.xml) as bytes, without an XML parser.

Metadata are elements `<KEY value="TEXT" />` of the network's `rt_info`. All other bytes stay as
they are, so that a checksum can cover every one of them. A parser would hide some, and would expand
entities, by which a small file can take all memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

_ESCAPES = (
    *(("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")),
    *(("\r", "&#13;"), ("\n", "&#10;"), ("\t", "&#09;")),
)
"""As ElementTree writes an attribute; `&` is replaced first, and restored last."""
_END = b"</net>"
_INFORMATION, _INFORMATION_END = b"<rt_info>", b"</rt_info>"
_VERSION = re.compile(rb'<info name="OpenVINO Runtime" value="([\d.]{1,40})')


def split(content: bytes, keys: tuple[str, ...]) -> tuple[bytes, bytes, dict[str, str]]:
    """Return what stands before and after the metadata of a file, and the metadata.

    Args:
        content: of the file; without metadata, both parts meet where `join` would put them.
        keys: of the metadata.

    Raises:
        ValueError: the content is not an OpenVINO file in UTF-8, it is truncated, or a key occurs
            twice.
    """
    try:
        str(content, "utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net")):
        raise ValueError("it is empty, or no XML file")
    if not content.rstrip().endswith(_END):
        raise ValueError("it is cut off, or has no network")
    names = b"|".join(re.escape(key.encode()) for key in keys)
    pieces, table, position = [], {}, 0
    for match in re.finditer(rb"<(" + names + rb') value="([^"<]*)" ?/>', content):
        key = str(match[1], "utf-8")
        if key in table:
            raise ValueError(f"the key {key} occurs twice")
        table[key] = _unescaped(str(match[2], "utf-8"))
        pieces.append(content[position : match.start()])
        position = match.end()
    if not pieces:
        return *_opened(content), table
    return pieces[0], b"".join(pieces[1:]) + content[position:], table


def join(before: bytes, after: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a file with metadata; inverse of `split`."""
    elements = (f'<{key} value="{_escaped(text)}" />' for key, text in metadata.items())
    return before + "".join(elements).encode() + after


def checksum(before: bytes, after: bytes, weights: str) -> str:
    """Return the checksum of a network: of every byte of the .xml but metadata, and of the .bin.

    Args:
        before, after: as `split` returns them.
        weights: checksum of the .bin.
    """
    digest = hashlib.sha256(f"{weights} {len(before)} {len(after)} ".encode())
    digest.update(before)
    digest.update(after)
    return digest.hexdigest()


def checksum_of_file(path: Path) -> str:
    """Return the sha256 of a file, which is not read into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written_by(content: bytes) -> tuple[int, ...]:
    """Return the version of OpenVINO that wrote a file, such as (2026, 4, 0); () if unknown."""
    match = _VERSION.search(content)
    return version_of(str(match[1], "ascii")) if match else ()


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version: (2026, 4, 1) of `2026.4.1-22982-e213a14`."""
    match = re.match(r"\d{1,9}(?:\.\d{1,9})*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _opened(content: bytes) -> tuple[bytes, bytes]:
    """Return a file without metadata in two parts, divided at the end of the network's `rt_info`;
    if there is none, it is added."""
    before = content.rstrip().removesuffix(_END).rstrip()
    inside = before.removesuffix(_INFORMATION_END)
    if inside != before:  # that of a layer is not the last element
        return inside, content[len(inside) :]
    return before + _INFORMATION, _INFORMATION_END + content[len(before) :]


def _escaped(text: str) -> str:
    for letter, escape in _ESCAPES:
        text = text.replace(letter, escape)
    return text


def _unescaped(text: str) -> str:
    for letter, escape in reversed(_ESCAPES):
        text = text.replace(escape, letter)
    return text
