"""Mining of voxel-level curricula: what networks of different depth find in scans that they haven't seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import size_problem
from .cross_validation import cross_validate
from .data.case_files import Case
from .data.curriculum_folder import check_destination, warn_of_absent, write_curricula
from .data.folds import draw_folds, lesion_volumes
from .errors import InputError
from .report.curriculum import coverage_table, write_curriculum_page

__all__ = ["mine_curriculum"]

logger = logging.getLogger(__name__)


def mine_curriculum(
    bundle: str,
    dataset_dir: str,
    cases: Sequence[Case],
    curriculum_dir: str,
    depths: Sequence[int],
    features: Sequence[int],
    epochs: int,
    categories: str,
    folds: int = 5,
    parallel: int = 1,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Write a curriculum for every case of a labelled data set.

    Based on: Liu et al., "FANCL: Feature-Guided Attention Network with Curriculum Learning for Brain Metastases
    Segmentation", section III.D. For each depth a cross-validation of the plain backbone segments each case by a
    network that hasn't seen it; what it found of the truth makes that stage's curriculum. The same call goes on where
    it was stopped: after a depth, a fold, or within a training.

    Args:
        bundle: its name or folder.
        dataset_dir: a labelled data set in any layout.
        cases: of that, with their labels.
        curriculum_dir: gets `<case>.nii.gz`, `curriculum.json`, the page `curriculum.html`, and `mining/depth-<n>/`
            with each cross-validation.
        depths: stages of each mining network, that of the first curriculum first.
        features: channels of the stages of the deepest.
        epochs: of each training.
        categories: see `common.data.curriculum.CATEGORIES`.
        folds: of each cross-validation, the same for all depths.
        parallel: folds that are worked on at once.
        seed: of folds and trainings.
        overrides: ids of the bundle's configs train and evaluate with other values.

    Raises:
        InputError: a depth for which there are no channels, or which a patch or window can't be halved for, or what a
            cross-validation or a case is wrong with.
    """
    overrides = overrides or {}
    _check_depths(depths, features, overrides)
    check_destination(curriculum_dir, cases)
    _warn_of_folds(cases, folds, seed, categories)
    mining = Path(curriculum_dir) / "mining"
    outputs = []
    for depth in depths:
        logger.info("mining with %d stages", depth)
        out = mining / f"depth-{depth}"
        own = {"components": "", "stages": [epochs], "features": [*features[:depth]]}
        cross_validate(bundle, dataset_dir, str(out), folds, parallel, seed=seed, **{**overrides, **own})
        outputs.append(out / "predictions")
    manifest = write_curricula(cases, outputs, curriculum_dir, categories)
    page = write_curriculum_page(cases, curriculum_dir, Path(curriculum_dir) / "curriculum.html")
    print(f"\n{coverage_table(manifest)}\n\ncurricula: {curriculum_dir}; pictures: {page}")


def _check_depths(depths: Sequence[int], features: Sequence[int], overrides: Mapping[str, Any]) -> None:
    """Refuse what the deepest network can't do, before the shallower are trained."""
    deepest = max(depths)
    if deepest > len(features):
        raise InputError(f"mining_depths {list(depths)}: features has {len(features)} stages, and {deepest} are asked")
    for id in ("patch_size", "window_size"):
        if id in overrides and (problem := size_problem(id, overrides[id], deepest)):
            raise InputError(f"{problem}; change that or mining_depths")


def _warn_of_folds(cases: Sequence[Case], folds: int, seed: int, categories: str) -> None:
    """Tell which categories the cases that a fold trains on don't have."""
    by_name = {str(case["case"]): case for case in cases}
    for fold, parts in enumerate(draw_folds(lesion_volumes(cases), folds, seed)):
        warn_of_absent([by_name[name] for name in parts["training"]], categories, f"fold {fold}: ")
