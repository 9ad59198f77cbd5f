"""Load on the inspection service: throughput, latency, overload, memory; nothing lost or wrong.

    python -m benchmarks.service_load run parts.snl IMAGES -o load.json --clients 64 --seconds 60
    python -m benchmarks.service_load run parts.snl IMAGES -o load.json --part soak --seconds 600
    python -m benchmarks.service_load table load.json

The server is `snl serve` in a process of its own, the clients are threads of this process on the
same cores, and every client waits for its answer before it sends again. Beside it stands the
library: `Inspector.stream` over the same files, decoded from the same disk, with the same number
of threads of the network, in turns with the server.

- steady: `--clients` clients. Every answer must be the library's decision for that image, and
  every inspection that was answered must be in the store once, with its files.
- overload: requests arrive at ten times the rate that the server just answered, evenly, whether
  or not the earlier ones were answered. Answers are 200 or 429; the latency is that of the 429,
  from the moment at which the request was due.
- soak: as steady; the memory of the server is read every second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

import snl
from benchmarks.common import log, machine, read_results, run_main, versions, write_runs
from snl.data.source import opened

PARTS = ("steady", "overload", "soak")
WARM_UP = 5.0
"""Seconds before anything is measured."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run")
    run.add_argument("model", type=Path)
    run.add_argument("images", type=Path)
    run.add_argument("-o", "--output", type=Path, required=True)
    run.add_argument("--part", choices=PARTS, action="append")
    run.add_argument("--name", default="", help="of the row; default: the model's file")
    run.add_argument("--clients", type=int, default=64)
    run.add_argument("--seconds", type=float, default=60.0)
    run.add_argument("--turns", type=int, default=3, help="of server and library, in turns")
    run.add_argument("--threads", type=int, default=0)
    run.set_defaults(function=measure)
    table = verbs.add_parser("table")
    table.add_argument("results", type=Path)
    table.set_defaults(function=show)
    return parser


def main() -> None:
    """Run a part, or show what was measured."""
    options = parser().parse_args()
    options.function(options)


def measure(options: argparse.Namespace) -> None:
    """Measure the parts one after another."""
    files = sorted(path for path in options.images.rglob("*") if _is_image(path))
    if not files:
        raise snl.SnlError(f"{options.images}: has no images")
    results: dict[str, Any] = {}
    for part in options.part or ("steady", "overload"):
        log(f"{options.model.name}: {part}")
        results[part] = {"steady": steady, "overload": overload, "soak": soak}[part](options, files)
        log(str({k: v for k, v in results[part].items() if not isinstance(v, list)}))
    document = read_results(options.output) if options.output.is_file() else {}
    name = options.name or options.model.stem
    document[name] = {
        **document.get(name, {}),
        "clients": options.clients,
        "images": len(files),
        "threads": options.threads,
        **results,
        "machine": machine(),
        "versions": versions(("torch", "fastapi", "uvicorn", "sqlalchemy")),
    }
    write_runs(options.output, document)


def steady(options: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    """Throughput of server and library in turns, and what became of every request."""
    expected = _expected(options, files)
    server_rates, library_rates, latencies = [], [], []
    wrong = lost = 0
    statuses: Counter[int] = Counter()
    for turn in range(options.turns):
        seconds = options.seconds / options.turns
        with _server(options) as (url, data, _):
            _load(url, files, options.clients, WARM_UP)
            sent = _load(url, files, options.clients, seconds)
        statuses.update(status for status, *_ in sent)
        good = [(file, id, decision, took) for status, file, id, decision, took in sent if id]
        wrong += sum(decision != expected[file] for file, _, decision, _ in good)
        lost += _lost(data, [id for _, id, _, _ in good])
        server_rates.append(len(good) / seconds)
        latencies += [took for *_, took in good]
        library_rates.append(_library(options, files, seconds))
        log(f"turn {turn}: {server_rates[-1]:.1f} against {library_rates[-1]:.1f} images/s")
    ratios = [s / b for s, b in zip(server_rates, library_rates, strict=True)]
    return {
        "server_images_per_second": server_rates,
        "library_images_per_second": library_rates,
        "ratio": statistics.mean(ratios),
        "ratios": ratios,
        **_quantiles(latencies),
        "answers": {str(status): count for status, count in statuses.items()},
        "wrong": wrong,
        "lost": lost,
    }


def overload(options: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    """Ten times as many requests as the server can answer."""
    with _server(options) as (url, data, _):
        _load(url, files, options.clients, WARM_UP)
        answered = sum(1 for one in _load(url, files, options.clients, 2 * WARM_UP) if one[2])
        rate = 10 * answered / (2 * WARM_UP)
        sent = asyncio.run(_arrivals(url, files, rate, options.seconds))
    good = [(id, took) for _, id, took in sent if id]
    refused = [took for status, _, took in sent if status == 429]
    return {
        "requests_per_second": rate,
        "answers": {str(k): v for k, v in Counter(status for status, *_ in sent).items()},
        "accepted_images_per_second": len(good) / options.seconds,
        "accepted": _quantiles([took for _, took in good]),
        "refused": _quantiles(refused) if refused else None,
        "lost": _lost(data, [id for id, _ in good]),
    }


def soak(options: argparse.Namespace, files: Sequence[Path]) -> dict[str, Any]:
    """Memory of the server over a long time."""
    memory: list[float] = []
    with _server(options) as (url, _, process):
        _load(url, files, options.clients, WARM_UP)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(1.0):
                memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)

        thread = threading.Thread(target=watch)
        thread.start()
        sent = _load(url, files, options.clients, options.seconds)
        stop.set()
        thread.join()
    fifth = max(1, len(memory) // 5)
    return {
        "seconds": options.seconds,
        "inspections": sum(1 for one in sent if one[2]),
        "mib_of_fifths": [
            statistics.mean(memory[i : i + fifth]) for i in range(0, fifth * 5, fifth)
        ],
        "peak_mib": max(memory),
    }


Sent = tuple[int, Path, str, str, float]
"""Status, image, id of the inspection, decision, seconds."""


def _load(url: str, files: Sequence[Path], clients: int, seconds: float) -> list[Sent]:
    """Send images from many clients; return what was answered within the time."""
    contents = {path: path.read_bytes() for path in files}
    found: list[list[Sent]] = [[] for _ in range(clients)]
    end = float("inf")

    def begin() -> None:
        nonlocal end
        end = time.monotonic() + seconds

    ready = threading.Barrier(clients, action=begin)  # to make a client takes a while
    pool = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    def send(number: int) -> None:
        with httpx.Client(base_url=url, timeout=120, limits=pool, verify=False) as client:
            position = number * 7
            ready.wait()
            while time.monotonic() < end:
                path = files[position % len(files)]
                position += 1
                began = time.perf_counter()
                answer = client.post("/v1/inspections", content=contents[path])
                took = time.perf_counter() - began
                id = decision = ""
                if answer.status_code == 200:
                    one = answer.json()["results"][0]["inspection"]
                    id, decision = one["id"], one["decision"]
                elif answer.status_code == 429:
                    time.sleep(0.05)
                if time.monotonic() < end:
                    found[number].append((answer.status_code, path, id, decision, took))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for part in found for one in part]


async def _arrivals(
    url: str, files: Sequence[Path], rate: float, seconds: float
) -> list[tuple[int, str, float]]:
    """Send requests at a rate; return status (0: no answer), id and seconds of each.

    The connections are kept; where none is free, another one is made.
    """
    address = urlsplit(url)
    head = "POST /v1/inspections HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n"
    requests = [
        head.format(address.netloc, len(content)).encode() + content
        for content in (path.read_bytes() for path in files)
    ]
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(number: int, due: float) -> tuple[int, str, float]:
        while free:  # the server closes kept connections that were idle: then the next one
            with suppress(OSError, EOFError):
                return await exchange(free.pop(), number, due)
        try:
            stream = await asyncio.open_connection(address.hostname, address.port)
            return await exchange(stream, number, due)
        except (OSError, EOFError):
            return 0, "", time.monotonic() - due

    async def exchange(
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], number: int, due: float
    ) -> tuple[int, str, float]:
        reader, writer = stream
        writer.write(requests[number % len(requests)])
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
        took = time.monotonic() - due
        if fields.get("connection") == "close":
            writer.close()
        else:
            free.append(stream)
        status = int(lines[0].split()[1])
        good = json.loads(body)["results"][0]["inspection"] if status == 200 else None
        return status, good["id"] if good else "", took

    began = time.monotonic()
    tasks = []
    for number in range(round(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(send(number, due)))
    return await asyncio.gather(*tasks)


def _library(options: argparse.Namespace, files: Sequence[Path], seconds: float) -> float:
    """Images per second of the library over the same files."""
    code = (
        "import sys, time, itertools, snl\n"
        "i = snl.load(sys.argv[1], 'cpu', int(sys.argv[2]))\n"
        "files = sys.argv[4:]\n"
        "end = None; count = 0\n"
        "for r in i.stream(itertools.cycle(files)):\n"
        "    r.to_dict()\n"
        "    if end is None: end = time.monotonic() + float(sys.argv[3]); continue\n"
        "    count += 1\n"
        "    if time.monotonic() >= end: break\n"
        "print(count / float(sys.argv[3]))\n"
    )
    words = [str(options.model), str(options.threads), str(seconds), *map(str, files)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _expected(options: argparse.Namespace, files: Sequence[Path]) -> dict[Path, str]:
    """Decisions of the library."""
    inspector = snl.load(options.model, "cpu")
    return {path: inspector.inspect(path).decision for path in files}


@contextmanager
def _server(
    options: argparse.Namespace,
) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """Run `snl serve` with a new store; yield its address, its folder and its process."""
    with tempfile.TemporaryDirectory(prefix="snl-load-") as folder, socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        one.close()
        data = Path(folder) / "data"
        words = ["--port", str(port), "--data", str(data), "--device", "cpu", "--quiet"]
        words += ["--threads", str(options.threads)] if options.threads else []
        process = subprocess.Popen([sys.executable, "-m", "snl", "serve", options.model, *words])
        url = f"http://127.0.0.1:{port}"
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() > end or process.poll() is not None:
                    raise snl.SnlError("the server does not start")
                time.sleep(0.1)
            yield url, data, process
            process.terminate()
            process.wait(60)
            _check_files(data)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


_stored: dict[Path, set[str]] = {}


def _check_files(data: Path) -> None:
    """Remember which inspections are in the store with both files, read without snl."""
    with closing(sqlite3.connect(data / "snl.db")) as database:
        rows = database.execute("SELECT id, image, prediction FROM inspections").fetchall()
    files = {path.name for path in (data / "files").rglob("*") if path.is_file()}
    _stored[data] = {id for id, image, prediction in rows if {image, prediction} <= files}


def _lost(data: Path, ids: Sequence[str]) -> int:
    """Return how many inspections were answered and are not in the store."""
    return len(set(ids) - _stored[data]) + len(ids) - len(set(ids))


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        f"p{percent}_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
        for percent in (50, 95, 99)
    }


def _is_image(path: Path) -> bool:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp"):
        return False
    with opened(path):
        return True


def show(options: argparse.Namespace) -> None:
    """Print a table."""
    print("| model | service, images/s | library, images/s | ratio | p50 / p95 / p99, ms |")
    print("|---|---|---|---|---|")
    for name, row in read_results(options.results).items():
        if not isinstance(row, dict) or "steady" not in row:
            continue
        one = row["steady"]
        rates = (statistics.mean(one[f"{who}_images_per_second"]) for who in ("server", "library"))
        service, library = rates
        times = " / ".join(f"{one[f'p{p}_ms']:.0f}" for p in (50, 95, 99))
        print(f"| {name} | {service:.1f} | {library:.1f} | {one['ratio']:.2f} | {times} |")


if __name__ == "__main__":
    run_main(main)
