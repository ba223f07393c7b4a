"""What can be wrong with a curriculum or with stages: one line each, and nothing is trained."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from common import curriculum_mining
from common.data.curriculum_folder import write_curricula
from common.data.folds import draw_folds, lesion_volumes
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.data.reading import read_label
from common.losses.fancl import FANCLLoss

Line = Callable[..., str]
made = FANCLLoss.__init__
TINY = {
    "bundle": "fancl",
    "features": [4, 8, 8],
    "attention_patch": [4, 4],
    "resample": False,
    "window_size": [16, 16, 16],
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 1,
    "val_interval": 1,
    "num_workers": 0,
    "stages": [1, 1],
    "fractions": [1.0, 0.0, 0.0],
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metastases") / "data"
    make_phantoms(str(folder), cases=3, seed=3, shape=24, kind="metastases")
    return folder


@pytest.fixture(scope="module")
def mined(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curricula of two stages, as if a network had found the left half of each lesion."""
    root = tmp_path_factory.mktemp("mined")
    for case in list_cases(scans, labelled=True):
        label, affine = read_label(case)
        half = np.array(label)
        half[: half.shape[0] // 2] = 0
        for stage in ("one", "two"):
            (root / stage).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(half.astype(np.uint8), affine), root / stage / f"{case['case']}.nii.gz")
    write_curricula(list_cases(scans, labelled=True), [root / "one", root / "two"], root / "curriculum")
    return root / "curriculum"


@pytest.fixture
def curriculum(mined: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(mined, tmp_path / "curriculum")


def one_file(curriculum: Path) -> Path:
    return sorted(curriculum.glob("*.nii.gz"))[0]


def change(path: Path, voxels: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(voxels(np.array(image.dataobj)), image.affine), path)


def outside(voxels: np.ndarray) -> np.ndarray:
    voxels[0, 0, 0] = 1
    return voxels


def forget(curriculum: Path) -> None:
    one_file(curriculum).unlink()


def of_others(curriculum: Path) -> None:
    for path in curriculum.glob("*.nii.gz"):
        path.rename(path.with_name(f"other-{path.name}"))


def told_otherwise(name: str, value: object) -> Callable[[Path], None]:
    def spoil(curriculum: Path) -> None:
        manifest = curriculum / "curriculum.json"
        manifest.write_text(json.dumps({"categories": "labels", "stages": 2, name: value}))

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "of no case": (of_others, "curriculum: holds the curriculum of none of the 3 cases, such as"),
    "not of all cases": (forget, "^case .*gz: has no curriculum; mine it too"),
    "outside the truth": (
        lambda folder: change(one_file(folder), outside),
        r"^case .*curriculum/.*gz: NCR is another than in .*\(1 voxels outside it, 0 of it without a stage\)",
    ),
    "another shape": (
        lambda folder: change(one_file(folder), lambda voxels: voxels[1:]),
        "^case .*curriculum/.*gz: shape 23×24×24 is not that of",
    ),
    "another stage": (
        lambda folder: change(one_file(folder), lambda voxels: voxels * 9),
        "^case .*curriculum/.*gz: holds (9|18|27) where 2 stages give 0 to 3",
    ),
    "damaged": (
        lambda folder: one_file(folder).write_bytes(b"no scan"),
        "^case .*curriculum/.*gz: is not a NIfTI file",
    ),
    "other categories": (
        told_otherwise("categories", "regions"),
        "curriculum.json: categories regions where the training has labels",
    ),
    "other number of stages": (told_otherwise("stages", 3), "curriculum.json: stages 3 where the training has 2"),
    "no manifest": (
        lambda folder: (folder / "curriculum.json").unlink(),
        "^no curriculum at .*curriculum.json: mine one",
    ),
    "no folder": (shutil.rmtree, "^no curriculum at .*curriculum.json: mine one"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_curricula(line_of: Line, scans: Path, curriculum: Path, tmp_path: Path, how: str):
    spoil, line = SPOILT[how]
    spoil(curriculum)
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    message = line_of("train", **places, curriculum_dir=curriculum, **TINY)
    assert re.search(line, message), message
    assert not list((tmp_path / "models").glob("*.pt"))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"first_stage": 2}, r"no weights at .*/run/stage1\.pt: train first"),
        ({"first_stage": 3, "weights": __file__}, r"first_stage 3: stages \[1, 1\] are counted from 1 to 2"),
        ({"stages": []}, "stages is \\[\\]: give a list of epochs above zero"),
        ({"components": "D"}, "components is 'D': give CF, C"),
        ({"attention_stage": 3}, "attention_stage 3: 3 stages are counted from 0 to 2"),
        ({"attention_patch": [0, 8]}, "attention_patch is .*: give two whole numbers above zero"),
        ({"patch_size": [18, 18, 18]}, "18.*multiples of 4"),
    ],
    ids=str,
)
def test_settings(line_of: Line, scans: Path, curriculum: Path, tmp_path: Path, override: dict[str, object], line: str):
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    message = line_of("train", **{**places, "curriculum_dir": curriculum, **TINY, **override})
    assert re.search(line, message), message
    assert not list((tmp_path / "models").glob("*.pt"))


def test_mining_deeper_than_there_are_channels(line_of: Line, scans: Path, tmp_path: Path):
    settings = {"bundle": "fancl", "dataset_dir": scans, "curriculum_dir": tmp_path / "c", "output_dir": tmp_path / "o"}
    message = line_of("mine_curriculum", **settings, features=[4, 8, 8], mining_depths=[3, 4])
    assert "mining_depths [3, 4]: features has 3 stages, and 4 are asked" in message
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"mining_depths": [3, 3]}, "mining_depths is \\[3, 3\\]: give a list of rising whole numbers"),
        ({"patch_size": [20, 20, 20]}, "patch_size \\[20, 20, 20\\]: a network of 4 stages takes multiples of 8"),
        (
            {"window_size": [8, 8, 8]},
            "window_size \\[8, 8, 8\\]: a network of 4 stages takes multiples of 8, not 8 along",
        ),
        ({"dataset_dir": "/nowhere"}, "/nowhere"),
    ],
    ids=str,
)
def test_mining_is_refused_before_anything_is_trained(
    line_of: Line, scans: Path, tmp_path: Path, override: dict[str, object], line: str
):
    settings = {"bundle": "fancl", "dataset_dir": scans, "curriculum_dir": tmp_path / "c", "output_dir": tmp_path / "o"}
    sizes = {"patch_size": [16, 16, 16], "window_size": [16, 16, 16], "features": [4, 8, 8, 8], "mining_depths": [3, 4]}
    message = line_of("mine_curriculum", **{**settings, **sizes, **override})
    assert re.search(line, message), message
    assert not (tmp_path / "c").exists()


def test_curricula_among_the_labels(line_of: Line, scans: Path, tmp_path: Path):
    label = Path(list_cases(scans, labelled=True)[0]["label"]).parent
    settings = {"bundle": "fancl", "dataset_dir": scans, "curriculum_dir": label, "output_dir": tmp_path / "o"}
    message = line_of("mine_curriculum", **settings)
    assert message == f"{label}: holds label maps, which the curricula would replace; choose another folder for these"
    assert not (label / "mining").exists()


def test_mining_with_the_folds_of_other_cases(line_of: Line, scans: Path, tmp_path: Path):
    folder = tmp_path / "c" / "mining" / "depth-3"
    folder.mkdir(parents=True)
    parts = {"training": ["other-1"], "validation": [], "test": ["other-2"]}
    (folder / "folds.json").write_text(json.dumps({"folds": [parts] * 3}))
    settings = {"bundle": "fancl", "dataset_dir": scans, "curriculum_dir": tmp_path / "c", "output_dir": tmp_path / "o"}
    sizes = {"patch_size": [16, 16, 16], "window_size": [16, 16, 16], "features": [4, 8, 8], "mining_depths": [3]}
    message = line_of("mine_curriculum", **settings, **sizes, folds=3)
    assert f"{folder}/folds.json, fold 0: does not list BraTS-MET-00000-000" in message


def test_training_with_the_folds_of_other_cases(line_of: Line, scans: Path, curriculum: Path, tmp_path: Path):
    parts = {"training": ["other-1"], "validation": [], "test": ["other-2"]}
    (tmp_path / "folds.json").write_text(json.dumps({"folds": [parts, parts]}))
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    of_fold = {"fold": 0, "partition_file": tmp_path / "folds.json"}
    message = line_of("train", **places, curriculum_dir=curriculum, **TINY, **of_fold)
    assert f"{tmp_path}/folds.json, fold 0: does not list BraTS-MET-00000-000" in message


def test_a_class_absent_in_a_whole_fold_is_told(caplog: pytest.LogCaptureFixture, scans: Path, tmp_path: Path):
    """By the mining, of each fold, before it trains; which nothing here lets begin."""
    cases = []
    for number, case in enumerate(list_cases(scans, labelled=True)):
        image = nibabel.load(case["label"])
        label = np.array(image.dataobj)
        if number:
            label[label == 3] = 1
        path = tmp_path / f"{case['case']}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(label, image.affine), path)
        cases.append({**case, "label": str(path)})
    with_enhancing = cases[0]["case"]
    folds = draw_folds(lesion_volumes(cases), 3, 0)
    wanted = [fold for fold, parts in enumerate(folds) if with_enhancing not in parts["training"]]
    assert wanted
    with pytest.raises(RuntimeError, match="training begins"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(curriculum_mining, "cross_validate", begin)
        curriculum_mining.mine_curriculum(
            "fancl", str(scans), cases, str(tmp_path / "c"), [3], [4, 8, 8], 1, "labels", folds=3
        )
    told = [record.getMessage() for record in caplog.records if "can't learn" in record.getMessage()]
    assert [line.split(":")[0] for line in told] == [f"fold {fold}" for fold in wanted]
    assert all("has ET, which" in line for line in told)


def begin(*_: object, **__: object) -> None:
    raise RuntimeError("training begins")


def test_resuming_with_another_curriculum(
    run_in_process: Callable[..., None], line_of: Line, scans: Path, curriculum: Path, tmp_path: Path
):
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    run_in_process("train", **places, curriculum_dir=curriculum, **TINY)
    change(one_file(curriculum), lambda voxels: np.where(voxels > 0, 1, 0).astype(np.uint8))
    message = line_of("train", **places, curriculum_dir=curriculum, **TINY, resume=True)
    assert "train#curricula" in message


def test_stages_and_rates_follow_one_another(
    run_in_process: Callable[..., None], scans: Path, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As the training itself switches them."""
    (tmp_path / "c").mkdir()
    for path in mined.glob("*.nii.gz"):
        shutil.copy(path, tmp_path / "c")
    # The same curricula, as if a third network had found nothing new; what none found has the number 4 then.
    for path in (tmp_path / "c").glob("*.nii.gz"):
        change(path, lambda voxels: np.where(voxels == 3, 4, voxels).astype(np.uint8))
    (tmp_path / "c" / "curriculum.json").write_text(json.dumps({"categories": "labels", "stages": 3}))
    seen: list[tuple[int, float]] = []
    step = torch.optim.SGD.step
    losses: list[FANCLLoss] = []
    monkeypatch.setattr(FANCLLoss, "__init__", lambda self, *a, **k: (made(self, *a, **k), losses.append(self))[0])

    def record(self: torch.optim.SGD, *args: object, **options: object) -> object:
        seen.append((losses[-1].stage, round(self.param_groups[0]["lr"], 6)))
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", record)
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    settings = {**TINY, "curriculum_dir": tmp_path / "c", "stages": [1, 2, 1]}
    run_in_process("train", **places, **settings)
    rates = [round(0.01 * (1 - epoch / 4) ** 0.9, 6) for epoch in range(4)]
    assert seen == [*zip([1, 2, 2, 3], rates, strict=True)]
    seen.clear()
    run_in_process("train", **{**places, **settings, "first_stage": 2, "weights": tmp_path / "run" / "stage1.pt"})
    assert seen == [*zip([2, 2, 3], rates[1:], strict=True)]


def test_strips_larger_than_the_map_are_padded(
    run_in_process: Callable[..., None], scans: Path, curriculum: Path, tmp_path: Path
):
    places = {"dataset_dir": scans, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    run_in_process("train", **{**places, "curriculum_dir": curriculum, **TINY, "attention_patch": [64, 64]})
    assert (tmp_path / "models" / "model.pt").is_file()
