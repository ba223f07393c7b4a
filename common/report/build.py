"""Gathers scans, predictions, scores, events and a bundle, and makes the report of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.labels import REGIONS
from ..data.layouts import recognise
from ..data.pairs import find_label_maps
from ..errors import CaseError, InputError
from ..running import find_bundle
from .attention import Study, draw_attention, draw_features, match_grid, study_case
from .bundle import Bundle, read_bundle
from .cases import ReportCase, map_file, read_case
from .confidence import count_confidence, draw_confidence
from .curves import draw_curves, read_curves
from .missing import read_missing
from .page import OPEN_CASES, CaseSection, Page, write_page
from .planes import draw_planes
from .queries import describe_queries
from .scales import draw_scales
from .tables import COLUMNS, Scores, format_score, mean_dice, read_scores
from .uncertainty import chart_errors, count_errors, draw_uncertainty

__all__ = ["build_report", "report"]

# Running the network takes longer than all the rest, so it is done for the cases that the page shows opened.
STUDIED_CASES = OPEN_CASES
_COUNTED = ("entropy", "probabilities")


def _study(bundle: Bundle | None, entry: Mapping[str, Any]) -> Study | None:
    if bundle is None or bundle.network is None:
        return None
    prepared = bundle.preprocessing(
        {key: entry[key] for key in ("case", "image", "channels", "missing") if key in entry}
    )
    return study_case(bundle.network, bundle.inferer, prepared["image"])


def _section(
    case: ReportCase,
    bundle: Bundle | None,
    study: Study | None,
    scores: Scores | None,
    entropy: np.ndarray | None,
    colours: dict[int, str],
) -> CaseSection:
    dice = mean_dice(scores.cases.get(case.name, {})) if scores else math.nan
    section = CaseSection(
        name=case.name,
        planes=draw_planes(case.name, case.image, case.affine, case.reference, case.prediction),
        has_reference=case.reference is not None,
        dice="" if math.isnan(dice) else format_score(dice, COLUMNS[0]).text,
    )
    if entropy is not None:
        maps = (case.reference, case.prediction, entropy, case.read_map("variance"))
        section.uncertainty.extend(draw_uncertainty(case.name, case.image, case.affine, *maps))
    if study is None or bundle is None or bundle.network is None:
        return section
    reference = None if case.reference is None else match_grid(case.reference, case.affine, study)
    prediction = match_grid(case.prediction, case.affine, study)
    section.attention.extend(draw_attention(case.name, study, reference, prediction))
    section.features.extend(draw_features(case.name, study, reference, prediction))
    section.scales.extend(draw_scales(case.name, bundle.network, bundle.inferer, study, reference, prediction))
    queries = describe_queries(case.name, bundle.network, bundle.inferer, study, reference, prediction, colours)
    return dataclasses.replace(section, queries=queries)


def build_report(
    dataset_dir: Path | str,
    predictions_dir: Path | str,
    out: Path | str,
    scores: Path | str | None = None,
    events: Path | str | None = None,
    bundle: Path | str | None = None,
    checkpoint: Path | str | None = None,
    prediction_convention: str = "canonical",
    max_cases: int = 12,
    missing: Path | str | None = None,
    **overrides: Any,
) -> Path:
    """Makes the report of a folder of predictions.

    Args:
        dataset_dir: the scans, in any layout that `common.data.layouts` knows.
        predictions_dir: label maps `<case>.nii.gz` in the geometry of the scans.
        out: file of the report; it appears only when it is whole.
        scores: scores.json of the evaluation; the one in `predictions_dir` where not given, if there is one.
        events: folder of TensorBoard's event files, for the learning curves.
        bundle: folder of the bundle that predicted, for its name and, if it has weights, the attention in the first
            cases unless the network takes them in several windows, what its queries paint there, and the confidence
            in them where there is no `<case>_probabilities.nii.gz` at all.
        checkpoint: weights to use instead of the bundle's `models/model.pt`.
        prediction_convention: of the predictions, see `common.data.labels`.
        max_cases: how many cases are pictured, lowest Dice first.
        missing: missing_modalities.json of an evaluation; the one in `predictions_dir` where not given, if any.
        overrides: ids of the bundle's inference config with other values.

    Returns:
        the path of the report.

    Raises:
        InputError: what was given can't be used; CaseError where one case is at fault.
    """
    layout = recognise(dataset_dir).with_incomplete()
    entries = {str(entry["case"]): entry for entry in layout.cases}
    predictions = find_label_maps(Path(predictions_dir))
    for name, path in predictions.items():
        if name not in entries:
            raise CaseError(name, path, f"no such case in {dataset_dir}", "give the data set that was predicted")
    if not isinstance(max_cases, int) or max_cases < 1:
        raise InputError(f"max_cases is {max_cases!r}: give a whole number above zero")
    if checkpoint is not None and bundle is None:
        raise InputError(f"{checkpoint}: weights without a bundle; give the bundle's folder too")

    lacking = Path(missing) if missing is not None else Path(predictions_dir) / "missing_modalities.json"
    file = Path(scores) if scores is not None else Path(predictions_dir) / "scores.json"
    found = read_scores(file) if scores is not None or file.is_file() else None
    means = {name: mean_dice(found.cases.get(name, {})) if found else math.nan for name in predictions}
    order = sorted(predictions, key=lambda name: (math.isnan(means[name]), means[name], name))
    ranked = [name for name in order if not math.isnan(means[name])]

    source = read_bundle(bundle, checkpoint, **overrides) if bundle is not None else None
    sections, written, studied, errors = [], [], [], []
    colours: dict[int, str] = {}
    for number, name in enumerate(order):
        # All that have maps and a reference count, whether they are pictured or not: the pictured are the worst.
        counts = entries[name].get("label") and any(map_file(predictions[name], kind).is_file() for kind in _COUNTED)
        if number >= max_cases and not counts:
            continue
        case = read_case(entries[name], predictions[name], prediction_convention)
        study = _study(source, entries[name]) if number < min(STUDIED_CASES, max_cases) else None
        entropy, probabilities = (case.read_map(kind) for kind in _COUNTED)
        if number < max_cases:
            sections.append(_section(case, source, study, found, entropy, colours))
        if case.reference is None:
            continue
        if entropy is not None:
            errors.append(count_errors(entropy, case.prediction, case.reference, np.any(case.image, axis=0)))
        if probabilities is not None:
            written.append(count_confidence(probabilities, case.reference))
        elif study is not None:
            studied.append(count_confidence(study.probabilities, match_grid(case.reference, case.affine, study)))
    counted = written or studied
    chart = draw_confidence({r: sum((c[r] for c in counted), np.zeros(4, int)) for r in REGIONS}) if counted else None

    facts = [
        ("Data set", f"{Path(dataset_dir).resolve().name} ({layout.name})"),
        ("Cases segmented", str(len(predictions))),
    ]
    if source is not None:
        facts = [("Bundle", f"{source.name} {source.version}".strip()), *facts]
    if source is not None and source.weights:
        facts.append(("Weights", source.weights))
    page = Page(
        title="Segmentation report" if source is None else f"{source.name}: segmentation report",
        facts=facts,
        cases=sections,
        predicted=len(predictions),
        scores=found,
        worst=ranked[0] if ranked else None,
        curves=draw_curves(read_curves(events)) if events is not None else [],
        confidence=(chart, len(counted)) if chart is not None else None,
        confidence_of_first=not written,
        errors=chart_errors(errors),
        missing=read_missing(lacking) if missing is not None or lacking.is_file() else None,
    )
    return write_page(page, out)


def report(
    dataset_dir: str,
    predictions_dir: str,
    out: str = "report.html",
    scores: str | None = None,
    events: str | None = None,
    bundle: str | None = None,
    checkpoint: str | None = None,
    prediction_convention: str = "canonical",
    max_cases: int = 12,
    missing: str | None = None,
    **overrides: Any,
) -> None:
    """Make an HTML report of segmentations: pictures, scores, curves, attention, queries, confidence, uncertainty.

    The report is one file that opens in any browser and needs no network. Predictions are compared by eye with the
    references in the data set, where it has any; scores come from the evaluation.

    Example:
        python -m common report data/phantoms runs/cga_unet/predictions --bundle cga_unet

    Args:
        dataset_dir: folder of the scans, in any known layout.
        predictions_dir: folder of the predictions, one <case>.nii.gz each.
        out: file to write.
        scores: scores.json that the evaluation wrote; looked for in predictions_dir where not given.
        events: folder of TensorBoard events that the training wrote, for learning curves.
        bundle: name or folder of the bundle, for its name and, with its weights, attention, queries, confidence.
        checkpoint: weights instead of the bundle's models/model.pt.
        prediction_convention: label values of the predictions: canonical (ET is 3), brats2018 (ET is 4) or decathlon.
        max_cases: how many cases are pictured, lowest Dice first.
        missing: missing_modalities.json that evaluate_missing wrote; looked for in predictions_dir where not given.
        overrides: ids of the bundle's inference config as they were for the predictions, such as --resample False.
    """
    folder = find_bundle(bundle) if bundle is not None else None
    path = build_report(
        dataset_dir,
        predictions_dir,
        out,
        scores,
        events,
        folder,
        checkpoint,
        prediction_convention,
        max_cases,
        missing,
        **overrides,
    )
    print(f"report: {path}")
