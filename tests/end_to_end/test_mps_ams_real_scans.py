"""mps_ams on slices of real MRI: pre-trained on three scans without labels, trained on one's, tried on another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.slow

NETWORK = {"features": [8, 8, 16, 16, 16], "image_size": [64, 64]}


def test_t1_slices(
    run_in_process: Callable[..., None], real_scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scans = tmp_path / "unlabelled"
    scans.mkdir()
    for path in (*real_scans.rglob("*_t1.nii.gz"), *real_scans.rglob("*-t1n.nii.gz")):
        (scans / f"{path.parent.name}.nii.gz").symlink_to(path)
    shared = {"bundle": "mps_ams", **NETWORK}
    training = {"num_workers": 0, "cache_dir": tmp_path / "cache", "ckpt_dir": tmp_path / "models"}
    own = {"output_dir": tmp_path / "pretraining", "masked_patch": [8, 8], "epochs": 2, "val_interval": 1}
    own |= {"partition_file": tmp_path / "all.json", "fractions": [0.7, 0.3, 0.0], "dataset_dir": scans}
    run_in_process("pretrain", **shared, **training, **own)
    said = capsys.readouterr().out
    assert "slices of 2 images" in said and "is the best so far" in said
    assert (tmp_path / "pretraining" / "masking.html").is_file()

    names = sorted(path.name for path in (real_scans / "brats2020").iterdir())
    parts = {"training": names[:1], "validation": names[:1], "test": names[1:]}
    (tmp_path / "parts.json").write_text(json.dumps({"parts": parts}))
    where = {"dataset_dir": real_scans / "brats2020", "partition_file": tmp_path / "parts.json"}
    begin = {"pretrained": tmp_path / "models" / "pretrained.pt", "output_dir": tmp_path / "run", "epochs": 1}
    run_in_process("train", **shared, **training, **where, **begin)
    assert "moved " in capsys.readouterr().out
    run_in_process("evaluate", **shared, **where, ckpt_dir=tmp_path / "models", output_dir=tmp_path / "scores")
    rows = json.loads((tmp_path / "scores" / "scores.json").read_text())["cases"]
    assert [row["case"] for row in rows if row["region"] == "patient"] == names[1:]
    own = {"dataset_dir": scans, "output_dir": tmp_path / "masks", "ckpt_dir": tmp_path / "models"}
    run_in_process("inference", **shared, **own)
    for path in scans.iterdir():
        mask, scan = nibabel.load(tmp_path / "masks" / path.name), nibabel.load(path)
        assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
        assert (tmp_path / "masks" / "overlays" / path.name.replace(".nii.gz", ".png")).is_file()
