"""Whether the patches that MPS-AMS takes for lesion hold one, on generated images of each kind.

Recall is the share of all lesion pixels that lie in patches taken for lesion, precision the share of these patches that
hold any; by chance precision would be the share of all patches that do. Images are prepared as the bundle does, at
224²; those without lesion are left out.

    python -m benchmarks.lesion_patches [--cases 12] [--patches 8 16]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from monai.transforms import Compose, Orientationd, Resized

from common.data.image_layouts import list_images
from common.data.image_phantoms import make_image_phantoms
from common.data.phantoms import make_phantoms
from common.networks.adaptive_masking import lesion_patches
from common.networks.patches import patchify
from common.transforms.load_slices import LoadLesiond, LoadSlicesd
from common.transforms.normalize import NormalizeBraind

from .machine import machine

SIZE = 224


class Kind(NamedTuple):
    """Images of a folder: the modality that is taken, and the window of values."""

    folder: str
    modality: str = "t1n"
    window: tuple[float, float] | None = None


KINDS = {
    "FLAIR, glioma": Kind("mri", "t2f"),
    "T1 with contrast, glioma": Kind("mri", "t1c"),
    "T1, glioma": Kind("mri"),
    "ultrasound": Kind("ultrasound"),
    "CT, -160 to 240 HU": Kind("ct", window=(-160, 240)),
}


def slices(root: Path, kind: Kind) -> tuple[torch.Tensor, torch.Tensor]:
    """All slices with lesion (N, 1, H, W), prepared, and their masks."""
    keys = ("image", "label")
    steps = Compose(
        [
            LoadSlicesd("image", kind.window),
            LoadLesiond("label"),
            Orientationd(keys, "SPL", labels=None),
            NormalizeBraind("image"),
            Resized(keys, (-1, SIZE, SIZE), mode=("trilinear", "nearest"), anti_aliasing=(True, False)),
        ]
    )
    images, labels = [], []
    for case in list_images(root / kind.folder, kind.modality):
        prepared = steps(case)
        image, label = (prepared[key].as_tensor()[0] for key in keys)
        there = label.flatten(1).any(dim=1)
        images.append(image[there])
        labels.append(label[there])
    return torch.cat(images)[:, None], torch.cat(labels)[:, None]


def main() -> None:
    """Print a row for each kind and size of patches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12, help="ultrasound images; half as many volumes (default: 12)")
    parser.add_argument("--patches", nargs="+", type=int, default=[8, 16], help="pixels along each side of a patch")
    given = parser.parse_args()
    print(machine())
    print(f"{'':26}{'slices':>8}{'patch':>7}{'recall':>8}{'precision':>11}{'by chance':>11}{'taken':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        root, volumes = Path(temporary), max(1, given.cases // 2)
        make_phantoms(root / "mri", cases=volumes, layout="brats2018", kind="glioma", shape=96)
        make_image_phantoms(root / "ultrasound", "ultrasound", cases=given.cases)
        make_image_phantoms(root / "ct", "ct", cases=volumes)
        for name, kind in KINDS.items():
            image, label = slices(root, kind)
            for edge in given.patches:
                found = torch.cat([lesion_patches(batch, (edge, edge)) for batch in image.split(16)])
                pixels = patchify(label.float(), (edge, edge)).sum(dim=2)
                recall, holds = float(pixels[found].sum() / pixels.sum()), pixels > 0
                cells = f"{recall:8.2f}{float(holds[found].float().mean()):11.2f}{float(holds.float().mean()):11.2f}"
                print(f"{name:26}{len(image):8}{edge:7}{cells}{float(found.float().mean()):8.2f}", flush=True)


if __name__ == "__main__":
    main()
