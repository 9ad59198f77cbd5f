"""Bulk inspection on a real Ray cluster of two nodes, from and to a real S3 server.

SNL_BULK_SHARDS=1400 makes 100,800 rows of the test with lost workers, which takes some minutes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import snl
from tests.bulk.test_bulk import images_of, make_parquet, make_tar, rows_of
from tests.conftest import TINY_OPTIONS

pytest.importorskip("ray", reason="Ray is not installed: pip install 'snl-ad[ray]'")
pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'snl-ad[remote]'")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment of processes that use an S3 server, which runs meanwhile."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_AUTH_MODE": "disabled",  # of a cluster that only this machine reaches
    }
    before = dict(os.environ)
    os.environ.update(environment)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("plant")
    yield environment
    server.stop()
    os.environ.clear()
    os.environ.update(before)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def cluster(s3: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of two nodes of one CPU each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **s3}
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1",
             "--object-store-memory=100000000", "--disable-usage-stats"]  # fmt: skip
    address = f"127.0.0.1:{port}"
    head = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    for words in (head, [f"--address={address}"]):
        run = subprocess.run(
            [*start, *words], capture_output=True, text=True, timeout=120, check=False,
            env=environment,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
    yield address
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "stop", "--force"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def command(bundle: Path, *words: object) -> list[str]:
    return [sys.executable, "-m", "snl", "inspect", str(bundle), *map(str, words), "--quiet",
            "--device", "cpu"]  # fmt: skip


def run_snl(bundle: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(bundle, *words), capture_output=True, text=True, timeout=1200, check=False
    )


def test_addresses_without_ray(trained: Path, plant: Path, tmp_path: Path, s3: object) -> None:
    images = images_of(plant)
    store = s3fs.S3FileSystem()
    for number, image in enumerate(images[:20]):
        store.put_file(str(image), f"plant/images/{number:02d}.png")
    store.put_file(str(make_tar(tmp_path / "a.tar", images[:5])), "plant/images/a.tar")
    table = make_parquet(tmp_path / "b.parquet", images[:3])
    store.put_file(str(table), "plant/images/b.parquet")
    out = tmp_path / "out"
    words = ("s3://plant/images", "-o")
    run = run_snl(trained, *words, out)
    assert run.returncode == 0, run.stderr
    rows = rows_of(out)
    assert len(rows) == len({row["id"] for row in rows}) == 28
    assert all(row["id"].startswith("s3://plant/images/") for row in rows)
    # results at an address, too
    run = run_snl(trained, *words, "s3://plant/results")
    assert run.returncode == 0, run.stderr
    store.invalidate_cache()
    store.get("plant/results", str(tmp_path / "copy"), recursive=True)
    assert sorted(r["id"] for r in rows_of(tmp_path / "copy")) == sorted(r["id"] for r in rows)
    again = run_snl(trained, *words, "s3://plant/results")
    assert again.returncode == 0 and "everything is inspected" in again.stderr


def test_wrong_addresses(trained: Path, tmp_path: Path, s3: dict[str, str]) -> None:
    out = tmp_path / "out"
    for source in ("s3://no-such-bucket/a", "s3://plant/nothing", "s3://plant/no.tar"):
        run = run_snl(trained, source, "-o", out)
        assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
        assert "does not exist" in run.stderr and not out.exists()
    nobody = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    run = subprocess.run(
        command(trained, "s3://plant/images", "-o", out), capture_output=True, text=True,
        timeout=120, check=False, env=nobody,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr


def test_wrong_credentials(trained: Path, tmp_path: Path, s3: dict[str, str]) -> None:
    """The server asks for the keys of a user that it knows; there is none."""

    def ask_for_keys(after: str) -> None:
        url = f"{s3['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, after.encode(), text, method="POST"))

    out = tmp_path / "out"
    train = [sys.executable, "-m", "snl", "train", "s3://plant/images", "-o", str(out), "--quiet"]
    ask_for_keys("0")
    try:
        for words in (command(trained, "s3://plant/images", "-o", out), train):
            run = subprocess.run(
                words, capture_output=True, text=True, timeout=120, check=False,
                env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            )  # fmt: skip
            assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
            assert "credentials" in run.stderr and not out.exists()
    finally:
        ask_for_keys("inf")


def test_training_from_a_bucket(plant: Path, tmp_path: Path, s3: dict[str, str]) -> None:
    store = s3fs.S3FileSystem()
    store.put(str(plant), "plant/parts", recursive=True)
    words = ["train", "s3://plant/parts", "-o", str(tmp_path / "a.snl"), *TINY_OPTIONS]
    for expected, more in (("the copy is", ()), ("already trained", ("--resume",))):
        run = subprocess.run(
            [sys.executable, "-m", "snl", *words, *more, "--device", "cpu"],
            capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )  # fmt: skip
        assert run.returncode == 0 and expected in run.stderr, run.stderr
    trained = snl.load(tmp_path / "a.snl", "cpu")
    assert set(trained.products) == {path.name for path in plant.iterdir() if path.is_dir()}


def test_a_cluster_of_two_nodes_loses_workers_and_its_driver(
    trained: Path, plant: Path, tmp_path: Path, cluster: str
) -> None:
    images = images_of(plant)
    store = s3fs.S3FileSystem()
    shards = int(os.environ.get("SNL_BULK_SHARDS", "24"))
    tar = make_tar(tmp_path / "a.tar", images)
    for number in range(shards):
        store.put_file(str(tar), f"plant/tars/{number:03d}.tar")
    words = ("s3://plant/tars", "-o", "s3://plant/bulk", "--ray", cluster)
    process = subprocess.Popen(
        command(trained, *words), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for done in (2, 6):  # of two workers
        _wait(store, done, process)
        _kill_a_worker()
    _wait(store, 12, process)
    os.killpg(process.pid, signal.SIGKILL)  # the driver
    process.communicate()
    before = _done(store)
    assert 12 <= before < shards
    run = run_snl(trained, *words)
    assert run.returncode == 0, run.stderr
    assert "shards are in s3://plant/bulk already" in run.stderr and "Traceback" not in run.stderr
    store.invalidate_cache()
    store.get("plant/bulk", str(tmp_path / "copy"), recursive=True)
    names = [row["id"] for row in rows_of(tmp_path / "copy")]
    assert len(names) == len(set(names)) == shards * len(images)
    scores = {row["id"]: row["score"] for row in rows_of(tmp_path / "copy")}
    expected = snl.load(trained, "cpu").inspect(images)
    for number, result in enumerate(expected):
        found = scores[f"s3://plant/tars/007.tar/{number:03d}.png"]
        assert found == pytest.approx(result.score, rel=1e-4)


def test_no_cluster(trained: Path, plant: Path, tmp_path: Path) -> None:
    run = run_snl(trained, plant, "-o", tmp_path / "out", "--ray", "127.0.0.1:9")
    assert run.returncode == 2 and "no Ray cluster" in run.stderr, run.stderr
    assert "Traceback" not in run.stderr and run.stderr.count("\n") == 1, run.stderr


def _done(store: object) -> int:
    store.invalidate_cache()  # type: ignore[attr-defined]
    try:
        return sum(str(p).endswith(".parquet") for p in store.ls("plant/bulk", detail=False))  # type: ignore[attr-defined]
    except FileNotFoundError:
        return 0


def _wait(store: object, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if _done(store) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"only {_done(store)} shards after two minutes")


def _kill_a_worker() -> None:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    workers = [
        int(line.split()[0]) for line in listed.stdout.splitlines()
        if "ray::" in line and "_Worker" in line
    ]  # fmt: skip
    assert workers, listed.stdout
    os.kill(workers[0], signal.SIGKILL)
