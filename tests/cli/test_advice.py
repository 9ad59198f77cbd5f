"""Every message that proposes an option: the option exists, and following the advice helps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from snl.cli.main import VERBS, make_parser
from snl.cli.main import main as run_main
from tests.conftest import TINY_OPTIONS
from tests.trees import save_part

SOURCE = Path(__file__).parents[2] / "src" / "snl"
Capture = pytest.CaptureFixture[str]

# --- options named in messages exist ---

ENGINE_VERBS = ("inspect", "calibrate", "evaluate", "report", "probe")
"""Verbs that run a bundle or an export."""
EMITTERS: dict[str, tuple[str, ...]] = {
    "bench/workers.py": ("bench",),
    "bench/results.py": ("bench",),
    "bench/protocol.py": ("bench",),
    "bench/dataset.py": ("bench",),
    "bench/inference.py": ("inspect",),  # options of snl inspect that were the fastest
    "bulk/run.py": ("inspect",),
    "bulk/shards.py": ("inspect",),
    "data/images.py": ("inspect",),
    "data/local_copy.py": ("train",),
    "data/source.py": ("train", "doctor", "probe", *ENGINE_VERBS),
    "data/white_level.py": ("train",),
    "decision/calibration.py": ENGINE_VERBS,
    "evaluation/probes.py": ("probe",),
    "exporting/write.py": ("export",),
    "exporting/quantise.py": ("export",),
    "exporting/check.py": ("export",),
    "model/device.py": ("train", *ENGINE_VERBS),
    "model/network.py": ("train", "bench"),
    "model/weights.py": ("train", "bench"),
    "reporting/reviews.py": ("calibrate",),
    "runtime/onnx_engine.py": ENGINE_VERBS,
    "runtime/openvino_engine.py": ENGINE_VERBS,
    "runtime/feedback.py": ("calibrate",),
    "runtime/predictor.py": ENGINE_VERBS,
    "runtime/recalibrate.py": ("calibrate",),
    "runtime/remedies.py": ("train",),
    "runtime/review.py": ("calibrate",),
    "service/backup.py": ("backup",),
    "service/blobs.py": ("serve",),
    "service/config.py": ("serve",),
    "service/jobs.py": ("add", "train"),
    "service/restore.py": ("restore",),
    "service/server.py": ("serve",),
    "settings.py": ("train", "bench"),
    "training/add.py": ("add",),
    "training/cache.py": ("train",),
    "training/checkpoint.py": ("train", "bench"),
    "training/distributed.py": ("train",),
    "training/launch.py": ("train",),
    "training/loop.py": ("train",),
    "training/run_files.py": ("train",),
    "training/train.py": ("train",),
    "training/trained.py": ("train",),
}
"""Verbs that show the messages of a module that name an option without a verb."""
FOREIGN = {"--head", "--force-reinstall"}
"""Options of other programs, which follow the name of that program."""
FREE = {"--help", "--version"}


@cache
def options_of(verb: str) -> frozenset[str]:
    (group,) = make_parser(verb)._subparsers._group_actions  # type: ignore[union-attr]
    actions = group.choices[verb]._actions  # type: ignore[index]
    return frozenset(word for action in actions for word in action.option_strings)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """String constants of a module that are not docstrings, joined where they form one text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in ast.walk(node)} - {id(node)}
            parts = [p.value if isinstance(p, ast.Constant) else "X" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not {id(node)} & (docs | inner)
        ):
            yield node.lineno, node.value


def wrong_options(path: Path) -> Iterator[str]:
    """Options in the texts of a module that a verb in the text, or its verbs, do not have."""
    name = path.relative_to(SOURCE).as_posix()
    own = EMITTERS.get(name, ())
    if name.startswith("cli/") and path.stem.split("_")[0] in VERBS:
        own = (path.stem.split("_")[0],)
    for line, text in texts(path):
        for found in re.finditer(r"(?<![\w-])--[a-z][a-z-]+", text):
            option, before = found[0], text[: found.start()]
            if option in FREE | FOREIGN:
                continue
            named = re.findall(rf"\bsnl ({'|'.join(VERBS)})\b", before)
            verbs = named[-1:] or own
            if not verbs and not name.startswith("cli/"):
                yield f"{name}:{line}: {option} without a verb: add the module to EMITTERS"
            accepted = [verb for verb in verbs if option in options_of(verb)]
            # the last verb named may be that of another clause
            if len(accepted) < len(verbs) and not (named and own and option in options_of(own[0])):
                yield f"{name}:{line}: {option} is no option of {', '.join(verbs)}"


def test_every_option_named_in_a_message_exists() -> None:
    wrong = [text for path in sorted(SOURCE.rglob("*.py")) for text in wrong_options(path)]
    assert not wrong, "\n".join(wrong)


def test_every_setting_named_in_a_message_exists() -> None:
    from snl.settings import resolve, setting_values

    known = {*setting_values(resolve()), "loss.intra"}
    sections = {name.partition(".")[0] for name in known if "." in name}
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(sections)})\.[a-z_]+(?==)")
    for path in sorted(SOURCE.rglob("*.py")):
        for line, text in texts(path):
            assert set(pattern.findall(text)) <= known, f"{path}:{line}: {text}"


# --- following the advice ---


def call(capsys: Capture, *words: object) -> tuple[int, str]:
    """Return exit status and messages of a command."""
    try:
        status = run_main([str(word) for word in words])
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, capsys.readouterr().err


def make_normals(root: Path, count: int, first: int = 0) -> Path:
    for number in range(first, first + count):
        save_part(root / "bolt" / "train" / "good" / f"{number:03}.png", number)
    return root


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_images_to_begin(count: int, tmp_path: Path, capsys: Capture) -> None:
    data = make_normals(tmp_path / "data", count)
    status, said = call(capsys, "train", data, "-o", tmp_path / "a.snl", *TINY_OPTIONS, "--quiet")
    assert status == 2 and f"'bolt' has {count} normal image" in said and "4 are needed" in said
    assert not list(tmp_path.glob("a.snl*"))
    assert run_main(["doctor", str(data), "--quiet"]) == 1
    assert "4 are needed to begin" in capsys.readouterr().out


@pytest.mark.parametrize("count", [4, 5, 12, 40])
def test_advice_for_few_normal_images(count: int, tmp_path: Path, capsys: Capture) -> None:
    """Whatever train, inspect and doctor propose for this many images works."""
    data = make_normals(tmp_path / "data", count)
    file, image = tmp_path / "a.snl", data / "bolt" / "train" / "good" / "000.png"
    train = ["train", data, "-o", file, *TINY_OPTIONS, "--steps", "2", "--quiet"]
    status, said = call(capsys, *train)
    assert status == 0
    held = int(re.findall(r"(\d+) normal images were held out", said)[0])
    assert held == count // 3
    status, advice = call(capsys, "inspect", file, image, "--quiet")
    rates = re.findall(r"--rate ([\d.]+)", said) + re.findall(r"--rate ([\d.]+)", advice)
    _, report = call(capsys, "doctor", data, "--quiet")
    rates += re.findall(r"--rate ([\d.]+)", report)
    assert bool(rates) == (held > 0), said
    for rate in rates:
        status, said_again = call(capsys, "inspect", file, image, "--rate", rate, "--quiet")
        assert status == 0 and "uncertain" not in said_again, said_again
    assert ("training.holdout=0.5" in said) == (count == 40)
    if count == 40:
        setting = ["--set", "training.holdout=0.5", "--overwrite"]
        status, said_again = call(capsys, *train, *setting)
        assert status == 0 and "uncertain" not in said_again, said_again
        return
    needed = int(re.findall(r"add (\d+) or more", said)[0])
    assert needed == 19 - held == int(re.findall(r"add (\d+) or more", advice)[0])
    more = make_normals(tmp_path / "more", needed, first=100)
    for short, possible in ((1, False), (0, True)):
        part = more / "bolt" / "train" / "good" / "100.png"
        kept = part.read_bytes()
        if short:
            part.unlink()
        target = tmp_path / f"b{short}.snl"
        # as proposed: FILE NORMALS --add; to another file, so that each try starts from the same
        status, text = call(capsys, "calibrate", file, more, "--add", "-o", target, "--quiet")
        assert status == 0, text
        status, text = call(capsys, "inspect", target, image, "--quiet")
        assert status == 0 and ("uncertain" not in text) == possible, text
        part.write_bytes(kept)


@pytest.mark.parametrize("held", [1, 2, 19, 30, 41, 42, 60, 99])
def test_a_proposed_rate_is_accepted(held: int) -> None:
    """Rounded to two digits, it must not fall below the smallest rate that is possible."""
    from snl.decision.calibration import Rates
    from snl.errors import SettingsError
    from tests.decision.test_calibration import calibration_of

    calibration = calibration_of(a=held)
    with pytest.raises(SettingsError) as refused:
        calibration.check_rates(Rates(1e-6, 1e-6), "a")
    rate = float(re.findall(r"which allow ([\d.e-]+) and more", str(refused.value))[0])
    calibration.check_rates(Rates(rate, rate), "a")
    assert rate < 1.1 / (held + 1) + 0.01
    if "--tail fit" in str(refused.value):
        import dataclasses

        dataclasses.replace(calibration, fit_tail=True).check_rates(Rates(1e-6, 1e-6), "a")


def test_options_against_lack_of_memory_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(parsed: object) -> int:
        raise MemoryError

    words = {
        "demo": [],
        "bench": ["mvtec", "x"],
        "train": ["x", "-o", "y"],
        "add": ["x", "y"],
        "token": ["list"],
        "remove": ["x", "y"],
        "export": ["x", "-o", "y"],
        "report": ["x", "y", "-o", "z"],
        **{verb: ["x", "y"] for verb in ("inspect", "evaluate", "probe")},
    }
    for verb, module in VERBS.items():
        monkeypatch.setattr(module, "run", fail)
        status, text = call(capsys, verb, *words.get(verb, ["x"]))
        assert status == 2 and "out of memory" in text
        assert set(re.findall(r"--[a-z-]+", text)) <= options_of(verb)
    assert "--batch-size" in options_of("inspect")


@pytest.mark.parametrize(
    ("wrong", "option", "right"),
    [
        (["--image-size", "63"], "image_size", ["--image-size", "64"]),
        (["--tile", "31"], "in 32..8192, or 0", ["--tile", "32"]),
        (["--device", "tpu"], "use auto, cpu", ["--device", "cpu"]),
        (["--set", "method=rd"], "use --method NAME", ["--method", "rd"]),
        (["--set", "map.levels=0"], "'map.normalisation_clusters'",
         ["--set", "map.normalisation_clusters=0"]),
        (["--set", "student.architecture=uniad"], "teacher.merge=concatenate",
         ["--set", "student.architecture=uniad", "--set", "teacher.merge=concatenate"]),
        (["--set", "cram.place=stages"], "cram.place=deepest", ["--set", "cram.place=deepest"]),
    ],
)  # fmt: skip
def test_advice_of_settings(
    parts: Path, tmp_path: Path, capsys: Capture, wrong: list[str], option: str, right: list[str]
) -> None:
    train = ["train", parts, "-o", tmp_path / "a.snl", *TINY_OPTIONS, "--steps", "1", "--quiet"]
    status, said = call(capsys, *train, *wrong)
    assert status == 2 and option in said
    status, said = call(capsys, *train, *right)
    assert status == 0, said


def test_advice_about_an_existing_output(parts: Path, tmp_path: Path, capsys: Capture) -> None:
    train = ["train", parts, "-o", tmp_path / "a.snl", *TINY_OPTIONS, "--steps", "1", "--quiet"]
    assert call(capsys, *train)[0] == 0
    status, said = call(capsys, *train)
    assert status == 2 and "--overwrite" in said
    assert call(capsys, *train, "--overwrite")[0] == 0
    status, said = call(capsys, *train, "--resume", "--steps", "2")
    assert status == 2 and "--overwrite" in said
    assert call(capsys, *train, "--steps", "2", "--overwrite")[0] == 0


def test_advice_about_tiles(trained: Path, plant: Path, tmp_path: Path, capsys: Capture) -> None:
    image = plant / "bolt" / "test" / "good" / "000.png"
    status, said = call(capsys, "inspect", trained, image, "--tile", "32", "--quiet")
    assert status == 0 and "snl calibrate FILE NORMALS --tile 32" in said
    target, normals = tmp_path / "b.snl", tmp_path / "normals"
    for product in ("bolt", "plate"):
        for number in range(20):
            save_part(normals / product / f"{number}.png", 300 + number, product=product)
    words = ["calibrate", trained, normals, "--tile", "32", "-o", target, "--quiet"]
    status, said = call(capsys, *words)
    assert status == 0, said
    status, said = call(capsys, "inspect", target, image, "--quiet")
    assert status == 0 and "note" not in said
