"""Which release of ONNX Runtime a file needs.

https://onnxruntime.ai/docs/reference/compatibility.html
"""

from __future__ import annotations

import re

_RELEASES = (
    ((1, 14), 8, 18),
    ((1, 15), 8, 19),
    ((1, 16), 9, 19),
    ((1, 17), 9, 20),
    ((1, 18), 10, 21),
    ((1, 20), 10, 22),
    ((1, 22), 11, 23),
)
"""Release, and the highest versions of the file format (IR) and of the operators that it reads."""


def needed_release(ir: int, opset: int) -> tuple[int, int] | None:
    """Return the first release of ONNX Runtime that reads a file; None: newer than this list."""
    for release, highest_ir, highest_opset in _RELEASES:
        if ir <= highest_ir and opset <= highest_opset:
            return release
    return None


def too_old(installed: str, ir: int, opset: int, reason: str) -> str | None:
    """Return what to do if a file failed because ONNX Runtime is too old for it; None: it is not.

    Args:
        installed: version of ONNX Runtime, such as `1.17.3`.
        ir, opset: versions of the file.
        reason: ONNX Runtime's message.

    >>> too_old("1.16.0", 10, 18, "Unsupported model IR version: 10, max supported: 9")
    'it needs ONNX Runtime 1.18 or newer (IR version 10, opset 18), and 1.16.0 is installed: \
pip install -U onnxruntime'
    """
    numbers = tuple(map(int, re.findall(r"\d+", installed)[:2]))
    needed = needed_release(ir, opset)
    refused = re.search(r"IR[_ ]version|opset", reason, re.IGNORECASE)
    if needed is not None and numbers < needed:
        release = "{}.{} or newer".format(*needed)
    elif refused:
        release = f"newer than {installed}"
    else:
        return None
    return (
        f"it needs ONNX Runtime {release} (IR version {ir}, opset {opset}), and {installed} is "
        "installed: pip install -U onnxruntime"
    )
