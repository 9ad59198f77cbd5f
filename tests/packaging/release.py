"""Try a wheel as a user does: install it with its dependencies, and use it without the checkout.

    python -m tests.packaging.release dist/snl_ad-*.whl

Needs a package registry, and about 6 GB of disk while it runs: PyTorch's standard build is large.
`tests/packaging/test_distribution.py` does the same in less time with packages that are installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.packaging.environments import Environment, run


def install(folder: Path, requirement: str) -> Environment:
    """Return a fresh environment with a requirement and everything that it needs.

    Raises:
        SystemExit: pip could not install it.
    """
    environment = Environment.create(folder)
    result = environment.pip("install", "--quiet", requirement)
    if result.returncode:
        sys.exit(f"{requirement}: {result.stderr}")
    return environment


def decisions(environment: Environment, model: Path, images: Path) -> dict[str, str]:
    """Return the decision for each image."""
    words = ("inspect", model, images, "--json", "-", "--quiet")
    lines = environment.snl(*words, cwd=model.parent).stdout.splitlines()
    return {result["path"]: result["decision"] for result in map(json.loads, lines)}


def main(wheel: Path) -> None:
    """Install the wheel twice, with `[train,export]` and `[runtime]`, and compare what they say."""
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:5.0f} s  {text}", flush=True)  # noqa: T201

    with tempfile.TemporaryDirectory(prefix="snl-release-") as name:
        folder = Path(name)
        full = install(folder / "full", f"{wheel.resolve()}[train,export]")
        say(f"installed with [train,export]: {full.snl('--version', cwd=folder).stdout.strip()}")
        code = "import snl; print(snl.__file__)"
        imported = run(full.python, "-c", code, cwd=folder).stdout.strip()
        assert Path(imported).is_relative_to(full.folder), imported

        quick = full.snl("demo", "--quick", cwd=folder).stderr.splitlines()
        demo = folder / "demo-quick"
        mean = json.loads((demo / "metrics.json").read_text())["mean"]
        took = next(line for line in quick if "done in" in line)
        say(f"snl demo --quick: {took}, image AUROC {mean['image_auroc']:.3f}")

        full.snl("train", demo / "parts", "-o", "parts.snl", "--steps", "20", cwd=folder)
        say("trained on a folder")
        full.snl("export", demo / "demo.snl", "-o", "demo.onnx", cwd=folder)
        say("exported")
        runtime = install(folder / "runtime", f"{wheel.resolve()}[runtime]")
        say("installed with [runtime]")
        expected = decisions(full, demo / "demo.snl", demo / "parts")
        actual = decisions(runtime, folder / "demo.onnx", demo / "parts")
        different = [path for path in expected if expected[path] != actual.get(path)]
        assert len(expected) == len(actual) and not different, different
        say(f"the same decisions for {len(actual)} images with the runtime alone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
