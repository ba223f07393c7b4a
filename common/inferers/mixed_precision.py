"""Mixed precision on every device, also where MONAI's engines have none."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

__all__ = ["MixedPrecisionInferer", "has_mixed_precision"]


def has_mixed_precision(device: torch.device) -> bool:
    """Whether autocast makes a network faster on `device`: any GPU, and CPUs with bfloat16 instructions."""
    if device.type != "cpu":
        return True
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class MixedPrecisionInferer(Inferer):
    """Calls another inferer with the network under autocast, and gives its output in float32.

    MONAI's engines know `amp` for CUDA only, and MONAI Label ignores it; an inferer is used by all of them, in
    training too. The dtype is bfloat16, whose range is that of float32, and float16 on GPUs that don't have it (for
    those a trainer also wants `amp`, for its gradient scaler). Only the network runs under autocast: windows are
    blended in float32.

    Args:
        inferer: what applies the network to a batch, e.g. MONAI's SimpleInferer or SlidingWindowInferer.
        amp: False leaves everything in float32.
        float32: False leaves the output as the network gives it, for a loss that widens what it needs.
    """

    def __init__(self, inferer: Inferer, amp: bool = True, float32: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.amp, self.float32 = amp, float32

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Apply `network` to `inputs` (B, C, D, H, W); tensors come out in float32, see `float32`."""
        enabled = self.amp and has_mixed_precision(inputs.device)

        def in_mixed_precision(*network_args: Any, **network_kwargs: Any) -> Any:
            # A MetaTensor would take every operation of the network through Python.
            plain = [arg.as_tensor() if isinstance(arg, MetaTensor) else arg for arg in network_args]
            with torch.autocast(inputs.device.type, _dtype(inputs.device), enabled=enabled):
                output = network(*plain, **network_kwargs)
            return _to_float32(output) if self.float32 else output

        return self.inferer(inputs, in_mixed_precision, *args, **kwargs)


def _dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _to_float32(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_to_float32(item) for item in output))
    if isinstance(output, (list, tuple)):
        return type(output)(_to_float32(item) for item in output)
    return output
