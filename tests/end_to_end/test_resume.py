"""Trainings of cga_unet that are killed with kill -9 and go on end with the same bits as one in one go."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.inferers import SlidingWindowInferer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common import atomic
from common.handlers.weights import BestWeightsSaver, LastWeightsSaver

pytestmark = pytest.mark.slow

SMALL = {
    "patch_size": [16, 16, 16],
    "resample": False,
    "epochs": 5,
    "val_interval": 2,
    "batch_size": 1,
    "fractions": [0.5, 0.5, 0.0],
    "inter_start": 1,
    "network_def#features": [8, 8, 8, 8],
    "network_def#blocks": [1, 1, 1, 1],
    "checkpoint_minutes": 0,
}
STEPS = 10
KILLS = 7


def result(folder: Path) -> dict[str, object]:
    """All files that must be the same to the bit; of the curves what TensorBoard shows."""
    names = ("models/model.pt", "run/last.pt", f"run/checkpoints/iteration-{STEPS}.pt")
    curves = {}
    for part in ("training", "validation"):
        events = EventAccumulator(str(folder / "run" / "events" / part), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            curves[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return {"curves": curves, **{name: (folder / name).read_bytes() for name in names}}


@pytest.fixture(scope="module")
def train(forked: Callable[..., Any], phantoms: dict[str, Path]) -> Callable[..., Any]:
    """Starts a training in a process of its own."""

    def start(folder: Path, prepare: Callable[[], object] = int, **overrides: object) -> Any:
        return forked("train", phantoms["brats2018"], folder, prepare, **(SMALL | overrides))

    return start


@pytest.fixture(scope="module")
def uninterrupted(
    train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], float]:
    """What a training in one go leaves, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    life = train(folder, num_workers=0)
    assert life.end() == 0, life.log.read_text()
    seconds = time.monotonic() - started
    found = result(folder)
    assert len(found["curves"]["train_loss"]) == STEPS and len(found["curves"]["val_mean_dice"]) == 2
    return found, seconds


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(
    train: Callable[..., Any], uninterrupted: tuple[dict[str, object], float], tmp_path: Path, workers: int
):
    expected, seconds = uninterrupted
    draw = random.Random(workers)
    kills = trainings = 0
    while kills < KILLS:
        folder = tmp_path / str(trainings)
        while True:
            life = train(folder, resume=True, num_workers=workers)
            wait = draw.uniform(0, seconds) if kills < KILLS else 600
            status = life.ended(wait)
            if status is not None:
                break
            os.kill(life.pid, signal.SIGKILL)
            status = life.end()
            if status == 0:
                break
            assert status == -signal.SIGKILL, life.log.read_text()
            kills += 1
        assert status == 0, life.log.read_text()
        assert result(folder) == expected
        trainings += 1


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_the_middle_of_the(number: int) -> Callable[[], None]:
    """Death when half of a checkpoint is written, for the `number`-th time."""

    def prepare() -> None:
        write, count = Path.write_bytes, [0]

        def half(path: Path, content: bytes) -> int:
            if "iteration" in path.name:
                count[0] += 1
                if count[0] == number:
                    write(path, content[: len(content) // 2])
                    die()
            return write(path, content)

        Path.write_bytes = half  # type: ignore[method-assign]

    return prepare


def after(owner: object, name: str, number: int) -> Callable[[], None]:
    """Death when a function is through for the `number`-th time."""

    def prepare() -> None:
        original, count = getattr(owner, name), [0]

        def call(*args: object, **kwargs: object) -> object:
            returned = original(*args, **kwargs)
            count[0] += 1
            if count[0] == number:
                die()
            return returned

        setattr(owner, name, call)

    return prepare


@pytest.mark.parametrize(
    "prepare",
    [
        in_the_middle_of_the(1),
        in_the_middle_of_the(6),
        after(atomic, "_sync", 9),
        after(SlidingWindowInferer, "__call__", 3),
        after(BestWeightsSaver, "save", 1),
        after(LastWeightsSaver, "finish", 1),
    ],
    ids=["first checkpoint half written", "sixth", "on the disk", "in a validation", "best saved", "at the end"],
)
def test_killed_at_a_bad_moment(
    train: Callable[..., Any],
    uninterrupted: tuple[dict[str, object], float],
    tmp_path: Path,
    prepare: Callable[[], None],
):
    life = train(tmp_path, prepare, num_workers=0)
    assert life.end() == -signal.SIGKILL, life.log.read_text()
    life = train(tmp_path, resume=True, num_workers=0)
    assert life.end() == 0, life.log.read_text()
    assert result(tmp_path) == uninterrupted[0]
    assert not [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.startswith(".")]
    assert not list((tmp_path / "run").glob("*previous*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(
    train: Callable[..., Any], uninterrupted: tuple[dict[str, object], float], tmp_path: Path, number: signal.Signals
):
    life = train(tmp_path, num_workers=2, checkpoint_minutes=1000)
    while "step/s" not in (life.log.read_text() if life.log.exists() else ""):
        assert life.ended(0.02) is None, life.log.read_text()
    os.kill(life.pid, number)
    assert life.end() == 130
    lines = life.log.read_text().splitlines()
    assert "to go on, type the same command again with --resume True" in lines[-1]
    assert "Traceback" not in life.log.read_text()
    life = train(tmp_path, num_workers=2, resume=True, checkpoint_minutes=1000)
    assert life.end() == 0, life.log.read_text()
    assert result(tmp_path) == uninterrupted[0]


def test_a_changed_configuration_is_refused(train: Callable[..., Any], tmp_path: Path):
    def told(**overrides: object) -> str:
        life = train(tmp_path, resume=True, num_workers=0, **overrides)
        assert life.end() == 1
        return life.log.read_text()

    assert train(tmp_path, after(SlidingWindowInferer, "__call__", 1), num_workers=0).end() == -9
    of_settings = told(
        epochs=6, learning_rate=0.01, **{"train#random_transforms#2#prob": 0.25, "cache_dir": tmp_path / "new"}
    )
    assert "can't go on with another configuration" in of_settings and "start anew, without --resume" in of_settings
    assert "epochs (5 then, 6 now)" in of_settings and "learning_rate (0.001 then, 0.01 now)" in of_settings
    assert "train#random_transforms#2#prob (0.5 then, 0.25 now)" in of_settings
    assert not (tmp_path / "new").exists()  # no case was prepared for nothing
    of_engines = told(**{"train#handlers#3#interval": 1, "train#trainer#accumulation_steps": 2})
    assert "train#handlers#3#interval (2 then, 1 now)" in of_engines
    assert "train#trainer#accumulation_steps (1 then, 2 now)" in of_engines
    # What changes nothing about the result may be another.
    others = {"num_workers": 1, "checkpoint_minutes": 5, "cache_dir": tmp_path / "elsewhere"}
    assert train(tmp_path, resume=True, **others).end() == 0


def test_a_second_training_in_the_same_folder_is_refused(
    train: Callable[..., Any], uninterrupted: tuple[dict[str, object], float], tmp_path: Path
):
    first = train(tmp_path, num_workers=0)
    while not list((tmp_path / "run" / "checkpoints").glob("*.pt")):
        assert first.ended(0.01) is None, first.log.read_text()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        seen = first.log.read_text()
        second = train(tmp_path, num_workers=0)
        assert second.end() == 1
        told = second.log.read_text().removeprefix(seen)
        assert "is being worked on" in told.splitlines()[-1] and "Traceback" not in told
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.end() == 0, first.log.read_text()
    assert result(tmp_path) == uninterrupted[0]


def test_without_resume_an_earlier_training_is_set_aside(train: Callable[..., Any], tmp_path: Path):
    assert train(tmp_path, after(BestWeightsSaver, "save", 1), num_workers=0).end() == -9
    assert train(tmp_path, num_workers=0, seed=0, epochs=1).end() == 0
    kept = tmp_path / "run" / "checkpoints.previous-1"
    assert sorted(path.name for path in kept.iterdir()) == ["iteration-2.pt", "iteration-3.pt"]
    assert [path.name for path in (tmp_path / "run").glob("*.previous-*.pt")] == ["model.previous-1.pt"]
