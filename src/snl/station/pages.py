"""Serve the page and what it loads. Everything comes from this server, and nothing is built."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response

from snl.errors import SettingsError
from snl.service.api.answers import RefusedError
from snl.web import assets

PACKAGE = "snl.station"
SCRIPTS = (
    *("words", "api", "boxes", "viewer", "scale", "inspection", "live", "review", "figures"),
    *("rates", "upload", "learn", "versions", "products", "connectors", "settings", "help", "app"),
)
LANGUAGES = ("en", "de")
"""Languages that the page brings; a folder of the configuration can have more."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, and no script or style is inline."""


def add_station(app: FastAPI, words: Path | None = None) -> None:
    """Add the page to the application of the service.

    Args:
        app: of `snl.service.api.app.make_app`.
        words: folder of message files `LANGUAGE.json`; they replace or complete those of the page.

    Raises:
        SettingsError: a message file cannot be used.
    """
    languages = read_words(words)
    style, script = assets.style(PACKAGE, "station.css"), page_script()
    version = hashlib.sha256((style + script).encode()).hexdigest()[:12]
    page = assets.asset(PACKAGE, "index.html")
    page = page.replace("{{symbols}}", assets.symbols()).replace("{{version}}", version)
    texts = {f"words-{key}.json": one for key, one in languages.items()}
    names = {key: one["language"] for key, one in languages.items()}
    files = {
        "station.css": (style, "text/css"),
        "station.js": (script, "text/javascript"),
        "icon.svg": (assets.asset(PACKAGE, "icon.svg"), "image/svg+xml"),
        **{
            name: (json.dumps(value, ensure_ascii=False), "application/json")
            for name, value in {"languages.json": names, **texts}.items()
        },
    }
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def index() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    @routes.get("/station/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            raise RefusedError(404, "not_found", "the page has no such file")
        content, kind = files[name]
        keep = "no-cache" if kind == "application/json" else "public, max-age=31536000, immutable"
        return Response(content, media_type=kind, headers={"Cache-Control": keep})

    app.include_router(routes)


@cache
def page_script() -> str:
    """Return the script of the page."""
    return assets.script(PACKAGE, [f"{name}.js" for name in SCRIPTS])


def read_words(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Return the texts by language. What a language lacks is English.

    Args:
        folder: of more message files; None: there is none.

    Raises:
        SettingsError: one of them is not JSON, or has a key that the page does not know.
    """
    found = {name: json.loads(assets.asset(PACKAGE, f"words/{name}.json")) for name in LANGUAGES}
    english = found["en"]
    if folder is not None:
        if not folder.is_dir():
            raise SettingsError(f"{folder}: the folder of message files does not exist")
        for path in sorted(folder.glob("*.json")):
            try:
                words = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise SettingsError(f"{path}: is not a JSON file ({error})") from None
            if not isinstance(words, dict) or not isinstance(words.get("language"), str):
                raise SettingsError(f'{path}: needs "language", the name of the language')
            for key, value in words.items():
                if key not in english or type(value) is not type(english[key]):
                    raise SettingsError(f"{path}: {key}: the page has no such text")
            found[path.stem] = {**found.get(path.stem, {}), **words}
    return {name: {**english, **words} for name, words in found.items()}
