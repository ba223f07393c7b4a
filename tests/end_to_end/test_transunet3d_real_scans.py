"""3D-TransUNet on real scans: blocks pre-trained on them without labels, a few steps with labels, and a label map."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data.layouts import list_cases

pytestmark = pytest.mark.slow

COARSE = {"bundle": "transunet3d", "spacing": [2.0, 2.0, 2.0], "num_workers": 0}
ENCODER = {"encoder_layers": 1, "encoder_width": 48, "encoder_heads": 4, "encoder_mlp": 96}
NETWORK = {"variant": "both", "decoder_layers": 2, "features": [8, 16, 16, 16], "window_size": [64, 64, 64], **ENCODER}


def test_from_pretraining_to_a_label_map(
    run_in_process: Callable[..., None], real_scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset = real_scans / "brats2020"
    names = [case["case"] for case in list_cases(dataset, labelled=True)]
    shared = {"dataset_dir": dataset, "cache_dir": tmp_path / "cache", **COARSE}
    small = {"patch_size": [32, 32, 32], "epochs": 2, "val_interval": 1}
    places = {"output_dir": tmp_path / "pretraining", "ckpt_dir": tmp_path / "models"}
    own = {"token_size": [4, 8, 8], "warmup_epochs": 1, "fractions": [0.5, 0.5, 0.0]}
    run_in_process("pretrain", **shared, **places, **small, **own, **ENCODER)
    assert f"2 of 2 cases in {dataset} have labels, which are ignored" in capsys.readouterr().out
    assert (tmp_path / "pretraining" / "reconstructions.html").is_file()

    folds = [{"training": [a], "validation": [a], "test": [b]} for a, b in (names, names[::-1])]
    (tmp_path / "folds.json").write_text(json.dumps({"folds": folds}))
    fold = {"fold": 0, "partition_file": tmp_path / "folds.json", "ckpt_dir": tmp_path / "models"}
    places = {**fold, "output_dir": tmp_path / "run", "pretrained": tmp_path / "models" / "pretrained.pt"}
    run_in_process("train", **shared, **places, **{**small, "epochs": 1}, **NETWORK, steps_per_epoch=2)
    assert "moved 14 tensors" in capsys.readouterr().out

    views = {"flips": [0], "rotations": False, "members": str(tmp_path / "models" / "model.pt"), "draw": 1}
    own = {key: value for key, value in COARSE.items() if key != "num_workers"}
    run_in_process("ensemble", dataset_dir=dataset, output_dir=tmp_path / "maps", **own, **NETWORK, **views)
    for case in list_cases(dataset, labelled=True):
        found, reference = nibabel.load(tmp_path / "maps" / f"{case['case']}.nii.gz"), nibabel.load(case["label"])
        assert found.shape == reference.shape and found.get_data_dtype() == np.uint8
        np.testing.assert_allclose(found.affine, reference.affine, atol=1e-5)
