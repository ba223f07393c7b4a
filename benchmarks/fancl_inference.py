"""Time of segmenting one case: FANCL's bundle against nnU-Net's own predictor, with the same weights.

    python -m venv NN && NN/bin/pip install -c constraints.txt torch nnunetv2
    python -m benchmarks.fancl_inference [DATASET] --nnunet NN/bin [--checkpoint FILE] [--crop 128] [--BUNDLE_ID VALUE]

nnU-Net (about 2 GB) stays out of the project's environment. Both go from the four files on disk to a label map on disk,
in turns, each as a command in a process of its own: `inference` of the bundle, without attention, and
`nnUNetv2_predict_from_modelfolder -device cpu`. Both take windows that overlap by half, Gaussian weights, 8 mirrors and
the box of the brain; neither resamples. nnU-Net computes in float32 on a CPU, the bundle in bfloat16 where the CPU has
that.

Weights without training give labels at random, of which small differences make others. So without a checkpoint the
network is trained for some steps on the case itself, which therefore must have a label; how good it is doesn't matter.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import nibabel
import numpy as np
import torch
from monai.transforms import Compose, Orientationd, SpatialPadd

from common.data.labels import CHANNELS, LABEL_NAMES
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.losses.fancl import FANCLLoss
from common.networks.fancl import FANCL
from common.transforms.crop import CropBraind, bounding_box
from common.transforms.load import LoadLabelMapd, LoadScand
from common.transforms.normalize import NormalizeBraind
from common.weights import load_weights

from .machine import machine
from .nnunet import architecture, nnunet_of

REPOSITORY = Path(__file__).resolve().parents[1]


def copy_case(case: dict[str, Any], ours: Path, theirs: Path, crop: int) -> None:
    """The case alone, named as each reads it; where `crop` isn't 0, only so many voxels in the middle of the brain."""
    ours = ours / case["case"]
    ours.mkdir(parents=True)
    theirs.mkdir(parents=True)
    scans = [nibabel.load(file) for file in case["image"]]
    part = [slice(None)] * 3
    if crop:
        brain = np.logical_or.reduce([np.asarray(scan.dataobj) != 0 for scan in scans])
        middles = [(box.start + box.stop) // 2 for box in bounding_box(brain)]
        part = [slice(max(0, middle - crop // 2), middle - crop // 2 + crop) for middle in middles]
    for number, (channel, scan) in enumerate(zip(CHANNELS, scans, strict=True)):
        file = ours / f"{case['case']}-{channel}.nii.gz"
        nibabel.save(scan.slicer[tuple(part)], file)
        (theirs / f"{case['case']}_{number:04}.nii.gz").symlink_to(file)


def train(network: FANCL, case: dict[str, Any], steps: int, size: int = 64) -> None:
    """A few steps on patches of the case, every other one about a voxel of the lesion."""
    keys = ("image", "label")
    prepare = Compose(
        [
            LoadScand("image"),
            LoadLabelMapd("label"),
            CropBraind(keys),
            Orientationd(keys, axcodes="SPL", labels=None),
            NormalizeBraind("image"),
            SpatialPadd(keys, [size] * 3),
        ]
    )
    data = prepare(case)
    image, label = data["image"].as_tensor(), data["label"].as_tensor()
    lesion = label[0].nonzero()
    loss = FANCLLoss(network, curriculum=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    half = torch.cpu._is_avx512_bf16_supported()
    for step in range(steps):
        centre = lesion[torch.randint(len(lesion), ())] if step % 2 else torch.tensor(image.shape[1:]) // 2
        shift = torch.randint(-size // 2, size // 2, (3,))
        starts = [
            int(min(max(0, c + s - size // 2), n - size))
            for c, s, n in zip(centre, shift, image.shape[1:], strict=True)
        ]
        part = (slice(None), *(slice(start, start + size) for start in starts))
        target = torch.cat([label[part] == k for k in (1, 2, 3)])[None].to(torch.uint8)
        optimizer.zero_grad()
        with torch.autocast("cpu", enabled=half):
            output = network(image[part][None])
        value = loss(output, target)
        value.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {value.item():.3f}", file=sys.stderr, flush=True)


def write_nnunet_model(network: FANCL, folder: Path, window: int, spacing: list[float]) -> None:
    """A folder of a trained model: dataset, plans and one fold's checkpoint."""
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    plans = {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": [window] * 3,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(number): {} for number in range(len(CHANNELS))},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [window] * 3,
                "median_image_size_in_voxels": [window] * 3,
                "spacing": spacing,
                "normalization_schemes": ["ZScoreNormalization"] * 4,
                "use_mask_for_norm": [True] * 4,
                "resampling_fn_data": resample,
                "resampling_fn_seg": resample,
                "resampling_fn_probabilities": resample,
                "resampling_fn_data_kwargs": {**resampling, "order": 3},
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "batch_dice": False,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": architecture(network.filters),
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(CHANNELS)},
        "labels": {name: value for value, name in LABEL_NAMES.items()},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    checkpoint = {
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "network_weights": nnunet_of(network).state_dict(),
    }
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def timed(command: list[str], log: Path) -> tuple[float, float]:
    """Seconds that a command takes, and of processor; what it says goes to a file, and is shown if it fails."""
    started, before = time.perf_counter(), processor_seconds()
    with log.open("w") as stream:
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        end = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment)
    if end.returncode:
        sys.exit(f"{command[0]} failed:\n{log.read_text()[-4000:]}")
    return time.perf_counter() - started, processor_seconds() - before


def processor_seconds() -> float:
    """Of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def agreement(ours: np.ndarray, theirs: np.ndarray, brain: np.ndarray) -> str:
    """Shares of voxels with equal labels, and Dice of each label."""
    same = ours == theirs
    lines = [f"equal labels: {same.mean():.4%} of all voxels, {same[brain].mean():.4%} of the brain's"]
    for value, name in LABEL_NAMES.items():
        if not value:
            continue
        a, b = ours == value, theirs == value
        total = int(a.sum() + b.sum())
        dice = f"{2 * int((a & b).sum()) / total:.4f}" if total else "—"
        lines.append(f"{name:3} {int(a.sum())} and {int(b.sum())} voxels, Dice {dice}")
    return "\n".join(lines)


def main(
    dataset: str = "",
    nnunet: str = "",
    checkpoint: str = "",
    case: str = "",
    features: Sequence[int] = (32, 64, 128, 256, 320, 320),
    window: int = 128,
    crop: int = 0,
    steps: int = 60,
    repeats: int = 1,
    keep: str = "",
    **overrides: Any,
) -> None:
    """Print the seconds of both ways, their ratio, and how far their label maps agree.

    Args:
        dataset: folder of scans in any layout; none means a phantom.
        nnunet: folder of the commands of an environment with nnunetv2; none means that of this Python.
        checkpoint: weights of FANCL without attention; none means a short training on the case.
        case: the case; none means the first.
        features: channels of the network's stages.
        window: voxels along each side of a window.
        crop: take only the middle of the brain, this many voxels along each axis; 0 takes the whole scan.
        steps: of the short training.
        repeats: how often each way is timed.
        keep: folder, new, for what is made, the trained weights among it; none means one that goes in the end.
        overrides: further settings of the bundle's inference, such as --amp False.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(keep or scratch).resolve()
        if not dataset:
            dataset = str(folder / "phantom")
            make_phantoms(dataset, cases=1, shape=window + window // 4)
        chosen = next(one for one in list_cases(dataset) if case in ("", one["case"]))
        copy_case(chosen, folder / "scans", folder / "nnunet_scans", crop)
        torch.manual_seed(0)
        network = FANCL(features=features, attention=0)
        if checkpoint:
            load_weights(network, checkpoint)
        else:
            train(network, chosen, steps)
        torch.save(network.state_dict(), folder / "weights.pt")
        # Its own, so that neither resamples: they do that with different splines.
        spacing = [float(size) for size in nibabel.load(chosen["image"][0]).header.get_zooms()[2::-1]]
        write_nnunet_model(network, folder / "nnunet_model", window, spacing)
        settings: dict[str, Any] = {
            "dataset_dir": folder / "scans",
            "output_dir": folder / "ours",
            "weights": folder / "weights.pt",
            "components": "",
            "features": json.dumps(list(features)),
            "window_size": json.dumps([window] * 3),
            "spacing": json.dumps(spacing),
            "overwrite": True,
            "device": "cpu",
        }
        words = [f"--{id}={value}" for id, value in (settings | overrides).items()]
        predictor = Path(nnunet or Path(sys.executable).parent) / "nnUNetv2_predict_from_modelfolder"
        places = ["-i", folder / "nnunet_scans", "-o", folder / "theirs", "-m", folder / "nnunet_model"]
        ways = {
            "nnU-Net": [str(predictor), *map(str, places), "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"],
            "bundle": [sys.executable, "-m", "common", "run", "bundles/fancl", "inference", *words],
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, command in ways.items():
                seconds[name].append(timed(command, folder / f"{name}.log"))
        file = f"{chosen['case']}.nii.gz"
        ours, theirs = (np.asarray(nibabel.load(folder / name / file).dataobj) for name in ("ours", "theirs"))
        scans = [np.asarray(nibabel.load(scan).dataobj) for scan in sorted((folder / "scans").rglob("*.nii.gz"))]
        brain = np.logical_or.reduce([scan != 0 for scan in scans])
    print(machine())
    size = " × ".join(str(part.stop - part.start) for part in bounding_box(brain))
    print(f"case {chosen['case']}, brain {size} voxels, windows of {window}³, features {tuple(features)}")
    for name, times in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:8} {wall:7.1f} s, {processor:7.1f} s of processor   ({', '.join(f'{w:.1f}' for w, _ in times)})")
    pairs = zip(seconds["nnU-Net"], seconds["bundle"], strict=True)
    ratios = [[a / b for a, b in zip(t, o, strict=True)] for t, o in pairs]
    half = overrides.get("amp", True) and torch.cpu._is_avx512_bf16_supported()
    print(f"nnU-Net computes in float32, the bundle in {'bfloat16' if half else 'float32'}")
    print("ratio    " + ", ".join(f"{statistics.median(column):7.2f}" for column in zip(*ratios, strict=True)))
    print(agreement(ours, theirs, brain))


if __name__ == "__main__":
    fire.Fire(main)
