"""Faults of the inspection service: what was acknowledged, what is there, what it says.

    python -m benchmarks.service_faults parts.snl IMAGES -o docs/results/service-faults.json

Each fault meets a server in a process of its own under load from several clients. An inspection
counts as acknowledged when its answer came; it is lost if the store has no row of it, or if a file
of it is missing or has another content, both looked for without the service's code.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import snl
from benchmarks.common import log, machine, read_results, run_main, versions, write_runs
from snl.data.listing import is_image

CLIENTS = 8


@dataclass
class Load:
    """What clients got, until the server is gone or they are stopped."""

    url: str
    files: Sequence[bytes]
    ids: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self, clients: int = CLIENTS) -> None:
        self.threads = [threading.Thread(target=self._send, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _send(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stop.is_set():
                number += 1
                began = time.perf_counter()
                try:
                    # bytes after the image: every upload is a file of its own
                    content = self.files[number % len(self.files)] + random.randbytes(8)
                    answer = client.post("/v1/inspections", content=content)
                except httpx.TransportError:
                    self.statuses["no answer"] += 1
                    time.sleep(0.05)
                    continue
                code = answer.json().get("error", {}).get("code", "")
                self.statuses[f"{answer.status_code} {code}".strip()] += 1
                if answer.status_code == 200:
                    self.ids.append(answer.json()["results"][0]["inspection"]["id"])
                    self.seconds.append(time.perf_counter() - began)
                else:
                    time.sleep(0.05)


@contextmanager
def server(model: Path | None, data: Path, *options: object) -> Iterator[tuple[str, Any]]:
    """Run `snl serve`; yield its address and process."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    files = [] if model is None else [str(model)]
    words = [*files, "--port", port, "--data", data, "--device", "cpu", *options]
    log_file = data.parent / "log"
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "snl", "serve", *map(str, words)], stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            if time.monotonic() > end:
                raise snl.SnlError("the server does not start")
            time.sleep(0.05)
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(90)


def lost(data: Path, ids: Sequence[str]) -> int:
    """Return how many inspections have no row, or a file that is missing or wrong."""
    with closing(sqlite3.connect(data / "snl.db")) as database:
        rows = {
            id: names
            for id, *names in database.execute("SELECT id, image, prediction FROM inspections")
        }
    good: set[str] = set()
    count = 0
    for id in ids:
        names = rows.get(id, [""])
        for name in names:
            if name not in good:
                path = data / "files" / name[:2] / name[2:4] / name
                content = path.read_bytes() if name and path.is_file() else b""
                if hashlib.sha256(content).hexdigest() == name:
                    good.add(name)
        count += not all(name in good for name in names)
    return count


# --- faults ---


def kill(model: Path, files: Sequence[bytes], data: Path, moments: int = 20) -> dict[str, Any]:
    """Kill -9 at random moments under load."""
    ids: list[str] = []
    starts = []
    draw = random.Random(0)
    for _ in range(moments):
        began = time.perf_counter()
        with server(model, data) as (url, process):
            starts.append(time.perf_counter() - began)
            load = Load(url, files)
            load.begin()
            time.sleep(1.0 + 2.0 * draw.random())
            process.send_signal(signal.SIGKILL)
            process.wait()
            load.end()
            ids += load.ids
    return {
        "kills": moments,
        "acknowledged": len(ids),
        "lost": lost(data, ids),
        "start_seconds": [min(starts), max(starts)],
    }


def full_disk(model: Path, files: Sequence[bytes], data: Path) -> dict[str, Any]:
    """A disk that becomes full, and is made free again."""
    data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(data)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        return {"skipped": "a small file system cannot be mounted here"}
    try:
        with server(model, data) as (url, _):
            load = Load(url, files)
            load.begin(2)
            time.sleep(2)
            ballast = data / "ballast"
            with ballast.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(2**16))
                    file.flush()
            time.sleep(5)
            during = dict(load.statuses)
            ballast.unlink()
            before = len(load.ids)
            time.sleep(5)
            load.end()
            recovered = len(load.ids) > before
        return {
            "answers_until_full": during,
            "answers": dict(load.statuses),
            "acknowledged": len(load.ids),
            "lost": lost(data, load.ids),
            "recovers": recovered,
        }
    finally:
        subprocess.run(["umount", "-l", str(data)], check=False)


def locked_store(model: Path, files: Sequence[bytes], data: Path) -> dict[str, Any]:
    """Another process that holds the database's lock for five seconds."""
    with server(model, data) as (url, _):
        load = Load(url, files)
        load.begin()
        time.sleep(2)
        with closing(sqlite3.connect(data / "snl.db", isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(5)
            database.execute("COMMIT")
        time.sleep(3)
        load.end()
    return {
        "answers": dict(load.statuses),
        "longest_seconds": max(load.seconds),
        "acknowledged": len(load.ids),
        "lost": lost(data, load.ids),
    }


def receiver_away(
    model: Path, files: Sequence[bytes], data: Path, seconds: float = 60
) -> dict[str, Any]:
    """A webhook's receiver that is away for a minute, with a kill -9 in between."""
    got: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append(body["id"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def listen(port: int) -> http.server.ThreadingHTTPServer:
        one = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=one.serve_forever, daemon=True).start()
        return one

    receiver = listen(0)
    port = receiver.server_port
    data.mkdir(parents=True)
    config = data / "snl.toml"
    config.write_text(f'[sinks.mes]\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\n')
    ids: list[str] = []
    for part in range(2):
        with server(model, data, "--config", config) as (url, process):
            load = Load(url, files)
            load.begin(2)
            time.sleep(3)
            if part == 0:
                receiver.shutdown()
                receiver.server_close()
                time.sleep(seconds / 2)
                process.send_signal(signal.SIGKILL)
                process.wait()
                load.end()
            else:
                time.sleep(seconds / 2)
                load.end()
                receiver = listen(port)
                end = time.monotonic() + 180
                while set(load.ids) - set(got) and time.monotonic() < end:
                    time.sleep(0.2)
            ids += load.ids
    receiver.shutdown()
    first = list(dict.fromkeys(got))
    return {
        "away_seconds": seconds,
        "acknowledged": len(ids),
        "undelivered": len(set(ids) - set(got)),
        "delivered_twice": len(got) - len(first),
        "in_order": first == sorted(first),
        "lost": lost(data, ids),
    }


def bad_clients(model: Path, files: Sequence[bytes], data: Path) -> dict[str, Any]:
    """Uploads that are cut, and clients that send a byte now and then."""
    head = "POST /v1/inspections HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
    with server(model, data) as (url, process):
        port = httpx.URL(url).port or 0
        load = Load(url, files)
        load.begin(2)
        time.sleep(3)
        calm = sorted(load.seconds)
        load.seconds.clear()
        for number in range(200):
            with socket.create_connection(("127.0.0.1", port)) as one:
                content = files[number % len(files)]
                one.sendall(head.format(len(content)).encode() + content[: len(content) // 2])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for one in slow:
            one.sendall(head.format(10_000).encode())
        for _ in range(10):
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
            time.sleep(1)
        busy = sorted(load.seconds)
        load.end()
        for one in slow:
            one.close()
        time.sleep(1)
        left = len(list((data / "files" / "incoming").iterdir()))
        alive = process.poll() is None
    return {
        "cut_uploads": 200,
        "slow_clients": 100,
        "p95_ms_before": 1000 * calm[len(calm) * 95 // 100],
        "p95_ms_during": 1000 * busy[len(busy) * 95 // 100],
        "answers": dict(load.statuses),
        "half_files_left": left,
        "server_lives": alive,
        "lost": lost(data, load.ids),
    }


def garbage_model(model: Path, files: Sequence[bytes], data: Path) -> dict[str, Any]:
    """The model's file is replaced by garbage while the server runs, and then it starts again."""
    copy = data.parent / "copy.snl"
    copy.write_bytes(model.read_bytes())
    with server(copy, data) as (url, _):
        copy.write_bytes(random.randbytes(100_000))
        load = Load(url, files)
        load.begin(2)
        time.sleep(3)
        load.end()
    (data.parent / "log").unlink()
    with server(copy, data) as (_, process):
        process.wait()
        said = (data.parent / "log").read_text().strip()
    with server(None, data) as (url, _):
        again = Load(url, files)
        again.begin(2)
        time.sleep(3)
        again.end()
    return {
        "answers_while_it_runs": dict(load.statuses),
        "says_at_the_start": said.replace(str(copy.parent), "").splitlines(),
        "answers_without_the_file": dict(again.statuses),
        "lost": lost(data, load.ids + again.ids),
    }


FAULTS = {
    "kill -9 under load": kill,
    "full disk": full_disk,
    "locked store": locked_store,
    "receiver away": receiver_away,
    "cut uploads and slow clients": bad_clients,
    "garbage as the model": garbage_model,
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=FAULTS, action="append")
    return parser


def main() -> None:
    """Try every fault, and write what happened."""
    options = parser().parse_args()
    paths = sorted(path for path in options.images.rglob("*") if is_image(path.name))[:200]
    if not paths:
        raise snl.SnlError(f"{options.images}: has no images")
    files = [path.read_bytes() for path in paths]
    results = read_results(options.output) if options.output.is_file() else {}
    results |= {"clients": CLIENTS, "machine": machine()}
    results["versions"] = versions(("torch", "fastapi", "uvicorn", "sqlalchemy"))
    for name in options.only or FAULTS:
        with tempfile.TemporaryDirectory(prefix="snl-faults-") as folder:
            log(name)
            results[name] = FAULTS[name](options.model, files, Path(folder) / "data")
            log(str(results[name]))
            write_runs(options.output, results)


if __name__ == "__main__":
    run_main(main)
