"""What every process of `test_distributed.py` computes; torchrun starts it:

python -m torch.distributed.run --standalone --nproc-per-node N -m tests.training.ranks_worker OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snl.model.base import Batch
from snl.model.losses import easy_factor, inter_affinity_images
from snl.model.network import Network
from snl.model.ranks import ALONE, FailedElsewhereError, Ranks
from snl.model.whole_batch import WholeBatchDropout, WholeBatchNorm2d, join, leave
from snl.settings import resolve
from snl.training import distributed
from snl.training.loop import _parallel, train_step
from tests.conftest import TINY

BATCH, STEPS = 8, 3
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "reverse": ("snl", {}),
    "images": ("snl-rd", {"loss.inter_form": "images"}),
    "forward": ("fd", {}),
    "uniad": ("uniad", {}),
    "vit": ("snl", {"teacher.name": "test_vit.r160_in1k", "image_size": 160}),
}
"""Method and settings of the students that are trained."""


def values(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def train(
    kind: str, ranks: Ranks, rounding: float = 0.0
) -> tuple[dict[str, Tensor], list[float], dict[str, Tensor]]:
    """Return the student's weights after some steps of gradient descent, the losses, and the
    weights before. With `rounding`, images are changed at random by that share."""
    method, changes = STUDENTS[kind]
    tiny = {name: value for name, value in TINY.items() if name != "teacher.stages" or not changes}
    overrides = {**tiny, "training.batch_size": BATCH, "training.steps": STEPS, **changes}
    network = Network(resolve(method, overrides=overrides))
    size, student = network.settings.image_size, network.student.train()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    join(student, ranks)
    model = _parallel(student, ranks)
    optimizer = torch.optim.SGD(student.parameters(), 0.05)
    torch.manual_seed(3)
    losses = []
    for step in range(1, STEPS + 1):
        images = values(BATCH, 3, size, size, seed=step)
        images = images * (1 + rounding * values(*images.shape, seed=100 + step))
        images = images[ranks.part(BATCH)]
        features = network.teacher_features(images)
        record = train_step(
            network, optimizer, Batch(images, features, features), step, "fp32", model, ranks
        )
        losses.append(record["loss"])
    leave(student)
    return dict(student.state_dict()), losses, before


def differentiated(function: Any, x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Return the output of all ranks for all rows of `x`, and the gradient of the average over
    ranks of the sum of its squares."""
    own = x[ranks.part(len(x))].clone().requires_grad_()
    output = function(own)
    (output.square().sum() / ranks.size).backward()
    assert own.grad is not None
    return torch.cat(ranks.collect(output.detach())), torch.cat(ranks.collect(own.grad))


def layers(ranks: Ranks) -> dict[str, Any]:
    """Return what the layers and the operations give for one batch."""
    x = 3 * values(BATCH, 5, 4, 6, seed=0) + 20
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(values(5, seed=1))
        norm.bias.copy_(values(5, seed=2))
    join(norm, ranks)
    found: dict[str, Any] = {"norm": differentiated(norm, x, ranks)}
    # a parameter's gradient is averaged over ranks by the training, and here, too
    found["norm parameters"] = [
        torch.stack(ranks.collect(p.grad)).sum(0) for p in norm.parameters() if p.grad is not None
    ]
    leave(norm)
    found["norm state"] = dict(norm.state_dict())
    assert type(norm) is nn.BatchNorm2d
    found["norm after"] = differentiated(norm.eval(), x, ALONE)[0]
    dropout = WholeBatchDropout(0.3)
    join(dropout, ranks)
    torch.manual_seed(11)
    found["dropout"] = differentiated(dropout, x, ranks)
    t, s = values(BATCH, 7, 3, 3, seed=4), values(BATCH, 7, 3, 3, seed=5)

    def inter(own: Tensor) -> Tensor:
        return inter_affinity_images(t[ranks.part(BATCH)], own, ranks).view(1)

    output, gradient = differentiated(inter, s, ranks)
    found["inter"] = (output[:1], gradient)
    own = ranks.part(BATCH)
    found["easy"] = torch.cat(ranks.collect(easy_factor(t[own], s[own], 0.6, 0.1, ranks)))
    found["gathered"] = ranks.gather(x[own])
    found["mean"] = ranks.mean(torch.tensor(float(ranks.rank)))
    found["largest"] = ranks.largest(10 + ranks.rank)
    found["shared"] = ranks.share({"rank": ranks.rank})
    found["called"] = ranks.call_first(lambda: ranks.rank)
    try:
        ranks.call_first(lambda: [][ranks.rank])
    except IndexError:
        found["failed"] = ranks.is_first
    except FailedElsewhereError:
        assert not ranks.is_first
    module = nn.Linear(3, 2)
    nn.init.constant_(module.weight, float(ranks.rank + 1))
    ranks.copy(module)
    found["copied"] = module.weight.detach()
    return found


def everything(ranks: Ranks) -> dict[str, Any]:
    return {"layers": layers(ranks), **{kind: train(kind, ranks) for kind in STUDENTS}}


def main() -> None:
    torch.set_num_threads(1)
    with distributed.joined(BATCH) as ranks:
        assert isinstance(WholeBatchNorm2d.ranks, Ranks)
        found = everything(ranks)
        if ranks.is_first:
            torch.save(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
