"""The machine that figures were measured on, and the memory of a process."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = ["machine", "memory"]


def memory(field: str) -> int:
    """Bytes that this process holds (VmRSS) or held at most (VmHWM), as Linux tells."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith(field))


def machine() -> str:
    """Processor, threads, instructions that matter here, torch's version."""
    cpuinfo = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        name = next((line.split(":")[1].strip() for line in cpuinfo.open() if line.startswith("model name")), name)
    bf16 = (
        "AMX"
        if torch.cpu._is_amx_tile_supported()
        else "AVX-512 bf16"
        if torch.cpu._is_avx512_bf16_supported()
        else "none"
    )
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads, bfloat16 by {bf16}{gpu}; torch {torch.__version__}"
