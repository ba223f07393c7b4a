"""Small phantoms in several layouts, a trained network, and the commands that a user types."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.data.phantoms import make_phantoms
from common.errors import exit_in_one_line, find_input_error
from common.networks.cga_unet import CGAUNet
from common.running import run as run_bundle

LAYOUTS = ("brats2018", "nnunet", "decathlon")
# Enough for every step to happen; nothing is learnt.
TINY = {
    "patch_size": [16, 16, 16],
    "resample": False,
    "epochs": 2,
    "val_interval": 1,
    "num_workers": 0,
    "batch_size": 1,
    "fractions": [0.5, 0.5, 0.0],
}
SETTINGS = {"train": TINY, "inference": {"resample": False}}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four phantoms of 32³ in each of three layouts: the same scans and labels."""
    folders = {layout: tmp_path_factory.mktemp("phantoms") / layout for layout in LAYOUTS}
    for layout, folder in folders.items():
        make_phantoms(str(folder), cases=4, layout=layout, seed=5, shape=32)
    return folders


@pytest.fixture(scope="session")
def command(repository: Path) -> Command:
    """Runs `python -m …` in the repository's folder, in a process of its own."""

    def run(
        *arguments: object, launcher: tuple[str, ...] = (), largest_file: int | None = None, threads: int = 1
    ) -> subprocess.CompletedProcess[str]:
        def limit_files() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        words = [sys.executable, *launcher, "-m", *map(str, arguments)]
        return subprocess.run(
            words,
            cwd=repository,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            timeout=1200,
            preexec_fn=limit_files,
        )

    return run


@pytest.fixture(scope="session")
def monai_run(command: Command) -> Command:
    """Runs a workflow of a bundle by `python -m monai.bundle run`, as the README does."""

    def run(
        bundle: str,
        *workflows: str,
        launcher: tuple[str, ...] = (),
        largest_file: int | None = None,
        threads: int = 1,
        **overrides: object,
    ) -> subprocess.CompletedProcess[str]:
        files = ",".join(f"'bundles/{bundle}/configs/{name}.json'" for name in workflows)
        settings = [f"--{name}={value}" for name, value in overrides.items()]
        return command(
            *("monai.bundle", "run", f"--config_file=[{files}]", f"--bundle_root=bundles/{bundle}", *settings),
            launcher=launcher,
            largest_file=largest_file,
            threads=threads,
        )

    return run


@pytest.fixture(scope="session")
def bundle_run(monai_run: Command) -> Command:
    """The same of cga_unet, with tiny settings."""

    def run(*workflows: str, **overrides: object) -> subprocess.CompletedProcess[str]:
        return monai_run("cga_unet", *workflows, **{**SETTINGS.get(workflows[0], {}), **overrides})

    return run


@pytest.fixture(scope="session")
def said_by(monai_run: Command) -> Callable[..., str]:
    """What a workflow of a bundle says that ends well, run likewise."""

    def run(bundle: str, *workflows: str, **overrides: object) -> str:
        done = monai_run(bundle, *workflows, **overrides)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def trained(bundle_run: Command, phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/model.pt` and `run/`, from training two epochs on the first layout."""
    folder = tmp_path_factory.mktemp("trained")
    done = bundle_run("train", dataset_dir=phantoms["brats2018"], output_dir=folder / "run", ckpt_dir=folder / "models")
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout + done.stderr)
    return folder


class ForkedRun:
    """A workflow of a bundle in a process of its own, forked from this one, which saves the seconds of importing.

    What it says goes to `<folder>/log`; results go to `<folder>/run`, weights to `<folder>/models`.
    """

    def __init__(
        self,
        workflow: str,
        dataset: Path | None,
        folder: Path,
        prepare: Callable[[], object] = int,
        rank: int | None = None,
        bundle: str = "cga_unet",
        **overrides: object,
    ) -> None:
        folder.mkdir(exist_ok=True)
        places = {"output_dir": folder / "run", "ckpt_dir": folder / "models"}
        settings = {**places, **({} if dataset is None else {"dataset_dir": dataset}), **overrides}
        self.log = folder / ("log" if rank is None else f"log-{rank}")
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()  # not in the child, where what threads of the parent were doing is half done
        gc.freeze()
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            sys.stdout = sys.stderr = self.log.open("a", buffering=1)
            for stream in (1, 2):
                os.dup2(sys.stdout.fileno(), stream)
            torch.set_num_threads(1)  # threads of the parent aren't there in a fork
            if rank is not None:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            prepare()
            run_bundle(bundle, workflow, **{k: str(v) if isinstance(v, Path) else v for k, v in settings.items()})
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            exit_in_one_line(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            os._exit(status)

    def end(self, seconds: float = 300) -> int:
        """Wait; the exit status, or minus the number of the signal that ended it."""
        status = self.ended(seconds)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            pytest.fail(f"still running after {seconds} s: {self.log.read_text()[-2000:]}")
        return status

    def ended(self, seconds: float) -> int | None:
        """The same within a time; None where it is alive after that."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None


@pytest.fixture(scope="session")
def forked() -> type[ForkedRun]:
    return ForkedRun


@pytest.fixture(scope="session")
def forked_together(free_port: Callable[[], int]) -> Callable[..., list[ForkedRun]]:
    """Starts one training of several processes, forked."""

    def start(
        workflow: str,
        dataset: Path,
        folder: Path,
        prepare: Callable[[], object] = int,
        processes: int = 2,
        **overrides: object,
    ) -> list[ForkedRun]:
        port = free_port()

        def set_up() -> None:
            os.environ |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            prepare()

        return [ForkedRun(workflow, dataset, folder, set_up, rank, **overrides) for rank in range(processes)]

    return start


@pytest.fixture
def run_in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a workflow of a bundle in this process, which saves the seconds that importing takes."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run_workflow(workflow: str, bundle: str = "cga_unet", **overrides: object) -> None:
        settings = {**(SETTINGS.get(workflow, {}) if bundle == "cga_unet" else {}), **overrides}
        run_bundle(bundle, workflow, **{k: str(v) if isinstance(v, Path) else v for k, v in settings.items()})

    return run_workflow


@pytest.fixture
def line_of(run_in_process: Callable[..., None]) -> Callable[..., str]:
    """Runs a workflow in this process and returns the one line that it must end with."""

    def fail(workflow: str, **overrides: object) -> str:
        with pytest.raises(Exception) as raised:
            run_in_process(workflow, **overrides)
        found = find_input_error(raised.value)
        assert found is not None, raised.value
        assert "\n" not in str(found)
        return str(found)

    return fail


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three gliomas of 32³."""
    folder = tmp_path_factory.mktemp("source") / "data"
    make_phantoms(str(folder), cases=3, shape=32, seed=2, kind="glioma")
    (folder / "phantoms.json").unlink()
    return folder


@pytest.fixture(scope="module")
def metastases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of 32³ with metastases, in folders of their own."""
    folder = tmp_path_factory.mktemp("metastases") / "data"
    make_phantoms(str(folder), cases=4, seed=3, shape=32, kind="metastases")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an untrained network."""
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.manual_seed(0)
    torch.save(CGAUNet().state_dict(), path)
    return path


@pytest.fixture
def dataset(source: Path, tmp_path: Path) -> Path:
    """A copy of the three gliomas, to be damaged."""
    return Path(shutil.copytree(source, tmp_path / "data"))
