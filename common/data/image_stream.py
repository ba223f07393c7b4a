"""Which images inference has still to do, and where the mask of each goes."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import CaseError, InputError
from .case_files import Case
from .dicom import DICOM_ENDING, is_dicom
from .image_layouts import find_images, without_lone_masks
from .pictures import is_picture
from .stream import refuse_own_files

__all__ = ["images_to_do", "mask_file"]

logger = logging.getLogger(__name__)


def images_to_do(
    dataset_dir: str, output_dir: str, modality: str = "t1n", overwrite: bool = False
) -> list[Case | CaseError]:
    """The images of a folder that aren't finished in `output_dir` yet, without their masks.

    An image that can't be used is in the list as its error, for `CaseStream` to report among the others.

    Args:
        dataset_dir: folder of pictures or volumes, see `common.data.image_layouts`, or one of them.
        output_dir: where the mask of an image appears when it is finished.
        modality: which of the four of BraTS volumes.
        overwrite: do finished images again.

    Raises:
        InputError: there is no image, or masks in `output_dir` would replace images or pass for such.
    """
    found, all_problems = find_images(dataset_dir, modality)
    problems = without_lone_masks(all_problems)
    if not found and not problems:
        raise InputError(f"{dataset_dir}: holds masks and no image; give the folder that holds the images")
    cases = [{"case": case["case"], "image": case["image"]} for case in found]
    refuse_own_files(cases, dataset_dir, output_dir)
    dataset, output = Path(dataset_dir).resolve(), Path(output_dir).resolve()
    if dataset.is_dir() and output.is_relative_to(dataset):
        reason = f"lies in {dataset_dir}, where masks would pass for images"
        raise InputError(f"{output_dir}: {reason}; write the predictions elsewhere with --output_dir DIR")
    todo = [
        case for case in cases if overwrite or not mask_file(Path(output_dir), case["case"], case["image"]).exists()
    ]
    if finished := len(cases) - len(todo):
        logger.info(
            "%d of %d images are finished already, with the settings of that run; --overwrite True does them again",
            finished,
            len(cases),
        )
    return [*todo, *problems]


def mask_file(folder: Path, case: str, image: str) -> Path:
    """Where the mask of an image goes: a file of the image's kind, but PNG for all pictures, as JPEG would blur it."""
    ending = DICOM_ENDING if is_dicom(image) else ".png" if is_picture(image) else ".nii.gz"
    return folder / f"{case}{ending}"
