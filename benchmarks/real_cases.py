"""How good the weights that come along are on real scans: the table of the bundles' pages.

    python -m benchmarks.real_cases DATASET [--out runs/real] [--published DIR] [--weights cga_unet=FILE …]

For each labelled case of a data set, in any layout: Dice of the whole tumour (WT), its core (TC) and what enhances
(ET), and lesion-wise Dice by the policy of BraTS 2023 for gliomas, of

- the reference itself, taken to the voxels that the networks work in and back: no network can be better;
- the trivial way: FLAIR above z = 1.25 within the brain, opened by a voxel, the largest connected component without its
  holes (WT alone);
- each bundle with weights trained on generated scans, by the command that users type, plain and with views (all
  combinations of flips);
- the mean of the networks' probabilities;
- label maps by others, a folder a method in --published.

Nothing is trained or chosen here. Beside the table: how well the networks' probabilities of tumour are calibrated
(MONAI's expected calibration error within the brain), and how well their entropy finds errors. What is predicted stays
in --out, with the page lesions.html, which shows the lesions that were missed and what was found where none is, and a
report.html of each network, with the outlines of reference and prediction.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import CalibrationErrorMetric
from monai.transforms import ResampleToMatch, Spacing
from scipy import ndimage

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.data.pairs import find_references, pair_label_maps
from common.data.reading import read_image, read_label
from common.data.writing import write_nifti
from common.errors import InputError, exit_in_one_line
from common.metrics.lesion_wise import RegionScores, policy_of
from common.report.uncertainty import count_errors, error_auc
from common.running import BUNDLES
from common.scoring import score_pairs
from common.transforms.entropy import entropy_map
from common.weights import GENERATED, trained_setting

from .ablation import Runs
from .machine import machine

TRIVIAL = "FLAIR threshold, largest component"

THRESHOLD = 1.25
"""Of FLAIR, in standard deviations of the brain's voxels above their mean."""

VIEWS = {"msconvlstm_att": "[0]"}
"""Directions of the flips: of axial slices that one with which the network was trained, left and right."""

Scores = dict[str, dict[str, RegionScores]]


def trivial(case: Mapping[str, object], out: Path) -> None:
    """Write the trivial label map of a case: edema wherever it has tumour."""
    image, affine = read_image(case)
    flair = image[3].astype(np.float64)
    values = flair[flair != 0]
    bright = ((flair - values.mean()) / values.std() > THRESHOLD) & (flair != 0)
    parts, _ = ndimage.label(ndimage.binary_opening(bright))
    sizes = np.bincount(parts.ravel())[1:]
    largest = ndimage.binary_fill_holes(parts == sizes.argmax() + 1) if len(sizes) else parts > 0
    write_nifti(out / f"{case['case']}.nii.gz", 2 * largest.astype(np.uint8), affine)


def combine(folders: Sequence[Path], cases: Sequence[str], out: Path) -> None:
    """Write the label maps of the mean of several folders' probabilities, and these."""
    for case in cases:
        images = [nibabel.load(folder / f"{case}_probabilities.nii.gz") for folder in folders]
        mean = np.mean([np.asarray(image.dataobj) for image in images], axis=0, dtype=np.float32)
        write_nifti(out / f"{case}_probabilities.nii.gz", mean, images[0].affine)
        write_nifti(out / f"{case}.nii.gz", mean.argmax(axis=-1).astype(np.uint8), images[0].affine)


def labelled_cases(dataset: Path, least: int = 1) -> list[dict[str, object]]:
    """The cases of a data set that have labels.

    Raises:
        InputError: they are fewer than `least`, or it is no data set.
    """
    cases = [case for case in list_cases(dataset) if case.get("label")]
    if len(cases) < least:
        raise InputError(f"{dataset} has {len(cases)} labelled cases: give a data set with {least} or more")
    return cases


def at_spacing(case: Mapping[str, object], spacing: Sequence[float], out: Path) -> None:
    """Write the label map of a case after a way to voxels of that size, mm, and back, the nearest voxel each time."""
    label, affine = read_label(case)
    here = MetaTensor(torch.from_numpy(label[None].astype(np.float32)), affine=torch.from_numpy(affine))
    there = Spacing(spacing, mode="nearest")(here)
    back = ResampleToMatch(mode="nearest")(there, img_dst=here)
    write_nifti(out / f"{case['case']}.nii.gz", back[0].numpy().astype(np.uint8), affine)


def scores_of(folder: Path, dataset: Path) -> Scores:
    """Case → region → scores of a folder of label maps, in whatever convention of BraTS."""
    pairs, missing, _ = pair_label_maps(folder, find_references(dataset), "brats", allow_missing=True)
    scored, failed = score_pairs(pairs, policy_of("brats2023-gli"))
    if missing or failed:
        sys.exit(f"{folder}: {', '.join([*missing, *failed.values()])}")
    return scored


def trust(folder: Path, cases: Sequence[Mapping[str, object]]) -> list[tuple[float, float]]:
    """Of each case the expected calibration error of the probability of tumour, and the AUC of entropy for errors."""
    found = []
    for case in cases:
        image, _ = read_image(case)
        reference, _ = read_label(case)
        brain = (image != 0).any(axis=0)
        probabilities = np.asarray(nibabel.load(folder / f"{case['case']}_probabilities.nii.gz").dataobj)
        tumour = torch.from_numpy(probabilities[brain][:, 1:].sum(axis=-1))[None, None, :, None]
        metric = CalibrationErrorMetric()
        metric(tumour, torch.from_numpy((reference[brain] > 0).astype(np.float32))[None, None, :, None])
        entropy = entropy_map(torch.from_numpy(np.moveaxis(probabilities, -1, 0)))[0].numpy()
        area = error_auc(count_errors(entropy, probabilities.argmax(axis=-1), reference, brain))
        found.append((float(metric.aggregate()), area))
    return found


def table(head: str, rows: Mapping[str, Sequence[Sequence[float]]], cases: Sequence[str]) -> str:
    """A table in Markdown: a row a method, a column a case, with several numbers in each, and the means in the last.

    Args:
        head: what the numbers are.
        rows: method → case by case, its numbers.
        cases: their names.
    """
    lines = [f"| {head} | {' | '.join((*cases, 'mean'))} |", "|---" * (len(cases) + 2) + "|"]
    for method, values in rows.items():
        means = [statistics.mean(of_cases) for of_cases in zip(*values, strict=True)]
        lines.append(f"| {method} | {' | '.join(' / '.join(f'{v:.3f}' for v in one) for one in (*values, means))} |")
    return "\n".join(lines)


def print_tables(methods: Mapping[str, Scores], cases: Sequence[str]) -> None:
    """Dice and lesion-wise Dice of all methods, and which beat the trivial one."""
    regions = {method: ["WT"] if method == TRIVIAL else [*REGIONS] for method in methods}
    for head, value in (("Dice", "volume_dice"), ("lesion-wise Dice", "dice")):
        rows = {
            method: [[getattr(scores[case][region], value) for region in regions[method]] for case in cases]
            for method, scores in methods.items()
        }
        print("\n" + table(f"{head}: WT / TC / ET", rows, cases))
    print()
    for method, scores in methods.items():
        above = sum(scores[one]["WT"].volume_dice > methods[TRIVIAL][one]["WT"].volume_dice for one in cases)
        mean = statistics.mean(scores[one]["WT"].volume_dice for one in cases)
        if method != TRIVIAL:
            print(f"{method}: whole tumour above the threshold in {above} of {len(cases)}, mean {mean:.3f}")


def main() -> None:
    """Predict, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="labelled real scans, in any layout")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="folder of what is predicted")
    parser.add_argument("--published", type=Path, help="folder of label maps by others, a folder a method")
    parser.add_argument("--weights", nargs="+", default=[], metavar="BUNDLE=FILE", help="others than come along")
    given = parser.parse_args()
    sys.excepthook = exit_in_one_line
    along = {path.parents[1].name: path for path in sorted(BUNDLES.glob(f"*/models/{GENERATED}"))}
    weights = along | {bundle: Path(path) for bundle, _, path in (pair.partition("=") for pair in given.weights)}
    for path in weights.values():
        if not path.is_file():
            raise InputError(f"--weights {path} is no file: give BUNDLE=FILE")
    cases = labelled_cases(given.dataset)
    names = [str(case["case"]) for case in cases]
    sizes = {tuple(trained_setting("spacing", [], str(path))) for path in weights.values()} - {()}
    folders = {f"reference in voxels of {size[0]:g} mm": given.out / f"reference_{size[0]:g}" for size in sizes}
    for case in cases:
        trivial(case, given.out / "threshold")
        for size, folder in zip(sizes, folders.values(), strict=True):
            at_spacing(case, size, folder)
    folders[TRIVIAL] = given.out / "threshold"
    networks = {}
    runs = Runs(argparse.Namespace(parallel=1), given.out)
    for bundle, path in weights.items():
        command = ["run", bundle, "inference", "--dataset_dir", given.dataset, "--weights", path]
        command += ["--save_probabilities", True, "--overwrite", True, "--output_dir"]
        networks[bundle] = given.out / bundle
        networks[f"{bundle}, views"] = given.out / f"{bundle}_views"
        runs.command(*command, networks[bundle])
        runs.command(*command, networks[f"{bundle}, views"], "--flips", VIEWS.get(bundle, "[0,1,2]"))
    if len(weights) > 1:
        networks["mean of the networks"] = given.out / "ensemble"
        combine([networks[bundle] for bundle in weights], names, networks["mean of the networks"])
    published = [path for path in sorted(given.published.iterdir()) if path.is_dir()] if given.published else []
    folders |= networks | {f"{folder.name} (took part in the vote)": folder for folder in published}
    scored = {name: scores_of(folder, given.dataset) for name, folder in folders.items()}
    print(machine())
    print_tables(scored, names)
    trusted = {name: trust(folder, cases) for name, folder in networks.items()}
    print("\n" + table("calibration error of tumour / AUC of entropy for errors", trusted, names))
    scores = given.out / "scores"
    allowed = ["--preset", "brats2023-gli", "--allow_missing", True]
    runs.command("score", *networks.values(), given.dataset, *allowed, "--out", scores)
    print(f"\nmissed and false lesions: {scores / 'lesions.html'}; outlines of all lesions:")
    for folder in networks.values():
        runs.command(
            "run", "cga_unet", "evaluate_predictions", "--dataset_dir", given.dataset, "--predictions_dir", folder
        )
        runs.command("report", given.dataset, folder, "--out", folder / "report.html")
        print(folder / "report.html")


if __name__ == "__main__":
    main()
