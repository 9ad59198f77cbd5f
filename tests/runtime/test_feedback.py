"""Feedback that the calibration speaks against: it is said, refused, and taken with --force."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

import snl
from snl.cli.main import main
from snl.errors import DataError, SettingsError
from snl.runtime import feedback, recalibrate
from tests.trees import save_varied

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(calibrated, tmp_path / "parts.snl"))


class Command:
    """Runs `snl calibrate` on a file."""

    def __init__(self, file: Path, capsys: Capture) -> None:
        self.file, self.capsys = file, capsys

    def refused(self, *words: object) -> str:
        """Return the messages of a command that is refused and changes nothing."""
        before = self.file.read_bytes()
        assert main(["calibrate", str(self.file), *map(str, words), "--quiet"]) == 2
        output = self.capsys.readouterr()
        assert self.file.read_bytes() == before and output.out == ""
        last = output.err.splitlines()[-1]
        assert last.startswith("snl: error: ")
        return output.err

    def taken(self, *words: object, status: int = 0) -> tuple[snl.Inspector, str]:
        """Return the inspector after a command, and the messages."""
        assert main(["calibrate", str(self.file), *map(str, words), "--quiet"]) == status
        return snl.load(self.file, "cpu"), self.capsys.readouterr().err


@pytest.fixture
def command(file: Path, capsys: Capture) -> Command:
    return Command(file, capsys)


def noise(path: Path, seed: int = 0) -> Path:
    """Write an image of nothing that the inspector knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def folder_of(root: Path, product: str, count: int, first: int = 4000) -> Path:
    for n in range(count):
        save_varied(root / f"{product}-{n:02}.png", first + n, product=product)
    return root


# --- false alarms ---


def test_a_false_alarm_of_an_unknown_product(command: Command, tmp_path: Path) -> None:
    image = tmp_path / "black.png"
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(image)
    result = snl.load(command.file, "cpu").inspect(image)
    assert result.decision == "unknown product"
    text = command.refused("--false-alarms", image)
    assert f"{image}: it matches no known product" in text
    assert "name the product with --product NAME (product=), or insist with --force" in text
    # with its product named, the score is what counts
    text = command.refused("--false-alarms", image, "--product", "bolt")
    assert "is it free of defects?" in text and "far above those of normal images of bolt" in text
    command.taken("--rule", "conformal")  # by which one image can raise the threshold to its score
    old = snl.load(command.file, "cpu").threshold("bolt")
    _, text = command.taken("--false-alarms", image, "--product", "bolt", "--force")
    assert f"bolt: the threshold rises from {old:.4g} to " in text
    command.taken("--undo")
    command.taken("--undo")
    after, text = command.taken("--false-alarms", image, "--product", "bolt", "--force")
    assert len(after.calibration.sets["bolt"]) == 21 and "normal image of bolt from now on" in text
    after, _ = command.taken("--undo")
    after, _ = command.taken("--false-alarms", image, "--force")
    assert sum(map(len, after.calibration.sets.values())) == 41


def test_a_false_alarm_of_another_product(command: Command, tmp_path: Path) -> None:
    plate = save_varied(tmp_path / "p.png", 6000, product="plate")
    assert snl.load(command.file, "cpu").inspect(plate).recognised == "plate"
    text = command.refused("--false-alarms", plate, "--product", "bolt")
    assert f"{plate}: it is recognised as plate, not as bolt" in text and "--force" in text
    after, _ = command.taken("--false-alarms", plate)
    assert len(after.calibration.sets["plate"]) == 21
    text = command.refused("--false-alarms", plate, "--product", "bolt")
    assert f"{plate} is a held-out normal image of plate, not of bolt" in text


@pytest.mark.parametrize(("folder", "says"), [
    ("defect", "defect"), ("Scratch", "Scratch"), ("bolt/test/dented", "dented"),
    ("known defects/bolt", "known defects"), ("rejects/bolt/week 3", "rejects"),
])  # fmt: skip
def test_a_false_alarm_in_a_folder_of_defects(
    command: Command, tmp_path: Path, folder: str, says: str
) -> None:
    image = save_varied(tmp_path / folder / "a.png", 5000)
    (tmp_path / "bolt" / "train").mkdir(parents=True)
    text = command.refused("--false-alarms", image)
    assert f"its folder '{says}' is of anomalous images" in text
    assert "is of anomalous images" in command.refused(image.parent, "--add", "--product", "bolt")
    command.taken("--false-alarms", image, "--force")


def test_normals_from_a_folder_of_defects(command: Command, tmp_path: Path) -> None:
    folder_of(tmp_path / "known defects" / "bolt", "bolt", 3)
    folder_of(tmp_path / "rejects" / "good parts" / "bolt", "bolt", 3)  # the nearest decides
    text = command.refused(tmp_path / "known defects", "--add")
    assert "known defects: its folder 'known defects' is of anomalous images" in text
    with pytest.raises(snl.SnlError, match="is of anomalous images"):
        snl.calibrate(snl.load(command.file, "cpu"), tmp_path / "known defects", add=True)
    command.taken(tmp_path / "rejects" / "good parts", "--add")


def test_copies_count_once_and_known_images_are_not_added_again(
    command: Command, tmp_path: Path
) -> None:
    first = save_varied(tmp_path / "a.png", 5000)
    copy, link = tmp_path / "copy.png", tmp_path / "link.png"
    shutil.copy(first, copy)
    link.symlink_to(first)
    after, text = command.taken("--false-alarms", first, copy, link, first, "--product", "bolt")
    assert len(after.calibration.sets["bolt"]) == 21
    assert f"{copy}: the same image as {first}, which counts once" in text
    before = command.file.read_bytes()
    _, text = command.taken("--false-alarms", copy)
    assert f"{copy}: is a held-out image of bolt already; not added again" in text
    assert command.file.read_bytes() == before and "from now on" not in text
    assert "--undo" not in text


# --- misses ---


def test_one_image_is_not_both(command: Command, tmp_path: Path) -> None:
    image = save_varied(tmp_path / "a.png", 5000)
    copy = Path(shutil.copy(image, tmp_path / "copy.png"))
    normals = folder_of(tmp_path / "normals", "bolt", 3)
    for miss in (image, copy):
        text = command.refused("--false-alarms", image, "--misses", miss, "--force")
        assert "is given both as normal and as missed anomaly" in text and miss.name in text
    text = command.refused(normals, "--product", "bolt", "--misses", normals / "bolt-01.png")
    assert "is given both as normal and as missed anomaly" in text
    with pytest.raises(SettingsError, match="both"):
        feedback.check_contradictions([image], [copy])


def test_misses_that_are_none(command: Command, tmp_path: Path, varied: Path) -> None:
    unknown = noise(tmp_path / "noise.png")
    text = command.refused("--misses", unknown)
    assert "it was judged 'unknown product', so it did not pass as normal" in text
    plate = save_varied(tmp_path / "p.png", 6000, product="plate")
    text = command.refused("--misses", plate, "--product", "bolt")
    assert "it was recognised as plate, not as bolt" in text
    inspector = snl.load(command.file, "cpu")
    for hashes, words in (
        (inspector.training.hashes, "a normal image that was trained on"),
        (inspector.calibration.sets["bolt"].hashes, "a held-out normal image of bolt"),
    ):
        image = next(p for p in sorted((varied / "bolt" / "train" / "good").glob("*.png"))
                     if inspector.training.content_hash(p) in set(hashes.tolist()))  # fmt: skip
        copy = Path(shutil.copy(image, tmp_path / "x.png"))
        assert f"{copy}: it is {words}" in command.refused("--misses", copy, "--product", "bolt")
    good = save_varied(tmp_path / "good" / "a.png", 5000)
    assert "its folder 'good' is of normal images" in command.refused("--misses", good)
    _, text = command.taken("--misses", unknown, "--force")
    assert "judged 'unknown product' already" in text and "nothing was changed" in text


# --- normal images ---


def test_normals_of_another_product(command: Command, tmp_path: Path) -> None:
    plates = folder_of(tmp_path / "normals" / "bolt", "plate", 5)
    for words in ((tmp_path / "normals",), (plates, "--product", "bolt")):
        text = command.refused(*words)
        assert "5 of 5 images do not look like bolt, first " in text
        assert "it is recognised as plate, not as bolt" in text
    command.taken(plates, "--product", "bolt", "--force")


def test_few_strange_images_are_named_and_many_are_refused(
    command: Command, tmp_path: Path
) -> None:
    """One of many may look strange by chance; ten of thirty do not."""
    folder = folder_of(tmp_path / "normals" / "bolt", "bolt", 29)
    save_varied(folder / "plate.png", 6000, product="plate")
    _, text = command.taken(tmp_path / "normals", "--add")
    assert "plate.png: it is recognised as plate, not as bolt" in text
    folder_of(folder, "plate", 10, 7000)
    assert "images do not look like bolt, first " in command.refused(tmp_path / "normals", "--add")


def paler_defect(inspector: snl.Inspector, path: Path, threshold: float) -> Path:
    """Write a defect blended with the normal image, whose score is high but not refused."""
    defect = np.asarray(Image.open(save_varied(path, 2007, defect=True)), float)
    normal = np.asarray(Image.open(save_varied(path, 2007)), float)
    usual = inspector.calibration.scores.standardise(threshold, "bolt")
    for share in np.linspace(0.02, 1, 50):
        Image.fromarray((normal + share * (defect - normal)).astype(np.uint8)).save(path)
        result = inspector.inspect(path, "bolt")
        if result.calibrated > 2.1 * usual and result.score < 1.9 * threshold:
            return path
    raise AssertionError("no blend has such a score")


def test_defects_among_normals(command: Command, tmp_path: Path) -> None:
    folder_of(tmp_path / "bolt" / "train" / "good", "bolt", 6)
    save_varied(tmp_path / "bolt" / "test" / "dent" / "a.png", 9, defect=True)
    text = command.refused(tmp_path / "bolt", "--product", "bolt")
    assert "a.png: its folder 'dent' is of anomalous images" in text
    # from the folder of the data set, the layout leaves the defects out
    after, _ = command.taken(tmp_path, "--add")
    assert len(after.calibration.sets["bolt"]) == 26
    # in a folder without a label, the score speaks
    inspector = snl.load(command.file, "cpu")
    high = save_varied(tmp_path / "parts" / "high.png", 2007, defect=True)
    threshold, result = inspector.threshold("bolt"), inspector.inspect(high, "bolt")
    assert threshold is not None and result.score > 2 * threshold
    text = command.refused(high.parent, "--product", "bolt", "--add")
    assert (
        f"high.png: its score {result.score:.4g} (z {result.calibrated:.1f}) is far above" in text
    )
    # a lower one is named
    pale = paler_defect(inspector, high, threshold)
    _, text = command.taken("--false-alarms", pale, "--product", "bolt")
    assert "is it free of defects?" in text and "threshold" in text
    # by the conformal rule one image raises the threshold to its score
    command.taken("--rule", "conformal")
    inspector = snl.load(command.file, "cpu")
    high = save_varied(tmp_path / "more" / "high.png", 2007, defect=True)
    threshold, result = inspector.threshold("bolt"), inspector.inspect(high, "bolt")
    assert threshold is not None and result.score > threshold
    for alarm in ([high], [high, "--force"]):
        if result.score <= 2 * threshold:
            break
        outcome = command.taken if "--force" in alarm else command.refused
        outcome("--false-alarms", *alarm, "--product", "bolt")


def test_normals_that_changed_a_little_are_taken(command: Command, tmp_path: Path) -> None:
    """A brighter light moves all images; that alone is no reason to refuse them."""
    folder = folder_of(tmp_path / "normals" / "bolt", "bolt", 25)
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(float) * 1.02
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    after, text = command.taken(tmp_path / "normals")
    assert len(after.calibration.sets["bolt"]) == 25
    assert "lie further" not in text


def test_normals_that_lie_further_are_taken_with_a_note(command: Command, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "normals" / "bolt", "bolt", 25)
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(float) * 1.1
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    after, text = command.taken(tmp_path / "normals", "--force")
    assert len(after.calibration.sets["bolt"]) == 25
    (line,) = [line for line in text.splitlines() if "lie further" in line]
    assert line.startswith("bolt: 25 normal images lie further from the product than the held-out")


# --- without an effect ---


def test_a_change_without_effect_makes_no_version(command: Command, tmp_path: Path) -> None:
    folder_of(tmp_path / "normals" / "bolt", "bolt", 4)
    normals = tmp_path / "normals"
    for words in (("--rate", 0.05), (normals,), (normals, "--add"), ("--smallest", "bolt=3")):
        command.taken(*words)
        before = command.file.read_bytes()
        _, text = command.taken(*words)
        assert command.file.read_bytes() == before and "nothing changed" in text
        assert "--undo" not in text
    copy = tmp_path / "copy.snl"
    _, text = command.taken("--rate", 0.05, "-o", copy)
    assert copy.read_bytes() == command.file.read_bytes() and f"{copy}: written" in text


def test_from_python(calibrated: Path, tmp_path: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    first, notes = inspector.calibration, list[str]()
    plates = folder_of(tmp_path / "x", "plate", 3)
    with pytest.raises(DataError, match=r"do not look like bolt.*force=True"):
        snl.calibrate(inspector, plates, product="bolt", note=notes.append)
    assert inspector.calibrations == [first] and len(notes) >= 3
    assert snl.calibrate(inspector, rate=first.rates.anomalous, note=notes.append) is first
    assert inspector.calibrations == [first] and "nothing changed" in notes[-1]
    changed = snl.calibrate(inspector, plates, product="bolt", force=True)
    assert len(changed.sets["bolt"]) == 3 and len(inspector.calibrations) == 2
    unknown = noise(tmp_path / "n.png")
    call: Callable[..., object] = recalibrate.learn_false_alarms
    with pytest.raises(DataError, match="matches no known product"):
        call(inspector, first, [unknown])
    with pytest.raises(DataError, match="did not pass as normal"):
        recalibrate.learn_misses(inspector, first, [unknown])


@pytest.mark.parametrize(("count", "least", "rate"), [(1, 1, 0.02), (30, 3, 0.01), (9, 0, 0.5)])
def test_the_chance_of_strange_images(count: int, least: int, rate: float) -> None:
    assert feedback.tail(count, least, rate) == pytest.approx(binom.sf(least - 1, count, rate))
