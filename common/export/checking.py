"""Whether a bundle that came from elsewhere may be run: what its configs would do, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..archives import open_archive
from ..errors import InputError
from ..weights import read_state
from .inspection import TRUSTED, findings

__all__ = ["SUMS", "check"]

SUMS = "SHA256SUMS"
_SCHEMA = 20240725  # the newest that this was written for, as metadata names it


def check(bundle: str) -> None:
    """Say what is wrong with a bundle before it is run: nothing of it is run or imported for that.

    Told are expressions and `_target_` of its configs that are neither of the field's packages nor the bundle's own
    code; files that aren't what its checksums say, or that these don't name; weights that hold pickled objects;
    metadata of a newer schema; and a zip that is damaged, unpacks to too much or out of its folder. Its own code, in
    `scripts`, isn't read: who runs a bundle trusts that.

    Examples:
        lesion-bundles check downloaded/some_bundle
        lesion-bundles check some_bundle_v1.0.0.zip

    Args:
        bundle: the folder that holds `configs/`, or a zip of it.

    Raises:
        InputError: each thing found, one line each; or there is no such bundle.
    """
    path = Path(str(bundle))
    if path.is_dir():
        _check_folder(path, str(path))
        return
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the folder of a bundle, or its zip")
    with TemporaryDirectory(prefix="bundle-") as unpacked:
        with open_archive(path) as archive:
            archive.extractall(unpacked)
        folders = [found.parent for found in Path(unpacked).glob("**/configs") if found.is_dir()]
        if len(folders) != 1:
            raise InputError(f"{path} holds {len(folders)} folders configs/: give the zip of one bundle")
        _check_folder(folders[0], str(path))


def _check_folder(folder: Path, shown: str) -> None:
    """Print that nothing is wrong, or raise it; paths are shown as if the folder were `shown`."""
    found = [*findings(folder), *_of_files(folder), *_of_metadata(folder), *_of_weights(folder)]
    if found:
        raise InputError(*(line.replace(str(folder), shown) for line in found))
    code = len([*folder.glob("scripts/**/*.py")])
    weights = "" if [*folder.glob("models/*")] else "; it has no weights"
    print(
        f"{shown}: its configs run nothing but {', '.join(TRUSTED)} and its own code ({code} files in scripts){weights}"
    )


def _of_files(folder: Path) -> Iterator[str]:
    if not (folder / SUMS).is_file():
        return
    named = {line[66:]: line[:64] for line in (folder / SUMS).read_text(errors="replace").splitlines()}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, digest in named.items():
        if name not in there:
            yield f"{folder / name} is missing, and {SUMS} names it: get the bundle again"
        elif hashlib.sha256(there[name].read_bytes()).hexdigest() != digest:
            yield f"{folder / name} is not what {SUMS} says: it was changed or is damaged"
    for name in sorted(there.keys() - named.keys() - {SUMS}):
        if name.split("/")[0] in ("scripts", "configs"):
            yield f"{folder / name} was added: {SUMS} doesn't name it"


def _of_metadata(folder: Path) -> Iterator[str]:
    path = folder / "configs" / "metadata.json"
    if not path.is_file():
        yield f"{path} is missing: without it MONAI knows neither version nor inputs"
        return
    schema = str(json.loads(path.read_text()).get("schema", ""))
    date = re.search(r"meta_schema_(\d{8})", schema)
    if date and int(date[1]) > _SCHEMA:
        yield f"{path} follows a newer schema than is known here ({date[1]} > {_SCHEMA}): update lesion-bundles"


def _of_weights(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("models/*")):
        if path.suffix in (".pt", ".pth", ".safetensors"):
            try:
                read_state(path)
            except InputError as error:
                yield str(error)
        elif path.suffix == ".ts":
            yield f"{path} is TorchScript, which is code: use the weights with the bundle's own network"
