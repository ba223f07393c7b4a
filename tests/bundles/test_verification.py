"""MONAI's own commands that verify a bundle have nothing against any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
# What `python -m monai.bundle verify_metadata` and `… verify_net_in_out` call, of all in one process: it starts once.
VERIFY = """
import sys
from monai.bundle import verify_metadata, verify_net_in_out

schema, *folders = sys.argv[1:]
for folder in folders:
    metadata = f"{folder}/metadata.json"
    verify_metadata(meta_file=metadata, filepath=schema)
    verify_net_in_out("network_def", meta_file=metadata, config_file=f"{folder}/inference.json", device="cpu", n=2)
    print(folder, "is verified")
"""


@pytest.mark.slow
def test_monai_verifies_each(repository: Path, tmp_path: Path):
    schema = tmp_path / "schema.json"
    schema.write_text((repository / "tests" / "metadata_schema.json").read_text())
    folders = [str(path.parent) for path in sorted(BUNDLES.glob("*/configs/metadata.json"))]
    words = [sys.executable, "-c", VERIFY, str(schema), *folders]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.endswith("is verified")] == [
        f"{folder} is verified" for folder in folders
    ]
    assert done.stderr.count("verified with no error") + done.stdout.count("verified with no error") == 2 * len(folders)
