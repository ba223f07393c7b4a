"""The verbs of `python -m common`, as typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from common.__main__ import main

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line's status, in this process, since importing all anew for each takes longer than all else."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["lesion-bundles", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        except Exception:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            return 1
        return 0

    return run


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
        (("run", "cga_unet", "trian"), "error: cga_unet has no workflow trian: it has evaluate, "),
        (("run", "cga_unet", "train", "--list", "--epochss=3"), "error: unknown id 'epochss': did you mean 'epochs'?"),
        (
            ("cross_validate", "cga_unet", "nowhere", "x", "--epochss=3"),
            "error: unknown id 'epochss': did you mean 'epochs",
        ),
        (("run", "cga_unet", "train", "epochs=2", "--list"), "error: epochs=2 is no option: write --epochs 2"),
        (("folds", "nowhere"), "error: nowhere: is no folder"),
        (("data", "nowhere", "out=x"), "error: out=x is no option: write --out x"),
        (("folds", "nowhere", "--oot", "x"), "error: unknown option --oot: --help shows them all"),
        (("data", "nowhere"), "error: nowhere: is no folder"),
        (("dicom_in", "nowhere", "--out=x"), "error: nowhere: does not exist; give a folder or zip of DICOM files"),
        (
            ("dicom_seg", "no.nii", "study", "cga_unet", "--out=x"),
            "error: case no, no.nii: does not exist; add the file",
        ),
        (("phantoms", "x", "--layout=brats"), "error: "),
        (("image_phantoms", "x", "xray"), "error: kind of image 'xray' is not known; choose one of ultrasound, ct"),
        (("report", "nowhere", "nothing"), "error: "),
    ],
)
def test_mistakes_are_one_line(
    typed: Callable[..., int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
):
    assert typed(*words) == 1
    told = capsys.readouterr().err
    assert told.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--optimizer#lr=abc", "error: TypeError: '<=' not supported between instances of 'float' and 'str'; --debug"),
        (
            "--lr_scheduler#_target_=torch.optim.Polynomial",
            "error: ModuleNotFoundError: Cannot locate class or function path: 'torch.optim.Polynomial'.; --debug",
        ),
    ],
)
def test_part_that_cannot_be_made(command: Command, phantoms: dict[str, Path], tmp_path: Path, word: str, line: str):
    """One line from `common run`, of an error that MONAI raises; the traceback on demand."""
    places = [f"--{id}={tmp_path / id}" for id in ("output_dir", "ckpt_dir", "cache_dir")]
    words = ("common", "run", "cga_unet", "train", f"--dataset_dir={phantoms['brats2018']}", *places, word)
    done = command(*words)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in done.stderr
    assert "Traceback" in command(*words, "--debug").stderr


def test_help_of_each_verb(typed: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    for verb, word in {
        "run": "any id of the config",
        "cross_validate": "any id of the configs",
        "phantoms": "LAYOUT",
        "image_phantoms": "SIZE",
        "data": "FOLDER",
        "dicom_in": "STUDY",
        "dicom_seg": "LABEL_MAP",
        "label_efficiency": "FOLDER",
        "report": "PREDICTIONS_DIR",
        "demo": "FOLDER",
    }.items():
        typed(verb, "--help")
        said = capsys.readouterr()
        assert word in said.out + said.err, verb
