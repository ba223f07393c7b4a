"""A bundle as one file, with the code that it needs inside."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from ..atomic import whole_file
from ..checks import check_arguments
from ..data.json_layouts import read_json
from ..errors import InputError, describe_cause
from ..overrides import by_depth, unknown_ids
from ..running import find_bundle
from ..settings import SETTINGS
from ..weights import GENERATED, default_weights, load_weights, read_state
from .checking import SUMS
from .documents import bill_of_materials, large_files, model_card, requirements
from .vendoring import PACKAGE, names_in, reached, required

__all__ = ["export"]

_ROOT = Path(__file__).resolve().parents[1]
_IN_PAGES = re.compile(rf"\b{PACKAGE}(\.\w+)+")
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
        own = [*super().__iter__()]
        others = [str(Path(entry, "scripts")) for entry in sys.path if Path(entry, "scripts").is_dir()]
        return iter([*own, *(other for other in others if other not in own)])


__path__ = _Folders(__path__)
'''


def export(bundle: str, out: str = "dist", checkpoint: str = "", weights_url: str = "", **overrides: Any) -> None:
    """Write a bundle as <out>/<name>_v<version>.zip, which runs where this project isn't installed.

    The modules of this project that its configs and its page name, and what these import, are copied to
    `scripts/<name>/` and named there. `requirements.txt` has the packages that it needs, `sbom.cdx.json` is their bill
    of materials, `README.md` the page as a model hub's card, `SHA256SUMS` has the checksums of all. The same bundle,
    weights and ids give the same file to the byte.

    Examples:
        lesion-bundles export cga_unet
        lesion-bundles export cga_unet --checkpoint runs/cga_unet/model.pt --network_def#features "[8,16,32,64]"
        lesion-bundles export cga_unet --checkpoint model.pt --weights_url https://example.org/cga_unet/model.pt

    Args:
        bundle: a folder that holds `configs/`, or the name of one of this project's bundles.
        out: folder of the file.
        checkpoint: weights (.pt or .safetensors) that go along as models/model.pt; by default those at models/model.pt
            of the bundle, else those that came with it, if any and if they are of the network that the ids make.
        weights_url: where you put the weights. They are not in the file then, but `large_files.yml` says where they are
            and what their checksum is, for `python -m monai.bundle download_large_files`.
        overrides: ids that the weights were trained with, such as `--features "[8,16]"`, and others: in the file they
            are the defaults of all configs that have them.

    Raises:
        InputError: there is no such bundle or id, its configs or metadata can't be exported, or the weights aren't its
            own.
    """
    folder = find_bundle(bundle)
    name = folder.resolve().name
    _expect_exportable(folder, name)
    weights = Path(checkpoint) if checkpoint else Path(default_weights(folder / "models"))
    configs = _configs(folder, overrides)
    files = _files_of(folder, configs)
    network, *trained_with = _network(configs["inference"], folder, weights)
    if checkpoint or weights_url or weights.is_file():
        try:
            load_weights(network, weights, *trained_with)
        except InputError as error:
            # Those that came with the bundle are of the ids that it came with.
            if checkpoint or weights_url or weights.name != GENERATED or not overrides:
                raise
            print(f"left out: {error}")
        else:
            files["models/model.pt"] = _weights(weights)
    files["sbom.cdx.json"] = bill_of_materials(name, configs["metadata"], files)
    if weights_url:
        files["large_files.yml"] = large_files(weights_url, files.pop("models/model.pt"))
    sums = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    files[SUMS] = sums.encode()
    path = Path(out) / f"{name}_v{configs['metadata']['version']}.zip"
    with whole_file(path) as temporary:
        _write_zip(temporary, {f"{name}/{inside}": content for inside, content in files.items()})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB{'' if 'models/model.pt' in files else ', without weights'}")


def _files_of(folder: Path, configs: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
    """Path in the exported bundle → content, but for weights and checksums.

    Args:
        folder: the bundle's.
        configs: name → content of its configs.

    Raises:
        InputError: see `export`.
    """
    name = folder.resolve().name
    page = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    named = [target for config in configs.values() for target in names_in(config)]
    modules = reached([*named, *(found[0] for found in _IN_PAGES.finditer(page))])
    _check_metadata(configs["metadata"], required(modules), folder)
    own = [*folder.glob("docs/*.txt"), *folder.glob("configs/*.conf"), folder / "LICENSE"]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in own}
    page = _IN_PAGES.sub(lambda found: f"scripts.{name}{found[0].removeprefix(PACKAGE)}", page)
    files |= {"docs/README.md": page.encode(), "README.md": model_card(page)}
    files["requirements.txt"] = requirements(configs["metadata"])
    for config, content in configs.items():
        text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        text = text.replace(f'"_target_": "{PACKAGE}.', f'"_target_": "scripts.{name}.')
        files[f"configs/{config}.json"] = text.encode()
    files["scripts/__init__.py"] = _SCRIPTS.encode()
    for path in (*(_ROOT / module for module in modules), *_beside(modules)):
        files[f"scripts/{name}/{path.relative_to(_ROOT).as_posix()}"] = path.read_bytes()
    return files


def _expect_exportable(folder: Path, name: str) -> None:
    """Raise an InputError unless all is there that an exported bundle is made of, and nothing that would be lost."""
    for file in ("configs/metadata.json", "configs/inference.json", "docs/README.md", "LICENSE"):
        if not (folder / file).is_file():
            raise InputError(f"{folder / file} is missing: an exported bundle has it; see CONTRIBUTING.md")
    if (folder / "scripts").exists():
        raise InputError(
            f"{folder} was exported, or has code of its own in scripts: export a bundle whose code is here"
        )
    if "." in name:
        raise InputError(f"{folder}: its name becomes a package's, and can't have a dot; rename the folder")
    if other := sorted({*folder.glob("configs/*.y*ml")}):
        raise InputError(f"{other[0]} would be left out: write it as JSON")


def _network(config: Mapping[str, Any], folder: Path, weights: Path) -> list[Any]:
    """The network of an inference with weights, and, where it compares that, what they must have been trained with.

    Raises:
        InputError: the network can't be made.
    """
    parser = ConfigParser(deepcopy(dict(config)))
    parser["weights"] = str(weights)  # which other settings follow
    try:
        loaders = [id for id, one in enumerate(config.get("handlers", ())) if _is_loader(one)]
        ids = ("network_def", *(f"handlers#{id}#trained_with" for id in loaders))
        return [parser.get_parsed_content(id) for id in ids]
    except Exception as error:  # of whatever ids and configs say
        raise InputError(
            f"{folder}/configs/inference.json: its network can't be made: {describe_cause(error)}"
        ) from error


def _is_loader(handler: Any) -> bool:
    return isinstance(handler, dict) and "trained_with" in handler and handler["_target_"].endswith(".WeightsLoader")


def _weights(path: Path) -> bytes:
    """The content of a checkpoint as `models/model.pt`, the one form that all who serve bundles read."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    state, facts = read_state(path)
    content = io.BytesIO()
    torch.save({"model": state, "trained_with": facts}, content)
    return content.getvalue()


def _configs(folder: Path, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name → content of a bundle's configs, with what is overridden."""
    configs = {path.stem: _read_config(path) for path in sorted((folder / "configs").glob("*.json"))}
    metadata = configs["metadata"]
    for entry in ("monai_version", "pytorch_version", "numpy_version", "network_data_format"):
        if entry not in metadata:
            raise InputError(f"{folder}/configs/metadata.json lacks {entry}: see CONTRIBUTING.md")
    version = str(metadata.get("version", ""))
    if not re.fullmatch(r"\d[\w.+-]*", version):
        raise InputError(f"{folder}/configs/metadata.json: version {version!r} is none: give one such as 0.1.0")
    check_arguments(**{id: value for id, value in overrides.items() if id in SETTINGS})
    for id, value in by_depth(overrides).items():
        holders = [content for name, content in configs.items() if name != "metadata" and id.split("#")[0] in content]
        if problems := unknown_ids(ConfigParser((holders or [configs["inference"]])[0]), {id: value}):
            raise InputError(problems[id])
        for content in holders:
            ConfigParser(content)[id] = value
    return configs


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no config: it must be a JSON object")
    return content


def _beside(modules: Sequence[Path]) -> list[Path]:
    """The files beside modules that aren't Python, such as a page's template, and that these name, or one another."""
    folders = {_ROOT / module.parent for module in modules if module.name != "__init__.py"}
    others = [path for folder in folders for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]
    found: list[Path] = []
    texts = [(_ROOT / module).read_text(encoding="utf-8") for module in modules]
    while texts:
        named = [path for path in others if path not in found and any(f'"{path.name}"' in text for text in texts)]
        texts = [path.read_text(encoding="utf-8") for path in named]
        found += named
    return found


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Files by their path in the zip, in order, with one and the same time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name], compresslevel=9)


def _check_metadata(metadata: Mapping[str, Any], modules: Sequence[str], folder: Path) -> None:
    """That the packages of these modules are named there."""
    named = {"monai", "torch", "numpy", *metadata.get("required_packages_version", {})}
    of_modules = packages_distributions()
    missing = [one for one in modules if not named & {name.lower() for name in of_modules.get(one, [one])}]
    if missing:
        raise InputError(f"{folder}/configs/metadata.json: required_packages_version lacks what {missing} come from")
