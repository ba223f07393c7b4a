"""What a copy of the package needs: every module that is reached and none else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from common.errors import InputError
from common.export.vendoring import names_in, reached, required


def package(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in {"__init__.py": "", **files}.items():
        path = folder / "common" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "common"


def told(files: list[Path]) -> list[str]:
    return [file.as_posix() for file in files]


def test_imports_are_followed_however_they_are_written(tmp_path: Path):
    root = package(
        tmp_path,
        {
            "a/__init__.py": "",
            "a/net.py": "from . import block\nfrom .deep.layer import Layer\nfrom .. import errors\n\nclass Net: ...\n",
            "a/block.py": "import os\n\n\ndef f():\n    from ..b import thing\n",
            "a/deep/__init__.py": "from .layer import Layer\n",
            "a/deep/layer.py": "class Layer: ...\n",
            "a/unused.py": "from .net import x\n",
            "b/__init__.py": "from ._thing import thing\n",
            "b/_thing.py": "from .. import __version__\n",
            "b/other.py": "",
            "errors.py": "",
        },
    )
    found = reached(["common.a.net.Net"], root)
    assert {*told(found)} == {
        *("__init__.py", "a/__init__.py", "a/block.py", "a/deep/__init__.py", "a/deep/layer.py", "a/net.py"),
        *("b/__init__.py", "b/_thing.py", "errors.py"),
    }


def test_packages_of_others(tmp_path: Path):
    """Those that are needed: not Python's, not those below a name, and not what is tried."""
    root = package(
        tmp_path,
        {
            "a.py": "import os.path\nimport torch.nn\nfrom monai.bundle import run\nfrom . import b\n",
            "b.py": "try:\n    import pydicom\nexcept ImportError:\n    pass\n"
            "with suppress(ImportError):\n    import highdicom\n\n\ndef f():\n    import scipy\n",
        },
    )
    assert required(reached(["common.a"], root), root) == ["monai", "scipy", "torch"]


@pytest.mark.parametrize("line", ["import common.b", "from common import b", "from common.b import x"])
def test_imports_by_the_packages_name(tmp_path: Path, line: str):
    root = package(tmp_path, {"a.py": line, "b.py": ""})
    with pytest.raises(InputError, match="imports common by its name"):
        reached(["common.a"], root)


def test_names_that_are_not_there(tmp_path: Path):
    with pytest.raises(InputError, match=r"common\.networks\.gone\.Net: no such module"):
        reached(["common.networks.gone.Net"], package(tmp_path, {}))
    root = package(tmp_path / "other", {"networks/__init__.py": "", "networks/net.py": "class Net:\n    pass\n"})
    for name in ("common.networks.gone.Net", "common.networks.net.Gone", "common.networks.net.Net.gone"):
        with pytest.raises(InputError, match="no such class or function"):
            reached([name], root)
    assert Path("networks/net.py") in reached(["common.networks.net.Net", "common.networks.net"], root)


def test_names_in_a_configuration():
    config = {
        "a": {"_target_": "common.networks.fcn.FCN8s", "b": [{"_target_": "common.errors.InputError"}]},
        "c": {"_target_": "monai.losses.DiceLoss"},
        "d": "common.not.a.target",
    }
    assert [*names_in(config)] == ["common.networks.fcn.FCN8s", "common.errors.InputError"]
    with pytest.raises(InputError, match="names common in an expression"):
        [*names_in({"imports": ["$import common.x"]})]


def test_masks_of_pictures_bring_no_code_for_volumes():
    found = {path.name for path in reached(["common.handlers.image_predictions.ImagePredictionSaver"])}
    assert "dicom_segmentation.py" in found
    assert not found & {"dicom_regions.py", "dicom_study.py", "dicom_volume.py"}
