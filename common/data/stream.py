"""Cases one after another, where a bad one doesn't stop the others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from ..errors import CaseError, InputError, find_input_error, find_memory_error
from .case_files import MissingModality
from .labels import LABEL_NAMES, source_values
from .layouts import LABEL_FOLDERS, recognise
from .missing import read_note

__all__ = ["CaseStream", "cases_to_do", "pair_predictions", "refuse_own_files"]

logger = logging.getLogger(__name__)

_MORE_MEMORY = "free some memory, or see whether resampling makes it larger than you meant"


def cases_to_do(
    dataset_dir: str,
    output_dir: str,
    overwrite: bool = False,
    probabilities: bool = False,
    source_labels: bool = False,
    uncertainty: bool = False,
    missing_modalities: bool = False,
) -> list[dict[str, Any] | CaseError]:
    """The cases of a folder, in any layout, that aren't finished in `output_dir` yet.

    A case whose files are incomplete is in the list as its error, for `CaseStream` to report among the others. One that
    was predicted without a modality which is there now isn't finished.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.layouts`.
        output_dir: where `<case>.nii.gz` appears when a case is finished.
        overwrite: do finished cases again.
        probabilities: a case is finished only when it has `<case>_probabilities.nii.gz` too.
        source_labels: labels will be written in the convention of the case's own files. One whose convention has no
            value for some class is in the list as an error.
        uncertainty: a case is finished only when it has `<case>_entropy.nii.gz` too.
        missing_modalities: a case that lacks modalities is in the list as a case, with its entry "missing".
    """
    layout = recognise(dataset_dir)
    if missing_modalities:
        layout = layout.with_incomplete()
    cases, problems = layout.cases, layout.problems
    refuse_own_files(cases, dataset_dir, output_dir)
    wanted = {"": True, "_probabilities": probabilities, "_entropy": uncertainty}
    endings = [ending for ending, is_wanted in wanted.items() if is_wanted]

    def is_finished(case: dict[str, Any]) -> bool:
        if not all((Path(output_dir) / f"{case['case']}{ending}.nii.gz").exists() for ending in endings):
            return False
        lacked = read_note(Path(output_dir), case["case"]) or ""
        return set(lacked.split()) <= set(case.get("missing", "").split())

    todo = [case for case in cases if overwrite or not is_finished(case)]
    if finished := len(cases) - len(todo):
        logger.info(
            "%d of %d cases are finished already, with the settings of that run; --overwrite True does them again",
            finished,
            len(cases),
        )
    problems = [_with_option(problem) for problem in problems]
    problems += [taken for case in todo if (taken := _taken_note(case, Path(output_dir))) is not None]
    if source_labels:
        problems += [lack for case in todo if (lack := _lack_of_values(case)) is not None]
    refused = {problem.case for problem in problems}
    return [*(case for case in todo if case["case"] not in refused), *problems]


def _with_option(problem: CaseError) -> CaseError:
    """The same problem; where it is a lack of modalities, with what else can be done about it."""
    if not isinstance(problem, MissingModality):
        return problem
    option = "or, with weights trained with modality_dropout, say --missing_modalities True"
    return CaseError(problem.case, problem.path, problem.reason, f"{problem.remedy}, {option}")


def _taken_note(case: dict[str, Any], output: Path) -> CaseError | None:
    if not case.get("missing") or read_note(output, case["case"]) is not None:
        return None
    reason = "is there and tells something else than what the case lacks, which is to be noted in a file of that name"
    return CaseError(case["case"], output / f"{case['case']}.json", reason, "move it, or give another --output_dir")


def _lack_of_values(case: dict[str, Any]) -> CaseError | None:
    convention = case.get("label_convention", "canonical")
    remedy = "leave --source_labels out"
    try:
        lacking = [LABEL_NAMES[label] for label in sorted(LABEL_NAMES.keys() - source_values(convention).values())]
    except InputError as error:
        return CaseError(case["case"], None, str(error), remedy)
    if not lacking:
        return None
    reason = f"its label convention {convention!r} has no value for {', '.join(lacking)}"
    return CaseError(case["case"], None, reason, remedy)


def refuse_own_files(
    cases: Sequence[Mapping[str, Any]], dataset: Path | str, output: Path | str, id: str = "output_dir"
) -> None:
    """Check that label maps replace no scan or reference, nor lie among them, where they would pass for such.

    Args:
        cases: of the data set.
        dataset: its folder, or the file that lists it.
        output: folder that gets the label maps.
        id: setting that names it.

    Raises:
        InputError: they would.
    """
    remedy = f"write the predictions elsewhere with --{id} DIR"
    dataset, output = Path(dataset), Path(output)
    root = dataset.resolve() if dataset.is_dir() else dataset.resolve().parent
    if output.resolve() == root:
        raise InputError(f"{output}: holds the scans; {remedy}")
    if any(output.resolve().is_relative_to(root / name) for name in LABEL_FOLDERS):
        raise InputError(f"{output}: is where the references of {dataset} are looked for; {remedy}")
    for case in cases:
        given = [one for key in ("image", "label") for one in _listed(case.get(key))]
        files = [Path(path).resolve() for path in given]
        folders = {path if path.is_dir() else path.parent for path in files}
        if output.resolve() in folders:
            raise InputError(f"{output}: holds files of case {case['case']}; {remedy}")


def _listed(paths: Any) -> list[Any]:
    """One path or several as a list; none where there is none."""
    return paths if isinstance(paths, list) else [paths] if paths else []


def pair_predictions(
    predictions_dir: str, cases: Sequence[dict[str, Any]], convention: str = "canonical"
) -> list[dict[str, Any]]:
    """Label maps made elsewhere beside their references, as entries `image` (the prediction), `label` and `case`.

    Args:
        predictions_dir: holds `<case>.nii.gz` or `<case>.nii`.
        cases: from `common.data.layouts.list_cases`; those without a label are left out.
        convention: the label convention of the predictions.

    Raises:
        InputError: when no case has a label, or a case has no prediction; all of them are named.
    """
    folder = Path(predictions_dir)
    labelled = [case for case in cases if "label" in case]
    if not labelled:
        raise InputError("none of the cases has a label to compare with; give a --dataset_dir with labels")
    pairs: list[dict[str, Any]] = []
    missing = []
    for case in labelled:
        found = [path for end in (".nii.gz", ".nii") if (path := folder / f"{case['case']}{end}").is_file()]
        if not found:
            missing.append(case["case"])
            continue
        if len(found) > 1:
            raise InputError(f"{found[1]}: the same prediction is there twice, also as {found[0]}; keep one of them")
        pair = {key: case[key] for key in ("case", "label", "label_convention") if key in case}
        pairs.append(pair | {"image": str(found[0]), "image_convention": convention})
    if missing:
        raise InputError(
            f"no prediction in {folder} for {', '.join(missing)}: predict these cases first, "
            "or leave them out of --dataset_dir"
        )
    return pairs


class CaseStream(IterableDataset):
    """Prepares cases one after another; a case that fails is logged, kept in `failures`, and left out.

    The next case is prepared in a thread while the network works on the last. Iterate it from one process only (a
    DataLoader without workers), since `failures` isn't shared among processes.

    Args:
        data: dictionaries of cases; a CaseError among them counts as a case that failed.
        transform: prepares a case, e.g. a MONAI Compose.
    """

    def __init__(self, data: Sequence[dict[str, Any] | CaseError], transform: Callable[[Any], Any]) -> None:
        self.data = list(data)
        self.transform = transform
        self.failures: list[InputError] = []

    def __iter__(self) -> Iterator[Any]:
        # MONAI's ThreadDataLoader does the same but ends quietly when its thread meets an exception.
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: deque[tuple[Any, Future[Any]]] = deque()
            for item in self.data:
                waiting.append((item, pool.submit(self._prepare, item)))
                if len(waiting) > 1:
                    yield from self._finish(*waiting.popleft())
            while waiting:
                yield from self._finish(*waiting.popleft())

    def _prepare(self, item: dict[str, Any] | CaseError) -> Any:
        if isinstance(item, CaseError):
            raise item
        return self.transform(item)

    def _finish(self, item: Any, future: Future[Any]) -> Iterator[Any]:
        try:
            prepared = future.result()
        except Exception as error:
            found = find_input_error(error)
            if found is None and find_memory_error(error) is not None:
                found = CaseError(item["case"], None, "memory ran out while it was prepared", _MORE_MEMORY)
            if found is None:
                raise
            self.fail(found)
        else:
            yield prepared

    def fail(self, failure: InputError) -> None:
        """Log what is wrong with a case, and keep it for the end; once for a case that comes several times."""
        if str(failure) in map(str, self.failures):
            return
        logger.error("%s", failure)
        self.failures.append(failure)

    def raise_failures(self) -> None:
        """Raise one InputError that lists the cases that failed; nothing happens where none did."""
        if self.failures:
            listed = " | ".join(str(failure) for failure in self.failures)
            raise InputError(f"{len(self.failures)} of {len(self.data)} cases failed: {listed}")
