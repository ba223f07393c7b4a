"""Saving masks of pictures and volumes, one file an image, of the input's size and kind."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.engines import Workflow
from monai.transforms import Orientation
from PIL import Image

from ..atomic import whole_file
from ..data.dicom import is_dicom
from ..data.dicom_segmentation import write_segmentation
from ..data.image_stream import mask_file
from ..data.pictures import is_picture
from ..data.stream import CaseStream
from ..data.writing import write_nifti
from ..errors import CaseError
from ..transforms.load_slices import LoadSlicesd
from .overlays import draw_overlay
from .predictions import PredictionSaver

__all__ = ["ImagePredictionSaver"]

logger = logging.getLogger(__name__)


class ImagePredictionSaver(PredictionSaver):
    """Writes the mask of each image of an evaluator as soon as it is done, in the size and kind of the input.

    Of a picture `<output_dir>/<case>.png`, 8 bits, 0 and 255, as the picture is looked at (its EXIF turn done); of a
    DICOM image `<case>.dcm`, a DICOM Segmentation that refers to it; of a volume `<case>.nii.gz`, uint8, 0 and 1, in
    its geometry. A file appears only when it is whole.

    Expects decollated output: `pred` as a MetaTensor of 0 and 1, (1, 1, H, W) of a picture, (1, X, Y, Z) of a volume;
    and in the batch the name `case` and `image` as a MetaTensor that knows its file, as `LoadSlicesd` makes it.

    Args:
        output_dir: folder, made when the first image is saved.
        overlays: also draw `<output_dir>/overlays/<case>.png`: the image in grey with the outline of what was found; of
            a volume up to five slices. Without it, one that an earlier prediction of the image left is removed.
        window: of what overlays show, as that of `LoadSlicesd`.
        algorithm: name of what found the lesions, for DICOM.
        stream: gets the images whose mask can't be written, so that the others go on; without it that is raised.
    """

    def __init__(
        self,
        output_dir: str,
        overlays: bool = False,
        window: tuple[float, float] | None = None,
        algorithm: str = "Lesion Bundles",
        stream: CaseStream | None = None,
    ) -> None:
        super().__init__(output_dir)
        self.overlays = overlays
        self.load = LoadSlicesd("image", window)
        self.orient = Orientation("SPL", labels=None)
        self.algorithm = algorithm
        self.stream = stream
        self.run = secrets.token_hex(16)

    def save(self, engine: Workflow) -> None:
        """Write the masks of an iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            try:
                path = self.save_case(item, output)
            except CaseError as error:
                if self.stream is None:
                    raise
                self.stream.fail(error)
            else:
                logger.info("%s is done in %.1f s", path, time.perf_counter() - self.started)

    def save_case(self, item: dict[str, Any], output: dict[str, Any]) -> Path:
        """Write what belongs to one image; the mask comes last, so that it stands for the whole."""
        case, source, pred = str(item["case"]), str(item["image"].meta["filename_or_obj"]), output["pred"]
        overlay = self.output_dir / "overlays" / f"{case}.png"
        if self.overlays:
            self._draw(overlay, case, source, pred)
        elif overlay.is_file():
            overlay.unlink()
            logger.info("%s is removed: it belonged to an earlier prediction", overlay)
        mask = pred[0].cpu().numpy().astype(np.uint8)
        path = mask_file(self.output_dir, case, source)
        if is_dicom(source):
            write_segmentation(path, mask[0], case, source, self.algorithm, self.run)
        elif is_picture(source):
            _write_png(path, Image.fromarray(mask[0] * np.uint8(255)))
        else:
            write_nifti(path, mask, np.asarray(pred.affine, dtype=np.float64))
        return path

    def _draw(self, path: Path, case: str, source: str, pred: MetaTensor) -> None:
        # From the file again: the batch's image is normalised and has the network's size.
        image = self.load({"case": case, "image": source})["image"]
        image, mask = self.orient(image), self.orient(pred.cpu())
        assert isinstance(image, MetaTensor)
        rows, columns = (float(step) for step in image.pixdim[1:])
        _write_png(path, draw_overlay(image[0].numpy(), mask[0].numpy() > 0, (rows, columns)))


def _write_png(path: Path, picture: Image.Image) -> None:
    with whole_file(path) as temporary:
        picture.save(temporary)
