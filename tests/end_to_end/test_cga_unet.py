"""CGA U-Net's workflows on small phantoms, by the commands of the README."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.transforms import NormalizeIntensity

from common.data.layouts import list_cases
from common.data.reading import read_image
from common.losses.category_guided import CategoryGuidedLoss
from common.networks.cga_unet import CGAUNet

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]


def labels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nibabel.load(path).dataobj) for path in sorted(folder.glob("*.nii.gz"))}


def test_training_says_what_it_does_and_leaves_weights(trained: Path):
    log = (trained / "log").read_text()
    assert "training on 2 cases, validating on 2" in log
    assert "2 epochs of 2 steps, 1 patches a step, 4 steps in all" in log
    assert "CGAUNet with 4,768,616 parameters on cpu" in log
    assert "val_mean_dice" in log
    state = torch.load(trained / "models" / "model.pt", weights_only=True)["model"]
    assert sum(value.numel() for value in state.values()) == 4_768_616
    assert (trained / "run" / "last.pt").is_file()
    assert list((trained / "run" / "events").iterdir())
    assert set(json.loads((trained / "models" / "partition.json").read_text())["parts"]) >= {"training", "validation"}


def test_same_seed_gives_the_same_weights(
    trained: Path, bundle_run: Command, phantoms: dict[str, Path], tmp_path: Path
):
    again = bundle_run("train", dataset_dir=phantoms["brats2018"], output_dir=tmp_path, ckpt_dir=tmp_path)
    assert again.returncode == 0, again.stderr
    states = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (trained / "run", tmp_path)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_what_follows_the_epoch(
    run_in_process: Callable[..., None], monkeypatch: pytest.MonkeyPatch, phantoms: dict[str, Path], tmp_path: Path
):
    """The inter-class loss joins at its epoch, and the learning rate falls as (1 − epoch/epochs)^0.9."""
    steps: list[tuple[int, bool, float]] = []
    forward, adam_step = CategoryGuidedLoss.forward, torch.optim.Adam.step

    def note_loss(self: CategoryGuidedLoss, *args: object) -> torch.Tensor:
        loss = forward(self, *args)
        joined = loss.item() == pytest.approx(sum(self.weights[k] * v.item() for k, v in self.components.items()))
        steps.append((self.epoch, joined, 0.0))
        return loss

    def note_rate(self: torch.optim.Adam, *args: object) -> object:
        steps[-1] = (*steps[-1][:2], self.param_groups[0]["lr"])
        return adam_step(self, *args)

    monkeypatch.setattr(CategoryGuidedLoss, "forward", note_loss)
    monkeypatch.setattr(torch.optim.Adam, "step", note_rate)
    arguments = {"dataset_dir": phantoms["brats2018"], "output_dir": tmp_path, "ckpt_dir": tmp_path / "models"}
    run_in_process("train", **arguments, epochs=3, val_interval=3, inter_start=1, inter_weight=1, learning_rate=0.01)
    rates = [0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)]
    expected = [(epoch, epoch >= 1, pytest.approx(rates[epoch])) for epoch in range(3) for _ in range(2)]
    assert steps == expected


@pytest.mark.parametrize("overrides", [{"val_interval": 5}, {"fractions": [1.0, 0.0, 0.0]}], ids=str)
def test_training_without_validation_leaves_weights_too(
    run_in_process: Callable[..., None], phantoms: dict[str, Path], tmp_path: Path, overrides: dict[str, object]
):
    arguments = {"dataset_dir": phantoms["brats2018"], "output_dir": tmp_path, "ckpt_dir": tmp_path / "models"}
    run_in_process("train", **arguments, **{"epochs": 1, **overrides})
    assert (tmp_path / "models" / "model.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_training_takes_other_layouts(bundle_run: Command, phantoms: dict[str, Path], tmp_path: Path, layout: str):
    done = bundle_run("train", dataset_dir=phantoms[layout], output_dir=tmp_path, ckpt_dir=tmp_path, epochs=1)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.pt").is_file()


@pytest.fixture(scope="module")
def predictions(
    trained: Path, bundle_run: Command, phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Label maps and probabilities of all cases, in each layout."""
    folders = {}
    for layout, dataset in phantoms.items():
        folders[layout] = tmp_path_factory.mktemp(layout)
        done = bundle_run(
            "inference",
            dataset_dir=dataset,
            output_dir=folders[layout],
            ckpt_dir=trained / "models",
            save_probabilities=layout == "brats2018",
        )
        assert done.returncode == 0, done.stderr
    return folders


def test_inference_keeps_geometry_and_type(predictions: dict[str, Path], phantoms: dict[str, Path]):
    for layout, folder in predictions.items():
        for case in list_cases(phantoms[layout]):
            image = nibabel.load(folder / f"{case['case']}.nii.gz")
            scan, affine = read_image(case)
            assert image.shape == scan.shape[1:]
            np.testing.assert_allclose(image.affine, affine, atol=1e-6)
            assert image.get_data_dtype() == np.uint8
            assert set(np.unique(image.dataobj)) <= {0, 1, 2, 3}


def test_layouts_of_the_same_scans_give_the_same_labels(predictions: dict[str, Path]):
    maps = [[m for name, m in labels(folder).items() if "probabilities" not in name] for folder in predictions.values()]
    assert len(maps[0]) == 4
    assert any(m.any() for m in maps[0])
    for other in maps[1:]:
        for a, b in zip(maps[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_probabilities_agree_with_the_labels(predictions: dict[str, Path]):
    maps = labels(predictions["brats2018"])
    probabilities = {name: m for name, m in maps.items() if "probabilities" in name}
    assert len(probabilities) == 4
    for name, probability in probabilities.items():
        np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(probability.argmax(-1), maps[name.replace("_probabilities", "")])


def test_finished_cases_are_not_done_again(
    predictions: dict[str, Path], trained: Path, bundle_run: Command, phantoms: dict[str, Path]
):
    folder = predictions["nnunet"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    removed = sorted(before)[1]
    removed.unlink()
    arguments = {"dataset_dir": phantoms["nnunet"], "output_dir": folder, "ckpt_dir": trained / "models"}
    done = bundle_run("inference", **arguments)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 cases are finished already" in done.stdout
    changed = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == [removed]


@pytest.mark.parametrize("window", [[24, -1, 16], [64, 64, 64]], ids=["windows", "larger than the scan"])
def test_inference_in_windows(
    run_in_process: Callable[..., None],
    trained: Path,
    phantoms: dict[str, Path],
    predictions: dict[str, Path],
    tmp_path: Path,
    window: list[int],
):
    """What MONAI's sliding window over the brain's box gives, and not what one pass over it gives."""
    weights = trained / "models" / "model.pt"
    run_in_process(
        "inference",
        dataset_dir=phantoms["decathlon"],
        output_dir=tmp_path,
        weights=weights,
        window_size=window,
        amp=False,
    )
    network = CGAUNet().eval()
    network.load_state_dict(torch.load(weights, weights_only=True)["model"])
    found, whole = labels(tmp_path), labels(predictions["decathlon"])
    for case in list_cases(phantoms["decathlon"]):
        images, _ = read_image(case)
        brain = images.any(axis=0)
        box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(brain))
        crop = torch.from_numpy(images[(slice(None), *box)])
        image = NormalizeIntensity(nonzero=True, channel_wise=True)(crop)
        with torch.inference_mode():
            logits = sliding_window_inference(image[None], window, 1, network, overlap=0.5, mode="gaussian")
        expected = np.zeros(brain.shape)
        expected[box] = logits[0].argmax(0)
        label = found[f"{case['case']}.nii.gz"]
        assert (label == expected).mean() > 0.9999
        assert (label != whole[f"{case['case']}.nii.gz"]).any()


def test_inference_of_a_scan_of_few_slices(
    run_in_process: Callable[..., None], trained: Path, phantoms: dict[str, Path], tmp_path: Path
):
    """Fewer than the network can take: padded before, cut off after."""
    images, affine = read_image(list_cases(phantoms["brats2018"])[0])
    (tmp_path / "data").mkdir()
    thin = np.moveaxis(images[..., 14:19], 0, -1)
    nibabel.save(nibabel.Nifti1Image(thin, affine), tmp_path / "data" / "thin.nii.gz")
    settings = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "out", "ckpt_dir": trained / "models"}
    run_in_process("inference", **settings)
    assert nibabel.load(tmp_path / "out" / "thin.nii.gz").shape == (32, 32, 5)


def test_source_convention_and_small_enhancing_tumours(
    trained: Path, bundle_run: Command, phantoms: dict[str, Path], predictions: dict[str, Path], tmp_path: Path
):
    done = bundle_run(
        "inference",
        dataset_dir=phantoms["brats2018"],
        output_dir=tmp_path,
        ckpt_dir=trained / "models",
        source_labels=True,
        minimum_enhancing=10**6,
    )
    assert done.returncode == 0, done.stderr
    for name, written in labels(tmp_path).items():
        canonical = labels(predictions["brats2018"])[name]
        np.testing.assert_array_equal(written, np.where(canonical == 3, 1, canonical))


def test_evaluation_of_the_network_and_of_its_files_agree(
    predictions: dict[str, Path], trained: Path, bundle_run: Command, phantoms: dict[str, Path], tmp_path: Path
):
    arguments = {"dataset_dir": phantoms["brats2018"], "output_dir": tmp_path / "network"}
    done = bundle_run(
        "train",
        "evaluate",
        **arguments,
        ckpt_dir=trained / "models",
        evaluate_on="validation",
    )
    assert done.returncode == 0, done.stderr
    assert "of 2 cases" in done.stdout
    by_network = json.loads((tmp_path / "network" / "scores.json").read_text())
    done = bundle_run(
        "evaluate_predictions",
        dataset_dir=phantoms["brats2018"],
        predictions_dir=predictions["brats2018"],
        output_dir=tmp_path / "files",
    )
    assert done.returncode == 0, done.stderr
    by_files = json.loads((tmp_path / "files" / "scores.json").read_text())
    assert len(by_files["cases"]) == 4 * 3
    for row in by_network["cases"]:
        assert row in by_files["cases"]
    lesion_wise = [json.loads((tmp_path / name / "lesions.json").read_text()) for name in ("network", "files")]
    for row in lesion_wise[0]["cases"]:
        assert row in lesion_wise[1]["cases"]
    assert "lesion by lesion (brats2023-gli), mean" in done.stdout
    written = {"scores.csv", "scores.json", "lesions.csv", "lesions.json"}
    assert {path.name for path in (tmp_path / "files").iterdir()} == written


def test_two_processes_train_together(bundle_run: Command, phantoms: dict[str, Path], tmp_path: Path):
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    done = bundle_run(
        "train",
        "multi_gpu_train",
        launcher=launcher,
        dataset_dir=phantoms["brats2018"],
        output_dir=tmp_path / "run",
        ckpt_dir=tmp_path / "models",
        epochs=1,
    )
    assert done.returncode == 0, done.stderr
    assert "1 epochs of 1 steps" in done.stdout
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)["model"]
    assert not any(key.startswith("module.") for key in state)
    # One writer for training and one for validation, both of the first process.
    assert len(list((tmp_path / "run" / "events").iterdir())) == 2


# Overrides of rows of the paper's Tables 3 and 4, and the parameters that the network then has.
ABLATIONS: dict[str, tuple[dict[str, object], int]] = {
    "baseline": ({"attention_rate": 0}, 4_758_212),
    "intra": ({"inter_weight": 0}, 4_768_616),
    "intra class 1": ({"inter_weight": 0, "update_classes": [1]}, 4_768_616),
    "inter": ({"update_classes": []}, 4_768_616),
    "minus inter": ({"update_classes": [], "inter_weight": -0.01}, 4_768_616),
    "intra and inter": ({}, 4_768_616),
    "soft attention": ({"hard_attention": False}, 4_768_616),
    "rate 4": ({"attention_rate": 4}, 4_792_840),
    "rate 2": ({"attention_rate": 2}, 4_768_616),
}


@pytest.mark.parametrize(("overrides", "parameters"), ABLATIONS.values(), ids=ABLATIONS)
def test_each_ablation_is_an_override(
    run_in_process: Callable[..., None],
    phantoms: dict[str, Path],
    tmp_path: Path,
    overrides: dict[str, object],
    parameters: int,
):
    """One epoch each, with the inter-class loss from the first epoch on; each differs from all others."""
    run_in_process(
        "train",
        dataset_dir=phantoms["brats2018"],
        output_dir=tmp_path / "run",
        ckpt_dir=tmp_path / "models",
        epochs=1,
        inter_start=0,
        **overrides,
    )
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)["model"]
    assert sum(value.numel() for value in state.values()) == parameters
    assert all(value.isfinite().all() for value in state.values())
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
    assert digest not in WEIGHTS.values()
    WEIGHTS[str(overrides)] = digest


WEIGHTS: dict[str, str] = {}
"""Of the ablations run so far: two that give the same weights would be one and the same."""
