"""All networks as TorchScript and ONNX: on other input they give what they give in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from monai.networks.utils import convert_to_onnx, convert_to_torchscript

from common.networks import adaptive_masking
from tests.export.small import NETWORKS, network_of

SHAPES = {
    "cga_unet": (1, 4, 16, 16, 16),
    "fancl": (1, 4, 16, 16, 16),
    "mps_ams": (2, 1, 32, 32),
    "msconvlstm_att": (2, 4, 26, 26),
    "transunet3d": (1, 4, 16, 16, 16),
}
ENCODER = {"variant": "encoder", "encoder_layers": 2, "decoder_layers": 0}
DECODER = {"variant": "decoder", "encoder_layers": 0, "decoder_layers": 2}
# What isn't the bundle's network as it comes.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder": ("transunet3d", ENCODER),
    "decoder": ("transunet3d", DECODER),
    "peepholes": ("msconvlstm_att", {"network_def#peephole": True, "network_def#share_weights": True}),
    "without attention": ("fancl", {"components": ""}),
    "soft attention": ("cga_unet", {"hard_attention": False}),
}
CASES = {**{name: (name, {}) for name in NETWORKS}, **OPTIONS}
# Their masking takes a second input; of patches of 8.
PRETRAINING = {
    "mps_ams": ({"masked_patch": [8, 8]}, (2, 1, 32, 32), 16),
    "transunet3d": ({"patch_size": [32, 32, 32], "token_size": [8, 8, 8]}, (2, 4, 32, 32, 32), 64),
}

pytestmark = pytest.mark.filterwarnings("ignore")  # of what tracing takes for constant; other input shows that it may


def outputs_of(session: onnxruntime.InferenceSession, *inputs: torch.Tensor) -> list[np.ndarray]:
    names = [one.name for one in session.get_inputs()]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})


@pytest.mark.parametrize("name", CASES)
def test_same_output(name: str):
    bundle, ids = CASES[name]
    network = network_of(bundle, **ids)
    image, other = torch.randn(2, *SHAPES[bundle])
    with torch.no_grad():
        expected = network(other)
        # Maps of chance's weights are nearly even, so that what varies in them is what counts.
        tolerance = min(1e-4, 0.01 * float(expected.flatten(2).std(dim=2).mean()))
        traced = convert_to_torchscript(network, inputs=[image], use_trace=True)
        torch.testing.assert_close(traced(other), expected, rtol=1e-4, atol=tolerance)
    content = convert_to_onnx(network, [image], use_trace=False).SerializeToString()
    (found,) = outputs_of(onnxruntime.InferenceSession(content), other)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("bundle", PRETRAINING)
def test_pretraining(bundle: str, monkeypatch: pytest.MonkeyPatch):
    """Both outputs: what is predicted, and which pixels or tokens were masked."""
    ids, shape, patches = PRETRAINING[bundle]
    network = network_of(bundle, "pretrain", **ids)
    (image, other), (noise, other_noise) = torch.randn(2, *shape), torch.rand(2, shape[0], patches)
    other[..., :8, :8] += 3  # a likely lesion elsewhere than in the image that is traced
    with torch.no_grad():
        expected = network(other, other_noise)
        traced = torch.jit.trace(network, (image, noise))(other, other_noise)
    monkeypatch.setattr(adaptive_masking, "_MOST_ROUNDS", 8)  # all are in the graph, and take minutes to get there
    program = torch.onnx.export(network, (image, noise), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    found = outputs_of(session, other, other_noise)
    assert expected[0].std() > 1e-4 and expected[1].float().std() > 0
    for one, by_torchscript, by_onnx in zip(expected, traced, found, strict=True):
        torch.testing.assert_close(by_torchscript, one, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(by_onnx, one.numpy(), rtol=1e-4, atol=1e-4)
