"""The five exported bundles behind MONAI Label, over HTTP: what a viewer asks for, and what nobody should.

The server runs in an environment of its own, which `make label-env` makes. Its folder is in $LESION_LABEL_ENV, or is
`.venv-label` of the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
import torch
from monai.bundle import ConfigParser
from PIL import Image

from common.data.layouts import list_cases
from common.data.phantoms import make_phantoms
from common.data.reading import read_image
from common.export.bundle import export

pytestmark = [pytest.mark.label, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "lesion_bundles"

# Enough for every step to happen; nothing is learnt but by cga_unet.
_NNUNET = {"features": [4, 8, 8, 8], "window_size": [16, 16, 16], "patch_size": [16, 16, 16], "steps_per_epoch": 2}
_TRANSFORMER = {"encoder_layers": 1, "decoder_layers": 2, "encoder_width": 48, "encoder_heads": 4, "encoder_mlp": 96}
TINY: dict[str, dict[str, Any]] = {
    "cga_unet": {
        **{"network_def#features": [8, 8, 8, 16], "patch_size": [32, 32, 32], "spacing": [6, 6, 6]},
        **{"learning_rate": 0.02, "val_interval": 1},
    },
    "fancl": {**_NNUNET, "attention_patch": [4, 4], "spacing": [6, 6, 6]},
    "mps_ams": {"features": [4, 8, 8, 8, 8], "image_size": [32, 32], "modality": "t2f"},
    "msconvlstm_att": {
        "network_def#features": [4, 4, 8],
        "network_def#width": 8,
        "crop_size": [26, 26],
        "pixel_size": [6, 6],
    },
    "transunet3d": {
        **{**_NNUNET, **_TRANSFORMER, "queries": 4, "variant": "both", "spacing": [6, 6, 6]},
        # What it makes worse in one epoch.
        "learning_rate": 5,
    },
}
FOUR_MODALITIES = [name for name in TINY if name != "mps_ams"]
# 4D files, and, of one modality, a file that has the folder of the four beside it.
WHOLE = ("plain", "turned", "oblique")
BESIDE = ("first", "second", "third")


@pytest.fixture(scope="module")
def python() -> Path:
    folder = Path(os.environ.get("LESION_LABEL_ENV", REPOSITORY / ".venv-label"))
    if not (folder / "bin" / "python").exists():
        pytest.skip(f"MONAI Label isn't in {folder}: make label-env")
    return folder / "bin" / "python"


def weights_of(name: str, path: Path) -> None:
    """Random ones, of the bundle with its tiny settings, which label more than the background."""
    parser = ConfigParser(json.loads((REPOSITORY / "bundles" / name / "configs" / "inference.json").read_text()))
    for id, value in TINY[name].items():
        if id.split("#")[0] in parser.config:
            parser[id] = value
    torch.manual_seed(0)
    torch.save({"model": parser.get_parsed_content("network_def").state_dict()}, path)


@pytest.fixture(scope="module")
def app(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the app with the five, one without weights, and one with another's."""
    folder = tmp_path_factory.mktemp("label") / "app"
    folder.mkdir()
    shutil.copy(APP / "main.py", folder)
    for name, tiny in TINY.items():
        weights_of(name, folder / f"{name}.pt")
        export(name, str(folder / "dist"), str(folder / f"{name}.pt"), **tiny, num_workers=0)
        with zipfile.ZipFile(next((folder / "dist").glob(f"{name}_v*.zip"))) as archive:
            archive.extractall(folder / "model")
    for broken in ("weightless", "mistaken"):
        shutil.copytree(folder / "model" / "cga_unet", folder / "model" / broken)
    (folder / "model" / "weightless" / "models" / "model.pt").unlink()
    shutil.copy(folder / "fancl.pt", folder / "model" / "mistaken" / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    make_phantoms(str(folder), cases=3, layout="brats2023", shape=32, seed=5)
    return list_cases(folder, labelled=True)


@pytest.fixture(scope="module")
def studies(phantoms: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "studies"
    folder.mkdir()
    voxels, affine = read_image(phantoms[0])
    plain = nibabel.Nifti1Image(np.moveaxis(voxels, 0, -1), affine)
    nibabel.save(plain, folder / "plain.nii.gz")
    turn = nibabel.orientations.axcodes2ornt("SPL")
    turned = plain.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), turn))
    nibabel.save(turned, folder / "turned.nii.gz")
    angle = np.deg2rad(12)
    rotation = np.diag([-1.0, -1, 1, 1])  # to LPS
    rotation[:2, :2] @= [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = nibabel.Nifti1Image(np.asarray(plain.dataobj), rotation @ affine @ np.diag([1, 0.8, 1.25, 1]))
    nibabel.save(oblique, folder / "oblique.nii.gz")
    for name, case in zip(BESIDE, phantoms, strict=True):
        (folder / name).mkdir()
        for file in case["image"]:
            shutil.copy(file, folder / name)
        shutil.copy(case["image"][3], folder / f"{name}.nii.gz")
    Image.fromarray(np.random.default_rng(0).integers(1, 255, (48, 64), np.uint8)).save(folder / "picture.png")
    (folder / "bad.nii.gz").write_bytes(b"no image")
    return folder


class Server:
    """MONAI Label with the app, as docs/monai_label.md has it, in a session of its own."""

    def __init__(self, python: Path, app: Path, studies: Path, port: int, folder: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        words = [python, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
        words += ["--host", "127.0.0.1", "--port", port, "--conf", "upload_mib", 64]
        # Nothing of this project on the path, no other host, and no home to keep anything in.
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "OMP_WAIT_POLICY")}
        own = {"OMP_NUM_THREADS": "1", "HOME": str(folder), "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), cwd=folder, env=kept | own, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.wait_until(lambda: "Application startup complete" in self.log.read_text(), 120)
        except BaseException:
            self.end()
            raise

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.url}/{path}", timeout=120, **options)

    def infer(self, model: str, image: str, file: Path) -> nibabel.Nifti1Image:
        answer = self.ask("POST", f"infer/{model}", params={"image": image, "output": "image"})
        assert answer.status_code == 200, answer.text
        file.write_bytes(answer.content)
        return nibabel.load(file)

    def wait_until(self, condition: Callable[[], object], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, f"not so after {seconds} s: {self.log.read_text()[-3000:]}"
            time.sleep(0.2)

    def finished(self, kind: str, seconds: float = 240) -> dict[str, Any]:
        """The last training or batch, when it has ended."""
        self.wait_until(lambda: self.ask("GET", kind).json()["status"] in ("DONE", "ERROR"), seconds)
        return self.ask("GET", kind).json()

    def end(self) -> int:
        """Ask it to end, and end all that it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            for member in members_of(self.process.pid):
                os.kill(member, signal.SIGKILL)


def members_of(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(facts[3]) == session and facts[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.fixture(scope="module")
def server(
    python: Path, app: Path, studies: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(python, app, studies, free_port(), tmp_path_factory.mktemp("server"))
    yield server
    server.end()


def new_lines(server: Server, ask: Callable[[], requests.Response]) -> tuple[requests.Response, list[str]]:
    """An answer, and the errors that the log has since."""
    before = len(server.log.read_text())
    answer = ask()
    new = server.log.read_text()[before:]
    assert "Traceback" not in new
    return answer, [line for line in new.splitlines() if "[ERROR]" in line]


def test_info(server: Server):
    told = server.ask("GET", "info/").json()
    assert {*told["models"]} == {*told["trainers"]} == {*TINY}
    for name in TINY:
        labels = {"lesion": 1} if name == "mps_ams" else {"ncr": 1, "ed": 2, "et": 3}
        assert told["models"][name]["labels"] == labels
    assert {*told["strategies"]} == {"uncertainty", "random", "first"}
    assert told["datastore"]["total"] == len(WHOLE + BESIDE) + len(("picture", "bad"))


def test_bundles_that_cannot_be_served(server: Server):
    log = server.log.read_text()
    (weightless,) = [line for line in log.splitlines() if "weightless is left out" in line]
    assert "no models/model.pt in " in weightless
    (mistaken,) = [line for line in log.splitlines() if "mistaken is left out" in line]
    assert "is of another network: " in mistaken


@pytest.fixture(scope="module")
def own(app: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the exported bundles themselves make of the same images, in folders of their names."""
    folder = tmp_path_factory.mktemp("own")
    groups = {"whole": [f"{name}.nii.gz" for name in WHOLE], "one": [f"{name}.nii.gz" for name in BESIDE]}
    groups["pictures"] = ["picture.png"]
    for group, files in groups.items():
        (folder / group).mkdir()
        for file in files:
            shutil.copy(studies / file, folder / group)
    for bundle, group in [*((name, "whole") for name in FOUR_MODALITIES), ("mps_ams", "one"), ("mps_ams", "pictures")]:
        root = app / "model" / bundle
        words = ["--config_file", root / "configs" / "inference.json", "--bundle_root", root]
        words += ["--dataset_dir", folder / group, "--output_dir", folder / bundle]
        done = subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", *map(str, words)],
            **{"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "timeout": 300},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return folder


def test_labels_are_those_of_the_bundles_themselves(server: Server, own: Path, studies: Path, tmp_path: Path):
    """All five by turns, twice: the second time is where another bundle's modules would be used."""
    for _ in range(2):
        for images in zip(WHOLE, BESIDE, strict=True):
            for bundle in TINY:
                image = images[bundle == "mps_ams"]
                label = server.infer(bundle, image, tmp_path / "label.nii.gz")
                scan = nibabel.load(studies / f"{image}.nii.gz")
                assert label.shape == scan.shape[:3] and label.get_data_dtype() == np.uint8
                np.testing.assert_allclose(label.affine, scan.affine, atol=1e-5)
                expected = nibabel.load(own / bundle / f"{image}.nii.gz")
                np.testing.assert_array_equal(label.dataobj, expected.dataobj)
                assert len(np.unique(label.dataobj)) > 1, bundle


def test_four_files_beside_the_one_that_is_looked_at(server: Server, studies: Path, tmp_path: Path):
    for bundle in FOUR_MODALITIES:
        label = server.infer(bundle, "first", tmp_path / "label.nii.gz")
        same = server.infer(bundle, "plain", tmp_path / "same.nii.gz")
        np.testing.assert_array_equal(label.dataobj, same.dataobj)
        np.testing.assert_allclose(label.affine, nibabel.load(studies / "first.nii.gz").affine, atol=1e-5)


def test_a_picture(server: Server, own: Path, tmp_path: Path):
    answer = server.ask("POST", "infer/mps_ams", params={"image": "picture", "output": "image"})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.png").write_bytes(answer.content)
    label = np.asarray(Image.open(tmp_path / "label.png"))
    assert label.shape == (48, 64) and {*np.unique(label)} == {0, 1}
    np.testing.assert_array_equal(label > 0, np.asarray(Image.open(own / "mps_ams" / "picture.png")) > 0)


def test_an_image_that_is_not_in_the_datastore(server: Server, own: Path, studies: Path, tmp_path: Path):
    with (studies / "oblique.nii.gz").open("rb") as file:
        answer = server.ask("POST", "infer/cga_unet", params={"output": "image"}, files={"file": ("x.nii.gz", file)})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    expected = nibabel.load(own / "cga_unet" / "oblique.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "label.nii.gz").dataobj, expected.dataobj)


def test_four_files_that_are_sent(server: Server, own: Path, phantoms: list[dict[str, Any]], tmp_path: Path):
    """As a session, which a viewer opens for what isn't in the datastore."""
    files = [("files", (Path(path).name, Path(path).read_bytes())) for path in phantoms[0]["image"]]
    session = server.ask("PUT", "session/", files=files).json()["session_id"]
    answer = server.ask("POST", "infer/fancl", params={"session_id": session, "output": "image"})
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    expected = nibabel.load(own / "fancl" / "plain.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "label.nii.gz").dataobj, expected.dataobj)
    assert server.ask("DELETE", f"session/{session}").status_code == 200


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


def memory_of(process: int) -> float:
    """In MiB."""
    (line,) = [x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_what_is_small_and_unpacks_to_much(server: Server, tmp_path: Path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((256, 256, 300, 4), np.uint8), np.eye(4)), tmp_path / "zeros.nii.gz")
    assert (tmp_path / "zeros.nii.gz").stat().st_size < 2**20
    with (tmp_path / "zeros.nii.gz").open("rb") as file:
        answer = server.ask("POST", "infer/cga_unet", files={"file": ("zeros.nii.gz", file)})
    assert answer.status_code == 413 and "75 MiB unpacked, the limit is 64" in answer.json()["detail"]


def test_sampling_before_there_is_anything_to_go_by(server: Server):
    """mps_ams notes no uncertainty."""
    answer, (line,) = new_lines(
        server, lambda: server.ask("POST", "activelearning/uncertainty", json={"model": "mps_ams"})
    )
    assert answer.status_code == 422 and "no uncertainty is noted of 8 images" in answer.json()["detail"]
    assert answer.json()["detail"] in line


def test_batch_and_sampling(server: Server, studies: Path):
    told = server.ask("POST", "batch/infer/fancl?images=all", json={"label_tag": "auto"})
    assert told.status_code == 200 and told.json()["status"] == "SUBMITTED"
    assert server.finished("batch/infer")["status"] == "DONE"
    written = {path.name for path in (studies / "labels" / "auto").iterdir()}
    assert written == {f"{name}.nii.gz" for name in WHOLE + BESIDE}
    server.wait_until(lambda: len(uncertainties(server, "fancl")) == len(written), 30)
    noted = uncertainties(server, "fancl")
    assert len({*noted.values()}) > 1 and all(0 < value < 1 for value in noted.values())
    answer = server.ask("POST", "activelearning/uncertainty", json={"model": "fancl"})
    most = max(noted.values())
    assert noted[answer.json()["id"]] == most == answer.json()["weight"]


def uncertainties(server: Server, model: str) -> dict[str, float]:
    objects = server.ask("GET", "datastore/?output=all").json()["objects"]
    noted = {name: one["image"]["info"].get("uncertainty", {}) for name, one in objects.items()}
    return {name: values[model] for name, values in noted.items() if model in values}


VIEWER = """
import sys
from monailabel.client import MONAILabelClient
url, folder = sys.argv[1:]
client = MONAILabelClient(url, folder)
assert len(client.info()["models"]) == 5
sample = client.next_sample("uncertainty", {"model": "fancl"})
label, said = client.infer("fancl", sample["id"], {})
assert said["label_names"] == {"ncr": 1, "ed": 2, "et": 3} and said["uncertainty"] == sample["weight"]
label, _ = client.infer("fancl", "plain", {})
session = client.create_session(sample["path"].rpartition("/")[0] + "/plain.nii.gz")["session_id"]
same, _ = client.infer("fancl", "", {}, session_id=session)
assert open(same, "rb").read() == open(label, "rb").read()
assert client.save_label("plain", label, "looked_at")["label"] == "plain"
"""


def test_what_a_viewer_calls(server: Server, python: Path, tmp_path: Path):
    """By MONAI Label's client, which 3D Slicer's extension has; after a batch has noted uncertainties."""
    words = [python, "-c", VIEWER, server.url, tmp_path]
    done = subprocess.run([*map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_too_few_labels_to_train(server: Server):
    server.ask("POST", "train/fancl", json={"max_epochs": 1})
    told = server.finished("train")
    assert told["status"] == "ERROR"
    assert "train fancl: 0 images with final labels" in told["details"][-1]


@pytest.fixture(scope="module")
def corrected(server: Server, phantoms: list[dict[str, Any]]) -> dict[str, Path]:
    """Final labels, put there as a viewer does."""
    labels = {name: Path(case["label"]) for name, case in zip(BESIDE, phantoms, strict=True)}
    for name, path in labels.items():
        with path.open("rb") as file:
            answer = server.ask("PUT", "datastore/label", params={"image": name, "tag": "final"}, files={"label": file})
        assert answer.json() == {"image": name, "label": name}
    return labels


def test_a_corrected_label(server: Server, corrected: dict[str, Path], tmp_path: Path):
    answer = server.ask("GET", "datastore/label", params={"label": "first", "tag": "final"})
    assert answer.content == corrected["first"].read_bytes()
    told = server.ask("GET", "datastore/?output=train").json()
    assert {Path(one["image"]).name for one in told} == {f"{name}.nii.gz" for name in BESIDE}
    assert server.ask("POST", "activelearning/uncertainty").json()["id"] in WHOLE


def test_better_weights_are_served(server: Server, corrected: dict[str, Path], tmp_path: Path):
    """Of two trainings at once the second is refused, and inference goes on."""
    before = server.infer("cga_unet", "third", tmp_path / "before.nii.gz").get_fdata()
    assert server.ask("POST", "train/cga_unet", json={"max_epochs": 10, "val_split": 0.3}).status_code == 200
    server.wait_until(lambda: server.ask("GET", "train/").json()["status"] == "RUNNING", 30)
    second = server.ask("POST", "train/fancl", json={"max_epochs": 1})
    assert second.status_code == 429 and "Train Task is Already Running" in second.json()["detail"]
    assert server.infer("fancl", "plain", tmp_path / "meanwhile.nii.gz").shape == (32, 32, 32)
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    after = server.infer("cga_unet", "third", tmp_path / "after.nii.gz").get_fdata()
    reference = nibabel.load(corrected["third"]).get_fdata()
    assert overlap(after, reference) > overlap(before, reference)


def test_worse_weights_are_not(server: Server, corrected: dict[str, Path], app: Path):
    folder = app / "model" / "transunet3d"
    before = torch.load(folder / "models" / "model.pt", weights_only=True)["model"]
    server.ask("POST", "train/transunet3d", json={"max_epochs": 2})
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    after = torch.load(folder / "models" / "model.pt", weights_only=True)["model"]
    last = torch.load(folder / "eval" / "label" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not all(torch.equal(last[key], before[key]) for key in before)


@pytest.mark.parametrize("name", ["fancl", "mps_ams", "msconvlstm_att"])
def test_the_others_train(name: str, server: Server, corrected: dict[str, Path], app: Path):
    server.ask("POST", f"train/{name}", json={"max_epochs": 1})
    told = server.finished("train")
    assert told["status"] == "DONE", told["details"]
    assert (app / "model" / name / "eval" / "label" / "last.pt").exists()
    assert server.ask("POST", f"infer/{name}", params={"image": "first"}).status_code == 200


def test_it_ends_when_asked_to(server: Server):
    """After all that; and no process of it stays."""
    assert server.end() == 0
    assert members_of(server.process.pid) == []


def overlap(label: np.ndarray, reference: np.ndarray) -> float:
    """Dice of the whole lesion."""
    return 2 * ((label > 0) & (reference > 0)).sum() / ((label > 0).sum() + (reference > 0).sum())
