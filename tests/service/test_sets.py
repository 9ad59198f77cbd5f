"""Checks of sets, and thumbnails."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from snl.data.catalog import Catalog
from snl.data.doctor import diagnose
from snl.data.roi import Roi
from snl.decision.edit import edit
from snl.service import set_check
from snl.service.blobs import Blobs
from snl.service.service import Service
from snl.service.set_check import odd_images
from snl.service.tables import SetImageRow
from snl.service.thumbnails import Thumbnails
from snl.service.upload import Upload
from tests.service.conftest import post
from tests.service.in_process import client_of, service_of
from tests.trees import HEIGHT, WIDTH, save_striped, save_varied

KEEP = "private, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def service(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("data"), calibrated) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with client_of(service) as client:
        yield client


def content(image: Image.Image, kind: str = "PNG", **words: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **words)
    return buffer.getvalue()


def bolts(folder: Path, count: int, first: int = 0) -> list[tuple[str, bytes]]:
    paths = [save_varied(folder / f"{n}.png", 6000 + first + n) for n in range(count)]
    return [(path.name, path.read_bytes()) for path in paths]


# --- checks ---


def test_images_of_another_product_are_odd(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    images = bolts(tmp_path, 24)
    strangers = [save_striped(tmp_path / f"s{n}.png", n) for n in range(2)]
    images += [(path.name, path.read_bytes()) for path in strangers]
    service.sets.add("mixed", images, "me")
    found = client.get("/v1/sets/mixed/check").json()
    assert (found["images"], found["checked"], found["compared"]) == (26, 26, 26)
    assert found["model"] == service.models.active().id
    assert {"s0.png", "s1.png"} == {one["name"] for one in found["odd"]}
    rows = {row.id: row.name for row in service.sets.images("mixed")}
    assert all(rows[one["id"]] == one["name"] and one["z"] > 3.5 for one in found["odd"])
    assert [one["z"] for one in found["odd"]] == sorted(o["z"] for o in found["odd"])[::-1]
    assert all("as far" in one["why"] for one in found["odd"])
    assert client.get("/v1/sets/mixed/check").json() == found  # kept
    assert client.get("/v1/sets/none/check").status_code == 404


def test_images_that_are_alike_are_not_odd(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    service.sets.add("same", bolts(tmp_path, 30, 500), "me")
    found = client.get("/v1/sets/same/check").json()
    assert found["odd"] == [] and found["findings"] == []


def test_the_check_says_what_the_doctor_says(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    dark = np.random.default_rng(0).integers(0, 6, (40, 48, 3)).astype(np.uint8)
    files = {
        "a.png": content(Image.new("RGB", (48, 40), (90, 90, 90))),
        "b.png": content(Image.fromarray(dark)),
        "c.png": content(Image.effect_noise((60, 60), 90)),
        "d.png": content(Image.effect_noise((48, 40), 90).convert("RGB")),
    }
    folder = tmp_path / "part"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    expected = {
        (one.severity, one.what)
        for one in diagnose(Catalog.read(tmp_path)).problems
        if one.kind != "too few images for a threshold"
    }
    rows = service.sets.add("bad", list(files.items()), "me")
    found = client.get("/v1/sets/bad/check").json()
    said = {(one["level"], one["message"].split(": ", 1)[1]) for one in found["findings"]}
    assert expected <= said and len(expected) >= 4
    named = {one["message"].split(": ")[0]: one["image"] for one in found["findings"]}
    assert named["a.png"] == rows[0].id and named["the set"] is None
    levels = [one["level"] for one in found["findings"]]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert levels[-1] == "note" and "too few to say" in found["findings"][-1]["message"]
    assert str(service.data) not in str(found) and "train" not in named


def test_a_model_of_tiles_and_regions_of_interest_compares_whole_images(
    calibrated: Path, tmp_path: Path
) -> None:
    roi = Roi(8, 4, 32, 20, (WIDTH, HEIGHT))
    with service_of(tmp_path / "data", calibrated) as service, client_of(service) as client:
        service.models.recalibrate(
            "", lambda one: edit(one, "t", tile=32, rois={"bolt": roi}), "me", ""
        )
        images = bolts(tmp_path, 20)
        stranger = save_striped(tmp_path / "s.png", 3)
        service.sets.add("mixed", [*images, ("s.png", stranger.read_bytes())], "me")
        found = client.get("/v1/sets/mixed/check").json()
    assert found["compared"] == 21 and found["odd"][0]["name"] == "s.png"


def test_a_large_set_is_sampled_and_says_so(
    service: Service, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_check, "MOST_IMAGES", 12)
    service.sets.add("large", bolts(tmp_path, 40, 900), "me")
    found = client.get("/v1/sets/large/check").json()
    assert (found["images"], found["checked"], found["compared"]) == (40, 12, 12)
    assert {"level": "note", "message": "12 of 40 images were checked, evenly spread over the set",
            "image": None} in found["findings"]  # fmt: skip


def test_a_check_ends_in_time_and_while_requests_come(
    service: Service, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save_varied(tmp_path / "one.png", 77)
    service.sets.add("slow", bolts(tmp_path, 40, 1900), "me")
    monkeypatch.setattr(set_check, "DECODING_SECONDS", 0.0)
    monkeypatch.setattr(set_check, "NETWORK_SECONDS", 0.0)
    found = client.get("/v1/sets/slow/check").json()
    assert 1 <= found["checked"] < 40 and found["compared"] == 0 and found["odd"] == []
    assert any("no time for more" in one["message"] for one in found["findings"])
    monkeypatch.undo()
    inside, stop = threading.Event(), threading.Event()
    real = set_check._diagnose

    def slow(*words: Any) -> Any:
        inside.set()
        stop.wait(20)
        return real(*words)

    monkeypatch.setattr(set_check, "_diagnose", slow)
    service.sets.add("slow", bolts(tmp_path, 1, 2900), "me")
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(client.get("/v1/sets/slow/check").status_code)
    )
    thread.start()
    assert inside.wait(20)
    with client_of(service) as other:
        busy = other.get("/v1/sets/slow/check")
        assert busy.status_code == 429 and busy.headers["Retry-After"]
        began = time.monotonic()
        assert post(other, image).status_code == 200 and time.monotonic() - began < 10
    stop.set()
    thread.join(60)
    assert answers == [200]


def test_odd_images_against_a_closed_form() -> None:
    def row(n: int) -> SetImageRow:
        return SetImageRow(id=str(n), name=f"{n}.png")

    angles = np.arange(40) * 2 * np.pi / 40
    circle = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    pairs = [(row(n), values) for n, values in enumerate(circle)]
    assert odd_images(pairs) == []  # all are as far from their neighbours
    far = [(row(100), np.array([9, 0], np.float32)), (row(101), np.array([0, 5], np.float32))]
    found = odd_images([*pairs, *far])
    assert [one.id for one in found] == ["100", "101"]
    usual = np.mean([2 * np.sin(np.pi / 40)] * 2 + [2 * np.sin(2 * np.pi / 40)])
    steps = [np.hypot(9 - np.cos(a), np.sin(a)) for a in (0, np.pi / 20, np.pi / 20)]
    assert found[0].z == pytest.approx(np.log(np.mean(steps) / usual) / 0.1, abs=0.02)
    assert odd_images([*pairs[:7], *far]) == []  # too few say nothing
    same = [(row(n), np.ones(3, np.float32)) for n in range(20)]
    assert odd_images(same) == []
    spread = [(row(n), np.eye(30, dtype=np.float32)[n] * 5**n) for n in range(14)]
    assert len(odd_images([*pairs, *[(r, v[:2] + 50) for r, v in spread]])) <= 12


# --- thumbnails ---


def test_thumbnails_of_sets_and_inspections(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    picture = Image.linear_gradient("L").resize((600, 200)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (row,) = service.sets.add("turned", [("a.jpg", content(picture, "JPEG", exif=exif))], "me")
    url = f"/v1/sets/turned/images/{row.id}/thumbnail.jpg"
    answer = client.get(url)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == KEEP
    assert answer.headers["x-content-type-options"] == "nosniff"
    small = Image.open(io.BytesIO(answer.content))
    assert small.format == "JPEG" and small.size == (85, 256)
    assert not small.getexif()
    larger = Image.open(io.BytesIO(client.get(url, params={"size": 1024}).content))
    assert larger.size == (200, 600)  # not enlarged
    for wrong in (63, 2049, "x"):
        assert client.get(url, params={"size": wrong}).status_code == 422
    assert client.get("/v1/sets/turned/images/0/thumbnail.jpg").status_code == 404
    assert client.get(f"/v1/sets/other/images/{row.id}/thumbnail.jpg").status_code == 404

    image = save_varied(tmp_path / "a.png", 31)
    inspected = service.inspect(Upload(image.read_bytes(), image.name))
    url = f"/v1/inspections/{inspected.id}/thumbnail.jpg"
    shown = Image.open(io.BytesIO(client.get(url).content))
    original = np.asarray(Image.open(image), np.int64)
    assert shown.size == (48, 40)
    assert abs(np.asarray(shown, np.int64) - original).mean() < 6  # JPEG of a noisy image
    missing = client.get(f"/v1/inspections/{'0' * 32}/thumbnail.jpg")
    assert missing.status_code == 404 and missing.headers["cache-control"] == "no-store"


def test_a_deep_image_is_shown_as_the_overlay_shows_it(
    service: Service, client: httpx.Client
) -> None:
    ramp = np.linspace(0, 65535, 100 * 80).reshape(80, 100).astype(np.uint16)
    (row,) = service.sets.add("deep", [("a.png", content(Image.fromarray(ramp)))], "me")
    answer = client.get(f"/v1/sets/deep/images/{row.id}/thumbnail.jpg", params={"size": 100})
    shown = np.asarray(Image.open(io.BytesIO(answer.content)), np.int64)
    assert shown.shape == (80, 100, 3)
    assert abs(shown[:, :, 0] - ramp / 257).mean() < 2


def test_a_thumbnail_ends_with_its_image(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save_varied(tmp_path / "a.png", 31)
    with service_of(tmp_path / "data", calibrated) as service, client_of(service) as client:
        row = service.inspect(Upload(image.read_bytes(), image.name))
        url = f"/v1/inspections/{row.id}/thumbnail.jpg"
        assert client.get(url).status_code == 200
        with service.store.writing() as session:
            session.merge(row).bytes = 0  # as the retention does
        gone = client.get(url)
        assert gone.status_code == 404 and gone.json()["error"]["code"] == "gone"


def test_thumbnails_are_made_once_and_take_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnails = Thumbnails(Blobs(tmp_path), 20_000)
    names = []
    with thumbnails.blobs.keeping() as put:
        for n in range(30):
            noise = np.random.default_rng(n).integers(0, 256, (64, 64, 3)).astype(np.uint8)
            names.append(put(content(Image.fromarray(noise))))

    def jpeg(name: str) -> bytes:
        return thumbnails.jpeg(name, 64, max_pixels=10**6, white_level=0)

    first = [jpeg(name) for name in names]
    assert 0 < thumbnails.bytes <= 20_000
    assert thumbnails.bytes == sum(map(len, thumbnails._kept.values()))
    made = []
    real = thumbnails._made
    monkeypatch.setattr(thumbnails, "_made", lambda *words: made.append(words) or real(*words))
    assert jpeg(names[-1]) == first[-1] and not made
    assert jpeg(names[0]) == first[0] and len(made) == 1
