"""Requests that MONAI Label would take as they are: of any host, with any entry, of what stops the server's log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.label.server import APP, Server, new_lines

pytestmark = [pytest.mark.label, pytest.mark.slow]


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.0.0.1:1", "[::1]:8000", "LOCALHOST", "label.example", "scanner.example:8443"],
)
def test_hosts_that_are_answered(host: str, server: Server):
    assert server.ask("GET", "info/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.example:8000", "0.0.0.0"])
def test_hosts_that_are_not(host: str, server: Server):
    """A name that leads here, of a page that asks for what it takes for its own server."""
    answer = server.ask("GET", "datastore/image?image=plain", headers={"Host": host})
    assert answer.status_code == 400 and answer.text == "Invalid host header"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "10.1.2.3", "--port", "8000"], ["10.1.2.3"]),
        (["-i", "fd00::1"], ["[fd00::1]"]),
        (["--host=0.0.0.0"], []),
        (["--conf", "upload_mib", "4096"], []),
    ],
)
def test_the_host_that_the_server_was_told(words: list[str], expected: list[str], python: Path, tmp_path: Path):
    code = f"import sys; sys.path.insert(0, {str(APP)!r}); from guarding import _hosts; print(_hosts(''))"
    done = subprocess.run(
        [python, "-c", code, "start_server", *words],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120},
    )
    assert done.stdout.splitlines()[-1] == str(["localhost", "127.0.0.1", "[::1]", *expected]), done.stderr


def asked(path: str, params: Any, told: str, status: int = 422) -> tuple[str, dict[str, Any], int, str]:
    """A request with a form's params, or with JSON where they are a dictionary of a training or a batch."""
    options = {"json": params} if not path.startswith("infer") else {"data": {"params": params}}
    return path, options, status, told


INFER = "infer/cga_unet?image=plain"
UNUSABLE = {
    "no JSON": asked(INFER, "notjson", "JSONDecodeError: Expecting value"),
    "a number": asked(INFER, "5", "POST /infer/cga_unet: TypeError: "),
    "an image that is none": asked(INFER, json.dumps({"image": {"a": 1}}), "image {'a': 1}: give a text"),
    "models": asked(INFER, json.dumps({"model": ["x"]}), "model ['x']: give a text"),
    "a level of the log": asked(INFER, json.dumps({"logging": "x"}), "logging 'x': give one of DEBUG, INFO"),
    "an ending": asked(INFER, json.dumps({"result_extension": ".py"}), "result_extension '.py': give one of .nii, "),
    "an ending that is none": asked(INFER, json.dumps({"result_extension": [".nii"]}), "give one of .nii, .nii.gz"),
    "a type": asked(INFER, json.dumps({"result_dtype": "int64"}), "result_dtype 'int64': give one of uint8, "),
    "a device": asked(INFER, json.dumps({"device": "x"}), "device 'x': give cpu, cuda or cuda:0"),
    "devices": asked(INFER, json.dumps({"device": [1]}), "device [1]: give cpu"),
    "no yes or no": asked(INFER, json.dumps({"save_label": "false"}), "save_label 'false': give true or false"),
    "epochs": asked("train/cga_unet", {"max_epochs": "x"}, "max_epochs 'x': give a whole number from 1"),
    "no epochs": asked("train/cga_unet", {"max_epochs": 0}, "max_epochs 0: give a whole number from 1"),
    "a share": asked("train/cga_unet", {"val_split": 1.5}, "val_split 1.5: give a number from 0 to below 1"),
    "no GPUs": asked("train/cga_unet", {"gpus": 5}, "gpus 5: give a text"),
    "models to train": asked("train/cga_unet", {"model": ["x"]}, "model ['x']: give a text"),
    "what isn't settings": asked("train/", {"cga_unet": 5}, "POST /train/: TypeError: "),
    "a batch": asked("batch/infer/cga_unet", {"max_batch_size": "x"}, "max_batch_size 'x': give a whole number from 0"),
    "images of a batch": asked("batch/infer/cga_unet", {"images": 5}, "images 5: give a text, or a list of ids"),
    "strategies": asked("activelearning/first", {"strategy": ["x"]}, "strategy ['x']: give a text"),
    "a training within the server": asked("train/cga_unet?run_sync=true", {}, "run_sync isn't offered"),
    "a batch within the server": asked("batch/infer/cga_unet?run_sync=true", {}, "run_sync isn't offered"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_be_used_of_a_request(what: str, server: Server):
    path, options, status, told = UNUSABLE[what]
    answer, (line,) = new_lines(server, lambda: server.ask("POST", path, **options))
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert told in detail and "\n" not in detail and detail in line


@pytest.mark.parametrize("what", ["image", "label"])
def test_what_is_noted_of_what_is_not_there(what: str, server: Server):
    options: dict[str, Any] = {"params": {what: "none", "tag": "final"}, "data": {"info": "{}"}}
    answer, (line,) = new_lines(server, lambda: server.ask("PUT", f"datastore/{what}/info", **options))
    assert answer.status_code == 404 and "not found" in answer.json()["detail"] and answer.json()["detail"] in line


def test_entries_that_are_of_no_use_go_no_further(server: Server):
    """They would be entries of the bundle's own data."""
    params = {"client_id": "a viewer", "pred": 5, "image_path": 5, "skip_writer": True, "result_dtype": "uint16"}
    answer = server.ask("POST", INFER, data={"params": json.dumps(params)}, params={"output": "image"})
    assert answer.status_code == 200 and answer.content[:2] == b"\x1f\x8b"  # of gzip


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("model", ["cga_unet", "none"])
def test_weights_are_no_upload(method: str, model: str, server: Server, app: Path):
    path = app / "model" / "cga_unet" / "models" / "model.pt"
    before = path.read_bytes()
    options = {"files": {"file": ("x.pt", b"x")}} if method == "PUT" else {}
    answer, (line,) = new_lines(server, lambda: server.ask(method, f"model/{model}", **options))
    assert answer.status_code == 403 and "weights aren't taken or deleted here" in line
    assert [*path.parent.glob("model.pt*")] == [path] and path.read_bytes() == before
    assert server.ask("GET", "model/cga_unet").content == before


def test_the_log_goes_on(server: Server, app: Path):
    """In the app's folder too, after all that."""
    log = app / "logs" / "app.log"
    before = len(log.read_text())
    server.ask("PUT", "model/fancl")
    assert "weights aren't taken" in log.read_text()[before:]
