"""What the supervised attention of CGA U-Net saw and did in the prediction.

Li et al., "Category Guided Attention Network for Brain Tumor Segmentation in MRI", 2021: Fig. 7 shows the attention map
of each class, Fig. 6 channels of the feature map before and after the intra-class update.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import ResampleToMatch
from torch import nn

from ..data.labels import LABEL_NAMES, REGIONS
from ..transforms.regions import LabelProbabilitiesd
from .pictures import Picture, encode_picture
from .planes import View, choose_axial_slice, draw_tile, orient, show_slice

__all__ = ["Study", "draw_attention", "draw_features", "match_grid", "study_case"]

CHANNELS_SHOWN = 4
CLASS_NAMES = {
    "background": "Background",
    "NCR": "Necrotic or non-enhancing core (NCR)",
    "ED": "Edema (ED)",
    "ET": "Enhancing tumour (ET)",
}


class Study(NamedTuple):
    """What a network did with a preprocessed image (4, X, Y, Z).

    Args:
        image: channels in canonical order, normalised.
        affine: of the image.
        probabilities: (labels, X, Y, Z).
        attention: (labels, x, y, z), None where the network has no attention or took the image in windows of another
            size, of which each has a map of its own.
        before, after: the feature map (C, x, y, z) before and after the update, likewise.
    """

    image: np.ndarray
    affine: np.ndarray
    probabilities: np.ndarray
    attention: np.ndarray | None = None
    before: np.ndarray | None = None
    after: np.ndarray | None = None


def study_case(network: nn.Module, inferer: Inferer, image: MetaTensor) -> Study:
    """Runs a network as its bundle's inference does, and keeps what its submodule `attention` took in and gave out.

    Args:
        network: gives one tensor of logits (B, labels, D, H, W), or of regions, in evaluation mode; left in that mode.
        inferer: of the bundle's inference; its `sigmoid` says that they are of regions.
        image: (4, X, Y, Z), preprocessed, with its affine.
    """
    kept: dict[str, np.ndarray] = {}

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        # Of an ensemble, the first member's look at the image as it is; the views after that are flipped.
        if not kept and inputs[0].shape[2:] == image.shape[1:]:
            maps = {"attention": output.attention, "before": inputs[1], "after": output.features}
            kept.update({name: value[0].float().cpu().numpy().copy() for name, value in maps.items()})

    attention = getattr(network, "attention", None)
    hook = attention.register_forward_hook(keep) if isinstance(attention, nn.Module) else None
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            logits = inferer(image.as_tensor()[None].to(device), network.eval())
    finally:
        if hook is not None:
            hook.remove()
    to_labels = LabelProbabilitiesd("pred", regions=getattr(inferer, "sigmoid", False))
    probabilities = to_labels({"pred": logits[0]})["pred"].cpu().numpy()
    return Study(image.numpy(), np.asarray(image.affine, dtype=np.float64), probabilities, **kept)


def match_grid(label: np.ndarray, affine: np.ndarray, study: Study) -> np.ndarray:
    """Brings a label map (X, Y, Z) of the scan to the study's grid, nearest neighbour, background outside."""
    source = MetaTensor(torch.from_numpy(label.astype(np.float32))[None], affine=torch.from_numpy(affine))
    target = MetaTensor(torch.zeros((1, *study.image.shape[1:])), affine=torch.from_numpy(study.affine))
    matched = ResampleToMatch(mode="nearest", padding_mode="zeros")(source, target)
    return matched[0].numpy().round().astype(np.uint8)


def enlarge(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Brings maps (C, x, y, z) to the image's grid (X, Y, Z) by linear interpolation.

    Convolutions with stride and the label's nearest neighbours have cell i of a map at rate r at voxel r·i, not in the
    middle of the r voxels that follow; so it is put there. Convolutions of stride 2 round sizes up, so the rate is
    the smallest power of two that is at least the ratio of the two sizes along every axis.
    """
    rate = 2 ** math.ceil(math.log2(max(v / c for v, c in zip(shape, maps.shape[1:], strict=True))))
    weights = []
    for voxels, cells in zip(shape, maps.shape[1:], strict=True):
        place = np.minimum(np.arange(voxels) / rate, cells - 1)
        weights.append(np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(cells))))
    return np.einsum("cxyz,ax,by,dz->cabd", maps, *weights, optimize=True)


def _view(study: Study, reference: np.ndarray | None, prediction: np.ndarray | None) -> tuple[View, int]:
    view = View.turned(study.image, study.affine, reference, prediction)
    return view, choose_axial_slice(view)


def draw_attention(
    case: str, study: Study, reference: np.ndarray | None, prediction: np.ndarray | None
) -> list[Picture]:
    """Draws the attention map of each class over an axial slice through the lesion (Fig. 7).

    Args:
        case: name, for the pictures' descriptions.
        study: of the case.
        reference, prediction: label maps (X, Y, Z) on the study's grid, canonical, or None.

    Returns:
        one picture a class; none where the study has no attention map.
    """
    if study.attention is None:
        return []
    view, index = _view(study, reference, prediction)
    maps, _ = orient(enlarge(study.attention, study.image.shape[1:]), study.affine)
    pictures = []
    for label, heat in enumerate(maps):
        name = CLASS_NAMES[LABEL_NAMES[label]]
        alt = f"Case {case}, axial plane, attention map of {name}, from {heat.min():.2f} to {heat.max():.2f}"
        figure, axes = draw_tile(view, index, (label,) if label else REGIONS["WT"])
        # The map is trained towards 0 and 1, so the scale is the same for all classes; where it is 0 the image shows.
        values = heat[:, :, index].T
        show_slice(axes, values, view.spacing[:2], (0.0, 1.0), "magma", alpha=0.85 * np.clip(values, 0, 1) ** 0.5)
        pictures.append(encode_picture(figure, alt, name))
    return pictures


def draw_features(
    case: str, study: Study, reference: np.ndarray | None, prediction: np.ndarray | None
) -> list[Picture]:
    """Draws the channels that the update changed most, before and after it (Fig. 6), in one scale for both.

    Arguments as for `draw_attention`.

    Returns:
        pairs of pictures, before and after; none where there was no update.
    """
    if study.before is None or study.after is None or np.array_equal(study.before, study.after):
        return []
    view, index = _view(study, reference, prediction)
    change = (study.after - study.before).std(axis=(1, 2, 3))
    chosen = np.argsort(-change, kind="stable")[:CHANNELS_SHOWN]
    pictures = []
    for channel in chosen:
        pair, _ = orient(
            enlarge(np.stack([study.before[channel], study.after[channel]]), study.image.shape[1:]), study.affine
        )
        slices = pair[..., index]
        limits = (float(slices.min()), float(slices.max()))
        for heat, when in zip(pair, ("before", "after"), strict=True):
            alt = f"Case {case}, axial plane, feature channel {channel} {when} the update"
            figure, axes = draw_tile(view, index, REGIONS["WT"])
            show_slice(axes, heat[:, :, index].T, view.spacing[:2], limits, "viridis")
            pictures.append(encode_picture(figure, alt, f"Channel {channel}, {when}"))
    return pictures
