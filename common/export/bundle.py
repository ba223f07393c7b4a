"""A bundle as one file, with the code that it needs inside."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from monai.bundle import ConfigParser

from ..atomic import whole_file
from ..errors import InputError
from ..running import find_bundle
from ..weights import load_weights
from .vendoring import PACKAGE, names_in, reached, required

__all__ = ["export", "files_of"]

_ROOT = Path(__file__).resolve().parents[1]
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell

# Bundles have their code in folders of their own below `scripts`, the one name that MONAI Label unloads from one bundle
# to the next. Where nothing is unloaded, as where two are loaded in one process, each must find its own.
_SCRIPTS = '''"""The code of bundles, each in a folder of its own name, wherever a bundle's folder is on sys.path."""

import sys
from collections.abc import Iterator
from pathlib import Path


class _Folders(list[str]):
    """The folders `scripts` of all bundles on sys.path, at any time."""

    def __iter__(self) -> Iterator[str]:
        own = list(super().__iter__())
        others = [str(Path(entry, "scripts")) for entry in sys.path if Path(entry, "scripts").is_dir()]
        return iter([*own, *(other for other in others if other not in own)])


__path__ = _Folders(__path__)
'''


def export(bundle: str, out: str = "dist", checkpoint: str = "") -> None:
    """Write a bundle as <out>/<name>_v<version>.zip, which runs where this project isn't installed.

    The modules of this project that its configs reach are copied to `scripts/<name>/` and the configs name them there.
    The same bundle and weights give the same file to the byte.

    Examples:
        lesion-bundles export cga_unet
        lesion-bundles export cga_unet --checkpoint runs/cga_unet/model.pt --out dist

    Args:
        bundle: a folder that holds `configs/`, or the name of one of this project's bundles.
        out: folder of the file.
        checkpoint: weights that go along as models/model.pt; by default those at models/model.pt of the bundle, if any.

    Raises:
        InputError: there is no such bundle, its configs or metadata can't be exported, or the weights aren't its own.
    """
    folder = find_bundle(bundle)
    weights = Path(checkpoint) if checkpoint else folder / "models" / "model.pt"
    files = files_of(folder)
    if checkpoint or weights.is_file():
        _check_weights(folder, weights)
        files["models/model.pt"] = weights.read_bytes()
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    files["SHA256SUMS"] = sums.encode()
    version = json.loads(files["configs/metadata.json"])["version"]
    path = Path(out) / f"{folder.resolve().name}_v{version}.zip"
    with whole_file(path) as temporary:
        write_zip(temporary, {f"{folder.resolve().name}/{name}": content for name, content in files.items()})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB{'' if 'models/model.pt' in files else ', without weights'}")


def files_of(folder: Path) -> dict[str, bytes]:
    """Path in the exported bundle → content, but for weights and checksums.

    Raises:
        InputError: see `export`.
    """
    name = folder.resolve().name
    files: dict[str, bytes] = {}
    for part in ("configs", "docs", "LICENSE"):
        paths = sorted(path for path in (folder / part).rglob("*") if path.is_file()) if part != "LICENSE" else [folder / part]
        files |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    names: set[str] = set()
    for path in [path for path in files if path.startswith("configs/") and path.endswith(".json")]:
        names |= {*names_in(json.loads(files[path]))}
        text = files[path].decode().replace(f'"_target_": "{PACKAGE}.', f'"_target_": "scripts.{name}.')
        files[path] = text.encode()
    modules = reached(names)
    _check_metadata(json.loads(files["configs/metadata.json"]), required(modules), folder)
    files["scripts/__init__.py"] = _SCRIPTS.encode()
    folders = {module.parent for module in modules if module.name != "__init__.py"}
    beside = [path for place in folders for path in (_ROOT / place).iterdir() if path.is_file() and path.suffix != ".py"]
    for path in [*(_ROOT / module for module in modules), *beside]:
        files[f"scripts/{name}/{path.relative_to(_ROOT).as_posix()}"] = path.read_bytes()
    return files


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Files by their path in the zip, in order, with one and the same time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name])


def _check_metadata(metadata: Mapping[str, object], modules: list[str], folder: Path) -> None:
    """That the packages of these modules are named there."""
    named = {"monai", "torch", "numpy", *metadata.get("required_packages_version", {})}  # type: ignore[misc, attr-defined]
    distributions = packages_distributions()
    missing = [module for module in modules if not named & {name.lower() for name in distributions.get(module, [module])}]
    if missing:
        raise InputError(f"{folder}/configs/metadata.json: required_packages_version lacks what {missing} come from")


def _check_weights(folder: Path, path: Path) -> None:
    """That they are of the network in the bundle's inference."""
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    load_weights(parser.get_parsed_content("network_def"), path)
