"""Settings: names, precedence, round trip, ranges; errors for every invalid input."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from snl.cli.main import main
from snl.errors import SettingsError
from snl.settings import (
    METHODS,
    PRESETS,
    RENAMED,
    Range,
    Settings,
    parse_assignments,
    resolve,
    setting_values,
)

NAMES = list(setting_values(Settings()))


def get(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def refusal(changes: dict[str, Any]) -> str:
    """Return the one-line message with which changes to the defaults are refused."""
    with pytest.raises(SettingsError) as caught:
        resolve(overrides=changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_preset(method: str, preset: str) -> None:
    settings = resolve(method, preset)
    assert (settings.method, settings.preset) == (method, preset)
    for name, value in {**PRESETS[preset], **METHODS[method]}.items():
        assert get(settings, name) == value
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_paper_preset_is_rd4ads() -> None:
    settings = resolve("rd", "paper")
    assert settings.teacher.name == "wide_resnet50_2" and settings.image_size == 256
    assert settings.loss.global_cosine == 1 and settings.cram.form == "none"


def test_snl_methods_have_their_parts() -> None:
    for name, architecture in (("snl-rd", "reverse"), ("snl-fd", "forward")):
        settings = resolve(name)
        assert settings.student.architecture == architecture and settings.cram.form != "none"
        loss, plain = settings.loss, resolve(name.removeprefix("snl-")).loss
        assert min(loss.spatial, loss.intra, loss.inter) > 0
        assert (loss.global_cosine, loss.channel) == (plain.global_cosine, plain.channel)
        assert plain.spatial == plain.intra == plain.inter == 0
        assert resolve(name.removeprefix("snl-")).cram.form == "none"


def test_the_default_is_snl_rd_with_extras() -> None:
    settings, base = resolve(), resolve("snl-rd")
    assert settings == resolve("snl") and settings.method == "snl"
    unchanged = ("teacher", "student", "cram", "image_size")
    assert all(getattr(settings, part) == getattr(base, part) for part in unchanged)
    assert 0 < settings.loss.hard_mining < 1 and settings.loss.hard_mining_factor < 1
    assert settings.map.distance == "standardised" and settings.map.normalisation_clusters > 0
    # the published methods have no extras
    for name in METHODS.keys() - {"snl"}:
        other = resolve(name)
        assert (
            other.loss.hard_mining == other.map.normalisation_clusters == 0
            and other.map.kind == "feature"
        )
        assert other.map.distance != "standardised" and not other.map.stage_weights


@pytest.mark.parametrize("weights", ["0", "0,0,0", [0.0, 0]])
def test_stage_weights_of_zeros_only_are_refused(weights: Any) -> None:
    assert "'map.stage_weights' has only zeros" in refusal({"map.stage_weights": weights})
    resolve(overrides={"map.stage_weights": "0,1,0"})


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        PRESETS, "p", {"image_size": 128, "cram.centres": 7, "training.steps": 11, "map.sigma": 1}
    )
    monkeypatch.setitem(
        METHODS,
        "m",
        {"loss.global_cosine": 1, "cram.centres": 8, "training.steps": 12, "map.sigma": 2},
    )
    settings = resolve("m", "p", {"training.steps": 13, "map.sigma": 3})
    assert settings.training.batch_size == Settings().training.batch_size
    assert settings.image_size == 128
    assert settings.cram.centres == 8
    assert (settings.training.steps, settings.map.sigma) == (13, 3)


def test_nothing_shared_is_changed() -> None:
    before = Settings()
    changed = before.replace({"loss.global_cosine": 1, "cram.form": "dense"})
    assert changed.cram.form == "dense" and before.cram.form == "none"
    assert before == Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.image_size = 1  # type: ignore[misc]


def test_names_cover_every_field() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert {"image_size", "teacher.name", "cram.form", "training.betas", "map.score"} <= set(NAMES)
    settings = resolve()
    for name in NAMES:
        if name not in ("method", "preset"):
            assert settings.replace({name: get(settings, name)}) == settings


CONVERSIONS = [
    ("image_size", "128", 128),
    ("image_size", 128.0, 128),
    ("training.lr", "1e-3", 1e-3),
    ("training.lr", 1, 1.0),
    ("training.betas", "0.5,0.999", (0.5, 0.999)),
    ("training.betas", [0.5, 0.999], (0.5, 0.999)),
    ("teacher.stages", "1, 2,3", (1, 2, 3)),
    ("teacher.stages", "", ()),
    ("teacher.stages", [], ()),
    ("teacher.stages", 2, (2,)),
    ("student.blocks", "3,4,6", (3, 4, 6)),
    ("cram.form", "gate", "gate"),
    ("map.stage_weights", "1, 0.5,2", (1.0, 0.5, 2.0)),
    ("map.stage_weights", "", ()),
    ("map.normalisation_clusters", "64", 64),
    ("map.normalisation_clusters", 64.0, 64),
    ("loss.hard_mining", "0.5", 0.5),
]


@pytest.mark.parametrize(("name", "value", "converted"), CONVERSIONS)
def test_conversion(name: str, value: Any, converted: Any) -> None:
    result = get(resolve(overrides={name: value}), name)
    assert result == converted and type(result) is type(converted)


WRONG_TYPES = [
    ("image_size", "large", "whole number"),
    ("image_size", "128.5", "whole number"),
    ("image_size", 128.5, "whole number"),
    ("image_size", True, "whole number"),
    ("image_size", None, "whole number"),
    ("image_size", [128], "whole number"),
    ("image_size", float("inf"), "whole number"),
    ("training.lr", "fast", "number"),
    ("training.lr", None, "number"),
    ("training.lr", False, "number"),
    ("training.lr", 10**400, "number"),
    ("training.betas", "0.9", "numbers a,b,c"),
    ("training.betas", "0.9,0.99,0.999", "numbers a,b,c"),
    ("training.betas", "a,b", "number"),
    ("teacher.stages", "1,x", "whole number"),
    ("teacher.name", 5, "text"),
    ("teacher.name", None, "text"),
    ("cram.form", "foo", "none, centres, rebuild, dense, gate"),
    ("cram.form", ["none"], "none, centres, rebuild, dense, gate"),
    ("cram.form", 1, "none, centres, rebuild, dense, gate"),
    ("map.kind", "all", "feature, affinity, both"),
    ("map.distance", "standardized", "cosine, l2, standardised"),
    ("map.normalisation_clusters", "many", "whole number"),
    ("map.normalisation_clusters", 1.5, "whole number"),
    ("map.normalisation_clusters", True, "whole number"),
    ("map.stage_weights", "1,x", "number"),
    ("loss.hard_mining", "half", "number"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG_TYPES)
def test_wrong_type_is_refused(name: str, value: Any, wanted: str) -> None:
    message = refusal({name: value})
    assert f"'{name}'" in message and wanted in message
    if not (isinstance(value, str) and "," in value):  # for lists, the item is reported
        assert repr(value)[:20] in message


OUT_OF_RANGE = [
    ("image_size", [63, 4097, 0, -256]),
    ("tile", [-1, 1, 31, 8193]),
    ("white_level", [-1, 1, 254, 65536]),
    ("teacher.stages", ["-1", "1,-2"]),
    ("teacher.block_groups", [0, -1, 101]),
    ("student.blocks", ["0", "2,0,2", "-1", ""]),
    ("student.bottleneck_blocks", [0, -1]),
    ("student.bottleneck_size", [-1, 4097]),
    ("student.expansion", [0, -4]),
    ("cram.centres", [0, -1]),
    *((f"loss.{x}", [-0.1, "nan", "inf"]) for x in ("global_cosine", "mse", "channel")),
    *((f"loss.{x}", [-0.1, "nan", "inf"]) for x in ("spatial", "intra", "inter")),
    ("loss.spatial_temperature", [0, -1, "nan", "inf"]),
    ("loss.hard_mining", [-0.1, 1, "nan"]),
    ("loss.hard_mining_factor", [-0.1, 1.1, "nan"]),
    ("map.stage_weights", ["-1,1,1", "nan,1,1"]),
    ("map.normalisation_clusters", [-1, 5000]),
    ("map.memory", [-1, 1_000_001]),
    ("products", [-1, 1_000_001]),
    ("map.sigma", [-1, "nan", "inf"]),
    ("map.top_share", [0, -0.1, 1.1, "nan"]),
    ("training.steps", [0, -1]),
    ("training.batch_size", [0, -1]),
    ("training.lr", [0, -1e-3, "nan", "inf"]),
    ("training.betas", ["1,0.9", "0.9,1", "-0.1,0.9", "nan,0.9"]),
    ("training.weight_decay", [-1, "nan", "inf"]),
    ("training.warmup", [-0.1, 1.1, "nan"]),
    ("training.final_lr_ratio", [-0.1, 1.1, "nan"]),
    ("training.gradient_clip", [-1, "nan", "inf"]),
    ("training.seed", [-1, 2**63]),
    ("training.threads", [-1, 1025]),
    ("training.holdout", [-0.1, 0.51, "nan"]),
    ("training.test_share", [-0.1, 0.91, "nan"]),
    ("training.holdout_min", [-1, 1_000_001]),
]


def test_every_number_has_refused_values() -> None:
    numbers = {n for n in NAMES if not isinstance(get(Settings(), n), str)}
    assert numbers == {name for name, _ in OUT_OF_RANGE}


@pytest.mark.parametrize(("name", "values"), OUT_OF_RANGE)
def test_out_of_range_is_refused(name: str, values: list[Any]) -> None:
    for value in values:
        message = refusal({name: value})
        assert f"'{name}'" in message
        assert "must be in" in message or "at least one" in message


# --- ranges in the metadata of the fields ---


def annotated(kind: type[Any], prefix: str = "") -> dict[str, tuple[Any, Range]]:
    """Type and range of every field that has a range, by its dotted name."""
    ranges: dict[str, tuple[Any, Range]] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            ranges |= annotated(hint, f"{name}.")  # type: ignore[arg-type]
        for item in getattr(hint, "__metadata__", ()):
            if isinstance(item, Range):
                ranges[prefix + name] = (get_args(hint)[0], item)
    return ranges


RANGES = annotated(Settings)


def with_number(name: str, number: float) -> Any:
    """A value of the setting that holds this number: the number, or a tuple with it."""
    kind = RANGES[name][0]
    if get_origin(kind) is not tuple:
        return number
    if get_args(kind)[-1] is Ellipsis:
        return [1, number] if RANGES[name][1].low <= 1 else [number]
    return [RANGES[name][1].low] * (len(get_args(kind)) - 1) + [number]


def is_whole(name: str) -> bool:
    kind = RANGES[name][0]
    return int in (kind, *get_args(kind))


def test_every_number_has_a_range() -> None:
    assert RANGES.keys() == {n for n in NAMES if not isinstance(get(Settings(), n), str)}


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_are_accepted_and_the_next_numbers_refused(name: str) -> None:
    limits = RANGES[name][1]
    whole = is_whole(name)
    for end, beyond in ((limits.low, -math.inf), (limits.high, math.inf)):
        value = with_number(name, int(end) if whole else float(end))
        result = get(resolve(overrides={name: value}), name)
        assert result == (tuple(value) if isinstance(value, list) else value)
        step = 1 if beyond > 0 else -1
        outside = int(end) + step if whole else math.nextafter(end, beyond)
        message = refusal({name: with_number(name, outside)})
        assert f"'{name}' is {outside}; it must be in {limits.low:g}..{limits.high:g}" in message


@budget(max_examples=300, deadline=None)
@given(st.data())
def test_numbers_are_accepted_exactly_within_their_range(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(RANGES)))
    limits = RANGES[name][1]
    width = limits.high - limits.low
    if is_whole(name):
        number = data.draw(
            st.integers(int(limits.low), int(limits.high))
            | st.integers(int(limits.low - width) - 1, int(limits.high + width) + 1)
        )
    else:
        number = data.draw(st.floats(limits.low, limits.high) | st.floats())
    inside = limits.low <= number <= limits.high
    if (name == "tile" and 0 < number < 32) or (name == "white_level" and 0 < number < 255):
        inside = False  # 0 stands for whole images
    value = with_number(name, number)
    as_text = ",".join(map(repr, value)) if isinstance(value, list) else repr(value)
    for given_value in (value, as_text):
        if inside:
            result = get(resolve(overrides={name: given_value}), name)
            assert (result[-1] if isinstance(result, tuple) else result) == number
        else:
            message = refusal({name: given_value})
            assert f"'{name}'" in message and "must be in" in message


# --- old names ---


def test_old_names_are_no_settings_and_new_ones_are() -> None:
    assert set(RENAMED) & set(NAMES) == set()
    assert set(RENAMED.values()) <= set(NAMES)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_answered_by_the_new_one(old: str, new: str) -> None:
    expected = f"setting '{old}' is now called '{new}'; use that name"
    assert refusal({old: get(resolve(), new)}) == refusal({old: "x"}) == expected
    section, _, name = old.partition(".")
    documents: list[dict[str, Any]] = [{section: {name: 1}}, {old: 1}]
    if section in ("loss", "map"):  # there, the name could be a plug-in's
        documents.append({section: {name: {"weight": 1}}})
    for document in documents:
        with pytest.raises(SettingsError) as caught:
            Settings.from_dict(document)
        assert str(caught.value) == expected


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_command_answers_an_old_name_by_the_new_one(
    old: str, new: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.snl"
    assert main(["train", str(parts), "-o", str(output), "--set", f"{old}=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"setting '{old}' is now called '{new}'; use that name" in line
    assert not list(tmp_path.iterdir())


def test_edges_of_the_ranges_are_allowed() -> None:
    for name, value in (
        ("white_level", 0),
        ("white_level", 255),
        ("white_level", 65535),
        ("tile", 0),
        ("tile", 32),
        ("tile", 8192),
        ("image_size", 64),
        ("image_size", 4096),
        ("map.sigma", 0),
        ("map.top_share", 1),
        ("training.warmup", 0),
        ("training.warmup", 1),
        ("training.gradient_clip", 0),
        ("training.seed", 2**63 - 1),
        ("training.holdout", 0),
        ("training.holdout", 0.5),
        ("cram.centres", 1),
    ):
        assert get(resolve(overrides={name: value}), name) == value


def test_contradictions_are_refused() -> None:
    assert "cram.place=deepest" in refusal({"cram.place": "stages"})
    assert resolve("snl-fd", overrides={"cram.place": "stages"}).cram.place == "stages"
    off = {f"loss.{x}": 0 for x in ("global_cosine", "channel", "spatial", "intra", "inter")}
    assert "loss.global_cosine" in refusal(off)
    assert resolve(overrides={**off, "loss.global_cosine": 1}).loss.global_cosine == 1


UNKNOWN = {
    "cram.fom": "cram.form",
    "training.learning_rate": "training",
    "image-size": "image_size",
    "teacher": "teacher",
    "teacher.": "teacher",
    "teacher.name.x": "teacher.name",
    ".name": "teacher.name",
    "to_dict": "products",
    "": "known",
    "zzz": "image_size",
}


@pytest.mark.parametrize(("name", "hint"), UNKNOWN.items())
def test_unknown_name_is_refused_with_a_hint(name: str, hint: str) -> None:
    message = refusal({name: "1"})
    assert f"unknown setting '{name}'" in message and hint in message.partition(";")[2]


def test_unknown_method_and_preset_are_refused_with_what_is_known() -> None:
    with pytest.raises(
        SettingsError, match=r"unknown method 'x'; known: snl, rd, fd, snl-rd, snl-fd, uniad"
    ):
        resolve("x")
    with pytest.raises(SettingsError, match=r"unknown preset 'x'; known: compact, paper"):
        resolve("rd", "x")


@pytest.mark.parametrize("name", ["method", "preset"])
def test_method_and_preset_cannot_be_overridden(name: str) -> None:
    """Only the name would change, not the settings that it stands for."""
    message = refusal({name: {"method": "rd", "preset": "paper"}[name]})
    assert f"'{name}'" in message


def test_assignments() -> None:
    parsed = parse_assignments(
        ["cram.form=dense", " loss.global_cosine = 2 ", "teacher.weights=a=b"]
    )
    assert parsed == {"cram.form": "dense", "loss.global_cosine": "2", "teacher.weights": "a=b"}
    for text in ("cram.form", "=dense", " =1", ""):
        with pytest.raises(SettingsError, match="NAME=VALUE"):
            parse_assignments([text])


def test_from_dict_of_an_invalid_document() -> None:
    good = resolve().to_dict()
    for name, wrong in (
        ("teacher", None),
        ("teacher", "resnet18"),
        ("teacher", ["resnet18"]),
        ("image_size", {"side": 3}),
        ("future", 1),
        ("cram", {"form": "rebuild", "kind": 1}),
    ):
        with pytest.raises(SettingsError):
            Settings.from_dict({**good, name: wrong})
    for document in (None, [], "text", 3):
        with pytest.raises(SettingsError):
            Settings.from_dict(document)  # type: ignore[arg-type]


def test_from_dict_uses_defaults_for_missing_values() -> None:
    settings = Settings.from_dict({"loss": {"global_cosine": 1}, "cram": {}})
    assert settings == Settings().replace({"loss.global_cosine": 1})


# --- any input ---

VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["nan", "inf", "-inf", "1e400", "9" * 5000, "1,2", ",", "0x10", "\uff11\uff12", "1_0"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["rebuild", "forward", "stages", "topk", "adamw", "bf16"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@budget(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_assignment_is_accepted_or_refused(texts: list[str]) -> None:
    try:
        settings = resolve(overrides=parse_assignments(texts))
    except SettingsError as error:
        assert str(error)
    else:
        assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@budget(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES | JSON, max_size=4))
def test_any_value_is_accepted_or_refused(changes: dict[str, Any]) -> None:
    try:
        settings = resolve("snl-fd", overrides=changes)
    except SettingsError as error:
        assert str(error)
    else:
        assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@budget(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "teacher", "cram"]), JSON, max_size=3) | JSON)
def test_any_document_is_accepted_or_refused(document: Any) -> None:
    try:
        assert isinstance(Settings.from_dict(document), Settings)
    except SettingsError as error:
        assert str(error)


def test_settings_need_no_torch() -> None:
    code = "import sys, snl.settings; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
