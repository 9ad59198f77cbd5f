"""Words of neighbouring tools, typing errors, and rates as people write them."""

from __future__ import annotations

import argparse

import pytest

from snl.cli import main, neighbours
from snl.cli.options import rate


def error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main.parse(words)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("word", "ours"),
    [("predict", "inspect"), ("list", "info"), ("fit", "train"), ("inpsect", "inspect"),
     ("evalute", "evaluate"), ("Predict", "inspect"), ("version", "--version")],
)  # fmt: skip
def test_a_verb_of_another_tool_or_a_misspelt_one(
    word: str, ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"there is no verb '{word}'; use snl {ours};" in error([word, "x"], capsys)


def test_a_word_that_is_like_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'zzz'" in error(["zzz"], capsys)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["inspect", "x", "y", "--overlay", "o"], "--overlay: use --out"),
        (["inspect", "x", "y", "--threshold=3"], "--threshold: use --rate"),
        (["inspect", "x", "y", "--moniter", "o"], "--moniter: did you mean --monitor?"),
        (["train", "x", "-o", "m", "--epochs", "3"], "--epochs: use --steps"),
        (["train", "x", "-o", "m", "--backbone", "r"], "--backbone: use --teacher"),
    ],
)
def test_an_option_of_another_tool_or_a_misspelt_one(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in error(words, capsys)


def test_all_words_lead_to_verbs_and_options_that_exist() -> None:
    assert set(neighbours.VERBS) - set(main.VERBS) == {"--version", "--help"}
    theirs = [word for words in neighbours.VERBS.values() for word in words]
    assert len(theirs) == len(set(theirs)) and not set(theirs) & set(main.VERBS)
    options = set()
    for verb in main.VERBS:
        parser = main._parser_of(main.make_parser(verb), verb)
        options |= {option for action in parser._actions for option in action.option_strings}
    assert set(neighbours.OPTIONS) <= options


@pytest.mark.parametrize(("text", "value"), [("0.02", 0.02), ("2%", 0.02), (" 0.5 % ", 0.005)])
def test_a_rate_is_a_share_or_a_percentage(text: str, value: float) -> None:
    assert rate(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("2", r"; 0\.02 or 2%\?$"), ("100%", "percentage$"), ("0", "percentage$"), ("%", "is not a"),
     ("0,02", r"; with a decimal point: 0\.02\?$"), ("2,5%", r"point: 2\.5%\?$"),
     ("1", r"; 0\.01 or 1%\?$"), ("nan", "is not a"), ("200", "percentage$")],
)  # fmt: skip
def test_what_is_no_rate_is_said_with_what_may_have_been_meant(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        rate(text)
