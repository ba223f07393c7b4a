"""`python -m common score`: as typed, on phantoms, with every mistake."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.data.reading import read_label
from common.errors import InputError
from common.scoring import score

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score") / "data"
    make_phantoms(str(folder), cases=4, shape=48, seed=3, kind="metastases")
    return folder


@pytest.fixture(scope="module")
def methods(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Predictions of two methods: the truth, and an eroded one that misses what is small and adds a false lesion."""
    folder = tmp_path_factory.mktemp("methods")
    for case in list_cases(dataset):
        label, affine = read_label(case)
        eroded = label * binary_erosion(label > 0)
        eroded[1:4, 1:4, 1:4] = 3
        for name, prediction in (("good", label), ("poor", eroded)):
            (folder / name).mkdir(exist_ok=True)
            file = folder / name / f"{case['case']}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(prediction.astype(np.uint8), affine), file)
    return [folder / "good", folder / "poor"]


@pytest.mark.slow
def test_one_method(command: Command, dataset: Path, methods: list[Path], tmp_path: Path):
    done = command("common", "score", methods[0], dataset, f"--out={tmp_path / 'out'}", "--preset=brats2023-met")
    assert done.returncode == 0, done.stderr
    assert "good, brats2023-met, mean±standard deviation (median) of 4 cases" in done.stdout
    assert "1.000±0.000 (1.000)" in done.stdout
    written = json.loads((tmp_path / "out" / "lesions.json").read_text())
    assert all(row["dice"] == 1 and row["hd95"] == 0 and row["fp"] == 0 for row in written["cases"])
    assert sum(len(row["lesions"]) for row in written["cases"]) > 4
    with (tmp_path / "out" / "lesions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    page = (tmp_path / "out" / "lesions.html").read_text()
    assert "good" in page


@pytest.mark.slow
def test_two_methods_are_compared(dataset: Path, methods: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    score(*map(str, methods), str(dataset), out=str(tmp_path))
    shown = capsys.readouterr().out
    assert "WT dice      good − poor: +0." in shown
    with (tmp_path / "comparison.csv").open() as file:
        rows = {(row["region"], row["score"]): row for row in csv.DictReader(file)}
    assert len(rows) == 9
    dice = rows["WT", "dice"]
    assert float(dice["low"]) <= float(dice["difference"]) <= float(dice["high"])
    assert float(dice["p"]) == 0.125  # the least that four pairs can give
    poor = json.loads((tmp_path / "poor" / "lesions.json").read_text())
    assert all(row["fp"] >= 1 for row in poor["cases"])
    assert (tmp_path / "good" / "lesions.csv").is_file()


def test_without_out_nothing_is_written(dataset: Path, methods: list[Path], capsys: pytest.CaptureFixture):
    before = sorted(methods[1].parent.glob("**/*"))
    score(str(methods[1]), str(dataset), preset="fancl", penalty=100, dilation=2)
    assert "poor, fancl" in capsys.readouterr().out
    assert sorted(methods[1].parent.glob("**/*")) == before


@pytest.mark.slow
def test_one_bad_file_among_many(command: Command, dataset: Path, methods: list[Path], tmp_path: Path):
    """The others are scored; the run ends with the bad one's line."""
    folder = Path(shutil.copytree(methods[0], tmp_path / "some"))
    bad = sorted(folder.iterdir())[1]
    name = bad.name.removesuffix(".nii.gz")
    bad.write_bytes(bad.read_bytes()[:100])
    done = command("common", "score", folder, dataset, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line == "error: 1 of 4 label maps can't be scored, each named above"
    line = done.stderr.strip().splitlines()[-2]
    assert line.startswith(f"error: case {name}, {bad}: is truncated or damaged; ")
    assert "of 3 cases" in done.stdout
    written = json.loads((tmp_path / "out" / "lesions.json").read_text())
    assert len(written["cases"]) == 9 and list(written["failed"]) == [name]


def test_settings_reach_the_scores(dataset: Path, methods: list[Path], tmp_path: Path):
    def scored(**settings: object) -> dict[str, object]:
        score(str(methods[1]), str(dataset), out=str(tmp_path), **settings)
        written = json.loads((tmp_path / "lesions.json").read_text())
        policy = written["policy"]
        assert all(policy[name] == value for name, value in settings.items() if name in policy)
        return {name: [row[name] for row in written["cases"]] for name in ("hd95", "tp", "fn", "surface_dice")}

    by_default = scored()
    assert scored(penalty=100)["hd95"] != by_default["hd95"]
    assert scored(threshold=500)["fn"] != by_default["fn"]
    assert scored(tolerance=5)["surface_dice"] != by_default["surface_dice"]
    joined = scored(dilation=8)
    assert (joined["tp"], joined["fn"]) != (by_default["tp"], by_default["fn"])
    assert scored(preset="fancl")["hd95"] != by_default["hd95"]


def test_conventions_and_affines_are_as_told(dataset: Path, methods: list[Path], tmp_path: Path):
    """A reference whose numbers mean something else, and predictions that state another place."""
    moved, decathlon = tmp_path / "moved", tmp_path / "decathlon"
    for folder in (moved, decathlon):
        folder.mkdir()
    for case in list_cases(dataset):
        label, affine = read_label(case)
        file = f"{case['case']}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.array([0, 2, 1, 3], np.uint8)[label], affine), decathlon / file)
        affine[:3, 3] += 5
        nibabel.save(
            nibabel.Nifti1Image(nibabel.load(methods[1] / file).get_fdata().astype(np.uint8), affine), moved / file
        )
    with pytest.raises(InputError, match="4 of 4 label maps can't be scored"):
        score(str(moved), str(dataset))
    score(str(moved), str(dataset), ignore_affine=True, out=str(tmp_path / "out"))
    assert "data:image" in (tmp_path / "out" / "lesions.html").read_text()  # its false lesions
    for convention in ("canonical", "decathlon"):
        out = tmp_path / "out" / convention
        score(str(methods[0]), str(decathlon), reference_convention=convention, out=str(out))
        rows = json.loads((out / "lesions.json").read_text())["cases"]
        perfect = all(row["volume_dice"] == 1 for row in rows if row["region"] == "TC")
        assert perfect is (convention == "decathlon")


def test_unpaired_cases(dataset: Path, methods: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = Path(shutil.copytree(methods[0], tmp_path / "some"))
    first = sorted(folder.iterdir())[0]
    first.rename(folder / "other.nii.gz")
    with pytest.raises(InputError, match=r"some: no prediction for .*-000; no reference for other; add them, or say"):
        score(str(folder), str(dataset))
    score(str(folder), str(dataset), allow_missing=True, out=str(tmp_path / "out"))
    shown = capsys.readouterr().out
    name = first.name.removesuffix(".nii.gz")
    assert f"some: no prediction for {name}: scored as predicted empty" in shown
    assert "no reference for other: left out" in shown and "of 4 cases" in shown
    written = json.loads((tmp_path / "out" / "lesions.json").read_text())
    assert written["missing"] == [name]
    assert next(row["fn"] > 0 and row["tp"] == 0 for row in written["cases"] if row["case"] == name)
    with (tmp_path / "out" / "lesions.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file) if row["missing"] == "1"} == {name}


@pytest.mark.parametrize(
    ("folders", "options", "line"),
    [
        ((), {}, "give at least two folders"),
        (("good",), {}, "give at least two folders"),
        (("good", "data"), {"preset": "brats"}, "preset 'brats' is unknown; use one of brats2023-met"),
        (("good", "good", "data"), {}, "the same predictions twice"),
        (("none", "data"), {}, "none: is no folder"),
        (("good", "none"), {}, "none: is no folder"),
        (
            ("good", "data"),
            {"prediction_convention": "x"},
            "prediction_convention is 'x': give one of canonical, brats2018",
        ),
        (("good", "data"), {"preset": [1]}, r"preset \[1\] is unknown"),
        (("good", "data"), {"penalty": "high"}, "penalty is 'high': give a distance in mm"),
        (("good", "data"), {"dilation": 1.5}, "dilation is 1.5: give a whole number"),
        (("good", "data"), {"treshold": 5}, "unknown option --treshold: did you mean --threshold"),
        (("good", "data"), {"zzz": 5}, "unknown option --zzz: there are preset, out, "),
        (("good", "data"), {"out": True}, "out is True: give a path"),
        (("good", "data"), {"out": ""}, "out is '': give a path"),
        (("good", "data"), {"allow_missing": "false"}, "allow_missing is 'false': give True or False"),
    ],
)
def test_mistakes(dataset: Path, methods: list[Path], folders: tuple[str, ...], options: dict[str, object], line: str):
    places = {"good": methods[0], "data": dataset, "none": dataset.parent / "none"}
    with pytest.raises(InputError, match=line):
        score(*(str(places[name]) for name in folders), **options)
