"""Do the work of a bulk inspection: one shard after another, or on a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.bulk.inspect import Done, Work, inspect_shard
from snl.bulk.results import Results
from snl.bulk.shards import Shard
from snl.dependencies import require
from snl.errors import DataError, SnlError
from snl.temporary import temporary_folder

if TYPE_CHECKING:
    from snl.runtime.inspector import Inspector


@dataclass(frozen=True)
class Loading:
    """How a worker loads the inspector; see `snl.load`."""

    device: str = "auto"
    threads: int = 0
    precision: str = "fp32"
    max_pixels: int = 0


def run_here(
    inspector: Inspector, shards: Sequence[Shard], results: Results, work: Work
) -> Iterator[Done]:
    """Inspect shards in this process, one after another."""
    for shard in shards:
        yield inspect_shard(inspector, shard, results, work)


def run_on_ray(
    file: Path,
    loading: Loading,
    shards: Sequence[Shard],
    results: Results,
    work: Work,
    address: str,
    workers: int = 0,
) -> Iterator[Done]:
    """Inspect shards on a Ray cluster, in a pool of actors that each load the inspector once.

    Ray Data gives shards to actors that are free, and again to others if a machine is lost.

    Args:
        file: bundle or export; its content is sent to the cluster.
        loading: of the inspector.
        shards: to inspect.
        results: that every machine can write to.
        work: see there.
        address: of the cluster, `auto` for the one of this machine, `local` to start one.
        workers: actors; 0: as many as the cluster has room for.

    Raises:
        DependencyError: Ray is missing.
        DataError: there is no cluster at the address, or its workers fail.
    """
    require(["ray", "ray.data"], "ray", "--ray")
    import ray

    with _connected(address):
        content = [ray.put(_content(file))]
        threads = max(1, loading.threads)
        on_gpu = loading.device.startswith("cuda")
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = int(resources.get("GPU" if on_gpu else "CPU", 1))
        most = workers or max(1, room if on_gpu else room // threads)
        most = max(1, min(most, len(shards)))
        rows = [{"shard": shard.to_json()} for shard in shards]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(content, file.name, loading, results, work),
            batch_size=1,
            concurrency=most,
            num_cpus=0 if on_gpu else threads,
            num_gpus=1 if on_gpu else 0,
        )
        try:
            for row in data.iter_rows():
                yield Done(**row)
        except ray.exceptions.RayError as error:
            raise DataError(
                f"the workers of the Ray cluster failed ({_last_line(error)}); what is done is "
                "kept: run the same command again"
            ) from None


class _Worker:
    """Inspects shards; Ray keeps it from one to the next."""

    def __init__(
        self, content: list[Any], name: str, loading: Loading, results: Results, work: Work
    ) -> None:
        import ray

        import snl

        files = ray.get(content[0])
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with temporary_folder("snl-worker") as folder:
            for part, data in files.items():
                Path(folder, part).write_bytes(data)
            self._inspector = snl.load(
                Path(folder, name),
                loading.device,
                max(1, loading.threads),
                loading.precision,
                max_pixels=loading.max_pixels,
            )
        self._results, self._work = results, work

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        done = []
        for text in batch["shard"]:
            shard = Shard.from_json(str(text))
            try:
                done.append(inspect_shard(self._inspector, shard, self._results, self._work))
            except SnlError as error:
                done.append(Done(shard.title, error=str(error)))
        return {key: [asdict(one)[key] for one in done] for key in asdict(Done(""))}


def _content(file: Path) -> dict[str, bytes]:
    """Return the files of a bundle or an export, by name."""
    files = [file]
    if file.suffix == ".xml":
        files.append(file.with_suffix(".bin"))
    return {one.name: one.read_bytes() for one in files}


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster, quietly."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    mine = not ray.is_initialized()
    if mine:
        try:
            _check_reachable(address)
            ray.init(
                address=None if address == "local" else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address == "local" else None,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise DataError(
                f"--ray {address}: no Ray cluster can be reached there ({_last_line(error)}); "
                "start one with ray start --head, or use --ray local"
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # snl reports failures itself
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Connect to the port of a cluster, because Ray itself tries for minutes.

    Raises:
        OSError: nobody listens there.
        ValueError: it is no address.
    """
    name = address.removeprefix("ray://")
    if name in ("auto", "local"):
        return
    host, colon, port = name.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("give auto, local or HOST:PORT")
    socket.create_connection((host, int(port)), timeout=10).close()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
