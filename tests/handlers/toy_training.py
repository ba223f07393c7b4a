"""A training of seconds that has all that makes trouble when it is to go on after a kill."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from ignite.metrics import Average
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ParamSchedulerHandler, ValidationHandler
from torch import nn

from common.data.order import Draw, EpochBatches
from common.handlers.checkpoint_folder import CheckpointFolder
from common.handlers.checkpoints import TrainingCheckpoints, checked_configuration
from common.handlers.weights import BestWeightsSaver, LastWeightsSaver

EPOCHS, STEPS = 4, 3


class Killed(BaseException):
    """Stands for kill -9: nothing that is executed after it touches the files."""


class Cases(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3 * STEPS - 1

    def __getitem__(self, draw: Draw) -> dict[str, torch.Tensor]:
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(draw.seed))
        return {"image": noise + draw.index, "label": noise.sum().reshape(1) - draw.index}


class Network(nn.Module):
    """With all that makes trouble: running statistics, dropout, and a weight without a gradient in some iterations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Dropout(0.5), nn.Flatten())
        self.head, self.seldom = nn.Linear(16, 1), nn.Linear(16, 1)
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.body(image)
        if self.training and random.random() < 0.4:
            return self.seldom(features) + np.random.rand()
        return self.head(features)


class Loss(nn.Module):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(prediction, label) * (1 + self.epoch)


class Training:
    """A training with a validation every second epoch, that is cut off where `kill` says."""

    def __init__(self, folder: Path, resume: bool = False, seed: int = 0, **options: Any) -> None:
        options = {
            "minutes": 0,
            "accumulation": 1,
            "interval": 2,
            "patience": 0,
            "workers": 0,
            "rate": 0.1,
            "batch": 3,
            "device": "cpu",
            "stages": (),
        } | options
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        self.network, loss = Network(), Loss()
        optimizer = torch.optim.Adam(self.network.parameters(), options["rate"], weight_decay=0.1, amsgrad=True)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, EPOCHS, 0.9)
        self.best = BestWeightsSaver(self.network, str(folder / "model.pt"), str(folder))
        cases = Cases()
        held_back = [Cases()[Draw(n, n)] for n in range(2)]
        self.evaluator = SupervisedEvaluator(
            torch.device("cpu"),
            DataLoader(held_back, generator=torch.Generator()),
            self.network,
            key_val_metric={"score": Average(lambda output: -abs(output[0]["pred"] - output[0]["label"]).mean())},
            val_handlers=[self.best],
        )
        batches = EpochBatches(len(cases), options["batch"], seed)
        self.folder = CheckpointFolder(folder / "checkpoints", resume)
        objects = {"network": self.network, "optimizer": optimizer, "lr_scheduler": schedule, "best": self.best}
        handlers = [
            ParamSchedulerHandler(
                loss.set_epoch, lambda current_step: current_step, {}, True, None, Events.EPOCH_STARTED
            ),
            LrScheduleHandler(schedule, print_lr=False),
            ValidationHandler(options["interval"], self.evaluator),
            LastWeightsSaver(self.network, str(folder / "last.pt"), str(folder / "model.pt"), self.evaluator),
        ]
        configuration = checked_configuration(
            self.folder,
            {
                "epochs": EPOCHS,
                "output_dir": str(folder),
                "num_workers": options["workers"],
                "device": options["device"],
            },
            {"optimizer": optimizer, "train": {"cases": ["a", "b"]}},
        )
        self.checkpoints = TrainingCheckpoints(
            self.folder,
            options["minutes"],
            objects,
            self.evaluator,
            batches,
            configuration,
            {"train": {"handlers": dict(enumerate(handlers[:-1]))}},
            options["stages"],
        )
        self.trainer = SupervisedTrainer(
            torch.device("cpu"),
            EPOCHS,
            DataLoader(
                cases,
                batch_sampler=batches,
                generator=torch.Generator(),
                num_workers=options["workers"],
                persistent_workers=options["workers"] > 0,
            ),
            self.network,
            optimizer,
            loss,
            decollate=False,
            optim_set_to_none=True,
            accumulation_steps=options["accumulation"],
        )
        for handler in handlers:
            handler.attach(self.trainer)
        if options["patience"]:
            stopping = EarlyStopping(options["patience"], lambda engine: -engine.state.epoch, self.trainer)
            self.evaluator.add_event_handler(Events.COMPLETED, stopping)
            self.checkpoints.objects["stopping"] = stopping
        self.losses: list[tuple[int, float]] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.note)

    def note(self, engine: Engine) -> None:
        self.losses.append((engine.state.iteration, engine.state.output["loss"].item()))

    def run(self, kill: Callable[[Training], None] = lambda training: None) -> Training:
        self.checkpoints.attach(self.trainer)
        kill(self)
        try:
            self.trainer.run()
        finally:
            if workers := getattr(self.trainer.data_loader, "_iterator", None):
                workers._shutdown_workers()  # collected as garbage, they take seconds to end
        return self

    def result(self) -> dict[str, Any]:
        """All that must be the same to the bit."""
        folder = self.folder.folder.parent
        return {
            "files": [(folder / name).read_bytes() for name in ("model.pt", "last.pt")],
            "optimizer": [
                value.tolist() for state in self.trainer.optimizer.state.values() for value in state.values()
            ],
            "rate": self.trainer.optimizer.param_groups[0]["lr"],
            "best": (self.best.best, self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch),
            "drawn": (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()),
            "iteration": self.trainer.state.iteration,
            "losses": self.losses,
        }
