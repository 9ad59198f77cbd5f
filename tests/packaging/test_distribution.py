"""The wheel and the sdist: their contents, and the wheel at work without the checkout."""

from __future__ import annotations

import email
import hashlib
import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import snl
from tests.packaging.environments import ROOT, Environment, run

pytest.importorskip("build", reason="the extra `dev` is not installed")
pytest.importorskip("hatchling", reason="the extra `dev` is not installed")
pytestmark = pytest.mark.timeout(1200)

PACKAGE = ROOT / "src" / "snl"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "-o", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return next(built.glob("*.tar.gz"))


# --- contents ---


def test_names(wheel: Path, sdist: Path) -> None:
    assert wheel.name == f"snl_ad-{snl.__version__}-py3-none-any.whl"
    assert sdist.name == f"snl_ad-{snl.__version__}.tar.gz"


def test_the_registry_would_accept_them(wheel: Path, sdist: Path) -> None:
    pytest.importorskip("twine", reason="the extra `dev` is not installed")
    result = run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=wheel.parent)
    assert result.stdout.count("PASSED") == 2, result.stdout


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"snl/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    for needed in (
        *("snl/model/snl_compact.safetensors", "snl/station/index.html", "snl/web/symbols.svg"),
        *("snl/station/words/de.json", "snl/reporting/page.html", "snl/py.typed"),
    ):
        assert needed in expected, f"{needed} is not in the checkout"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        assert archive.testzip() is None
        weights = archive.read("snl/model/snl_compact.safetensors")
    information = f"snl_ad-{snl.__version__}.dist-info/"
    package = {name for name in names if not name.startswith(information)}
    assert package == expected, f"missing or too much: {sorted(package ^ expected)[:10]}"
    assert {name.removeprefix(information) for name in names - package} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt"),
        *("licenses/LICENSE", "licenses/NOTICE"),
    }
    assert weights == (PACKAGE / "model" / "snl_compact.safetensors").read_bytes()
    assert wheel.stat().st_size < 5e6, "the wheel has grown beyond 5 MB; what is in it?"


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"snl_ad-{snl.__version__}.dist-info/METADATA").decode()
        licence = archive.read(f"snl_ad-{snl.__version__}.dist-info/licenses/LICENSE")
    metadata = email.message_from_string(text)
    assert metadata["Version"] == snl.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_sdist_has_the_sources_and_no_results(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = [member.name for member in archive.getmembers() if member.isfile()]
    names = {name.partition("/")[2] for name in files}
    tops = {PurePosixPath(name).parts[0] for name in names}
    assert tops == {
        *("src", "docs", "pretraining", "pyproject.toml", "constraints.txt", ".gitignore"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md"),
        *("LICENSE", "NOTICE", "PKG-INFO"),
    }
    unwanted = [n for n in names if n.startswith("docs/results") or "__pycache__" in n]
    assert not unwanted, unwanted[:10]
    assert sdist.stat().st_size < 10e6, "the sdist has grown beyond 10 MB; what is in it?"


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(wheel: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, ROOT)
    run(*command, cwd=tmp_path)
    direct = next(tmp_path.glob("*.whl"))
    assert sha256_of_members(direct) == sha256_of_members(wheel)


def sha256_of_members(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {n: hashlib.sha256(archive.read(n)).hexdigest() for n in archive.namelist()}


# --- the wheel at work, outside the checkout ---


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, and the dependencies of the test environment."""
    environment = Environment.create(tmp_path_factory.mktemp("fresh") / "venv")
    result = environment.pip("install", "--quiet", "--no-deps", "--no-index", wheel)
    assert result.returncode == 0, result.stderr
    environment.borrow_packages()
    return environment


@pytest.fixture(scope="module")
def runtime(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, and nothing but what the extra `runtime` installs."""
    environment = Environment.create(tmp_path_factory.mktemp("runtime") / "venv")
    words = ("install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt")
    result = environment.pip(*words, f"{wheel}[runtime]")
    if result.returncode:
        message = f"the extra `runtime` cannot be installed: {result.stderr[-1000:]}"
        # without a package registry this test is skipped, except where it must run
        (pytest.fail if os.environ.get("SNL_REQUIRE_REGISTRY") else pytest.skip)(message)
    return environment


@pytest.fixture(scope="module")
def demo(fresh: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `snl demo --quick`; tests must not change them."""
    folder = tmp_path_factory.mktemp("demo")
    fresh.snl("demo", "--quick", "--device", "cpu", cwd=folder)
    return folder / "demo-quick"


def inspect(environment: Environment, model: Path, *images: Path, cwd: Path) -> list[dict]:
    """Return what `snl inspect` says about images, sorted by path."""
    output = environment.snl("inspect", model, *images, "--json", "-", "--quiet", cwd=cwd).stdout
    return sorted(map(json.loads, output.splitlines()), key=lambda result: result["path"])


def auroc(anomalous: list[float], normal: list[float]) -> float:
    """Return the share of pairs in which the anomalous image has the higher score."""
    pairs = [(a > n) + (a == n) / 2 for a in anomalous for n in normal]
    return sum(pairs) / len(pairs)


def test_the_installed_package_is_imported(fresh: Environment, tmp_path: Path) -> None:
    code = "import snl, importlib.metadata as m; print(snl.__file__, m.version('snl-ad'))"
    file, version = run(fresh.python, "-c", code, cwd=tmp_path).stdout.split()
    assert Path(file).is_relative_to(fresh.folder), f"snl comes from {file}, not from the wheel"
    assert version == snl.__version__
    assert fresh.snl("--version", cwd=tmp_path).stdout == f"snl {snl.__version__}\n"


def test_the_quick_demo_finds_defects(demo: Path, fresh: Environment, tmp_path: Path) -> None:
    """The AUROC is computed here, from the scores of `snl inspect`."""
    for name in ("demo.snl", "report.html", "metrics.json"):
        assert (demo / name).stat().st_size > 1000
    metrics = json.loads((demo / "metrics.json").read_text())
    assert len(list((demo / "overlays").glob("*.png"))) == 2 * len(metrics["products"])

    folders = [demo / "parts" / product / "test" for product in metrics["products"]]
    results = inspect(fresh, demo / "demo.snl", *folders, cwd=tmp_path)
    values = []
    for product, figures in metrics["products"].items():
        tested = [r for r in results if f"/{product}/test/" in r["path"]]
        normal = [r["score"] for r in tested if "/good/" in r["path"]]
        anomalous = [r["score"] for r in tested if "/good/" not in r["path"]]
        assert (len(normal), len(anomalous)) == (8, 3 * len(defects_of(demo, product)))
        values.append(auroc(anomalous, normal))
        assert figures["image_auroc"] == pytest.approx(values[-1], abs=1e-6), product
    mean = sum(values) / len(values)
    assert mean > 0.7, f"image AUROC {mean:.3f}; chance is 0.5"
    assert metrics["mean"]["pixel_auroc"] > 0.8, metrics["mean"]

    found, false = (
        [r["decision"] == "anomalous" for r in results if kind(r)]
        for kind in (lambda r: "/good/" not in r["path"], lambda r: "/good/" in r["path"])
    )
    assert sum(found) / len(found) > 3 * sum(false) / len(false), (sum(found), sum(false))


def defects_of(demo: Path, product: str) -> list[str]:
    return [f.name for f in (demo / "parts" / product / "test").iterdir() if f.name != "good"]


def test_training_on_a_folder(demo: Path, fresh: Environment, tmp_path: Path) -> None:
    for product in ("gear", "wood"):
        shutil.copytree(demo / "parts" / product / "train" / "good", tmp_path / "parts" / product)
    words = ("--image-size", "64", "--steps", "8", "--device", "cpu", "--quiet")
    fresh.snl("train", "parts", "-o", "parts.snl", *words, cwd=tmp_path)
    results = inspect(fresh, tmp_path / "parts.snl", tmp_path / "parts", cwd=tmp_path)
    assert len(results) == 60
    right = sum(f"/{r['product']}/" in r["path"] for r in results)
    assert right > 54, f"only {right} of 60 products were recognised"


def test_an_export_gives_the_same_decisions_with_the_runtime_alone(
    demo: Path, fresh: Environment, runtime: Environment, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    names = ("torch", "onnx", "timm")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert run(runtime.python, "-c", code, cwd=tmp_path).stdout.strip() == "[]"
    fresh.snl("export", demo / "demo.snl", "-o", "demo.onnx", "--quiet", cwd=tmp_path)
    images = tmp_path / "images"
    for product in ("blister", "leather"):
        shutil.copytree(demo / "parts" / product / "test", images / product)
    expected = inspect(fresh, demo / "demo.snl", images, cwd=tmp_path)
    actual = inspect(runtime, tmp_path / "demo.onnx", images, cwd=tmp_path)
    assert len(actual) == 2 * (8 + 4 * 3)
    for mine, theirs in zip(expected, actual, strict=True):
        keys = ("path", "product", "decision")
        assert [mine[k] for k in keys] == [theirs[k] for k in keys]
        assert theirs["score"] == pytest.approx(mine["score"], rel=1e-2)
    assert {r["decision"] for r in actual} >= {"normal", "anomalous"}
