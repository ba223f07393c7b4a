"""The record of a generated brain: every random choice as plain numbers, fit for JSON.

Lengths are in mm in a head frame whose origin is the centre of the image and whose axes point right, anterior and
superior; those of the anatomy and the lesions in a head of `Phantom.size` 1. Intensities are multiples of the white
matter's mean in the same modality. Four-tuples are in the order t1n t1c t2w t2f.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

__all__ = [
    "Appearance",
    "Compartment",
    "Head",
    "Island",
    "Lesion",
    "Phantom",
    "Quadruple",
    "Spot",
    "Triple",
    "from_json",
]

Triple = tuple[float, float, float]
Quadruple = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Head:
    """One person's anatomy.

    Attributes:
        scale: size along the three axes, 1 for the mean adult brain (132 x 162 x 131 mm).
        deformation: amplitude of the smooth deformation that makes the two sides differ, mm.
        sulcus_width: half the width of a sulcus, mm; grows with atrophy.
        sulcus_depth: mean depth of the sulci, mm.
        cortex: thickness of the grey ribbon, mm.
        ventricles: calibre of the ventricles, 1 for a healthy adult.
        vessels: radius of the cortical veins, mm.
        sinus: radius of the superior sagittal sinus, mm.
        dura: thickness of the dura that lies within the mask in patches, also between the hemispheres, mm; 0 for none.
        strip: how far skull-stripping errs in patches, inwards and outwards, mm; 0 for a mask along the surface.
        folia: share of grey matter in the outer cerebellum, whose leaves are thinner than those that are drawn.
    """

    scale: Triple
    deformation: float
    sulcus_width: float
    sulcus_depth: float
    cortex: float
    ventricles: float
    vessels: float
    sinus: float
    dura: float = 0.0
    strip: float = 0.0
    folia: float = 0.0


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A metastasis or a focus of a glioma.

    Attributes:
        centre: where it is, mm.
        radius: mean radius of the tumour core (enhancing and necrotic parts together), mm.
        stretch: factors on the distance along the three axes; their product is 1.
        irregularity: amplitude of the core's deformation as a fraction of its radius.
        pattern: "solid" (enhances throughout), "ring" (a rim around necrosis), "patchy", "none" (does not enhance) or
            "cavity" (a rim around what surgery has left, which is labelled background).
        rim: thickness of the enhancing rim, mm.
        gap: fraction of the rim (ring) or of the core (patchy) that does not enhance.
        edema: how far the edema reaches beyond the core, mm; 0 for none.
        softness: width of the edema's edge, mm.
        push: how far the core displaces what is around it, as a fraction of its radius.
        edema_contrast: factors on the tissue that the edema soaks, per modality.
        enhancing_level: intensity of the enhancing part per modality.
        core_level: intensity of the non-enhancing or necrotic part per modality.
        spread: amplitude of the texture inside the lesion, relative.
        barrier: how far cortex, deep nuclei and the midline keep edema out; 1 where it spares them, as vasogenic edema
            does, 0 for tumour that infiltrates all alike.
        fade: how much fainter edema is at its end than beside the core, as a fraction.
        nodules: how unevenly thick the rim is beyond the waviness that all rims have; 0 for no more.
    """

    centre: Triple
    radius: float
    stretch: Triple
    irregularity: float
    pattern: str
    rim: float
    gap: float
    edema: float
    softness: float
    push: float
    edema_contrast: Quadruple
    enhancing_level: Quadruple
    core_level: Quadruple
    spread: float
    nodules: float = 0.0
    barrier: float = 1.0
    fade: float = 0.0

    @property
    def bulge(self) -> float:
        """How far the bumps of the core may reach, in multiples of its radius."""
        return min(1 + 1.5 * self.irregularity, 1.3)

    @property
    def longest(self) -> float:
        """No diameter of the core is longer, mm."""
        return 2 * self.bulge * self.radius / min(self.stretch)


@dataclasses.dataclass(frozen=True)
class Spot:
    """A bright place that is no tumour: a white-matter lesion or an artefact. It is labelled background.

    Attributes:
        centre: where it is, mm.
        radius: its radii along the three axes, mm.
        contrast: factors on what lies there, per modality.
        white_only: True for a white-matter lesion, False for an artefact, which knows no tissue.
    """

    centre: Triple
    radius: Triple
    contrast: Quadruple
    white_only: bool


@dataclasses.dataclass(frozen=True)
class Compartment:
    """A part of the tissue that looks a little different, for whatever reason; no tumour.

    Attributes:
        size: of its patches, mm.
        share: of the brain that it takes.
        contrast: factors on what lies there, per modality.
    """

    size: float
    share: float
    contrast: Quadruple


@dataclasses.dataclass(frozen=True)
class Island:
    """Grey matter or fluid where an atlas has none: what lies in the middle and at the base is too various to draw.

    Attributes:
        tissue: "grey" or "fluid".
        size: of its patches, mm.
        share: of the brain that it takes.
    """

    tissue: str
    size: float
    share: float


@dataclasses.dataclass(frozen=True)
class Appearance:
    """How one modality of one scan looks.

    Attributes:
        grey, fluid, vessel: means of cortex, cerebrospinal fluid and vessels; white matter is 1.
        deep: means of the deep nuclei: striatum (caudate nucleus and putamen), pallidum, thalamus.
        spread: amplitude of the texture inside tissue, relative, at scales of about 25, 8 and 3 mm.
        caps: factor on the white matter beside the ventricles.
        blur: standard deviation of the point spread, mm.
        slice_axis: axis across the slices.
        slice_blur: standard deviation of the slice profile, mm.
        slice_distance: of slices between which the file is interpolated, mm; 0 where it isn't.
        dura: mean of the dura and of what else lies outside the brain.
        slip: how far the modality is from where the labels have it, along each axis, mm.
        flow: what fluid that moves is brighter by, in patches.
        ceiling: where the file's values are cut off, in multiples of their median in the brain; 0 where they aren't.
        bias: amplitude of the bias field's logarithm.
        shade: the same of a field that changes over the whole head, as the distance from a coil does.
        hindbrain: factor on cerebellum and brain stem.
        gamma: exponent on the intensities.
        noise: standard deviation of the noise in either channel of the receiver, relative to white matter.
        gain: what white matter is in the units of the file.
    """

    grey: float
    fluid: float
    vessel: float
    deep: Triple
    spread: Triple
    caps: float
    blur: float
    slice_axis: int
    slice_blur: float
    bias: float
    gamma: float
    noise: float
    gain: float
    slice_distance: float = 0.0
    dura: float = 1.0
    slip: Triple = (0.0, 0.0, 0.0)
    ceiling: float = 0.0
    flow: float = 0.0
    shade: float = 0.0
    hindbrain: float = 1.0


@dataclasses.dataclass(frozen=True)
class Phantom:
    """A generated brain before rendering.

    Attributes:
        seed: what it was drawn from, together with `index`.
        index: number of the case in its set.
        kind: "metastases" or "glioma".
        texture: seed of the random fields (folds, deformations, textures, noise).
        head: the anatomy.
        caps: how far the bright caps around the ventricles reach, mm.
        lesions: what is labelled.
        spots: what looks like a lesion and is not labelled.
        appearance: t1n, t1c, t2w, t2f.
        compartments: of the tissue, beside those of the anatomy.
        islands: of grey matter and fluid, beside those of the anatomy.
        size: factors along the three axes by which the head and all that is in it are larger in the scan.
    """

    seed: int
    index: int
    kind: str
    texture: int
    head: Head
    caps: float
    lesions: tuple[Lesion, ...]
    spots: tuple[Spot, ...]
    appearance: tuple[Appearance, Appearance, Appearance, Appearance]
    compartments: tuple[Compartment, ...] = ()
    islands: tuple[Island, ...] = ()
    size: Triple = (1.0, 1.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for `json.dump`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Phantom:
        """The inverse of `to_dict`, also after a trip through JSON, which turns tuples into lists."""
        parts: dict[str, Any] = {
            "head": from_json(Head, record["head"]),
            "lesions": tuple(from_json(Lesion, lesion) for lesion in record["lesions"]),
            "spots": tuple(from_json(Spot, spot) for spot in record["spots"]),
            "appearance": tuple(from_json(Appearance, one) for one in record["appearance"]),
            "compartments": tuple(from_json(Compartment, one) for one in record["compartments"]),
            "islands": tuple(from_json(Island, one) for one in record["islands"]),
            "size": tuple(record["size"]),
        }
        return cls(**{**record, **parts})


Record = TypeVar("Record")


def from_json(kind: type[Record], record: dict[str, Any]) -> Record:
    """A record without records in it, from a dict; JSON has turned its tuples into lists."""
    return kind(**{key: _tuples(value) for key, value in record.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
