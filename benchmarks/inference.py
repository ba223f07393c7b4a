"""Time of segmenting one whole scan: the bundle's inference against the plain pattern, with the same weights.

    python -m benchmarks.inference DATASET CHECKPOINT [--repeats 3]

The plain pattern is what most bundles of the model zoo do: float32, the whole volume, windows that overlap by half with
Gaussian weights, no crop. Both go from the files on disk to a label map on disk, in turns, in one process; reading the
weights' file is counted for the bundle (some 20 ms).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fire
import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, Orientation, Orientationd

from benchmarks.machine import machine
from common.data.layouts import list_cases
from common.data.writing import write_nifti
from common.metrics.region_scores import region_scores
from common.weights import load_weights

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "cga_unet" / "configs" / "inference.json"


def plain(network: torch.nn.Module, case: dict, out: Path, patch_size: int) -> None:
    """Read, turn as in training, normalise, slide, turn back, write."""
    prepare = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        ]
    )
    image = prepare({"image": case["image"]})["image"]
    stored = np.asarray(image.meta["original_affine"])
    windows = SlidingWindowInferer([patch_size] * 3, sw_batch_size=1, overlap=0.5, mode="gaussian")
    with torch.no_grad():
        label = windows(image[None].as_tensor(), network)[0].argmax(0, keepdim=True)
    turned = MetaTensor(label, affine=image.affine)
    label = Orientation("".join(nibabel.aff2axcodes(stored)), labels=None)(turned)[0]
    write_nifti(out / f"{case['case']}.nii.gz", label.numpy().astype(np.uint8), stored)


def bundle(dataset: str, checkpoint: str, case: dict, out: Path) -> Callable[[], None]:
    """The evaluator of inference.json for one case, ready to run."""
    parser = ConfigParser(ConfigParser.load_config_file(CONFIG))
    parser.update(
        {"dataset_dir": dataset, "output_dir": str(out), "weights": checkpoint, "overwrite": True, "data": [case]}
    )
    evaluator = parser.get_parsed_content("evaluator")
    return lambda: evaluator.run()


def main(dataset: str, checkpoint: str, repeats: int = 3, patch_size: int = 128) -> None:
    """Print the table: seconds of each way (median), their ratio, and the Dice of their outputs.

    Args:
        dataset: folder of scans in any layout; the first case is used.
        checkpoint: weights of CGA U-Net.
        repeats: how often each way is timed.
        patch_size: window of the plain pattern in voxels.
    """
    case = list_cases(dataset)[0]
    with tempfile.TemporaryDirectory() as folder:
        ours_dir, plain_dir = Path(folder) / "ours", Path(folder) / "plain"
        reference = ConfigParser(ConfigParser.load_config_file(CONFIG)).get_parsed_content("network_def")
        load_weights(reference, checkpoint)
        reference.eval()
        ways = {
            "plain": lambda: plain(reference, case, plain_dir, patch_size),
            "bundle": bundle(dataset, checkpoint, case, ours_dir),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        maps = [
            torch.from_numpy(np.asarray(nibabel.load(d / f"{case['case']}.nii.gz").dataobj))
            for d in (ours_dir, plain_dir)
        ]
    print(machine())
    print(f"case {case['case']}, {' × '.join(map(str, maps[0].shape))} voxels, {repeats} runs each, medians")
    for name, times in seconds.items():
        print(f"{name:8} {statistics.median(times):7.1f} s   ({', '.join(f'{t:.1f}' for t in times)})")
    ratios = [p / b for p, b in zip(seconds["plain"], seconds["bundle"], strict=True)]
    print(f"ratio    {statistics.median(ratios):7.1f}")
    scores = region_scores(*maps, (1, 1, 1))
    dice = {name: values["dice"] for name, values in scores.items()}
    print("Dice of the two outputs:", ", ".join(f"{name} {value:.4f}" for name, value in dice.items()))
    print(f"mean     {statistics.mean(dice.values()):7.4f}")


if __name__ == "__main__":
    fire.Fire(main)
