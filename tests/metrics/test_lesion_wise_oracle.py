"""Every value of the challenge's own script, to the bit."""

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.metrics.lesion_wise import lesion_wise_scores

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "oracle"
PRESETS = {"BraTS-MET": "brats2023-met", "BraTS-GLI": "brats2023-gli", "BraTS-MEN": "brats2023-men"}
COLUMNS = {
    "tp": "Num_TP",
    "fp": "Num_FP",
    "fn": "Num_FN",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "volume_dice": "Legacy_Dice",
    "volume_hd95": "Legacy_HD95",
    "reference_volume": "GT_Complete_Volume",
    "dice": "LesionWise_Score_Dice",
    "hd95": "LesionWise_Score_HD95",
}


def label_map(image: nibabel.Nifti1Image) -> np.ndarray:
    """The script compares values with 1, 2 and 3; all others, fractions too, are background to it."""
    voxels = np.asarray(image.dataobj)
    return np.where(np.isin(voxels, (1, 2, 3)), voxels, 0).astype(np.uint8)


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the challenge script's values aren't beside the repository")
def test_equal_to_the_bit(capsys: pytest.CaptureFixture[str]):
    compared, different = 0, []
    for name, case in json.loads((ORACLE / "oracle.json").read_text())["cases"].items():
        prediction, reference = (nibabel.load(ORACLE / case[key]) for key in ("pred", "gt"))
        spacing = [float(zoom) for zoom in prediction.header.get_zooms()]
        for challenge, regions in case["results"].items():
            scores = lesion_wise_scores(label_map(prediction), label_map(reference), spacing, PRESETS[challenge])
            for region, expected in regions.items():
                ours = scores[region]
                pairs = [(getattr(ours, ours_is), expected["scores"][theirs]) for ours_is, theirs in COLUMNS.items()]
                pairs += [(ours.prediction_volume, expected["pred_volume_mm3"])]
                first = {c["pred_component"]: tuple(c["first_voxel"]) for c in expected["pred_components"]}
                false = {first[c["pred_component"]] for c in expected["pred_components"] if c["is_fp"]}
                pairs += [({lesion.first_voxel for lesion in ours.false_positives}, false)]
                lesions = {lesion.first_voxel: lesion for lesion in ours.lesions}
                pairs += [(lesions.keys(), {tuple(row["gt"]["first_voxel"]) for row in expected["lesions"]})]
                for row in expected["lesions"]:
                    lesion = lesions[tuple(row["gt"]["first_voxel"])]
                    pairs += [
                        (lesion.volume, row["gt_volume_mm3"]),
                        (lesion.dice, row["dice"]),
                        (lesion.hd95, math.inf if row["hd95"] is None else row["hd95"]),
                        (lesion.detected, row["detected"]),
                        (lesion.scored, row["above_threshold"]),
                        (set(lesion.matched_components), {first[number] for number in row["pred_components"]}),
                    ]
                compared += len(pairs)
                different += [(name, challenge, region, a, b) for a, b in pairs if a != b]
    with capsys.disabled():
        print(f"\n{compared} values compared with the challenge script's")
    assert compared > 20_000 and not different
