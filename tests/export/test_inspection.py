"""What a hostile config would run is told, and nothing of it is run; what bundles do every day is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import InputError
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
    "another config beside it": {"x": "%evil.json::run"},
    "Python's own by a name without a dot": {"o": {"_target_": "__import__", "name": "os"}, "x": "$@o.system('id')"},
    "a file by a name without a dot": {"o": {"_target_": "open", "file": "owned", "mode": "w"}},
    "MONAI's by a name without a dot": {"o": {"_target_": "run_cmd", "cmd_list": ["touch", "owned"]}},
    "what another imports": {"o": {"_target_": "common.atomic.os.system", "command": "touch owned"}},
    "what its own code imports": {"o": {"_target_": "scripts.net.os.system", "command": "touch owned"}},
    "a module as a value": {"imports": ["$import os"], "o": "$os", "x": "$@o.system('touch owned')"},
    "a trusted module as a value": {"imports": ["$import torch"], "o": "$torch", "x": "$@o.os.system('touch owned')"},
    "a module handed on": {"imports": ["$import torch"], "x": "$(lambda m: m.os.system('touch owned'))(torch)"},
    "an import by reference": {"imports": ["$import torch"], "x": "$@imports#0.os.system('touch owned')"},
    "an import by a macro": {"imports": ["$import torch"], "x": "%imports#0"},
    "an import elsewhere": {"o": "$import torch", "x": "$@o.os.system('touch owned')"},
    "a bound name": {"x": "$[0 for eval in ()] or eval('1')"},
    "a bound import": {"x": "$(lambda __import__: 0) and __import__('os').system('touch owned')"},
    "a name as an id": {"eval": 1, "x": "$@eval + eval('1')"},
    "a comment that is none": {"x": "$[1, 2][0 #(__import__('os').system('touch owned') or 1)\n]"},
    "a frame": {"x": "$(0 for i in (1,)).gi_frame.f_builtins['open']('owned', 'w')"},
    "an optional import": {"imports": ["$import monai"], "x": "$monai.utils.optional_import('os')[0].system('id')"},
    "code to be timed": {"imports": ["$import torch"], "x": "$torch.utils.benchmark.Timer('1').timeit()"},
    "code to be measured": {"imports": ["$import numpy"], "x": "$numpy.testing.measure('1')"},
    "a command": {"imports": ["$import torch"], "x": "$torch.utils.collect_env.run('touch owned')"},
    "an optional package": {
        "imports": ["$import nibabel"],
        "x": "$nibabel.optpkg.optional_package('os')[0].system('id')",
    },
    "below an underscore": {"x": {"_target_": "torch._C.import_ir_module", "filename": "x"}},
    "a program": {
        "x": {"_target_": "monai.data.torchscript_utils.load_net_with_metadata", "filename_prefix_or_stream": "x"}
    },
    "a pickle in a string": {"x": {"_target_": "monai.data.utils.pickle_operations", "data": {}, "is_encode": False}},
    "another package by name": {"x": {"_target_": "TorchVisiond", "keys": "image", "name": "x"}},
    "a debugger": {"x": {"_target_": "Identityd", "keys": "image", "_mode_": "debug"}},
    "an assignment": {"x": "$(eval := 1)"},
    "a reader by name": {"x": {"_target_": "LoadImage", "reader": "subprocess.check_call", "args": "touch owned"}},
    "one of several readers": {"x": {"_target_": "LoadImaged", "keys": "image", "reader": ["ITKReader", "os.system"]}},
    "a reader by reference": {"name": "os.system", "x": {"_target_": "LoadImage", "reader": "@name"}},
    "a reader by an expression": {"x": {"_target_": "LoadImage", "reader": "$'os' + '.system'"}},
    "a writer by name": {"x": {"_target_": "SaveImage", "writer": "os.system"}},
    "a reader in an expression": {"x": "$monai.transforms.LoadImage('os.system')"},
    "a reader by an import": {"imports": ["$from monai.transforms import LoadImage as L"], "x": "$L('os.system')"},
    "a reader that is called": {
        "f": {"_target_": "LoadImage", "_mode_": "callable"},
        "x": "$@f(**{'rea' + 'der': 'os.system'})",
    },
    "a reader put into another config": {"load#reader": "os.system"},
    "a target put into another config": {"+load::a#_target_": "os.system"},
    "a pickle among arrays": {"x": {"_target_": "LoadImage", "reader": "NumpyReader", "allow_pickle": True}},
    "a reader of pickles": {"x": {"_target_": "NumpyReader", "allow_pickle": True}},
    "a cache of pickles": {"x": {"_target_": "PersistentDataset", "data": [], "transform": None, "cache_dir": "x"}},
    "a decoder": {"imports": ["$from torch.utils.data.datapipes.utils import decoder"], "x": "$decoder.basichandlers"},
    "a decoder's whole name": {"x": "$torch.utils.data.datapipes.utils.decoder.basichandlers('pyd', b'x')"},
    "MONAI's jobs": {"x": {"_target_": "monai.apps.auto3dseg.BundleGen"}},
    "this project's jobs": {"x": {"_target_": "common.jobs.run_jobs", "jobs": []}},
    "a file that is no module": {"x": {"_target_": "scripts.../../../../etc/x.N"}},
    "what MONAI gives to all": {"x": "$np.load('x.npy', allow_pickle=True)"},
    "references written out": {"imports": ["$import torch"], "x": "$__local_refs.get('imports::0').os.system('id')"},
    "readers as keys": {"x": {"_target_": "LoadImage", "reader": {"subprocess.getoutput": 1}, "cmd": "touch owned"}},
    "a reader that a component gives": {
        "x": {
            "_target_": "LoadImage",
            "reader": {"_target_": "os.environ.get", "key": "NOPE", "default": "subprocess.getoutput"},
        }
    },
    "a target that is changed": {
        "a": {"_target_": "Identity", "_mode_": "callable"},
        "a#_target_": "LoadImage",
    },
    "a target that is merged": {"+a": {"_target_": "LoadImage", "_mode_": "callable"}},
    "a component handed on": {"a": {"_target_": "Identity", "_mode_": "callable"}, "x": "$@a()"},
    "a macro that becomes a file": {"run": {"evil.json": {"x": "%#e"}}, "run::evil.json": {"e": "$1"}},
    "a macro of all": {"a": [1], "run": "%"},
    "imports that are none": {"imports": {"t": "$import torch", "d": {"_target_": "CacheDataset", "data": ["@###t"]}}},
    "imports put into it": {"imports#1": {"_target_": "CacheDataset", "data": ["@#0"]}},
    "a relative import": {"imports": ["$import torch"], "a": {"b": "@###imports"}},
    "a loader's processes": {"x": "$torch.utils.data.DataLoader([1]).multiprocessing_context.reducer.os.system('id')"},
    "a compiler": {"x": "$torch.compile(lambda x: x, options={'cpp.cxx': ('./evil',)})(torch.ones(3))"},
    "a compiler by place": {"x": "$torch.compile(*[1, 2])"},
    "a compiler of a network": {"n": {"_target_": "torch.nn.Identity"}, "x": "$@n.compile(options={'cpp.cxx': 1})"},
    "a compiler of a trainer": {"x": {"_target_": "SupervisedTrainer", "compile_kwargs": {"options": {"cpp.cxx": 1}}}},
    "a trainer in an expression": {"x": "$monai.engines.SupervisedTrainer(1, 2)"},
    "modules in a file": {"bundle_root": "docs/figure.png"},
    "a class by its name": {"x": {"_target_": "PatchInferer", "merger_cls": "evil.X"}},
    "a register of classes": {"x": {"_target_": "monai.networks.nets.flexible_unet.FlexUNetEncoderRegister"}},
    "a file of code": {"x": "$np.array([1]).tofile('pynvml.py')"},
    "a log of code": {"x": {"_target_": "LogfileHandler", "output_dir": ".", "filename": "pynvml.py"}},
    "deep signs": {"x": "$" + "-" * 3000 + "1"},
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


def nine_of(number: int) -> str:
    """A line of YAML with nine of the line before."""
    return f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("within.yaml", "a: &a {b: *a}", "more than 60 levels"),
        ("many.yaml", "\n".join(["a0: &a0 [1]", *map(nine_of, range(1, 13))]), "more than 100000 items"),
        ("deep.json", "[" * 3000 + "]" * 3000, "can't be read"),
        ("long.json", json.dumps({"a": "x" * 30_000}), "a string of more than 20000 characters"),
        ("latin.json", "{\"a\": \"\udce9\"}", "can't be read"),
    ],
)  # fmt: skip
def test_configs_that_are_too_much(tmp_path: Path, name: str, text: str, told: str):
    folder = bundle(tmp_path, {})
    (folder / "configs" / name).write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=told):
        [*findings(folder)]


@pytest.mark.parametrize("text", ["def x(:", "\x00", "(" * 3000])
def test_own_code_that_is_none(tmp_path: Path, text: str):
    folder = bundle(tmp_path, {"a": {"_target_": "scripts.net.Net"}})
    (folder / "scripts").mkdir()
    (folder / "scripts" / "net.py").write_text(text)
    assert "which no module of its own defines" in next(findings(folder))


def test_metadata_that_is_evaluated(tmp_path: Path):
    """By `@_meta_`, in which a name may be hidden: `$@_meta_['imp' + 'orts'][0]`."""
    folder = bundle(tmp_path, {})
    (folder / "configs" / "metadata.json").write_text(json.dumps({"imports": ["$import torch"]}))
    assert "metadata.json: has an expression: $import torch" in next(findings(folder))


def test_logging_that_runs_something(tmp_path: Path):
    text = "[handler_a]\nclass=StreamHandler\nargs=(__import__('os').system('id'),)\n[handler_b]\nclass=os.system\n"
    found = [*findings(bundle(tmp_path, {}, text))]
    assert len(found) == 2 and "handler_a runs (__import__('os')" in found[0] and "handler_b runs os.system" in found[1]


@pytest.mark.parametrize("name", NAMES)
def test_our_own_are_clean(name: str):
    assert [*findings(BUNDLES / name)] == []


def test_own_code_is_what_its_modules_define(tmp_path: Path):
    folder = bundle(tmp_path, {"a": {"_target_": "scripts.net.Net"}, "b": {"_target_": "scripts.net.Net.make"}})
    (folder / "scripts").mkdir()
    (folder / "scripts" / "net.py").write_text("import os\n\n\nclass Net:\n    def make(self):\n        pass\n")
    assert [*findings(folder)] == []
    (folder / "scripts" / "net.py").write_text("from os import system as Net\n")
    assert len([*findings(folder)]) == 2


def test_what_configs_do_every_day(tmp_path: Path):
    """In the ways of the model zoo."""
    config = {
        "imports": ["$import torch", "$from monai.data import decollate_batch"],
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": "UNet", "spatial_dims": 3, "act": ["prelu", {"init": 0.2}]},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network_def.parameters()"},
        "rates": {
            "_target_": "torch.optim.lr_scheduler.LambdaLR",
            "lr_lambda": "$lambda epoch: (1 - epoch / 9) ** 0.9",
        },
        "files": "$[{'image': name, 'label': label} for name, label in zip(@images, @labels)]",
        "relative": {"a": 1, "b": "$@#a + 1"},
        "unpacked": "$lambda batch: decollate_batch(batch)[:2]",
        "given": "$np.array([1, 2]).sum() + torch.arange(3)",
        "load": {"_target_": "LoadImaged", "keys": "image", "reader": ["ITKReader", "NibabelReader"]},
        "save": {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
        "metric": {"_target_": "MeanDice", "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"},
        "sampler": {"_target_": "torch.utils.data.RandomSampler", "data_source": "@dataset"},
        "paths": "$sorted(glob.glob(os.path.join(@dataset_dir, '*', 'image.nii.gz')))",
        "compiled": "$torch.compile(@network_def) if @compile else @network_def",
        "epochs": "$@train#trainer.state.epoch",
        "act": "$monai.networks.layers.Norm.BATCH",
        "when": "$monai.utils.enums.MetricReduction.MEAN",
    }
    assert [
        *findings(bundle(tmp_path, {**config, "imports": ["$import glob", "$import os", *config["imports"]]}))
    ] == []
