"""How good the weights that come along are on real scans: the table of the bundles' pages.

    python -m benchmarks.real_cases DATASET [--out runs/real] [--published DIR] [--weights cga_unet=FILE …]

For each labelled case of a data set, in any layout: Dice of the whole tumour (WT), its core (TC) and what enhances
(ET), and lesion-wise Dice by the policy of BraTS 2023 for gliomas, of

- the trivial way: FLAIR above z = 1.25 within the brain, opened by a voxel, the largest connected component without its
  holes (WT alone);
- each bundle with weights trained on generated scans, by the command that users type, plain and with views (all
  combinations of flips);
- the mean of the networks' probabilities;
- label maps by others, a folder a method in --published.

Nothing is trained or chosen here. Beside the table: how well the networks' probabilities of tumour are calibrated
(MONAI's expected calibration error within the brain), and how well their entropy finds errors. What is predicted stays
in --out, with the page lesions.html, which shows the lesions that were missed and what was found where none is.
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
from monai.metrics import CalibrationErrorMetric
from scipy import ndimage

from common.data.labels import REGIONS
from common.data.layouts import list_cases
from common.data.pairs import find_references, pair_label_maps
from common.data.reading import read_image, read_label
from common.data.writing import write_nifti
from common.metrics.lesion_wise import RegionScores, policy_of
from common.report.uncertainty import count_errors, error_auc
from common.running import BUNDLES
from common.scoring import score_pairs
from common.transforms.entropy import entropy_map
from common.weights import GENERATED

from .ablation import Runs
from .machine import machine

THRESHOLD = 1.25
"""Of FLAIR, in standard deviations of the brain's voxels above their mean."""

VIEWS = {"msconvlstm_att": "[1,2]"}
"""Axes of the flips; a network of axial slices sees no more of one that is turned upside down."""

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


def scores_of(folder: Path, dataset: Path) -> Scores:
    """Case → region → scores of a folder of label maps, in whatever convention of BraTS."""
    pairs, missing, _ = pair_label_maps(folder, find_references(dataset), "brats", allow_missing=True)
    scored, failed = score_pairs(pairs, policy_of("brats2023-gli"))
    if missing or failed:
        sys.exit(f"{folder}: {', '.join([*missing, *failed.values()])}")
    return scored


def trust(folder: Path, cases: Sequence[Mapping[str, object]]) -> tuple[float, float]:
    """Expected calibration error of the probability of tumour, and the AUC of entropy for errors; means of cases."""
    errors, areas = [], []
    for case in cases:
        image, _ = read_image(case)
        reference, _ = read_label(case)
        brain = (image != 0).any(axis=0)
        probabilities = np.asarray(nibabel.load(folder / f"{case['case']}_probabilities.nii.gz").dataobj)
        tumour = torch.from_numpy(probabilities[brain][:, 1:].sum(axis=-1))[None, None, :, None]
        metric = CalibrationErrorMetric()
        metric(tumour, torch.from_numpy((reference[brain] > 0).astype(np.float32))[None, None, :, None])
        errors.append(float(metric.aggregate()))
        entropy = entropy_map(torch.from_numpy(np.moveaxis(probabilities, -1, 0)))[0].numpy()
        areas.append(error_auc(count_errors(entropy, probabilities.argmax(axis=-1), reference, brain)))
    return statistics.mean(errors), statistics.mean(areas)


def table(methods: Mapping[str, Scores], cases: Sequence[str], only_wt: Sequence[str] = ()) -> str:
    """A table in Markdown: a row a method; WT, TC and ET of each case, their means, and lesion-wise the same means.

    Args:
        methods: name → scores.
        cases: their names.
        only_wt: methods that know the whole tumour alone.
    """
    columns = [*cases, "mean", "lesion-wise mean"]
    lines = [f"| WT / TC / ET | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for method, scores in methods.items():
        regions = ["WT"] if method in only_wt else [*REGIONS]
        rows = [[scores[case][region].volume_dice for region in regions] for case in cases]
        rows.append([statistics.mean(values) for values in zip(*rows, strict=True)])
        rows.append([statistics.mean(scores[case][region].dice for case in cases) for region in regions])
        lines.append(f"| {method} | " + " | ".join(" / ".join(f"{v:.3f}" for v in row) for row in rows) + " |")
    return "\n".join(lines)


def main() -> None:
    """Predict, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="labelled real scans, in any layout")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="folder of what is predicted")
    parser.add_argument("--published", type=Path, help="folder of label maps by others, a folder a method")
    parser.add_argument("--weights", nargs="+", default=[], metavar="BUNDLE=FILE", help="others than come along")
    given = parser.parse_args()
    along = {path.parents[1].name: path for path in sorted(BUNDLES.glob(f"*/models/{GENERATED}"))}
    weights = along | {bundle: Path(path) for bundle, _, path in (pair.partition("=") for pair in given.weights)}
    cases = [case for case in list_cases(given.dataset) if case.get("label")]
    names = [str(case["case"]) for case in cases]
    folders = {"FLAIR threshold": given.out / "threshold"}
    for case in cases:
        trivial(case, folders["FLAIR threshold"])
    networks = {}
    runs = Runs(argparse.Namespace(parallel=1), given.out)
    for bundle, path in weights.items():
        command = ["run", bundle, "inference", "--dataset_dir", given.dataset, "--weights", path]
        command += ["--save_probabilities", True, "--output_dir"]
        networks[bundle] = given.out / bundle
        networks[f"{bundle}, views"] = given.out / f"{bundle}_views"
        runs.command(*command, networks[bundle])
        runs.command(*command, networks[f"{bundle}, views"], "--flips", VIEWS.get(bundle, "[0,1,2]"))
    if len(weights) > 1:
        networks["mean of the networks"] = given.out / "ensemble"
        combine([networks[bundle] for bundle in weights], names, networks["mean of the networks"])
    published = sorted(given.published.iterdir()) if given.published else []
    folders |= networks | {f"{folder.name} (took part in the vote)": folder for folder in published}
    scored = {name: scores_of(folder, given.dataset) for name, folder in folders.items()}
    print(machine())
    print("\n" + table(scored, names, only_wt=["FLAIR threshold"]))
    print("\n| | calibration error of tumour | AUC of entropy for errors |\n|---|---|---|")
    for name, folder in networks.items():
        error, area = trust(folder, cases)
        print(f"| {name} | {error:.4f} | {area:.3f} |")
    scores = given.out / "scores"
    runs.command("score", *networks.values(), given.dataset, "--preset", "brats2023-gli", "--out", scores)
    print(f"\nmissed and false lesions: {scores / 'lesions.html'}")


if __name__ == "__main__":
    main()
