"""The verbs of `python -m common`, as typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]


def test_phantoms_then_data(command: Command, tmp_path: Path):
    done = command("common", "phantoms", tmp_path / "data", "--cases=2", "--shape=24", "--layout=nnunet")
    assert done.returncode == 0, done.stderr
    done = command("common", "data", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "nnU-Net raw" in done.stdout
    assert "24" in done.stdout
    next((tmp_path / "data" / "imagesTr").glob("*_0002.nii.gz")).write_bytes(b"damaged")
    done = command("common", "data", tmp_path / "data")
    assert done.returncode == 1
    assert "is not a NIfTI file" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "cga_net", "train"), "error: no bundle cga_net: give a bundle's folder, or one of cga_unet"),
        (("run", "cga_unet", "trian"), "error: cga_unet has no workflow trian: it has evaluate, evaluate_predictions,"),
        (("run", "cga_unet", "train", "--spacing=None"), "error: --spacing None: MONAI ignores an override without"),
        (("data", "nowhere"), "error: nowhere: is no folder"),
        (("phantoms", "x", "--layout=brats"), "error: "),
        (("report", "nowhere", "nothing"), "error: "),
    ],
)
def test_mistakes_are_one_line(command: Command, words: tuple[str, ...], line: str):
    done = command("common", *words)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in done.stderr


def test_help_of_each_verb(command: Command):
    for verb, word in {
        "run": "any id of the config",
        "phantoms": "LAYOUT",
        "data": "FOLDER",
        "report": "PREDICTIONS_DIR",
        "demo": "FOLDER",
    }.items():
        done = command("common", verb, "--help")
        assert "Traceback" not in done.stderr
        assert word in done.stdout + done.stderr, verb
