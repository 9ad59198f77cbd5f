"""Fresh virtual environments with the wheel, for tests that must not see the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

Result = subprocess.CompletedProcess[str]

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path, timeout: float = 600) -> Result:
    """Run a command without what points Python to the checkout; a failure shows its output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PYTHONSAFEPATH"] = "1"
    words = list(map(str, command))
    result = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, (
        f"{' '.join(words)}: exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    return result


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        """Create one without pip, which takes seconds to install and is not needed."""
        venv.create(folder, with_pip=False)
        return cls(folder)

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    @property
    def packages(self) -> Path:
        """The folder of installed packages."""
        result = run(
            self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
            cwd=self.folder,
        )  # fmt: skip
        return Path(result.stdout.strip())

    def pip(self, *words: object) -> Result:
        """Run this test environment's pip on the environment, and return what happened."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        command = list(map(str, [*pip, *words]))
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=600)

    def borrow_packages(self) -> None:
        """Make the packages of the test environment importable, but not its `snl`.

        A folder named in a .pth file is searched last, and its own .pth files, such as that of an
        editable installation, are not read.
        """
        folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "borrowed.pth").write_text("".join(f"{f}\n" for f in sorted(folders)))

    def snl(self, *words: object, cwd: Path) -> Result:
        """Run the installed command."""
        return run(self.python.with_name("snl"), *words, cwd=cwd)
