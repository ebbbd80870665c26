"""Loaders side by side: images per second of each, measured in turn in one run.

Each lives in a process of its own. While one is measured, the others are stopped by SIGSTOP with
all their workers: what a loader prepares ahead when no one asks would cost the others time.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import (
    get_all_start_methods,
    get_context,
    resource_tracker,
    set_start_method,
)
from multiprocessing.connection import Connection
from typing import Any, Literal, NoReturn

import numpy as np
import torch

from dali_cutmix._validation import checked_int
from dali_cutmix.cli.bench.peers import Job, Peer
from dali_cutmix.cli.bench.results import Result, Row, in_turn, rate

__all__ = ["Contestant", "Step", "check_job", "chosen", "compete", "run", "seeded"]

_WARM_UP = 3  # batches
_PATIENCE = 600.0  # seconds for the first batches, where data may have to be written first
_SPAWN = get_context("spawn")

Step = Callable[[], int]  # does one batch, and returns how many images it had


@dataclass(frozen=True)
class Contestant:
    """One who is measured.

    Fields:
        name: its name in the result.
        needs: names of what must be importable.
        open: returns a context with a step. It is called in another process, so it must be
            picklable.
        ahead: how many batches may lie ready when the clock is to start; they are not timed.
        turn: the clock stops only after a multiple of so many batches: workers that go in step
            give theirs at once, and whichever part of them comes first would be for free.
        gpu: whether it leaves work to the GPU that is to be waited for.
        options: what is noted of its settings.
    """

    name: str
    needs: tuple[str, ...]
    open: Callable[[], AbstractContextManager[Step]]
    ahead: int = 0
    turn: int = 1
    gpu: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def run(
    job: Job,
    *,
    peers: Sequence[Peer],
    group: str = "loader",
    unit: Literal["images/s", "volumes/s"] = "images/s",
    rounds: int,
    seconds: float,
    names: Sequence[str] | None,
    result: Result,
    advance: Callable[[], None],
) -> None:
    """Measures loaders, or those of `names`.

    Args:
        job: what they do.
        peers: who can be measured.
        group: of the rows.
        unit: of the rows.
        rounds: how often each is measured.
        seconds: how long at least, each time.
        result: gets the rows, in the order of `peers`, at once, and their values as they come.
            Of what is not installed, or fails, the note says so.
        advance: called after each measurement, ``rounds`` times for every row.

    Raises:
        ValueError: `names` has one that is none of `peers`, or `job` makes no sense.
    """
    check_job(job)
    entries = [
        Contestant(
            name=peer.name,
            needs=peer.needs,
            open=functools.partial(_loading, peer, job),
            ahead=peer.ahead(job),
            turn=job.workers,
            gpu=job.device == "gpu",
            options={peer.workers: job.workers},
        )
        for peer in chosen(peers, names)
    ]
    compete(group, entries, rounds, seconds, result, advance, unit)


def check_job(job: Job) -> None:
    """Raises ValueError or TypeError where the job makes no sense for anyone."""
    for name in ("batch_size", "size", "workers", "num_classes"):
        checked_int(name, getattr(job, name), 1)
    checked_int("seed", job.seed, 0)
    if job.device not in ("cpu", "gpu"):
        raise ValueError(f'`device` must be "cpu" or "gpu", got {job.device!r}.')
    if job.device == "gpu" and not torch.cuda.is_available():
        raise ValueError('`device` must be "cpu" where torch finds no CUDA GPU, got "gpu".')


def chosen(peers: Sequence[Peer], names: Sequence[str] | None) -> list[Peer]:
    """Returns the peers of these names, in their own order; all for None.

    Raises:
        ValueError: a name is none of theirs.
    """
    known = [peer.name for peer in peers]
    for name in names or ():
        if name not in known:
            raise ValueError(f"`names` must be among {', '.join(map(repr, known))}, got {name!r}.")
    return [peer for peer in peers if names is None or peer.name in names]


def seeded(job: Job) -> None:
    """Seeds what the loaders draw from in this process."""
    random.seed(job.seed)
    np.random.seed(job.seed % 2**32)
    torch.manual_seed(job.seed)


@contextmanager
def _loading(peer: Peer, job: Job) -> Iterator[Step]:
    seeded(job)
    with peer.open(job) as batches:
        yield lambda: len(next(batches)[0])


def compete(
    group: str,
    entries: Sequence[Contestant],
    rounds: int,
    seconds: float,
    result: Result,
    advance: Callable[[], None],
    unit: Literal["images/s", "volumes/s"] = "images/s",
) -> None:
    """Adds a row for each contestant to `result` and measures those that can be, in turn.

    Whatever happens, no process is left behind.
    """
    rows = [Row(group, entry.name, unit, options=entry.options) for entry in entries]
    result.rows += rows
    with ExitStack() as ending:
        children: dict[str, _Child] = {}
        ending.callback(_end, children)
        for row, entry in zip(rows, entries, strict=True):
            absent = [name for name in entry.needs if find_spec(name) is None]
            if absent:
                row.note = f"absent: needs {', '.join(absent)}"
            else:
                children[row.name] = _Child(entry)
        for row in rows:
            if row.name in children:
                with _noted(row):
                    children[row.name].becomes_ready()
        in_turn(rows, rounds, lambda row: children[row.name].measure(seconds), advance)


@contextmanager
def _noted(row: Row) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:
        row.note = f"failed: {error}"


class _Child:
    """The process of a contestant; stopped but when it is asked for something."""

    def __init__(self, entry: Contestant) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(theirs, entry), name=entry.name)
        self._since = time.monotonic()
        try:
            with _sigint_held_back():
                self.process.start()
        finally:
            theirs.close()

    def becomes_ready(self) -> None:
        """Waits until it has warmed up.

        Raises:
            RuntimeError: it has failed.
        """
        self._answer(self._since + _PATIENCE)

    def measure(self, seconds: float) -> float:
        """Returns the images per second of at least so many seconds.

        Raises:
            RuntimeError: it has failed.
        """
        self.signal(signal.SIGCONT)
        self._connection.send(seconds)
        return self._answer(time.monotonic() + _PATIENCE + seconds)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it and its workers."""
        with suppress(ProcessLookupError):  # all of them have ended, or it has just started
            if self.process.pid is not None:
                os.killpg(self.process.pid, number)

    def _answer(self, deadline: float) -> float:
        try:
            while not self._connection.poll(0.1):
                # Its workers may have the pipe open when it is gone: there is no end of file.
                if self.process.exitcode is not None and not self._connection.poll():
                    raise EOFError
                if time.monotonic() > deadline:
                    raise RuntimeError(f"no answer within {_PATIENCE:.0f} s")
            answer = self._connection.recv()
            if isinstance(answer, str):
                raise RuntimeError(answer)
        except (EOFError, ConnectionResetError):
            self.process.join(1)
            self.kill()
            raise RuntimeError(f"its process has ended, {_ending(self.process.exitcode)}") from None
        except RuntimeError:
            self.kill()
            raise
        self.signal(signal.SIGSTOP)
        return float(answer)

    def kill(self) -> None:
        """Ends it and its workers at once."""
        self.signal(signal.SIGKILL)
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self._connection.close()


def _end(children: dict[str, _Child]) -> None:
    """Ends all processes: they may tidy up for a second, then they are killed."""
    for child in children.values():
        if child.process.is_alive():
            child.process.terminate()
            child.signal(signal.SIGCONT)
    until = time.monotonic() + 1
    for child in children.values():
        child.process.join(max(0, until - time.monotonic()))
    for child in children.values():
        child.kill()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"exit status {code}"


@contextmanager
def _sigint_held_back() -> Iterator[None]:
    """What is started within never gets a SIGINT; one to this process comes after it."""
    resource_tracker.ensure_running()  # it would let signals through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, entry: Contestant) -> None:
    """Measures when it is asked to, in a process of its own."""
    # A group of its own, for signals to it and its workers. In the same session: where the parent
    # is killed, the kernel hangs up on groups that are stopped.
    os.setpgid(0, 0)
    # Workers are started as anywhere else; a spawned process would spawn its own too.
    set_start_method(get_all_start_methods()[0], force=True)
    signal.signal(signal.SIGTERM, _leave)
    warnings.simplefilter("ignore")
    for output in (1, 2):  # the terminal is the parent's
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    try:
        with entry.open() as step:
            for _ in range(_WARM_UP):
                step()
            connection.send(0.0)
            for seconds in _orders(connection):
                for _ in range(entry.ahead):
                    step()
                connection.send(rate(step, seconds, turn=entry.turn, gpu=entry.gpu))
    except Exception as error:  # of any loader, of any type
        connection.send(_last_line(error))
    finally:
        os.killpg(0, signal.SIGKILL)  # with what a loader may have left


def _last_line(error: BaseException) -> str:
    """Returns the last line of an error, of a group of errors that of the first one."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]  # type: ignore[attr-defined]  # Python 3.10 has no groups
    return traceback.format_exception_only(error)[-1].strip().splitlines()[-1][:200]


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def _orders(connection: Connection) -> Iterator[float]:
    """Yields the seconds of each order, until the other side is gone."""
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield connection.recv()
