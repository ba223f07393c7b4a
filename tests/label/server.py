"""MONAI Label with the five exported bundles, for its tests, and what they ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
import torch
from monai.bundle import ConfigParser

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


def weights_of(name: str, path: Path) -> None:
    """Random ones, of the bundle with its tiny settings, which label more than the background."""
    parser = ConfigParser(json.loads((REPOSITORY / "bundles" / name / "configs" / "inference.json").read_text()))
    for id, value in TINY[name].items():
        if id.split("#")[0] in parser.config:
            parser[id] = value
    torch.manual_seed(0)
    torch.save({"model": parser.get_parsed_content("network_def").state_dict()}, path)


class Server:
    """MONAI Label with the app, as docs/monai_label.md has it, in a session of its own."""

    def __init__(self, python: Path, app: Path, studies: Path, port: int, folder: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        words = [python, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
        words += ["--host", "127.0.0.1", "--port", port, "--conf", "upload_mib", 64]
        words += ["--conf", "hosts", "label.example, scanner.example"]
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


def new_lines(server: Server, ask: Callable[[], requests.Response]) -> tuple[requests.Response, list[str]]:
    """An answer, and the errors that the log has since."""
    before = len(server.log.read_text())
    answer = ask()
    new = server.log.read_text()[before:]
    assert "Traceback" not in new
    return answer, [line for line in new.splitlines() if "[ERROR]" in line]


def memory_of(process: int) -> float:
    """In MiB."""
    (line,) = [x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def uncertainties(server: Server, model: str) -> dict[str, float]:
    objects = server.ask("GET", "datastore/?output=all").json()["objects"]
    noted = {name: one["image"]["info"].get("uncertainty", {}) for name, one in objects.items()}
    return {name: values[model] for name, values in noted.items() if model in values}


def overlap(label: np.ndarray, reference: np.ndarray) -> float:
    """Dice of the whole lesion."""
    return 2 * ((label > 0) & (reference > 0)).sum() / ((label > 0).sum() + (reference > 0).sum())
