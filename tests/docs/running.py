"""Runs the blocks of a page in a folder, in their order, as a reader would."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snl.cli.main import main, parse
from tests.docs.blocks import DOCS, Block, blocks

RUN = (
    *(
        "docs/index.md",
        "docs/tutorial.md",
        "docs/reference/errors.md",
        "docs/reference/settings.md",
    ),
    *("docs/howto/own-data.md", "docs/howto/camera.md", "docs/howto/cpp.md"),
    *("docs/howto/service.md", "docs/howto/retraining.md", "docs/howto/research.md"),
    "docs/howto/from-anomalib.md",
)
"""Pages all of whose blocks are run."""

FILES = ("csv", "toml", "python", "json")
"""Languages of blocks that can be files: a title names the file."""


@dataclass
class Reader:
    """Runs the blocks of a page.

    Attributes:
        not_run: by the beginning of a command or of a block: why it is not run. Commands of `snl`
            are parsed nevertheless. A beginning with `$` at its end is the whole command.
        added: by the beginning of a command of `snl`: options that are added to make it short.
        replaced: texts in commands and blocks, such as an address, and what stands for them.
        instead: by the beginning of a command: what is done instead of it, with its words.
        after: by the beginning of a command of `snl`: what is done after it.
    """

    page: str
    folder: Path
    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]
    not_run: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    instead: Mapping[str, Callable[[list[str]], object]] = field(default_factory=dict)
    after: Mapping[str, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.patch.chdir(self.folder)
        self.patch.syspath_prepend(self.folder)
        self.names: dict[str, Any] = {}
        self.output = ""
        self.used: set[str] = set()

    def read(self) -> None:
        """Run all blocks; afterwards no entry of the tables is left over."""
        assert f"docs/{self.page}" in RUN
        found = blocks(DOCS / self.page)
        assert found, f"{self.page} has no block"
        for block in found:
            self.run(block)
        tables = {*self.not_run, *self.added, *self.instead, *self.after}
        assert self.used == tables, f"{self.page}: nothing is like {tables - self.used}"

    def run(self, block: Block) -> None:
        """Run one block."""
        if block.language != "sh" and self._entry(self.not_run, block.text.strip()):
            return
        if block.title == "Output":
            self._compare(block)
        elif block.title:
            assert block.language in FILES, block
            (self.folder / block.title).write_text(self._with_replaced(block.text))
        elif block.language == "sh":
            self.output = ""
            for words in block.commands():
                self._command(block, words)
        elif block.language == "python":
            text = self._with_replaced(block.text)
            exec(compile(text, str(block), "exec"), self.names)
        else:
            pytest.fail(f"{block}: a block of {block.language or 'no language'} cannot be run")

    def _command(self, block: Block, words: list[str]) -> None:
        line = shlex.join(words)
        refused = self._entry(self.not_run, line)
        if words[0] == "snl":
            parse(words[1:])
        if refused:
            return
        if instead := self._entry(self.instead, line):
            instead(words)
        elif words[0] == "snl":
            self._snl(block, [*words[1:], *(self._entry(self.added, line) or ())])
            if after := self._entry(self.after, line):
                after()
        elif words[0] == "mkdir":
            Path(words[1]).mkdir()
        elif words[0] == "cd":
            self.patch.chdir(words[1])
            self.folder = Path.cwd()
        elif words[0] == "curl" and shutil.which("curl"):
            command = [self._with_replaced(word) for word in [*words, "--fail", "--silent"]]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{block}: {line}: {done.stdout}{done.stderr}"
        else:
            assert words[0] == "curl", f"{block}: {line}: give a reason why it is not run"

    def _snl(self, block: Block, words: list[str]) -> None:
        self.captured.readouterr()
        status = main(words)
        done = self.captured.readouterr()
        self.output += done.out + done.err
        assert status == 0, f"{block}: snl {shlex.join(words)}: {self.output[-2000:]}"

    def _compare(self, block: Block) -> None:
        """Check that every line that is shown was printed, with other numbers perhaps."""
        printed = {masked(line) for line in self.output.splitlines()}
        for line in self._with_replaced(block.text).splitlines():
            assert line.strip() in ("", "...") or masked(line) in printed, (
                f"{block}: is not printed: {line}\n{self.output[-3000:]}"
            )

    def _entry(self, table: Mapping[str, Any], text: str) -> Any:
        for beginning, value in table.items():
            if text == beginning[:-1] if beginning.endswith("$") else text.startswith(beginning):
                self.used.add(beginning)
                return value
        return None

    def _with_replaced(self, text: str) -> str:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text


def masked(line: str) -> str:
    """Return a line with every number as `0` and every run of spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.]*(e[+-]\d+)?", "0", line)).strip()
