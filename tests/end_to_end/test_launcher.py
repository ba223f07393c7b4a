"""`python -m common run`: the same bits as MONAI's own command, Ctrl-C, the record, MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import nibabel
import pytest
import torch

pytestmark = pytest.mark.slow

Run = Callable[..., None]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


def test_same_bits_as_monai(trained: Path, run_in_process: Run, phantoms: dict[str, Path], tmp_path: Path):
    """`trained` comes from `python -m monai.bundle run`, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_in_process(
            "train", dataset_dir=phantoms["brats2018"], output_dir=tmp_path / "run", ckpt_dir=tmp_path / "models"
        )
    finally:
        torch.set_num_threads(threads)
    for name in ("models/model.pt", "run/last.pt"):
        first, second = weights_of(trained / name), weights_of(tmp_path / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    record = json.loads((tmp_path / "run" / "run-train-1.json").read_text())
    assert record["outcome"] == "finished"
    assert record["settings"]["seed"] == 0
    assert record["config"]["network_def"]["_target_"] == "common.networks.cga_unet.CGAUNet"
    assert [len(record["data"][part]) for part in ("training", "validation", "test")] == [2, 2, 0]
    assert all(Path(file).is_file() for case in record["data"]["training"] for file in case["image"])
    assert not list((trained / "run").glob("run-*")), "MONAI's own command keeps no record"


def test_ctrl_c(repository: Path, phantoms: dict[str, Path], trained: Path, tmp_path: Path):
    """After the first case: it is kept, one line says so, and the same command does the rest."""
    words = [sys.executable, "-m", "common", "run", "cga_unet", "inference", "--resample=False"]
    words += [f"--dataset_dir={phantoms['nnunet']}", f"--output_dir={tmp_path}", f"--ckpt_dir={trained / 'models'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=repository, env=environment, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*.nii.gz")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    # A shell calls either 130; Python ends itself by the signal where it came within an expression of a config.
    assert process.returncode in (130, -signal.SIGINT)
    line = f"stopped; each file in {tmp_path} is whole, and the same command does what is missing"
    assert errors.strip().splitlines()[-1] == line
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run-inference-1.json").read_text())["outcome"] == "stopped"
    for path in tmp_path.glob("*.nii.gz"):
        assert nibabel.load(path).shape == (32, 32, 32)


def test_mlflow_by_one_override(run_in_process: Run, phantoms: dict[str, Path], tmp_path: Path):
    run_in_process(
        "train",
        dataset_dir=phantoms["brats2018"],
        output_dir=tmp_path / "run",
        ckpt_dir=tmp_path / "models",
        mlflow_uri=tmp_path / "mlflow",
    )
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlruns.db")
    (run,) = client.search_runs(client.get_experiment_by_name("CGA U-Net").experiment_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.001"
    assert {"train_loss", "dice", "learning_rate", "val_mean_dice", "val_dice_ET"} <= run.data.metrics.keys()
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val_mean_dice")]
    assert steps == [1, 2]
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"model.pt", "run-train-1.json"}
