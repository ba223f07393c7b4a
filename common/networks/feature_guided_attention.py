"""Feature-guided attention (FGA): a prediction corrected by how image and shallow features resemble one another."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError

__all__ = [
    "DIVISORS",
    "NORMALISATIONS",
    "FeatureGuidedAttention",
    "correlation",
    "golden_attention",
    "merge_strips",
    "split_strips",
]

NORMALISATIONS = ("cosine", "sqrt", "none")
DIVISORS = ("attention", "strips")

_FILTERS = 64
_SIDES = (7, 3)  # kernels of Conv_img


class FeatureGuidedAttention(nn.Module):
    """Likeness of each place of the image to each place of a network's shallow features, which corrects its logits.

    Based on: Liu et al., "FANCL: Feature-Guided Attention Network with Curriculum Learning for Brain Metastases
    Segmentation", sections III.A to III.C.

    Image and features are cut into strips: the whole depth D, times a × b in plane. What a class's large lesions look
    like in the features then says something about the image's small ones.

    What the paper leaves open: Conv_img has a stride in plane, since at full size it would cost 184 GMac at 128³;
    it is padded with zeros once, before both of its convolutions; attention is divided as `correlation` says; the
    prediction is taken as probabilities, and what is added (Eq. 15) as logits; one transposed convolution serves all
    categories. Attention, probabilities and correction are computed in float32.

    R_pred (Eq. 11) is a sum over all feature strips. Divided by their number it goes to nothing where a lesion fills
    few of many: of 256 strips at 128³, one of 6 mm could change its own logits by 0.002 at most, and a network trained
    on crops would do something else on whole scans. Divided by the attention's own sum, it is the mean of the strips
    that are like the place in question, whatever their number.

    Any size is taken, whatever the size of training: no weight depends on it. Where a and b don't divide a map it is
    padded with zeros, and so it is where they are larger: such a map is a single strip, and its attention doesn't
    tell places apart.

    Args:
        in_channels: modalities of the image, M.
        feature_channels: channels of the features, C.
        categories: number of those that are corrected, P_c.
        patch_size: a and b, voxels of a strip in plane, of the image's map and of the features alike.
        feature_stride: by how much the features are smaller than the image, along each axis: 1 for the encoder's first
            stage. It is Conv_img's stride in depth, since D' is one size for both.
        image_stride: in-plane stride of Conv_img; where the features' is larger, that.
        normalisation: "cosine", "sqrt" or "none", see `correlation`.
        divisor: of R_pred: "attention" for 1 + Σ|F| over the feature strips, "strips" for their number.

    Raises:
        InputError: when an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        feature_channels: int,
        categories: int,
        patch_size: Sequence[int] = (8, 8),
        feature_stride: int = 1,
        image_stride: int = 2,
        normalisation: str = "cosine",
        divisor: str = "attention",
    ) -> None:
        super().__init__()
        if divisor not in DIVISORS:
            raise InputError(f"divisor {divisor!r}: it must be one of {', '.join(DIVISORS)}")
        if normalisation not in NORMALISATIONS:
            raise InputError(f"normalisation {normalisation!r}: it must be one of {', '.join(NORMALISATIONS)}")
        if len(patch_size) != 2 or min(patch_size) < 1:
            raise InputError(f"attention patch {list(patch_size)}: give two whole numbers above zero")
        if min(feature_stride, image_stride) < 1:
            raise InputError(f"attention strides {feature_stride} and {image_stride}: they must be at least 1")
        self.patch_size, self.normalisation, self.feature_stride = tuple(patch_size), normalisation, feature_stride
        self.divisor = divisor
        in_plane = max(image_stride, feature_stride)
        self.stride = (feature_stride, in_plane, in_plane)
        self.conv_image = LinearConvolutions(in_channels, _FILTERS, self.stride)
        self.conv_features = nn.Conv3d(feature_channels, categories, kernel_size=1)
        self.transposed = nn.ConvTranspose3d(1, 1, kernel_size=self.stride, stride=self.stride)

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Compute the attention (Eqs 1-7).

        Args:
            image: (B, M, D, H, W).
            features: (B, C, D', H', W'), of ⌈D / feature stride⌉ voxels and so on.

        Returns:
            F (B, P_c, image strips, feature strips), float32.
        """
        small_image, class_features = self.conv_image(image), self.conv_features(features)  # Eqs 1, 2
        with torch.autocast(image.device.type, enabled=False):
            return correlation(
                split_strips(small_image.float(), self.patch_size),  # Eq. 3
                split_strips(class_features.float(), self.patch_size),  # Eqs 4, 5
                self.normalisation,
            )

    def adjust(self, attention: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Compute the correction of the logits (Eqs 8-14).

        Args:
            attention: F (B, P_c, image strips, feature strips).
            probabilities: of each category (B, P_c, D, H, W).

        Returns:
            O_pred (B, P_c, D, H, W), float32.
        """
        depth, height, width = probabilities.shape[2:]
        small = [ceil(size / stride) for size, stride in zip((depth, height, width), self.stride, strict=True)]
        with torch.autocast(probabilities.device.type, enabled=False):
            pooled = _pool(probabilities.float(), [self.feature_stride] * 3)  # Eq. 8
            strips = split_strips(pooled, self.patch_size)  # Eqs 9, 10
            guided = strips @ attention.transpose(2, 3)  # Eqs 11, 12
            if self.divisor == "attention":
                guided = guided / (1 + attention.abs().sum(3)).unsqueeze(2)
            else:
                guided = guided / attention.shape[3]
            guided = merge_strips(guided, small, self.patch_size)
            # One transposed convolution for all categories (Eqs 13, 14).
            correction = self.transposed(guided.flatten(0, 1).unsqueeze(1))
        correction = correction.reshape(*probabilities.shape[:2], *correction.shape[2:])
        return correction[..., :depth, :height, :width]

    def golden(self, truth: torch.Tensor) -> torch.Tensor:
        """The attention that the truth (B, P_c, D, H, W) asks for, see `golden_attention`."""
        return golden_attention(truth, self.patch_size, self.stride, [self.feature_stride] * 3, self.normalisation)


class LinearConvolutions(nn.Module):
    """Conv_img (Eq. 1): convolutions of 7³ and then 3³ voxels with no activation between, computed as one.

    Two linear maps in a row are one, of 9 × 11 × 11 voxels where the first has an in-plane stride of 2: 4,356
    multiplications a voxel of the map in place of 89,500 with four modalities, and no map of 64 channels to keep. It is
    laid out for processors that want many channels and no stride: cells of stride × stride voxels in plane become
    channels, and the kernel's slices along depth become outputs, whose sum is the result.

    The image is padded with zeros once, before the first, and so the second needs none: an output has ⌈n / stride⌉
    voxels along each axis. Under autocast the kernel and the sum stay in float32.

    Args:
        in_channels: of the image.
        filters: channels between the two.
        stride: of the first, along each axis; the two in plane are equal.
    """

    def __init__(self, in_channels: int, filters: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Conv3d(in_channels, filters, _SIDES[0], stride)
        self.second = nn.Conv3d(filters, 1, _SIDES[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, D, H, W) to (B, 1, ⌈D / stride⌉, ⌈H / stride⌉, ⌈W / stride⌉)."""
        assert self.first.bias is not None and self.second.bias is not None
        with torch.autocast(image.device.type, enabled=False):
            # Voxel j of the second kernel sees the first at j times its stride.
            kernel = F.conv_transpose3d(self.second.weight, self.first.weight, stride=self.stride)
            bias = self.second.weight.sum(dim=(0, 2, 3, 4)) @ self.first.bias + self.second.bias
        step, cell = self.stride[:2]
        padding = [
            side for stride in reversed(self.stride) for side in (_SIDES[0] // 2 + stride * (_SIDES[1] // 2),) * 2
        ]
        slices = F.conv3d(_cells(F.pad(image, padding), cell), _cells(kernel, cell).transpose(0, 2))
        depth, height, width = (ceil(size / stride) for size, stride in zip(image.shape[2:], self.stride, strict=True))
        # Slice p of the kernel is due at depths p, p + step, …; whole cells may be more than what was asked for.
        due = (at[:, place::step][:, :depth, :height, :width] for place, at in enumerate(slices.unbind(1)))
        return sum((outputs.to(bias.dtype) for outputs in due), start=bias).unsqueeze(1)


def _cells(x: torch.Tensor, side: int) -> torch.Tensor:
    """(B, C, D, H, W) to (B, C·side², D, ⌈H / side⌉, ⌈W / side⌉): voxels of a cell in plane become channels."""
    x = _pad_to_multiples(x, side, side).unflatten(4, (-1, side)).unflatten(3, (-1, side))
    return x.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)


def _pad_to_multiples(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    """Zeros bottom right of (B, K, D, H, W), until a divides H and b divides W."""
    pads = (0, -x.shape[4] % b, 0, -x.shape[3] % a)
    return F.pad(x, pads) if any(pads) else x  # a padding by nothing would be a copy


def _pool(x: torch.Tensor, stride: Sequence[int]) -> torch.Tensor:
    """Average pooling (B, K, D, H, W) to (B, K, ⌈D / stride⌉, …); what is over at an end is averaged alone."""
    kernel = [min(step, size) for step, size in zip(stride, x.shape[2:], strict=True)]
    return F.avg_pool3d(x, kernel, tuple(stride), ceil_mode=True) if max(stride) > 1 else x


def split_strips(x: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """Cut into strips that go through the whole depth, padded with zeros bottom right (the partition φ of Eqs 3, 4, 9).

    Args:
        x: (B, K, D, H, W).
        patch_size: a and b, voxels along H and W.

    Returns:
        (B, K, D·a·b, ⌈H / a⌉·⌈W / b⌉), a strip a column.
    """
    a, b = patch_size
    x = _pad_to_multiples(x, a, b).unflatten(4, (-1, b)).unflatten(3, (-1, a))  # (B, K, D, H / a, a, W / b, b)
    return x.permute(0, 1, 2, 4, 6, 3, 5).flatten(5, 6).flatten(2, 4)


def merge_strips(strips: torch.Tensor, shape: Sequence[int], patch_size: Sequence[int]) -> torch.Tensor:
    """Put strips back into place, and cut off the padding: the inverse of `split_strips`.

    Args:
        strips: (B, K, D·a·b, ⌈H / a⌉·⌈W / b⌉).
        shape: D, H and W.
        patch_size: a and b.

    Returns:
        (B, K, D, H, W).
    """
    depth, height, width = shape
    a, b = patch_size
    x = strips.reshape(*strips.shape[:2], depth, a, b, ceil(height / a), ceil(width / b))
    x = x.permute(0, 1, 2, 5, 3, 6, 4).flatten(5, 6).flatten(3, 4)
    return x[..., :height, :width]


def correlation(of: torch.Tensor, to: torch.Tensor, normalisation: str = "cosine") -> torch.Tensor:
    """Products of each strip of one map with each of another (Eqs 6, 7 and 18).

    The paper writes none of the normalisations. Without one, products of a large lesion reach tens of thousands, and
    the mean squared error of Eq. 26 leaves nothing of the other losses. Divided by the square root they still grow with
    it, by what strips have in common and not by what tells them apart: with nnU-Net's learning rate of 0.01 and
    momentum of 0.99 the squared error then leaps, in small trainings, from 0.1 to over 100 and back, and the
    segmentation learns later than without attention. The cosine is bounded, at any size of the image.

    Args:
        of: (B, K or 1, L, N).
        to: (B, K, L, N').
        normalisation: "cosine" divides by the strips' norms, and is 0, without gradient, where one is zero; "sqrt"
            divides by the square root of the strips' length L = D·a·b, "none" by nothing.

    Returns:
        (B, K, N, N').
    """
    product = of.transpose(2, 3) @ to
    if normalisation == "cosine":
        norms = of.norm(dim=2).unsqueeze(3) * to.norm(dim=2).unsqueeze(2)
        return product / norms.masked_fill(norms == 0, torch.inf)
    return product / sqrt(of.shape[2]) if normalisation == "sqrt" else product


def golden_attention(
    truth: torch.Tensor,
    patch_size: Sequence[int],
    image_stride: Sequence[int],
    feature_stride: Sequence[int],
    normalisation: str = "cosine",
) -> torch.Tensor:
    """The attention that the truth asks for (Eqs 16-19).

    Conv_gt is average pooling to the size of Conv_img's map: a convolution that learns could make its own target zero.

    Args:
        truth: of each category, 0 or 1 (B, P_c, D, H, W).
        patch_size: a and b.
        image_stride: of Conv_img, along each axis.
        feature_stride: by how much the features are smaller than the image, along each axis.
        normalisation: as in the attention.

    Returns:
        (B, P_c, image strips, feature strips), float32, without gradient.
    """
    with torch.no_grad(), torch.autocast(truth.device.type, enabled=False):
        small, pooled = _pool(truth.float(), image_stride), _pool(truth.float(), feature_stride)  # Eqs 16, 17
        return correlation(split_strips(small, patch_size), split_strips(pooled, patch_size), normalisation)
