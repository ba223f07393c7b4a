"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """The folder of real scans beside the checkout; tests that need it are skipped where it isn't there."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "brats2020").is_dir():
        pytest.skip(f"no real scans at {folder}")
    return folder
