"""Bad input: one line with the case, the file, the reason and what to do; a status; nothing half-written."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import nibabel
import numpy as np
import pytest
import torch

from common.networks.cga_unet import CGAUNet

Command = Callable[..., CompletedProcess[str]]
Line = Callable[..., str]


CASE = "BraTS-GLI-00001-000"


def file(dataset: Path, kind: str) -> Path:
    return dataset / CASE / f"{CASE}-{kind}.nii.gz"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nibabel.load(path)
    voxels = change(np.asarray(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def spacing(path: Path, value: float) -> None:
    """Overwrite a field of the header that no library would write."""
    image = nibabel.load(path)
    content = bytearray(image.to_bytes())
    content[80:84] = np.float32(value).tobytes()  # pixdim[1]
    path.with_suffix("").write_bytes(content)
    path.unlink()


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.astype(np.float32)
    voxels[16, 16, 16] = np.nan
    return voxels


IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing modality": (lambda d: file(d, "t1c").unlink(), rf"case {CASE}, .*: modality t1c is missing; add the file"),
    "truncated": (
        lambda d: file(d, "t2w").write_bytes(file(d, "t2w").read_bytes()[:3000]),
        rf"case {CASE}, .*-t2w\.nii\.gz: is truncated or damaged; copy or download it again",
    ),
    "no NIfTI": (
        lambda d: file(d, "t2w").write_text("an error page of a download"),
        rf"case {CASE}, .*-t2w\.nii\.gz: is not a NIfTI file; replace it",
    ),
    "empty file": (lambda d: file(d, "t2w").write_text(""), rf"case {CASE}, .*-t2w\.nii\.gz: is empty"),
    "other shape": (
        lambda d: rewrite(file(d, "t2f"), lambda v: v[:-2]),
        rf"case {CASE}, .*-t2f\.nii\.gz: shape 30×32×32 is not that of .*-t1n\.nii\.gz \(32×32×32\); resample it",
    ),
    "other affine": (
        lambda d: rewrite(file(d, "t2f"), lambda v: v, np.eye(4)),
        rf"case {CASE}, .*-t2f\.nii\.gz: affine differs from that of .*-t1n\.nii\.gz by up to",
    ),
    "4D for 3D": (
        lambda d: rewrite(file(d, "t1n"), lambda v: np.stack([v, v], -1)),
        rf"case {CASE}, .*-t1n\.nii\.gz: is 4D \(32×32×32×2\) where 3D is expected; give one file a modality",
    ),
    "NaN": (
        lambda d: rewrite(file(d, "t1c"), with_nan),
        rf"case {CASE}, .*-t1c\.nii\.gz: holds NaN or infinite values",
    ),
    "constant": (
        lambda d: rewrite(file(d, "t1c"), np.zeros_like),
        rf"case {CASE}, .*-t1c\.nii\.gz: every voxel is 0; give the scan itself",
    ),
    "spacing 0": (lambda d: spacing(file(d, "t1n"), 0), rf"case {CASE}, .*-t1n\.nii: spacing 0, "),
    "negative spacing": (lambda d: spacing(file(d, "t1n"), -1), rf"case {CASE}, .*-t1n\.nii: spacing -1, "),
}


@pytest.mark.parametrize(("damage", "line"), IMAGES.values(), ids=IMAGES)
def test_one_bad_case_among_many(
    line_of: Line,
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    line: str,
):
    """The others are done; the run ends with the bad one's line."""
    damage(dataset)
    message = line_of("inference", dataset_dir=dataset, output_dir=tmp_path / "out", weights=weights)
    assert re.fullmatch(f"1 of 3 cases failed: {line}.*", message), message
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["BraTS-GLI-00000-000.nii.gz", "BraTS-GLI-00002-000.nii.gz", "run-inference-1.json"]


LABELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing label": (
        lambda d: file(d, "seg").unlink(),
        rf"case {CASE}, .*: has no label; add it or take the case out",
    ),
    "value outside": (
        lambda d: rewrite(file(d, "seg"), lambda v: np.where(v == 3, 4, v).astype(np.uint8)),
        rf"case {CASE}, .*-seg\.nii\.gz: label value 4 is outside the convention 'canonical' \(values 0, 1, 2, 3\)",
    ),
    "fractional label": (
        lambda d: rewrite(file(d, "seg"), lambda v: v.astype(np.float32) / 2),
        rf"case {CASE}, .*-seg\.nii\.gz: label value [0-9.]+ is not a whole number",
    ),
    "label of another shape": (
        lambda d: rewrite(file(d, "seg"), lambda v: v[1:]),
        rf"case {CASE}, .*-seg\.nii\.gz: shape 31×32×32 is not that of ",
    ),
    "lesion outside the brain": (
        lambda d: rewrite(file(d, "seg"), lambda v: np.pad(np.ones((2, 2, 2), np.uint8), (0, 30))),
        rf"case {CASE}, .*-seg\.nii\.gz: the whole lesion lies where the image is zero; check that the label belongs",
    ),
}


def train_error(line_of: Line, dataset: Path, tmp_path: Path, **overrides: object) -> str:
    """The line that training ends with; no weights are there afterwards."""
    settings = {
        "dataset_dir": dataset,
        "output_dir": tmp_path / "run",
        "ckpt_dir": tmp_path / "models",
        "fractions": [1.0, 0.0, 0.0],
        "epochs": 1,
    }
    message = line_of("train", **{**settings, **overrides})
    assert not list((tmp_path / "models").glob("*.pt"))
    return message


@pytest.mark.parametrize(("damage", "line"), LABELS.values(), ids=LABELS)
def test_bad_label_stops_training(
    line_of: Line, dataset: Path, tmp_path: Path, damage: Callable[[Path], object], line: str
):
    damage(dataset)
    message = train_error(line_of, dataset, tmp_path, fractions=[0.5, 0.5, 0.0])
    assert re.search(line, message), message


def test_bad_case_met_by_a_worker(line_of: Line, dataset: Path, tmp_path: Path):
    """Cases that aren't cached are read in processes of their own, which hand over no exceptions."""
    damage, line = IMAGES["truncated"]
    damage(dataset)
    message = train_error(line_of, dataset, tmp_path, cache_gib=0, num_workers=1)
    assert re.fullmatch(line, message), message


def test_folders(line_of: Line, tmp_path: Path, dataset: Path):
    for name in ("empty", "unknown", "flat"):
        (tmp_path / name).mkdir()
    shutil.copy(file(dataset, "t1n"), tmp_path / "unknown" / "scan_x.nii.gz")
    (tmp_path / "unknown" / "deep" / "deeper").mkdir(parents=True)
    shutil.move(tmp_path / "unknown" / "scan_x.nii.gz", tmp_path / "unknown" / "deep" / "deeper")
    for folder, line in {
        "none": "none: is no folder; give the folder that holds the cases",
        "empty": "empty: holds no .nii or .nii.gz file; give the folder",
        "unknown": "no known layout, e.g. ",
    }.items():
        assert line in train_error(line_of, tmp_path / folder, tmp_path)
        assert line in line_of(
            "inference", dataset_dir=tmp_path / folder, output_dir=tmp_path / "out", weights=tmp_path / "w.pt"
        )


def test_duplicate_case(line_of: Line, tmp_path: Path, dataset: Path):
    shutil.copytree(dataset / CASE, dataset / "HGG" / CASE)
    assert re.search(rf"case {CASE}, .*twice", train_error(line_of, dataset, tmp_path))


def test_flat_3d_file_is_not_a_case_of_four_channels(line_of: Line, tmp_path: Path, dataset: Path, weights: Path):
    (tmp_path / "flat").mkdir()
    shutil.copy(file(dataset, "t1n"), tmp_path / "flat" / "scan.nii.gz")
    message = line_of("inference", dataset_dir=tmp_path / "flat", output_dir=tmp_path / "out", weights=weights)
    assert re.search(r"case scan, .*: is 3D \(32×32×32\) where 4D with 4 channels is expected", message), message


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"patch_size": [0, 16, 16]}, r"patch_size is \[0, 16, 16\]: give three whole numbers of voxels above zero"),
        ({"spacing": [1, 1, 0]}, r"spacing is \[1, 1, 0\]: give three millimetre values above zero"),
        ({"spacing": [1, 1, -1]}, r"spacing is \[1, 1, -1\]: give three millimetre values above zero"),
        ({"device": "cuda:99"}, "device is 'cuda:99': give one that this machine has, such as cpu, or leave it out"),
        ({"amp": "false", "epochs": 0}, "amp is 'false': give True or False; epochs is 0: give a whole number above"),
        ({"epoch": 5}, r"unknown id 'epoch': did you mean 'epochs'\?"),
        ({"epochs": None}, "epochs is None: give a whole number above zero"),
        (
            {"train#loader#batch_size": 5},
            "unknown id 'train#loader#batch_size': did you mean 'train#dataloader#batch_size'",
        ),
        ({"ckpt_dir": 5}, "ckpt_dir is 5: give a path"),
        ({"bundle_root": "bundles/cga_unet"}, "--bundle_root: the bundle is the first argument; give its folder there"),
        ({"inter_form": "sum"}, "inter_form is 'sum': give log or bounded"),
        ({"update_classes": [4]}, r"update_classes \[4\]: they must be distinct and among 0 to 3"),
        ({"attention_rate": 3}, "attention_rate is 3: give 8, 4, 2, or 0 for none"),
        ({"fractions": [0.5, 0.1, 0.1]}, r"fractions is \[.*\]: give three numbers from 0 to 1 that add up to 1"),
        ({"output_dir": ""}, "output_dir is '': give a path"),
        ({"cache_dir": ""}, "cache_dir is '': give a path"),
        ({"weights": "nowhere.pt"}, "no weights at nowhere.pt: train first"),
    ],
)
def test_settings(
    line_of: Line,
    dataset: Path,
    tmp_path: Path,
    override: dict[str, object],
    line: str,
):
    message = train_error(line_of, dataset, tmp_path, **override)
    assert re.search(line, message), message
    assert not (tmp_path / "models" / "partition.json").exists()


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10000])


def pickled(path: Path) -> None:
    torch.save({"model": CGAUNet().state_dict(), "network": torch.nn.ReLU()}, path)


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no weights at .*: train first, or give the path of the file"),
    "damaged": (damaged, "damaged or no checkpoint|pickled objects or is damaged"),
    "pickled objects": (pickled, "holds pickled objects or is damaged: it was not loaded and nothing in it was run"),
    "another network": (
        lambda path: torch.save(CGAUNet(attention_rate=4).state_dict(), path),
        r"is of another network: \d+ of \d+ tensors differ, such as attention",
    ),
}


@pytest.mark.parametrize(("damage", "line"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_bad_checkpoint(
    line_of: Line,
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    line: str,
):
    path = Path(shutil.copy(weights, tmp_path / "weights.pt"))
    damage(path)
    message = line_of("inference", dataset_dir=dataset, output_dir=tmp_path / "out", weights=path)
    assert re.search(line, message), message
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_output_that_cannot_be_written(line_of: Line, dataset: Path, weights: Path, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    message = line_of("inference", dataset_dir=dataset, output_dir=tmp_path / "taken", weights=weights)
    assert re.search(r"taken can't be written to: .*; choose another folder", message)


def test_defect_in_the_middle_of_inference_is_not_swallowed(
    run_in_process: Callable[..., None], monkeypatch: pytest.MonkeyPatch, dataset: Path, weights: Path, tmp_path: Path
):
    def fail(case: dict) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("common.transforms.load.read_image", fail)
    with pytest.raises(Exception) as raised:
        run_in_process("inference", dataset_dir=dataset, output_dir=tmp_path / "out", weights=weights)
    assert "a defect" in "".join(traceback.format_exception(raised.value))


@pytest.mark.slow
def test_command_line_shows_one_line_and_a_status(bundle_run: Command, dataset: Path, weights: Path, tmp_path: Path):
    """The whole of it, as typed: no traceback, the status, and the line last."""
    file(dataset, "t1c").unlink()
    done = bundle_run("inference", dataset_dir=dataset, output_dir=tmp_path / "out", weights=weights)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: 1 of 3 cases failed: case {CASE}")
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.slow
def test_full_disk(bundle_run: Command, dataset: Path, weights: Path, tmp_path: Path):
    """The kernel's limit on a file's size stands in for a full disk: both make the write fail in the middle."""
    arguments = {"dataset_dir": dataset, "output_dir": tmp_path / "out", "weights": weights}
    done = bundle_run("inference", largest_file=100, **arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "can't be written: File too large; free some space" in done.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())
    arguments = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    done = bundle_run("train", largest_file=100_000, **arguments)
    assert done.returncode == 1
    assert "model.pt can't be written: File too large; free some space" in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.glob("**/*.pt"))
