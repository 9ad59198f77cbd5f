"""The training loop: a fixed number of steps over batches of mixed products, resumable exactly."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snl import progress
from snl.errors import DependencyError, TrainingError
from snl.files import write_text
from snl.model.base import Batch
from snl.model.device import autocast, choose_precision
from snl.model.losses import distillation
from snl.model.network import Network
from snl.model.ranks import ALONE, Ranks
from snl.model.whole_batch import join, leave
from snl.settings import TrainingSettings
from snl.signals import Stopped, deferred
from snl.training import checkpoint
from snl.training.cache import TrainingData

LOG = "log.jsonl"
LOG_EVERY = 10
DIVERGED = 10.0
"""A training whose last loss is more than this many times its first one has failed."""
INITIALISATION_ROWS = 20_000
"""Feature vectors that data-initialised modules are initialised from."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not change its result."""

    folder: Path
    """For checkpoint, log and cache files."""
    resume: bool = False
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    tensorboard: bool = False
    quiet: bool = False


class Interrupted(Stopped):
    """Training was stopped by Ctrl-C, SIGTERM or SIGHUP, after the checkpoint was written."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number, f"stopped after step {step}")
        self.step = step


def fit(
    network: Network,
    data: TrainingData,
    sources: dict[str, str],
    options: RunOptions,
    ranks: Ranks = ALONE,
    *,
    is_new: bool = True,
) -> dict[str, Any]:
    """Train the network's student for `settings.training.steps` steps.

    Args:
        network: on its device; its student is trained in place and then in evaluation mode.
        data: batches of the normal training images.
        sources: fingerprints of data and teacher, which must be the same in a resumed run.
        options: see `RunOptions`.
        ranks: processes that compute a part of every batch each.
        is_new: whether modules are initialised from data. A student that is trained already
            continues from its weights, and its batch normalisation keeps the statistics that it
            has.

    Returns:
        Training facts: steps, seconds, images per second, last loss and its terms.

    Raises:
        TrainingError: a loss or gradient that is not finite (the message names step and term), a
            loss that has grown tenfold, or a checkpoint of other settings.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the checkpoint has been written.
    """
    settings = network.settings.training
    torch.manual_seed(settings.seed)
    student = network.student
    student.train()
    if not is_new:
        freeze_normalisation(student)
    student.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(student, settings)
    precision = ranks.share(choose_precision(network.mean.device, settings.precision))
    threads = torch.get_num_threads()
    identity = {**sources, "images": len(data), "settings": network.settings.to_dict()}
    start, seconds = 0, 0.0
    record: dict[str, Any] = {}
    found = ranks.call_first(lambda: _read_checkpoint(options, identity))
    if found is not None:
        start, seconds, precision, record = checkpoint.restore(found, network, optimizer)
    elif is_new:
        ranks.call_first(lambda: initialise(network, data))
        torch.set_rng_state(ranks.share(torch.get_rng_state()))
    ranks.copy(student)
    join(student, ranks)
    model = _parallel(student, ranks)
    log = _Log(options, start) if ranks.is_first else None
    began = saved = time.perf_counter()

    def save(step: int) -> None:
        spent = seconds + time.perf_counter() - began
        checkpoint.save(
            options.folder, network, optimizer, step, identity, spent, precision, threads, record
        )

    own = ranks.part(settings.batch_size)
    schedule = (indices(step, len(data), settings)[own] for step in range(start, settings.steps))
    bar = progress.new_bar("training", "step", settings.steps, initial=start, quiet=options.quiet)
    with bar, deferred() as stop_requested, log or nullcontext():
        for step, batch in enumerate(data.stream(schedule), start + 1):
            rate = learning_rate(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            record = train_step(network, optimizer, batch, step, precision, model, ranks)
            now = time.perf_counter()
            done = step - start
            record |= {"lr": rate, "images_per_second": done * settings.batch_size / (now - began)}
            bar.set_postfix(
                loss=f"{record['loss']:.4f}",
                img_s=f"{record['images_per_second']:.0f}",
                refresh=False,
            )
            bar.update()
            if log and (step % LOG_EVERY == 0 or step in (1, settings.steps)):
                log.write(record)
            # the last step is saved too: what follows takes time and may be interrupted
            due = now - saved >= options.checkpoint_every or step == settings.steps
            number = ranks.largest(stop_requested())
            if due or number:
                if ranks.is_first:
                    save(step)
                saved = now
                if number:
                    raise Interrupted(number, step)
    leave(student)
    first = log.first if log else None
    ranks.call_first(lambda: _check_loss(first, record.get("loss"), settings))
    student.eval()
    return {
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "images": len(data.paths),
        "samples": len(data),
        "seconds": round(seconds + time.perf_counter() - began, 2),
        "images_per_second": round(record.get("images_per_second", 0.0), 2),
        "loss": record.get("loss"),
        "terms": record.get("terms", {}),
        "device": str(network.mean.device),
        "precision": precision,
        "threads": threads,
        "pixels_in": data.pixels_in,
        "features_in": data.features_in,
    }


def _read_checkpoint(options: RunOptions, identity: dict[str, Any]) -> checkpoint.Checkpoint | None:
    """Return the checkpoint to continue from; None, with the folder cleared: start anew."""
    if options.resume and (options.folder / checkpoint.NAME).is_file():
        return checkpoint.read(options.folder, identity)
    checkpoint.clear(options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    return None


def _parallel(student: nn.Module, ranks: Ranks) -> nn.Module:
    """Return the student such that its gradients are averaged over ranks."""
    if ranks.size == 1:
        return student
    device = next(student.parameters()).device
    # the graph is the same in every step; some parameters may not be used in it
    return DistributedDataParallel(
        student,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
        static_graph=True,
    )


def train_step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    precision: str = "fp32",
    model: nn.Module | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Update the student once.

    Args:
        network: with the student.
        optimizer: of its parameters.
        batch: the rank's part.
        step: from 1.
        precision: `fp32` or `bf16`.
        model: the student, or what averages its gradients over ranks; None: the student.
        ranks: with the other parts of the batch.

    Returns:
        `step`, `loss`, unweighted `terms` and `gradient` (global norm before clipping).

    Raises:
        TrainingError: a term or the gradient is not finite; the weights are as before the step.
    """
    settings = network.settings
    with autocast(network.mean.device, precision):
        output = (model or network.student)(batch.images, batch.inputs)
    progress = step / settings.training.steps
    total, terms = distillation(
        batch.targets, output, settings.loss, progress, batch.weights, ranks
    )
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    clip = settings.training.gradient_clip or math.inf
    norm = nn.utils.clip_grad_norm_(network.student.parameters(), clip)
    # one transfer for all values, so that the CPU waits for a GPU only once per step
    summary = ranks.mean(torch.stack([*terms.values(), total.detach(), norm]))
    *values, loss, gradient = summary.tolist()
    logged = dict(zip(terms, values, strict=True))
    for name, value in {**logged, "gradient": gradient}.items():
        if not math.isfinite(value):
            what = "the gradient" if name == "gradient" else f"the loss term '{name}'"
            raise TrainingError(
                f"training stopped at step {step}: {what} is {value}; lower training.lr (now "
                f"{settings.training.lr:g}) or the term's weight, or use training.precision=fp32"
            )
    optimizer.step()
    return {"step": step, "loss": loss, "terms": logged, "gradient": gradient}


def _check_loss(first: float | None, last: float | None, settings: TrainingSettings) -> None:
    """Raise TrainingError if the loss has grown instead of fallen."""
    if first is not None and last is not None and last > DIVERGED * max(first, 1e-3):
        raise TrainingError(
            f"the training diverged, nothing was written: the loss rose from {first:.3g} to "
            f"{last:.3g}; lower training.lr (now {settings.lr:g}) and start over with --overwrite"
        )


def make_optimizer(student: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return Adam or AdamW over the trainable parameters; no weight decay on norms and biases."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=settings.betas, foreach=True)


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of step 1..steps: linear warm-up, then cosine decay."""
    warm = math.ceil(settings.warmup * settings.steps)
    if step <= warm:
        return settings.lr * step / warm
    progress = (step - warm) / max(settings.steps - warm, 1)
    floor = settings.final_lr_ratio
    return settings.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def indices(step: int, count: int, settings: TrainingSettings) -> np.ndarray:
    """Return the image indices (B,) of a step, counted from 0.

    Seeded shuffles of all images follow one another and are cut into batches. The result depends on
    seed and step only, so a resumed run needs no sampler state.
    """
    first = step * settings.batch_size
    positions = np.arange(first, first + settings.batch_size)
    return np.array(
        [_shuffle(settings.seed, p // count, count)[p % count] for p in positions.tolist()]
    )


@lru_cache(maxsize=4)
def _shuffle(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of the images in an epoch; a batch touches few epochs, a step needs no new one."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def freeze_normalisation(student: nn.Module) -> None:
    """Let batch normalisation use the statistics that it has, and keep them."""
    for module in student.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@torch.no_grad()
def initialise(network: Network, data: TrainingData) -> None:
    """Initialise the student's data-initialised modules from at most one epoch of features."""
    settings = network.settings.training
    modules = network.student.data_initialised()
    if not modules:
        return
    rows: list[list[Tensor]] = [[] for _ in modules]
    passes = math.ceil(len(data) / settings.batch_size)
    schedule = (indices(step, len(data), settings) for step in range(passes))
    for batch in data.stream(schedule):
        inputs = network.student.initialisation_inputs(batch.images, batch.inputs)
        for samples, x in zip(rows, inputs, strict=True):
            samples.append(x.float().flatten(2).transpose(1, 2).flatten(0, 1).cpu())
        if min(sum(map(len, samples)) for samples in rows) >= INITIALISATION_ROWS:
            break
    for module, samples in zip(modules, rows, strict=True):
        sample = torch.cat(samples)
        module.initialise(sample[:: math.ceil(len(sample) / INITIALISATION_ROWS)], settings.seed)


class _Log:
    """Log of one JSON line per logged step, optionally also of TensorBoard scalars."""

    def __init__(self, options: RunOptions, start: int) -> None:
        path = options.folder / LOG
        lines: list[str] = []
        if start and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            lines = [line for line in lines if _step_of(line) <= start]
        self.first: float | None = _loss_of(lines[0]) if lines else None
        """Loss of the first step; None: unknown."""
        write_text(path, "".join(line + "\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(options.folder, start) if options.tensorboard else None

    def write(self, record: dict[str, Any]) -> None:
        if record["step"] == 1:
            self.first = record["loss"]
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            flat = {k: v for k, v in record.items() if k not in ("step", "terms")}
            flat |= {f"terms/{name}": value for name, value in record["terms"].items()}
            for name, value in flat.items():
                self._board.add_scalar(name, value, record["step"])

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, start: int) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=start + 1)


def check_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        DependencyError: it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise DependencyError("--tensorboard needs TensorBoard: pip install 'snl-ad[tensorboard]'")


def _loss_of(line: str) -> float | None:
    """Return the loss of the log line of step 1; None: another line."""
    record = json.loads(line)
    return float(record["loss"]) if record["step"] == 1 else None


def _step_of(line: str) -> float:
    """Return the step of a log line; infinity for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
