"""The members of an ensemble: found by path or pattern, drawn with a seed, in an order that nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.inferers.members import find_members


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    for number in range(10):
        (tmp_path / f"fold_{number}").mkdir()
        (tmp_path / f"fold_{number}" / "model.pt").touch()
    (tmp_path / "a[1].pt").touch()
    return tmp_path


def test_patterns_and_paths_name_each_file_once(folds: Path):
    models = [folds / f"fold_{number}" / "model.pt" for number in range(10)]
    assert find_members(f"{folds}/*/model.pt") == models
    assert find_members([f"{folds}/**/model.pt", str(models[3]), f"{folds}/fold_0/../fold_3/model.pt"]) == models
    assert find_members([str(folds / "a[1].pt")]) == [folds / "a[1].pt"]
    assert find_members([]) == []


def test_drawn_with_a_seed_whatever_the_order(folds: Path):
    paths = [str(folds / f"fold_{number}" / "model.pt") for number in range(10)]
    drawn = [find_members(given, draw=5, seed=1) for given in (paths, paths[::-1], f"{folds}/*/model.pt")]
    assert drawn[0] == drawn[1] == drawn[2] == sorted(drawn[0])
    assert len(set(drawn[0])) == 5
    others = [find_members(paths, draw=5, seed=seed) for seed in range(20)]
    assert len({tuple(other) for other in others}) > 10
    assert set().union(*others) == set(find_members(paths))
    assert find_members(paths, draw=10, seed=4) == find_members(paths)


def test_what_is_not_there(folds: Path):
    with pytest.raises(InputError, match=r"members: no file fits .*/none/\*\.pt; give checkpoints"):
        find_members([f"{folds}/*/model.pt", f"{folds}/none/*.pt"])
    with pytest.raises(InputError, match=r"no file fits .*fold_1; give"):
        find_members([str(folds / "fold_1")])
    with pytest.raises(InputError, match="draw is 11, and members names 10 files: draw fewer, or add members"):
        find_members(f"{folds}/*/model.pt", draw=11)
