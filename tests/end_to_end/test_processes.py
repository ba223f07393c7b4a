"""Trainings of cga_unet in two processes (gloo) do what one does, each case once, and end together.

So do trainings that take their batches in pieces, or compile the network.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.data.case_dataset import CaseDataset
from common.data.phantoms import make_phantoms

pytestmark = pytest.mark.slow

SMALL = {
    "patch_size": [16, 16, 16],
    "resample": False,
    "epochs": 2,
    "val_interval": 1,
    "batch_size": 1,
    "num_workers": 0,
    "network_def#features": [8, 8, 8, 8],
    "network_def#blocks": [1, 1, 1, 1],
}
# A loss that is a mean over cases, and nothing random but the samples: as many processes as there are cases in a batch
# then do what one does.
ONE_BY_ONE = {
    "network_def#dropout": 0.0,
    "attention_rate": 0,
    "dice_weight": 0,
    "cross_entropy_weight": 1,
    "amp": False,
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven phantoms, of which four train and three validate: an uneven share for two processes."""
    folder = tmp_path_factory.mktemp("data")
    make_phantoms(str(folder / "data"), cases=7, seed=5, shape=24)
    names = sorted(path.name for path in (folder / "data").iterdir() if path.is_dir())
    parts = {"training": names[:4], "validation": names[4:], "test": []}
    (folder / "partition.json").write_text(json.dumps({"parts": parts}))
    return folder / "data"


@pytest.fixture(scope="module")
def together(
    forked: Callable[..., Any], forked_together: Callable[..., list[Any]], dataset: Path
) -> Callable[..., list[Any]]:
    """Starts a training, of several processes or in one."""

    def start(folder: Path, processes: int = 2, prepare: Callable[[], object] = int, **overrides: object) -> list[Any]:
        settings = SMALL | {"partition_file": dataset.parent / "partition.json"} | overrides
        if processes == 1:
            return [forked("train", dataset, folder, prepare, **settings)]
        return forked_together("multi_gpu_train", dataset, folder, prepare, processes, **settings)

    return start


def finish(lives: list[Any]) -> None:
    for life in lives:
        assert life.end() == 0, life.log.read_text()


def curves(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for part in ("training", "validation"):
        events = EventAccumulator(str(folder / "run" / "events" / part))
        events.Reload()
        found |= {tag: np.array([event.value for event in events.Scalars(tag)]) for tag in events.Tags()["scalars"]}
    return found


@pytest.fixture(scope="module")
def one(together: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training in one process, two cases a step."""
    folder = tmp_path_factory.mktemp("one")
    finish(together(folder, 1, batch_size=2, **ONE_BY_ONE))
    return folder


def difference(folder: Path, other: Path) -> float:
    """The greatest of the last weights."""
    weights = [torch.load(path / "run" / "last.pt", weights_only=True)["model"] for path in (folder, other)]
    return max(float((weights[1][name] - value).abs().max()) for name, value in weights[0].items())


def test_two_do_what_one_does(together: Callable[..., list[Any]], one: Path, tmp_path: Path):
    finish(together(tmp_path, 2, batch_size=1, **ONE_BY_ONE))
    assert difference(one, tmp_path) <= 1e-6
    scores = [curves(folder) for folder in (one, tmp_path)]
    names = [name for name in scores[0] if name.startswith("val_")]
    assert len(names) == 4 and all(len(scores[0][name]) == 2 for name in names)
    for name in names:
        np.testing.assert_allclose(scores[1][name], scores[0][name], rtol=0, atol=1e-6, err_msg=name)
    assert len(scores[1]["train_loss"]) == 4


def test_two_machines_do_what_one_does(
    command: Callable[..., CompletedProcess[str]],
    free_port: Callable[[], int],
    one: Path,
    dataset: Path,
    tmp_path: Path,
):
    """By torchrun as users do it, each with its own agent; both machines are this one."""
    places = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "models"}
    settings = SMALL | ONE_BY_ONE | {"partition_file": dataset.parent / "partition.json"} | places
    words = ("common", "run", "cga_unet", "multi_gpu_train", *(f"--{name}={value}" for name, value in settings.items()))
    meeting = ("--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{free_port()}", "--rdzv_id=test")
    launcher = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", *meeting)
    with ThreadPoolExecutor(2) as pool:
        agents = [pool.submit(command, *words, launcher=launcher) for _ in range(2)]
    for agent in agents:
        assert agent.result().returncode == 0, agent.result().stderr
    assert difference(one, tmp_path) <= 1e-6


def without_a_compiler() -> None:
    """Leaves of compiling what isn't C++, which takes minutes."""
    torch.compile = partial(torch.compile, backend="eager")  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"batch_size": 1, "accumulation_steps": 2}, 0, 1e-6),
        ({"channels_last": True}, 0, 1e-6),
        ({"compile": True}, 0, 1e-6),
        ({"gradient_clip": 1e-3}, 1e-3, 1),
    ],
    ids=str,
)
def test_options_of_a_step(
    together: Callable[..., list[Any]], one: Path, tmp_path: Path, options: dict[str, Any], least: float, most: float
):
    finish(together(tmp_path, 1, without_a_compiler, **({"batch_size": 2} | ONE_BY_ONE | options)))
    assert least <= difference(one, tmp_path) <= most


def noting(folder: Path) -> Callable[[], None]:
    """Has each process note which samples it makes."""

    def prepare() -> None:
        get = CaseDataset.__getitem__

        def note(self: CaseDataset, index: Any) -> Any:
            kind = "train" if hasattr(index, "seed") else "validate"
            name = self.data[int(index)]["case"]
            with (folder / f"{kind}-{os.environ.get('RANK', '0')}").open("a") as file:
                file.write(f"{name} {getattr(index, 'seed', '')}\n")
            return get(self, index)

        CaseDataset.__getitem__ = note  # type: ignore[method-assign]

    return prepare


def noted(folder: Path, kind: str) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted(folder.glob(f"{kind}-*"))]


def test_each_case_once_and_the_same_samples_for_any_number_of_workers(
    together: Callable[..., list[Any]], dataset: Path, tmp_path: Path
):
    folders = {}
    for processes, workers in ((1, 0), (2, 0), (2, 1)):
        folder = folders[processes, workers] = tmp_path / f"{processes}-{workers}"
        finish(together(folder, processes, noting(folder), num_workers=workers))
    one, two, with_workers = (noted(folder, "train") for folder in folders.values())
    assert [len(share) for share in two] == [4, 4]
    for epoch in range(2):
        share = [line for rank in two for line in rank[2 * epoch : 2 * epoch + 2]]
        assert len({line.split()[0] for line in share}) == 4
        assert sorted(share) == sorted(one[0][4 * epoch : 4 * epoch + 4])
    assert with_workers == two
    parts = json.loads((dataset.parent / "partition.json").read_text())["parts"]
    for folder in folders.values():
        times = Counter(line.strip() for share in noted(folder, "validate") for line in share)
        assert times == {name: 2 for name in parts["validation"]}


def die_at(step: int, rank: int) -> Callable[[], None]:
    """Death of one process at the beginning of a step."""

    def prepare() -> None:
        iteration = SupervisedTrainer._iteration

        def die(self: SupervisedTrainer, engine: SupervisedTrainer, batch: Any) -> Any:
            if os.environ["RANK"] == str(rank) and engine.state.iteration == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return iteration(self, engine, batch)

        SupervisedTrainer._iteration = die  # type: ignore[method-assign]

    return prepare


def test_killed_and_gone_on_to_the_bit(together: Callable[..., list[Any]], tmp_path: Path):
    """The other process notices, and ends too."""
    finish(together(tmp_path / "whole"))
    killed = tmp_path / "killed"
    lives = together(killed, 2, die_at(3, rank=1), checkpoint_minutes=0)
    assert lives[1].end() == -signal.SIGKILL
    assert lives[0].end(60) == 1
    assert "error: another process of this training has ended" in lives[0].log.read_text().splitlines()[-1]
    assert sorted(path.name for path in (killed / "run" / "checkpoints").iterdir()) == [
        "iteration-1.pt",
        "iteration-2.pt",
    ]
    (alone,) = together(killed, 1, resume=True)
    assert alone.end() == 1
    assert "processes (2 then, 1 now)" in alone.log.read_text().splitlines()[-1]
    finish(together(killed, 2, resume=True))
    for name in ("models/model.pt", "run/last.pt", "run/checkpoints/iteration-4.pt"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_signal_to_one_stops_all(together: Callable[..., list[Any]], tmp_path: Path):
    def prepare() -> None:
        attach = SupervisedTrainer._register_handlers

        def ask(engine: SupervisedTrainer) -> None:
            if os.environ["RANK"] == "1" and engine.state.iteration == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def register(self: SupervisedTrainer, handlers: Any) -> None:
            attach(self, handlers)
            self.add_event_handler(Events.ITERATION_STARTED, ask)

        SupervisedTrainer._register_handlers = register  # type: ignore[method-assign]

    lives = together(tmp_path, 2, prepare, checkpoint_minutes=1000)
    assert [life.end(60) for life in lives] == [130, 130]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["iteration-3.pt"]
    told = [life.log.read_text().count("again with --resume True") for life in lives]
    assert told == [1, 0]


def test_only_the_first_process_shows_and_writes(together: Callable[..., list[Any]], tmp_path: Path):
    finish(together(tmp_path))
    assert len(list((tmp_path / "run" / "events").glob("*/*"))) == 2
    logs = [(tmp_path / f"log-{rank}").read_text() for rank in range(2)]
    for word in ("is the best so far", "saved as", "step/s", "training on 4 cases"):
        assert word in logs[0] and word not in logs[1]


def test_a_bad_case_of_one_process_ends_all_and_is_told(
    command: Callable[..., CompletedProcess[str]], dataset: Path, tmp_path: Path
):
    """By torchrun, as users do it."""
    parts = json.loads((dataset.parent / "partition.json").read_text())["parts"]
    data = tmp_path / "data"
    data.mkdir()
    for case in dataset.iterdir():
        if case.is_dir():
            (data / case.name).symlink_to(case)
    (data / parts["training"][1]).unlink()
    (data / parts["training"][1]).mkdir()
    for file in (dataset / parts["training"][1]).iterdir():
        (data / parts["training"][1] / file.name).write_bytes(file.read_bytes()[:2000])
    (tmp_path / "partition.json").write_text((dataset.parent / "partition.json").read_text())
    settings = SMALL | {
        "dataset_dir": data,
        "output_dir": tmp_path / "run",
        "ckpt_dir": tmp_path,
    }
    done = command(
        *("common", "run", "cga_unet", "multi_gpu_train", *(f"--{name}={value}" for name, value in settings.items())),
        launcher=("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"),
    )
    assert done.returncode != 0
    assert f"error: case {parts['training'][1]}, " in done.stderr
    assert done.stderr.count("Traceback") == 1  # torchrun's own
