"""Every bundle's preparation and its inverse: what is found in the prepared image lies there in the scan, too."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image
from scipy.ndimage import center_of_mass, gaussian_filter

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/inference.json"))
SHAPES = {"cube": (30, 34, 28), "thin": (30, 34, 5)}
TILT = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.3, 0.1, 0.2), [7, -20, 3])


def write_scan(
    path: Path, shape: tuple[int, int, int], voxel: tuple[float, ...], axes: str, oblique: bool, channels: int
) -> None:
    """A scan, 4D with several channels, of bright and dark blobs in an ellipsoid of a brain that touches no side."""
    random = np.random.default_rng(3)
    places = np.stack(np.meshgrid(*(np.linspace(-1.15, 1.15, size) for size in shape), indexing="ij"))
    images = np.stack([gaussian_filter(random.normal(size=shape), 2.5) for _ in range(4)])
    images = (22 + 18 * np.tanh(5 * images / images.std())) * ((places**2).sum(0) < 1)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    affine = (TILT if oblique else np.eye(4)) @ np.diag([*voxel, 1]) @ inv_ornt_aff(turn, shape)
    turned = np.stack([apply_orientation(image, turn) for image in images[:channels]], axis=-1)
    turned = turned[..., 0] if channels == 1 else turned
    nibabel.save(nibabel.Nifti1Image(turned.astype(np.float32), affine), path)


# What the bundles pad scans to; windows pad what is smaller than they are.
SMALLEST = {"cga_unet": 8}
# Settings that prepare scans in another way.
OTHERWISE: list[tuple[str, dict[str, Any]]] = [
    ("msconvlstm_att", {"planes": ["axial", "sagittal"]}),
    ("msconvlstm_att", {"brain_box": False, "crop_size": [60, 60]}),
]
# Slices become as large as the network wants them.
RESIZED = {"mps_ams"}


@pytest.mark.parametrize(
    ("shape", "axes", "oblique", "voxel"),
    [
        *product(SHAPES, ("RAS", "LPS", "PIR"), (False, True), [(1.0, 1.0, 1.0)]),
        ("cube", "LPS", False, (1.0, 1.0, 2.0)),
        ("cube", "PIR", True, (0.8, 1.0, 1.6)),
        ("thin", "LPS", True, (1.0, 1.0, 5.0)),
    ],
)
@pytest.mark.parametrize(("name", "given"), [*((name, {}) for name in NAMES), *OTHERWISE])
def test_labels_return_to_where_the_image_had_them(
    tmp_path: Path,
    name: str,
    given: dict[str, Any],
    shape: str,
    axes: str,
    oblique: bool,
    voxel: tuple[float, ...],
):
    """A "network" that calls the first channel's brighter half class 1 must give back that half of the scan."""
    path = tmp_path / "scan.nii.gz"
    parser = ConfigParser()
    parser.read_config(os.fspath(BUNDLES / name / "configs" / "inference.json"))
    parser.read_meta(os.fspath(BUNDLES / name / "configs" / "metadata.json"))
    parser.update(given)
    channels = parser["_meta_"]["network_data_format"]["inputs"]["image"]["num_channels"]
    write_scan(path, SHAPES[shape], voxel, axes, oblique, channels)
    prepared = parser.get_parsed_content("preprocessing")({"case": "scan", "image": os.fspath(path)})
    first = prepared["image"][:1]
    assert min(first.shape[1:]) >= SMALLEST.get(name, 1)
    nothing = first * 0 - 100
    # Of labels, of the regions WT, TC and ET, of which class 1 is in the first two, or of one region.
    outputs = parser["_meta_"]["network_data_format"]["outputs"]["pred"]["num_channels"]
    maps = {4: [-first, first, nothing, nothing], 3: [first, first, nothing], 1: [first - 1e-3]}[outputs]
    prepared["pred"] = MetaTensor.ensure_torch_and_prune_meta(np.concatenate(maps), dict(first.meta))
    prepared["pred"].applied_operations = prepared["image"].applied_operations
    found = parser.get_parsed_content("postprocessing")(prepared)["pred"]

    scan = nibabel.load(path)
    image = np.asarray(scan.dataobj).reshape(*scan.shape[:3], -1)[..., 0]
    truth = image > image[image != 0].mean()
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)
    assert found.shape == (1, *image.shape)
    label = found[0].numpy()
    if voxel == (1.0, 1.0, 1.0) and name not in RESIZED:
        np.testing.assert_array_equal(label, truth)
    else:  # there and back between grids
        assert 2 * (label * truth).sum() / (label.sum() + truth.sum()) > (0.87 if name in RESIZED else 0.9)


@pytest.mark.parametrize("size", [[32, 32], [64, 48], [224, 224]])
def test_labels_lie_where_the_image_has_them(tmp_path: Path, size: list[int]):
    """Of pictures that are brought to the network's size: the centres of bright lesions and of their masks, on average.

    One by one they differ by what the nearest pixel is off.
    """
    parser = ConfigParser()
    parser.read_config(os.fspath(BUNDLES / "mps_ams" / "configs" / "train.json"))
    parser["image_size"] = size
    steps = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    random, off = np.random.default_rng(0), []
    for _ in range(20):
        top, left = random.integers(20, 300, 2)
        height, width = random.integers(60, 110, 2)
        lesion = np.zeros((500, 430), np.uint8)
        lesion[top : top + height, left : left + width] = 255
        Image.fromarray(lesion).save(tmp_path / "a_mask.png")
        Image.fromarray(lesion // 2 + 100).save(tmp_path / "a.png")
        prepared = steps({"case": "a", "image": str(tmp_path / "a.png"), "label": [str(tmp_path / "a_mask.png")]})
        image, label = (prepared[key][0, 0].numpy() for key in ("image", "label"))
        assert list(label.shape) == size
        off.append(np.subtract(center_of_mass(image - image.min()), center_of_mass(label)))
    assert np.abs(np.mean(off, axis=0)).max() < 0.12
