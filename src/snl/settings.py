"""Every choice that makes an inspector, as frozen dataclasses; methods and presets by name.

A method (`snl`, ...) and a preset (`compact`, ...) are nothing but named changes to the
defaults, so an ablation is a list of such changes:

    >>> resolve("snl-rd", overrides={"cram.form": "gate", "loss.intra": 0}).cram.form
    'gate'
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from snl.errors import SettingsError


@dataclass(frozen=True)
class TeacherSettings:
    """The frozen network whose features are to be reproduced."""

    name: str = "snl_compact"
    """`snl_compact`, or any timm name that supports `features_only`."""
    stages: tuple[int, ...] = ()
    """timm `out_indices`; empty: the stages of strides 4, 8 and 16, of a vision transformer (whose
    blocks all have one stride) the middle two thirds of its blocks."""
    groups: int = 2
    """Vision transformers only: the blocks are cut into at most this many consecutive groups, and
    each group's mean is a stage. As many groups as blocks: each block is a stage."""
    merge: Literal["none", "concatenate"] = "none"
    """`concatenate`: all stages, brought to the deepest one's grid, are one stage."""
    weights: str = "pretrained"
    """`pretrained` (of `snl_compact` in this package, of others from timm's hub), a .safetensors /
    .pth file, or `random`: untrained, its batch norms fitted to a sample of the training images."""


@dataclass(frozen=True)
class StudentSettings:
    """The network that learns the teacher's features on normal images."""

    architecture: Literal["reverse", "forward", "uniad"] = "reverse"
    """`reverse`: from the teacher's features back; `forward`: from the image; `uniad`: a masked
    transformer over the merged features."""
    blocks: tuple[int, ...] = (2,)
    """Residual blocks per decoder stage, deepest first; one number serves all (convolutional
    reverse student only, as the next two; on a vision transformer the student is one, too)."""
    bottleneck_blocks: int = 2
    """Residual blocks of the one-class bottleneck embedding."""
    expansion: int = 4
    """Outer to inner width of bottleneck-type blocks, used where the deepest stage has 512
    channels or more."""


@dataclass(frozen=True)
class CramSettings:
    """Central residual aggregation module."""

    form: Literal["none", "rebuild", "dense", "gate"] = "none"
    centres: int = 64
    place: Literal["deepest", "stages"] = "deepest"
    """`deepest`: the bottleneck's output (reverse), the deepest stage (forward), the encoder's
    output (uniad); `stages`: every stage (forward only)."""


@dataclass(frozen=True)
class LossSettings:
    """Weight of every term (0: not computed)."""

    flat: float = 0.0
    """One cosine over the flattened map of a stage (RD4AD's own)."""
    mse: float = 0.0
    """Mean squared error (UniAD's own)."""
    channel: float = 0.0
    spatial: float = 0.0
    intra: float = 0.0
    inter: float = 0.0
    inter_form: Literal["images", "networks"] = "images"
    temperature: float = 1.0
    """Of the spatial softmax."""
    easy: float = 0.0
    """Share of every stage's positions, those that are reproduced best, that count as easy; reached
    after the first fifth of the steps. 0: hard and easy positions teach alike."""
    easy_gradient: float = 0.1
    """What is left of the gradient at easy positions."""


@dataclass(frozen=True)
class MapSettings:
    """From feature differences to map and score."""

    kind: Literal["feature", "affinity", "both"] = "feature"
    """Distance of features, of their affinities within the image, or the sum of the two."""
    distance: Literal["cosine", "l2", "standardised"] = "cosine"
    """Between two features: 1 - cos; the Euclidean norm of their difference; the mean square over
    channels of the difference of the unit features, each channel standardised by the mean and
    standard deviation that it has on normal images."""
    stage_weights: tuple[float, ...] = ()
    """Of the stages in the map, shallow to deep; empty: all 1."""
    levels: int = 0
    """Centres of images by whose usual normal score a map is divided (1: no more abnormal than
    normal images like it); 0: none."""
    sigma: float = 4.0
    """Standard deviation of the Gaussian in pixels of a 256-pixel input; scales with the input."""
    score: Literal["max", "topk"] = "max"
    top_share: float = 0.001
    """Share of the map's pixels averaged by `topk`."""


@dataclass(frozen=True)
class TrainingSettings:
    """The loop's budget and optimiser."""

    steps: int = 2000
    batch_size: int = 8
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: float = 0.05
    """Share of the steps over which the rate rises from zero."""
    final_lr: float = 0.01
    """Share of the rate that is left at the last step (cosine decay)."""
    clip: float = 1.0
    """Largest global gradient norm; 0: no clipping."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on CUDA devices that have it and on CPUs where it is measured to be clearly
    faster, fp32 elsewhere; a resumed run keeps what was chosen."""
    holdout: float = 0.1
    """Share of each product's normal training images kept back for calibration; 0: none."""
    holdout_least: int = 20
    """Kept back of each product at the least, but of a product with few images at most a third."""
    groups: Literal["auto", "off"] = "auto"
    """`auto`: images of a single product are parted into groups, each with a calibration of its
    own, where the teacher clearly tells them apart (a mixed folder without product names)."""


@dataclass(frozen=True)
class Settings:
    """All of it. `image_size` is the side in pixels of the square network input."""

    method: str = "custom"
    preset: str = "custom"
    image_size: int = 256
    tile: int = 0
    """Side in pixels of the square pieces that images are cut into, each seen by the network at
    `image_size` (equal: at the image's own scale); 0: whole images."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    cram: CramSettings = field(default_factory=CramSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    map: MapSettings = field(default_factory=MapSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values (lists for tuples), nested as the dataclasses are."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Inverse of `to_dict`; unknown keys and wrong types raise SettingsError."""
        if not isinstance(values, Mapping):
            raise SettingsError(f"settings are {type(values).__name__}; they must be a table")
        return cls().replace(_flatten(values))

    def replace(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with dotted changes such as `{"cram.form": "dense"}`, checked.

        Raises:
            SettingsError: unknown name, value of the wrong type or out of range.
        """
        return _check(_replace(self, dict(changes)))


_INGREDIENTS = {
    "loss.spatial": 0.1,
    "loss.intra": 0.1,
    "loss.inter": 0.1,
    "loss.inter_form": "networks",
    "cram.form": "dense",
}
"""What SNL adds to a student; form and weights as measured (docs/results), not as published."""

_EXTRAS = {
    "loss.easy": 0.9,
    "map.distance": "standardised",
    "map.levels": 64,
}
"""What this project adds to that, as measured (docs/results)."""

METHODS: dict[str, dict[str, Any]] = {
    "snl": {
        "student.architecture": "reverse",
        "loss.flat": 1.0,
        **_INGREDIENTS,
        **_EXTRAS,
    },
    "rd": {"student.architecture": "reverse", "loss.flat": 1.0},
    "fd": {"student.architecture": "forward", "loss.channel": 1.0},
    "snl-rd": {"student.architecture": "reverse", "loss.flat": 1.0, **_INGREDIENTS},
    "snl-fd": {"student.architecture": "forward", "loss.channel": 1.0, **_INGREDIENTS},
    "uniad": {
        "student.architecture": "uniad",
        "teacher.merge": "concatenate",
        "loss.mse": 1.0,
        "map.distance": "l2",
        "training.optimizer": "adamw",
        "training.lr": 1e-4,
        "training.weight_decay": 1e-4,
        "training.clip": 0.1,
    },
}
DEFAULT_METHOD = "snl"

PRESETS: dict[str, dict[str, Any]] = {
    "compact": {"teacher.name": "snl_compact", "image_size": 256},
    "paper": {
        "teacher.name": "wide_resnet50_2",
        "image_size": 256,
        "student.blocks": (3, 4, 6),
        "student.bottleneck_blocks": 3,
        "student.expansion": 2,
        "training.steps": 20000,
        "training.batch_size": 16,
    },
}
DEFAULT_PRESET = "compact"


def resolve(
    method: str = DEFAULT_METHOD,
    preset: str = DEFAULT_PRESET,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Defaults, changed by the preset, then by the method, then by `overrides` (dotted names).

    Raises:
        SettingsError: unknown method, preset or setting, or a value out of range.
    """
    for name in {"method", "preset"} & set(overrides or {}):
        raise SettingsError(f"'{name}' cannot be changed by its name alone; use --{name} NAME")
    changes = {
        "method": method,
        "preset": preset,
        **_named(PRESETS, preset, "preset"),
        **_named(METHODS, method, "method"),
        **(overrides or {}),
    }
    return Settings().replace(changes)


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["cram.form=dense"]` to `{"cram.form": "dense"}`; values are converted by `replace`."""
    changes = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"'{text}' is not NAME=VALUE; write for example cram.form=dense")
        changes[name.strip()] = value.strip()
    return changes


def setting_values(settings: Settings) -> dict[str, Any]:
    """Every dotted name that `replace` takes, with its value."""
    values = _flatten(settings.to_dict())
    return {name: value for name, value in values.items() if name not in ("method", "preset")}


def _named(table: Mapping[str, dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    if name not in table:
        raise SettingsError(f"unknown {kind} '{name}'; known: {', '.join(table)}")
    return table[name]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _replace(node: Any, changes: dict[str, Any], prefix: str = "") -> Any:
    hints = get_type_hints(type(node))
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        head, _, rest = dotted.partition(".")
        known = head in hints and dataclasses.is_dataclass(getattr(node, head)) == bool(rest)
        if not known:
            raise SettingsError(_unknown(prefix + dotted))
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            own[head] = _convert(prefix + dotted, value, hints[head])
    for head, rest_changes in nested.items():
        own[head] = _replace(getattr(node, head), rest_changes, f"{prefix}{head}.")
    return dataclasses.replace(node, **own)


def _unknown(name: str) -> str:
    names = list(setting_values(Settings()))
    close = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
    return f"unknown setting '{name}'; {hint}"


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value`, a string or a JSON value, as the type of the field."""
    origin = get_origin(kind)
    try:
        if origin is Literal:
            if value not in get_args(kind):
                raise ValueError
            return value
        if origin is tuple:
            return _convert_tuple(name, value, get_args(kind))
        if origin in (types.UnionType, typing.Union):  # pragma: no cover - none at present
            raise ValueError
        if kind is bool or isinstance(value, bool):
            raise ValueError
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        if kind is str and not isinstance(value, str):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        wanted = (
            "one of " + ", ".join(get_args(kind))
            if origin is Literal
            else {int: "a whole number", float: "a number", str: "text"}.get(kind, "numbers a,b,c")
        )
        raise SettingsError(f"setting '{name}' is {value!r}; it takes {wanted}") from None


def _convert_tuple(name: str, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    items = [v for v in value.split(",") if v.strip()] if isinstance(value, str) else value
    items = list(items) if isinstance(items, (list, tuple)) else [items]
    if arguments[-1] is Ellipsis:
        return tuple(_convert(name, item, arguments[0]) for item in items)
    if len(items) != len(arguments):
        raise ValueError
    return tuple(_convert(name, item, kind) for item, kind in zip(items, arguments, strict=True))


_TERMS = ("flat", "mse", "channel", "spatial", "intra", "inter")

_RANGES: dict[str, tuple[float, float]] = {
    "image_size": (64, 4096),
    "tile": (0, 8192),
    "teacher.stages": (0, 100),
    "teacher.groups": (1, 100),
    "student.blocks": (1, 100),
    "student.bottleneck_blocks": (1, 100),
    "student.expansion": (1, 64),
    "cram.centres": (1, 65536),
    **{f"loss.{term}": (0, 1e6) for term in _TERMS},
    "loss.easy": (0, 0.99),
    "loss.easy_gradient": (0, 1),
    "map.stage_weights": (0, 1e6),
    "map.levels": (0, 4096),
    "loss.temperature": (1e-6, 1e6),
    "map.sigma": (0, 256),
    "map.top_share": (1e-9, 1),
    "training.steps": (1, 1e9),
    "training.batch_size": (1, 65536),
    "training.lr": (1e-12, 1e3),
    "training.betas": (0, 0.999999),
    "training.weight_decay": (0, 1e3),
    "training.warmup": (0, 1),
    "training.final_lr": (0, 1),
    "training.clip": (0, 1e9),
    "training.seed": (0, 2**63 - 1),
    "training.holdout": (0, 0.5),
    "training.holdout_least": (0, 1e6),
}
"""Smallest and largest value of every number; of lists, of every item."""


def _check(s: Settings) -> Settings:
    """Ranges and contradictions that types cannot express."""
    for name, value in _flatten(s.to_dict()).items():
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, str) and not low <= number <= high:
                raise SettingsError(
                    f"setting '{name}' is {number}; it must be in {low:g}..{high:g}"
                )
    if 0 < s.tile < 32:
        raise SettingsError(
            f"setting 'tile' is {s.tile}; it must be in 32..8192, or 0 for whole images"
        )
    if not s.student.blocks:
        raise SettingsError("setting 'student.blocks' is empty; give at least one number")
    if s.student.architecture == "uniad" and s.teacher.merge == "none":
        raise SettingsError(
            "setting 'student.architecture' is 'uniad', which reproduces one merged map; "
            "use teacher.merge=concatenate too, or --method uniad"
        )
    if s.cram.place == "stages" and s.student.architecture != "forward":
        raise SettingsError(
            "setting 'cram.place' is 'stages', which only the forward student has; "
            "use cram.place=deepest or a method fd / snl-fd"
        )
    if not any(getattr(s.loss, term) > 0 for term in _TERMS):
        raise SettingsError(
            f"all losses are switched off; give one of {', '.join('loss.' + x for x in _TERMS)} "
            "a weight above 0"
        )
    if s.map.stage_weights and not any(s.map.stage_weights):
        raise SettingsError(
            "setting 'map.stage_weights' has only zeros, so every map would be empty; give a stage "
            "a weight above 0"
        )
    return s
