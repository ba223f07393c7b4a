"""How a pre-training masks its images and what it makes of them: likely lesions, masks of several epochs, pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from monai.inferers import Inferer

from ..atomic import write_text
from ..data.slice_dataset import SliceDataset
from ..losses.masked_pixels import MaskedPixelLoss
from ..networks.masked_unet import MaskedImage, MaskedUNet
from ..networks.patches import patch_mask
from .page import render_template
from .pictures import REGION_COLOURS, Picture, dark_figure, encode_picture
from .planes import TILE_PIXELS, grey_limits
from .reconstruction import MASK_COLOUR

__all__ = ["shown_epochs", "write_masking_page"]

logger = logging.getLogger(__name__)

LESION_COLOUR = REGION_COLOURS["ET"]


class DrawnImage(NamedTuple):
    """A pictured image: its name, its loss, and its pictures."""

    name: str
    loss: str
    pictures: list[Picture]


class MaskingPage(NamedTuple):
    """Everything on the page.

    Args:
        title: heading.
        facts: what was done, as pairs of term and value.
        images: those pictured.
        given: how many images were held out.
        selects: whether likely lesions are masked first.
    """

    title: str
    facts: list[tuple[str, str]]
    images: list[DrawnImage]
    given: int
    selects: bool


def shown_epochs(epochs: int) -> list[int]:
    """The first epoch, the last, and one between, as far from both by the logarithm, which is how the ratio grows."""
    return sorted({1, round(epochs**0.5), epochs})


def write_masking_page(
    network: MaskedUNet,
    inferer: Inferer,
    dataset: SliceDataset,
    loss: MaskedPixelLoss,
    device: str,
    out: Path | str,
    epochs: int,
    max_images: int = 6,
) -> Path | None:
    """Write the page of held-out images, whole or not at all.

    Args:
        network: as it is when the training has ended; it has a masking.
        inferer: applies it.
        dataset: of the held-out images, with the noise of the validation.
        loss: of the training.
        device: where the network is.
        out: file of the page.
        epochs: that the training had.
        max_images: how many are drawn, evenly chosen.

    Returns:
        the path of the page; None where nothing was held out.
    """
    if not len(dataset):
        logger.info("nothing is held out, so nothing is drawn; --fractions says what share is")
        return None
    was_training = network.training
    images = [
        _draw(network.eval(), inferer, dataset, int(index), loss, device, epochs)
        for index in np.linspace(0, len(dataset) - 1, min(max_images, len(dataset)))
    ]
    network.train(was_training)
    masking = network.masking
    assert masking is not None
    page = MaskingPage("Masked images", _facts(network, len(dataset), epochs), images, len(dataset), masking.select)
    write_text(Path(out), render_template("masking.html", page=page))
    logger.info("masks and reconstructions are drawn in %s", out)
    return Path(out)


def _draw(
    network: MaskedUNet,
    inferer: Inferer,
    dataset: SliceDataset,
    index: int,
    loss: MaskedPixelLoss,
    device: str,
    epochs: int,
) -> DrawnImage:
    sample = dataset[index]
    image, noise = torch.as_tensor(sample["image"])[None].to(device), sample["noise"][None].to(device)
    masking = network.masking
    assert masking is not None
    grid = [size // edge for size, edge in zip(image.shape[2:], masking.patch, strict=True)]
    with torch.no_grad():
        output: MaskedImage = inferer(image, network, noise)
        value = float(loss(output, image))
        masks = {}
        lesion = masking(image, noise).lesion
        masking.train()
        for epoch in shown_epochs(epochs):
            masking.set_epoch(epoch - 1)
            masks[epoch] = masking.ratio, patch_mask(masking(image, noise).masked, masking.patch, grid)[0, 0].cpu()
        masking.eval()
    made = torch.where(output.masked, output.predicted.float(), image)[0, 0].cpu().numpy()
    found = None if lesion is None else patch_mask(lesion, masking.patch, grid)[0, 0].cpu().numpy()
    plain, name = image[0, 0].cpu().numpy(), _name(dataset, index)
    pictures = [_picture(name, plain, plain, "image")]
    if found is not None:
        told = f"likely lesion: {lesion.sum()} patch{'' if lesion.sum() == 1 else 'es'}"
        pictures.append(_picture(name, plain, plain, told, found, LESION_COLOUR))
    for epoch, (ratio, mask) in masks.items():
        pictures.append(_picture(name, plain, plain, f"epoch {epoch}: {ratio:.0%} masked", mask.numpy(), MASK_COLOUR))
    hidden = output.masked[0, 0].cpu().numpy()
    pictures.append(_picture(name, plain, plain, f"validation: {hidden.mean():.0%} masked", hidden, MASK_COLOUR))
    pictures.append(_picture(name, plain, made, "reconstructed"))
    return DrawnImage(name, f"{value:.3f}", pictures)


def _name(dataset: SliceDataset, index: int) -> str:
    case, _, place = dataset.samples[index]
    several = sum(number == case for number, *_ in dataset.samples) > 1
    return str(dataset.data[case]["case"]) + (f", slice {place + 1}" if several else "")


def _picture(
    name: str, image: np.ndarray, values: np.ndarray, what: str, over: np.ndarray | None = None, colour: str = ""
) -> Picture:
    """Values in the grey scale of an image, with some pixels covered by a colour; likely lesions by half.

    Background is black: it is 0, which lies amid a normalised image's values.
    """
    filled = image != 0
    low, high = grey_limits(image, filled, 99.5)
    figure, axes = dark_figure(TILE_PIXELS)
    axes.imshow(np.where(filled, values, low), cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    if over is not None:
        alpha = 0.45 if colour == LESION_COLOUR else 1.0
        covered = np.ma.masked_equal(over, False)
        axes.imshow(covered, cmap=ListedColormap([colour]), alpha=alpha, interpolation="nearest")
    return encode_picture(figure, f"{name}, {what}", what)


def _facts(network: MaskedUNet, held_out: int, epochs: int) -> list[tuple[str, str]]:
    masking = network.masking
    assert masking is not None
    ratio = f"{masking.initial_ratio:.0%}, growing" if masking.adaptive else f"{masking.fixed_ratio:.0%}"
    return [
        ("Epochs of pre-training", str(epochs)),
        ("Images held out", str(held_out)),
        ("Pixels of a patch", "×".join(map(str, masking.patch))),
        ("Patches that are masked", ratio),
        ("Chosen", "likely lesions first" if masking.select else "by chance"),
    ]
