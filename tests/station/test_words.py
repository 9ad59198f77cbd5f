"""The message files: complete, used, and safe against those of users."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from snl.errors import SettingsError
from snl.station.pages import LANGUAGES, SCRIPTS, page_script, read_words
from snl.web import assets

ENGLISH = json.loads(assets.asset("snl.station", "words/en.json"))


def placeholders(value: object) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", json.dumps(value)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_values(language: str) -> None:
    words = json.loads(assets.asset("snl.station", f"words/{language}.json"))
    assert words.keys() == ENGLISH.keys()
    for key, text in words.items():
        assert type(text) is type(ENGLISH[key]), key
        assert placeholders(text) == placeholders(ENGLISH[key]), key
        if isinstance(text, dict):
            assert "other" in text, key


def test_every_text_of_the_script_exists_and_every_text_is_used() -> None:
    script = page_script()
    plain = set(re.findall(r"(?<![\w.])t\(\s*\"([^\"]+)\"", script))
    assert plain <= ENGLISH.keys()
    literals = set(re.findall(r"\"([\w .-]+)\"", script))
    ends = re.findall(r"`([\w.-]*)\$\{[^`]*?\}([\w.-]*)`", script)
    made = [
        re.compile(f"{re.escape(a)}.+{re.escape(b)}")
        for a, b in ends
        if a.endswith(".") or b.startswith(".")
    ]
    assert len(made) > 10
    unused = [
        key for key in ENGLISH
        if key not in literals and not key.startswith(("term.", "name."))
        and not any(pattern.fullmatch(key) for pattern in made)
    ]  # fmt: skip
    assert unused == []


def test_the_page_has_no_text_of_its_own() -> None:
    """Words that people read are in the message files, not in the scripts."""
    script = "".join(assets.asset("snl.station", f"{name}.js") for name in SCRIPTS)
    texts = re.findall(r"\b(?:text|label|placeholder): \"([^\"]+)\"", script)
    assert [one for one in texts if re.search(r"[A-Za-z]{3,}", one) and one != "CSV"] == []


def test_a_plant_adds_its_language(tmp_path: Path) -> None:
    (tmp_path / "fr.json").write_text('{"language": "Français", "save": "Enregistrer"}')
    words = read_words(tmp_path)
    assert words["fr"]["save"] == "Enregistrer"
    assert words["fr"]["cancel"] == ENGLISH["cancel"]
    assert words["en"] == ENGLISH


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("[]", 'needs "language"'),
        ('{"language": "x", "nothing": "y"}', "nothing: the page has no such text"),
        ('{"language": "x", "save": 3}', "save: the page has no such text"),
    ],
)
def test_a_wrong_message_file_is_refused_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "xx.json").write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_words(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        read_words(tmp_path / "none")
