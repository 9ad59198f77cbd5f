"""Create the weights of `snl_compact` from generated images, public-domain photographs and the
ImageNet features of ResNet-18.

    python pretraining/pretrain.py distill --resnet18 resnet18.safetensors -o runs/distilled
    python pretraining/pretrain.py formula -o runs/formula
    python pretraining/pretrain.py finish runs/distilled -o teacher.safetensors

`distill` regresses the channel-normalised features of three stages of ResNet-18. `formula` learns
to classify iterated function systems and needs no teacher. Both generate their images on the fly,
log to `log.jsonl` (including the error on held-out photographs), write checkpoints and resume from
them when started again. `finish` converts a run to a weights file for the package or for
`--teacher-weights`. Results: docs/teacher.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crops import Batches, loader
from finish import finish
from formula import Fractals
from snl.errors import SnlError
from snl.files import load_tensors, save_tensors, write_text
from snl.model import device as devices
from snl.settings import TrainingSettings
from snl.training.checkpoint import optimizer_tensors, restore_optimizer
from snl.training.loop import make_optimizer
from tasks import SIZE, Classification, Distillation, Task

LOG_EVERY = 100
TensorList = Sequence[Tensor]


@dataclass(frozen=True)
class Recipe:
    """Everything that the result of a run depends on, apart from the code."""

    kind: str
    images: int
    batch: int = 48
    lr: float = 3e-3
    weight_decay: float = 0.02
    warmup: float = 0.02
    decay: float = 0.4
    """Fraction of the run over which the learning rate falls to (almost) 0, after a plateau."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is saved; it rises to this from 0.1."""
    seed: int = 0
    lanes: int = 1
    precision: str = "fp32"

    @property
    def steps(self) -> int:
        return self.images // self.batch

    def rate(self, step: int) -> float:
        """Return the learning rate of step 1..steps: warm-up, plateau, linear decay."""
        progress = step / self.steps
        return self.lr * min(1.0, progress / self.warmup, (1 - progress) / self.decay + 1e-3)


class Run:
    """A training run: task, moving average of its network, optimiser, files in `folder`.

    If the folder has a checkpoint, the run is resumed.
    """

    def __init__(self, recipe: Recipe, task: Task, folder: Path, device: torch.device) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.task = task.to(device)
        self.task.to(memory_format=torch.channels_last)
        self.average = AveragedModel(task.net, multi_avg_fn=self._blend, use_buffers=True)
        self.parameters = [p for p in task.parameters() if p.requires_grad]
        settings = TrainingSettings(
            optimizer="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.optimizer = make_optimizer(task, settings)
        self.first, self.spent = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.is_file():
            self._restore()
        elif (folder / "final.safetensors").is_file():
            raise SnlError(f"{folder}: has a finished run; choose another -o, or remove it")
        else:
            write_text(self._log, "")

    def train(self, checkpoint_every: float) -> None:
        """Train to the end.

        Writes `final.safetensors` and, at 1/2, 1/4, ... of the run, `at-N.safetensors` (N images).
        """
        recipe, dataset = self.recipe, Fractals if self.recipe.kind == "formula" else Batches
        data = dataset(recipe.seed, self.first, recipe.steps, recipe.batch, SIZE, recipe.lanes)
        marks = {round(recipe.steps * 2.0**-k) for k in range(1, 6)}
        start = saved = time.perf_counter()
        for step, batch in enumerate(loader(data), self.first + 1):
            losses = self._step(step, [part.to(self.device) for part in batch])
            now = time.perf_counter()
            spent = self.spent + now - start
            if step % LOG_EVERY == 0 or step == recipe.steps:
                left = (now - start) / (step - self.first) * (recipe.steps - step)
                print(self._write_log(step, losses, spent), f"{left / 60:.1f} min left", flush=True)
            if step in marks:
                self._save_weights(f"at-{step * recipe.batch}", step)
            if now - saved > checkpoint_every and step < recipe.steps:
                self._save_checkpoint(step, spent)
                saved = now
        self._save_weights("final", recipe.steps)
        self._checkpoint.unlink(missing_ok=True)

    def _step(self, step: int, batch: list[Tensor]) -> list[float]:
        if step == 1:
            self.task.start(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(step)
        self.task.train()
        with devices.autocast(self.device, self.recipe.precision):
            losses = self.task.losses(batch)
        total = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.task.net)
        values = [float(loss.detach()) for loss in losses]
        if not all(map(math.isfinite, values)):
            sys.exit(
                f"step {step}: the losses are {values}; start again with a lower learning rate"
            )
        return values

    def _blend(self, average: TensorList, current: TensorList, count: Tensor | int) -> None:
        """Move the average towards the current weights, with larger steps at the start."""
        keep = min(self.recipe.average, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(average, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old.dtype), 1 - keep)
            else:
                old.copy_(new)

    def _write_log(self, step: int, losses: list[float], seconds: float) -> str:
        self.average.eval()
        record: dict[str, Any] = {
            "step": step,
            "images": step * self.recipe.batch,
            "seconds": round(seconds, 1),
            "lr": round(self.recipe.rate(step), 6),
            "training": [round(value, 4) for value in losses],
            "held_out": [round(float(v), 4) for v in self.task.held_out_losses(self.average)],
        }
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        return json.dumps(record)

    def _save_weights(self, name: str, step: int) -> None:
        """Save the averaged network and the buffers of the task."""
        arrays = {f"net.{k}": v.cpu().numpy() for k, v in self.average.module.state_dict().items()}
        buffers = {k: v for k, v in self.task.state_dict().items() if "." not in k}
        arrays |= {k: v.cpu().numpy() for k, v in buffers.items()}
        facts = {
            "recipe": asdict(self.recipe),
            "images": step * self.recipe.batch,
            "inputs": self.task.inputs,
        }
        save_tensors(self.folder / f"{name}.safetensors", arrays, "pretraining", facts)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _log(self) -> Path:
        return self.folder / "log.jsonl"

    def _save_checkpoint(self, step: int, seconds: float) -> None:
        trained = {k: v for k, v in self.task.state_dict().items() if not k.startswith("teacher.")}
        tensors = {f"task.{k}": v for k, v in trained.items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        facts = {"recipe": asdict(self.recipe), "step": step, "seconds": seconds}
        save_tensors(self._checkpoint, arrays, "checkpoint", facts)

    def _restore(self) -> None:
        arrays, facts = load_tensors(self._checkpoint, "checkpoint")
        if facts["recipe"] != asdict(self.recipe):
            raise SnlError(
                f"{self._checkpoint}: belongs to another recipe ({facts['recipe']}); choose "
                "another -o"
            )
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for part, module in (("task.", self.task), ("average.", self.average)):
            state = {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
            # The frozen teacher of the task is not in the checkpoint.
            module.load_state_dict(state, strict=module is not self.task)
        restore_optimizer(self.optimizer, tensors)
        self.first, self.spent = int(facts["step"]), float(facts["seconds"])
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
        previous = [line for line in lines if json.loads(line)["step"] <= self.first]
        write_text(self._log, "".join(previous))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="kind", required=True)
    for kind in ("distill", "formula"):
        verb = verbs.add_parser(kind, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        if kind == "distill":
            verb.add_argument("--resnet18", required=True, metavar="FILE", help="ImageNet weights")
        verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
        verb.add_argument("--images", type=int, default=288_000, help="number of training images")
        verb.add_argument("--batch", type=int, default=48)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--lanes", type=int, default=1, help="processes that generate images")
        verb.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
        verb.add_argument("--device", default="auto")
        verb.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    verb = verbs.add_parser("finish")
    verb.add_argument("run", type=Path, help="folder of a run, or one of its at-N files")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    try:
        if options.kind == "finish":
            print(finish(options.run, options.output))
            return 0
        device = devices.choose(options.device)
        recipe = Recipe(
            options.kind,
            options.images,
            options.batch,
            seed=options.seed,
            lanes=options.lanes,
            precision=devices.choose_precision(device, options.precision),
        )
        torch.manual_seed(recipe.seed)
        task = Classification() if recipe.kind == "formula" else Distillation(options.resnet18)
        Run(recipe, task, options.output, device).train(options.checkpoint_every)
    except SnlError as error:
        print(f"pretrain: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
