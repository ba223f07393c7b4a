"""What 3D-TransUNet's costs are measured with: counts, targets, and a step that computes what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import transunet3d_cost
from benchmarks.transunet3d_cost import count, crop_stepper, print_counts, print_verdict
from common.networks.transunet3d import TransUNet3D


def test_counts_by_hand(monkeypatch: pytest.MonkeyPatch):
    """A convolution, 2 by 3³ by 4 weights at each of 8³ voxels."""
    monkeypatch.setattr(transunet3d_cost, "make", lambda variant: nn.Conv3d(4, 2, 3, padding=1))
    assert count("none", size=8) == (2 * 27 * 4 + 2, 2 * 27 * 4 * 8**3)


def test_variants_are_the_bundles(capsys: pytest.CaptureFixture[str]):
    counts = {variant: count(variant, size=64) for variant in ("none", "both")}
    assert counts["none"][0] == 31_194_351 and counts["both"][0] == 41_702_643
    print_counts(counts | {"encoder": (118_000_000, 10**9)})
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [("NOT KEPT" in line) for line in lines] == [False, False, True]
    assert "1.0      488" in lines[2]


def test_targets(capsys: pytest.CaptureFixture[str]):
    measured = {"none": (1.0, 2.1e9), "encoder": (1.29, 2.2e9), "decoder": (1.31, 2.3e9)}
    print_verdict(measured, 128)
    told = capsys.readouterr().out.splitlines()
    assert [("NOT KEPT" in line) for line in told] == [False, False, True, False, True]
    assert told[2] == "decoder: 2.30 GB over base, release 4.4 GB; at most 2.2 GB NOT KEPT"
    print_verdict(measured, 96)  # of which no memory is published
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("training", [True, False])
def test_step(monkeypatch: pytest.MonkeyPatch, training: bool):
    def make(variant: str) -> TransUNet3D:
        return TransUNet3D(
            features=(4, 8, 8), encoder_layers=0, decoder_layers=1, decoder_width=32, decoder_mlp=32, queries=3
        )

    monkeypatch.setattr(transunet3d_cost, "make", make)
    stepper = crop_stepper(size=16, half=False, variant="decoder", training=training, device="cpu")
    label = stepper.label
    assert label.shape == (1, 3, 16, 16, 16) and bool((label[:, 1:] <= label[:, :-1]).all())
    loss = stepper.step()
    assert stepper.network.training == training and (loss > 0) == training
    graded = [name for name, parameter in stepper.network.named_parameters() if parameter.grad is not None]
    assert bool(graded) == training
    assert loss == (stepper.step() if not training else loss)
    assert torch.isfinite(torch.tensor(loss))
