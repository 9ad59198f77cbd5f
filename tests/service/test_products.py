"""Values, ignore masks and held-out images of products over HTTP."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.data.roi import Roi
from snl.decision.edit import edit
from snl.service.service import Service
from snl.service.upload import Upload
from tests.service.in_process import client_of, service_of
from tests.trees import HEIGHT, WIDTH, save_striped, save_varied


@pytest.fixture
def service(calibrated: Path, tmp_path: Path) -> Iterator[Service]:
    with service_of(tmp_path / "data", calibrated) as service:
        yield service


def png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    found: np.ndarray = np.asarray(image)
    assert set(np.unique(found)) <= {0, 255}
    return found > 0


def message(answer: httpx.Response) -> str:
    text: str = answer.json()["error"]["message"]
    assert "\n" not in text and "incoming" not in text
    return text


def product(client: httpx.Client, name: str) -> dict[str, Any]:
    (found,) = (one for one in client.get("/v1/products").json() if one["name"] == name)
    values: dict[str, Any] = found
    return values


# --- values ---


def test_values_change_and_a_rollback_undoes_it(service: Service, calibrated: Path) -> None:
    with client_of(service) as client:
        before = product(client, "bolt")
        assert (before["mm_per_pixel"], before["min_region_area"]) == (None, None)
        assert (before["rule"], before["has_ignore_mask"]) == ("shared-tail", False)
        new = {"mm_per_pixel": 0.05, "min_region_area": 12, "rule": "conformal", "why": "scale"}
        after = client.put("/v1/products/bolt/calibration", json=new).json()
        assert after == product(client, "bolt")
        assert (after["mm_per_pixel"], after["min_region_area"]) == (0.05, 12)
        assert after["rule"] == "conformal" and after["rates"] == before["rates"]
        other = product(client, "plate")
        assert (other["mm_per_pixel"], other["rule"]) == (None, "shared-tail")
        version = client.get("/v1/models").json()[0]["versions"][0]
        assert (version["version"], version["why"], version["state"]) == (2, "scale", "active")
        removed = {"mm_per_pixel": 0, "min_region_area": 0}
        now = client.put("/v1/products/bolt/calibration", json=removed).json()
        assert (now["mm_per_pixel"], now["min_region_area"]) == (None, None)
        client.post("/v1/rollback", json={})
        assert product(client, "bolt") == after
        for wrong in (
            {}, {"why": "nothing"}, {"mm_per_pixel": -1}, {"min_region_area": 1.5},
            {"mm_per_pixel": "nan"}, {"mm_per_pixel": 1e-9}, {"min_region_area": 10**10},
        ):  # fmt: skip
            assert client.put("/v1/products/bolt/calibration", json=wrong).status_code == 422
        assert client.put("/v1/products/nut/calibration", json=new).status_code == 422


def test_the_smallest_region_counts_as_the_library_does(
    service: Service, calibrated: Path, tmp_path: Path
) -> None:
    path = save_varied(tmp_path / "bad.png", 2003, defect=True)
    reference = snl.load(calibrated, "cpu")
    plain = reference.inspect(path, product="bolt")
    reference.recalibrate(
        edit(reference.calibration, "t", min_region_area={"bolt": 10**6}, mm_per_pixel={"bolt": 2})
    )
    expected = reference.inspect(path, product="bolt")
    with client_of(service) as client:
        new = {"mm_per_pixel": 2, "min_region_area": 10**6}
        assert client.put("/v1/products/bolt/calibration", json=new).status_code == 200
        row = service.inspect(Upload(path.read_bytes(), product="bolt"))
    assert len(row.result["regions"]) == len(expected.regions) == 0
    assert plain.score == pytest.approx(row.score, rel=1e-5)


# --- ignore masks ---


def test_an_ignore_mask_is_what_the_command_line_makes(
    service: Service, calibrated: Path, tmp_path: Path
) -> None:
    mask = np.zeros((HEIGHT * 3, WIDTH * 2), bool)  # any size
    mask[20:70, 10:50] = True
    file, changed = tmp_path / "mask.png", tmp_path / "changed.snl"
    file.write_bytes(png(mask))
    words = ["calibrate", str(calibrated), "--ignore", f"bolt={file}", "-o", str(changed)]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    expected = snl.load(changed, "cpu")
    bad = save_varied(tmp_path / "bad.png", 2001, defect=True)
    with client_of(service) as client:
        url = "/v1/products/bolt/ignore-mask"
        assert client.get(url).status_code == 404
        assert client.delete(url).status_code == 404
        done = client.put(url, content=file.read_bytes(), params={"why": "a label"})
        assert done.status_code == 200 and done.json()["has_ignore_mask"] is True
        (stored,) = (service.models.active().calibration.ignore_masks,)
        assert stored.keys() == {"bolt"}
        assert np.array_equal(stored["bolt"], expected.calibration.ignore_masks["bolt"])
        row = service.inspect(Upload(bad.read_bytes(), product="bolt"))
        assert row.score == pytest.approx(expected.inspect(bad, product="bolt").score, rel=1e-5)
        assert np.array_equal(pixels(client.get(url)), stored["bolt"])
        version = client.get("/v1/models").json()[0]["versions"][0]
        assert (version["why"], version["state"]) == ("a label", "active")

        removed = client.delete(url, params={"why": "no label any more"})
        assert removed.json()["has_ignore_mask"] is False
        client.post("/v1/rollback", json={})  # undoes the deletion
        assert product(client, "bolt")["has_ignore_mask"] is True
        actions = [one["action"] for one in client.get("/v1/audit").json()]
        assert actions[:5] == ["model promote"] * 2 + ["model add"] + ["model promote", "model add"]


def test_a_mask_that_cannot_be_used_changes_nothing(service: Service, tmp_path: Path) -> None:
    white, black = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    with client_of(service) as client:
        url = "/v1/products/bolt/ignore-mask"
        for content, text in (
            (b"", "empty"), (b"garbage", "the mask is not an image"),
            (png(white), "everything would be ignored"), (png(black), "nothing would be ignored"),
            (save_varied(tmp_path / "picture.png", 5001).read_bytes(), "is a picture, not a mask"),
        ):  # fmt: skip
            refused = client.put(url, content=content)
            assert refused.status_code == 422 and text in message(refused)
        other = client.put("/v1/products/nut/ignore-mask", content=png(white))
        assert other.status_code == 422 and "known: bolt, plate" in message(other)
        assert client.get("/v1/products/nut/ignore-mask").status_code == 404
        assert len(service.models.rows()) == 1
        assert not list((service.data / "files" / "incoming").iterdir())


def test_a_mask_with_a_region_of_interest_is_of_the_whole_image(service: Service) -> None:
    roi = Roi(8, 4, 32, 20, (WIDTH, HEIGHT))
    service.models.recalibrate("", lambda one: edit(one, "roi", rois={"bolt": roi}), "me", "")
    mask = np.zeros((HEIGHT * 2, WIDTH * 2), bool)
    mask[:24, :40] = True  # of the region, its upper left part: to x 20 and y 12
    with client_of(service) as client:
        url = "/v1/products/bolt/ignore-mask"
        assert client.put(url, content=png(mask)).json()["has_ignore_mask"]
        found = pixels(client.get(url))
        assert found.shape == (HEIGHT, WIDTH)
        rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 11, 8, 19)
        before = service.models.active().calibration.ignore_masks["bolt"]
        client.put(url, content=client.get(url).content)  # what is shown can be sent again
        assert np.array_equal(service.models.active().calibration.ignore_masks["bolt"], before)
        refused = client.put(url, content=png(np.eye(64, dtype=bool)))
        assert refused.status_code == 422 and "another shape" in message(refused)
        assert product(client, "bolt")["roi_image"] == [WIDTH, HEIGHT]


# --- held-out images ---


def test_held_out_images_of_any_version(service: Service, calibrated: Path, tmp_path: Path) -> None:
    paths = [save_striped(tmp_path / f"{n}.png", n) for n in range(12)]
    service.sets.add("gears", [(path.name, path.read_bytes()) for path in paths], "me")
    with client_of(service) as client:
        new = {
            "kind": "add", "product": "= gear", "set": "gears", "quick": True,
            "roi": [4, 2, 32, 30],
        }  # fmt: skip
        job = client.post("/v1/jobs", json=new).json()
        assert job["settings"]["roi"] == [4, 2, 32, 30]
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job["error"]
        candidate = snl.load(service.models.path(service.models.row(job["result"])), "cpu")
        assert candidate.calibration.rois["= gear"] == Roi(4, 2, 32, 30, (WIDTH, HEIGHT))

        found = client.get(f"/v1/models/{job['result']}/products").json()
        assert [one["name"] for one in found] == list(candidate.products)
        for one in found:
            scores = sorted(candidate.calibration.raised_scores(one["name"]).tolist())
            assert one["scores"] == pytest.approx(scores) and scores
            assert [image["score"] for image in one["held_out"]] == one["scores"]
            assert one["held_out_images"] == len(scores) and one["threshold"] is not None
        gear = next(one for one in found if one["name"] == "= gear")
        rows = {row.id: row.name for row in service.sets.images("gears")}
        assert all(one["set"] == "gears" for one in gear["held_out"])
        assert all(rows[one["image"]] == one["name"] for one in gear["held_out"])
        assert gear["roi"] == [4, 2, 32, 30]
        bolt = next(one for one in found if one["name"] == "bolt")
        assert all(one["name"].endswith(".png") for one in bolt["held_out"])
        assert all(one["set"] is None for one in bolt["held_out"])
        active = client.get(f"/v1/models/{service.models.active().id}/products").json()
        assert [one["name"] for one in active] == ["bolt", "plate"]
        assert client.get("/v1/models/0/products").status_code == 404

        client.post(f"/v1/models/{job['result']}/promote", json={})
        roi = {"roi": [10, 4, 20, 20], "replace": True, "force": True}
        job = client.post("/v1/jobs", json={**new, **roi}).json()
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job["error"]
        rois = service.models.read(job["result"]).calibration.rois
        assert rois == {"= gear": Roi(10, 4, 20, 20, (WIDTH, HEIGHT))}


def test_a_wrong_region_of_interest_is_refused(service: Service, tmp_path: Path) -> None:
    image = save_varied(tmp_path / "a.png", 1)
    service.sets.add("a", [("a.png", image.read_bytes())], "me")
    with client_of(service) as client:
        job = {"kind": "add", "product": "gear", "set": "a"}
        for roi in ([0, 0, 5, 5], [-1, 0, 30, 30], [0, 0, 30], "0,0,30,30", [0, 0, 30, 1e10]):
            assert client.post("/v1/jobs", json={**job, "roi": roi}).status_code == 422, roi
        wrong = {"kind": "recalibrate", "product": "bolt", "set": "a", "roi": [0, 0, 30, 30]}
        refused = client.post("/v1/jobs", json=wrong)
        assert refused.status_code == 422 and "only for add" in message(refused)
        assert client.get("/v1/jobs").json() == []
