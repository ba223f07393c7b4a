"""Three small cases, and data sets of them that note which cases they prepare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose, Orientationd, RandFlipd, RandScaleIntensityd, RandSpatialCropSamplesd

from common.data import case_dataset
from common.data.case_dataset import CaseDataset
from common.data.case_files import Case
from common.data.layouts import list_cases
from common.data.writing import write_case
from common.transforms.crop import CropBraind
from common.transforms.load import LoadLabelMapd, LoadScand
from common.transforms.normalize import NormalizeBraind

BOTH = ["image", "label"]


class Noted(NormalizeBraind):
    """Normalises, and notes the case in a list of the whole process."""

    cases: list[str] = []  # noqa: RUF012

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        self.cases.append(data["case"])
        return super().__call__(data)


@pytest.fixture
def prepared() -> list[str]:
    """Names of the cases that are prepared during the test."""
    Noted.cases.clear()
    return Noted.cases


@pytest.fixture
def transforms() -> Callable[..., Compose]:
    """Makes the transforms of a training: five that are always the same, three random ones."""

    def transforms(size: int = 8, axes: str = "RAS") -> Compose:
        return Compose(
            [
                LoadScand("image"),
                LoadLabelMapd("label"),
                CropBraind(BOTH),
                Orientationd(BOTH, axcodes=axes, labels=None),
                Noted("image"),
                RandSpatialCropSamplesd(BOTH, [size] * 3, num_samples=2, random_size=False),
                RandFlipd(BOTH, prob=0.5, spatial_axis=0),
                RandScaleIntensityd("image", factors=0.1, prob=1.0),
            ]
        )

    return transforms


@pytest.fixture
def write() -> Callable[[Path, str, int], None]:
    """Writes a case of 16 voxels along each axis, of which 14 aren't zero."""

    def write(folder: Path, name: str, seed: int) -> None:
        images = np.zeros((4, 16, 16, 16), np.int16)
        images[:, 1:15, 1:15, 1:15] = np.random.default_rng(seed).integers(1, 900, (4, 14, 14, 14))
        write_case(folder, "brats2023", name, images, (images[0] % 4).astype(np.uint8), np.diag([-1.0, 1, 2, 1]))

    return write


@pytest.fixture
def three_cases(tmp_path: Path, write: Callable[[Path, str, int], None]) -> Path:
    for number, name in enumerate("abc"):
        write(tmp_path / "data", name, number)
    return tmp_path / "data"


@pytest.fixture
def make(
    tmp_path: Path,
    three_cases: Path,
    transforms: Callable[..., Compose],
    prepared: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., CaseDataset]:
    """Makes a data set of the three cases that keeps them in `cache`."""
    # Whatever is kept counts as used by this run, until a test says otherwise.
    monkeypatch.setattr(case_dataset, "_RUN_STARTED", 0)

    def make(cases: list[Case] | None = None, compose: Compose | None = None, **given: Any) -> CaseDataset:
        return CaseDataset(cases or list_cases(three_cases), compose or transforms(), tmp_path / "cache", **given)

    return make
