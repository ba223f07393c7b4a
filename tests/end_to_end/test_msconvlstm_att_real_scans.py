"""msconvlstm_att on real scans: the paper's form of training, and inference of every slice that holds brain."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.slow

# Pixels of 4 mm and few channels: the way of the data is the same.
SMALL = {"network_def#features": [4, 8, 8], "network_def#width": 8, "network_def#attention_depth": 0}
SIZES = {"pixel_size": [4.0, 4.0], "crop_size": [48, 48], "brain_box": False}


def test_slices_30_to_120_and_all_of_them_back(
    run_in_process: Callable[..., None], real_scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shared = {"bundle": "msconvlstm_att", **SMALL, **SIZES, "ckpt_dir": tmp_path / "models"}
    own = {"dataset_dir": real_scans / "brats2020", "output_dir": tmp_path / "run", "fractions": [0.5, 0.5, 0.0]}
    paper = {"slice_range": [30, 120], "epochs": 1, "val_interval": 1, "num_workers": 0}
    run_in_process("train", **shared, **own, **paper)
    said = capsys.readouterr().out
    assert re.search(r"training on 90 slices", said) and "is the best so far" in said
    (tmp_path / "scans").mkdir()
    for folder in (*(real_scans / "brats2020").iterdir(), *(real_scans / "brats_mets2023").iterdir()):
        (tmp_path / "scans" / folder.name).symlink_to(folder)
    for folder in (tmp_path / "scans").iterdir():
        run_in_process("inference", **shared, dataset_dir=folder, output_dir=tmp_path / "out", save_probabilities=True)
        found = nibabel.load(tmp_path / "out" / f"{folder.name}.nii.gz")
        scan = nibabel.load(next(folder.glob("*t1*.nii.gz")))
        assert found.shape == scan.shape == (240, 240, 155) and found.get_data_dtype() == np.uint8
        np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)
        background = nibabel.load(tmp_path / "out" / f"{folder.name}_probabilities.nii.gz").dataobj[..., 0]
        filled = np.asarray(scan.dataobj).any(axis=(0, 1))
        assert filled[:30].any() and filled[120:].any()
        # A slice that the network didn't see is background for certain.
        seen = background.min(axis=(0, 1)) < 0.999
        np.testing.assert_array_equal(seen[filled], True)
