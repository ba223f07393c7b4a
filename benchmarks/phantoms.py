"""Time of drawing and rendering generated scans.

python -m benchmarks.phantoms [--cases 6]
"""

from __future__ import annotations

import statistics
import time

import fire

from benchmarks.machine import machine
from common.data.phantoms import draw_phantom, render_phantom, vary_phantom


def main(cases: int = 6) -> None:
    """Print CPU seconds a case, mean and longest, at 64³, 96³ and 128³; writing isn't counted.

    Args:
        cases: how many are rendered at each size.
    """
    print(machine())
    for size in (64, 96, 128):
        for name in ("plain", "varied"):
            seconds = []
            for index in range(cases):
                started = time.process_time()
                phantom = draw_phantom(0, index)
                render_phantom(vary_phantom(phantom) if name == "varied" else phantom, (size,) * 3)
                seconds.append(time.process_time() - started)
            print(f"{size}³, {name}: {statistics.mean(seconds):.2f} s a case, longest {max(seconds):.2f} s (CPU time)")


if __name__ == "__main__":
    fire.Fire(main)
