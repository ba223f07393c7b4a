"""A small scan with one lesion, whose place in the patient is known."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

RAS = np.diag([1.0, 1.0, 2.0, 1.0])


class Scan(NamedTuple):
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray

    def turned(self, axes: str) -> Scan:
        """The same scan stored with other axes, such as LPS."""
        change = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(self.affine), nib.orientations.axcodes2ornt(axes)
        )
        affine = self.affine @ nib.orientations.inv_ornt_aff(change, self.label.shape)
        image = np.stack([nib.orientations.apply_orientation(channel, change) for channel in self.image])
        return Scan(image, nib.orientations.apply_orientation(self.label, change), affine)


@pytest.fixture
def scan() -> Scan:
    """RAS, 40×48×20 voxels of 1×1×2 mm; the lesion lies in the patient's right front upper part of the brain."""
    generator = np.random.default_rng(0)
    image = np.zeros((4, 40, 48, 20), np.float32)
    image[:, 4:36, 4:44, 2:18] = generator.normal(100, 5, (4, 32, 40, 16))
    label = np.zeros(image.shape[1:], np.uint8)
    label[24:34, 30:42, 11:17] = 2
    label[26:32, 33:39, 12:16] = 3
    label[28:30, 35:37, 13:15] = 1
    label[8:10, 8:10, 4:6] = 2
    image[:, label == 3] += 100
    return Scan(image, label, RAS)
