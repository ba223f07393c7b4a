"""A training as a run of MLflow."""

from __future__ import annotations

import atexit
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Workflow
from monai.handlers.mlflow_handler import MlflowException, MLFlowHandler

from ..claim import by_turns
from ..records import own_record

__all__ = ["MLflowRun"]


class MLflowRun(MLFlowHandler):
    """Records a training with MLflow: settings as parameters, losses and scores by epoch, the best weights as artifact.

    The run has the path of `output_dir` as its name. A training that goes on adds to its run, one that starts anew gets
    a new one. Losses are means over an epoch; where a training went on within one, over the rest of it. A run that
    ends without being finished is marked KILLED. The record that `common.running` keeps becomes an artifact too.
    Trainings that start together on a new SQLite database make it by turns, which `.mlflow.lock` beside it is for.

    Args:
        uri: a folder, which gets a database `mlruns.db` and the artifacts in `mlruns`; or an address of MLflow's, such
            as `sqlite:///runs.db` or `https://…`.
        experiment: the name under which MLflow gathers the runs of a bundle.
        output_dir: of the training.
        weights: file of the best weights.
        settings: what become the parameters.
        losses: from the trainer's output, the losses of an iteration by name.
        optimizer: its learning rate is logged.
        evaluator: its metrics are the scores.
        goes_on: whether the training goes on where an earlier one was stopped.
    """

    experiment: Any
    cur_run: Any

    def __init__(
        self,
        uri: str,
        experiment: str,
        output_dir: Path | str,
        weights: Path | str,
        settings: Mapping[str, Any],
        losses: Callable[[Any], Mapping[str, torch.Tensor]],
        optimizer: torch.optim.Optimizer,
        evaluator: Workflow,
        goes_on: bool,
    ) -> None:
        turn: AbstractContextManager[None] = nullcontext()
        if "://" not in uri:
            uri = f"sqlite:///{Path(uri).absolute() / 'mlruns.db'}"
        if uri.startswith("sqlite:///"):
            folder = Path(uri.removeprefix("sqlite:///")).parent
            folder.mkdir(parents=True, exist_ok=True)
            turn = by_turns(folder / ".mlflow.lock")
        self.output_dir, self.weights = Path(output_dir), weights
        with turn:  # two processes that make or upgrade a database at once break it
            super().__init__(
                tracking_uri=uri,
                experiment_name=experiment,
                run_name=str(self.output_dir.resolve()),
                experiment_param=dict(settings),
                close_on_complete=True,
            )
            self._set_experiment()  # older versions of MLflow make the database only now
        self.losses, self.optimizer, self.evaluator, self.goes_on = losses, optimizer, evaluator, goes_on
        self.sums: dict[str, torch.Tensor | float] = defaultdict(float)
        self.steps = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        super().attach(engine)
        self.evaluator.add_event_handler(
            Events.EPOCH_COMPLETED, lambda evaluator: self._log_metrics(evaluator.state.metrics, engine.state.epoch)
        )

    def start(self, engine: Engine) -> None:
        """Open the run, and log the parameters."""
        id = self.experiment.experiment_id
        runs = self.client.search_runs(id, order_by=["attributes.start_time DESC"])
        newest = next((run for run in runs if run.info.run_name == self.run_name), None)
        if newest is not None and self.goes_on:
            self.cur_run = newest
            self.client.update_run(newest.info.run_id, status="RUNNING")
        else:
            if newest is not None and newest.info.status != self.run_finish_status:
                self.client.set_terminated(newest.info.run_id, "KILLED")
            self.cur_run = self.client.create_run(id, run_name=self.run_name)
        atexit.register(self.abandon)
        super().start(engine)

    def iteration_completed(self, engine: Engine) -> None:
        """Add an iteration's losses to those of the epoch."""
        for name, value in self.losses(engine.state.output).items():
            self.sums[name] += value.detach()
        self.steps += 1

    def epoch_completed(self, engine: Engine) -> None:
        """Log the epoch's mean losses, and the learning rate with which the next begins."""
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        rate = self.optimizer.param_groups[0]["lr"]
        self._log_metrics({**means, "learning_rate": rate}, engine.state.epoch)
        self.sums.clear()
        self.steps = 0

    def complete(self) -> None:
        """Log the artifacts: the weights, and the record but for how the run ends, which is known only later."""
        self.artifacts = (self.weights,)
        if (path := own_record(self.output_dir)) is not None:
            record = json.loads(path.read_text())
            self.client.log_dict(
                self.cur_run.info.run_id, {k: v for k, v in record.items() if k not in ("outcome", "ended")}, path.name
            )
        super().complete()

    def abandon(self) -> None:
        """Say that the run has ended without being finished; nothing to say where it is."""
        if self.cur_run is not None:
            with suppress(MlflowException):  # the database may be out of reach by now, and the process is about to end
                self.client.set_terminated(self.cur_run.info.run_id, "KILLED")

    def _log_params(self, params: Mapping[str, Any]) -> None:
        """MLflow takes no other value for a parameter that a run has already: the first stays."""
        new = dict(params)
        self._delete_exist_param_in_dict(new)
        super()._log_params(new)
