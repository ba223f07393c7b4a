"""The command line: `python -m common <verb>`, or `lesion-bundles <verb>`. Each verb is one call into a room."""

from __future__ import annotations

import sys

import fire

from .data.describe import data
from .data.phantoms import make_phantoms
from .demo import demo
from .errors import exit_in_one_line
from .report.build import report
from .running import run
from .scoring import score


def main() -> None:
    """Run the verb that the command line names."""
    sys.excepthook = exit_in_one_line
    verbs = {"run": run, "phantoms": make_phantoms, "data": data, "score": score, "report": report, "demo": demo}
    fire.Fire(verbs, name="lesion-bundles")


if __name__ == "__main__":
    main()
