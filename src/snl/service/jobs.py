"""Jobs: work that makes a new version of a model, in a process of its own.

A job is a command, `snl add`, `snl calibrate` or `snl train`, on a copy of the model and on a
folder of its images. All three go on where they were interrupted, and so does a job: after a crash
of the service it is started again. What it makes is a candidate; promoting it is up to a person.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from snl.data.roi import parse_roi
from snl.errors import DataError, SettingsError, SnlError
from snl.progress import INTERVAL
from snl.service.ids import new_id
from snl.service.models import Models
from snl.service.processes import end_orphan, progress_in, remember, stop
from snl.service.sets import Sets
from snl.service.shadow import is_normal_by
from snl.service.store import NotThereError, Store, audit
from snl.service.tables import InspectionRow, JobRow, ModelRow

log = logging.getLogger("snl.service")

KINDS = ("add", "recalibrate", "train")
POLL_SECONDS = 0.5
_FLAGS = {"add": ("replace", "quick", "force"), "recalibrate": ("add", "force"), "train": ()}
"""Options that are only given or not; `add` is always set for `recalibrate`."""
_ENDED = ("done", "failed", "cancelled")
_SUFFIXES = {
    "image/jpeg": ".jpg", "image/png": ".png", "image/bmp": ".bmp", "image/gif": ".gif",
    "image/x-portable-anymap": ".ppm", "image/tiff": ".tif", "image/webp": ".webp",
}  # fmt: skip


class Jobs:
    """Runs jobs one after another.

    Args:
        store: of their rows.
        models: that they start from, and that get what they make.
        sets: of their images.
        folder: of their files; each job has a folder in it.
    """

    def __init__(self, store: Store, models: Models, sets: Sets, folder: Path) -> None:
        self.store, self.models, self.sets, self.folder = store, models, sets, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._wake = threading.Event()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._running = ""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="snl-jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: str, model: str, settings: Mapping[str, Any], who: str) -> JobRow:
        """Queue a job.

        Args:
            kind: one of KINDS.
            model: empty: the first one; `train` may name a new one.
            settings: `product`, `set`, `reviewed`, `sets`, `replace`, `quick`, `steps`, `roi`,
                `force`.
            who: wants it.

        Raises:
            SettingsError, DataError: settings that do not fit the kind, or are not possible.
            NotThereError: there is no such model or set.
        """
        base: ModelRow | None = None
        if kind not in KINDS:
            raise SettingsError(f"kind '{kind}': choose of {', '.join(KINDS)}")
        if settings.get("roi") is not None:
            if kind != "add":
                raise SettingsError("roi: only for add, with the images of the product")
            parse_roi(_roi_text(settings["roi"]))
        if kind == "train":
            wanted = settings.get("sets") or {}
            if not wanted or settings.get("set") or settings.get("reviewed"):
                raise SettingsError("train: give `sets`, a set of images for each product")
            for product, name in wanted.items():
                _check_product(product)
                self.sets.images(name)
        else:
            active = self.models.active(model)
            base = self.models.row(active.id)
            _check_product(settings.get("product") or "")
            if Path(base.file).suffix != ".snl" and kind == "add":
                raise SettingsError(f"{active.name} is an export; only a bundle learns products")
            if kind == "recalibrate":
                active.calibration.check_product(settings["product"])
            if bool(settings.get("set")) == bool(settings.get("reviewed")):
                raise SettingsError(f"{kind}: give either `set` or `reviewed`")
            if settings.get("reviewed") and kind != "recalibrate":
                raise SettingsError("reviewed: only for recalibrate")
            if settings.get("set"):
                self.sets.images(settings["set"])
            model = active.name
        if kind == "recalibrate":
            settings = {**settings, "add": True}
        row = JobRow(
            id=new_id(),
            kind=kind,
            model=model or self.models.first or "parts",
            base=None if base is None else base.id,
            settings=dict(settings),
            created=datetime.now(UTC),
            who=who,
            state="queued",
            started=None,
            finished=None,
            progress={},
            error="",
            result=None,
        )
        with self.store.writing() as session:
            session.add_all([row, audit(who, f"job {kind}", row.id, row.settings)])
        self._wake.set()
        return row

    def newest(self, most: int = 100) -> Sequence[JobRow]:
        """Return the newest jobs first."""
        with self.store.reading() as session:
            return session.scalars(select(JobRow).order_by(JobRow.id.desc()).limit(most)).all()

    def row(self, id: str) -> JobRow:
        """Return a job.

        Raises:
            NotThereError: there is none.
        """
        with self.store.reading() as session:
            row = session.get(JobRow, id)
        if row is None:
            raise NotThereError(f"there is no job {id[:40]}")
        return row

    def cancel(self, id: str, who: str) -> JobRow:
        """Cancel a job; what it was about is not changed.

        Raises:
            NotThereError: there is none.
        """
        self.row(id)
        with self._lock:
            with self.store.writing() as session:
                row = session.get_one(JobRow, id)
                if row.state not in _ENDED:
                    row.state, row.finished = "cancelled", datetime.now(UTC)
                    session.add(audit(who, "job cancel", id))
            process = self._process if self._running == id else None
        if process is not None:
            stop(process)
        return row

    def log(self, id: str, most: int = 20_000) -> str:
        """Return the end of what a job wrote, without paths.

        Raises:
            NotThereError: there is none.
        """
        self.row(id)
        with suppress(OSError):
            text = (self.folder / id / "log").read_bytes()[-most:].decode("utf-8", "replace")
            return self._without_paths(text, id)
        return ""

    def close(self) -> None:
        """Interrupt what runs; it goes on when the service starts again."""
        self._closed = True
        self._wake.set()
        with self._lock:
            process = self._process
        if process is not None:
            stop(process)
        self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                row = self._next()
                if row is not None:
                    self._do(row)
                    continue
            except SnlError as error:  # the store cannot be used now
                log.warning("jobs: %s", error)
            except Exception:  # the thread must live
                log.exception("jobs")
            self._wake.wait(5)

    def _next(self) -> JobRow | None:
        """Return the job that was interrupted, or the oldest one that waits."""
        query = select(JobRow).order_by(JobRow.id)
        with self.store.reading() as session:
            for state in ("running", "queued"):
                row = session.scalars(query.where(JobRow.state == state)).first()
                if row is not None:
                    return row
        return None

    def _do(self, row: JobRow) -> None:
        folder = self.folder / row.id
        try:
            folder.mkdir(exist_ok=True)
            end_orphan(folder / "pid")
            command, output = self._prepare(row, folder)
            # a complete output is of a job whose service was killed before it could take it
            status = 0 if output.is_file() else self._execute(row, command, folder)
            if self._closed or self.row(row.id).state == "cancelled":
                return
            if status == 0 and output.is_file():
                made = self.models.add(output, row.model, row.who, _why(row))
                self._end(row.id, "done", result=made.id)
            else:
                self._end(row.id, "failed", error=self._last_line(folder, row.id, status))
        except (SnlError, OSError) as error:
            self._end(row.id, "failed", error=self._without_paths(str(error), row.id))
        finally:
            if not self._closed:
                shutil.rmtree(folder / "images", ignore_errors=True)
                for path in folder.glob("*.snl*"):
                    path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path, True)

    def _prepare(self, row: JobRow, folder: Path) -> tuple[list[str], Path]:
        """Put the images where the command finds them; return it and its output."""
        settings = row.settings
        output = folder / f"new{'.snl' if row.base is None else self._suffix(row)}"
        table = self._fill(folder / "images", row)
        flags = [f"--{name}" for name in _FLAGS[row.kind] if settings.get(name)]
        if settings.get("steps") and row.kind != "recalibrate":
            flags += ["--steps", str(settings["steps"])]
        if row.kind == "train":
            return ["train", str(table), "-o", str(output), *flags], output
        if settings.get("roi") is not None:
            flags.append(f"--roi={settings['product']}={_roi_text(settings['roi'])}")
        assert row.base is not None
        verb = ["add"] if row.kind == "add" else ["calibrate"]
        source = self.models.path(self.models.row(row.base))
        return [*verb, str(source), str(table), "-o", str(output), *flags], output

    def _suffix(self, row: JobRow) -> str:
        assert row.base is not None
        return Path(self.models.row(row.base).file).suffix

    def _fill(self, folder: Path, row: JobRow) -> Path:
        """Link or copy the images of a job into a folder; return a manifest of them.

        Only our own names become names of files; those of products are in the manifest.
        """
        settings = row.settings
        wanted = settings.get("sets") or {settings["product"]: settings.get("set")}
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "manifest.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "product"])
            for number, (product, name) in enumerate(wanted.items()):
                for image, kind in self._images(row, name):
                    path = folder / f"{number:04d}-{image[:32]}{_SUFFIXES.get(kind, '.png')}"
                    if self._link(image, path):
                        rows.writerow([path.name, product])
        return table

    def _images(self, row: JobRow, name: str | None) -> list[tuple[str, str]]:
        """Return the images of a set, or those reviewed as normal, with their media types."""
        if name is None:
            return self._reviewed(row)
        return [(one.image, one.image_type) for one in self.sets.images(name)]

    def _link(self, image: str, path: Path) -> bool:
        """Link or copy an image; return whether it is there."""
        source = self.sets.blobs.path(image)
        if not source.is_file():
            return False
        if not path.exists():
            try:
                os.link(source, path)
            except OSError:
                shutil.copyfile(source, path)
        return True

    def _reviewed(self, row: JobRow) -> list[tuple[str, str]]:
        """Return the images of a product that people said are normal."""
        versions = select(ModelRow.id).where(ModelRow.name == row.model)
        query = (
            select(InspectionRow)
            .where(InspectionRow.model.in_(versions), InspectionRow.review.is_not(None))
            .where(InspectionRow.product == row.settings["product"], InspectionRow.bytes > 0)
            .order_by(InspectionRow.id)
        )
        with self.store.reading() as session:
            rows = session.scalars(query).all()
        found = {
            one.image: one.image_type for one in rows if is_normal_by(one.decision, str(one.review))
        }
        if not found:
            raise DataError("no stored inspection of this product was reviewed as normal")
        return list(found.items())

    def _execute(self, row: JobRow, command: Sequence[str], folder: Path) -> int:
        """Run the command; return its exit status."""
        log_file = folder / "log"
        environment = {
            **os.environ, "COLUMNS": "100", INTERVAL: "1", "OMP_WAIT_POLICY": "PASSIVE",
        }  # fmt: skip
        with log_file.open("ab") as output, self._lock:
            with self.store.writing() as session:
                current = session.get_one(JobRow, row.id)
                if current.state == "cancelled" or self._closed:
                    return -1
                current.state = "running"
                current.started = current.started or datetime.now(UTC)
            process = subprocess.Popen(
                [sys.executable, "-m", "snl", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                start_new_session=True, cwd=folder,
            )  # fmt: skip
            with suppress(OSError, AttributeError):  # inspecting comes first
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
            self._process, self._running = process, row.id
            remember(process.pid, folder / "pid")
        seen: dict[str, Any] = {}
        try:
            while process.poll() is None:
                now = progress_in(log_file)
                if now and now != seen:
                    seen = now
                    with suppress(SnlError), self.store.writing() as session:
                        session.get_one(JobRow, row.id).progress = now
                time.sleep(POLL_SECONDS)
        finally:
            with self._lock:
                self._process, self._running = None, ""
        return process.returncode

    def _end(self, id: str, state: str, *, result: str | None = None, error: str = "") -> None:
        with self.store.writing() as session:
            row = session.get_one(JobRow, id)
            if row.state not in _ENDED:
                row.state, row.result, row.error = state, result, error[:2000]
                row.finished = datetime.now(UTC)

    def _last_line(self, folder: Path, id: str, status: int) -> str:
        text = ""
        with suppress(OSError):
            text = (folder / "log").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
        return self._without_paths(lines[-1] if lines else f"ended with status {status}", id)

    def _without_paths(self, text: str, id: str) -> str:
        for path, shown in (
            (self.folder / id, "job"), (self.models.folder, "models"), (self.folder, "jobs"),
        ):  # fmt: skip
            text = text.replace(f"{path.resolve()}{os.sep}", "").replace(f"{path}{os.sep}", "")
            text = text.replace(str(path), shown)
        return text


def _roi_text(roi: Sequence[int]) -> str:
    """Return a region of interest as the option --roi takes it."""
    return ",".join(map(str, roi))


def _why(row: JobRow) -> str:
    """Return why a version was made, for people."""
    products = row.settings.get("product") or ", ".join(row.settings.get("sets") or ())
    return f"{row.kind} {products}, job {row.id}"


def _check_product(name: str) -> None:
    """Check the name of a product.

    Raises:
        SettingsError: it is not possible.
    """
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise SettingsError(f"product '{name[:40]}': give a name of up to 200 characters")
