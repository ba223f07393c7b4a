"""Stands for `python -m common run` in tests: writes what a workflow leaves behind, at once and without learning.

In the folder of the cross-validation `fail` names what shall fail ("1 train"), `wait` what shall wait for ever; `calls`
gets a line for each call.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from fire.parser import DefaultParseValue

bundle, workflow, *words = sys.argv[1:]
settings = dict(word.removeprefix("--").split("=", 1) for word in words)
output_dir, fold = Path(settings["output_dir"]), int(settings["fold"])
root = output_dir.parents[1]


def read(name: str) -> str:
    return (root / name).read_text() if (root / name).exists() else ""


def record(outcome: str) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    number = len(list(output_dir.glob("run-*")))
    overrides = {id: DefaultParseValue(value) for id, value in settings.items()}
    (output_dir / f"run-{workflow}-{number}.json").write_text(json.dumps({"outcome": outcome, "overrides": overrides}))


with (root / "calls").open("a") as calls:
    print(fold, workflow, os.environ.get("OMP_NUM_THREADS"), *words, file=calls)
if read("wait") == f"{fold} {workflow}":
    record("running")
    (root / "waiting").touch()
    time.sleep(60)
if read("fail") == f"{fold} {workflow}":
    record("it can't")
    sys.exit("error: it can't; do otherwise")
if workflow == "train":
    Path(settings["ckpt_dir"]).mkdir(parents=True)
    (Path(settings["ckpt_dir"]) / "model.pt").touch()
else:
    output_dir.mkdir(parents=True, exist_ok=True)
    cases = json.loads(Path(settings["partition_file"]).read_text())["folds"][fold]["test"]
    scores = [{"case": case, "region": "WT", "dice": 0.5 + fold / 10, "hd95": 3.0} for case in cases]
    for name in ("scores", "lesions"):
        (output_dir / f"{name}.json").write_text(json.dumps({"cases": scores}))
record("finished")
