"""Whether a bundle that came from elsewhere may be run: what its configs would do, and whether it is whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ..archives import open_archive
from ..data.json_layouts import read_json
from ..errors import InputError
from ..weights import read_state
from .inspection import findings

__all__ = ["SUMS", "check"]

SUMS = "SHA256SUMS"
_PROGRAMS = (".so", ".pyc", ".pyd", ".dll", ".dylib", ".exe")
_SCHEMA = 20240725  # the newest that this was written for, as metadata names it


def check(bundle: str) -> None:
    """Say what is wrong with a bundle before it is run: nothing of it is run or imported for that.

    Told are expressions and `_target_` of its configs that are neither harmless parts of the field's packages nor the
    bundle's own code (see `common.export.inspection`); code outside of `scripts`, and programs in it; files that aren't
    what its checksums say, or that these don't name; weights that hold pickled objects; metadata of a newer schema; and
    a zip that is damaged, unpacks to too much or out of its folder. Its own code, in `scripts`, isn't read: who runs a
    bundle trusts that.

    Examples:
        lesion-bundles check downloaded/some_bundle
        lesion-bundles check some_bundle_v1.0.0.zip

    Args:
        bundle: the folder that holds `configs/`, or a zip of it.

    Raises:
        InputError: each thing found, one line each; or there is no such bundle.
    """
    path = Path(bundle)
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
        beside = [one for one in Path(unpacked).rglob("*") if one.is_file() and folders[0] not in one.parents]
        if beside:
            raise InputError(f"{path} holds {beside[0].relative_to(unpacked)} beside the bundle: don't unpack it")
        _check_folder(folders[0], str(path))


def _check_folder(folder: Path, shown: str) -> None:
    """Print that nothing is wrong, or raise it; paths are shown as if the folder were `shown`."""
    try:
        paths = sorted(folder.rglob("*"))
        files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
        found = [
            *_of_links(folder, paths),
            *findings(folder),
            *_of_sums(folder, files),
            *_of_metadata(folder),
            *_of_code(files),
            *_of_weights(files),
        ]
    except InputError as error:
        found = [*error.problems]
    except OSError as error:
        found = [f"{error.filename} can't be read ({error.strerror}): check its permissions"]
    if found:
        raise InputError(*(line.replace(str(folder), shown) for line in found))
    code = len([name for name in files if name.startswith("scripts/")])
    weights = "" if any(name.startswith("models/") for name in files) else "; it has no weights"
    print(
        f"{shown}: its configs run its own code ({code} files in scripts) and harmless parts of known packages{weights}"
    )


def _of_links(folder: Path, paths: Iterable[Path]) -> Iterator[str]:
    """Folders that lie elsewhere aren't looked into."""
    whole = folder.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(whole):
            yield f"{path} leads out of the bundle: put there what it leads to"


def _of_sums(folder: Path, files: Mapping[str, Path]) -> Iterator[str]:
    if SUMS not in files:
        return
    named = {line[66:]: line[:64] for line in files[SUMS].read_text(errors="replace").splitlines()}
    for name, digest in named.items():
        if name not in files:
            yield f"{folder / name} is missing, and {SUMS} names it: get the bundle again"
        elif hashlib.sha256(files[name].read_bytes()).hexdigest() != digest:
            yield f"{folder / name} is not what {SUMS} says: it was changed or is damaged"
    for name in files.keys() - named.keys() - {SUMS}:
        if name.split("/")[0] not in ("models", "eval"):  # where trainings write
            yield f"{folder / name} was added: {SUMS} doesn't name it"


def _of_code(files: Mapping[str, Path]) -> Iterator[str]:
    for name, path in files.items():
        if path.suffix in _PROGRAMS:
            yield f"{path} is a program that nobody can read"
        elif path.suffix == ".py" and not name.startswith("scripts/"):
            yield f"{path} is code outside of scripts: it may be taken for a package of its name"


def _of_metadata(folder: Path) -> Iterator[str]:
    path = folder / "configs" / "metadata.json"
    if not path.is_file():
        yield f"{path} is missing: without it MONAI knows neither version nor inputs"
        return
    metadata = read_json(path)
    if not isinstance(metadata, dict):
        yield f"{path} holds no metadata: get the bundle again"
        return
    schema = str(metadata.get("schema", ""))
    date = re.search(r"meta_schema_(\d{8})", schema)
    if date and int(date[1]) > _SCHEMA:
        yield f"{path} follows a newer schema than is known here ({date[1]} > {_SCHEMA}): update lesion-bundles"


def _of_weights(files: Mapping[str, Path]) -> Iterator[str]:
    for name, path in files.items():
        if path.suffix == ".ts":
            yield f"{path} is TorchScript, which is code: use the weights with the bundle's own network"
        elif path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
            try:
                read_state(path)
            except InputError as error:
                yield str(error)
        elif name.startswith("models/") and path.suffix not in (".json", ".onnx"):
            yield f"{path} is no file of weights that can be looked into: .pt and .safetensors can"
