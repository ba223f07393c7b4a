"""Exported bundles: the same to the byte, whole, and with weights of their own or none."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from safetensors.torch import save_file

from common.errors import InputError
from common.export.bundle import export
from common.networks.msconvlstm_att import MSConvLSTMAtt

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))


@pytest.mark.parametrize("name", NAMES)
def test_two_exports_are_one_and_the_same(name: str, tmp_path: Path):
    for folder in ("a", "b"):
        export(name, str(tmp_path / folder))
    (first,), (second,) = ([*(tmp_path / folder).iterdir()] for folder in ("a", "b"))
    assert first.name == second.name and first.read_bytes() == second.read_bytes()
    version = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())["version"]
    assert first.name == f"{name}_v{version}.zip"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_package_is_left(name: str, tmp_path: Path):
    export(name, str(tmp_path))
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        files = {path.removeprefix(f"{name}/"): archive.read(path) for path in archive.namelist()}
    configs = [files[path].decode() for path in files if path.startswith("configs/")]
    assert not [text for text in configs if "common." in text]
    targets = {target for text in configs for target in re.findall(r'"(scripts\.[\w.]+)"', text)}
    assert targets
    for target in targets:
        _, folder, *module, _ = target.split(".")
        assert folder == name and f"scripts/{name}/{'/'.join(module)}.py" in files, target
    assert f"scripts/{name}/__main__.py" not in files and "scripts/__init__.py" in files


def test_checksums(tmp_path: Path):
    export("mps_ams", str(tmp_path))
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        content = {name.removeprefix("mps_ams/"): archive.read(name) for name in archive.namelist()}
    lines = dict(line.split("  ")[::-1] for line in content.pop("SHA256SUMS").decode().splitlines())
    assert lines == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert "models/model.pt" not in lines and "LICENSE" in lines


def test_weights_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt is of another network"):
        export("mps_ams", str(tmp_path / "out"), checkpoint=str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match=r"no weights at .*none\.pt"):
        export("mps_ams", str(tmp_path / "out"), checkpoint=str(tmp_path / "none.pt"))
    assert not (tmp_path / "out").exists()


def test_ids_that_the_weights_were_trained_with(tmp_path: Path):
    small = {"network_def#features": [4, 4, 8], "network_def#width": 8, "planes": ["coronal"]}
    network = MSConvLSTMAtt(features=(4, 4, 8), width=8)
    torch.save({"model": network.state_dict()}, tmp_path / "model.pt")
    export("msconvlstm_att", str(tmp_path / "out"), str(tmp_path / "model.pt"), **small)
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.zip"))) as archive:
        configs = {
            name: json.loads(archive.read(f"msconvlstm_att/configs/{name}.json")) for name in ("train", "inference")
        }
        assert archive.read("msconvlstm_att/models/model.pt") == (tmp_path / "model.pt").read_bytes()
    for config in configs.values():
        assert config["network_def"]["features"] == [4, 4, 8] and config["planes"] == ["coronal"]
    assert configs["train"]["network_def"]["_target_"] == "scripts.msconvlstm_att.networks.msconvlstm_att.MSConvLSTMAtt"


def test_weights_that_came_with_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """They go along with the ids that they came with, and stay behind where the network is another."""
    bundle = tmp_path / "msconvlstm_att"
    shutil.copytree(BUNDLES / "msconvlstm_att", bundle, ignore=shutil.ignore_patterns("models", "eval"))
    (bundle / "models").mkdir()
    facts = {"data": "generated scans", "planes": ["axial"], "pixel_size": [3.0, 3.0], "robust": True}
    torch.save({"model": MSConvLSTMAtt().state_dict(), "trained_with": facts}, bundle / "models" / "generated.pt")
    for folder, ids in (("own", {}), ("other", {"network_def#features": [4, 4, 8], "network_def#width": 8})):
        export(str(bundle), str(tmp_path / folder), **ids)
        with zipfile.ZipFile(next((tmp_path / folder).glob("*.zip"))) as archive:
            assert ("msconvlstm_att/models/model.pt" in archive.namelist()) == (folder == "own")
        assert ("left out: " in capsys.readouterr().out) == (folder == "other")
    with pytest.raises(InputError, match="of another network"):
        export(str(bundle), str(tmp_path / "named"), str(bundle / "models" / "generated.pt"), **ids)


def test_settings_that_weights_were_trained_with(tmp_path: Path):
    small = {"network_def#features": [4, 4, 8], "network_def#width": 8}
    state = MSConvLSTMAtt(features=(4, 4, 8), width=8).state_dict()
    torch.save({"model": state, "trained_with": {"planes": ["coronal"]}}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"was trained with planes .*coronal.*say --planes"):
        export("msconvlstm_att", str(tmp_path / "out"), str(tmp_path / "model.pt"), **small)
    assert not (tmp_path / "out").exists()
    export("msconvlstm_att", str(tmp_path / "out"), str(tmp_path / "model.pt"), **small, planes=["coronal"])


def test_safetensors_become_what_all_servers_read(tmp_path: Path):
    network = MSConvLSTMAtt(features=(4, 4, 8), width=8)
    save_file(network.state_dict(), tmp_path / "m.safetensors", {"trained_with": '{"planes": ["axial"]}'})
    ids = {"network_def#features": [4, 4, 8], "network_def#width": 8}
    for folder in ("a", "b"):
        export("msconvlstm_att", str(tmp_path / folder), str(tmp_path / "m.safetensors"), **ids)
    (first,), (second,) = ([*(tmp_path / folder).iterdir()] for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive, archive.open("msconvlstm_att/models/model.pt") as file:
        content = torch.load(io.BytesIO(file.read()), weights_only=True)
    assert content["trained_with"] == {"planes": ["axial"]}
    for name, value in network.state_dict().items():
        assert torch.equal(content["model"][name], value)


def test_what_goes_along(tmp_path: Path):
    export("msconvlstm_att", str(tmp_path))
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        files = {path.removeprefix("msconvlstm_att/"): archive.read(path).decode() for path in archive.namelist()}
    metadata = json.loads(files["configs/metadata.json"])
    packages = dict(line.split("==") for line in files["requirements.txt"].splitlines())
    assert packages["torch"] == metadata["pytorch_version"] and packages["pillow"]
    bill = json.loads(files["sbom.cdx.json"])
    assert {one["name"]: one["version"] for one in bill["components"]} == packages
    assert bill["metadata"]["component"]["version"] == metadata["version"] and "serialNumber" not in bill
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(files["sbom.cdx.json"])
    _, header, card = files["README.md"].split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "monai" and card.lstrip() == files["docs/README.md"]
    # The page names a network that no config does.
    assert "scripts.msconvlstm_att.networks.fcn.FCN8s" in card and "common." not in card
    assert "class FCN8s" in files["scripts/msconvlstm_att/networks/fcn.py"]


@pytest.mark.parametrize(
    ("ids", "told"),
    [({"featurs": [4]}, "unknown id 'featurs'"), ({"amp": "maybe"}, "amp is 'maybe': give")],
)
def test_ids_that_there_are_not(ids: dict[str, object], told: str, tmp_path: Path):
    with pytest.raises(InputError, match=told):
        export("cga_unet", str(tmp_path / "out"), **ids)
    assert not (tmp_path / "out").exists()


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Changes a config."""

    def apply(folder: Path) -> None:
        path = folder / "configs" / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda folder: (folder / "docs" / "README.md").unlink(), r"README\.md is missing"),
        (lambda folder: (folder / "configs" / "inference.json").unlink(), r"inference\.json is missing"),
        (lambda folder: (folder / "scripts").mkdir(), "was exported, or has code of its own"),
        (lambda folder: (folder / "configs" / "a.yaml").touch(), r"a\.yaml would be left out"),
        (lambda folder: (folder / "configs" / "train.json").write_text("{"), r"train\.json: is not JSON"),
        (lambda folder: (folder / "configs" / "train.json").write_bytes(b'{"\xe9": 1}'), r"train\.json: is not JSON"),
        (lambda folder: (folder / "configs" / "train.json").write_text("[]"), r"train\.json holds no config"),
        (edit("metadata.json", lambda content: content.pop("version")), "version '' is none"),
        (edit("metadata.json", lambda content: content.update(version="../../x")), "version '../../x' is none"),
        (edit("metadata.json", lambda content: content.pop("monai_version")), "metadata.json lacks monai_version"),
        (edit("train.json", lambda content: content.update(x={"_target_": "common.losses.gone.Loss"})),
         r"common\.losses\.gone\.Loss: no such class or function"),
        (edit("train.json", lambda content: content.update(x={"_target_": "common.losses.fancl.Gone"})),
         r"common\.losses\.fancl\.Gone: no such class or function"),
        (edit("inference.json", lambda content: content["network_def"].update(features="[8,16")),
         r"inference\.json: its network can't be made"),
    ],
)  # fmt: skip
def test_what_can_not_be_exported(change: Callable[[Path], object], told: str, tmp_path: Path):
    folder = tmp_path / "mine"
    shutil.copytree(BUNDLES / "cga_unet", folder, ignore=shutil.ignore_patterns("models"))
    export(str(folder), str(tmp_path / "before"))
    change(folder)
    with pytest.raises(InputError, match=told) as error:
        export(str(folder), str(tmp_path / "out"))
    assert len(error.value.problems) == 1
    assert not (tmp_path / "out").exists()


def test_a_name_with_a_dot(tmp_path: Path):
    shutil.copytree(BUNDLES / "cga_unet", tmp_path / "cga.v2")
    with pytest.raises(InputError, match="can't have a dot"):
        export(str(tmp_path / "cga.v2"), str(tmp_path / "out"))
