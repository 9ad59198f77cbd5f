"""`snl inspect` with products, rates, regions and files; training on a mixed folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.decision.references import score_factor
from tests.conftest import TINY_OPTIONS
from tests.trees import draw, draw_varied, save_varied

Capture = pytest.CaptureFixture[str]


def inspect(capsys: Capture, *words: object, status: int = 0) -> list[dict[str, Any]]:
    assert main(["inspect", *map(str, words)]) == status, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bolt, a plate, a dented plate; noise and a drawing of a third product."""
    root = tmp_path_factory.mktemp("images")
    save_varied(root / "bolt.png", 6000)
    save_varied(root / "plate.png", 6000, product="plate")
    save_varied(root / "dented.png", 6001, product="plate", defect=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    third = np.full((40, 48, 3), 230, np.uint8)
    third[5:35, 5:12], third[5:35, 30:38] = 0, (200, 20, 20)
    third = np.clip(third + rng.integers(-6, 7, third.shape), 0, 255).astype(np.uint8)
    Image.fromarray(third).save(root / "third.png")
    return root


def test_products_are_recognised_given_or_unknown(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    results = {Path(r["path"]).stem: r for r in inspect(capsys, calibrated, images)}
    assert results["bolt"]["product"] == results["bolt"]["recognised"] == "bolt"
    assert results["plate"]["product"] == "plate"
    assert {r["product_from"] for r in results.values()} == {"recognised"}
    # with this untrained teacher the dent moves the image as far from bolts as from plates
    dented = results["dented"]
    assert dented["distance"] > 0.9 * dented["second_distance"]
    assert dented["distance"] > dented["unknown_distance"]
    assert dented["decision"] == "unknown product"
    (as_bolt,) = inspect(capsys, calibrated, images / "dented.png", "--product", "bolt")
    assert as_bolt["decision"] == "anomalous"
    assert results["bolt"]["decision"] != "unknown product"
    for name in ("noise", "third"):
        assert results[name]["decision"] == "unknown product"
        assert results[name]["unknown_p"] == 1 / 41
    given = {
        Path(r["path"]).stem: r for r in inspect(capsys, calibrated, images, "--product", "plate")
    }
    for name, record in given.items():
        assert (record["product"], record["product_from"]) == ("plate", "given")
        assert record["decision"] != "unknown product"  # a given product is believed
        for key in ("recognised", "distance", "unknown_p", "peak"):
            assert record[key] == results[name][key]
        # a whole image is compared with those of the given product
        scores = [r["score"] / score_factor(r["strangeness"]) for r in (record, results[name])]
        assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    assert given["third"]["decision"] == "anomalous"


def test_text_takes_the_place_of_json_lines_where_a_table_is_written(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A log is no place for hundreds of JSON lines."""
    table = tmp_path / "r.csv"
    assert main(["inspect", str(calibrated), str(images), "--csv", str(table)]) == 0
    output = capsys.readouterr()
    assert output.out == "" and "5 rows" in output.err and "dented.png: " in output.err
    assert "next: --out DIR shows where" in output.err and "--csv FILE or" not in output.err
    words = ["inspect", str(calibrated), str(images), "--csv", str(table), "--json", "-"]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize("name", ["r.xlsx", "r.ODS"])
def test_a_spreadsheet_is_not_written_as_text(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    words = ["inspect", str(calibrated), str(images), "--csv", str(tmp_path / name)]
    assert main(words) == 2 and "that ends in .csv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_said_before_the_network_is_loaded(
    calibrated: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snl, "load", None)
    assert main(["inspect", str(calibrated), str(tmp_path / "no.png")]) == 2
    error = f"snl: error: {tmp_path / 'no.png'} does not exist; check the path\n"
    assert capsys.readouterr().err == error


def test_an_overlay_of_a_link_has_the_name_of_the_link(
    calibrated: Path, images: Path, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.png").symlink_to(images / "bolt.png")
    (links / "b.png").symlink_to(images / "dented.png")
    assert main(["inspect", str(calibrated), str(links), "--out", str(tmp_path / "o")]) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["a.png", "b.png"]


def test_links_to_the_same_image_are_said_once(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes((images / "bolt.png").read_bytes())
    for name in ("b.png", "c.png"):
        (tmp_path / name).symlink_to(image)
    words = ["inspect", str(calibrated), str(tmp_path), str(image), "--json", "-", "--quiet"]
    assert main(words) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    notes = [line for line in output.err.splitlines() if "the same file" in line]
    assert notes == [
        f"note: 2 paths are the same files as others, such as {tmp_path / 'b.png'} and {image}; "
        "each file is used once"
    ]
    before = calibrated.read_bytes()
    kept = tmp_path / "kept.snl"
    kept.write_bytes(before)
    assert main(["calibrate", str(kept), "--false-alarms", str(tmp_path), "--product", "bolt"]) == 0
    assert capsys.readouterr().err.count("the same files") == 1


def test_a_line_holds_the_decision_and_its_reasons(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    (record,) = inspect(capsys, calibrated, images / "dented.png")
    assert list(record) == [
        *("path", "decision", "product", "product_from", "recognised", "distance"),
        *("second_distance", "unknown_distance", "unknown_p", "unusual_p"),
        "strangeness",
        *("score", "calibrated", "p_value", "p_value_from"),
        *("threshold", "uncertain_threshold", "threshold_from"),
        *("region_threshold", "width", "height", "roi", "peak", "regions", "remarks"),
    ]
    assert (record["width"], record["height"]) == (48, 40)
    assert record["threshold_from"] == record["p_value_from"] == "shared tail"
    assert record["score"] > record["threshold"]
    assert record["p_value"] == pytest.approx(1 / 41)  # no held-out image has a score as high
    region = record["regions"][0]
    assert list(region) == [*("box", "polygon", "area", "area_mm2", "peak", "peak_at", "p_value")]
    x, y, width, height = region["box"]
    assert x <= record["peak"][0] < x + width and y <= record["peak"][1] < y + height
    assert region["peak"] > record["region_threshold"] and 0 < region["p_value"] <= 1


def test_rates_on_the_command_line_apply_to_this_run(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    before = calibrated.read_bytes()
    inspector = snl.load(calibrated, "cpu")
    (record,) = inspect(
        capsys, calibrated, images / "bolt.png", "--product", "bolt",
        *("--rate", 0.3, "--uncertain-rate", 0.6),
    )  # fmt: skip
    assert record["threshold"] == inspector.threshold("bolt", 0.3)
    assert record["uncertain_threshold"] == inspector.threshold("bolt", 0.6)
    (most,) = inspect(capsys, calibrated, images / "bolt.png", "--unknown-rate", 0.99)
    p = most["unknown_p"]
    assert (most["decision"] == "unknown product") == (p <= 0.99)
    assert calibrated.read_bytes() == before


def exit_status(words: list[str]) -> int:
    """Return the exit status of a command line, whether it can be parsed or not."""
    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "0.01"], "0.01 needs 99 held-out normal images; there are 40 of all products"),
        (["--rate", "0.01", "--product", "bolt"], "there are 20 of 'bolt' and 40 of all products"),
        (["--uncertain-rate", "0.01"], "the uncertain rate 0.01 is less than the rate 0.05"),
        (["--rate", "1"], "between 0 and 1"),
        (["--unknown-rate", "0"], "between 0 and 1"),
        (["--product", "nut"], "'nut' is not known to this inspector; known: bolt, plate"),
        (["--tile", "8"], "must be in 32..8192"),
        (["--tile", "100000"], "must be in 0..8192"),
        (["--tile", "32", "--monitor", "{images}/new.json"], "leave out one of them"),
        (["--coco", "{images}"], "is a folder"),
        (["--coco", "{images}/bolt.png"], "would overwrite what is read"),
        (["--monitor", "{images}/bolt.png"], "would overwrite what is read"),
        (["--labelme", "{images}/bolt.png"], "cannot be written"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch, words: list[str], message: str,
) -> None:  # fmt: skip
    before = {path: path.read_bytes() for path in images.iterdir()}
    if "labelme" not in words[0]:  # files in a folder are checked when they are written
        monkeypatch.setattr(snl.Predictor, "predict", None)
    words = [word.format(images=images) for word in words]
    out = ["--json", str(tmp_path / "out.jsonl")]
    assert exit_status(["inspect", str(calibrated), str(images), *words, *out, "--quiet"]) == 2
    output = capsys.readouterr()
    assert message in output.err.splitlines()[-1] and output.out == ""
    assert not list(tmp_path.iterdir())
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_regions_as_coco_and_labelme(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture
) -> None:
    coco, labels = tmp_path / "regions.json", tmp_path / "deep" / "labels"
    records = inspect(
        capsys, calibrated, images, *("--product", "plate", "--coco", coco, "--labelme", labels)
    )
    count = sum(len(r["regions"]) for r in records)
    assert count > 0
    results = json.loads(coco.read_text())
    assert [i["file_name"] for i in results["images"]] == [r["path"] for r in records]
    assert len(results["annotations"]) == count
    by_image: dict[int, list[Any]] = {i["id"]: [] for i in results["images"]}
    for annotation in results["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image, record in zip(results["images"], records, strict=True):
        annotations = by_image[image["id"]]
        assert [a["bbox"] for a in annotations] == [r["box"] for r in record["regions"]]
        assert image["decision"] == record["decision"]
        file = Path(record["labelme"])
        label = json.loads(file.read_text())
        assert label["flags"] == {record["decision"]: True}
        assert len(label["shapes"]) == len(record["regions"])
        # LabelMe opens the image from the label's own folder
        assert (file.parent / label["imagePath"]).resolve() == Path(record["path"]).resolve()


def test_a_note_says_that_tiles_of_one_run_are_not_calibrated(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    before = calibrated.read_bytes()
    assert main(["inspect", str(calibrated), str(images / "bolt.png"), "--tile", "32"]) == 0
    output = capsys.readouterr()
    record = json.loads(output.out)
    assert (
        "thresholds were made with whole images; for tiles of 32 pixels they are not valid"
        in output.err
    )
    inspector = snl.load(calibrated, "cpu")
    (whole,) = inspect(capsys, calibrated, images / "bolt.png", "--tile", "0")
    assert whole["score"] == inspector.inspect(images / "bolt.png").score != record["score"]
    assert calibrated.read_bytes() == before


def test_a_note_if_the_rate_is_not_possible_and_only_then(
    bundle: Path, images: Path, capsys: Capture
) -> None:
    """Two held-out images per product, four together, guarantee rates from 0.2 up."""
    words = ["inspect", str(bundle), str(images / "bolt.png"), "--product", "bolt"]
    assert main(words) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["decision"] == "uncertain"
    assert "with 4 held-out normal images no decision at a false-alarm rate of 0.05" in output.err
    assert main([*words, "--rate", "0.2"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["threshold_from"] == "shared tail"
    assert "no decision" not in output.err


def test_the_monitor_continues_in_the_next_run(
    calibrated: Path, images: Path, tmp_path: Path, capsys: Capture
) -> None:
    state = tmp_path / "drift.json"
    words = (calibrated, images / "bolt.png", images / "plate.png", "--monitor", state)
    for _ in range(2):
        for record in inspect(capsys, *words):
            assert record["drift"]["alarm"] is False
    saved = json.loads(state.read_text())
    assert saved["kind"] == "drift"
    whole = tmp_path / "other.snl"
    assert main(["calibrate", str(calibrated), "--rate", "0.5", "-o", str(whole)]) == 0
    capsys.readouterr()
    before = state.read_bytes()
    again = ["inspect", str(whole), str(images / "bolt.png"), "--monitor", str(state)]
    assert main(again) == 2
    assert "belongs to another bundle or calibration" in capsys.readouterr().err
    assert state.read_bytes() == before


def test_rates_of_one_run_are_no_drift(calibrated: Path, tmp_path: Path, capsys: Capture) -> None:
    """A large rate rejects many images and leaves the low scores, which is not drift."""
    for n in range(120):
        save_varied(tmp_path / "in" / f"{n}.png", 4000 + n)
    normal = (calibrated, tmp_path / "in", "--product", "bolt")
    plain = inspect(capsys, *normal, "--monitor", tmp_path / "plain.json")
    rates = ("--rate", 0.6, "--monitor", tmp_path / "rate.json")
    assert [r["drift"] for r in inspect(capsys, *normal, *rates)] == [r["drift"] for r in plain]
    states = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "rate")]
    assert states[0] == states[1]


def test_a_reader_that_stops_early_gives_no_traceback(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for n in range(12):
        save_varied(folder / f"{n}.png", 6100 + n)
    files = ["--coco", str(tmp_path / "r.json"), "--monitor", str(tmp_path / "d.json")]
    command = [sys.executable, "-m", "snl", "inspect", str(calibrated), str(folder), *files]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["product"] == "bolt"
    process.stdout.close()
    output = process.stderr.read()
    assert process.wait(60) == 0 and b"Traceback" not in output, output


# --- the guarantee, measured on images ---


def test_p_values_of_unseen_parts_are_valid(calibrated: Path, tmp_path: Path) -> None:
    """200 images of each product held out, 200 others inspected: P(p <= a) <= a.

    Both samples have one distribution, so the number of p <= a has mean at most 200 a and variance
    200 a (1 - a) (1 + 200 / 200). The bounds are a plus three standard deviations."""
    from snl.runtime.recalibrate import add_normals

    inspector = snl.load(calibrated, "cpu")
    from snl.data.records import Record

    records = [
        Record(save_varied(tmp_path / f"{product}-{n}.png", 7000 + n, product=product), product,
               "test", "normal")
        for product in ("bolt", "plate") for n in range(200)
    ]  # fmt: skip
    calibration, _ = add_normals(inspector, inspector.calibration, records)
    inspector.recalibrate(calibration)
    for product in ("bolt", "plate"):
        fresh = [draw_varied(8000 + n, product=product)[0] for n in range(200)]
        results = inspector.inspect(fresh, product)
        p = np.array([r.p_value for r in results], float)
        for a in (0.01, 0.05, 0.1, 0.2, 0.5):
            assert np.mean(p <= a) <= a + 3 * np.sqrt(a * (1 - a) * 2 / 200), (product, a)
        unknown = np.array([r.unknown_p for r in results], float)
        assert np.mean(unknown <= 0.01) <= 0.01 + 3 * np.sqrt(0.01 * 0.99 * 2 / 200)
        regions = np.mean([min(len(r.regions), 4) for r in results])
        assert regions <= 0.2 + 3 * np.sqrt(0.2 * 4 * 2 / 200)


# --- a mixed folder ---


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 bolts and 30 plates in one folder, and test images."""
    root = tmp_path_factory.mktemp("data") / "mixed"
    for name, count in (("bolt", 36), ("plate", 30)):
        for n in range(count):
            path = root / "train" / "good" / f"{n:02}-{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(n, product=name)[0]).save(path)
        for label, first in (("good", 100), ("dent", 200)):
            for n in range(3):
                path = root / "test" / label / f"{n}-{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                drawn = draw(first + n, product=name, defect=label == "dent")[0]
                Image.fromarray(drawn).save(path)
    return root


COMPACT = [
    *("--image-size", "64", "--batch-size", "4", "--steps", "8"),
    *("--set", "training.precision=fp32", "--set", "training.holdout=0.4", "--quiet"),
]


def test_a_mixed_folder_is_split_into_groups(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "mixed.snl"
    assert main(["train", str(mixed), "-o", str(file), *COMPACT]) == 0
    output = capsys.readouterr().err
    assert "2 groups of similar images: 'mixed 1' (36 images), 'mixed 2' (30 images)" in output
    inspector = snl.load(file, "cpu")
    assert inspector.products == ("mixed 1", "mixed 2")
    assert inspector.training.products == {"mixed 1": 22, "mixed 2": 18}
    assert [len(n) for n in inspector.calibration.sets.values()] == [14, 12]
    records = inspect(capsys, file, mixed / "test", "--quiet")
    for record in records:
        wanted = "mixed 1" if "bolt" in record["path"] else "mixed 2"
        assert record["recognised"] == record["product"] == wanted
        dented = "dent" in record["path"]
        assert (record["decision"] in ("anomalous", "unknown product")) == dented, record
    # the groups are not products of the data: evaluation reports it and continues
    assert main(["evaluate", str(file), str(mixed), "--quiet"]) == 0
    output = capsys.readouterr()
    assert "not products of this inspector: mixed" in output.err
    assert "all products" in output.out


def test_grouping_can_be_switched_off(mixed: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "one.snl"
    off = ["--set", "training.product_groups=off"]
    assert main(["train", str(mixed), "-o", str(file), *COMPACT, *off]) == 0
    assert "groups of similar images" not in capsys.readouterr().err
    inspector = snl.load(file, "cpu")
    assert inspector.products == ("mixed",) and len(inspector.calibration.sets["mixed"]) == 26
    assert (
        main(
            [
                "train",
                str(mixed),
                "-o",
                str(file),
                *TINY_OPTIONS,
                "--set",
                "training.product_groups=x",
            ]
        )
        == 2
    )
    assert "one of auto, off" in capsys.readouterr().err
