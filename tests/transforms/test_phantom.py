"""Generated scans as a training's first transform: functions of the draw, never the same twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose

from common.data.case_dataset import CaseDataset
from common.data.generated import generated_cases
from common.data.order import EpochBatches
from common.data.phantoms import draw_phantom, fit_voxels, render_phantom, vary_phantom
from common.transforms.phantom import Phantomd, RandPhantomd

SPACING = [5.0, 5.0, 6.0]


def test_shape_holds_the_head_at_that_spacing() -> None:
    assert fit_voxels(draw_phantom(0, 0), 2.0) == (draw_phantom(0, 0), (75, 93, 75))
    scan = Phantomd(SPACING)({"case": "a", "phantom": [3, 1]})
    phantom, shape = fit_voxels(vary_phantom(draw_phantom(3, 1), apart=True), 5.0)
    assert phantom.size != (1.0, 1.0, 1.0)
    assert scan["image"].shape == (4, *shape) and scan["label"].shape == (1, *shape)
    assert scan["image"].dtype == torch.float32 and scan["label"].dtype == torch.uint8
    np.testing.assert_allclose(np.diag(scan["image"].affine)[:3], 5.0, rtol=1e-9)  # or it would be resampled


def test_validation_is_the_record_drawn_apart() -> None:
    scan = Phantomd(SPACING, "glioma", ["slips"])({"case": "a", "phantom": [3, 1]})
    phantom = vary_phantom(draw_phantom(3, 1, "glioma"), ["slips"], apart=True)
    images, label = render_phantom(*fit_voxels(phantom, 5.0))
    np.testing.assert_array_equal(scan["image"].numpy(), images)
    np.testing.assert_array_equal(scan["label"][0].numpy(), label)


def test_one_modality_and_where_any_lesion_is() -> None:
    whole = Phantomd(SPACING)({"case": "a", "phantom": [3, 1]})
    one = Phantomd(SPACING, modality="t2f")({"case": "a", "phantom": [3, 1]})
    assert torch.equal(one["image"], whole["image"][3:]) and torch.equal(one["label"], (whole["label"] > 0).byte())


def test_no_case_is_seen_twice_and_each_is_a_function_of_its_draw(tmp_path: Path) -> None:
    data = generated_cases(cases=3, validation_cases=2, seed=0)["training"]

    def epochs(seed: int, start: int = 0) -> list[bytes]:
        dataset = CaseDataset(data, Compose([RandPhantomd(SPACING)]), tmp_path, cache_gib=0)
        batches = EpochBatches(len(dataset), batch_size=2, seed=seed)
        batches.epoch = start
        return [dataset[draw]["image"].numpy().tobytes() for _ in range(2) for batch in batches for draw in batch]

    seen = epochs(0)
    assert len({*seen}) == len(seen) == 6
    assert epochs(0, start=1)[:3] == seen[3:], "a training that goes on sees what it would have seen"
    assert not {*seen} & {*epochs(1)}
    assert not any(tmp_path.iterdir())


def test_parts_and_names() -> None:
    parts = generated_cases(cases=2, validation_cases=3, seed=7)
    assert [case["case"] for case in parts["training"]] == ["generated_00000", "generated_00001"]
    assert [case["phantom"] for case in parts["validation"]] == [[7, 0], [7, 1], [7, 2]]
