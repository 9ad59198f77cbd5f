"""`snl calibrate FILE REVIEWED --cost-miss X` compares rates and changes nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.cli.main import main
from snl.data.records import make_record
from snl.decision.costs import Costs
from snl.decision.edit import edit, set_rates
from snl.decision.shared_tail import SharedTail
from snl.errors import DataError, SettingsError
from snl.files import content_hash
from snl.runtime.review import (
    Reviewed,
    allowed_share,
    compare_costs,
    reviewed_p_values,
    smallest_rate,
)
from tests.decision.calibrations import calibration_of, calibration_set, make_calibration
from tests.trees import save_varied

Capture = pytest.CaptureFixture[str]
COSTS = ("--cost-miss", 100, "--cost-false-alarm", 1)
SHARE = ("--defect-share", 0.01)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 normal and 15 anomalous images of each product; a third of the latter look normal."""
    root = tmp_path_factory.mktemp("reviewed")
    for product in ("bolt", "plate"):
        for n in range(15):
            save_varied(root / product / "good" / f"{n:03}.png", 7000 + n, product=product)
            save_varied(
                root / product / "bad" / f"{n:03}.png", 8000 + n, product=product, defect=n % 3 > 0
            )
    return root


class Command:
    """Runs `snl calibrate` on a file that must never change."""

    def __init__(self, file: Path, capsys: Capture) -> None:
        self.file, self.capsys = file, capsys

    def __call__(self, *words: object, status: int = 0) -> tuple[str, str]:
        before = (self.file.read_bytes(), self.file.stat().st_mtime_ns)
        try:
            done = main(["calibrate", str(self.file), *map(str, words), "--quiet"])
        except SystemExit as stopped:
            done = int(str(stopped.code))
        assert done == status
        assert (self.file.read_bytes(), self.file.stat().st_mtime_ns) == before
        assert [path.name for path in self.file.parent.iterdir()] == [self.file.name]
        output = self.capsys.readouterr()
        return output.out, output.err

    def refused(self, *words: object) -> str:
        out, err = self(*words, status=2)
        lines = [line for line in err.splitlines() if line.startswith("snl: error: ")]
        assert out == "" and len(lines) == 1 and err.splitlines()[-1] == lines[0]
        return lines[0]


@pytest.fixture
def command(calibrated: Path, tmp_path: Path, capsys: Capture) -> Command:
    """By the conformal rule, whose rates are multiples of 1 in 21."""
    folder = tmp_path / "file"
    folder.mkdir()
    file = Path(shutil.copy(calibrated, folder / "parts.snl"))
    assert main(["calibrate", str(file), "--rule", "conformal"]) == 0
    capsys.readouterr()
    return Command(file, capsys)


# --- what is printed ---


def test_the_table_and_how_to_adopt_a_rate(
    command: Command, reviewed: Path, tmp_path: Path
) -> None:
    out, err = command(reviewed, *COSTS, "--defect-share", 0.1)
    assert err == ""
    inspector = snl.load(command.file, "cpu")
    rows = {line.split("  ")[0]: line for line in out.splitlines()[2:5]}
    assert list(rows) == ["bolt", "plate", "all products"]
    for product in ("bolt", "plate"):
        files = sorted((reviewed / product / "bad").glob("*.png"))
        p = np.array([r.p_value for r in inspector.inspect(files, product)], float)

        def cost(rate: float, p: np.ndarray = p) -> float:
            return 0.1 * float(np.mean(p > rate)) * 100 + 0.9 * rate

        best = min((k / 21 for k in range(1, 21)), key=cost)
        cells = re.split(r"  +", rows[product])
        found = f"{100 * np.mean(p <= best):.1f} %"
        assert cells[1:4] == ["15", "0.05", f"{100 * np.mean(p <= 0.05):.1f} %"]
        assert cells[6:8] == [found, f"{cost(best):.4g}"]
        assert best <= float(cells[5]) < best + 1 / 21
        low, high = map(float, cells[8].split(" .. "))
        assert low <= float(cells[5]) <= high
        adopt = f"snl calibrate {command.file} --rate {cells[5]} --product {product}"
        assert adopt in out
        # following the advice leads to the stated share of found defects
        words = ["--rate", cells[5], "--product", product, "-o", str(tmp_path / "new.snl")]
        assert main(["calibrate", str(command.file), *words]) == 0
        after = snl.load(tmp_path / "new.snl", "cpu").inspect(files, product)
        assert sum(r.decision == "anomalous" for r in after) == sum(p <= best)
        command.capsys.readouterr()
    assert "nothing was changed" in out
    assert f"snl calibrate {command.file} --rate " in out.splitlines()[-1]


def test_the_shared_tail_has_rates_in_between(command: Command, reviewed: Path) -> None:
    assert main(["calibrate", str(command.file), "--rule", "shared-tail"]) == 0
    command.capsys.readouterr()
    out, _ = command(reviewed, *COSTS, "--defect-share", 0.1)
    inspector = snl.load(command.file, "cpu")
    for product in ("bolt", "plate"):
        (row,) = (line for line in out.splitlines() if line.startswith(product + " "))
        best = float(re.split(r"  +", row)[5])
        files = sorted((reviewed / product / "bad").glob("*.png"))
        p = np.array([r.p_value for r in inspector.inspect(files, product)], float)

        def cost(rate: float, p: np.ndarray = p) -> float:
            return 0.1 * float(np.mean(p > rate)) * 100 + 0.9 * rate

        assert cost(best) <= min(cost(rate) for rate in np.linspace(1 / 41, 0.99, 500)) + 0.005


def test_the_default_share_is_warned_about(command: Command, reviewed: Path) -> None:
    out, err = command(reviewed, *COSTS)
    assert "note: the defect share 0.5 is that of the reviewed images" in err
    assert "--defect-share" in err and "with a defect share of 0.5;" in out
    assert "the best rate is so high because" in out


def test_one_product(command: Command, reviewed: Path) -> None:
    out, _ = command(reviewed, *COSTS, *SHARE, "--product", "bolt")
    assert "plate" not in out and "all products" not in out
    same, _ = command(reviewed / "bolt", *COSTS, *SHARE)
    assert same == out
    # folders without the product's name show the product given
    renamed = shutil.copytree(reviewed / "bolt", reviewed.parent / "monday" / "line 3")
    named, _ = command(renamed, *COSTS, *SHARE, "--product", "bolt")
    assert named == out


def test_a_manifest(command: Command, reviewed: Path, tmp_path: Path) -> None:
    lines = ["path,product,label"]
    for path in sorted((reviewed / "bolt").glob("*/*.png")):
        label = "normal" if path.parent.name == "good" else "anomalous"
        lines.append(f"{path},bolt,{label}")
    manifest = tmp_path / "reviewed.csv"
    manifest.write_text("\n".join(lines) + "\n")
    out, _ = command(manifest, *COSTS, *SHARE)
    assert out == command(reviewed / "bolt", *COSTS, *SHARE)[0]


def test_a_rate_of_which_the_present_one_is_the_best(command: Command, reviewed: Path) -> None:
    out, _ = command(reviewed, *COSTS, *SHARE, "--product", "bolt")
    assert "bolt: the present rate is the best one" in out and "--rate" not in out


# --- what is left out or refused ---


def test_trained_on_and_held_out_images_are_left_out(command: Command, varied: Path) -> None:
    out, err = command(varied, *COSTS, *SHARE)
    assert "40 of 140 reviewed images were trained on; left out" in err
    assert "40 of 140 reviewed images are held out; left out" in err
    assert out.splitlines()[2].split()[:2] == ["bolt", "10"]


@pytest.mark.parametrize("held", [False, True])
def test_a_known_normal_image_among_the_defects(
    command: Command, varied: Path, reviewed: Path, tmp_path: Path, held: bool
) -> None:
    inspector = snl.load(command.file, "cpu")
    sets = inspector.calibration.sets
    known = set(sets["bolt"].hashes.tolist() if held else inspector.training.hashes.tolist())
    path = next(
        path
        for path in sorted((varied / "bolt" / "train" / "good").glob("*.png"))
        if content_hash(path) in known
    )
    folder = shutil.copytree(reviewed, tmp_path / "reviewed")
    shutil.copy(path, folder / "bolt" / "bad" / "known.png")
    text = command.refused(folder, *COSTS, *SHARE)
    what = "held out as a normal image of bolt" if held else "among the normal images"
    assert f"known.png is labelled anomalous but is {what}" in text


def test_copies_count_once_and_must_agree(command: Command, reviewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reviewed, tmp_path / "reviewed")
    shutil.copy(folder / "bolt" / "bad" / "000.png", folder / "bolt" / "bad" / "twin.png")
    out, err = command(folder, *COSTS, *SHARE)
    assert "1 of 61 reviewed images are copies of another one; left out" in err
    assert out == command(reviewed, *COSTS, *SHARE)[0]
    shutil.copy(folder / "bolt" / "bad" / "000.png", folder / "bolt" / "good" / "twin.png")
    assert "leave out one of them" in command.refused(folder, *COSTS, *SHARE)


def test_a_damaged_image_is_skipped(command: Command, reviewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reviewed, tmp_path / "reviewed")
    (folder / "bolt" / "bad" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out, err = command(folder, *COSTS, *SHARE)
    assert "skipped: " in err and "damaged.png" in err
    assert out == command(reviewed, *COSTS, *SHARE)[0]


def test_one_label_only(command: Command, reviewed: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for product in ("bolt", "plate"):
        shutil.copytree(reviewed / product / "good", good / product / "good")
        shutil.copytree(reviewed / product / "bad", bad / product / "bad")
    for words in (COSTS, (*COSTS, *SHARE)):
        assert "none of the reviewed images is labelled anomalous" in command.refused(good, *words)
    assert "--defect-share" in command.refused(bad, *COSTS)
    # the normal images do not change the best rate
    out, _ = command(bad, *COSTS, *SHARE)
    assert out == command(reviewed, *COSTS, *SHARE)[0]


def test_a_product_without_defects(command: Command, reviewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reviewed, tmp_path / "reviewed")
    shutil.rmtree(folder / "plate" / "bad")
    out, err = command(folder, *COSTS, *SHARE)
    assert "plate: no reviewed defect, so it has no best rate" in err
    assert out == command(reviewed, *COSTS, *SHARE, "--product", "bolt")[0]


def test_unknown_products(command: Command, reviewed: Path, tmp_path: Path) -> None:
    text = command.refused(reviewed, *COSTS, "--product", "nut")
    assert "product 'nut' is not known to this inspector; known: bolt, plate" in text
    folder = shutil.copytree(reviewed, tmp_path / "reviewed")
    (folder / "plate").rename(folder / "nut")
    assert "product 'nut' is not known" in command.refused(folder, *COSTS)
    assert command(folder, *COSTS, *SHARE, "--product", "bolt")[0]
    assert "no images of 'plate'" in command.refused(folder, *COSTS, "--product", "plate")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e13", "x", ""])
def test_invalid_costs(command: Command, reviewed: Path, value: str) -> None:
    for flag, other in (
        ("--cost-miss", "--cost-false-alarm"),
        ("--cost-false-alarm", "--cost-miss"),
    ):
        assert f"argument {flag}: " in command.refused(reviewed, f"{flag}={value}", other, 1)


@pytest.mark.parametrize("value", ["0", "1", "5", "-0.1", "nan"])
def test_invalid_shares(command: Command, reviewed: Path, value: str) -> None:
    text = command.refused(reviewed, *COSTS, f"--defect-share={value}")
    assert "argument --defect-share: " in text


def test_extreme_costs_are_possible(command: Command, reviewed: Path) -> None:
    dear, _ = command(reviewed, "--cost-miss", 1e9, "--cost-false-alarm", 1, *SHARE)
    assert dear.splitlines()[2].split()[7:9] == ["100.0", "%"]
    cheap, _ = command(reviewed, "--cost-miss", 1, "--cost-false-alarm", 1e9, *SHARE)
    assert " 0.025 " in cheap.splitlines()[2]  # 1 of 41, rounded up


def test_incomplete_and_contradictory_options(command: Command, reviewed: Path) -> None:
    assert "--cost-false-alarm" in command.refused(reviewed, "--cost-miss", 100)
    assert "--cost-miss" in command.refused(reviewed, "--cost-false-alarm", 1)
    assert "--cost-miss" in command.refused(reviewed, *SHARE)
    assert "needs reviewed images" in command.refused(*COSTS)
    for words in (["--rate", 0.1], ["--add"], ["--force"], ["--undo"], ["-o", "new.snl"],
                  ["--misses", "a.png"], ["--tile", 0]):  # fmt: skip
        text = command.refused(reviewed, *COSTS, *words)
        assert f"leave out {words[0]}" in text
    assert "does not exist" in command.refused(reviewed / "nowhere", *COSTS)


# --- the functions behind it ---


def test_rates_that_differ_only_in_name_are_the_same() -> None:
    calibration = set_rates(calibration_of(bolt=20), "bolt", anomalous=0.09)
    assert allowed_share(calibration, 0.09, "bolt") == 1 / 21
    assert allowed_share(calibration, 2 / 21, "bolt") == 2 / 21
    assert allowed_share(calibration, 0.01, "bolt") is None
    reviewed = {"bolt": Reviewed(np.array([1 / 21, 1 / 21, 1.0]), np.array([]))}
    (row,) = compare_costs(calibration, reviewed, Costs(100, 1, 0.01))
    assert row.unchanged and row.result.best.rate == 1 / 21 and row.rate == 0.048
    assert row.present is not None and row.present == row.result.best


def test_one_rate_for_products_with_different_numbers_of_held_out_images() -> None:
    """At 1 / 21, bolt has 1 of 21 false alarms; the threshold of plate is the highest of all 50
    scores, which the pooled images allow 1 of 51 to exceed."""
    calibration = calibration_of(bolt=20, plate=30)
    costs = Costs(100, 1, 0.01)
    reviewed = {
        "bolt": Reviewed(np.full(10, 1 / 21), np.array([])),
        "plate": Reviewed(np.full(30, 1 / 51), np.array([])),
    }
    row = compare_costs(calibration, reviewed, costs)[-1]
    share = (10 / 21 + 30 / 51) / 40
    assert row.product is None and row.unchanged and row.present is not None
    assert row.result.best.cost == pytest.approx(0.99 * share)
    assert row.present.cost == pytest.approx(row.result.best.cost)
    # plate has a higher rate of its own, so a common one is cheaper
    dearer = set_rates(calibration, "plate", anomalous=0.2)
    row = compare_costs(dearer, reviewed, costs)[-1]
    assert row.present_rate is None and row.present is not None and not row.unchanged
    assert row.present.cost == pytest.approx(0.99 * (10 / 21 + 30 * 6 / 31) / 40)
    assert row.result.best.cost == pytest.approx(0.99 * share)


def test_continuous_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fitted tail, and another way to compute p-values, give any rate."""
    rng = np.random.default_rng(0)
    sets = {name: calibration_set(np.exp(rng.normal(size=40))) for name in ("bolt", "plate")}
    scores = np.exp(rng.normal(2, 1, 50)).astype(np.float32)
    costs = Costs(100, 1, 0.01)
    fitted = make_calibration(sets, fit_tail=True)
    shared = make_calibration(sets)
    tails = SharedTail({k: v.scores for k, v in sets.items()}, shared.log_score_stats)
    monkeypatch.setitem(shared.__dict__, "scores", tails)
    for calibration in (fitted, shared):
        p = np.array([calibration.scores.p_value(float(score), "bolt") for score in scores])
        reviewed = {name: Reviewed(p, np.array([])) for name in sets}
        for row in compare_costs(calibration, reviewed, costs):
            best = row.result.best
            assert best.rate <= row.rate <= 1.02 * best.rate
            assert np.mean(p <= row.rate) == best.found
            limits = [calibration.scores.threshold(row.rate, name)[0] for name in sets]
            assert limits[0] is not None and np.mean(scores > limits[0]) == best.found


def test_only_possible_rates_are_candidates() -> None:
    calibration = calibration_of(bolt=20, plate=30)
    assert smallest_rate(calibration, "bolt") == 1 / 51
    none = calibration_of(bolt=0)
    with pytest.raises(SettingsError, match="no false-alarm rate is possible"):
        smallest_rate(none, "bolt")
    fitted = edit(calibration_of(bolt=200), "tail", fit_tail=True)
    assert smallest_rate(fitted, "bolt") in (1e-4, 1 / 201)


def test_surprising_false_alarms_are_marked_but_do_not_count() -> None:
    calibration = calibration_of(bolt=99)
    defects = np.full(20, 0.02)
    costs = Costs(100, 1, 0.01)
    usual = {"bolt": Reviewed(defects, np.linspace(0.01, 1, 100))}
    flagged = {"bolt": Reviewed(defects, np.full(10, 0.01))}
    (one,), (other,) = (compare_costs(calibration, r, costs) for r in (usual, flagged))
    assert not one.surprising and other.surprising and other.false_alarms == 10
    assert one.result == other.result


def test_no_held_out_images_and_no_images(calibrated: Path, reviewed: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    path = reviewed / "bolt" / "bad" / "000.png"
    with pytest.raises(DataError, match="no reviewed image is left"):
        reviewed_p_values(inspector, [])
    notes: list[str] = []
    with pytest.raises(DataError, match="no reviewed image is left"):
        reviewed_p_values(inspector, [make_record(path, "bolt", "test", None)], note=notes.append)
    assert notes == ["1 of 1 images have no label; left out"]
