"""The launcher: what it refuses, what it lists, what it records; on a toy bundle that only prints."""

from __future__ import annotations

import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.errors import InputError, exit_with_cause, find_input_error
from common.overrides import unknown_ids
from common.running import config_files, find_bundle, run

TRAIN: dict[str, Any] = {
    "imports": ["$import sys"],
    "bundle_root": ".",
    "dataset_dir": "data",
    "output_dir": "$str(@bundle_root) + '/eval'",
    "partition_file": "$@output_dir + '/partition.json'",
    "device": "cpu",
    "fractions": [0.5, 0.25, 0.25],
    "seed": 0,
    "epochs": 5,
    "network_def": {"_target_": "torch.nn.Identity"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1},
    "data": {
        "_target_": "common.data.partition.partition_cases",
        "cases": {"_target_": "common.data.layouts.list_cases", "folder": "@dataset_dir"},
        "file": "@partition_file",
        "fractions": "@fractions",
        "seed": "@seed",
    },
    "check": {
        "_target_": "common.checks.check_settings",
        "metadata": "$@_meta_",
        "device": "@device",
        "epochs": "@epochs",
    },
    "initialize": ["$sys.path.insert(0, @bundle_root)", "@check"],
    "run": [{"_target_": "toy_steps.train", "epochs": "@epochs", "data": "@data"}],
}
METADATA = {"version": "0.3.0", "network_data_format": {"outputs": {"pred": {"channel_def": {"3": "ET"}}}}}
STEPS = """
def train(epochs, data):
    print(f"{epochs} epochs of {len(data['training'])} cases")
    if epochs == 13:
        raise KeyboardInterrupt
    if epochs == 14:
        raise KeyError("a defect")
"""


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher leaves behind in the process is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "toy_steps", raising=False)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    configs = tmp_path / "toy" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text(json.dumps(METADATA))
    (configs / "train.json").write_text(json.dumps(TRAIN))
    (configs / "evaluate.json").write_text(
        json.dumps({"epochs": 1, "data#must_exist": True, "check#unused": ["epochs"]})
    )
    (tmp_path / "toy" / "toy_steps.py").write_text(STEPS)
    return str(tmp_path / "toy")


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Four cases as far as names tell; nothing here opens an image."""
    (tmp_path / "data").mkdir()
    for case in "abcd":
        (tmp_path / "data" / f"{case}.nii.gz").touch()
    return str(tmp_path / "data")


def problems_of(*words: str, **overrides: object) -> tuple[str, ...]:
    with pytest.raises(Exception) as raised:
        run(*words, **overrides)
    found = find_input_error(raised.value)
    assert found is not None, raised.value
    return found.problems


def test_run_and_record(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    run(bundle, "train", dataset_dir=dataset, epochs=2, **{"optimizer#lr": 0.5})
    run(bundle, "train", dataset_dir=dataset)
    assert [line for line in capsys.readouterr().out.splitlines() if " epochs of " in line] == [
        "2 epochs of 2 cases",
        "5 epochs of 2 cases",
    ]
    first, second = (json.loads(Path(bundle, "eval", f"run-train-{number}.json").read_text()) for number in (1, 2))
    assert first["outcome"] == second["outcome"] == "finished"
    assert first["bundle"] == {"name": "toy", "version": "0.3.0"}
    assert first["overrides"] == {"dataset_dir": dataset, "epochs": 2, "optimizer#lr": 0.5}
    assert first["settings"]["epochs"] == 2
    assert first["settings"]["output_dir"] == f"{bundle}/eval"
    assert first["config"]["epochs"] == 2
    assert first["config"]["optimizer"]["lr"] == 0.5
    assert "_meta_" not in first["config"]
    assert [len(first["data"][part]) for part in ("training", "validation", "test")] == [2, 1, 1]
    assert second["settings"]["epochs"] == 5


def test_overlay_lies_over_its_base(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    assert problems_of(bundle, "evaluate", dataset_dir=dataset)[0].startswith("no partition at ")
    run(bundle, "train", dataset_dir=dataset)
    run(bundle, "evaluate", dataset_dir=dataset)
    assert "1 epochs of 2 cases" in capsys.readouterr().out


def test_all_problems_at_once_and_nothing_is_written(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    problems = problems_of(
        bundle,
        "train",
        dataset_dir=str(tmp_path / "nowhere"),
        epochs="ten",
        seed=-1,
        epochss=3,
        **{"data#fil": "x", "dta#file": "x"},
    )
    assert problems == (
        "unknown id 'epochss': did you mean 'epochs'?",
        "unknown id 'data#fil': did you mean 'data#file'?",
        "unknown id 'dta#file': did you mean 'data#file'?",
        "seed is -1: give a whole number, zero or above",
        "epochs is 'ten': give a whole number above zero",
        f"{tmp_path}/nowhere: is no folder; give the folder that holds the cases, or a datalist's JSON file",
    )
    assert not Path(bundle, "eval").exists()
    assert "epochs of" not in capsys.readouterr().out
    exit_with_cause(InputError, InputError(*problems), None)
    assert capsys.readouterr().err == "".join(f"error: {problem}\n" for problem in problems)


def test_bad_settings_write_no_partition(bundle: str, dataset: str):
    """A partition drawn by a command that was refused would stand in the way of the corrected one."""
    assert problems_of(bundle, "train", dataset_dir=dataset, fractions=[0.5, 0.5], seed=1) == (
        "fractions is [0.5, 0.5]: give three numbers from 0 to 1 that add up to 1, the first above 0, such as "
        '"[0.7,0.1,0.2]"',
    )
    assert not Path(bundle, "eval").exists()
    run(bundle, "train", dataset_dir=dataset)


def test_setting_that_a_workflow_does_nothing_with(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    assert problems_of(bundle, "evaluate", dataset_dir=dataset, epochs=7, sed=1) == (
        "unknown id 'sed': did you mean 'seed'?",
        "--epochs: evaluate does nothing with it; leave it out",
    )
    run(bundle, "evaluate", list=True)
    listed = capsys.readouterr().out
    assert "--seed " in listed and "--epochs " not in listed


def test_setting_that_others_are_reckoned_from(bundle: str, dataset: str):
    assert problems_of(bundle, "train", dataset_dir=dataset, output_dir=5) == (
        "output_dir is 5: give a path, such as ./2020",
    )


def test_empty_folder(bundle: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (problem,) = problems_of(bundle, "train", dataset_dir=str(tmp_path / "empty"))
    assert problem == f"{tmp_path}/empty: holds no .nii or .nii.gz file; give the folder that holds the cases"


def test_each_bad_case_has_its_line(bundle: str, dataset: str):
    for case in "ef":
        (Path(dataset) / f"{case}_seg.nii.gz").touch()
    problems = problems_of(bundle, "train", dataset_dir=dataset)
    assert [problem.split(",")[0] for problem in problems] == ["case e", "case f"]


def test_list(bundle: str, capsys: pytest.CaptureFixture[str]):
    run(bundle, "train", list=True, seed=3)
    lines = capsys.readouterr().out.splitlines()
    ids = [id for id in TRAIN if id not in ("imports", "bundle_root", "network_def", "optimizer", "data", "check")]
    assert [line.split()[0] for line in lines[:-2]] == [f"--{id}" for id in ids if id not in ("initialize", "run")]
    assert lines[1].split()[1] == f"{bundle}/eval"
    seed = next(line for line in lines if line.startswith("--seed "))
    assert seed.split(maxsplit=2)[1:] == ["3", "of everything that is drawn"]
    assert lines[-1].endswith(": network_def, optimizer, data")
    assert not Path(bundle, "eval").exists()
    assert problems_of(bundle, "train", list=True, epoch=3) == ("unknown id 'epoch': did you mean 'epochs'?",)


def test_interruption(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        run(bundle, "train", dataset_dir=dataset, epochs=13)
    assert raised.value.code == 130
    line = f"stopped; each file in {bundle}/eval is whole, and the same command does what is missing\n"
    assert capsys.readouterr().err.endswith(line)
    assert json.loads(Path(bundle, "eval", "run-train-1.json").read_text())["outcome"] == "stopped"


def test_debug_shows_the_traceback(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    """Also after the config's own check, which else has one line printed."""
    with pytest.raises(Exception) as raised:
        Path(bundle, "eval").mkdir()
        Path(bundle, "eval", "partition.json").write_text("[]")
        run(bundle, "train", debug=True, dataset_dir=dataset)
    assert sys.excepthook is traceback.print_exception
    sys.excepthook(raised.type, raised.value, raised.tb)
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "holds neither a partition nor folds" in shown and "partition.py" in shown


def test_without_debug_one_line(bundle: str, dataset: str):
    run(bundle, "train", dataset_dir=dataset)
    assert sys.excepthook is exit_with_cause


def test_defect_is_shown_and_recorded(bundle: str, dataset: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(Exception, match="toy_steps") as raised:
        run(bundle, "train", dataset_dir=dataset, epochs=14)
    assert json.loads(Path(bundle, "eval", "run-train-1.json").read_text())["outcome"] == "KeyError: 'a defect'"
    capsys.readouterr()
    sys.excepthook(raised.type, raised.value, raised.tb)
    assert capsys.readouterr().err == "error: KeyError: 'a defect'; --debug shows the traceback\n"


def test_words_without_dashes(bundle: str, dataset: str, tmp_path: Path):
    assert problems_of(bundle, "train", "epochs=2", "patch=[1, 2]", "64", dataset_dir=dataset, epochss=3) == (
        "epochs=2 is no option: write --epochs 2",
        "patch=[1, 2] is no option: write --patch '[1, 2]'",
        "64 is no option: write --ID VALUE, and a list in one word, such as [64,64,64]",
        "unknown id 'epochss': did you mean 'epochs'?",
    )
    assert not Path(bundle, "eval").exists()


@pytest.mark.parametrize("option", ["list", "debug"])
def test_word_after_a_switch(bundle: str, dataset: str, option: str):
    """Fire takes it for the switch's value."""
    assert problems_of(bundle, "train", dataset_dir=dataset, **{option: "epochs=2"}) == (
        "epochs=2 is no option: write --epochs 2",
    )


@pytest.mark.parametrize("first", ["optimizer", "optimizer#momentum"])
def test_component_and_its_argument_in_any_order(bundle: str, dataset: str, first: str):
    new: dict[str, Any] = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "optimizer#momentum": 0.9}
    run(bundle, "train", dataset_dir=dataset, **{first: new[first], **new})
    record = json.loads(Path(bundle, "eval", "run-train-1.json").read_text())
    assert record["config"]["optimizer"] == {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}


@pytest.mark.parametrize("workflow", ["train", "inference", "evaluate", "evaluate_predictions"])
def test_printed_example_is_good(workflow: str, capsys: pytest.CaptureFixture[str]):
    """The component of the example can be made, so its argument is one that it takes."""
    run("cga_unet", workflow, list=True)
    printed = re.findall(r", such as --(\S+) (\S+): ", capsys.readouterr().out)
    of_help = re.findall(r" or --(\S+) (\S+)\.\n", run.__doc__ or "")
    assert len(of_help) == 1 and len(printed) == (workflow != "evaluate_predictions")
    for id, value in {*printed, *(of_help if workflow == "train" else ())}:
        parser = ConfigParser(ConfigParser.load_config_files(config_files(find_bundle("cga_unet"), workflow)))
        parser["bundle_root"] = "."
        assert not unknown_ids(parser, {id: float(value)})
        parser[id] = float(value)
        parser.get_parsed_content(id.split("#")[0])


def test_only_the_first_of_several_processes_records(bundle: str, dataset: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    run(bundle, "train", dataset_dir=dataset)
    assert not list(Path(bundle, "eval").glob("run-*"))


def test_bundles_and_workflows_by_name(bundle: str, monkeypatch: pytest.MonkeyPatch):
    assert find_bundle("cga_unet").name == "cga_unet"
    assert problems_of("cga_net", "train")[0].startswith("no bundle cga_net: give a bundle's folder, or one of cga_u")
    assert problems_of(bundle, "trian") == ("toy has no workflow trian: it has evaluate, train",)
    Path(bundle, "configs", "train.json").unlink()
    assert problems_of(bundle, "evaluate") == ("toy has no workflow evaluate: it has evaluate",)
