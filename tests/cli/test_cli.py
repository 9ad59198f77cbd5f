"""The command in a separate process: every verb with right and with wrong input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snl.cli.main import main
from tests.conftest import TINY_OPTIONS, Run
from tests.trees import MAKERS

VERBS = (
    *("demo", "doctor", "train", "calibrate", "inspect", "evaluate", "report", "probe", "export"),
    *("bench", "info"),
)


def test_help_is_fast_and_shows_every_verb(run_snl: Run) -> None:
    done = run_snl("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^    {verb}\s", done.stdout, re.MULTILINE) for verb in VERBS)
    code = (
        "import sys, time; started = time.perf_counter(); "
        "from snl.cli.main import make_parser; make_parser().format_help(); "
        "spent = time.perf_counter() - started; "
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy; assert spent < 0.4, spent"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example(run_snl: Run, verb: str) -> None:
    done = run_snl(verb, "--help")
    assert done.returncode == 0
    assert f"examples:\n  snl {verb}" in done.stdout


def test_version(run_snl: Run) -> None:
    import snl

    assert run_snl("--version").stdout.strip() == f"snl {snl.__version__}"


@pytest.mark.parametrize("layout", sorted(MAKERS))
def test_every_layout_from_images_to_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    data = MAKERS[layout](tmp_path / "data")
    options = ("--layout", "mpdd") if layout == "mpdd" else ()
    bundle = str(tmp_path / "a.snl")
    assert main(["train", str(data), "-o", bundle, *TINY_OPTIONS, *options]) == 0
    assert f"layout '{layout}'" in capsys.readouterr().err
    file = tmp_path / "metrics.json"
    assert main(["evaluate", bundle, str(data), "--json", str(file), "--quiet", *options]) == 0
    metrics = json.loads(file.read_text())
    assert {"products", "mean", "pooled"} <= set(metrics)
    assert len(metrics["products"]) == 2
    for values in (*metrics["products"].values(), metrics["mean"], metrics["pooled"]):
        assert {
            *("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap"),
            *("pixel_f1max", "aupro", "n_normal", "n_anomalous", "n_masked"),
        } <= set(values)
        assert 0 <= values["image_auroc"] <= 1 and 0 <= values["aupro"] <= 1


def test_inspect_writes_one_line_and_one_overlay_per_image(
    run_snl: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin" / "000.jpg"
    twin.parent.mkdir()
    Image.open(parts / "bolt" / "test" / "good" / "000.png").save(twin)
    (tmp_path / "twin" / "000.bmp").write_bytes(b"")
    paths = [parts / "bolt" / "test", twin]
    known = ("--rate", "0.4", "--product", "bolt")
    done = run_snl("inspect", bundle, *paths, "--out", tmp_path / "out", *known)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 5
    for record in records:
        assert {"path", "score", "threshold", "decision", "width", "height", "peak"} <= set(record)
        assert record["decision"] in ("normal", "anomalous")  # both rates are 0.4
        assert (record["product"], record["product_from"]) == ("bolt", "given")
        assert Image.open(record["overlay"]).format == "PNG"
    assert len({record["overlay"] for record in records}) == 5
    file = tmp_path / "lines.jsonl"
    quiet = run_snl("inspect", bundle, twin, "--json", file, "--product", "bolt")
    assert quiet.stdout == "" and quiet.returncode == 0
    assert json.loads(file.read_text())["product"] == "bolt"


def test_inspect_never_overwrites_its_inputs(
    bundle: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    images = [incoming / "a.png", incoming / "b.png"]
    for number, image in enumerate(images):
        shutil.copy(parts / "bolt" / "test" / "good" / f"00{number}.png", image)
    before = [image.read_bytes() for image in images]
    assert main(["inspect", str(bundle), str(incoming), "--out", str(incoming)]) == 2
    assert "files there would be overwritten" in capsys.readouterr().err
    assert main(["inspect", str(bundle), str(images[0]), "--json", str(images[0])]) == 2
    assert main(["evaluate", str(bundle), str(parts), "--json", str(bundle), "--quiet"]) == 2
    assert [image.read_bytes() for image in images] == before
    # one image given twice, also by a path with .., has one overlay inside --out
    detour = incoming / ".." / "incoming" / "a.png"
    out = tmp_path / "out"
    assert main(["inspect", str(bundle), str(detour), *map(str, images), "--out", str(out)]) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == ["a.png", "b.png"]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_inspect_continues_after_a_bad_image(
    run_snl: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    good = parts / "bolt" / "test" / "good" / "000.png"
    done = run_snl("inspect", bundle, bad, tmp_path / "missing.jpg", good)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert "bad.png" in done.stderr and "missing.jpg" in done.stderr
    assert "2 of 3 images could not be inspected" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_saves_maps(run_snl: Run, bundle: Path, parts: Path, tmp_path: Path) -> None:
    done = run_snl("evaluate", bundle, parts, "--save-maps", tmp_path / "maps", "--quiet")
    assert done.returncode == 0 and "pooled" in done.stdout
    maps = list((tmp_path / "maps").rglob("*.npy"))
    assert len(maps) == 8
    assert np.load(maps[0], allow_pickle=False).shape == (40, 48)


def test_doctor_prints_the_table_and_fails_on_errors(
    run_snl: Run, parts: Path, tmp_path: Path
) -> None:
    done = run_snl("doctor", parts, "--quiet")
    assert done.returncode == 0 and "bolt" in done.stdout and "plate" in done.stdout
    data = tmp_path / "data"
    shutil.copytree(parts, data)
    shutil.copy(
        data / "bolt" / "test" / "good" / "000.png", data / "bolt" / "train" / "good" / "twin.png"
    )
    (data / "plate" / "train" / "good" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run_snl("doctor", data, "--quiet", "--json", tmp_path / "findings.json")
    assert done.returncode == 1
    assert "twin.png" in done.stdout and "torn.png" in done.stdout
    assert json.loads((tmp_path / "findings.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{missing}", "-o", "{new}"], "does not exist"),
        (["train", "{empty}", "-o", "{new}"], "no images found"),
        (["train", "{parts}", "-o", "{new}", "--method", "sml"], "unknown method 'sml'; known: "),
        (["train", "{parts}", "-o", "{new}", "--preset", "big"], "unknown preset 'big'"),
        (["train", "{parts}", "-o", "{new}", "--teacher", "resnet19"], "no network 'resnet19'"),
        (["train", "{parts}", "-o", "{new}", "--teacher-weights", "no.pth"], "no such weights"),
        (["train", "{parts}", "-o", "{new}", "--teacher-weights", "{image}"], "cannot be read as"),
        (["train", "{parts}", "-o", "{new}", "--image-size", "100"], "multiple of 16"),
        (["train", "{parts}", "-o", "{new}", "--image-size", "-1"], "must be in 64..4096"),
        (["train", "{parts}", "-o", "{new}", "--steps", "0"], "'training.steps' is 0"),
        (["train", "{parts}", "-o", "{new}", "--batch-size", "0"], "'training.batch_size' is 0"),
        (["train", "{parts}", "-o", "{new}", "--seed", "-1"], "-1 is not a whole number in 0.."),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "cram.from=gate"],
            "did you mean 'cram.form'",
        ),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "cram.form=x"],
            "one of none, centres, rebuild",
        ),
        (["train", "{parts}", "-o", "{new}", "--set", "nothing"], "not NAME=VALUE"),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "map.normalisation_clusters=-1"],
            "'map.normalisation_clusters' is -1",
        ),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "map.normalisation_clusters=x"],
            "takes a whole number",
        ),
        (["train", "{parts}", "-o", "{new}", "--set", "map.kind=x"], "one of feature, affinity"),
        (["train", "{parts}", "-o", "{new}", "--set", "map.distance=x"], "one of cosine, l2"),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "map.stage_weights=1,1,1"],
            "'map.stage_weights' has 3 numbers; the teacher has 2 stages",
        ),
        (["train", "{parts}", "-o", "{new}", "--set", "map.stage_weights=0,0"], "only zeros"),
        (
            ["train", "{parts}", "-o", "{new}", "--set", "loss.hard_mining=1"],
            "'loss.hard_mining' is 1",
        ),
        (["train", "{parts}", "-o", "{new}", "--device", "cuda:99"], "not available"),
        (["train", "{parts}", "-o", "{new}", "--layout", "visa"], "not laid out as visa"),
        (["train", "{parts}", "-o", "{new}", "--cache-memory", "-1"], "in 0..1e+06"),
        (["train", "{parts}", "-o", "{image}/x.snl"], "cannot be written"),
        (["train", "{parts}", "-o", "."], "is a folder"),
        (["train", "{parts}", "-o", "{empty}"], "is a folder"),
        (["evaluate", "{bundle}", "{parts}", "--json", "{empty}"], "is a folder"),
        (["inspect", "{bundle}", "{image}", "--json", "."], "is a folder"),
        (["doctor", "{parts}", "--json", "{empty}"], "is a folder"),
        (["demo", "--out", "{image}"], "is a file"),
        (["train", "{parts}", "-o", "{new}", "--lr", "many"], "it takes a number"),
        (["train", "{parts}"], "required: -o"),
        (["evaluate", "{missing}", "{parts}"], "no such file"),
        (["evaluate", "{parts}", "{bundle}"], "is a folder, not a bundle"),
        (["evaluate", "{image}", "{parts}"], "is an image, not a bundle"),
        (["evaluate", "{bundle}", "{missing}"], "does not exist"),
        (["inspect", "{bundle}", "{empty}"], "no images in this folder"),
        (["inspect", "{bundle}", "{image}", "--product", "nut"], "is not known to this inspector"),
        (["inspect", "{bundle}", "{image}", "--rate", "7"], "between 0 and 1"),
        (["inspect", "{bundle}", "{image}", "--out", "{image}"], "cannot be written"),
        (["doctor", "{missing}"], "does not exist"),
        (["doctor", "{image}"], "neither a folder nor a manifest"),
        (["demo", "--out", "{parts}"], "is not empty"),
        ([], "required: VERB"),
        (["fly"], "invalid choice"),
    ],
)
def test_wrong_input_gets_one_clear_line(
    bundle: Path,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "missing": tmp_path / "missing",
        "empty": tmp_path / "empty",
        "new": tmp_path / "new.snl",
        "parts": parts,
        "image": parts / "bolt" / "test" / "good" / "000.png",
        "bundle": bundle,
    }
    words = [a.format(**places) for a in arguments]
    tiny = [] if "--teacher" in words or "-o" not in words else TINY_OPTIONS
    before = sorted(parts.rglob("*"))
    try:
        status = main([*words[:1], *tiny, *words[1:]])
    except SystemExit as stop:  # errors of argparse
        status = int(stop.code or 0)
    errors = capsys.readouterr().err
    assert status == 2, errors
    last = errors.strip().splitlines()[-1]
    assert "error: " in last and message in last, errors
    assert sorted(parts.rglob("*")) == before
    assert [*tmp_path.iterdir()] == [tmp_path / "empty"] and not [*(tmp_path / "empty").iterdir()]


def test_a_closed_pipe_gives_no_traceback(bundle: Path, parts: Path) -> None:
    command = [sys.executable, "-m", "snl", "inspect", str(bundle), str(parts / "bolt")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdout is not None and first.stderr is not None
    first.stdout.close()
    assert b"Traceback" not in first.stderr.read()
    first.wait(60)


def test_without_torch_the_error_says_how_to_install_it(tmp_path: Path, parts: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No torch', name='torch')")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getenv('PYTHONPATH', '')}",
    }
    for arguments in (
        ["train", str(parts), "-o", str(tmp_path / "a.snl")],
        ["demo", "--out", str(tmp_path / "d")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "snl", *arguments],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 2
        assert "pip install 'snl-ad[train]'" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "snl", "doctor", str(parts)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
