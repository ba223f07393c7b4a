"""Generated scans as the first of a training's transforms, in place of what loads files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import Randomizable, RandomizableTrait, Transform

from ..data.labels import CHANNELS
from ..data.phantoms import draw_phantom, fit_voxels, phantom_affine, render_phantom, vary_phantom
from .load import meta_tensor

__all__ = ["Phantomd", "RandPhantomd"]


class Phantomd(Transform):
    """Render the generated brain that a case's entry `phantom` (seed, index) names, drawn apart from those of training.

    Adds `image`, a MetaTensor (4, X, Y, Z), float32, channels in canonical order, and `label`, (1, X, Y, Z), uint8,
    canonical values, in isotropic voxels; see `common.data.phantom_variety.vary_phantom`.

    Args:
        spacing: the finest of these is the voxels' size, mm.
        kind: metastases, glioma or mixed.
        without: features that are left out.
        modality: where it is given, `image` has this one alone, and `label` is 1 wherever there is lesion.
    """

    apart = True

    def __init__(
        self, spacing: Sequence[float], kind: str = "mixed", without: Sequence[str] = (), modality: str = ""
    ) -> None:
        self.spacing, self.kind, self.without = min(spacing), kind, tuple(without)
        self.modality = modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its scan."""
        return self.render(data, *data["phantom"])

    def render(self, data: Mapping[Hashable, Any], seed: int, index: int) -> dict[Hashable, Any]:
        """The case with the scan of a seed and index."""
        phantom = vary_phantom(draw_phantom(seed, index, self.kind), self.without, self.apart)
        phantom, shape = fit_voxels(phantom, self.spacing)
        images, label = render_phantom(phantom, shape)
        if self.modality:
            images, label = images[[CHANNELS.index(self.modality)]], (label > 0).astype("uint8")
        affine, name = phantom_affine(shape, phantom.size), f"{data['case']} (seed {seed}, index {index})"
        image = meta_tensor(images.astype("float32"), affine, name)
        return {**data, "image": image, "label": meta_tensor(label[None], affine, name)}


class RandPhantomd(Randomizable, RandomizableTrait, Phantomd):
    """Render another generated brain each time: which one, its own random state says.

    Beside `common.data.order.Draw` that is a function of the training's seed, the epoch and the place in it, so that a
    training that goes on sees what it would have seen.
    """

    apart = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with a new scan."""
        return self.render(data, int(self.R.randint(2**32, dtype="uint32")), 0)
