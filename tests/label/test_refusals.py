"""What nobody should ask of MONAI Label with the app, and is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests

from tests.label.server import BESIDE, Server, memory_of, new_lines

pytestmark = [pytest.mark.label, pytest.mark.slow]


REFUSED = {
    "a bad image": ("infer/cga_unet", {"image": "bad"}, 422, "bad.nii.gz: is not a NIfTI file"),
    "four modalities for one": ("infer/mps_ams", {"image": "plain"}, 422, "is 4D"),
    "no such model": ("infer/weightless", {"image": "plain"}, 404, "no model 'weightless': there are cga_unet, "),
    "no such image": ("infer/cga_unet", {"image": "none"}, 404, "no image 'none'"),
    "a file of the server": ("infer/cga_unet", {"image": "/etc/passwd"}, 404, "no image '/etc/passwd'"),
    "no such model to train": ("train/weightless", {}, 404, "no model 'weightless'"),
    "no such model for a batch": ("batch/infer/weightless", {}, 404, "no model 'weightless'"),
    "no such strategy": ("activelearning/hunch", {}, 404, "no strategy 'hunch': there are uncertainty, "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str, server: Server):
    path, options, status, told = REFUSED[what]
    answer, errors = new_lines(server, lambda: server.ask("POST", path, params=options))
    assert answer.status_code == status and told in answer.json()["detail"]
    if status == 422:
        (line,) = errors
        assert told in line and f"infer {path.split('/')[1]} of {options['image']}: " in line
    assert server.ask("GET", "info/").status_code == 200


def test_weights_of_another_bundle_that_came_later(server: Server, app: Path, tmp_path: Path):
    path = app / "model" / "fancl" / "models" / "model.pt"
    before = server.infer("fancl", "plain", tmp_path / "before.nii.gz").get_fdata()
    try:
        shutil.copyfile(app / "cga_unet.pt", path)
        answer, (line,) = new_lines(server, lambda: server.ask("POST", "infer/fancl", params={"image": "plain"}))
        assert answer.status_code == 422 and "is of another network" in answer.json()["detail"]
        assert answer.json()["detail"] in line
    finally:
        shutil.copyfile(app / "fancl.pt", path)
    np.testing.assert_array_equal(server.infer("fancl", "plain", tmp_path / "after.nii.gz").get_fdata(), before)


def test_a_page_of_the_web(server: Server):
    """A browser gives it no answer of a server that doesn't allow it by name."""
    answer = server.ask("GET", "info/", headers={"Origin": "https://page.example"})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers


def zeros() -> Iterator[bytes]:
    """Of a file in a form, without an end to the form."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="zeros.nii"\r\n\r\n'
    for _ in range(2**11):
        yield bytes(2**20)


@pytest.mark.parametrize("length_is_said", [True, False])
def test_two_gigabytes_of_zeros(length_is_said: bool, server: Server, tmp_path: Path):
    """They are never read to the end."""
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(2**31)
    resident, start = memory_of(server.process.pid), time.monotonic()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        with (tmp_path / "zeros").open("rb") as file:
            body = file if length_is_said else zeros()
            answer = server.ask("PUT", "datastore/image?image=zeros", data=body, headers=headers)
        assert answer.status_code == 413
    except requests.ConnectionError:
        pass  # closed while more was sent, before the answer was read
    assert time.monotonic() - start < 20
    assert memory_of(server.process.pid) - resident < 300
    assert "zeros" not in server.ask("GET", "datastore/?output=all").json()["objects"]


def test_what_is_small_and_unpacks_to_much(server: Server, tmp_path: Path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((256, 256, 300, 4), np.uint8), np.eye(4)), tmp_path / "zeros.nii.gz")
    assert (tmp_path / "zeros.nii.gz").stat().st_size < 2**20
    with (tmp_path / "zeros.nii.gz").open("rb") as file:
        answer = server.ask("POST", "infer/cga_unet", files={"file": ("zeros.nii.gz", file)})
    assert answer.status_code == 413 and "75 MiB unpacked, the limit is 64" in answer.json()["detail"]


def four_of_zeros(folder: Path) -> list[Path]:
    """Files of modalities that are below the limit one by one."""
    paths = [folder / f"case-{modality}.nii.gz" for modality in ("t1n", "t1c", "t2w", "t2f")]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(np.zeros((256, 256, 300), np.uint8), np.eye(4)), path)
    return paths


def test_a_session_that_unpacks_to_much(server: Server, tmp_path: Path):
    files = [("files", (path.name, path.read_bytes())) for path in four_of_zeros(tmp_path)]
    session = server.ask("PUT", "session/", files=files).json()["session_id"]
    answer = server.ask("POST", "infer/cga_unet", params={"session_id": session})
    assert answer.status_code == 413 and "75 MiB unpacked, the limit is 64" in answer.json()["detail"]
    assert server.ask("DELETE", f"session/{session}").status_code == 200


def test_a_folder_beside_an_image_that_unpacks_to_much(server: Server, studies: Path):
    (studies / "bad").mkdir()
    try:
        four_of_zeros(studies / "bad")
        answer = server.ask("POST", "infer/cga_unet", params={"image": "bad"})
        assert answer.status_code == 413 and "75 MiB unpacked, the limit is 64" in answer.json()["detail"]
        # Which doesn't read the folder.
        assert server.ask("POST", "infer/mps_ams", params={"image": "bad"}).status_code == 422
    finally:
        shutil.rmtree(studies / "bad")


def files_of(*folders: Path) -> dict[Path, bytes]:
    """But what the server writes of itself."""
    found = (path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts)
    skipped = ("datastore_v2.json", ".lock")
    return {x: x.read_bytes() for x in found if x.is_file() and x.name not in skipped and "logs" not in x.parts}


# What would be a path, as an image's id, a label's tag and a file's name.
LEADS_OUT = {
    "up": "../x",
    "far up": "../app/model/cga_unet/scripts/x",
    "absolute": "{app}/model/cga_unet/scripts/x",
    "below": "labels/x",
    "hidden": ".x",
    "of dots": "..",
    "of two lines": "x\ny",
}


@pytest.mark.parametrize("what", LEADS_OUT)
def test_names_that_lead_out_of_the_datastore(what: str, server: Server, app: Path, studies: Path):
    name = LEADS_OUT[what].format(app=app)
    before = files_of(app, studies.parent)
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "datastore/image", {"params": {"image": name}, "files": {"file": ("x.nii.gz", b"x")}}),
        ("PUT", "datastore/label", {"params": {"image": name}, "files": {"label": ("x.nii.gz", b"x")}}),
        ("PUT", "datastore/label", {"params": {"image": "plain", "tag": name}, "files": {"label": ("x.nii", b"x")}}),
        (
            "POST",
            "infer/cga_unet",
            {"params": {"image": "plain"}, "data": {"params": json.dumps({"save_label": True, "label_tag": name})}},
        ),
    ]
    for method, path, options in asked:
        answer, (line,) = new_lines(server, lambda: server.ask(method, path, **options))  # noqa: B023
        assert answer.status_code == 422 and f"{name!r} is no plain name" in answer.json()["detail"]
        assert answer.json()["detail"] in line
    assert files_of(app, studies.parent) == before


@pytest.mark.parametrize("name", ["x.py", "x.json", "x", "x.pt", "x.nii.gz.py"])
def test_endings_that_no_image_has(name: str, server: Server, app: Path, studies: Path):
    before = files_of(app, studies.parent)
    for kind, field, image in (("image", "file", "x"), ("label", "label", "plain")):
        options = {"params": {"image": image}, "files": {field: (name, b"x")}}
        answer, (line,) = new_lines(server, lambda: server.ask("PUT", f"datastore/{kind}", **options))  # noqa: B023
        assert answer.status_code == 422 and "a file of ending " in answer.json()["detail"]
        assert answer.json()["detail"] in line
    assert files_of(app, studies.parent) == before


def test_a_label_of_no_image(server: Server):
    options = {"params": {"image": "none"}, "files": {"label": ("x.nii.gz", b"x")}}
    answer, _ = new_lines(server, lambda: server.ask("PUT", "datastore/label", **options))
    assert answer.status_code == 404 and "no image 'none'" in answer.json()["detail"]


def test_an_image_of_a_plain_name_is_kept(server: Server, studies: Path):
    content = (studies / f"{BESIDE[0]}.nii.gz").read_bytes()
    answer = server.ask("PUT", "datastore/image?image=a-1_b.2", files={"file": ("x.nii.gz", content)})
    assert answer.json() == {"image": "a-1_b.2"}
    assert (studies / "a-1_b.2.nii.gz").read_bytes() == content
    assert server.ask("DELETE", "datastore/image?id=a-1_b.2").status_code == 200
    server.wait_until(lambda: "a-1_b.2" not in server.ask("GET", "datastore/?output=all").json()["objects"], 30)


def test_a_file_that_another_program_left_in_tmp(server: Server, studies: Path):
    with tempfile.NamedTemporaryFile(dir="/tmp", suffix=".nii.gz") as file:
        file.write((studies / "plain.nii.gz").read_bytes())
        file.flush()
        for path in ("infer/cga_unet", "infer/wsi/cga_unet"):
            options: dict[str, Any] = {"json": {}} if "wsi" in path else {}
            answer = server.ask("POST", path, params={"image": file.name}, **options)
            assert answer.status_code == 404 and f"no image {file.name!r}" in answer.json()["detail"]


def test_sessions_that_are_paths_or_archives(server: Server, studies: Path, tmp_path: Path):
    store = server.log.parent / ".cache" / "monailabel"
    (store / "kept").mkdir(parents=True, exist_ok=True)
    for method, path, options in (
        ("POST", "infer/cga_unet", {"params": {"session_id": "../../x"}}),
        ("DELETE", "session/%2e%2e", {}),
        ("GET", "session/%2e%2e", {}),
    ):
        request = requests.Request(method, f"{server.url}/{path}", **options).prepare()
        if "%" in path:
            request.url = f"{server.url}/{path}"  # which requests has made a path without it
        answer, (line,) = new_lines(server, lambda: requests.Session().send(request, timeout=60))  # noqa: B023
        assert answer.status_code == 404 and answer.json()["detail"] in line
    assert (store / "kept").is_dir()
    (tmp_path / "folder").mkdir()
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "tar", tmp_path / "folder"))
    files = {"files": (archive.name, archive.read_bytes())}
    answer, (line,) = new_lines(server, lambda: server.ask("PUT", "session/?uncompress=true", files=files))
    assert answer.status_code == 422 and "archives aren't unpacked" in line


def test_code_that_a_training_would_import(server: Server):
    """MONAI Label puts what the request of no model says on the path of Python."""
    for model, status, told in (("none", 404, "no model 'none'"), (None, 422, "model None: give a text")):
        answer = server.ask("POST", "train/fancl", json={"model": model, "bundle_path": "/tmp"})
        assert answer.status_code == status and told in answer.json()["detail"]
