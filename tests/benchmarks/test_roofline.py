"""Counted arithmetic against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks import roofline


def test_arithmetic_of_a_convolution_and_its_derivatives() -> None:
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    once = 2 * 2 * 8 * 8 * 5 * 3 * 9 / 1e9
    assert roofline.arithmetic(lambda: layer(x)) == pytest.approx(once)
    # one derivative with respect to the weights, one with respect to the input
    assert roofline.arithmetic(lambda: layer(x).sum().backward()) == pytest.approx(3 * once)


def test_shares() -> None:
    layer = torch.nn.Conv2d(32, 32, 3, bias=False)
    x = torch.randn(4, 32, 32, 32)
    shares = roofline.shares(lambda: layer(x).sum().backward())
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["convolutions, forward"] > 0 and shares["convolutions, backward"] > 0
    assert shares["optimiser"] == 0


def test_a_row() -> None:
    a = torch.randn(256, 256)
    row = roofline.measure(lambda: a @ a, 1, 1000.0)
    assert row["gflop"] == pytest.approx(2 * 256**3 / 1e9, abs=0.01)
    assert row["gflop_s"] == pytest.approx(1000 * row["of_peak"], rel=0.5)
