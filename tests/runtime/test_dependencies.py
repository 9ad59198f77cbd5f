"""Missing packages: named with their extra, and never confused with errors of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import snl
from snl.cli.main import main
from snl.dependencies import require
from snl.errors import BundleError, DependencyError
from snl.model.teacher import Teacher
from snl.settings import TeacherSettings


def test_packages_that_are_installed() -> None:
    require(("json", "numpy"), "train", "a bundle")
    require((), "train", "a bundle")


@pytest.mark.parametrize("missing", ["torch", "torchvision", "timm"])
def test_only_the_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError) as caught:
        snl.load(bundle)
    message = str(caught.value)
    user = f"{bundle}: a bundle" if missing == "torch" else "the network 'test_resnet'"
    assert message.startswith(f"{user} needs {missing} (")
    assert "pip install 'snl-ad[train]'" in message and "snl export" in message
    assert "\n" not in message
    others = {"torch", "torchvision", "timm"} - {missing}
    assert not any(f"needs {other} " in message for other in others)
    assert main(["inspect", str(bundle), str(bundle)]) == 2
    assert capsys.readouterr().err == f"snl: error: {message}\n"


def test_the_built_in_teacher_needs_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, package, None)
    assert Teacher(TeacherSettings(weights="random")).stages
    with pytest.raises(DependencyError, match="the built-in teacher do without it"):
        Teacher(TeacherSettings(name="resnet18", weights="random"))


def test_training_with_the_built_in_teacher_needs_no_timm(parts: Path, tmp_path: Path) -> None:
    """From the images to a decision, in a process where timm is not installed."""
    program = f"""
import importlib.metadata, sys
sys.modules["timm"] = sys.modules["torchvision"] = None
known = importlib.metadata.version
def version(name):
    if name in ("timm", "torchvision"):
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
import snl
small = {{"image_size": 64, "training.steps": 2, "training.batch_size": 2}}
data, file = {str(parts)!r}, {str(tmp_path / "a.snl")!r}
inspector = snl.train(data, output=file, overrides=small, quiet=True)
assert set(inspector.training.facts["versions"]) == {{"snl", "torch"}}
image = min(snl.Catalog.read(data).records, key=lambda record: record.path).path
print(snl.load(file).inspect(image).decision)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("normal", "uncertain", "anomalous", "unknown product")


def test_a_broken_package_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Libraries that do not load raise OSError, on two lines."""
    (tmp_path / "broken_library.py").write_text("raise OSError('libcuda.so:\\n cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError) as caught:
        require(("numpy", "broken_library"), "train", "training")
    assert str(caught.value) == (
        "training needs broken_library (libcuda.so: cannot open): pip install 'snl-ad[train]'"
    )


@pytest.mark.parametrize("module", ["snl.runtime.torch_engine", "snl.model.cram"])
def test_an_import_error_of_this_package_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, tmp_path: Path, module: str
) -> None:
    """It is raised as it is, and reported as a defect, not as a missing PyTorch."""
    for package in ("model", "runtime"):
        if package in vars(snl):  # also the attribute has to be as before in the end
            monkeypatch.setattr(snl, package, vars(snl)[package])
    for name in [n for n in sys.modules if n.startswith(("snl.model", "snl.runtime"))]:
        monkeypatch.delitem(sys.modules, name)  # so that they are imported again
    monkeypatch.setitem(sys.modules, module, None)
    from snl.runtime.inspector import load

    with pytest.raises(ImportError, match=module) as caught:
        load(bundle)
    assert not isinstance(caught.value, snl.SnlError)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["inspect", str(bundle), str(bundle)]) == 70
    (details,) = (tmp_path / "snl").iterdir()
    assert module in details.read_text()


@pytest.mark.parametrize(("kind", "package", "extra"), [
    ("onnx", "onnxruntime", "runtime"), ("openvino", "openvino", "openvino"),
])  # fmt: skip
def test_runtimes_of_exports(
    monkeypatch: pytest.MonkeyPatch, exported: dict[str, Path], kind: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"pip install 'snl-ad\[{extra}\]'"):
        snl.load(exported[kind])


def test_a_missing_openvino_file_is_named_without_openvino(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BundleError, match="no such file"):
        snl.load(tmp_path / "parts.xml")
