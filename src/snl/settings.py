"""All settings of a model as frozen dataclasses, and the named methods and presets.

A method (`snl`, `rd`, ...) and a preset (`compact`, `paper`) are named changes to the defaults, so
an ablation is a list of such changes:

    >>> resolve("snl-rd", overrides={"cram.form": "gate", "loss.intra": 0}).cram.form
    'gate'

Settings of plug-ins (`snl.registry`) appear beside the built-in ones, as `loss.NAME.weight`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from snl.errors import PluginError, SettingsError
from snl.limits import TEST_SHARE
from snl.registry import DISTANCES, LOSSES, SCORERS, STUDENTS, Registry, import_failures


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a number, or of every item of a tuple."""

    low: float
    high: float


@dataclass(frozen=True)
class Registered:
    """The value is the name of a registered part."""

    registry: Registry


Weight = Annotated[float, Range(0, 1e6)]

PRODUCTS_PER_UNIT = 9
"""Products that the numbers of centres, clusters and patches in the settings are meant for."""


@dataclass(frozen=True, kw_only=True)
class _Extensible:
    """Settings of one section that plug-ins can extend.

    `plugins` holds the settings of each plug-in by its name; in dotted names and in `to_dict` they
    stand beside the built-in ones.
    """

    registries: ClassVar[tuple[Registry, ...]] = ()
    plugins: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def of(self, name: str) -> Any:
        """Return the settings of a plug-in, or its defaults.

        Raises:
            PluginError: no installed plug-in has this name, or it has no settings.
        """
        return self.plugins[name] if name in self.plugins else _plugin_settings(self, name)()


@dataclass(frozen=True)
class TeacherSettings:
    """The frozen network whose features the student reproduces."""

    name: str = "snl_compact"
    """`snl_compact`, or a timm network that supports `features_only`."""
    stages: Annotated[tuple[int, ...], Range(0, 100)] = ()
    """timm `out_indices`. Empty: the stages of strides 4, 8 and 16; for a vision transformer, whose
    blocks all have one stride, the middle two thirds of its blocks."""
    block_groups: Annotated[int, Range(1, 100)] = 2
    """Vision transformers: number of groups of consecutive blocks; the mean of each group is a
    stage. With as many groups as blocks, each block is a stage."""
    merge: Literal["none", "concatenate"] = "none"
    """`concatenate`: resize all stages to the deepest stage's grid and concatenate them."""
    weights: str = "pretrained"
    """`pretrained` (`snl_compact`: in this package; other networks: timm's hub), a .safetensors or
    .pth file, or `random`: untrained, batch norms fitted to a sample of the training images."""


@dataclass(frozen=True)
class StudentSettings(_Extensible):
    """The network that learns to reproduce the teacher's features on normal images."""

    registries: ClassVar[tuple[Registry, ...]] = (STUDENTS,)
    architecture: Annotated[str, Registered(STUDENTS)] = "reverse"
    """`reverse`: from the teacher's features back to them through a bottleneck; `forward`: from the
    image; `uniad`: a masked transformer over the merged features; or the name of a plug-in."""
    blocks: Annotated[tuple[int, ...], Range(1, 100)] = (2,)
    """Residual blocks per decoder stage, deepest first; one number for all stages. This and the
    next three settings apply to the convolutional reverse student only."""
    bottleneck_blocks: Annotated[int, Range(1, 100)] = 2
    """Residual blocks of the one-class bottleneck embedding."""
    bottleneck_size: Annotated[int, Range(0, 4096)] = 0
    """The bottleneck halves the deepest stage's side once, and again while at least this many
    positions remain: 4 makes a code of 4 x 4 from 256 pixels and a stride of 16. 0: once."""
    expansion: Annotated[int, Range(1, 64)] = 4
    """Ratio of outer to inner width of bottleneck blocks, which are used where the deepest stage
    has at least 512 channels."""


@dataclass(frozen=True)
class CramSettings:
    """Central residual aggregation module, see `snl.model.cram`."""

    form: Literal["none", "centres", "rebuild", "dense", "gate"] = "none"
    centres: Annotated[int, Range(1, 65536)] = 64
    """For up to nine products; with more products more, see `products`."""
    place: Literal["deepest", "stages"] = "deepest"
    """`deepest`: the bottleneck's output (reverse), the deepest stage (forward), the encoder's
    output (uniad); `stages`: every stage (forward only)."""


@dataclass(frozen=True)
class LossSettings(_Extensible):
    """Weight of every loss term (0: not computed), and hard mining."""

    registries: ClassVar[tuple[Registry, ...]] = (LOSSES,)
    global_cosine: Weight = 0.0
    """One cosine distance over the flattened features of a stage (RD4AD's code)."""
    mse: Weight = 0.0
    """Mean squared error (UniAD)."""
    channel: Weight = 0.0
    """Channel distillation: mean over positions of the cosine distance."""
    spatial: Weight = 0.0
    """Spatial distillation: KL divergence of every channel's softmax over positions."""
    intra: Weight = 0.0
    """Intra-affinity distillation: affinities between the positions of one image."""
    inter: Weight = 0.0
    """Inter-affinity distillation, of the form below."""
    inter_form: Literal["images", "networks"] = "images"
    """`images`: affinities between the images of a batch; `networks`: between the two networks."""
    spatial_temperature: Annotated[float, Range(1e-6, 1e6)] = 1.0
    """Temperature of the spatial softmax."""
    hard_mining: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of every stage's positions, those with the smallest errors, whose gradient is reduced;
    reached after the first fifth of the steps. 0: all positions count alike."""
    hard_mining_factor: Annotated[float, Range(0, 1)] = 0.1
    """Factor of the gradient at these positions."""


@dataclass(frozen=True)
class MapSettings(_Extensible):
    """From feature differences to anomaly map and score."""

    registries: ClassVar[tuple[Registry, ...]] = (DISTANCES, SCORERS)
    kind: Literal["feature", "affinity", "both"] = "feature"
    """Distance of features, of their affinities within the image, or the sum of both."""
    distance: Annotated[str, Registered(DISTANCES)] = "cosine"
    """Between two features. `cosine`: 1 - cos; `l2`: Euclidean norm of the difference;
    `standardised`: mean square over channels of the difference of the unit features, each channel
    standardised by its mean and standard deviation on normal images; or a plug-in's name."""
    stage_weights: Annotated[tuple[float, ...], Range(0, 1e6)] = ()
    """Weights of the stages in the map, shallow to deep; empty: all 1."""
    normalisation_clusters: Annotated[int, Range(0, 4096)] = 0
    """Clusters of normal images (by pooled teacher features) for score normalisation: a map is
    divided by the mean score of the normal images of its cluster. For up to nine products; with
    more products more, see `products`. 0: no normalisation."""
    memory: Annotated[int, Range(0, 1_000_000)] = 0
    """Patches of normal images in a memory bank; the map is multiplied by the distance of every
    patch to the nearest of them. Of few images fewer are kept: one of 32 patches. Up to nine
    products share a bank; more have several, and an image is compared with the bank of its kind
    alone. 0: no memory."""
    sigma: Annotated[float, Range(0, 256)] = 4.0
    """Standard deviation of the Gaussian smoothing, in pixels of a 256-pixel input; scales with the
    input size."""
    score: Annotated[str, Registered(SCORERS)] = "max"
    """`max`: the map's maximum; `topk`: the mean of its largest pixels; or a plug-in's name."""
    top_share: Annotated[float, Range(1e-9, 1)] = 0.001
    """Share of the map's pixels that `topk` averages."""


@dataclass(frozen=True)
class TrainingSettings:
    """Length, optimiser and data split of a training."""

    steps: Annotated[int, Range(1, 1e9)] = 2000
    batch_size: Annotated[int, Range(1, 65536)] = 8
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Annotated[float, Range(1e-12, 1e3)] = 2e-3
    """Largest learning rate."""
    betas: Annotated[tuple[float, float], Range(0, 0.999999)] = (0.9, 0.999)
    weight_decay: Annotated[float, Range(0, 1e3)] = 0.0
    warmup: Annotated[float, Range(0, 1)] = 0.05
    """Share of the steps over which the learning rate rises linearly from zero."""
    final_lr_ratio: Annotated[float, Range(0, 1)] = 0.01
    """Last learning rate as a share of the largest (cosine decay)."""
    gradient_clip: Annotated[float, Range(0, 1e9)] = 1.0
    """Largest global gradient norm; 0: no clipping."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on CUDA devices and CPUs with bf16 arithmetic, else fp32. A resumed run keeps
    its precision."""
    threads: Annotated[int, Range(0, 1024)] = 0
    """CPU threads of the training; 0: PyTorch's number. Another number gives slightly different
    weights, because sums are rounded in another order. A resumed run keeps its number."""
    holdout: Annotated[float, Range(0, 0.5)] = 0.1
    """Share of each product's normal training images that is held out for calibration; 0: none."""
    holdout_min: Annotated[int, Range(0, 1e6)] = 20
    """Images held out per product at the least, but at most a third of a product's images."""
    test_share: Annotated[float, Range(0, 0.9)] = TEST_SHARE
    """Share of the normal images that are test images instead of training images, of each product
    that has anomalous images but no split into train and test; 0: none."""
    product_groups: Literal["auto", "off"] = "auto"
    """`auto`: divide images without product names into groups that the teacher's features clearly
    separate; each group is then a product with its own calibration."""


@dataclass(frozen=True)
class Settings:
    """All settings of a model. `image_size` is the side of the square network input in pixels."""

    method: str = "custom"
    preset: str = "custom"
    image_size: Annotated[int, Range(64, 4096)] = 256
    tile: Annotated[int, Range(0, 8192)] = 0
    """Side in pixels of the square tiles that images are cut into; each is resized to `image_size`
    (equal values: the image's own scale). 0: whole images."""
    white_level: Annotated[int, Range(0, 65535)] = 0
    """Sample value that is white in images of more than 8 bits whose files do not state it, 255 to
    65535. 0: the smallest of 255, 1023, 4095, 16383 and 65535 that no normal training image
    exceeds; the number found is stored with the model."""
    products: Annotated[int, Range(0, 1_000_000)] = 0
    """Number of products that the model has room for. `cram.centres` and
    `map.normalisation_clusters` are meant for up to nine products and `map.memory` for every nine
    of them; a model of more products has more in proportion. 0: the products of the training
    images; their number is stored with the model."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    cram: CramSettings = field(default_factory=CramSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    map: MapSettings = field(default_factory=MapSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def sized(self, count: int) -> int:
        """Return a number that is meant for up to `PRODUCTS_PER_UNIT` products, raised in
        proportion to the model's products."""
        return math.ceil(count * max(1, self.products / PRODUCTS_PER_UNIT))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (lists for tuples), nested as the dataclasses are."""
        values: dict[str, Any] = json.loads(json.dumps(_to_dict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], missing: Collection[str] = ()) -> Settings:
        """Inverse of `to_dict`.

        Args:
            values: as `to_dict` returned them.
            missing: names of plug-ins that are not installed; their settings are kept as they are,
                unchecked. Such settings describe a network that was exported.

        Raises:
            SettingsError: unknown names, wrong types, values out of range.
            PluginError: the settings of a plug-in that is not installed.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(f"settings are {type(values).__name__}; they must be a table")
        return _check(_complete(_replace(cls(), _flatten(values), missing), missing))

    def replace(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with dotted changes such as `{"cram.form": "dense"}`, checked.

        Raises:
            SettingsError: unknown name, value of the wrong type or out of range.
        """
        return _check(_complete(_replace(self, dict(changes), ()), ()))


for _section in (StudentSettings, LossSettings, MapSettings):
    for _registry in _section.registries:
        _registry.reserve([*_section.__dataclass_fields__, *_Extensible.__annotations__])

_INGREDIENTS = {
    "loss.spatial": 0.1,
    "loss.intra": 0.1,
    "loss.inter": 0.1,
    "loss.inter_form": "networks",
    "cram.form": "dense",
}
"""The parts that SNL adds to a student; form and weights as measured (docs/results), not as
published."""

_EXTRAS = {
    "loss.hard_mining": 0.9,
    "map.distance": "standardised",
    "map.normalisation_clusters": 64,
    "map.memory": 8192,
}
"""What this project adds to that, as measured (docs/results)."""

METHODS: dict[str, dict[str, Any]] = {
    "snl": {
        "student.architecture": "reverse",
        "loss.global_cosine": 1.0,
        **_INGREDIENTS,
        **_EXTRAS,
    },
    "rd": {"student.architecture": "reverse", "loss.global_cosine": 1.0},
    "fd": {"student.architecture": "forward", "loss.channel": 1.0},
    "snl-rd": {"student.architecture": "reverse", "loss.global_cosine": 1.0, **_INGREDIENTS},
    "snl-fd": {"student.architecture": "forward", "loss.channel": 1.0, **_INGREDIENTS},
    "uniad": {
        "student.architecture": "uniad",
        "teacher.merge": "concatenate",
        "loss.mse": 1.0,
        "map.distance": "l2",
        "training.optimizer": "adamw",
        "training.lr": 1e-4,
        "training.weight_decay": 1e-4,
        "training.gradient_clip": 0.1,
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

RENAMED = {
    "teacher.groups": "teacher.block_groups",
    "loss.flat": "loss.global_cosine",
    "loss.temperature": "loss.spatial_temperature",
    "loss.easy": "loss.hard_mining",
    "loss.easy_gradient": "loss.hard_mining_factor",
    "map.levels": "map.normalisation_clusters",
    "training.final_lr": "training.final_lr_ratio",
    "training.clip": "training.gradient_clip",
    "training.holdout_least": "training.holdout_min",
    "training.groups": "training.product_groups",
}
"""Former names of settings, up to version 0.1."""


def resolve(
    method: str = DEFAULT_METHOD,
    preset: str = DEFAULT_PRESET,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the defaults, changed by the preset, then by the method, then by `overrides`.

    Args:
        method: a key of `METHODS`.
        preset: a key of `PRESETS`.
        overrides: values by dotted name, such as `{"training.steps": 500}`.

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
    """Parse `["cram.form=dense"]` to `{"cram.form": "dense"}`; `replace` converts the values."""
    changes = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"'{text}' is not NAME=VALUE; write for example cram.form=dense")
        changes[name.strip()] = value.strip()
    return changes


def setting_values(settings: Settings) -> dict[str, Any]:
    """Return every dotted name that `replace` accepts, with its value."""
    values = _flatten(settings.to_dict())
    return {name: value for name, value in values.items() if name not in ("method", "preset")}


def plugin_values() -> dict[str, Any]:
    """Return the dotted names and defaults of the settings of all installed plug-ins."""
    values: dict[str, Any] = {}
    for section in (LossSettings, StudentSettings, MapSettings):
        prefix = section.__name__.removesuffix("Settings").lower()
        for registry in section.registries:
            for part in registry.parts():
                if part.package and part.settings is not None:
                    nested = {prefix: {part.name: dataclasses.asdict(part.settings())}}
                    values |= _flatten(json.loads(json.dumps(nested)))
    return values


def plugins_used(settings: Settings) -> list[dict[str, str]]:
    """Return kind, name, package and version of every plug-in that these settings need."""
    named = [
        (STUDENTS, settings.student.architecture),
        (DISTANCES, settings.map.distance),
        (SCORERS, settings.map.score),
        *((LOSSES, name) for name, own in settings.loss.plugins.items() if own.weight > 0),
    ]
    parts = [registry.get(name) for registry, name in named]
    return [
        {"kind": p.kind, "name": p.name, "package": p.package, "version": p.version}
        for p in parts
        if p.package
    ]


def _named(table: Mapping[str, dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    if name not in table:
        raise SettingsError(f"unknown {kind} '{name}'; known: {', '.join(table)}")
    return table[name]


def _to_dict(node: Any) -> dict[str, Any]:
    """Nested values; the settings of plug-ins stand beside the built-in ones."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if item.name == "plugins":
            values |= {name: _plain(settings) for name, settings in value.items()}
        else:
            values[item.name] = _to_dict(value) if dataclasses.is_dataclass(value) else value
    return values


def _plain(settings: Any) -> dict[str, Any]:
    """The settings of a plug-in; of one that is not installed, as they were read."""
    return dict(settings) if isinstance(settings, Mapping) else dataclasses.asdict(settings)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if name not in ("plugins", "registries")}


def _replace(node: Any, changes: dict[str, Any], missing: Collection[str], prefix: str = "") -> Any:
    hints = _hints(type(node))
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        head, _, rest = dotted.partition(".")
        if rest and head not in hints and isinstance(node, _Extensible):
            nested.setdefault(head, {})[rest] = value
            continue
        known = head in hints and dataclasses.is_dataclass(getattr(node, head)) == bool(rest)
        if not known:
            raise SettingsError(_unknown(prefix + dotted))
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            values[head] = (
                value if value in missing else _convert(prefix + dotted, value, hints[head])
            )
    for head, inner in nested.items():
        if head in hints:
            values[head] = _replace(getattr(node, head), inner, missing, f"{prefix}{head}.")
            continue
        plugins = values.get("plugins", node.plugins)
        if head in missing:
            values["plugins"] = {**plugins, head: inner}
            continue
        try:
            current = node.of(head)
        except PluginError as error:
            if prefix + head in RENAMED:
                raise SettingsError(_unknown(prefix + head)) from None
            raise SettingsError(f"setting '{prefix}{head}.{next(iter(inner))}': {error}") from None
        changed = _replace(current, inner, missing, f"{prefix}{head}.")
        values["plugins"] = {**plugins, head: changed}
    return dataclasses.replace(node, **values)


def _plugin_settings(section: _Extensible, name: str) -> type[Any]:
    """The settings class of a plug-in of this section."""
    parts = [registry.get(name) for registry in section.registries if name in registry]
    for part in parts:
        if part.settings is not None:
            return part.settings
    if parts:
        raise PluginError(f"{parts[0].kind} '{name}' has no settings of its own")
    kinds = " or ".join(registry.kind for registry in section.registries)
    known = [
        part.name for r in section.registries for part in r.parts() if part.settings is not None
    ]
    raise PluginError(
        f"no installed plug-in provides a {kinds} '{name}'; installed: "
        f"{', '.join(known) or 'none'}{import_failures()}"
    )


def _complete(settings: Settings, missing: Collection[str]) -> Settings:
    """With the settings of the plug-ins in use written out, so that a file names all of them."""
    changes: dict[str, Any] = {}
    for section, registry, name in (
        ("student", STUDENTS, settings.student.architecture),
        ("map", DISTANCES, settings.map.distance),
        ("map", SCORERS, settings.map.score),
    ):
        node = changes.get(section, getattr(settings, section))
        if name not in (*registry.builtin(), *missing, *node.plugins):
            own = registry.get(name).settings
            if own is not None:
                changes[section] = dataclasses.replace(node, plugins={**node.plugins, name: own()})
    return dataclasses.replace(settings, **changes) if changes else settings


def _unknown(name: str) -> str:
    if name in RENAMED:
        return f"setting '{name}' is now called '{RENAMED[name]}'; use that name"
    names = list(setting_values(Settings()))
    close = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
    return f"unknown setting '{name}'; {hint}"


_BOOLEANS = {"true": True, "false": False}
_EXPECTED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _convert(name: str, value: Any, hint: Any) -> Any:
    """`value`, a string or a JSON value, as the type of the field."""
    kind, *constraints = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    origin = get_origin(kind)
    registered = next((c.registry for c in constraints if isinstance(c, Registered)), None)
    try:
        if registered is not None and isinstance(value, str):
            if value not in registered:
                raise ValueError
            return value
        if origin is Literal:
            if value not in get_args(kind):
                raise ValueError
            return value
        if origin is tuple:
            return _convert_tuple(name, value, get_args(kind))
        if kind is bool:
            return _BOOLEANS[str(value).lower()]
        if isinstance(value, bool):
            raise ValueError
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        if kind is str and not isinstance(value, str):
            raise ValueError
        return kind(value)
    except (KeyError, TypeError, ValueError, OverflowError):
        if registered is not None:
            names = [part.name for part in registered.parts()]
            expected = f"one of {', '.join(names)}{import_failures()}"
        elif origin is Literal:
            expected = "one of " + ", ".join(get_args(kind))
        else:
            expected = _EXPECTED.get(kind, "numbers a,b,c")
        raise SettingsError(f"setting '{name}' is {_shown(value)}; it takes {expected}") from None


def _shown(value: Any) -> str:
    """The value for a message; of a very long one, its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}..."


def _convert_tuple(name: str, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    items = [v for v in value.split(",") if v.strip()] if isinstance(value, str) else value
    items = list(items) if isinstance(items, (list, tuple)) else [items]
    if arguments[-1] is Ellipsis:
        return tuple(_convert(name, item, arguments[0]) for item in items)
    if len(items) != len(arguments):
        raise ValueError
    return tuple(_convert(name, item, kind) for item, kind in zip(items, arguments, strict=True))


def _ranges(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Range]]:
    """Dotted name, value and range of every setting that has one, plug-ins included."""
    for name, hint in _hints(type(node)).items():
        value = getattr(node, name)
        if dataclasses.is_dataclass(value):
            yield from _ranges(value, f"{prefix}{name}.")
        elif get_origin(hint) is Annotated:
            for constraint in get_args(hint)[1:]:
                if isinstance(constraint, Range):
                    yield prefix + name, value, constraint
    for name, settings in getattr(node, "plugins", {}).items():
        if not isinstance(settings, Mapping):
            yield from _ranges(settings, f"{prefix}{name}.")


def _check(s: Settings) -> Settings:
    """Check ranges, and contradictions that types cannot express."""
    for name, value, limits in _ranges(s):
        for number in value if isinstance(value, tuple) else [value]:
            if not limits.low <= number <= limits.high:
                raise SettingsError(
                    f"setting '{name}' is {_shown(number)}; it must be in "
                    f"{limits.low:g}..{limits.high:g}"
                )
    for name, settings in s.loss.plugins.items():
        weight = getattr(settings, "weight", 0)
        if not 0 <= weight <= 1e6:
            raise SettingsError(f"setting 'loss.{name}.weight' is {weight}; it must be in 0..1e+06")
    if 0 < s.tile < 32:
        raise SettingsError(
            f"setting 'tile' is {s.tile}; it must be in 32..8192, or 0 for whole images"
        )
    if 0 < s.white_level < 255:
        raise SettingsError(
            f"setting 'white_level' is {s.white_level}; it must be in 255..65535, or 0 to find it"
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
    terms = LOSSES.builtin()
    weights = [getattr(s.loss, term) for term in terms]
    weights += [_plain(settings)["weight"] for settings in s.loss.plugins.values()]
    if not any(weight > 0 for weight in weights):
        raise SettingsError(
            f"all losses are switched off; give one of {', '.join('loss.' + x for x in terms)} "
            "a weight above 0"
        )
    if s.map.stage_weights and not any(s.map.stage_weights):
        raise SettingsError(
            "setting 'map.stage_weights' has only zeros, so every map would be empty; give a stage "
            "a weight above 0"
        )
    return s
