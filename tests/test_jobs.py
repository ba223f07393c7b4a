"""Processes that are run some at a time, and end when they are asked to."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.claim import claimed
from common.errors import InputError
from common.jobs import Job, Step, run_jobs

Start = Callable[[Callable[[], object]], Any]

FOREVER = "while :; do sleep 0.05; done"


def job(name: str, folder: Path, *scripts: str) -> Job:
    steps = [Step(f"step {i}", ["sh", "-c", script], folder / f"{name}-{i}.log") for i, script in enumerate(scripts)]
    return Job(name, steps)


def run(folder: Path, jobs: list[Job], slots: list[dict[str, str]]) -> list[str]:
    with claimed(folder) as lock:
        return run_jobs(jobs, slots, lock)


def test_steps_of_a_job_follow_one_another_and_others_go_on_where_one_fails(tmp_path: Path, capsys):
    jobs = [
        job("a", tmp_path, f"echo 1 >> {tmp_path}/a", f"echo 2 >> {tmp_path}/a"),
        job("b", tmp_path, "echo error: no scans >&2; echo error: no weights; exit 1", f"touch {tmp_path}/never"),
        job("c", tmp_path, "echo first; echo; echo last; exit 3"),
        job("d", tmp_path, "kill -9 $$"),
        job("e", tmp_path),
        job("f", tmp_path, "exit 5"),
    ]
    assert run(tmp_path, jobs, [{}]) == [
        f"b, step 0: no scans | no weights; log: {tmp_path}/b-0.log",
        f"c, step 0: last; log: {tmp_path}/c-0.log",
        f"d, step 0: ended by SIGKILL; log: {tmp_path}/d-0.log",
        f"f, step 0: ended with status 5; log: {tmp_path}/f-0.log",
    ]
    assert (tmp_path / "a").read_text() == "1\n2\n" and not (tmp_path / "never").exists()
    assert "e: was done before" in capsys.readouterr().out


def test_the_reason_is_of_this_run_and_the_log_keeps_the_earlier_ones(tmp_path: Path):
    assert (
        "error of the first" in run(tmp_path, [job("a", tmp_path, "echo error: error of the first; exit 1")], [{}])[0]
    )
    assert run(tmp_path, [job("a", tmp_path, "echo killed; exit 1")], [{}])[0].startswith("a, step 0: killed; ")
    assert (tmp_path / "a-0.log").read_text() == "error: error of the first\nkilled\n"


def test_as_many_at_a_time_as_there_are_slots_each_with_its_environment(tmp_path: Path):
    script = (
        f"echo $GPU >> {tmp_path}/began; while [ $(wc -l < {tmp_path}/began) -lt 2 ]; do sleep 0.02; done; sleep 0.1"
    )
    slots = [{"GPU": "5"}, {"GPU": "7"}]
    assert run(tmp_path, [job(name, tmp_path, script) for name in "ab"], slots) == []
    assert sorted((tmp_path / "began").read_text().split()) == ["5", "7"]
    alone = f"mkdir {tmp_path}/here && sleep 0.05 && rmdir {tmp_path}/here"
    assert run(tmp_path, [job(name, tmp_path, alone) for name in "cde"], [{}]) == []


def test_a_folder_that_is_worked_on_is_refused(tmp_path: Path):
    with claimed(tmp_path), pytest.raises(InputError, match="is being worked on"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [0, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_processes_and_waits_for_them(tmp_path: Path, in_a_process: Start, number: int, after: int):
    """Also where another comes after it: timeout(1) sends its signal twice, schedulers send it to all processes."""
    on_term = f"touch {tmp_path}/asked-$0; sleep 0.3; touch {tmp_path}/saved-$0; exit 130"
    script = f"trap '{on_term}' TERM; touch {tmp_path}/began-$0; {FOREVER}"
    jobs = [Job(name, [Step("step", ["sh", "-c", script, name], tmp_path / f"{name}.log")]) for name in "abc"]
    process = in_a_process(lambda: run(tmp_path, jobs, [{}, {}]))
    process.wait_for(lambda: (tmp_path / "began-a").exists() and (tmp_path / "began-b").exists())
    os.kill(process.pid, number)
    if after:
        process.wait_for((tmp_path / "asked-a").exists)
        os.kill(process.pid, after)
    assert process.status() == 130
    assert (tmp_path / "saved-a").exists() and (tmp_path / "saved-b").exists()
    assert not (tmp_path / "began-c").exists()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_after_a_signal_kills(
    tmp_path: Path, in_a_process: Start, capfd: pytest.CaptureFixture[str], first: int
):
    def work() -> None:
        try:
            run(tmp_path, [job("a", tmp_path, script)], [{}])
        finally:
            gc.collect()  # asyncio complains of processes that it didn't see end

    script = f"trap 'touch {tmp_path}/asked' TERM; echo $$ > {tmp_path}/began; {FOREVER}"
    process = in_a_process(work)
    process.wait_for(lambda: (tmp_path / "began").exists() and (tmp_path / "began").read_text())
    os.kill(process.pid, first)
    process.wait_for((tmp_path / "asked").exists)
    os.kill(process.pid, signal.SIGINT)
    assert process.status() == 130
    assert not capfd.readouterr().err
    wait_for(lambda: not Path(f"/proc/{(tmp_path / 'began').read_text().strip()}").exists())


def test_what_a_killed_one_left_behind_still_holds_the_folder(tmp_path: Path, in_a_process: Start):
    script = f"touch {tmp_path}/began; while [ ! -e {tmp_path}/end ]; do sleep 0.02; done"
    process = in_a_process(lambda: run(tmp_path, [job("a", tmp_path, script)], [{}]))
    process.wait_for((tmp_path / "began").exists)
    process.kill()
    with pytest.raises(InputError, match="or by a process that one left behind"), claimed(tmp_path):
        pass
    (tmp_path / "end").touch()

    def is_free() -> bool:
        try:
            with claimed(tmp_path):
                return True
        except InputError:
            return False

    wait_for(is_free)
