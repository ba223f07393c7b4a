"""nnU-Net's own network with FANCL's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from common.networks.fancl import FANCL


def architecture(features: Sequence[int], bias: bool = True) -> dict[str, Any]:
    """The arguments of nnU-Net's network, as its plans write them.

    Args:
        features: channels of each stage.
        bias: whether convolutions have a bias before a normalisation, and transposed ones have any.
    """
    stages = len(features)
    return {
        "n_stages": stages,
        "features_per_stage": list(features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3] * 3] * stages,
        "strides": [[1] * 3, *[[2] * 3] * (stages - 1)],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": bias,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


@torch.no_grad()
def nnunet_of(network: FANCL, bias: bool = True, deep_supervision: bool = False) -> PlainConvUNet:
    """nnU-Net's network of the same plan, with the weights of FANCL's backbone.

    Args:
        network: of which the attention is left out.
        bias: see `architecture`; FANCL has none, so they are zero.
        deep_supervision: whether it gives the output of every head.
    """
    arguments = architecture(network.filters, bias) | {
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
    }
    nnunet = PlainConvUNet(
        input_channels=network.in_channels,
        num_classes=network.out_channels,
        deep_supervision=deep_supervision,
        **arguments,
    )
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def pair(block: nn.Module, stack: nn.Module) -> None:
        for number, convolution in enumerate(stack.convs, 1):
            pairs.append((getattr(block, f"conv{number}").conv, convolution.conv))
            pairs.append((getattr(block, f"norm{number}"), convolution.norm))

    encoder = [network.input_block, *network.downsamples, network.bottleneck]
    for block, stack in zip(encoder, nnunet.encoder.stages, strict=True):
        pair(block, stack[0])
    decoder = nnunet.decoder
    heads = [*reversed(network.deep_supervision_heads), network.output_block]
    for up, head, transposed, stack, layer in zip(
        network.upsamples, heads, decoder.transpconvs, decoder.stages, decoder.seg_layers, strict=True
    ):
        pairs += [(up.transp_conv.conv, transposed), (head.conv.conv, layer)]
        pair(up.conv_block, stack)
    for parameter in nnunet.parameters():
        parameter.zero_()
    for mine, theirs in pairs:
        for name, parameter in mine.named_parameters():
            theirs.get_parameter(name).copy_(parameter)
    return nnunet
