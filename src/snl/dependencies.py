"""Packages of optional extras: imported when they are needed, with one clear error if missing."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from snl.errors import DependencyError

_NO_MEMORY = ("failed to map segment", "annot allocate memory", "out of memory")
"""Parts of the messages of a loader that has no memory for a library."""


def require(packages: Sequence[str], extra: str, purpose: str, otherwise: str = "") -> None:
    """Import packages of an extra.

    Only the packages themselves are tried, so an error in this package's own modules is never
    reported as a missing dependency.

    Args:
        packages: names to import.
        extra: of this project that installs them.
        purpose: what they are needed for, as the beginning of a sentence.
        otherwise: what to do instead of installing, as the end of it.

    Raises:
        DependencyError: one is missing or broken.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except (ImportError, OSError, MemoryError) as error:
            if isinstance(error, MemoryError) or any(w in str(error) for w in _NO_MEMORY):
                raise DependencyError(
                    f"{purpose} needs {package}, and there is not enough memory to load it; close "
                    "other programs or raise the limit of memory (ulimit -v)"
                ) from None
            reason = " ".join(str(error).split())[:150]
            raise DependencyError(
                f"{purpose} needs {package} ({reason}): pip install 'snl-ad[{extra}]'{otherwise}"
            ) from None
