"""The members of an ensemble: found by path or pattern, drawn with a seed, in an order that nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import InputError
from common.inferers.members import check_alike, find_members


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


@pytest.mark.parametrize(("id", "values"), [("spacing", ([1.0] * 3, [3.0] * 3)), ("robust", (False, True))])
def test_members_that_want_images_prepared_otherwise_are_refused(tmp_path: Path, id: str, values: tuple[Any, Any]):
    paths = [tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "says_nothing.pt"]
    for path, value in zip(paths, values, strict=False):
        torch.save({"model": {}, "trained_with": {id: value, "seed": str(path)}}, path)
    torch.save({}, paths[2])
    check_alike([paths[0], paths[2]], ())
    with pytest.raises(
        InputError, match=rf"a\.pt was trained with {id} .* and .*b\.pt with .*name members that are alike"
    ):
        check_alike(paths, ("planes",))


def test_a_cross_validation_that_lacks_a_fold_is_no_ensemble(tmp_path: Path):
    names = [f"fold-{number}" for number in range(11)]
    for name in names:
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "model.pt").touch()
    pattern = f"{tmp_path}/fold-*/models/model.pt"
    assert len(find_members(pattern)) == 11  # folders that are only named like folds
    (tmp_path / "folds.json").write_text(json.dumps({"folds": [{}] * 11}))
    assert len(find_members(pattern, draw=5)) == 5
    for name in ("fold-3", "fold-10"):
        (tmp_path / name / "models" / "model.pt").unlink()
    message = f"members: {tmp_path}/folds.json has 11 folds, and no file of fold-3, fold-10 fits {pattern}: finish "
    with pytest.raises(InputError) as error:
        find_members(pattern, draw=5)
    assert str(error.value).startswith(message)
    rest = [str(tmp_path / name / "models" / "model.pt") for name in names[:3]]
    assert len(find_members(rest)) == 3  # named one by one


def test_a_fold_that_is_still_training_is_no_member(tmp_path: Path):
    (tmp_path / "folds.json").write_text(json.dumps({"folds": [{}] * 2}))
    for number, outcomes in enumerate((["finished"], ["finished", "running"])):
        (tmp_path / f"fold-{number}" / "models").mkdir(parents=True)
        (tmp_path / f"fold-{number}" / "training").mkdir()
        (tmp_path / f"fold-{number}" / "models" / "model.pt").touch()
        for run, outcome in enumerate(outcomes, start=9):  # the tenth comes after the ninth
            record = tmp_path / f"fold-{number}" / "training" / f"run-train-{run}.json"
            record.write_text(json.dumps({"outcome": outcome}))
    with pytest.raises(InputError, match=r"members: .*/fold-1 has not finished its training: type the cross-valid"):
        find_members(f"{tmp_path}/fold-*/models/model.pt")
    (tmp_path / "fold-1" / "training" / "run-train-10.json").write_text(json.dumps({"outcome": "finished"}))
    assert len(find_members(f"{tmp_path}/fold-*/models/model.pt")) == 2
    (tmp_path / "folds.json").write_text("[]")  # something else's
    assert len(find_members(f"{tmp_path}/fold-*/models/model.pt")) == 2
