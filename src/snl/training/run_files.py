"""The files of a training: its folder, its lock, and what is there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from snl.data.catalog import Catalog
from snl.errors import SettingsError, SnlError, TrainingError
from snl.kinds import BUNDLE
from snl.locks import locked
from snl.outputs import Output, check_outputs
from snl.runtime.inspector import Inspector, load
from snl.settings import Settings
from snl.temporary import temporary_folder
from snl.training import checkpoint
from snl.training.contents import content_hashes


def run_folder(target: Path | None, stack: ExitStack) -> Path:
    """The folder of the unfinished run; without a target a temporary one."""
    if target is None:
        return stack.enter_context(temporary_folder("snl-train"))
    return folder_of(target)


def folder_of(target: Path) -> Path:
    """Return the folder beside a bundle that holds its unfinished run."""
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
        stored = inspector.settings
        if not settings.products:  # to be counted, and the images are the same
            stored = replace(stored, products=0)
        if stored == settings and _made_of(inspector, catalog, sources):
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


def check_output(target: Path, settings: Settings, inputs: Iterable[Path]) -> None:
    """Check before any work that the bundle can be written and replaces nothing that is read.

    Raises:
        SettingsError: the name belongs to another kind of file.
        SnlError: see `snl.outputs.check_outputs`; also if the folder of the run is a file.
    """
    problem = BUNDLE.name_problem(target)
    if problem and not target.is_file():
        raise SettingsError(f"{target}: {problem} (-o)")
    weights = Path(settings.teacher.weights)
    check_outputs([Output("-o", target, BUNDLE)], [*inputs, weights])
    folder = folder_of(target)
    if folder.exists() and not folder.is_dir():
        raise SnlError(f"{folder}: is a file, where the unfinished run is kept; choose another -o")


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
def locked_run(target: Path, folder: Path) -> Iterator[None]:
    """Keep other processes away from the output, and remove what a killed run left in its folder.

    An empty folder is removed at the end.
    """
    busy = (
        "another training is writing there, or snl calibrate is changing it; wait for it, or "
        "choose another -o"
    )
    with locked(target, busy, error=TrainingError):
        shutil.rmtree(folder / "cache", ignore_errors=True)
        folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
