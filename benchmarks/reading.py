"""Time of reading and preparing one scan, against the time of decompressing its files alone.

    python -m benchmarks.reading DATASET [--repeats 15]

Decompression is the limit: the four files' bytes through zlib, in four threads, with nothing else done.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import fire
from monai.bundle import ConfigParser
from monai.transforms import Compose

from benchmarks.machine import machine
from common.data.layouts import list_cases
from common.data.reading import read_image

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "cga_unet" / "configs" / "inference.json"


def decompress(paths: list[str]) -> None:
    """The files' content, decompressed in one thread a file into buffers of the right size."""

    def one(path: str) -> int:
        content = Path(path).read_bytes()
        return len(zlib.decompress(content, 31, int.from_bytes(content[-4:], "little")))

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(one, paths))


def main(dataset: str, repeats: int = 15) -> None:
    """Print the table: milliseconds of each step (median) and its ratio to decompression.

    Args:
        dataset: folder of scans, one file a modality; the first case is used.
        repeats: how often each is timed, in turns, after one run that isn't.
    """
    case = list_cases(dataset)[0]
    parser = ConfigParser(ConfigParser.load_config_file(CONFIG))
    transforms = parser.get_parsed_content("preprocessing").transforms
    ways: dict[str, Callable[[], object]] = {
        "decompression": partial(decompress, case["image"]),
        "read_image": partial(read_image, case),
        "preprocessing": partial(Compose(transforms), case),
    }
    for count, step in enumerate(transforms[:-1], start=1):
        ways[f"up to {type(step).__name__}"] = partial(Compose(transforms[:count]), case)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    print(machine())
    print(f"case {case['case']}, {repeats} runs each, medians")
    for name, times in seconds.items():
        ratio = statistics.median(t / d for t, d in zip(times, seconds["decompression"], strict=True))
        print(f"{name:28} {1000 * statistics.median(times):7.0f} ms   ratio {ratio:.2f}")


if __name__ == "__main__":
    fire.Fire(main)
