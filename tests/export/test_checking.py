"""What `check` tells of a bundle before it is run."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from common.export.bundle import export
from common.export.checking import check
from common.networks.msconvlstm_att import MSConvLSTMAtt


class Payload:
    """Leaves a folder behind if a loader ever executes it."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip with weights."""
    folder = tmp_path_factory.mktemp("exported")
    network = MSConvLSTMAtt(features=(4, 4, 8), width=8)
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    ids = {"network_def#features": [4, 4, 8], "network_def#width": 8}
    export("msconvlstm_att", str(folder), str(folder / "model.pt"), **ids)
    return next(folder.glob("*.zip"))


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "msconvlstm_att"


def told(path: Path) -> tuple[str, ...]:
    with pytest.raises(InputError) as raised:
        check(str(path))
    return raised.value.problems


@pytest.mark.parametrize("name", ["cga_unet", "fancl", "mps_ams", "transunet3d"])
def test_the_others_are_clean_too(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export(name, str(tmp_path))
    check(str(next(tmp_path.glob("*.zip"))))
    assert "its configs run its own code (" in capsys.readouterr().out


def test_what_was_exported_is_clean(exported: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    for path in (exported, folder):
        check(str(path))
        line = capsys.readouterr().out
        assert line.startswith(f"{path}: its configs run its own code (") and "no weights" not in line
    shutil.rmtree(folder / "models")
    (folder / "SHA256SUMS").unlink()
    check(str(folder))
    assert capsys.readouterr().out.endswith("; it has no weights\n")


def change_a_config(folder: Path) -> str:
    path = folder / "configs" / "train.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "run": ["$__import__('os').mkdir('owned')"]}))
    return "run#0 uses __import__"


def add_code(folder: Path) -> str:
    (folder / "scripts" / "more.py").write_text("")
    return "scripts/more.py was added"


def lose_a_file(folder: Path) -> str:
    (folder / "LICENSE").unlink()
    return "LICENSE is missing"


def pickle_weights(folder: Path) -> str:
    torch.save({"model": Payload()}, folder / "models" / "model.pt")
    return "holds pickled objects or is damaged: it was not loaded"


def add_torchscript(folder: Path) -> str:
    (folder / "models" / "model.ts").touch()
    return "model.ts is TorchScript, which is code"


def newer_metadata(folder: Path) -> str:
    path = folder / "configs" / "metadata.json"
    path.write_text(path.read_text().replace("meta_schema_20240725", "meta_schema_20270101"))
    return "follows a newer schema than is known here (20270101 > 20240725)"


def add_a_package(folder: Path) -> str:
    (folder / "itk.py").write_text("print(1)")
    return "itk.py is code outside of scripts"


def add_a_program(folder: Path) -> str:
    (folder / "scripts" / "net.so").touch()
    return "net.so is a program"


def add_pickle(folder: Path) -> str:
    (folder / "models" / "more").mkdir()
    (folder / "models" / "more" / "a.pkl").write_bytes(pickle.dumps(Payload()))
    return "a.pkl is no file of weights that can be looked into"


def hide_weights(folder: Path) -> str:
    (folder / "models" / "more").mkdir()
    torch.save({"model": Payload()}, folder / "models" / "more" / "a.ckpt")
    return "holds pickled objects or is damaged: it was not loaded"


def hide_a_config(folder: Path) -> str:
    (folder / "configs" / "a").mkdir()
    (folder / "configs" / "a" / "x.JSON").write_text('{"x": "$eval(\'1\')"}')
    return "x uses eval"


def empty_metadata(folder: Path) -> str:
    (folder / "configs" / "metadata.json").write_text("[]")
    return "metadata.json holds no metadata"


def lose_metadata(folder: Path) -> str:
    (folder / "configs" / "metadata.json").unlink()
    return "metadata.json is missing: without it"


@pytest.mark.parametrize(
    "change",
    [
        *(change_a_config, hide_a_config, add_code, add_a_package, add_a_program, lose_a_file),
        *(pickle_weights, hide_weights, add_pickle, add_torchscript, newer_metadata, empty_metadata, lose_metadata),
    ],
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_what_was_changed(
    change: Callable[[Path], str], as_zip: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    expected, path = change(folder), folder
    if as_zip:
        path = Path(shutil.make_archive("other", "zip", tmp_path, folder.name))
    lines = told(path)
    assert any(expected in line for line in lines) and all(line.startswith(str(path)) for line in lines)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py"])
def test_a_zip_that_leads_out_of_its_folder(exported: Path, tmp_path: Path, name: str):
    path = shutil.copy(exported, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    assert "leads out of its folder" in told(path)[0]


def test_a_link_in_a_zip(exported: Path, tmp_path: Path):
    path = shutil.copy(exported, tmp_path / "a.zip")
    link = zipfile.ZipInfo("msconvlstm_att/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc")
    assert "leads out of its folder" in told(path)[0]


def test_what_lies_beside_the_bundle_in_a_zip(exported: Path, tmp_path: Path):
    path = shutil.copy(exported, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("torch.py", "x")
    assert "holds torch.py beside the bundle" in told(path)[0]


def test_zips_that_are_none(exported: Path, tmp_path: Path):
    (tmp_path / "cut.zip").write_bytes(exported.read_bytes()[:-2000])
    assert "is a truncated or damaged zip" in told(tmp_path / "cut.zip")[0]
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "holds 0 folders configs/" in told(tmp_path / "empty.zip")[0]
    assert "does not exist" in told(tmp_path / "none.zip")[0]


def test_links_that_lead_out(folder: Path, tmp_path: Path):
    shutil.move(folder / "models", tmp_path / "elsewhere")
    (folder / "models").symlink_to(tmp_path / "elsewhere")
    assert f"{folder}/models leads out of the bundle: put there what it leads to" in told(folder)


def test_configs_of_a_zip_are_named_as_in_it(folder: Path, tmp_path: Path):
    (folder / "configs" / "train.json").write_text('{"a": ' + "9" * 5000 + "}")
    path = shutil.make_archive(str(tmp_path / "big"), "zip", tmp_path, folder.name)
    (line,) = told(Path(path))
    assert line.startswith(f"{path}/configs/train.json can't be read")


@pytest.mark.parametrize(("error", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "check its perm")])
def test_a_zip_that_can_not_be_unpacked(exported: Path, monkeypatch: pytest.MonkeyPatch, error: int, remedy: str):
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
    (line,) = told(exported)
    assert line.startswith(f"{exported}: can't be unpacked (") and remedy in line


def test_a_folder_that_can_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_text", fail)
    (line,) = told(folder)
    assert "can't be read" in line and "Permission denied" in line


@pytest.mark.parametrize(("content", "expected"), [("{", "can't be read"), (None, "no configs in")])
def test_what_is_no_bundle(content: str | None, expected: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "train.json").write_text(content)
    assert expected in told(tmp_path)[0]
