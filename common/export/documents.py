"""What goes along with an exported bundle's code and configs: its packages, a bill of materials, a model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

try:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import LicenseExpression
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL
except ImportError:  # the extra `export`
    _INSTALLED = False
else:
    _INSTALLED = True

__all__ = ["bill_of_materials", "large_files", "model_card", "requirements"]

_LICENSE = "Apache-2.0"
_THREE = {"monai": "monai", "torch": "pytorch", "numpy": "numpy"}  # package → what metadata calls it


def _packages(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Package → version that a bundle was tested with, as its metadata says; sorted."""
    own = {name: str(metadata[f"{key}_version"]) for name, key in _THREE.items()}
    return dict(sorted({**own, **metadata.get("required_packages_version", {})}.items()))


def requirements(metadata: Mapping[str, Any]) -> bytes:
    """`requirements.txt`: what `pip install -r` installs for the bundle to run."""
    return "".join(f"{name}=={version}\n" for name, version in _packages(metadata).items()).encode()


def bill_of_materials(name: str, metadata: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The packages that a bundle needs itself, and its weights, in CycloneDX's JSON of version 1.6.

    It has neither time nor serial number, so that the same bundle has the same bill. What those packages need in their
    turn is an environment's matter, and not in it.

    Args:
        name: of the bundle.
        metadata: its own.
        files: path in the bundle → content; of those in `models/` the checksums are told.

    Raises:
        InputError: the package that writes it isn't installed.
    """
    if not _INSTALLED:
        raise InputError("an export has a bill of materials, which needs one more package: pip install -e '.[export]'")
    licenses = [LicenseExpression(_LICENSE)]
    bundle = Component(
        name=name,
        version=metadata["version"],
        type=ComponentType.APPLICATION,
        bom_ref=name,
        licenses=licenses,
        description=metadata.get("description"),
    )
    urls = {PackageURL("pypi", name=one, version=version) for one, version in _packages(metadata).items()}
    parts = [Component(name=url.name, version=url.version, purl=url, bom_ref=str(url)) for url in urls]
    for path in sorted(path for path in files if path.startswith("models/")):
        digest = HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(files[path]).hexdigest())
        kind = ComponentType.MACHINE_LEARNING_MODEL
        parts.append(Component(name=path, type=kind, bom_ref=path, hashes=[digest], licenses=licenses))
    bill = Bom(components=parts)
    bill.serial_number, bill.metadata.timestamp, bill.metadata.component = None, None, bundle  # type: ignore[assignment]
    bill.register_dependency(bundle, parts)
    return (JsonV1Dot6(bill).output_as_string(indent=2) + "\n").encode()


def large_files(url: str, weights: bytes) -> bytes:
    """The model zoo's `large_files.yml`: where `python -m monai.bundle download_large_files` gets the weights."""
    entry = {"path": "models/model.pt", "url": url, "hash_val": hashlib.sha256(weights).hexdigest()}
    # JSON's strings are YAML's, whatever is in a URL.
    lines = [f"{key}: {json.dumps(value)}" for key, value in {**entry, "hash_type": "sha256"}.items()]
    return "large_files:\n- {}\n".format("\n  ".join(lines)).encode()


def model_card(page: str) -> bytes:
    """A model hub's card, `README.md`: the bundle's page below what the hub sorts models by."""
    header = {
        "license": _LICENSE.lower(),
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical"],
    }
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in header.items()]
    return f"---\n{''.join(lines)}---\n\n{page}".encode()
