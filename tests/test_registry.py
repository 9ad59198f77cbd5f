"""Registering losses, students, distances and scorers: names, settings and errors."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from snl.errors import SettingsError
from snl.registry import (
    DISTANCES,
    LOSSES,
    REGISTRIES,
    SCORERS,
    STUDENTS,
    register_distance,
    register_loss,
    register_scorer,
)
from snl.settings import (
    Settings,
    parse_assignments,
    plugin_values,
    plugins_used,
    resolve,
    setting_values,
)
from tests.plugin_parts import (
    CHOICE,
    KINDS,
    PartSettings,
    no_settings_score,
    quantile_score,
    refusal,
    register,
    shifted_distance,
    stage_loss,
    target_of,
)

pytestmark = pytest.mark.usefixtures("no_parts_remain")

# --- registering ---


@pytest.mark.parametrize("way", ["settings", "function"])
@pytest.mark.parametrize("kind", KINDS)
def test_register_by_decorator(kind: str, way: str) -> None:
    registry = REGISTRIES[kind]
    assert "fresh" not in registry
    register(kind, way=way)
    part = registry.get("fresh")
    assert "fresh" in registry and registry.parts()[-1] == part
    assert "fresh" not in registry.builtin()
    assert (part.kind, part.name, part.settings) == (kind, "fresh", PartSettings)
    assert part.implementation == target_of(KINDS[kind][1]) and part.package == "tests"
    assert part.load() is KINDS[kind][1]
    assert part.scope == "stage" and not part.statistics
    registry.remove("fresh")
    assert "fresh" not in registry


def test_options_of_losses_and_distances() -> None:
    register("loss", "per_batch", scope="batch")
    register("distance", "with_moments", way="function", statistics=True)
    assert LOSSES.get("per_batch").scope == "batch"
    assert DISTANCES.get("with_moments").statistics
    assert DISTANCES.get("standardised").statistics and not DISTANCES.get("cosine").statistics


def test_parts_without_settings() -> None:
    register_scorer("lowest")(no_settings_score)
    settings = resolve(overrides={"map.score": "lowest"})
    assert settings.map.plugins == {} and settings.map.score == "lowest"
    message = refusal(lambda: resolve(overrides={"map.lowest.power": 1}), SettingsError)
    assert "'map.lowest.power'" in message and "has no settings of its own" in message


def test_builtin_parts_can_be_loaded_and_stay() -> None:
    for registry in REGISTRIES.values():
        assert registry.builtin()
        for name in registry.builtin():
            assert callable(registry.get(name).load()) and not registry.get(name).package
            registry.remove(name)
            assert name in registry


# --- errors of registering ---


@pytest.mark.parametrize("name", ["", "two words", "sparse-code", "a.b", "1st"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_no_identifier_is_refused(kind: str, name: str) -> None:
    message = refusal(lambda: register(kind, name))
    assert f"{kind} '{name}' of tests" in message and "identifier" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_part_of_a_name_is_refused(kind: str) -> None:
    builtin = REGISTRIES[kind].builtin()[0]
    message = refusal(lambda: register(kind, builtin))
    assert f"{kind} '{builtin}' is registered twice, by snl and by tests" in message
    register(kind)
    register(kind)  # the same part again, as when a module is reloaded
    decorator = KINDS[kind][0]
    other = {"implementation": "another_package.parts:part"}
    message = refusal(lambda: decorator("fresh", **other)(PartSettings))
    assert "by tests and by another_package" in message and "uninstall" in message
    assert REGISTRIES[kind].get("fresh").package == "tests"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("loss", "hard_mining"),
        ("loss", "inter_form"),
        ("loss", "plugins"),
        ("student", "blocks"),
        ("distance", "sigma"),
        ("scorer", "distance"),
    ],
)
def test_a_name_of_a_setting_is_refused(kind: str, name: str) -> None:
    message = refusal(lambda: register(kind, name))
    assert f"the settings already have '{KINDS[kind][2]}.{name}'" in message


def test_distance_and_scorer_cannot_share_settings() -> None:
    register("distance")
    message = refusal(lambda: register("scorer"))
    assert "'map.fresh.*'" in message and "distance of tests" in message
    register_scorer("fresh")(no_settings_score)  # has no settings: no conflict
    assert resolve(overrides={"map.fresh.power": 1}).map.of("fresh").power == 1
    DISTANCES.remove("fresh")
    SCORERS.remove("fresh")
    register_distance("fresh")(shifted_distance)
    register("scorer")
    assert resolve(overrides={"map.fresh.power": 1}).map.of("fresh").power == 1


@dataclass(frozen=True)
class NoWeight:
    power: float = 1.0


@dataclass(frozen=True)
class NoDefault:
    power: float
    weight: float = 0.0


class Bare:
    weight = 1.0


def test_settings_of_a_loss_need_a_weight() -> None:
    for attempt in (
        lambda: register_loss("fresh", implementation="a:b")(NoWeight),
        lambda: register_loss("fresh", settings=NoWeight)(stage_loss),
        lambda: register_loss("fresh")(stage_loss),
    ):
        assert "loss 'fresh': its settings need a field 'weight'" in refusal(attempt)
    register_scorer("fresh", settings=NoWeight)(quantile_score)  # only losses have one


@pytest.mark.parametrize("kind", KINDS)
def test_unsuitable_decorations_are_refused(kind: str) -> None:
    decorator, part, _ = KINDS[kind]

    def local(*_: Any) -> None:
        raise AssertionError

    for attempt, expected in (
        (lambda: decorator("fresh")(PartSettings), "implementation='module:attribute'"),
        (lambda: decorator("fresh", implementation="a:b")(Bare), "apply @dataclass first"),
        (lambda: decorator("fresh", settings=Bare)(part), "must be a dataclass"),
        (lambda: decorator("fresh", settings=PartSettings())(part), "must be a dataclass"),
        (lambda: decorator("fresh", settings=NoDefault)(part), "'power' needs a default value"),
        (lambda: decorator("fresh", implementation="a:b")(NoDefault), "needs a default value"),
        (lambda: decorator("fresh", settings=PartSettings)(local), "top level of its module"),
        (lambda: decorator("fresh", settings=PartSettings)(lambda *_: 0), "top level"),
    ):
        message = refusal(attempt)
        assert f"{kind} 'fresh'" in message and expected in message
    assert "fresh" not in REGISTRIES[kind]


def test_an_unknown_scope_is_refused() -> None:
    message = refusal(lambda: register("loss", scope="stages"))
    assert "scope is 'stages'; it takes 'stage' or 'batch'" in message


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_package.parts:loss", "ModuleNotFoundError"),
        ("tests.test_registry:no_such_function", "AttributeError"),
    ],
)
def test_an_implementation_that_cannot_be_imported(target: str, reason: str) -> None:
    register_loss("fresh", implementation=target)(PartSettings)
    message = refusal(LOSSES.get("fresh").load)
    package = target.partition(".")[0]
    assert f"loss 'fresh' of {package} cannot be imported ({reason}" in message
    assert f"reinstall {package}" in message
    # the settings are usable without the implementation
    assert resolve(overrides={"loss.fresh.weight": 1}).loss.of("fresh").weight == 1


# --- unknown names ---


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_part_is_refused_with_all_names(kind: str) -> None:
    register(kind)
    registry = REGISTRIES[kind]
    message = refusal(lambda: registry.get("nothing"))
    assert f"there is no {kind} 'nothing'; installed: " in message
    assert all(name in message for name in (*registry.builtin(), "fresh"))
    section = KINDS[kind][2]
    settings = refusal(lambda: resolve(overrides={f"{section}.nothing.power": 1}), SettingsError)
    assert f"'{section}.nothing.power'" in settings
    assert "no installed plug-in provides" in settings and "installed: fresh" in settings
    if kind in CHOICE:
        choice = refusal(lambda: resolve(overrides={CHOICE[kind]: "nothing"}), SettingsError)
        assert f"'{CHOICE[kind]}' is 'nothing'; it takes one of" in choice
        assert all(name in choice for name in (*registry.builtin(), "fresh"))


def test_a_part_that_was_removed_is_missing_in_old_settings() -> None:
    register("loss")
    register("student")
    saved = resolve(overrides={"loss.fresh.weight": 1}).to_dict()
    chosen = resolve(overrides={"student.architecture": "fresh"}).to_dict()
    LOSSES.remove("fresh")
    STUDENTS.remove("fresh")
    assert "loss 'fresh'" in refusal(lambda: Settings.from_dict(saved), SettingsError)
    message = refusal(lambda: Settings.from_dict(chosen), SettingsError)
    assert "'fresh'" in message and "student" in message


# --- settings of parts ---

CHANGES = {
    "power": ("1.5", 1.5),
    "count": ("7", 7),
    "sizes": ("4,5,6", (4, 5, 6)),
    "form": ("signed", "signed"),
    "note": ("a=b", "a=b"),
    "centred": ("true", True),
    "weight": ("0.25", 0.25),
}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_through_replace_and_documents(kind: str) -> None:
    register(kind)
    section = KINDS[kind][2]
    texts = [f"{section}.fresh.{name}={text}" for name, (text, _) in CHANGES.items()]
    settings = resolve(overrides=parse_assignments(texts))
    values = getattr(settings, section).of("fresh")
    assert isinstance(values, PartSettings)
    for name, (_, value) in CHANGES.items():
        assert getattr(values, name) == value and type(getattr(values, name)) is type(value)
    document = json.loads(json.dumps(settings.to_dict()))
    assert document[section]["fresh"]["sizes"] == [4, 5, 6]
    assert Settings.from_dict(document) == settings
    assert setting_values(settings)[f"{section}.fresh.power"] == 1.5
    again = settings.replace({f"{section}.fresh.power": 3})
    assert getattr(again, section).of("fresh").power == 3
    assert getattr(again, section).of("fresh").count == 7  # the other values stay
    assert getattr(settings, section).of("fresh").power == 1.5
    assert again != settings and hash(again) == hash(again.replace({}))
    assert getattr(resolve(), section).of("fresh") == PartSettings()
    assert plugin_values()[f"{section}.fresh.form"] == "plain"
    assert f"{section}.fresh.form" not in setting_values(resolve())


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_settings_of_a_part_are_refused(kind: str) -> None:
    register(kind)
    section = KINDS[kind][2]
    for name, value, expected in (
        ("power", -0.1, "must be in 0..4"),
        ("power", 4.5, "must be in 0..4"),
        ("power", "nan", "must be in 0..4"),
        ("power", "much", "a number"),
        ("count", 0, "must be in 1..9"),
        ("count", 10, "must be in 1..9"),
        ("count", 1.5, "a whole number"),
        ("form", "other", "one of plain, signed"),
        ("sizes", "1,x", "a whole number"),
        ("note", 3, "text"),
        ("centred", "maybe", "true or false"),
        ("centred", 1, "true or false"),
    ):
        full = f"{section}.fresh.{name}"
        message = refusal(lambda full=full, v=value: resolve(overrides={full: v}), SettingsError)
        assert f"'{full}'" in message and expected in message
    for name in ("powre", "power.x", ""):
        full = f"{section}.fresh.{name}"
        message = refusal(lambda full=full: resolve(overrides={full: 1}), SettingsError)
        assert f"unknown setting '{full}'" in message
    with pytest.raises(SettingsError):
        resolve(overrides={f"{section}.fresh": 1})


@pytest.mark.parametrize("value", [-1, "nan", "inf"])
def test_the_weight_of_a_loss_is_checked(value: Any) -> None:
    register("loss")
    message = refusal(lambda: resolve(overrides={"loss.fresh.weight": value}), SettingsError)
    assert "'loss.fresh.weight'" in message and "must be in 0..1e+06" in message


def test_a_loss_of_a_plugin_alone_is_enough() -> None:
    register("loss")
    off = dict.fromkeys((f"loss.{name}" for name in LOSSES.builtin()), 0)
    assert "all losses are switched off" in refusal(
        lambda: resolve(overrides={**off, "loss.fresh.weight": 0}), SettingsError
    )
    resolve(overrides={**off, "loss.fresh.weight": 0.1})


@pytest.mark.parametrize("kind", CHOICE)
def test_chosen_parts_have_their_settings_written_out(kind: str) -> None:
    register(kind)
    settings = resolve(overrides={CHOICE[kind]: "fresh"})
    section = KINDS[kind][2]
    assert getattr(settings, section).plugins == {"fresh": PartSettings()}
    assert settings.to_dict()[section]["fresh"]["power"] == 2.0


def test_plugins_used() -> None:
    for kind in KINDS:
        register(kind, f"new_{kind}")
    assert plugins_used(resolve()) == []
    changes = {CHOICE[kind]: f"new_{kind}" for kind in CHOICE} | {"loss.new_loss.weight": 1}
    used = plugins_used(resolve(overrides=changes))
    assert [(p["kind"], p["name"], p["package"]) for p in used] == [
        (kind, f"new_{kind}", "tests") for kind in ("student", "distance", "scorer", "loss")
    ]
    assert plugins_used(resolve(overrides={"loss.new_loss.weight": 0})) == []


def test_plugins_are_loaded_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that asks while another one imports the plug-ins waits for their names."""
    from snl import registry

    started, go_on, results = threading.Event(), threading.Event(), []

    def slow(group: str) -> list[Any]:
        assert group == "snl.plugins"
        started.set()
        assert go_on.wait(10)
        register("scorer")
        return []

    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", slow)
    threads = [threading.Thread(target=lambda: results.append("fresh" in SCORERS)) for _ in "ab"]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert not results
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert results == [True, True]
