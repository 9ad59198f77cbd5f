"""More products than one bank holds: groups of similar products, sizes, banks, the files."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor

import snl
from snl.limits import STEPS_PER_PRODUCT
from snl.model.memory import Bank, PatchMemory, bank_of
from snl.model.network import Network
from snl.settings import PRODUCTS_PER_UNIT, resolve
from snl.training.fit_statistics import fit_statistics
from snl.training.similar_products import group_products, halved
from tests.conftest import FILES, TINY, TINY_OPTIONS

MANY = PRODUCTS_PER_UNIT + 4
METHOD = {**TINY, "cram.centres": 9, "map.normalisation_clusters": 18, "map.memory": 64}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of plainly different products."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(MANY):
        color = rng.integers(40, 200, 3)
        for split, count in (("train/good", 9), ("test/good", 2), ("test/spot", 2)):
            folder = root / f"part_{number:02d}" / split
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = color + rng.normal(0, 6, (64, 64, 3))
                pixels[:: 2 + number % 4] *= 0.6  # stripes
                if "spot" in split:
                    pixels[20:36, 20:36] = 255
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def file(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "many.snl"
    snl.train(many, output=output, overrides=METHOD, device="cpu", quiet=True)
    return output


def paths_of(many: Path) -> dict[Path, str]:
    return {path: path.parts[-4] for path in sorted(many.glob("*/train/good/*.png"))}


# --- groups ---


@pytest.mark.parametrize("count", [1, 2, 9, 10, 17, 18, 19, 36, 109, 144, 1000])
def test_groups_are_of_about_equal_size(count: int) -> None:
    points = np.random.default_rng(count).normal(size=(count, 5))
    groups = halved(points, PRODUCTS_PER_UNIT)
    assert sorted(row for rows in groups for row in rows) == list(range(count))
    sizes = [len(rows) for rows in groups]
    assert max(sizes) <= PRODUCTS_PER_UNIT and max(sizes) <= 2 * min(sizes)


def test_near_products_are_in_one_group() -> None:
    rng = np.random.default_rng(0)
    places = rng.permutation(np.repeat(np.arange(4), 8))
    points = 10 * np.eye(4)[places] + rng.normal(0, 0.1, (32, 4))
    for rows in halved(points, 8):
        assert len({places[row] for row in rows}) == 1


def test_equal_products_are_divided_all_the_same() -> None:
    assert [len(rows) for rows in halved(np.ones((20, 3)), 9)] == [5, 5, 5, 5]


def test_every_image_is_in_the_group_of_its_product(many: Path) -> None:
    network, products = Network(resolve("snl", overrides=METHOD)).eval(), paths_of(many)
    groups = group_products(network, products)
    assert groups is not None
    found = {path: i for i, paths in enumerate(groups.paths) for path in paths}
    assert found.keys() == products.keys()
    of_product = {products[path]: group for path, group in found.items()}
    assert all(of_product[products[path]] == group for path, group in found.items())
    assert len(groups.owners) == len(groups.gates) == MANY


def test_few_products_are_one_group(many: Path) -> None:
    network = Network(resolve("snl", overrides=METHOD)).eval()
    products = {path: name for path, name in paths_of(many).items() if name < "part_09"}
    assert len(set(products.values())) == PRODUCTS_PER_UNIT
    assert group_products(network, products) is None


# --- banks ---


def _banks(count: int) -> tuple[PatchMemory, list[Bank], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(200, 12, generator=generator) + i for i in range(count)]
    banks = [bank_of(one, 10 + i) for i, one in enumerate(rows)]
    memory = PatchMemory(12, 5, 64)
    memory.set_banks(banks, torch.eye(5)[: count + 1], [*range(count), 0])
    return memory, banks, rows


def test_an_image_is_compared_with_the_bank_of_its_gate_alone() -> None:
    memory, banks, rows = _banks(3)
    features = 9 * torch.cat([one[:4] for one in rows])[:, :, None, None]  # of one position
    gates = [0, 1, 2, 3]  # the last one leads to the first bank
    for gate in gates:
        embeddings = (torch.eye(5)[gate] + 0.1).expand(len(features), 5)
        got = memory(features, embeddings).flatten().numpy()
        bank = banks[gate % 3]
        known = (features[:, :, 0, 0] / 9 - bank.centre) @ bank.axes
        wanted = cdist(known.numpy(), bank.patches.numpy()).min(1) / bank.scale
        np.testing.assert_allclose(got, np.sqrt(wanted**2 + 0.01), rtol=1e-3)


def test_images_of_several_banks_in_one_batch() -> None:
    memory, _, rows = _banks(3)
    features = torch.cat([one[:12] for one in rows])[:, :, None, None].expand(-1, -1, 4, 4)
    embeddings = torch.eye(5)[torch.arange(36) % 4]
    together = memory(features, embeddings)
    for i in range(36):
        alone = memory(features[[i]], embeddings[[i]])[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5)


def test_a_group_without_readable_images_has_no_bank(many: Path) -> None:
    network, products = Network(resolve("snl", overrides=METHOD)).eval(), paths_of(many)
    groups = group_products(network, products)
    assert groups is not None and network.memory is not None
    lost = groups.paths[0]
    broken = type(groups)(
        (tuple(path.with_suffix(".gone") for path in lost), *groups.paths[1:]),
        groups.gates,
        groups.owners,
    )
    fit_statistics(network, list(products), groups=broken)
    assert len(network.memory.patches) == len(groups.paths) - 1
    assert len(network.memory.gates) == sum(owner != 0 for owner in groups.owners)
    assert int(network.memory.banks.max()) < len(network.memory.patches)


# --- the model ---


def test_sizes_follow_the_number_of_products(file: Path) -> None:
    network = snl.load(file, "cpu").network
    assert network.settings.products == MANY
    factor = MANY / PRODUCTS_PER_UNIT
    assert network.settings.cram.centres == 9  # as it was given
    assert len(network.student.cram.centres) == round(9 * factor)
    assert len(network.statistics.centres) == round(18 * factor)
    assert network.memory is not None and len(network.memory.patches) == 2


@pytest.mark.parametrize("products", [1, 9])
def test_nine_products_are_what_the_settings_are_meant_for(products: int) -> None:
    settings = resolve("snl", overrides=METHOD)
    network, before = Network(settings), Network(settings)
    network.size_for(products)
    state, wanted = network.state_dict(), before.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert network.settings.products == products


def test_room_for_more_products_can_be_asked_for() -> None:
    network = Network(resolve("snl", overrides={**METHOD, "products": 90}))
    network.size_for(3)
    assert network.settings.products == 90
    assert len(network.student.cram.centres) == 90


def test_a_room_is_kept_in_the_file(file: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    first = snl.load(file, "cpu")
    first.save(tmp_path / "copy.snl")
    again = snl.load(tmp_path / "copy.snl", "cpu")
    np.testing.assert_array_equal(first.predict(pixels).maps, again.predict(pixels).maps)


def test_products_are_recognised(file: Path, many: Path) -> None:
    evaluation = snl.evaluate(snl.load(file, "cpu"), many)
    assert evaluation.to_dict()["decisions"]["overall"]["recognised"] == 1


@pytest.mark.parametrize("value", [-1, 2, 2**40])
def test_a_gate_to_a_bank_that_is_not_there_is_refused(
    file: Path, tmp_path: Path, value: int
) -> None:
    inspector = snl.load(file, "cpu")
    inspector.network.memory.banks[0] = value
    inspector.save(tmp_path / "broken.snl")
    with pytest.raises(snl.SnlError, match="train it again"):
        snl.load(tmp_path / "broken.snl")


def test_a_finished_training_is_recognised(file: Path, many: Path) -> None:
    notes: list[str] = []
    snl.train(
        many, output=file, overrides=METHOD, device="cpu", quiet=True, resume=True,
        note=notes.append,
    )  # fmt: skip
    assert any("already trained" in note for note in notes)


def test_too_few_steps_for_many_products_are_said(many: Path) -> None:
    notes: dict[int, list[str]] = {}
    for products in (PRODUCTS_PER_UNIT, MANY):
        catalog = snl.Catalog.read(many)
        chosen = set(catalog.products[:products])
        records = tuple(r for r in catalog.records if r.product in chosen)
        part = dataclasses.replace(catalog, records=records)
        said = notes.setdefault(products, [])
        snl.train(part, overrides=METHOD, device="cpu", quiet=True, note=said.append)
    wanted = MANY * STEPS_PER_PRODUCT * 8 // 4  # batches of 4
    assert any(
        f"of {MANY} products" in text and f"--steps {wanted} " in text for text in notes[MANY]
    )
    assert not any("--steps" in text for text in notes[PRODUCTS_PER_UNIT])


@pytest.mark.parametrize(
    ("kind", "precision"), [("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32")]
)
def test_exports_decide_as_the_model_does(
    file: Path, many: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    pytest.importorskip("onnx", reason="the extra `export` is not installed")
    exported = tmp_path / f"many{FILES[kind]}"
    settings: dict[str, Any] = {"data": many} if precision == "int8" else {}
    inspector = snl.load(file, "cpu")
    snl.export(inspector, exported, format=kind, precision=precision, **settings)
    graph = snl.load(exported, "cpu")
    images = sorted(many.glob("*/test/*/*.png"))
    for mine, its in zip(inspector.stream(images), graph.stream(images), strict=True):
        if precision == "fp32":
            assert its.score == pytest.approx(mine.score, rel=1e-3)
        assert its.product == mine.product


def test_two_processes_have_the_same_room(many: Path, tmp_path: Path) -> None:
    output = tmp_path / "two.snl"
    command = [sys.executable, "-m", "snl", "train", str(many), "-o", str(output), *TINY_OPTIONS]
    run = subprocess.run(
        [*command, "--devices", "cpu,cpu", "--quiet"],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert snl.load(output, "cpu").network.settings.products == MANY
