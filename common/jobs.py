"""Command lines run as processes of their own, some at a time, which end when this process is asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Job", "Step", "run_jobs"]


@dataclass(frozen=True)
class Step:
    """One process.

    Args:
        name: what it does, such as "training".
        words: of the command.
        log: file that gets what it prints, after what is there.
    """

    name: str
    words: Sequence[str]
    log: Path


@dataclass(frozen=True)
class Job:
    """Steps that are run one after another, as far as they go well.

    Args:
        name: such as "fold 0".
        steps: may be none.
    """

    name: str
    steps: Sequence[Step]


def run_jobs(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], lock: int) -> list[str]:
    """Run jobs, as many at a time as there are slots; one that fails doesn't stop the others.

    On SIGINT, SIGTERM or SIGHUP the processes get SIGTERM and are waited for; on a SIGINT after that they are killed.
    Further SIGTERM and SIGHUP change nothing: timeout(1) sends its signal twice, schedulers send it to all processes.

    Args:
        jobs: in the order in which they begin.
        slots: environment variables of the jobs in each slot.
        lock: file descriptor that the processes inherit.

    Returns:
        one line for each job that failed: its name, the step, the reason, the log.

    Raises:
        KeyboardInterrupt: after one of these signals.
    """
    try:
        return asyncio.run(_run_all(jobs, slots, lock))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run_all(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], lock: int) -> list[str]:
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            asyncio.get_running_loop().add_signal_handler(number, lambda: this.cancelling() or this.cancel())
    free: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    for slot in slots:
        free.put_nowait(slot)

    async def run_in_slot(job: Job) -> str | None:
        slot = await free.get()
        try:
            return await _run_job(job, {**os.environ, **slot}, lock)
        finally:
            free.put_nowait(slot)

    # With return_exceptions a cancelled gather waits for all of them.
    outcomes = await asyncio.gather(*map(run_in_slot, jobs), return_exceptions=True)
    if unforeseen := next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None):
        raise unforeseen
    return [outcome for outcome in outcomes if isinstance(outcome, str)]


async def _run_job(job: Job, environment: Mapping[str, str], lock: int) -> str | None:
    """Run the steps of a job.

    Returns:
        the line that tells of the step that failed, or None.
    """
    if not job.steps:
        print(f"{job.name}: was done before", flush=True)
    for step in job.steps:
        print(f"{job.name}: {step.name} … (log: {step.log})", flush=True)
        started = time.monotonic()
        step.log.parent.mkdir(parents=True, exist_ok=True)
        with step.log.open("ab") as log:
            before = log.tell()
            process = await asyncio.create_subprocess_exec(
                *step.words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that a terminal's Ctrl-C doesn't reach it beside our signal
                pass_fds=(lock,),
            )
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):
                    process.terminate()
                try:
                    await process.wait()
                finally:  # cancelled once more while it waits
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
                raise
        if status:
            print(f"{job.name}: {step.name} failed", flush=True)
            return f"{job.name}, {step.name}: {_reason(step.log, before, status)}; log: {step.log}"
        print(f"{job.name}: {step.name} done in {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return None


def _reason(log: Path, start: int, status: int) -> str:
    """Why a process failed: its own error lines, else the signal that ended it, else the last line that it wrote."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    if told := [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]:
        return " | ".join(told)
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return next((line.strip() for line in reversed(lines) if line.strip()), f"ended with status {status}")
