"""The verbs of `python -m common`, as typed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from common.__main__ import _parse, main
from common.cross_validation import cross_validate
from common.dicom_cases import dicom_in, dicom_seg
from common.export.bundle import export
from common.report.build import report
from common.report.label_efficiency import label_efficiency
from common.running import run
from common.scoring import score

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
        (("dicom_in", "2024_1", "--out=x"), "error: 2024_1: does not exist; give a folder or zip of DICOM files"),
        (("dicom_seg", "no.nii", "study", "7", "--out=x"), "error: no bundle 7: give a bundle's folder, or one of "),
        (("dicom_in", "study", "--out"), "error: --out needs a value: write --out VALUE"),
        (("dicom_in", "study", "--out=x", "--t1c", "--t2f=4"), "error: --t1c needs a value: write --t1c VALUE"),
        (("dicom_seg", "no.nii", "study", "7", "--out=x", "--picture"), "error: --picture needs a value"),
        (("dicom_in", "study", "x", "extra"), "error: extra is no option: write --ID VALUE"),
        (("dicom_seg", "no.nii", "study", "7", "x", "extra"), "error: extra is no option: write --ID VALUE"),
        (("export", "cga_unet", "extra"), "error: extra is no option: write --ID VALUE"),
        (("phantoms", "nowhere", "8"), "error: 8 is no option: write --ID VALUE"),
        (("check", "x", "extra"), "error: extra is no option: write --ID VALUE"),
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


WORDS = ("True", "2024_1", "1e5", "06", "4a", "007", "[1,2]", "None", "3.10", "'a'", "a b", "0x10")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("verb", "places", "options"),
    [
        (dicom_in, 2, ("case", "grid", "t1n", "t1c", "t2w", "t2f")),
        (dicom_seg, 4, ("picture", "series")),
        (score, 3, ("preset", "out")),
        (label_efficiency, 1, ("out",)),
        (report, 2, ("out", "bundle", "checkpoint")),
        (export, 1, ("out", "checkpoint", "weights_url")),
        (run, 2, ()),
        (cross_validate, 3, ()),
    ],
)
def test_text_arrives_as_typed(
    monkeypatch: pytest.MonkeyPatch, verb: Callable[..., None], places: int, options: tuple[str, ...], word: str
):
    """By its place, and by its name in two forms."""
    for form in (lambda name: [f"--{name}={word}"], lambda name: [f"--{name}", word]):
        given = [part for name in options for part in form(name)]
        monkeypatch.setattr(sys, "argv", ["lesion-bundles", "verb", *[word] * places, *given])
        (call,) = _parse({"verb": verb})
        assert call.args[:places] == (word,) * places
        found = inspect.signature(verb).bind(*call.args, **call.keywords).arguments
        assert {name: found[name] for name in options} == dict.fromkeys(options, word)


def test_ids_are_values(monkeypatch: pytest.MonkeyPatch):
    """As MONAI's command takes them."""
    monkeypatch.setattr(
        sys,
        "argv",
        ["lesion-bundles", "run", "cga_unet", "train", "--epochs", "1e2", "--patch_size=[8,8,8]", "--amp", "--fold=0"],
    )
    (call,) = _parse({"run": run})
    assert call.args == ("cga_unet", "train")
    assert call.keywords == {"epochs": 100.0, "patch_size": [8, 8, 8], "amp": True, "fold": 0}
    monkeypatch.setattr(sys, "argv", ["lesion-bundles", "dicom_in", "a", "b", "--study_number", "2"])
    (call,) = _parse({"dicom_in": dicom_in})
    assert call.keywords["study_number"] == 2


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
        assert "GROUP" not in said.out + said.err, verb
