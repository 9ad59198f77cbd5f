"""The how-to pages: every block runs, in a folder with what a reader has, on tiny models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, TINY_OPTIONS
from tests.docs.running import Reader
from tests.trees import PRODUCTS, save_part, save_striped

INSTALLED = "tests run in an environment that has the package"
TRAINED = (*TINY_OPTIONS, "--set", "training.holdout=0.5", "--quiet")

Read = Callable[..., Reader]
ServedWhen = Callable[[Path, dict[str, str]], None]


@pytest.fixture
def folder(plant: Path, trained: Path, tmp_path: Path) -> Path:
    """What the pages speak of: images, a bundle, new images and a new product."""
    shutil.copytree(plant, tmp_path / "parts")
    shutil.copy(trained, tmp_path / "parts.snl")
    for product in PRODUCTS:
        for n in range(8):
            save_part(tmp_path / "normals" / product / f"{n}.png", 500 + n, product=product)
    for n in range(3):
        save_part(tmp_path / "incoming" / f"{n}.png", 700 + n)
    save_part(tmp_path / "new.png", 700)
    save_part(tmp_path / "new.jpg", 700)
    save_part(tmp_path / "defect.png", 210, defect=True)
    for n in range(6):
        save_striped(tmp_path / "gears" / f"{n}.png", n)
        save_striped(tmp_path / "gears-new-light" / f"{n}.png", 20 + n)
    return tmp_path


@pytest.fixture
def read(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_parts_remain: None,
) -> Read:
    """Run a page; what it trains from Python is tiny, too."""
    import snl.training.train
    from snl.settings import Settings, resolve

    def tiny(method: str, preset: str, overrides: Any) -> Settings:
        return resolve(method, preset, {**TINY, "training.holdout": 0.5, **(overrides or {})})

    monkeypatch.setattr(snl.training.train, "resolve", tiny)

    def run(page: str, **tables: Any) -> Reader:
        reader = Reader(page, folder, monkeypatch, capsys, **tables)
        reader.read()
        return reader

    return run


def test_home(read: Read) -> None:
    read(
        "index.md",
        not_run={
            "pip install": INSTALLED,
            "python3 -m http.server": "a web server, which would not end",
            "snl demo": "tests/cli/test_demo_products.py runs it; here it would take minutes",
        },
    )


def test_errors_and_settings(read: Read) -> None:
    read("reference/errors.md")
    read("reference/settings.md", added={"snl train": (*TRAINED, "--overwrite")})


def test_own_data(read: Read, folder: Path) -> None:
    tree = "a tree of folders, not a command"
    read(
        "howto/own-data.md",
        not_run={"parts/\n  bolt/": tree},
        added={"snl train": (*TRAINED, "--overwrite")},
    )
    assert (folder / "report.html").is_file()
    assert len(list((folder / "overlays").iterdir())) == 3


@pytest.fixture(scope="session")
def export(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as an ONNX file; an export takes some seconds."""
    import snl

    file = tmp_path_factory.mktemp("export") / "parts.onnx"
    snl.export(snl.load(trained), file)
    return file


def test_camera(read: Read, folder: Path, export: Path) -> None:
    camera = "there is no camera"
    read(
        "howto/camera.md",
        not_run={
            "snl inspect parts.onnx camera:0": camera,
            "snl inspect parts.onnx rtsp:": "there is no stream; tests/service has one",
            "snl inspect parts.onnx line.mp4": "tests/data/test_video.py reads videos",
            "curl": camera,
        },
        instead={
            "snl export": lambda words: shutil.copy(export, words[-1]),
            "snl serve": lambda words: check_config(folder / words[-1]),
        },
    )
    assert (folder / "last-alarm.png").is_file()


def test_cpp(read: Read, export: Path) -> None:
    builds = "tests/runtime/test_cpp.py builds and runs it, where the headers are installed"
    read(
        "howto/cpp.md",
        not_run=dict.fromkeys(("cd examples", "cmake", "g++", "./inspect"), builds),
        instead={"snl export": lambda words: shutil.copy(export, words[-1])},
    )


def test_retraining(read: Read) -> None:
    read(
        "howto/retraining.md",
        added={"snl train": TRAINED, "snl add": ("--steps", "2", "--quiet")},
    )


def test_research(read: Read, folder: Path) -> None:
    weights = "needs weights of ImageNet"
    data = "needs the data set; tests/bench runs it on a generated one"
    reader_tables: Mapping[str, Any] = {
        "not_run": {
            "snl train parts/ -o r18.snl": weights,
            "snl train parts/ -o paper.snl": weights,
            "snl bench": data,
            "python -m benchmarks.ablation": "tests/benchmarks runs plans; test_commands parses it",
        },
        "added": {"snl train": TRAINED},
    }
    read("howto/research.md", **reader_tables)
    from benchmarks.ablation import read_plan

    assert len(read_plan(folder / "plan.toml")["run"]) == 2
    assert (folder / "probes.json").is_file()


def test_from_anomalib(read: Read, folder: Path, export: Path) -> None:
    exports = 'snl.export(inspector, "parts.onnx")'  # the tutorial does it for real
    copies = f"__import__('shutil').copy({str(export)!r}, 'parts.onnx')"
    read("howto/from-anomalib.md", replaced={exports: copies})
    assert (folder / "overlay.png").is_file()


def test_service(read: Read, folder: Path, served_when: ServedWhen) -> None:
    shutil.copy(folder / "parts.snl", folder / "parts-2.snl")
    change(folder / "parts-2.snl")
    tables: dict[str, Any] = {
        "not_run": {
            "pip install": INSTALLED,
            "snl serve --config snl.toml --host": "needs a certificate; tests/service has one",
        },
        "instead": {
            "snl serve parts.snl": lambda words: served_when(folder, replaced),
            "snl serve --config snl.toml$": lambda words: served_when(folder, replaced),
        },
    }
    replaced = {"/srv/line-1": str(folder / "incoming"), "/srv/results": str(folder)}
    read("howto/service.md", replaced=replaced, **tables)
    assert (folder / "monday.snlbackup").is_file()
    assert not list((folder / "incoming").glob("*.png"))
    assert len((folder / "line-1.csv").read_text("utf-8").splitlines()) == 1 + 3


@pytest.fixture
def served_when() -> Iterator[ServedWhen]:
    """Serve what a page asks for, from that moment on and instead of what was served before."""
    from snl.service.config import read_config
    from tests.service.in_process import serve, service_of

    with ExitStack() as stack:

        def begin(folder: Path, replaced: dict[str, str]) -> None:
            stack.pop_all().close()
            words: dict[str, Any] = {}
            if (file := folder / "snl.toml").is_file():
                config = read_config(file)
                words = {"sources": config.sources, "sinks": config.sinks}
            service = stack.enter_context(
                service_of(folder / "snl-data", folder / "parts.snl", **words)
            )
            replaced["http://127.0.0.1:8000"] = stack.enter_context(serve(service))
            wait_until(lambda: not words or (folder / "line-1.csv").is_file())

        yield begin


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def check_config(file: Path) -> None:
    """Check a configuration file with its sources and sinks, as `snl serve` does at its start."""
    from snl.service.config import read_config

    config = read_config(file)
    assert config.sources


def change(file: Path) -> None:
    """Give a bundle another calibration."""
    import snl

    inspector = snl.load(file)
    inspector.recalibrate(snl.calibrate(inspector, rate=0.2))
    inspector.save(file)
