"""Files are whole or not there, also when the disk is full."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.atomic import check_writable, whole_file, write_text
from common.errors import InputError

FULL_DISK = """
import resource, sys
from pathlib import Path
from common.atomic import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text(Path(sys.argv[1]), "x" * 5000)
"""


def test_writes_and_makes_folders(tmp_path: Path):
    write_text(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é".encode()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_failure_keeps_the_older_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_that_takes_no_more(tmp_path: Path):
    """The kernel's limit on a file's size stands in for a full disk: both make the write fail in the middle."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"{path} can't be written: File too large; free some space" in last
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_space_left(tmp_path: Path):
    line = r"file\.txt can't be written: No space left on device; free some space"
    with pytest.raises(InputError, match=line), whole_file(tmp_path / "file.txt") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_check_leaves_nothing_behind(tmp_path: Path):
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken can't be written to: "):
        check_writable(tmp_path / "taken")


def test_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"taken/file\.txt can't be written: "):
        write_text(tmp_path / "taken" / "file.txt", "text")


@pytest.mark.parametrize("durable", [False, True])
def test_a_durable_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
):
    path, seen = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append("renamed"), replace(old, new)))
    with whole_file(path, durable) as temporary:
        temporary.write_text("content")
    assert seen == ([str(temporary), "renamed", str(tmp_path)] if durable else ["renamed"])
    assert path.read_text() == "content"
