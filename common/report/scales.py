"""What each scale of MSConvLSTM-Att finds, and where its spatial attention looks.

Ait Skourt et al., "Multi-Scale ConvLSTM Attention-Based Brain Tumor Segmentation" (2022), Fig. 6: each scale predicts,
and the predictions are averaged. Its attention (Fig. 5) gathers for a position what all others hold; shown is from
where it does for the middle of the tumour.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from ..data.labels import REGIONS
from ..inferers.ensemble import first_member
from ..inferers.mixed_precision import MixedPrecisionInferer
from ..inferers.slices import PLANES, FilledSlicesInferer
from ..networks.msconvlstm_att import MSConvLSTMAtt, ScaleHead, double
from ..networks.position_attention import PositionAttention
from .attention import Study
from .pictures import Picture, encode_picture
from .planes import View, choose_axial_slice, draw_tile, show_slice

__all__ = ["draw_scales", "look"]


def look(
    network: MSConvLSTMAtt, inferer: Inferer, image: np.ndarray, position: tuple[int, int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the scales find in a slice, and where their first attention module looks for a position of it.

    Args:
        network: left in evaluation mode. Of an ensemble it gets the first member's weights.
        inferer: of the bundle's inference; its precision is taken, and the size to which it pads slices.
        image: (4, H, W), preprocessed.
        position: row and column.

    Returns:
        by name of each scale that predicts, and of their mean where there are several, the probability of tumour
        (H, W); and by name the maps of their attention (H, W), 1 where all positions count alike, none without.
    """
    inferer = first_member(inferer, network)
    slices = _slices(inferer)
    rows, columns = image.shape[1:]
    least = (0, 0) if slices is None else slices.window((rows, columns))
    wanted = [max(size, length + length % 2) for size, length in zip(least, (rows, columns), strict=True)]
    top, left = ((large - length) // 2 for large, length in zip(wanted, (rows, columns), strict=True))
    place = (top + position[0]) // 2, (left + position[1]) // 2
    padded = np.zeros((len(image), *wanted), np.float32)
    padded[:, top : top + rows, left : left + columns] = image
    network.eval()

    def cut(values: torch.Tensor) -> np.ndarray:
        """Without the padding, of (1, 1, H, W)."""
        return values[0, 0, top : top + rows, left : left + columns].cpu().numpy()

    def probable(logits: torch.Tensor) -> np.ndarray:
        return cut(1 - double(logits.float(), wanted).softmax(dim=1)[:, :1])

    tumour: dict[str, np.ndarray] = {}
    maps: dict[str, np.ndarray] = {}
    precision = MixedPrecisionInferer(SimpleInferer(), amp=getattr(inferer, "amp", False))
    with torch.inference_mode():
        found = precision(torch.from_numpy(padded)[None].to(next(network.parameters()).device), network.predictions)
        for name, scale in found.items():
            head = network.heads[name]
            assert isinstance(head, ScaleHead)
            tumour[f"Scale {name}"] = probable(scale.logits)
            first = next(iter(head.attention), None)
            if isinstance(first, PositionAttention):
                seen = first.map_of(scale.refined.float(), place)
                maps[f"Scale {name}"] = cut(double(seen[:, None] * seen[0].numel(), wanted))
        if len(found) > 1:
            mean = torch.stack([scale.logits.float() for scale in found.values()]).mean(dim=0)
            tumour["Mean of the scales"] = probable(mean)
    return tumour, maps


def draw_scales(
    case: str,
    network: nn.Module,
    inferer: Inferer,
    study: Study,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
) -> list[Picture]:
    """Draws what the scales find and where they look, in an axial slice through the lesion.

    Args:
        case: name, for the pictures' descriptions.
        network, inferer: see `look`.
        study: of the case, its image's axes SPL.
        reference, prediction: label maps on the study's grid, canonical, or None.

    Returns:
        the pictures; none of another network.
    """
    if not isinstance(network, MSConvLSTMAtt) or "axial" not in _planes(inferer):
        return []
    view = View.turned(study.image, study.affine, reference, prediction)
    index = choose_axial_slice(view)
    # The view's third axis goes down, the others are those of the slices.
    image = view.image[:, :, :, index].transpose(0, 2, 1)
    there = view.brain[:, :, index].T if view.guide is None else view.guide[:, :, index].T > 0
    inside = np.argwhere(there)
    middle = inside.mean(axis=0) if len(inside) else np.array(there.shape) / 2
    nearest = inside[np.square(inside - middle).sum(axis=1).argmin()] if len(inside) else middle.astype(int)
    row, column = (int(place) for place in nearest)
    tumour, maps = look(network, inferer, np.ascontiguousarray(image), (row, column))
    pictures = []
    for name, values in tumour.items():
        figure, axes = draw_tile(view, index, REGIONS["WT"])
        show_slice(axes, values, view.spacing[:2], (0.0, 1.0), "magma", alpha=0.85 * np.sqrt(values.clip(0, 1)))
        pictures.append(
            encode_picture(figure, f"Case {case}, axial plane, tumour by {name.lower()}", f"{name}: tumour")
        )
    for name, values in maps.items():
        figure, axes = draw_tile(view, index, REGIONS["WT"])
        high = max(float(values.max()), 1.0)
        show_slice(axes, values, view.spacing[:2], (0.0, high), "viridis", alpha=0.75)
        axes.plot(column * view.spacing[0], row * view.spacing[1], "+", color="white", markersize=9, markeredgewidth=2)
        alt = f"Case {case}, axial plane, attention of {name.lower()} for the marked place"
        pictures.append(encode_picture(figure, alt, f"{name}: attention, at most {high:.1f}"))
    return pictures


def _slices(inferer: object) -> FilledSlicesInferer | None:
    """What applies the network to slices, somewhere within."""
    while inferer is not None and not isinstance(inferer, FilledSlicesInferer):
        inferer = getattr(inferer, "inferer", None)
    return inferer


def _planes(inferer: object) -> list[str]:
    slices = _slices(inferer)
    return [*PLANES] if slices is None else [PLANES[axis] for axis in slices.axes]
