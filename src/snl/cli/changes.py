"""What verbs share that change a model file: checks before any work, and a lock meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snl.cli.common import say

WAIT = 60.0
"""Seconds to wait for another process that changes the file."""
BUSY = "another snl process is changing it; wait for it, then run the command again"


@contextmanager
def changing(file: str, output: Path | None) -> Iterator[Path]:
    """Return the file to write, which no other snl process changes meanwhile.

    Args:
        file: bundle or export.
        output: another file to write; None: `file` is changed.
    """
    from snl.kinds import model_kind
    from snl.locks import locked
    from snl.outputs import Output, check_outputs

    source, target = Path(file), output or Path(file)
    if source.is_file():  # loading it says what is wrong otherwise
        same = target == source
        check_outputs(
            [Output("-o", target, model_kind(source), anything=same)], [] if same else [source]
        )
    with locked(target, BUSY, wait=WAIT, note=say):
        yield target
