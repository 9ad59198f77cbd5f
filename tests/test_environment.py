"""Packages, extras and devices of an environment, with packages that are broken or missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from snl import environment
from snl.environment import (
    NEEDED_FOR,
    Package,
    Requirement,
    check_extras,
    check_packages,
    read_requirements,
)

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are imported from; the real packages are not reported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(environment, "PACKAGES", ())
    return tmp_path


def install(site: Path, name: str, code: str = "", version: str | None = "1.0") -> Requirement:
    """Make a module and, with a version, the metadata of a distribution."""
    (site / f"{name}.py").write_text(code)
    if version is not None:
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}")
    return Requirement(name, "1.0", "")


def test_requirements_are_those_of_pyproject() -> None:
    lines = [
        *PYPROJECT["dependencies"],
        *(f"{r}; extra == '{x}'" for x, rs in PYPROJECT["optional-dependencies"].items()
          for r in rs),
    ]  # fmt: skip
    assert sorted(map(str, read_requirements())) == sorted(map(str, read_requirements(lines)))
    assert len(lines) == len(read_requirements())


def test_every_extra_says_what_it_is_needed_for() -> None:
    assert set(NEEDED_FOR) == set(PYPROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("numpy>=1.26", Requirement("numpy", "1.26", "")),
        ("PyYAML", Requirement("pyyaml", "", "")),
        ('torch>=2.10; extra == "train"', Requirement("torch", "2.10", "train")),
        ("a-b.c [x] (>=3,<4) ; extra=='d'", Requirement("a-b.c", "3", "d")),
        ("a<4; python_version>='3.9' and extra == 'd'", Requirement("a", "", "d")),
    ],
)
def test_requirement_lines(line: str, requirement: Requirement) -> None:
    assert read_requirements([line]) == [requirement]


def test_a_distribution_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "DISTRIBUTION", "no-such-distribution")
    assert read_requirements() == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('libfoo.so.1:\\n  not found')", "ImportError: libfoo.so.1: not found"),
        ("raise RuntimeError('x' * 999)", "RuntimeError: " + "x" * 200),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise type('Odd', (BaseException,), {})()", "Odd"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 +", "SyntaxError: invalid syntax (pkg_broken.py, line 1)"),
    ],
)
def test_a_broken_package_is_explained_in_one_line(site: Path, code: str, error: str) -> None:
    requirement = install(site, "pkg_broken", code)
    (package,) = check_packages([requirement]).values()
    assert package == Package("pkg_broken", "1.0", "broken", error, ["snl"])


def test_ctrl_c_while_a_package_is_imported(site: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check_packages([install(site, "pkg_slow", "raise KeyboardInterrupt")])


def test_the_output_of_packages_is_dropped(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys, warnings\nprint('a')\nprint('b', file=sys.stderr)\nwarnings.warn('c')\n"
    (package,) = check_packages([install(site, "pkg_loud", code)]).values()
    assert package.status == "ok" and capfd.readouterr() == ("", "")


def test_missing_old_and_unversioned_packages(site: Path) -> None:
    requirements = [
        Requirement("pkg_missing", "1.0", ""),
        install(site, "pkg_old", version="0.9.9"),
        install(site, "pkg_new", version="1.10.0rc1+cpu"),
        install(site, "pkg_bare", "__version__ = '2.0'", version=None),
    ]
    packages = check_packages(requirements)
    assert [(p.status, p.version) for p in packages.values()] == [
        ("missing", None), ("too old", "0.9.9"), ("ok", "1.10.0rc1+cpu"), ("ok", "2.0"),
    ]  # fmt: skip
    assert packages["pkg_old"].error == "version 1.0 or newer is needed"


def test_packages_for_development_are_not_imported(site: Path) -> None:
    install(site, "pkg_tool", "raise ImportError")
    requirements = [Requirement("pkg_tool", "0.5", "dev"), Requirement("pkg_gone", "", "dev")]
    calls: list[tuple[int, int]] = []
    packages = check_packages(requirements, lambda *call: calls.append(call))
    assert [p.status for p in packages.values()] == ["ok", "missing"]
    assert calls == [(1, 2), (2, 2)]


def test_extras() -> None:
    requirements = read_requirements(
        ["a>=1; extra == 'zoo'", "b; extra == 'video'", "c; extra == 'video'", "d"]
    )
    packages = {
        "a": Package("a", "0.5", "too old", "version 1 or newer is needed"),
        "b": Package("b", "1", "ok"),
        "c": Package("c", None, "missing"),
        "d": Package("d", None, "missing"),
    }
    video, zoo = check_extras(requirements, packages)
    assert (video["name"], video["complete"]) == ("video", False)
    assert video["needed_for"] == NEEDED_FOR["video"]
    assert [(r["name"], r["status"]) for r in video["requirements"]] == [
        ("b", "ok"), ("c", "missing"),
    ]  # fmt: skip
    assert video["install"] == "pip install 'snl-ad[video]'"
    assert (zoo["name"], zoo["needed_for"], zoo["complete"]) == ("zoo", "", False)
    packages["c"] = Package("c", "1", "ok")
    assert check_extras(requirements, packages)[0]["complete"]


def fake_torch(**changes: object) -> types.SimpleNamespace:
    """Return a module with two CUDA devices and MPS, whatever this machine has."""
    gpus = [types.SimpleNamespace(name=f"GPU {n}", total_memory=n * 2**30) for n in (16, 80)]
    return types.SimpleNamespace(
        cuda=types.SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: len(gpus),
            get_device_properties=gpus.__getitem__,
        ),
        backends=types.SimpleNamespace(
            mps=types.SimpleNamespace(is_available=lambda: True),
            cpu=types.SimpleNamespace(get_cpu_capability=lambda: "AVX512"),
        ),
        cpu=types.SimpleNamespace(**changes),
    )


def test_devices_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch())  # type: ignore[arg-type]
    assert environment._torch_devices() == [
        {"device": "cpu", "name": "", "memory_bytes": None},
        {"device": "cuda:0", "name": "GPU 16", "memory_bytes": 16 * 2**30},
        {"device": "cuda:1", "name": "GPU 80", "memory_bytes": 80 * 2**30},
        {"device": "mps", "name": "", "memory_bytes": None},
    ]


def test_features_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx2": True, "avx512_f": True, "amx_tile": False, "num_sockets": 1}
    modern = fake_torch(get_capabilities=lambda: capabilities)
    older = fake_torch(_is_avx2_supported=lambda: True, _is_avx512_supported=lambda: True)
    for torch in (modern, older):
        monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
        cpu = environment._cpu(torch_works=True)
        assert cpu["features"] == ["AVX2", "AVX-512"] and cpu["capability"] == "AVX512"
    cpu = environment._cpu(torch_works=False)
    assert cpu["features"] is None and cpu["usable_cores"] >= 1 and cpu["name"]


def test_nothing_heavy_is_imported_with_the_module() -> None:
    code = (
        "import sys, snl.environment\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert importlib.metadata.requires("snl-ad")
