"""What makes generated brains as various as real ones: features, each of which can be left out.

`draw_phantom` draws a brain; `vary_phantom` then applies the features to its record one after another. Each has a
stream of random numbers of its own, so that leaving one out changes no other's numbers. What a feature left out means
is said here too: where `draw_phantom` itself has some of it, that is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from ..errors import InputError
from . import lesion_features, scan_features, tissue_features
from .feature_draws import FeatureDraw, unchanged
from .phantom_record import Phantom

__all__ = ["FEATURES", "vary_phantom"]


class Feature(NamedTuple):
    """What a feature does to a record, and what leaving it out does; either may be nothing."""

    apply: Callable[[FeatureDraw, Phantom], Phantom]
    leave_out: Callable[[Phantom], Phantom]


def vary_phantom(phantom: Phantom, without: Collection[str] = (), apart: bool = False) -> Phantom:
    """Apply every feature but those left out to a record.

    Args:
        phantom: what `draw_phantom` gave.
        without: names of `FEATURES`.
        apart: draw each number of a feature from beside the range that it is drawn from otherwise: for the cases among
            which a training chooses its weights. What `draw_phantom` drew, and which feature a case has, isn't apart
            but for its seed.

    Returns:
        The record of the same brain, varied.

    Raises:
        InputError: there is no such feature.
    """
    if unknown := sorted({*without} - {*FEATURES}):
        raise InputError(f"feature {unknown[0]!r} of phantoms is not known; choose from {', '.join(FEATURES)}")
    for name, feature in FEATURES.items():
        if name in without:
            phantom = feature.leave_out(phantom)
        else:
            phantom = feature.apply(FeatureDraw(phantom.seed, phantom.index, name, apart), phantom)
    return phantom


FEATURES: dict[str, Feature] = {
    "anatomy": Feature(tissue_features.anatomy, unchanged),
    "compartments": Feature(tissue_features.compartments, unchanged),
    "contrast": Feature(tissue_features.contrast, tissue_features.one_contrast),
    "texture": Feature(tissue_features.texture, tissue_features.no_texture),
    "rims": Feature(lesion_features.rims, lesion_features.plain_rims),
    "non_enhancing": Feature(lesion_features.non_enhancing, lesion_features.all_enhancing),
    "infiltration": Feature(lesion_features.infiltration, unchanged),
    "clusters": Feature(lesion_features.clusters, lesion_features.one_lesion),
    "cavities": Feature(lesion_features.cavities, unchanged),
    # After all that say what is seen in T1, as leaving it out ties that to T1c.
    "t1_contrast": Feature(lesion_features.t1_contrast, lesion_features.tied_t1),
    "distractors": Feature(tissue_features.distractors, tissue_features.no_distractors),
    "flow": Feature(tissue_features.flow, unchanged),
    "enhancing_tissue": Feature(tissue_features.enhancing_tissue, tissue_features.dark_vessels),
    "resolution": Feature(scan_features.resolution, scan_features.sharp),
    "strip_errors": Feature(scan_features.strip, unchanged),
    "slips": Feature(scan_features.slips, unchanged),
    "scanner": Feature(scan_features.scanner, scan_features.one_scanner),
}
"""Feature → what applies it and what leaves it out, in the order in which they are applied."""
