"""All benchmarks in turn: `make bench`, or `python -m benchmarks [DATASET CHECKPOINT]`.

Without arguments only what needs no scans is measured; with a folder of scans and weights the other tables too.
"""

from __future__ import annotations

import subprocess
import sys

names = ["phantoms", "train_step", "train_options", "kills", "missing_modalities", "cache", "lesion_wise", "fancl_step"]
names += ["set_matching", "transunet3d_cost", "msconvlstm_att_cost"]
commands = [[f"benchmarks.{name}"] for name in names]
if len(sys.argv) > 1:
    commands.append(["benchmarks.reading", sys.argv[1]])
if len(sys.argv) > 2:
    commands.append(["benchmarks.inference", sys.argv[1], sys.argv[2]])
sys.exit(max(subprocess.run([sys.executable, "-m", *command]).returncode for command in commands))
