"""CPU time and memory of the lesion-wise scores, from label maps in memory.

    python -m benchmarks.lesion_wise [PREDICTIONS REFERENCES]

Each pair is scored in a process of its own. Time is that of the processor, on one core; memory is the peak over what
the process held with both maps loaded (Linux). The challenge's own script takes 6 to 8 s and some 500 MiB for a pair of
240×240×155, and 82 s for one with 40 metastases.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fire
import nibabel
import numpy as np
from scipy import ndimage

from benchmarks.machine import machine, memory
from common.data.pairs import find_references, pair_label_maps
from common.data.writing import write_nifti
from common.metrics.lesion_wise import lesion_wise_scores
from common.metrics.surfaces import surface_of

BRATS = (240, 240, 155)
UNIT = (1.0, 1.0, 1.0)
SCRIPT = {"glioma": "6–8 s", "40 metastases": "82 s"}
"""What the challenge's script was measured to take for pairs of that kind."""
Maps = tuple[np.ndarray, np.ndarray]


def ball(label_map: np.ndarray, centre: np.ndarray, radius: float, label: int) -> None:
    """Draw a ball of a radius in voxels."""
    reach = int(np.ceil(radius))
    grid = np.indices((2 * reach + 1,) * 3) - reach
    inside = np.argwhere((grid**2).sum(axis=0) <= radius**2) - reach + np.rint(centre).astype(int)
    label_map[tuple(inside.T)] = label


def glioma(seed: int = 0) -> Maps:
    """A tumour of some 110 ml with ragged edges, segmented rather well, with two false specks."""
    rng = np.random.default_rng(seed)
    grid = np.indices(BRATS, dtype=np.float32)
    distance = np.sqrt(
        sum(((axis - at) / size) ** 2 for axis, at, size in zip(grid, (90, 140, 80), (1.2, 1, 0.8), strict=True))
    )
    maps = []
    ragged = 40 * ndimage.gaussian_filter(rng.standard_normal(BRATS, dtype=np.float32), 3)
    for own in (0, 1):
        noise = ragged + own * 15 * ndimage.gaussian_filter(rng.standard_normal(BRATS, dtype=np.float32), 2)
        label_map = np.zeros(BRATS, np.uint8)
        for label, radius in ((2, 30), (3, 20), (1, 12)):
            label_map[distance + noise < radius] = label
        maps.append(label_map)
    for centre in ((180, 60, 100), (170, 170, 40)):
        ball(maps[1], np.array(centre), 2.5, 2)
    return maps[1], maps[0]


def metastases(count: int, radii: tuple[float, float], shape: tuple[int, int, int] = BRATS, seed: int = 0) -> Maps:
    """Balls with a shell of edema; most are found a voxel or two from where they are, some missed, some false."""
    rng = np.random.default_rng(seed)
    prediction, reference = np.zeros((2, *shape), np.uint8)
    margin = 2 * radii[1] + 4
    centres: list[np.ndarray] = []
    while len(centres) < count:
        centre = rng.uniform(margin, np.array(shape) - margin)
        if all(np.linalg.norm(centre - other) > 2 * radii[1] + 8 for other in centres):
            centres.append(centre)
    for centre in centres:
        radius = rng.uniform(*radii)
        fate = rng.random()
        moved = centre + rng.uniform(-1.5, 1.5, 3)
        for share, label in ((1, 2), (0.75, 3), (0.4, 1)):
            ball(reference, centre, share * radius, label)
            if fate < 0.85:
                ball(prediction, moved, share * radius * 0.95, label)
        if fate > 0.9:
            ball(prediction, margin / 2 + (centre - margin) / 2, 1.5, 3)
    return prediction, reference


def corners(size: int = 512) -> Maps:
    """Five balls in the middle and towards four corners of a cube, so that no crop makes it small."""
    prediction, reference = np.zeros((2, size, size, size), np.uint8)
    for share in ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1), (0.1, 0.9, 0.9), (0.9, 0.1, 0.9), (0.9, 0.9, 0.1)):
        centre = size * np.array(share)
        for radius, label in ((40, 2), (30, 3), (15, 1)):
            ball(reference, centre, radius, label)
            ball(prediction, centre + 3, radius - 2, label)
    return prediction, reference


def measure(folder: str, repeats: int, spacing: tuple[float, float, float]) -> tuple[float, float, int]:
    """CPU seconds (median), peak MiB over the maps, and lesions of the region WT of the pair saved in a folder."""
    tiny = np.ones((4, 4, 4), np.uint8)
    lesion_wise_scores(tiny, tiny, spacing)
    maps = [np.load(Path(folder) / f"{name}.npy") for name in ("prediction", "reference")]
    held = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts from here.
    seconds = []
    for repeat in range(repeats):
        started = time.process_time()
        scores = lesion_wise_scores(*maps, spacing)
        seconds.append(time.process_time() - started)
        if not repeat:
            peak = memory("VmHWM")
    return statistics.median(seconds), (peak - held) / 2**20, len(scores["WT"].lesions)


def row(name: str, maps: Maps, repeats: int = 7, spacing: tuple[float, float, float] = UNIT, script: str = "") -> None:
    """Measure a pair and print its line, with what the script takes for such a one."""
    with tempfile.TemporaryDirectory() as folder:
        for part, label_map in zip(("prediction", "reference"), maps, strict=True):
            np.save(Path(folder) / part, label_map)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak, lesions = pool.apply(measure, (folder, repeats, spacing))
    points = sum(len(surface_of(label_map > 0, label_map, spacing)) for label_map in maps)
    print(f"{name:34} {lesions:7} {points:9} {1000 * seconds:8.0f} ms {peak:7.0f} MiB   {script}")


def reading(maps: Maps) -> float:
    """Wall-clock seconds of reading a pair from compressed files (median)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.nii.gz" for n in range(2)]
        for path, label_map in zip(paths, maps, strict=True):
            write_nifti(path, label_map, np.eye(4))
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            for path in paths:
                np.asarray(nibabel.load(path).dataobj)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def files(predictions: str, references: str) -> Iterator[tuple[str, Maps, tuple[float, float, float]]]:
    """Pairs of label maps on disk."""
    pairs, _, _ = pair_label_maps(Path(predictions), find_references(Path(references)), "brats", allow_missing=True)
    for pair in pairs:
        maps = pair.read()
        yield pair.case, (maps.prediction, maps.reference), maps.spacing


def main(predictions: str | None = None, references: str | None = None) -> None:
    """Print the table.

    Args:
        predictions: folder of label maps <case>.nii.gz, where 3 or 4 is ET; without it only generated ones are scored.
        references: their references, in any layout.
    """
    print(machine())
    print(f"{'pair':34} {'lesions':>7} {'surface':>9} {'CPU time':>11} {'memory':>11}   script")
    tumour = glioma()
    row("glioma", tumour, script=SCRIPT["glioma"])
    if predictions and references:
        for case, maps, spacing in files(predictions, references):
            row(case, maps, spacing=spacing, script=SCRIPT["glioma"] if maps[0].shape == BRATS else "")
    row("40 metastases", metastases(40, (3, 9)), script=SCRIPT["40 metastases"])
    for count in (1, 2, 5, 10, 20, 50, 100, 200):
        row(f"{count} of radius 4", metastases(count, (4, 4)))
    row("5 components in 512³", corners(), repeats=3)
    row("glioma, tumour everywhere", (np.full_like(tumour[0], 3), tumour[1]), repeats=1)
    print(f"reading the glioma's two files: {1000 * reading(tumour):.0f} ms")


if __name__ == "__main__":
    fire.Fire(main)
