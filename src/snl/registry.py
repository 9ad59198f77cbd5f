"""Registries of the parts that a plug-in can add: losses, students, map distances and scorers.

Every part has a name, an implementation and, if it has settings of its own, a frozen dataclass of
them. The built-in parts are registered here; another package adds parts with the same decorators
and announces its module in the entry-point group `snl.plugins`:

    [project.entry-points."snl.plugins"]
    snl_sparse = "snl_sparse"

    # snl_sparse/__init__.py
    @register_loss("sparse_code", implementation="snl_sparse.losses:sparse_code", scope="batch")
    @dataclass(frozen=True)
    class SparseCodeSettings:
        weight: float = 0.0

The implementation is named as `module:attribute` and imported when it is used, so that reading
settings and showing help never import torch. Plug-in modules are imported only when a name is not
built in, or when all names are listed. A complete example is in `examples/plugin`.
"""

from __future__ import annotations

import dataclasses
import importlib
import operator
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from snl.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "snl.plugins"
"""Entry-point group; the value of an entry point is a module that registers parts."""

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One registered part.

    Attributes:
        kind: `loss`, `student`, `distance` or `scorer`.
        name: as settings refer to it.
        implementation: `module:attribute`.
        settings: frozen dataclass of the part's own settings; None: it has none.
        scope: losses only; `stage`: called for every stage, `batch`: once per batch.
        statistics: distances only; whether the statistics of normal errors are needed.
        package: distribution that provides a plug-in, or the module that registered it; empty for
            built-in parts.
        version: of that distribution.
    """

    kind: str
    name: str
    implementation: str
    settings: type[Any] | None = None
    scope: str = "stage"
    statistics: bool = False
    package: str = ""
    version: str = ""

    def load(self) -> Any:
        """Import and return the implementation.

        Raises:
            PluginError: it cannot be imported.
        """
        module, _, attribute = self.implementation.partition(":")
        try:
            return operator.attrgetter(attribute)(importlib.import_module(module))
        except Exception as error:
            if not self.package:
                raise
            raise PluginError(
                f"{self.kind} '{self.name}' of {self.package} cannot be imported "
                f"({_reason(error)}); repair or reinstall {self.package}"
            ) from error


class Registry:
    """Parts of one kind by name.

    Args:
        kind: as in `Part.kind`.
        section: of the settings, where the settings of the parts are `SECTION.NAME.*`.
        builtin: implementations of the built-in parts by name.
        statistics: names of built-in distances that need the statistics of normal errors.
    """

    def __init__(
        self,
        kind: str,
        section: str,
        builtin: dict[str, str],
        statistics: frozenset[str] = frozenset(),
    ) -> None:
        self.kind = kind
        self.section = section
        self.reserved: frozenset[str] = frozenset()
        self._parts = {
            name: Part(kind, name, target, statistics=name in statistics)
            for name, target in builtin.items()
        }

    def __contains__(self, name: str) -> bool:
        if name not in self._parts:
            load_plugins()
        return name in self._parts

    def get(self, name: str) -> Part:
        """Return the part of this name; plug-ins are imported if it is not built in.

        Raises:
            PluginError: there is none, with the names that exist.
        """
        if name not in self:
            raise PluginError(
                f"there is no {self.kind} '{name}'; installed: {', '.join(self._parts)}"
                + import_failures()
            )
        return self._parts[name]

    def parts(self) -> tuple[Part, ...]:
        """Return all parts, built-in ones first; imports the installed plug-ins."""
        load_plugins()
        return tuple(self._parts.values())

    def builtin(self) -> tuple[str, ...]:
        """Return the names of the built-in parts."""
        return tuple(name for name, part in self._parts.items() if not part.package)

    def reserve(self, names: Iterable[str]) -> None:
        """Refuse parts of these names: a setting of the section has the name."""
        self.reserved = frozenset(names).difference(self.builtin())

    def add(self, part: Part) -> None:
        """Register a part.

        Raises:
            PluginError: the name is not an identifier, or already in use.
        """
        known = self._parts.get(part.name)
        if not part.name.isidentifier():
            raise PluginError(
                f"{part.kind} '{part.name}' of {part.package}: the name must be an identifier, "
                "such as sparse_code"
            )
        if part.name in self.reserved:
            raise PluginError(
                f"{part.kind} '{part.name}' of {part.package}: the settings already have "
                f"'{self.section}.{part.name}'; choose another name"
            )
        if known is not None and known.implementation != part.implementation:
            raise PluginError(
                f"{part.kind} '{part.name}' is registered twice, by {known.package or 'snl'} and "
                f"by {part.package}; rename one or uninstall one of the packages"
            )
        for other in REGISTRIES.values():  # a distance and a scorer share the section `map`
            same = other._parts.get(part.name) if other.section == self.section else None
            if other is not self and same and same.settings and part.settings:
                raise PluginError(
                    f"{part.kind} '{part.name}' of {part.package}: its settings would be "
                    f"'{self.section}.{part.name}.*', as those of the {same.kind} of {same.package}"
                    "; choose another name"
                )
        self._parts[part.name] = part

    def assign(self, module: str, package: str, version: str) -> None:
        """Set the distribution of parts that `module` registered before it was known."""
        for name, part in self._parts.items():
            if part.package == module and not part.version:
                self._parts[name] = dataclasses.replace(part, package=package, version=version)

    def remove(self, name: str) -> None:
        """Forget a plug-in's part; built-in parts stay."""
        if name in self._parts and self._parts[name].package:
            del self._parts[name]


LOSSES = Registry(
    "loss",
    "loss",
    {
        "global_cosine": "snl.model.losses:global_cosine_term",
        "mse": "snl.model.losses:mse_term",
        "channel": "snl.model.losses:channel_term",
        "spatial": "snl.model.losses:spatial_term",
        "intra": "snl.model.losses:intra_term",
        "inter": "snl.model.losses:inter_term",
    },
)
STUDENTS = Registry(
    "student",
    "student",
    {
        "reverse": "snl.model.student:make_reverse",
        "forward": "snl.model.student:make_forward",
        "uniad": "snl.model.uniad:make_uniad",
    },
)
DISTANCES = Registry(
    "distance",
    "map",
    {
        "cosine": "snl.model.anomaly:cosine_distance",
        "l2": "snl.model.anomaly:l2_distance",
        "standardised": "snl.model.anomaly:standardised_distance",
    },
    statistics=frozenset({"standardised"}),
)
SCORERS = Registry(
    "scorer", "map", {"max": "snl.model.anomaly:max_score", "topk": "snl.model.anomaly:top_score"}
)
REGISTRIES = {r.kind: r for r in (LOSSES, STUDENTS, DISTANCES, SCORERS)}

_lock = threading.RLock()
_loaded = False
_failed: dict[str, str] = {}
_source: tuple[str, str] | None = None
"""Distribution and version of the entry point that is being imported."""


def register_loss(
    name: str, *, implementation: str = "", settings: type[Any] | None = None, scope: str = "stage"
) -> Callable[[T], T]:
    """Register a loss: decorates its settings class, or the function itself.

    The function takes `(features, settings)`; `features` is a `snl.model.losses.StageFeatures` for
    the scope `stage` (the results of all stages are summed) or a `snl.model.losses.BatchFeatures`
    for `batch`. It returns a scalar. The settings need a field `weight`; the loss is computed where
    it is above 0.

    Args:
        name: identifier; the settings are `loss.NAME.*`.
        implementation: `module:attribute`, if a settings class is decorated.
        settings: settings class, if the function is decorated.
        scope: `stage` or `batch`.
    """
    return _decorator(LOSSES, name, implementation, settings, scope=scope)


def register_student(
    name: str, *, implementation: str = "", settings: type[Any] | None = None
) -> Callable[[T], T]:
    """Register a student: decorates its settings class, or the factory itself.

    The factory takes `(teacher, settings)`, a `snl.model.base.TeacherInfo` and the complete
    `snl.settings.Settings`, and returns a `snl.model.base.Student`. Its own settings are
    `student.NAME.*`, as `settings.student.of(NAME)`.
    """
    return _decorator(STUDENTS, name, implementation, settings)


def register_distance(
    name: str,
    *,
    implementation: str = "",
    settings: type[Any] | None = None,
    statistics: bool = False,
) -> Callable[[T], T]:
    """Register a map distance: decorates its settings class, or the function itself.

    The function takes `(teacher, student, context)`: features float32 (B, C, h, w) of one stage and
    a `snl.model.anomaly.DistanceContext`; it returns (B, h, w), at least 0. With `statistics` the
    moments of the errors on normal images are fitted after training.
    """
    return _decorator(DISTANCES, name, implementation, settings, statistics=statistics)


def register_scorer(
    name: str, *, implementation: str = "", settings: type[Any] | None = None
) -> Callable[[T], T]:
    """Register a scorer: decorates its settings class, or the function itself.

    The function takes `(maps, settings)`, maps float32 (B, H, W) and the `MapSettings`; it returns
    the scores (B,). Its own settings are `map.NAME.*`, as `settings.of(NAME)`.
    """
    return _decorator(SCORERS, name, implementation, settings)


def _decorator(
    registry: Registry,
    name: str,
    implementation: str,
    settings: type[Any] | None,
    **options: Any,
) -> Callable[[T], T]:
    def decorate(target: T) -> T:
        nonlocal implementation, settings
        if isinstance(target, type) and dataclasses.is_dataclass(target):
            if not implementation:
                raise PluginError(
                    f"{registry.kind} '{name}': a settings class needs "
                    "implementation='module:attribute'"
                )
            settings = target
        elif implementation:
            raise PluginError(
                f"{registry.kind} '{name}': implementation= is for a settings class, a dataclass; "
                "apply @dataclass first, or leave implementation out"
            )
        else:
            module, path = getattr(target, "__module__", ""), getattr(target, "__qualname__", "")
            implementation = f"{module}:{path}"
            if not path or "<" in path:
                raise PluginError(
                    f"{registry.kind} '{name}': {implementation} cannot be imported by its name; "
                    "define it at the top level of its module"
                )
        fields = _fields_with_defaults(registry.kind, name, settings)
        if registry is LOSSES and "weight" not in fields:
            raise PluginError(f"loss '{name}': its settings need a field 'weight'")
        if options.get("scope", "stage") not in ("stage", "batch"):
            raise PluginError(
                f"loss '{name}': scope is '{options['scope']}'; it takes 'stage' or 'batch'"
            )
        package, version = _source or (implementation.partition(".")[0].partition(":")[0], "")
        registry.add(
            Part(
                registry.kind,
                name,
                implementation,
                settings,
                package=package,
                version=version,
                **options,
            )
        )
        return target

    return decorate


def _fields_with_defaults(kind: str, name: str, settings: type[Any] | None) -> set[str]:
    """Names of the fields of a settings class; each needs a default value."""
    if settings is None:
        return set()
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise PluginError(f"{kind} '{name}': its settings must be a dataclass")
    for field in dataclasses.fields(settings):
        if field.default is field.default_factory is dataclasses.MISSING:
            raise PluginError(f"{kind} '{name}': its setting '{field.name}' needs a default value")
    return {field.name for field in dataclasses.fields(settings)}


def load_plugins() -> None:
    """Import every installed plug-in once; one that fails is skipped and named in later errors."""
    with _lock:  # other threads wait until all names are there
        global _loaded
        if not _loaded:
            _loaded = True
            from importlib.metadata import entry_points  # slow to import

            for point in entry_points(group=GROUP):
                _load_plugin(point)


def _load_plugin(point: EntryPoint) -> None:
    global _source
    package = point.dist.name if point.dist else point.name
    version = point.dist.version if point.dist else ""
    _source = package, version
    try:
        point.load()
    except Exception as error:  # a plug-in of somebody else may raise anything
        _failed[package] = _reason(error)
    finally:
        _source = None
    for registry in REGISTRIES.values():  # if the module was imported before its entry point
        registry.assign(point.module.partition(".")[0], package, version)


def failed_plugins() -> dict[str, str]:
    """Return the reason by package of every installed plug-in that could not be imported."""
    load_plugins()
    return dict(_failed)


def import_failures() -> str:
    """Return the plug-ins that could not be imported, as the end of an error message."""
    return "".join(f"; {package} could not be imported ({why})" for package, why in _failed.items())


def _reason(error: Exception) -> str:
    """The error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
