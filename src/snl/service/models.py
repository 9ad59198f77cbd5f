"""Models side by side, each with versions: one is active, others may run in its shadow.

The files of all versions are copies in the service's folder, so that what has decided stays. A
version becomes active by `promote`; the one before stays loaded until what it accepted is done,
and no request is dropped.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from snl.decision.calibration import Calibration
from snl.errors import SettingsError, SnlError
from snl.limits import MAX_PIXELS
from snl.runtime.describe import metadata_of
from snl.runtime.inspector import Inspector, load
from snl.service.ids import new_id
from snl.service.model_files import ModelError as ModelError
from snl.service.model_files import copy_into, digest_of
from snl.service.serving import Serving
from snl.service.store import NotThereError, Store, audit
from snl.service.tables import AuditRow, ModelRow

NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,100}")
SUFFIXES = (".snl", ".onnx", ".xml")


class NoModelError(NotThereError):
    """There is no such model or version."""


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded: see `snl.load` and `Batcher`."""

    device: str = "auto"
    threads: int = 0
    batch_size: int = 16
    waiting: int = 64


@dataclass(frozen=True)
class Traits:
    """What a version decides with, without its network."""

    calibration: Calibration
    white_level: int


class Models:
    """The models of a service.

    Args:
        store: of their rows.
        folder: of their files.
        options: how they are loaded.
    """

    def __init__(self, store: Store, folder: Path, options: LoadOptions | None = None) -> None:
        self.store, self.folder = store, folder
        self.options = options or LoadOptions()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("incoming-*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        self.first = ""
        """Name of the model that is used where a request names none; empty: there is no model."""
        self._active: dict[str, Serving] = {}
        self._shadows: dict[str, Serving] = {}
        self._changing = threading.RLock()
        self.changed: Callable[[str], None] = lambda name: None
        """Called with the name of a model after another version became active."""
        self._traits = lru_cache(8)(self._read_traits)

    # --- what is loaded ---

    def start(self, files: Sequence[Path]) -> None:
        """Load the models: those of the files, and those that the store has.

        A file whose content is not a version yet becomes one, and active. The same file again
        changes nothing: what was promoted since stays active.

        Raises:
            SettingsError: two files have the same name.
            BundleError: a file cannot be read.
        """
        names = [file.stem for file in files]
        if len(set(names)) < len(names):
            raise SettingsError("two of the files have the same name; each is a model of its own")
        for file in files:
            with self._changing:
                digest = digest_of(file)
                with self.store.reading() as session:
                    query = select(ModelRow.id).where(ModelRow.sha256 == digest)
                    known = session.scalars(query.where(ModelRow.name == file.stem)).first()
                if known is None:
                    row = self.add(file, file.stem, "local", f"given at the start: {file.name}")
                    self._activate(row.id, "local", "given at the start")
        for row in self.rows():
            if row.state == "active" and row.name not in self._active:
                self._active[row.name] = self._load(row)
            elif row.state == "shadow":
                self._shadows[row.id] = self._load(row)
        self.first = names[0] if names else next(iter(self._active), "")

    def names(self) -> list[str]:
        """Return the names of the models; the first one is used where a request names none."""
        if not self._active:
            return []
        return [self.first, *sorted(name for name in self._active if name != self.first)]

    def active(self, name: str = "") -> Serving:
        """Return the active version of a model; empty: the first model.

        Raises:
            NoModelError: there is none of this name.
        """
        try:
            return self._active[name or self.first]
        except KeyError:
            if not self._active:
                raise NoModelError(
                    "there is no model yet: promote one that was uploaded or trained"
                ) from None
            raise NoModelError(
                f"there is no model {name[:100]}; known: {', '.join(self.names())}"
            ) from None

    def limits(self) -> tuple[int, int]:
        """Return `max_pixels` and `white_level` by which images are decoded that no model has
        inspected: those of the first model, or the defaults."""
        if not self._active:
            return MAX_PIXELS, 0
        inspector = self.active().inspector
        return inspector.max_pixels, inspector.white_level

    def shadows(self, name: str) -> list[Serving]:
        """Return the versions that run in the shadow of a model."""
        return [one for one in list(self._shadows.values()) if one.name == name]

    def loaded(self, id: str) -> Serving | None:
        """Return a version if it is loaded."""
        active = (one for one in list(self._active.values()) if one.id == id)
        return next(active, None) or self._shadows.get(id)

    def read(self, id: str) -> Traits:
        """Return what a version decides with, loaded or not.

        Raises:
            NoModelError: there is no such version.
            BundleError: its file cannot be read.
        """
        serving = self.loaded(id)
        if serving is None:
            return self._traits(id)
        return Traits(serving.calibration, serving.inspector.white_level)

    # --- versions ---

    def rows(self, name: str = "") -> Sequence[ModelRow]:
        """Return the versions of a model, or of all, by name, newest first."""
        query = select(ModelRow).order_by(ModelRow.name, ModelRow.version.desc())
        if name:
            query = query.where(ModelRow.name == name)
        with self.store.reading() as session:
            return session.scalars(query).all()

    def row(self, id: str) -> ModelRow:
        """Return a version.

        Raises:
            NoModelError: there is none.
        """
        with self.store.reading() as session:
            row = session.get(ModelRow, id)
        if row is None:
            raise NoModelError(f"there is no version {id[:40]}")
        return row

    def path(self, row: ModelRow) -> Path:
        """Return the file of a version."""
        return self.folder / row.file

    def add(self, file: Path, name: str, who: str, why: str, *, shown: str = "") -> ModelRow:
        """Copy a model file into the service, as a candidate; it is loaded once as a check.

        Args:
            file: bundle, ONNX or OpenVINO file (with its `.bin` beside it).
            name: of the model, a new or a known one.
            who: adds it.
            why: in words.
            shown: name of the file in messages; empty: its path.

        Raises:
            BundleError: it cannot be loaded.
            SettingsError: the name or the suffix is not possible.
            ModelError: the version exists.
        """
        suffix = file.suffix.lower()
        if not NAME.fullmatch(name) or not name.strip():
            raise SettingsError(
                f"model name '{name[:40]}': give 1 to 100 characters without / or \\"
            )
        if suffix not in SUFFIXES:
            raise SettingsError(f"{file.name}: give a file of {', '.join(SUFFIXES)}")
        digest = digest_of(file)
        stored = f"{digest}{suffix}"
        if not (self.folder / stored).is_file():
            weights = file.with_suffix(".bin")
            if suffix == ".xml" and weights.is_file():
                copy_into(self.folder, weights, f"{digest}.bin")
            copy_into(self.folder, file, stored)
        try:
            inspector = self._open(stored)
        except BaseException as error:
            if not self._is_used(stored):
                for one in self.folder.glob(f"{digest}.*"):
                    one.unlink(missing_ok=True)
            if isinstance(error, SnlError):
                text = str(error).replace(str(self.folder / stored), shown or str(file))
                raise type(error)(text) from None
            raise
        with self.store.writing() as session:
            query = select(ModelRow).where(ModelRow.name == name, ModelRow.sha256 == digest)
            if (same := session.scalars(query).first()) is not None:
                raise ModelError(f"this file is version {same.version} of {name} already")
            row = ModelRow(
                id=new_id(),
                name=name,
                version=self._next(session, name),
                file=stored,
                sha256=digest,
                network=inspector.calibration.network,
                created=datetime.now(UTC),
                who=who,
                why=why[:1000],
                state="candidate",
                promoted=None,
            )
            details = {"model": name, "version": row.version, "why": row.why}
            session.add_all([row, audit(who, "model add", row.id, details)])
        inspector.close()
        return row

    def set_shadow(self, id: str, on: bool, who: str) -> ModelRow:
        """Let a version run in the shadow of the active one, or stop that.

        Raises:
            ModelError: it is active itself, or its model has no active version.
        """
        with self._changing:
            row = self.row(id)
            if row.state == "active":
                raise ModelError("this version is active; it cannot be its own shadow")
            self.active(row.name)
            if on == (row.state == "shadow"):
                return row
            row = self._write(id, "shadow" if on else "candidate", who, "shadow", "")
            if on:
                self._shadows[id] = self._load(row)
            elif (serving := self._shadows.pop(id, None)) is not None:
                serving.close()
            return row

    def promote(self, id: str, who: str, why: str) -> ModelRow:
        """Make a version active; the one before is retired once it has done what it accepted.

        Raises:
            NoModelError: there is no such version.
            BundleError: it cannot be loaded; nothing changes.
        """
        with self._changing:
            return self._activate(id, who, why)

    def discard(self, id: str, who: str, why: str) -> ModelRow:
        """Retire a version that is not active.

        Raises:
            NoModelError: there is no such version.
            ModelError: it is active.
        """
        with self._changing:
            if self.row(id).state == "active":
                raise ModelError("this version is active; roll back, or promote another one")
            row = self._write(id, "retired", who, "discard", why)
            if (serving := self._shadows.pop(id, None)) is not None:
                serving.close()
            return row

    def rollback(self, name: str, who: str, why: str) -> ModelRow:
        """Make the version active again that was active before.

        Raises:
            ModelError: there is none.
        """
        with self._changing:
            self.active(name)
            before = [row.id for row in self.rows(name) if row.state != "active" and row.promoted]
            query = (  # in the order of the audit, whatever the clock said
                select(AuditRow.subject)
                .where(AuditRow.action == "model promote", AuditRow.subject.in_(before))
                .order_by(AuditRow.id.desc())
            )
            with self.store.reading() as session:
                last = session.scalars(query).first()
            if last is None:
                raise ModelError(f"no earlier version of {name} was active")
            return self._activate(last, who, why)

    def recalibrate(
        self, name: str, change: Callable[[Calibration], Calibration], who: str, why: str
    ) -> ModelRow:
        """Make a version with a changed calibration, and make it active.

        Args:
            name: of the model.
            change: returns the new calibration from the one in force.
            who, why: for the history.

        Raises:
            SettingsError: the change is not possible.
        """
        with self._changing:
            active = self.active(name)
            calibration = change(active.calibration)
            inspector = Inspector(active.inspector.predictor, active.inspector.calibrations)
            inspector.recalibrate(calibration)
            suffix = Path(self.row(active.id).file).suffix
            temporary = self.folder / f"incoming-{new_id()}{suffix}"
            try:
                inspector.save(temporary)
                row = self.add(temporary, active.name, who, why or calibration.reason)
            finally:
                for one in self.folder.glob(f"{temporary.stem}.*"):
                    one.unlink(missing_ok=True)
            return self._activate(row.id, who, why)

    def close(self) -> None:
        """Process what was accepted, and stop."""
        for serving in [*self._active.values(), *self._shadows.values()]:
            serving.close()

    # --- how ---

    def _activate(self, id: str, who: str, why: str) -> ModelRow:
        row = self.row(id)
        serving = self._shadows.pop(id, None) or self._load(row)
        before = self._active.get(row.name)
        if before is not None and before.id == id:
            serving.close()
            return row
        try:
            row = self._write(id, "active", who, "promote", why)
        except BaseException:
            serving.close()
            raise
        self._active[row.name] = serving
        self.first = self.first or row.name
        if before is not None:
            before.close()
        self.changed(row.name)
        return row

    def _write(self, id: str, state: str, who: str, action: str, why: str) -> ModelRow:
        """Change the state of a version, with an audit row."""
        now = datetime.now(UTC)
        with self.store.writing() as session:
            row = session.get_one(ModelRow, id)
            if state == "active":
                query = select(ModelRow).where(ModelRow.name == row.name)
                for other in session.scalars(query.where(ModelRow.state == "active")):
                    other.state = "retired"
                row.promoted = now
            details = {"model": row.name, "version": row.version, "from": row.state, "to": state}
            row.state = state
            session.add(audit(who, f"model {action}", id, {**details, "why": why[:1000]}))
        return row

    def _load(self, row: ModelRow) -> Serving:
        options = self.options
        return Serving(
            row.id, row.name, row.version, self._open(row.file),
            batch_size=options.batch_size, waiting=options.waiting,
        )  # fmt: skip

    def _open(self, file: str) -> Inspector:
        return load(self.folder / file, self.options.device, self.options.threads)

    def _read_traits(self, id: str) -> Traits:
        metadata = metadata_of(self.path(self.row(id)))
        return Traits(metadata.calibrations[-1], metadata.settings.white_level)

    def _next(self, session: Session, name: str) -> int:
        query = select(func.max(ModelRow.version)).where(ModelRow.name == name)
        return (session.scalar(query) or 0) + 1

    def _is_used(self, file: str) -> bool:
        with self.store.reading() as session:
            query = select(ModelRow.id).where(ModelRow.file == file)
            return session.scalars(query).first() is not None
