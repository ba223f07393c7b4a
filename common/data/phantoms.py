"""Generated brains with metastases or gliomas: data for demonstrations, tests and trainings.

`draw_phantom` draws every random choice into a plain record, `vary_phantom` makes it as various as real ones are,
`render_phantom` turns a record into images and a label map, and `make_phantoms` writes a data set of them in any layout
that this project reads.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .phantom_drawing import draw_phantom
from .phantom_folder import RECORD_FILE, check_cases, fill_folder
from .phantom_record import Phantom
from .phantom_rendering import check_shape, fit_voxels, phantom_affine, render_phantom
from .phantom_variety import vary_phantom
from .writing import WRITABLE_LAYOUTS, finish_layout, write_case

__all__ = [
    "RECORD_FILE",
    "Phantom",
    "draw_phantom",
    "fit_voxels",
    "make_phantoms",
    "phantom_affine",
    "render_phantom",
    "vary_phantom",
]

# Names as the data sets that use the layout have them; brats2023 tells the kind of tumour.
_NAMES = {
    "brats2018": "BraTS20_Training_{number:03d}",
    "brats2021": "BraTS2021_{number:05d}",
    "brats2023": "BraTS-{tumour}-{number:05d}-000",
    "decathlon": "BRATS_{number:03d}",
    "nnunet": "BRATS_{number:03d}",
    "bids": "sub-{number:04d}",
}
_TUMOUR = {"metastases": "MET", "glioma": "GLI"}


def make_phantoms(
    folder: Path | str,
    cases: int = 8,
    layout: str = "brats2023",
    seed: int = 0,
    kind: str = "mixed",
    shape: int | tuple[int, int, int] = 128,
    varied: bool = False,
) -> None:
    """Generate a labelled data set of brains with metastases or gliomas.

    Args:
        folder: where it goes; a new or empty folder, or one that these same arguments filled before.
        cases: how many. The first cases of a larger set are those of a smaller one.
        layout: brats2018, brats2021, brats2023, decathlon, nnunet, bids, datalist or flat.
        seed: another seed, other brains.
        kind: metastases, glioma or mixed.
        shape: voxels along each axis, one number or three (X,Y,Z). The head fills the image: voxels of 1.45 mm at 128,
            of 2.9 mm at 64; varied heads have several sizes, and their voxels, too.
        varied: apply all features of `common.data.phantom_variety`, as in a training on generated scans: odder brains,
            odder lesions, more that looks like a lesion, scanners and errors of many kinds.

    Raises:
        InputError: an argument outside these, or a folder that holds something else.
    """
    shape = check_shape(shape)
    check_cases(cases)
    if layout not in WRITABLE_LAYOUTS:
        raise InputError(f"layout {layout!r} is not known; choose one of {', '.join(WRITABLE_LAYOUTS)}")
    if not isinstance(varied, bool):
        raise InputError(f"varied {varied!r}: give True or False")
    drawn = [draw_phantom(seed, index, kind) for index in range(cases)]
    phantoms = {_case_name(layout, one): vary_phantom(one) if varied else one for one in drawn}
    record = {
        "layout": layout,
        "shape": list(shape),
        "cases": {case: phantom.to_dict() for case, phantom in phantoms.items()},
    }

    def write(item: tuple[str, Phantom]) -> None:
        case, phantom = item
        write_case(folder, layout, case, *render_phantom(phantom, shape), phantom_affine(shape, phantom.size))

    fill_folder(Path(folder), record, list(phantoms.items()), write)
    finish_layout(folder, layout, list(phantoms))


def _case_name(layout: str, phantom: Phantom) -> str:
    pattern = _NAMES.get(layout, "phantom_{number:04d}")
    return pattern.format(number=phantom.index, tumour=_TUMOUR[phantom.kind])
