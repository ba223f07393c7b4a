"""The brain's box: negative voxels inside belong to it; a label outside it is an error."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd

from common.errors import CaseError
from common.transforms.crop import CropBraind, CropMiddled


def item() -> dict:
    image = torch.zeros(2, 8, 9, 10)
    image[0, 2:6, 3:5, 4:9] = 1.0
    image[1, 2, 3, 3] = -0.5  # in one channel only, and negative
    label = torch.zeros(1, 8, 9, 10)
    label[0, 3, 3, 5] = 2
    return {"case": "c", "image": MetaTensor(image), "label": MetaTensor(label, meta={"filename_or_obj": "c-seg.nii"})}


def test_box_holds_all_that_is_not_zero_and_can_be_undone():
    crop = Compose([CropBraind(["image", "label"])])
    cropped = crop(item())
    assert cropped["image"].shape == (2, 4, 2, 6)
    assert cropped["label"].shape == (1, 4, 2, 6)
    cropped["pred"] = cropped["image"].clone()
    undone = Invertd("pred", crop, orig_keys="image")(cropped)["pred"]
    np.testing.assert_array_equal(undone.numpy(), item()["image"].numpy())


def test_image_without_brain():
    empty = {**item(), "image": MetaTensor(torch.zeros(2, 8, 9, 10))}
    with pytest.raises(CaseError, match="case c: no voxel of the image differs from zero"):
        CropBraind(["image", "label"])(empty)


def test_label_outside_the_brain():
    moved = item()
    moved["label"] = moved["label"].flip(2)
    with pytest.raises(CaseError, match=r"case c, c-seg\.nii: the whole lesion lies where the image is zero"):
        CropBraind(["image", "label"])(moved)


def test_label_without_lesion_is_fine():
    healthy = {**item(), "label": MetaTensor(torch.zeros(1, 8, 9, 10))}
    assert CropBraind(["image", "label"])(healthy)["label"].shape == (1, 4, 2, 6)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 2, 1), (0, 2, 3, 1)])
def test_box_is_monais_whatever_the_order_in_memory(axes: tuple[int, ...]):
    array = np.ascontiguousarray(item()["image"].numpy().transpose(axes)).transpose(np.argsort(axes))
    image = MetaTensor(torch.from_numpy(array))
    expected = CropForegroundd("image", source_key="image", select_fn=lambda x: x != 0, allow_smaller=True)
    a, b = (crop({"case": "c", "image": image})["image"] for crop in (expected, CropBraind("image")))
    assert a.shape == b.shape
    assert torch.equal(a.as_tensor(), b.as_tensor())


def test_axes_that_stay_whole():
    crop = Compose([CropBraind(["image", "label"], whole=[0])])
    cropped = crop(item())
    assert cropped["image"].shape == (2, 8, 2, 6) and cropped["label"].shape == (1, 8, 2, 6)
    cropped["pred"] = cropped["image"].clone()
    undone = Invertd("pred", crop, orig_keys="image")(cropped)["pred"]
    np.testing.assert_array_equal(undone.numpy(), item()["image"].numpy())
    with pytest.raises(CaseError, match="no voxel of the image differs from zero"):
        crop.transforms[0]({**item(), "image": MetaTensor(torch.zeros(2, 8, 9, 10))})


def test_middle(caplog: pytest.LogCaptureFixture):
    """Rows 2 to 6 and columns 2 to 7 of 9 and 10: the brain's last column is lost, and nothing of the lesion."""
    crop = Compose([CropMiddled(["image", "label"], roi_size=[-1, 5, 6])])
    cropped = crop(item())
    torch.testing.assert_close(cropped["image"].as_tensor(), item()["image"].as_tensor()[:, :, 2:7, 2:8])
    assert [record.getMessage() for record in caplog.records] == [
        "c: 8 voxels of the brain lie outside the middle 8×5×6 and are left out"
    ]
    cropped["pred"] = cropped["image"].clone()
    undone = Invertd("pred", crop, orig_keys="image")(cropped)["pred"]
    expected = item()["image"].numpy()
    expected[..., 8:] = 0
    np.testing.assert_array_equal(undone.numpy(), expected)


def test_lesions_outside_the_middle(caplog: pytest.LogCaptureFixture):
    told = r"case c, c-seg\.nii: the whole lesion lies outside the middle 8×1×6 voxels; give a larger crop_size"
    with pytest.raises(CaseError, match=told):
        CropMiddled(["image", "label"], roi_size=[-1, 1, 6])(item())
    part = item()
    part["label"][0, 4, 4, 5] = 1  # stays
    CropMiddled(["image", "label"], roi_size=[-1, 1, 6])(part)
    assert "c: 1 voxels of the lesion lie outside the middle 8×1×6 and are left out" in caplog.text
