"""What a hostile config would run is told, and nothing of it is run; what bundles do every day is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.export.inspection import findings

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))

HOSTILE = {
    "a shell": {"run": ["$__import__('os').system('touch owned')"]},
    "a shell by an import": {"imports": ["$import os"], "run": ["$os.system('touch owned')"]},
    "another name for it": {"imports": ["$import os as torch"], "run": ["$torch.system('touch owned')"]},
    "through a trusted package": {"imports": ["$import torch"], "run": ["$torch.os.system('touch owned')"]},
    "an import of something else": {"imports": ["$import subprocess"]},
    "from something else": {"imports": ["$from shutil import rmtree"]},
    "from a trusted package": {"imports": ["$from monai.bundle.scripts import os"]},
    "a component": {"network_def": {"_target_": "os.system", "command": "touch owned"}},
    "a component in a trusted package": {"network_def": {"_target_": "torch.os.system", "command": "touch owned"}},
    "a component of Python": {"x": [{"_target_": "builtins.eval", "source": "1"}]},
    "a component by reference": {"x": "os.system", "y": {"_target_": "@x", "command": "touch owned"}},
    "a pickle": {"imports": ["$import torch"], "x": "$torch.load('x.pt', weights_only=False)"},
    "a download": {"imports": ["$import torch"], "x": "$torch.hub.load('a/b', 'c')"},
    "inside of objects": {"x": "$(1).__class__.__base__.__subclasses__()"},
    "attributes by name": {"x": "$getattr(@y, 'a')", "y": 1},
    "code as text": {"x": "$eval('1')"},
    "a file": {"x": "$open('/etc/passwd').read()"},
    "another path": {"imports": ["$import sys"], "initialize": ["$sys.path.insert(0, '/tmp')"]},
    "modules": {"imports": ["$import sys"], "x": "$sys.modules"},
    "what can't be read": {"x": "$1 +"},
    "a lambda": {"x": "$lambda y: exec(y)"},
    "a comprehension": {"x": "$[f for f in (open,)]"},
    "a string that formats": {"x": "$f'{open(1)}'"},
    "another config": {"x": "%../../other.json#x"},
}


def bundle(folder: Path, config: object, logging: str | None = None) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "train.json").write_text(json.dumps(config))
    if logging is not None:
        (folder / "configs" / "logging.conf").write_text(logging)
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = [*findings(bundle(tmp_path / "b", HOSTILE[name]))]
    assert found and all(line.startswith(f"{tmp_path}/b/configs/train.json: ") for line in found)
    assert not (tmp_path / "owned").exists()


def test_logging_that_runs_something(tmp_path: Path):
    text = "[handler_a]\nclass=StreamHandler\nargs=(__import__('os').system('id'),)\n[handler_b]\nclass=os.system\n"
    found = [*findings(bundle(tmp_path, {}, text))]
    assert len(found) == 2 and "handler_a runs (__import__('os')" in found[0] and "handler_b runs os.system" in found[1]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_are_clean(name: str):
    assert [*findings(BUNDLES / name)] == []
