"""The network runs in mixed precision where that is faster; what comes out is float32."""

from typing import NamedTuple

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer

from common.inferers import mixed_precision
from common.inferers.mixed_precision import MixedPrecisionInferer, has_mixed_precision


class Output(NamedTuple):
    logits: torch.Tensor
    present: torch.Tensor


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(2, 3, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor):
        y = self.conv(x)
        self.seen.append(y.dtype)
        return Output(y, torch.ones(2, dtype=torch.bool)) if self.training else y


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch):
    """As on a CPU with bfloat16 instructions; autocast itself works on any."""
    monkeypatch.setattr(mixed_precision, "has_mixed_precision", lambda device: True)


@pytest.mark.parametrize("amp", [True, False])
def test_network_runs_in_bfloat16_and_output_is_float32(bfloat16: None, amp: bool):
    network = Network().eval()
    output = MixedPrecisionInferer(SimpleInferer(), amp=amp)(torch.rand(1, 2, 4, 4, 4), network)
    assert network.seen == [torch.bfloat16 if amp else torch.float32]
    assert output.dtype == torch.float32


def test_every_field_of_a_training_output_is_kept(bfloat16: None):
    output = MixedPrecisionInferer(SimpleInferer())(torch.rand(1, 2, 4, 4, 4), Network())
    assert isinstance(output, Output)
    assert (output.logits.dtype, output.present.dtype) == (torch.float32, torch.bool)
    output.logits.sum().backward()


def test_windows_are_blended_in_float32(bfloat16: None):
    """Constant windows of one value blend to that value: in bfloat16 the weights' sum would be off by a percent."""
    windows = SlidingWindowInferer(roi_size=(4, 4, 4), overlap=0.5, mode="gaussian")
    image = torch.rand(1, 1, 9, 7, 6)
    output = MixedPrecisionInferer(windows)(image, lambda x: torch.full_like(x, 0.7).to(torch.bfloat16))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, torch.full_like(image, float(torch.tensor(0.7).bfloat16())), rtol=1e-6, atol=0)


def test_float32_without_the_instructions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mixed_precision, "has_mixed_precision", lambda device: False)
    network = Network().eval()
    MixedPrecisionInferer(SimpleInferer())(torch.rand(1, 2, 4, 4, 4), network)
    assert network.seen == [torch.float32]


def test_gpus_always_have_it():
    assert has_mixed_precision(torch.device("cuda"))
