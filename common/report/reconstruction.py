"""What a masked autoencoder makes of scans that it wasn't trained on: slices as they are, masked, and reconstructed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..atomic import write_text
from ..data.case_dataset import CaseDataset
from ..data.labels import CHANNELS
from ..losses.masked_reconstruction import MaskedReconstructionLoss, pixel_weights, standardise
from ..networks.masked_autoencoder import MaskedAutoencoder
from ..networks.patches import gather_tokens, patchify, unpatchify
from .page import OPEN_CASES, render_template
from .pictures import Picture, dark_figure, encode_picture
from .planes import MODALITY_NAMES, TILE_PIXELS, grey_limits, mark_sides, show_slice

__all__ = ["draw_reconstruction", "reconstruct", "write_reconstruction_page"]

logger = logging.getLogger(__name__)

MASK_COLOUR = "#3a4a5a"


class DrawnCase(NamedTuple):
    """A pictured case: its loss, where the slice is, and three pictures for each modality that it has."""

    name: str
    loss: str
    place: str
    modalities: list[list[Picture]]


class ReconstructionPage(NamedTuple):
    """Everything on the page.

    Args:
        title: heading.
        facts: what was done, as pairs of term and value.
        cases: those pictured.
        given: how many cases were held out.
        normalised: whether the network predicts pixels in units of their own patch.
    """

    title: str
    facts: list[tuple[str, str]]
    cases: list[DrawnCase]
    given: int
    normalised: bool


def reconstruct(
    predicted: torch.Tensor, masked: torch.Tensor, image: torch.Tensor, loss: MaskedReconstructionLoss
) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose masked patches are those predicted, and which voxels they are.

    Where pixels were predicted in units of their patch, the patch's own mean and standard deviation are put back.

    Args:
        predicted: (B, M, P).
        masked: numbers of the masked tokens (B, M).
        image: (B, C, D, H, W).
        loss: knows the patches, and whether they are normalised.

    Returns:
        (B, C, D, H, W), and bool (B, 1, D, H, W).
    """
    grid = [size // edge for size, edge in zip(image.shape[2:], loss.patch, strict=True)]
    patches = patchify(image, loss.patch)
    if loss.normalise:
        _, mean, deviation = standardise(gather_tokens(patches, masked), pixel_weights(image, loss.patch))
        predicted = predicted * deviation + mean
    places = masked[:, :, None].expand_as(predicted)
    made = unpatchify(patches.scatter(1, places, predicted), loss.patch, grid)
    hidden = torch.zeros_like(patches).scatter(1, places, 1.0)
    return made, unpatchify(hidden, loss.patch, grid)[:, :1] > 0


def draw_reconstruction(
    case: str, image: MetaTensor, made: torch.Tensor, hidden: torch.Tensor
) -> tuple[str, list[list[Picture]]]:
    """Draw, for each modality that a case has, an axial slice as it is, masked, and reconstructed.

    It is the slice with most brain in it; outside the brain nothing is drawn.

    Args:
        case: name.
        image: (4, D, H, W), canonical channels, axes towards the crown, the back and the left ("SPL").
        made: the same with the masked patches as predicted.
        hidden: which voxels were masked (D, H, W).

    Returns:
        Where the slice is, and a list of three pictures for each modality.
    """
    index = int((image != 0).any(dim=0).sum(dim=(1, 2)).argmax())
    height, width = (float(size) for size in image.pixdim[1:])
    before, after = image.as_tensor()[:, index].numpy(force=True), made[:, index].numpy(force=True)
    mask = np.ma.masked_equal(hidden[index].numpy(force=True), False)
    rows = []
    for name, original, reconstructed in zip(CHANNELS, before, after, strict=True):
        if not image[CHANNELS.index(name)].any():
            continue
        brain = original != 0
        limits = grey_limits(original, brain)
        pictures = []
        for what, values in (("original", original), ("masked", original), ("reconstructed", reconstructed)):
            figure, axes = dark_figure(TILE_PIXELS)
            # Normalised, the background is 0 amid values of both signs, and what is predicted there is next to it.
            show_slice(axes, np.where(brain, values, limits[0]), (width, height), limits)
            if what == "masked":
                extent = axes.get_images()[0].get_extent()
                axes.imshow(mask, cmap=ListedColormap([MASK_COLOUR]), extent=extent, interpolation="nearest")
            mark_sides(axes, 0, 1, size=9)
            alt = f"Case {case}, axial plane, {MODALITY_NAMES[name]}, {what}"
            pictures.append(encode_picture(figure, alt, f"{MODALITY_NAMES[name]}, {what}"))
        rows.append(pictures)
    return f"Axial, slice {index + 1} of {len(image[0])} of the crop", rows


def write_reconstruction_page(
    network: MaskedAutoencoder,
    inferer: Inferer,
    dataset: CaseDataset,
    loss: MaskedReconstructionLoss,
    device: str,
    out: Path | str,
    epochs: int,
    max_cases: int = 4,
) -> Path | None:
    """Write the page of what a network makes of the cases held out, whole or not at all.

    Args:
        network: as it is when the training has ended.
        inferer: applies it.
        dataset: of the held-out cases, with the mask of the validation.
        loss: of the training.
        device: where the network is.
        out: file of the page.
        epochs: that the training had.
        max_cases: how many cases are drawn, the first by name.

    Returns:
        the path of the page; None where nothing was held out.
    """
    if not len(dataset):
        logger.info("nothing is held out, so no reconstructions are drawn; --fractions says what share is")
        return None
    was_training = network.training
    network.eval()
    cases = []
    for index in range(min(max_cases, len(dataset))):
        sample, name = dataset[index], str(dataset.data[index]["case"])
        image, noise = sample["image"][None].to(device), sample["noise"][None].to(device)
        plain = image.as_tensor()
        with torch.no_grad():
            output = inferer(plain, network, noise)
            made, hidden = reconstruct(output.predicted, output.masked, plain, loss)
            value = float(loss(output, plain))
        place, rows = draw_reconstruction(name, sample["image"], made[0], hidden[0, 0])
        cases.append(DrawnCase(name, f"{value:.3f}", place, rows))
    network.train(was_training)
    page = ReconstructionPage(
        title="Reconstructions",
        facts=_facts(network, len(dataset), epochs, output.masked.shape[1]),
        cases=cases,
        given=len(dataset),
        normalised=loss.normalise,
    )
    write_text(Path(out), render_template("reconstruction.html", page=page, open_cases=OPEN_CASES))
    logger.info("reconstructions are drawn in %s", out)
    return Path(out)


def _facts(network: MaskedAutoencoder, held_out: int, epochs: int, masked: int) -> list[tuple[str, str]]:
    return [
        ("Epochs of pre-training", str(epochs)),
        ("Cases held out", str(held_out)),
        ("Voxels of a crop", "×".join(map(str, network.image_size))),
        ("Voxels of a token", "×".join(map(str, network.patch))),
        ("Tokens that are masked", f"{masked} of {network.tokens}"),
    ]
