"""The files of a training: its folder, its lock, and what is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock, Timeout

from snl.data.catalog import Catalog
from snl.errors import TrainingError
from snl.runtime.inspector import Inspector, load
from snl.settings import Settings
from snl.training import checkpoint
from snl.training.contents import content_hashes


def run_folder(target: Path | None, stack: ExitStack) -> Path:
    """The folder of the unfinished run; without a target a temporary one."""
    if target is None:
        return Path(stack.enter_context(TemporaryDirectory(prefix="snl-")))
    return target.with_name(target.name + ".run")


def finished_run(
    target: Path,
    folder: Path,
    settings: Settings,
    catalog: Catalog,
    sources: Mapping[str, str],
    resume: bool,
    overwrite: bool,
    device: str,
) -> Inspector | None:
    """Decide about existing files: return a finished bundle that fits, or None to train.

    Raises:
        TrainingError: there is a bundle or a run that may not be replaced.
    """
    unfinished = (folder / checkpoint.NAME).is_file()
    if resume and unfinished:
        return None  # the checkpoint itself is checked when it is restored
    if resume and target.is_file():
        inspector = load(target, device)
        if inspector.settings == settings and _made_of(inspector, catalog, sources):
            return inspector
    if overwrite:
        return None
    if target.exists():
        reason = " (trained with other settings, images or teacher weights)" if resume else ""
        raise TrainingError(
            f"{target}: exists already{reason}; choose another -o, or replace it with --overwrite"
        )
    if unfinished:
        raise TrainingError(
            f"{folder}: holds an unfinished run; continue it with --resume, or start over with "
            "--overwrite"
        )
    return None


def _made_of(inspector: Inspector, catalog: Catalog, sources: Mapping[str, str]) -> bool:
    """Return whether a bundle was trained on these images with these teacher weights.

    Bundles of earlier versions have only the hashes of their training images' ends.
    """
    training = inspector.training
    made_of = {
        "data": training.data.get("fingerprint"),
        "image contents": training.data.get("contents", sources["image contents"]),
        "teacher": training.facts.get("teacher"),
    }
    if made_of != sources:
        return False
    if "contents" in training.data:
        return True
    present = content_hashes(catalog.train(), ends=training.hashed == "ends").values()
    known = np.array([value for value in present if value is not None], np.uint64)
    return bool(np.isin(training.hashes, known).all())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second training away from the same output; the lock ends with the process."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"{folder}: another training is writing there; wait for it, or choose another -o"
        ) from None
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)
