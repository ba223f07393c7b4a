"""What is kept of a case belongs to its files and transforms, and is whole or made again."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.data import list_data_collate
from monai.transforms import Compose, Invertd, NormalizeIntensityd
from torch.utils.data import DataLoader

from common import processes
from common.data import case_dataset
from common.data.case_dataset import CaseDataset
from common.data.layouts import list_cases
from common.data.order import Draw, EpochBatches
from common.errors import CaseError, InputError, find_input_error
from common.transforms.load import LoadLabelMapd

BOTH = ["image", "label"]
ENTRY_BYTES = 14**3 * 17  # of the tensors alone: four channels of float32 and a label of uint8

Make = Callable[..., CaseDataset]
Transforms = Callable[..., Compose]
Write = Callable[[Path, str, int], None]


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def assert_same(ours: list[dict], others: list[dict]) -> None:
    for one, other in zip(ours, others, strict=True):
        assert one.keys() == other.keys()
        for key in BOTH:
            assert one[key].dtype == other[key].dtype
            assert torch.equal(one[key].as_tensor(), other[key].as_tensor())
            assert torch.equal(one[key].affine, other[key].affine)
            assert one[key].meta.keys() == other[key].meta.keys()


def test_what_is_kept_gives_the_same_samples(make: Make, transforms: Transforms, three_cases: Path):
    """As MONAI's Compose gives without any data set, to the bit, with its metadata."""
    make()
    kept, nothing_kept, plain = make(), make(cache_gib=0), transforms()
    for index, case in enumerate(list_cases(three_cases)):
        for seed in (1, 2):
            plain.set_random_state(seed)
            expected = plain(case)
            assert_same(kept[Draw(index, seed)], expected)
            assert_same(nothing_kept[Draw(index, seed)], expected)


def test_transforms_of_what_is_kept_can_be_undone(
    make: Make, transforms: Transforms, three_cases: Path, prepared: list[str]
):
    deterministic = Compose(transforms().transforms[:5])
    make(compose=deterministic)
    item = make(compose=deterministic)[1]
    assert len(prepared) == 3
    item["pred"] = item["label"].clone()
    undone = Invertd("pred", deterministic, orig_keys="label")(item)["pred"]
    as_in_the_file = LoadLabelMapd("label")(list_cases(three_cases)[1])["label"]
    assert torch.equal(undone.as_tensor(), as_in_the_file.as_tensor())
    assert torch.equal(undone.affine, as_in_the_file.affine)


def test_a_case_is_prepared_once(
    make: Make, transforms: Transforms, prepared: list[str], tmp_path: Path, three_cases: Path
):
    first = make()
    assert sorted(prepared) == ["a", "b", "c"]
    assert len(entries(tmp_path)) == 3
    for file in three_cases.rglob("*.nii.gz"):
        file.touch()
    shutil.copytree(three_cases, tmp_path / "moved")
    again, moved, other_crop = make(), make(list_cases(tmp_path / "moved")), make(compose=transforms(size=12))
    with_transforms_that_worked = make(compose=first.transform)
    for data in (first, again, moved, other_crop, with_transforms_that_worked):
        assert len([data[index] for index in range(3)]) == 3
    assert len(prepared) == 3


@pytest.mark.parametrize("axes", ["RAS", "LAS"])
def test_what_is_kept_is_small_and_needs_no_trust(make: Make, transforms: Transforms, tmp_path: Path, axes: str):
    """No more than the tensors, though a crop that isn't turned afterwards is a view of a larger one."""
    make(compose=transforms(axes=axes))
    for entry in entries(tmp_path):
        assert ENTRY_BYTES < entry.stat().st_size < ENTRY_BYTES + 14_000
        assert torch.load(entry, weights_only=True)["image"].shape == (4, 14, 14, 14)


@pytest.mark.parametrize("change", ["scan", "label", "transform"])
def test_what_changed_is_prepared_anew(
    make: Make, transforms: Transforms, write: Write, prepared: list[str], three_cases: Path, change: str
):
    before = make()[Draw(0, 1)][0]
    prepared.clear()
    if change == "scan":
        write(three_cases, "a", 7)
    if change == "label":
        shutil.copy(three_cases / "b" / "b-seg.nii.gz", three_cases / "a" / "a-seg.nii.gz")
    after = make(compose=transforms(axes="LPS" if change == "transform" else "RAS"))[Draw(0, 1)][0]
    assert prepared == (["a", "b", "c"] if change == "transform" else ["a"])
    assert not all(torch.equal(before[key], after[key]) for key in BOTH)


def test_a_file_that_changes_during_the_run_is_read_again(
    make: Make, write: Write, prepared: list[str], three_cases: Path
):
    data = make()
    before = data[Draw(0, 1)]
    write(three_cases, "a", 7)
    prepared.clear()
    assert not torch.equal(data[Draw(0, 1)][0]["image"], before[0]["image"])
    assert prepared == ["a"]


def test_other_code_prepares_anew(make: Make, prepared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make()
    for room in ("data", "transforms"):
        shutil.copytree(Path(case_dataset.__file__).parents[1] / room, tmp_path / "package" / room)
    monkeypatch.setattr(case_dataset, "_PACKAGE", tmp_path / "package")
    case_dataset._code.cache_clear()
    try:
        make()
        assert len(prepared) == 3
        with (tmp_path / "package" / "transforms" / "crop.py").open("a") as file:
            file.write("# a change\n")
        case_dataset._code.cache_clear()
        make()
        assert len(prepared) == 6
    finally:
        case_dataset._code.cache_clear()


def test_what_the_dictionary_says_counts(make: Make, three_cases: Path, tmp_path: Path):
    case = list_cases(three_cases)[0]
    data = [make([{**case, **said}]) for said in ({}, {"case": "z"})]
    assert len(entries(tmp_path)) == 2
    assert data[1][0][0]["case"] == "z"


class Payload:
    """Leaves a folder behind if a loader ever executes it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.path),)


def flip(entry: Path) -> None:
    """One bit in the middle of the voxels."""
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda entry: entry.write_bytes(entry.read_bytes()[:5000]),
    "empty": lambda entry: entry.write_bytes(b""),
    "one bit": flip,
    "pickled": lambda entry: entry.write_bytes(pickle.dumps(Payload(entry.with_name("executed")))),
    "pickled by torch": lambda entry: torch.save({"image": Payload(entry.with_name("executed"))}, entry),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_entries_are_told_and_made_again(
    make: Make,
    prepared: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
):
    expected = [make()[Draw(index, 1)] for index in range(3)]
    for entry in entries(tmp_path):
        damage(entry)
    prepared.clear()
    data = make()
    with caplog.at_level(logging.WARNING):
        for index in range(3):
            assert_same(data[Draw(index, 1)], expected[index])
    assert len(caplog.messages) == 3
    assert all("is damaged and made again" in message for message in caplog.messages)
    assert sorted(prepared) == ["a", "b", "c"]
    assert not (tmp_path / "cache" / "executed").exists()
    caplog.clear()
    again = make()
    assert_same(again[Draw(0, 1)], expected[0])
    assert not caplog.messages


@pytest.mark.parametrize("step", ["zipfile.ZipFile", "torch.load", "mapping"])
def test_an_entry_that_cannot_be_read_now_stays(
    make: Make, prepared: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str
):
    """As where no file descriptors are left, or the system maps no more files."""
    expected = [make()[Draw(index, 1)] for index in range(3)]
    kept = {entry: entry.read_bytes() for entry in entries(tmp_path)}
    prepared.clear()
    data = make()

    def fail(*arguments: object, **options: object) -> None:
        if step == "mapping":
            raise RuntimeError("unable to mmap 200 bytes from file: Cannot allocate memory (12)")
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("torch.load" if step == "mapping" else step, fail)
        for index in range(3):
            assert_same(data[Draw(index, 1)], expected[index])
    assert prepared == ["a", "b", "c"]
    assert {entry: entry.read_bytes() for entry in entries(tmp_path)} == kept
    assert len(caplog.messages) == 1 and "can't be read: " in caplog.messages[0]
    assert_same(data[Draw(0, 1)], expected[0])
    assert len(prepared) == 3


def test_the_folder_of_another_user(
    make: Make, transforms: Transforms, prepared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only an owner may set a file's times, or, in some folders, delete it."""

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    make()
    prepared.clear()
    data = make()
    monkeypatch.setattr(os, "utime", refuse)
    assert len([data[index] for index in range(3)]) == 3 and not prepared
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(case_dataset, "_RUN_STARTED", 2**62)
    assert len(make(compose=transforms(axes="LPS"), cache_gib=3 * ENTRY_BYTES / 2**30)[0]) == 2
    assert len(entries(tmp_path)) == 3


def in_a_child(work: Callable[[], object]) -> int:
    """The status of a process that does the work, negative for the signal that ended it."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_while_writing(make: Make, transforms: Transforms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write_half(path: Path, content: memoryview) -> None:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        monkeypatch.setattr(Path, "write_bytes", write_half)
        make()

    assert in_a_child(work) == -signal.SIGKILL
    (left,) = entries(tmp_path)
    assert left.name.startswith(".")
    assert_same(make()[Draw(0, 1)], make(cache_gib=0)[Draw(0, 1)])
    monkeypatch.setattr(case_dataset, "_RUN_STARTED", 2**62)
    make(compose=transforms(axes="LPS"), cache_gib=3.5 * ENTRY_BYTES / 2**30)
    assert left not in entries(tmp_path)


def test_processes_share_the_folder(make: Make, tmp_path: Path):
    expected = [make(cache_gib=0)[Draw(index, 1)] for index in range(3)]

    def work() -> None:
        data = make()
        for index in range(3):
            assert_same(data[Draw(index, 1)], expected[index])
        os._exit(7)

    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            try:
                work()
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7] * 4
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(make: Make, workers: int):
    order = EpochBatches(cases=3, batch_size=2, seed=3)
    loader = DataLoader(make(), batch_sampler=order, num_workers=workers, collate_fn=list_data_collate)
    expected = make(cache_gib=0)
    for epoch in range(2):
        again = EpochBatches(cases=3, batch_size=2, seed=3)
        again.epoch = epoch
        for batch, draws in zip(loader, again, strict=True):
            samples = [sample for draw in draws for sample in expected[draw]]
            assert torch.equal(batch["image"], torch.stack([sample["image"] for sample in samples]))


def test_a_sample_depends_on_its_draw_alone(make: Make):
    data = make()
    first = data[Draw(1, 9)]
    data[Draw(0, 3)], data[2], data[1]
    assert_same(data[Draw(1, 9)], first)
    assert not torch.equal(data[Draw(1, 10)][0]["image"], first[0]["image"])


def test_bad_cases_are_found_at_once_and_all_named(make: Make, three_cases: Path):
    (three_cases / "a" / "a-t1n.nii.gz").write_text("an error page")
    cases = list_cases(three_cases)
    with pytest.raises(CaseError, match=r"^case a, .*a-t1n\.nii\.gz: is not a NIfTI file"):
        make()
    (three_cases / "c" / "c-seg.nii.gz").unlink()
    with pytest.raises(InputError, match=r"^case a, .*: is not a NIfTI file.*; case c, .*: does not exist"):
        make(cases, num_workers=2)


def test_defect_in_the_code_is_not_swallowed(make: Make, monkeypatch: pytest.MonkeyPatch):
    def fail(self: NormalizeIntensityd, data: dict) -> dict:
        raise KeyError("a defect")

    monkeypatch.setattr(NormalizeIntensityd, "__call__", fail)
    with pytest.raises(RuntimeError, match="applying transform") as raised:
        make()
    assert find_input_error(raised.value) is None


def test_each_process_prepares_its_share(make: Make, prepared: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    data = make()
    assert prepared == ["b"]
    assert len([data[index] for index in range(3)]) == 3
    assert sorted(prepared) == ["a", "b", "c"]


def test_a_case_in_a_folder(make: Make, write: Write, prepared: list[str], three_cases: Path):
    """What else lies in the folder may matter, so a change there counts."""
    case = {"case": "a", "image": str(three_cases / "a"), "label": str(three_cases / "a" / "a-seg.nii.gz")}
    for _ in range(2):
        assert len(make([case])[0]) == 2
    assert prepared == ["a"]
    write(three_cases, "a", 8)
    make([case])
    assert prepared == ["a", "a"]


def test_other_cases_leave_the_folder_alone(make: Make, prepared: list[str], tmp_path: Path):
    data = make()
    kept = entries(tmp_path)
    data.set_data(data.data[:1])
    assert len(data) == 1
    assert entries(tmp_path) == kept
