"""What holds for every bundle: MONAI's required ids, a valid metadata.json, a network that does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

import common
from common.data.image_layouts import list_images
from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.running import config_files, unused_settings
from common.settings import SETTINGS
from common.weights import GENERATED, load_weights, read_facts

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))

# What a bundle needs to be tried with nothing but scans.
ALONE = {"fancl": {"components": "F"}}
# Configs that a bundle of images of one channel has no use for.
WITHOUT = {"mps_ams": {"evaluate_missing", "evaluate_predictions"}}
# What decides how large a prepared image is, and what doesn't.
SIZES: dict[str, list[dict[str, Any]]] = {
    "mps_ams": [{"image_size": [32, 32]}, {"image_size": [32, 32]}],
    "msconvlstm_att": [{"crop_size": [16, 16]}, {"crop_size": [32, 32]}],
}
NOT_SETTINGS = {"imports", "initialize", "run", "finalize", "network", "optimizer", "handlers"}

pytestmark = pytest.mark.parametrize("name", NAMES)


def load(name: str, config: str) -> dict:
    return json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    make_phantoms(str(folder), cases=3, shape=32)
    return folder


@pytest.mark.parametrize(
    ("configs", "kind"),
    [
        (("train",), "train"),
        (("train", "multi_gpu_train"), "train"),
        (("train", "evaluate"), "train"),
        (("train", "evaluate", "evaluate_missing"), "train"),
        (("inference",), "infer"),
        (("evaluate_predictions",), "infer"),
    ],
)
def test_monais_required_properties_are_there(
    name: str,
    configs: tuple[str, ...],
    kind: str,
    dataset: Path,
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if WITHOUT.get(name, set()) & {*configs}:
        pytest.skip(f"{name} has no {configs[-1]}")
    for variable, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = [case["case"] for case in list_cases(dataset)]
    for case in list_cases(dataset):
        shutil.copy(case["label"], tmp_path / f"{case['case']}.nii.gz")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    parts = {"training": names[:1], "validation": names[1:2], "test": names[2:]}
    (tmp_path / "models" / "partition.json").write_text(json.dumps({"parts": parts}))
    folder = BUNDLES / name / "configs"
    workflow = ConfigWorkflow(
        config_file=[os.fspath(folder / f"{config}.json") for config in configs],
        meta_file=os.fspath(folder / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=os.fspath(BUNDLES / name),
        dataset_dir=os.fspath(dataset),
        output_dir=os.fspath(tmp_path / "out"),
        ckpt_dir=os.fspath(tmp_path / "models"),
        num_workers=0,
        **ALONE.get(name, {}),
        **({"predictions_dir": os.fspath(tmp_path)} if "evaluate_predictions" in configs else {}),
    )
    workflow.initialize()
    try:
        assert workflow.check_properties() == []
    finally:
        workflow.finalize()


def test_files_of_the_model_zoo_are_there(name: str):
    folder = BUNDLES / name
    for file in ("LICENSE", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"):
        assert (folder / file).is_file(), file


def test_schema_can_fail(name: str):
    schema = json.loads((BUNDLES.parent / "tests" / "metadata_schema.json").read_text())
    metadata = load(name, "metadata")
    jsonschema.validate(metadata, schema)
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, schema)


def test_versions_move_together(name: str):
    metadata = load(name, "metadata")
    assert metadata["version"] in metadata["changelog"]
    pinned = dict(
        line.lower().split("==")
        for line in (BUNDLES.parent / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert metadata["monai_version"] == pinned["monai"]
    assert metadata["pytorch_version"] == pinned["torch"]
    assert metadata["numpy_version"] == pinned["numpy"]
    for package, version in metadata["required_packages_version"].items():
        assert version == pinned[package], package
    assert f"## {common.__version__}" in (BUNDLES.parent / "CHANGELOG.md").read_text()


def follows(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_target_", "").startswith("common.weights.")


def resolved(name: str, config: str, id_: str) -> dict:
    """A part of a config with its plain references replaced by their values, and targets left as they are.

    A setting that follows the weights has its default.
    """
    parser = ConfigParser(load(name, config))

    def replace(value):
        if isinstance(value, dict):
            return value["default"] if follows(value) else {key: replace(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        if isinstance(value, str) and value.startswith("@"):
            return replace(parser[value[1:].replace("::", "#")])
        return value

    return replace(parser[id_])


def test_training_and_inference_have_the_same_network(name: str):
    assert resolved(name, "train", "network_def") == resolved(name, "inference", "network_def")


def only_image(transform: dict) -> dict:
    transform = {**transform, "keys": "image"}
    transform.pop("allow_missing_keys", None)
    for option in ("mode", "anti_aliasing"):
        if isinstance(transform.get(option), list):
            transform[option] = transform[option][0]
    return transform


def test_training_and_inference_prepare_images_alike(name: str):
    training = [
        only_image(transform)
        for transform in resolved(name, "train", "train#deterministic_transforms")
        if "image" in transform.get("keys", "")
    ]
    assert training == resolved(name, "inference", "preprocessing")["transforms"]


def test_evaluation_prepares_images_as_training_does(name: str):
    train, overlay = load(name, "train"), load(name, "evaluate")
    parser = ConfigParser({**train, **overlay})

    def given(value: Any) -> Any:
        value = parser[value[1:]] if isinstance(value, str) and value.startswith("@") else value
        return value["default"] if follows(value) else value

    image_transforms = [
        {key: given(value) for key, value in transform.items()} for transform in overlay["image_transforms"]
    ]
    training = resolved(name, "train", "train#deterministic_transforms")
    assert image_transforms == [only_image(one) for one in training if "image" in one.get("keys", "")][1:]


def test_training_and_validation_keep_a_case_once(name: str, dataset: Path, tmp_path: Path):
    """Whatever the size of patches: nothing that it decides comes before the first random transform."""
    listed = list_images if "modality" in load(name, "train") else list_cases
    for size in SIZES.get(name, [{"patch_size": [16, 16, 16]}, {"patch_size": [48, 48, 48]}]):
        parser = ConfigParser(load(name, "train"))
        parser.update({"data": {"training": listed(dataset), "validation": listed(dataset)}})
        settings = {**size, "resample": False, "cache_dir": str(tmp_path), "num_workers": 0}
        parser.update({**settings, **ALONE.get(name, {})})
        for part in ("train", "validate"):
            data = parser.get_parsed_content(f"{part}#dataset")
        assert len(list(tmp_path.iterdir())) == 3
        sample = parser.get_parsed_content("train#dataset")[0]
        patch = sample[0] if isinstance(sample, list) else sample
        (wanted,) = size.values()
        assert list(patch["image"].shape[1:]) == list(patch["label"].shape[1:]) == wanted
        assert data[0]["image"].shape[1] < 48


def test_own_code_is_reached_by_target_only(name: str):
    for path in (BUNDLES / name / "configs").glob("*.json"):
        text = path.read_text()
        assert "import common" not in text, path
        assert "from common" not in text, path
        assert ".type" not in text, path


def test_first_thing_is_the_path(name: str):
    for path in (BUNDLES / name / "configs").glob("*.json"):
        content = json.loads(path.read_text())
        if "initialize" in content:
            assert content["initialize"][:2] == ["$sys.path.insert(0, @bundle_root)", "@check"], path


def workflows(name: str) -> list[str]:
    """A bundle's configs, those that lie over others among them."""
    return sorted(path.stem for path in (BUNDLES / name / "configs").glob("*.json") if path.stem != "metadata")


def test_every_plain_setting_is_checked(name: str):
    """What isn't checked before the work begins is a traceback in the middle of it."""
    whole = {config: content for config in workflows(name) if "check" in (content := load(name, config))}
    assert {"train", "inference", "evaluate_predictions"} - WITHOUT.get(name, set()) <= whole.keys()
    for config, content in whole.items():
        assert content["check"]["_target_"] == "common.checks.check_settings"
        plain = {key for key, value in content.items() if not isinstance(value, dict) or follows(value)} - NOT_SETTINGS
        handed_on = "settings" in content["check"]  # all that isn't the workflow's own, to the workflows that it runs
        assert handed_on or plain - {"bundle_root"} <= content["check"].keys(), config


def used(name: str, workflow: str) -> set[str]:
    """The ids at the top of a config that what it runs is made of."""
    parser = ConfigParser()
    parser.read_config(config_files(BUNDLES / name, workflow))

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from references(item)
        elif isinstance(value, str) and value[:1] in ("$", "@"):
            yield from re.findall(r"@((?:\w|#|::)+)", value)

    found: set[str] = set()
    waiting = ["initialize", "run", "finalize"]
    while waiting:
        id = waiting.pop().replace("::", "#")
        if id not in found | {"check"}:
            found.add(id)
            if id in parser:
                waiting += references(parser[id])
    return found


def test_settings_are_used_or_refused(name: str):
    """An id that nothing reads would be taken in silence."""
    for workflow in workflows(name):
        parser = ConfigParser()
        parser.read_config(config_files(BUNDLES / name, workflow))
        settings = {id for id in parser.get() if id in SETTINGS} - {"output_dir"}  # where the launcher's record goes
        unused = {*unused_settings(parser)}
        if workflow == "evaluate_missing":  # where handlers of `evaluate` don't run
            unused -= {"predictions_dir", "save_uncertainty"}
        assert settings - used(name, workflow) == unused, workflow


# Handlers that every process of several has; the others write or show something.
OF_EVERY_PROCESS = {"WeightsLoader", "ParamSchedulerHandler", "LrScheduleHandler", "ValidationHandler"}
OF_EVERY_PROCESS |= {"GradientClipping", "TrainingCheckpoints"}


def test_other_processes_than_the_first_neither_write_nor_show(name: str):
    train, overlay = load(name, "train"), load(name, "multi_gpu_train")
    for part in ("train", "validate"):
        for index, handler in enumerate(train[part]["handlers"]):
            place = f"{part}#handlers#{index}"
            kind = handler["_target_"].split(".")[-1]
            disabled = "dist.get_rank() > 0" in overlay.get(f"{place}#_disabled_", "")
            assert disabled != (kind in OF_EVERY_PROCESS), place
            if "summary_writer" in handler:  # made even for a handler that is disabled
                assert "dist.get_rank() > 0" in overlay[f"{place}#summary_writer#_disabled_"], place


def test_a_training_that_goes_on_is_compared_with_how_it_began(name: str):
    """Before any case is prepared; and with the handlers that decide the result, each under its own id."""
    train = load(name, "train")["train"]
    deciding = OF_EVERY_PROCESS - {"WeightsLoader", "TrainingCheckpoints"}
    expected = {
        str(index): f"@train#handlers#{index}"
        for index, handler in enumerate(train["handlers"])
        if handler["_target_"].split(".")[-1] in deciding
    }
    assert train["handlers"][-1]["handlers"] == {"train": {"handlers": expected}}
    for config in ("train", "multi_gpu_train"):
        run = load(name, config)["run"]
        assert (run[0], run[-1]) == ("@train#configuration", "$@train#trainer.run()")


def test_checkpoints_are_saved_after_all_else(name: str):
    trainer = load(name, "train")["train"]
    assert trainer["handlers"][-1]["_target_"] == "common.handlers.checkpoints.TrainingCheckpoints"
    assert trainer["trainer"]["optim_set_to_none"] is True
    for part in ("train", "validate"):
        assert load(name, "train")[part]["dataloader"]["generator"] == "$torch.Generator()"


def test_no_weights_are_in_the_repository_but_those_of_generated_scans(name: str):
    listed = subprocess.run(["git", "ls-files", BUNDLES / name], cwd=BUNDLES.parent, capture_output=True, text=True)
    files = [file for file in listed.stdout.split() if file.endswith((".pt", ".safetensors", ".nii.gz"))]
    along = f"bundles/{name}/models/{GENERATED}"
    assert files in ([], [along])
    for file in files:
        path = BUNDLES.parent / file
        assert path.stat().st_size <= 20e6
        assert read_facts(path)["data"] == "generated scans"
        load_weights(ConfigParser(load(name, "inference")).get_parsed_content("network_def"), path)
