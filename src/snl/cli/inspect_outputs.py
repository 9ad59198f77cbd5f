"""The outputs of `snl inspect`: which files they are, and writing each result to all of them."""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.common import say
from snl.cli.inspect_lines import JsonLines, PartLines, Stdout, Table
from snl.cli.inspect_rejects import Rejects, check_rejects
from snl.cli.inspect_sinks import Coco, LabelMe, Monitor, Overlays, Sink
from snl.cli.inspect_summary import STDOUT, Terminal, for_people
from snl.errors import SnlError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from snl.decision.inspection import Inspection
    from snl.outputs import Output
    from snl.runtime.inspector import Inspector

    Place = Callable[[dict[str, Any]], Path]

MONITOR_BUSY = "another snl inspect uses this drift state; wait for it, or give another file"
_LONGEST_NAME = 255
_MOST_WAITING = 16
"""Results that wait for their overlay; their images are in memory."""


class OutputOptions(argparse.Namespace):
    """The bundle, and the files that are written."""

    file: str
    paths: list[str]
    out: Path | None
    json: Path | None
    csv: Path | None
    copy_rejects: Path | None
    move_rejects: Path | None
    outline_normal: bool
    coco: Path | None
    labelme: Path | None
    monitor: Path | None
    parts: Path | None


class Outputs:
    """All outputs of a run. One that fails is reported once, and the others go on.

    Attributes:
        count: number of results.
        stopped: whether the run was asked to stop; set by the caller.
        alarm: of the drift monitor, after `close`; the caller says it.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)
        self._errors: dict[int, int] = {}
        self.count = 0
        self.stopped = False
        self.alarm: str | None = None

    @property
    def failed(self) -> bool:
        """Whether an output could not be written; a reader that stops reading is no failure."""
        failed = (self._sinks[number] for number in self._errors)
        return any(not getattr(sink, "closed_by_reader", False) for sink in failed)

    @property
    def useless(self) -> bool:
        """Whether nothing can be written any more, so that going on is of no use."""
        return all(sink.broken for sink in self._sinks)

    def ahead(self, results: Iterable[Inspection]) -> Ahead:
        """Return results whose overlays are drawn while the network computes the next ones."""
        return Ahead(results, [sink for sink in self._sinks if isinstance(sink, Overlays)])

    def add(self, result: Inspection, record: dict[str, Any]) -> None:
        """Write a result everywhere; `record` is its JSON record."""
        self.count += 1
        for number, sink in enumerate(self._sinks):
            if not sink.broken:
                self._try(number, lambda sink=sink: sink.add(result, record))  # type: ignore[misc]

    def add_part(self, record: dict[str, Any]) -> None:
        """Write the JSON record of a part where parts are written."""
        for number, sink in enumerate(self._sinks):
            if isinstance(sink, PartLines) and not sink.broken:
                self._try(number, lambda sink=sink: sink.add_part(record))  # type: ignore[misc]

    def close(self, complete: bool) -> None:
        """Write what is left, and say what was written.

        Args:
            complete: the run was not stopped and raised no error.
        """
        for number, sink in enumerate(self._sinks):
            before = self._errors.get(number, 0)
            self._try(number, lambda sink=sink: sink.close(complete))  # type: ignore[misc]
            failures = self._errors.get(number, 0) - before
            summary = sink.summary()
            if summary and not failures:
                if isinstance(sink, Monitor):
                    self.alarm = summary
                else:
                    say(summary)
            if before > 1 and sink.option in (
                "--out",
                "--labelme",
                "--move-rejects",
                "--copy-rejects",
            ):
                say(f"{sink.option}: {before} files could not be written")

    def _try(self, number: int, action: Callable[[], None]) -> None:
        try:
            action()
        except (SnlError, OSError) as error:
            self._errors[number] = self._errors.get(number, 0) + 1
            if self._errors[number] == 1:
                sink = self._sinks[number]
                others = len(self._sinks) > 1 and not self.useless
                goes_on = "; the other outputs are written" if others else ""
                if others or not getattr(sink, "closed_by_reader", False):
                    say(f"error: {sink.option}: {' '.join(str(error).split())}{goes_on}")


class Ahead:
    """Results in their order, each when its overlay is drawn, or when too many wait.

    Args:
        results: of the network.
        sinks: that draw.
    """

    def __init__(self, results: Iterable[Inspection], sinks: Sequence[Overlays]) -> None:
        self._results, self._sinks = results, sinks
        self._waiting: deque[tuple[Inspection, list[Future[bytes]]]] = deque()

    def __iter__(self) -> Iterator[Inspection]:
        for result in self._results:
            self._waiting.append((result, [sink.begin(result) for sink in self._sinks]))
            while self._waiting and (len(self._waiting) > _MOST_WAITING or self._is_next_drawn()):
                yield self._waiting.popleft()[0]
        yield from self.rest()

    def rest(self) -> Iterator[Inspection]:
        """Yield the results that wait: also after the run was stopped."""
        while self._waiting:
            yield self._waiting.popleft()[0]

    def _is_next_drawn(self) -> bool:
        return all(future.done() for future in self._waiting[0][1])


@contextmanager
def open_outputs(
    options: OutputOptions, inspector: Inspector, sources: Sequence[Path], video: str | None
) -> Iterator[Outputs]:
    """Check and open all outputs for the `with` block; at its end what is left is written.

    That happens however the block ends, and signals wait until it is done.

    Args:
        options: the files.
        inspector: whose drift is monitored.
        sources: the image files; for a video its file, if it is one.
        video: the video; None: images.

    Raises:
        SnlError: an output cannot be written, or would replace an input or another file.
    """
    from snl.locks import locked
    from snl.outputs import check_outputs
    from snl.signals import deferred

    places = {
        option: _places(sources, video, folder, suffix)
        for option, folder, suffix in (
            ("--out", options.out, ".png"),
            ("--labelme", options.labelme, ".json"),
        )
        if folder
    }
    rejects = options.move_rejects or options.copy_rejects
    if rejects:  # first, because the next check creates the folders
        check_rejects(_rejects_option(options), rejects, options.paths, sources)
    check_outputs(_planned(options, places, rejects), [options.file, *sources])
    with ExitStack() as stack:
        if options.monitor:
            stack.enter_context(locked(options.monitor, MONITOR_BUSY))
        is_text = video is None and for_people(options.json, options.csv)
        outputs = Outputs([*_sinks(options, inspector, places, sources, is_text)])
        complete = False
        try:
            yield outputs
            complete = not outputs.stopped
        finally:
            with deferred():
                outputs.close(complete)


def _rejects_option(options: OutputOptions) -> str:
    return "--move-rejects" if options.move_rejects else "--copy-rejects"


def _planned(
    options: OutputOptions, places: dict[str, _Places], rejects: Path | None
) -> list[Output]:
    from snl import kinds
    from snl.outputs import Output

    files = (
        ("--json", options.json if options.json != STDOUT else None, kinds.INSPECTIONS),
        ("--csv", options.csv, kinds.TABLE),
        ("--parts", options.parts, kinds.PARTS),
        ("--coco", options.coco, kinds.COCO),
        ("--monitor", options.monitor, kinds.DRIFT),
    )
    folders = (
        ("--out", options.out, kinds.PICTURE),
        ("--labelme", options.labelme, kinds.LABELME),
    )
    return [
        *(Output(option, path, kind) for option, path, kind in files if path),
        *(
            Output(option, folder, kind, tuple(places[option].known()))
            for option, folder, kind in folders
            if folder
        ),
        # nothing there is ever replaced
        *([Output(_rejects_option(options), rejects, kinds.PICTURE, ())] if rejects else []),
    ]


def _sinks(
    options: OutputOptions,
    inspector: Inspector,
    places: dict[str, _Places],
    sources: Sequence[Path],
    is_text: bool,
) -> Iterator[Sink]:
    """Yield the sinks; those of lines are the last, because the others add to them, and images are
    moved after the others have read them."""
    if options.out:
        yield Overlays(options.out, places["--out"].of, options.outline_normal)
    if options.labelme:
        yield LabelMe(options.labelme, places["--labelme"].of)
    if options.coco:
        yield Coco(options.coco)
    if options.monitor:
        yield Monitor(options.monitor, inspector, _monitor(options.monitor, inspector))
    rejects = options.move_rejects or options.copy_rejects
    if rejects:
        yield Rejects(rejects, output_files(sources, rejects), bool(options.move_rejects))
    if options.parts:
        yield PartLines(options.parts)
    if options.csv:
        yield Table(options.csv)
    if options.json and options.json != STDOUT:
        yield JsonLines(options.json)
    else:
        yield Terminal() if is_text else Stdout()


def _monitor(state: Path, inspector: Inspector) -> Any:
    """Return the monitor of a state file, or a new one."""
    from snl.monitoring import baseline

    if state.exists():
        monitor = baseline.resume(state, inspector.calibration)
    else:
        monitor = baseline.start(inspector.calibration)
    few = baseline.note(monitor, inspector.calibration)
    if few:
        say(f"note: {few}")
    return monitor


class _Places:
    """The file in a folder for each result.

    Attributes:
        of: returns the file of a result by its JSON record.
        known: yields the files that are known, or that exist, before the first result.
    """

    def __init__(self, of: Place, known: Callable[[], Iterator[Path]]) -> None:
        self.of, self.known = of, known


def _places(sources: Sequence[Path], video: str | None, folder: Path, suffix: str) -> _Places:
    if video is None:
        files = output_files(sources, folder, suffix)
        return _Places(lambda record: files[Path(record["path"])], lambda: iter(files.values()))
    stem = Path(video).stem or "video"

    def earlier() -> Iterator[Path]:
        if folder.is_dir():
            for file in folder.iterdir():
                number = file.name.removeprefix(f"{stem}-").removesuffix(suffix)
                if file.name == f"{stem}-{number}{suffix}" and number.isdecimal():
                    yield file

    return _Places(lambda record: folder / f"{stem}-{record['frame']:06}{suffix}", earlier)


def output_files(
    paths: Sequence[Path], folder: Path, suffix: str | None = None
) -> dict[Path, Path]:
    """Return the file in `folder` for each image.

    The files have the image's path below the common folder of all images, with `suffix` (None: its
    own). A number is appended where two images would get the same file, or where the name would
    be too long.
    """
    # links keep their own names
    resolved = {path: Path(os.path.normpath(path.absolute())) for path in paths}
    anchors = {path.anchor for path in resolved.values()}
    common = (
        os.path.commonpath([p.parent for p in resolved.values()]) if len(anchors) == 1 else None
    )
    files: dict[Path, Path] = {}
    taken: set[str] = set()
    for path, full in resolved.items():
        place = full.relative_to(common) if common else Path(full.name)
        end = place.suffix if suffix is None else suffix
        stem = os.fsencode(place.stem)[: _LONGEST_NAME - 20].decode("utf-8", "ignore")
        short = len(os.fsencode(place.stem + end)) <= _LONGEST_NAME
        name, number = place.with_name((place.stem if short else stem) + end), 1
        while str(name).lower() in taken:  # some file systems ignore case
            number += 1
            name = place.with_name(f"{place.stem if short else stem}-{number}{end}")
        taken.add(str(name).lower())
        files[path] = folder / name
    return files
