"""Random patches, some of which must show foreground."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data.utils import get_random_patch, get_valid_patch_size
from monai.transforms import LazyTransform, MapTransform, Randomizable, SpatialCrop
from monai.transforms.utils import generate_label_classes_crop_centers

__all__ = ["RandForegroundCropd"]


class RandForegroundCropd(Randomizable, MapTransform, LazyTransform):
    """Cut out a patch at a random place or, where the case is asked to show foreground, around a random voxel of it.

    That voxel is of a random class, one of those that are there: a small class is shown as often as a large one
    (nnU-Net's oversampling). The patch lies around it as far as the image goes. Where there is no foreground, or none
    is asked for, every place is as likely as any other. An axis along which the image is smaller than the patch stays
    whole.

    The patch is a view: of an entry that is mapped into memory nothing else is read. In a lazy `Compose` it is cut
    together with what comes after it, so that a patch that is turned has no empty corners.

    Args:
        keys: entries (C, D, H, W) of one size that are cut, alike.
        patch_size: voxels along each axis.
        indices_key: where MONAI's `ClassesToIndicesd` has put the places of each class, the background's first. They
            are kept with the case when that comes before everything random; with `max_samples_per_class` they are at
            most so many of each class, evenly spaced.
        foreground_key: entry that is true where foreground is asked for, see `common.data.order.Draw`; it may be
            missing. It and the indices aren't handed on, since they can't be put into a batch.
        allow_missing_keys: keys but the first may be missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        indices_key: str = "label_places",
        foreground_key: str = "foreground",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        LazyTransform.__init__(self)
        self.patch_size, self.indices_key, self.foreground_key = tuple(patch_size), indices_key, foreground_key
        self.slices: tuple[slice, ...] = ()

    def randomize(self, size: Sequence[int], indices: Sequence[Any] = ()) -> None:
        """Draw the place of the patch.

        Args:
            size: of the image (D, H, W).
            indices: of each class's voxels in it, flattened, where the patch must show one of them.
        """
        if any(len(of_class) for of_class in indices):
            (centre,) = generate_label_classes_crop_centers(
                self.patch_size, 1, size, indices, rand_state=self.R, allow_smaller=True, warn=False
            )
            self.slices = SpatialCrop(roi_center=centre, roi_size=self.patch_size).slices
        else:
            self.slices = get_random_patch(size, get_valid_patch_size(size, self.patch_size), self.R)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Cut the patch out of each key."""
        cropped = dict(data)
        foreground = cropped.pop(self.indices_key)[1:]
        asked = bool(cropped.pop(self.foreground_key, False))
        self.randomize(cropped[self.keys[0]].shape[1:], foreground if asked else ())
        crop = SpatialCrop(roi_slices=self.slices)
        for key in self.key_iterator(cropped):
            cropped[key] = crop(cropped[key], lazy=self.lazy if lazy is None else lazy)
        return cropped
