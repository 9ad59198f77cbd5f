"""UniAD: mask, noise and attention against plain references; merging; that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snl
from snl.errors import SettingsError
from snl.model import uniad
from snl.model.base import Batch, Stage
from snl.model.cram import Cram
from snl.model.network import Network
from snl.model.teacher import Teacher, concatenate
from snl.model.uniad import Attention, DecoderLayer, EncoderLayer, UniAD, neighbour_mask
from snl.settings import CramSettings, TeacherSettings, resolve
from snl.training import checkpoint
from snl.training.loop import make_optimizer, train_step
from tests.conftest import TINY
from tests.model.test_anomaly import bilinear_loop


def network_of(**overrides: Any) -> Network:
    changes = {name.replace("__", "."): value for name, value in overrides.items()}
    return Network(resolve("uniad", overrides={**TINY, "cram.centres": 4, **changes}))


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(batch: int = 2, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8))


# --- mask ---


def mask_loop(side: int, window: int) -> np.ndarray:
    """A token may attend to everything outside its window; window 0: everything."""
    allowed = np.ones((side, side, side, side), bool)
    for y in range(side):
        for x in range(side):
            for dy in range(-(window // 2), window // 2 + 1) if window else ():
                for dx in range(-(window // 2), window // 2 + 1):
                    if 0 <= y + dy < side and 0 <= x + dx < side:
                        allowed[y, x, y + dy, x + dx] = False
    return allowed.reshape(side**2, side**2)


@pytest.mark.parametrize(
    ("side", "window"),
    [(1, 0), (2, 1), (3, 1), (4, 1), (6, 3), (7, 3), (8, 3), (10, 5), (14, 7), (16, 7), (21, 7)],
)
def test_mask_hides_the_neighbourhood(side: int, window: int) -> None:
    allowed = neighbour_mask(side).numpy()
    assert np.array_equal(allowed, mask_loop(side, window))
    assert allowed.any(1).all()  # at least one key always remains
    assert window <= side / 2


# --- noise ---


def test_noise_grows_with_the_feature() -> None:
    torch.manual_seed(0)
    x = features(1, 3, 4000)
    x = x / x.norm(dim=2, keepdim=True) * torch.tensor([0.0, 3.0, 500.0]).view(1, 3, 1)
    noise = uniad.jitter(x) - x
    assert noise.std(2)[0].tolist() == pytest.approx([0, 20 * 3 / 4000, 20 * 500 / 4000], rel=0.05)
    assert float(noise.mean(2).abs().max()) < 0.1 * float(noise.std(2).max())


def test_noise_in_training_only() -> None:
    student = UniAD(16, 4, CramSettings())
    x = [features(2, 16, 4, 4)]
    student.train()
    assert not torch.equal(student(None, x).features[0], student(None, x).features[0])
    student.eval()
    assert torch.equal(student(None, x).features[0], student(None, x).features[0])


# --- attention ---


def reference_of(attention: Attention) -> nn.MultiheadAttention:
    """torch's module in float64 with the same weights."""
    reference = nn.MultiheadAttention(uniad.WIDTH, uniad.HEADS, batch_first=True).double().eval()
    parts = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        reference.out_proj.weight.copy_(attention.out.weight)
        reference.out_proj.bias.copy_(attention.out.bias)
    return reference


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    attention = Attention().eval()
    q, k, v = (features(2, 16, uniad.WIDTH, seed=i) for i in range(3))
    allowed = neighbour_mask(4)
    wanted, _ = reference_of(attention)(
        q.double(), k.double(), v.double(), attn_mask=~allowed, need_weights=False
    )
    got = attention(q, k, v, allowed)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_decoder_layer_attends_with_its_query() -> None:
    """Query at the encoder's output, the result at the previous layer's, as the paper draws it."""
    torch.manual_seed(0)
    layer = DecoderLayer(16).eval()
    layer.query.normal_()
    x, encoded, position = (features(2, 16, uniad.WIDTH, seed=i) for i in range(3))
    position = position[0]
    allowed = neighbour_mask(4)
    q = layer.query.expand(2, 16, uniad.WIDTH).double()
    for attention, seen in ((layer.encoded, encoded), (layer.previous, x)):
        answer, _ = reference_of(attention)(
            q + position, (seen + position).double(), seen.double(), attn_mask=~allowed
        )
        q = nn.functional.layer_norm(q + answer, (uniad.WIDTH,))
    first, _, _, second = layer.mlp
    hidden = (q @ first.weight.double().T + first.bias).clamp_min(0)
    change = hidden @ second.weight.double().T + second.bias
    wanted = nn.functional.layer_norm(q + change, (uniad.WIDTH,))
    got = layer(x, encoded, position, allowed)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-4)


def test_encoder_layer_ignores_the_neighbours() -> None:
    torch.manual_seed(0)
    layer, allowed = EncoderLayer().eval(), neighbour_mask(6)  # a window of 3 x 3
    x = features(1, 36, uniad.WIDTH)
    changed = x.clone()
    changed[0, 1 * 6 + 1] += 1  # token (1, 1)
    position = torch.zeros(36, uniad.WIDTH)
    with torch.no_grad():
        differs = (layer(x, position, allowed) != layer(changed, position, allowed)).any(2)
    near = np.zeros((6, 6), bool)
    near[0:3, 0:3] = True
    near[1, 1] = False  # the residual connection bypasses the attention
    assert np.array_equal(differs.view(6, 6).numpy(), ~near)


# --- merging ---


def test_merged_map() -> None:
    shapes = [(2, 3, 8, 12), (2, 5, 4, 6), (2, 4, 2, 3)]
    stages = [features(*shape, seed=i) for i, shape in enumerate(shapes)]
    merged = concatenate(stages)
    assert merged.shape == (2, 12, 2, 3)
    for b in range(2):
        channels = [channel.double().numpy() for stage in stages for channel in stage[b]]
        wanted = np.stack([bilinear_loop(channel, (2, 3)) for channel in channels])
        np.testing.assert_allclose(merged[b].numpy(), wanted, atol=1e-5)


def test_merged_teacher_has_one_stage() -> None:
    separate = Teacher(TeacherSettings(name="resnet18", weights="random"))
    merged = Teacher(TeacherSettings(name="resnet18", weights="random", merge="concatenate"))
    merged.load_state_dict(separate.state_dict())
    images = features(2, 3, 64, 64)
    assert merged.stages == (Stage(64 + 128 + 256, 16),)
    (got,) = merged(images)
    assert torch.equal(got, concatenate(separate(images)))


@pytest.mark.parametrize("method", ["rd", "fd", "snl-rd", "snl-fd"])
def test_other_students_take_a_merged_teacher(method: str) -> None:
    settings = resolve(method, overrides={**TINY, "teacher.merge": "concatenate"})
    network = Network(settings).eval()
    images = network.normalise(pixels())
    teacher = network.teacher_features(images)
    student = network.student(images, teacher).features
    assert [f.shape for f in student] == [f.shape for f in teacher]


# --- the whole ---


def test_settings_are_the_papers() -> None:
    s = resolve("uniad")
    assert (s.training.optimizer, s.training.lr, s.training.weight_decay) == ("adamw", 1e-4, 1e-4)
    assert (s.teacher.merge, s.map.distance, s.loss.mse) == ("concatenate", "l2", 1.0)
    assert s.loss.global_cosine == s.loss.channel == s.loss.intra == 0 and s.cram.form == "none"
    with pytest.raises(SettingsError, match=r"teacher\.merge=concatenate"):
        resolve("uniad", overrides={"teacher.merge": "none"})
    with pytest.raises(SettingsError, match=r"cram\.place"):
        resolve("uniad", overrides={"cram.place": "stages"})


def test_map_is_the_length_of_the_difference() -> None:
    network = network_of(map__sigma=0.0).eval()
    teacher = network.teacher_features(network.normalise(pixels()))
    offset = torch.zeros_like(teacher[0])
    offset[:, 0], offset[:, 1] = 3.0, -4.0
    maps, scores = network.compare(teacher, [teacher[0] + offset])
    torch.testing.assert_close(maps, torch.full((2, 64, 64), 5.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, torch.full((2,), 5.0), atol=1e-4, rtol=0)


def test_weights_are_a_function_of_the_seed() -> None:
    first, again = network_of(training__seed=3), network_of(training__seed=3)
    other = network_of(training__seed=4).student.state_dict()
    for name, value in first.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[name])
        assert value.ndim < 2 or not torch.equal(value, other[name]), name


def test_images_of_a_batch_do_not_mix_and_pixels_are_not_used() -> None:
    network = network_of().eval()
    images = network.normalise(pixels())
    teacher = network.teacher_features(images)
    with torch.no_grad():
        (together,) = network.student(images, teacher).features
        (alone,) = network.student(None, [teacher[0][:1]]).features
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", ["none", "dense"])
def test_training_lowers_the_loss(form: str) -> None:
    network = network_of(cram__form=form)
    network.student.train()
    images = network.normalise(pixels(4))
    teacher = network.teacher_features(images)
    crams = network.student.data_initialised()
    assert [type(cram) for cram in crams] == ([] if form == "none" else [Cram])
    for cram in crams:
        with torch.no_grad():
            (code,) = network.student.initialisation_inputs(images, teacher)
        cram.initialise(code.flatten(2).transpose(1, 2).flatten(0, 1), seed=0)
    optimizer = make_optimizer(network.student, network.settings.training)
    batch = Batch(images, teacher, teacher)
    losses = [train_step(network, optimizer, batch, i)["loss"] for i in range(10)]
    assert min(losses[-3:]) < 0.7 * losses[0]


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """The random state of noise and dropout is restored too."""
    images = [features(4, 3, 64, 64, seed=i) for i in range(4)]

    def run(network: Network, optimizer: torch.optim.Optimizer, steps: range) -> None:
        network.student.train()
        for i in steps:
            features = network.teacher_features(images[i])
            train_step(network, optimizer, Batch(images[i], features, features), i)

    uninterrupted, stopped, resumed = network_of(), network_of(), network_of(training__seed=9)
    resumed.teacher.load_state_dict(uninterrupted.teacher.state_dict())
    ours, first, second = (
        make_optimizer(n.student, n.settings.training) for n in (uninterrupted, stopped, resumed)
    )
    torch.manual_seed(5)
    run(uninterrupted, ours, range(4))
    torch.manual_seed(5)
    run(stopped, first, range(2))
    checkpoint.save(tmp_path, stopped, first, 2, {}, 0.0, "fp32", 1)
    torch.manual_seed(77)
    checkpoint.restore(checkpoint.read(tmp_path, {}), resumed, second)
    run(resumed, second, range(2, 4))
    for name, value in uninterrupted.student.state_dict().items():
        assert torch.equal(value, resumed.student.state_dict()[name]), name


def test_bundle_gives_the_same_maps(parts: Path, tmp_path: Path) -> None:
    changes = {**TINY, "training.steps": 4}
    trained = snl.train(parts, output=tmp_path / "a.snl", method="uniad", overrides=changes)
    x = pixels().numpy()
    loaded = snl.load(tmp_path / "a.snl")
    for a, b in zip(trained.predict(x)[:3], loaded.predict(x)[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all() and a.min() >= 0
