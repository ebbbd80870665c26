"""Scripts in processes of their own, which are forked from one that has imported torch and DALI.

An example runs for a second or two, after five of imports; so these are made once. Otherwise it is
as from the command line: ``python SCRIPT ARGUMENTS…`` in the folder of the checkout, and with
several ranks as torchrun starts it, in the same environment.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import weakref
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

__all__ = ["Script", "finished"]

ROOT = Path(__file__).parents[2]
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.preloaded"])
_SECONDS = 240


class Script:
    """A script that runs, in one process or as several ranks.

    Args:
        argv: the script and its arguments.
        ranks: how many processes; 0: one, which is told nothing of ranks.
    """

    def __init__(self, argv: list[str], ranks: int = 0) -> None:
        with pytest.MonkeyPatch.context() as environment:  # of the server, which starts once
            environment.setenv("OMP_NUM_THREADS", "1")
            environment.setenv("PYTHONPATH", str(ROOT))
            forkserver.ensure_running()
        self._output = Path(tempfile.mkdtemp(prefix="forked-"))
        weakref.finalize(self, shutil.rmtree, self._output, ignore_errors=True)
        worlds = _world(ranks) if ranks else [{}]
        self._processes: list[BaseProcess] = []
        for rank, world in enumerate(worlds):
            arguments = (argv, world, str(self._output / str(rank)))
            self._processes.append(_CONTEXT.Process(target=_run, args=arguments, daemon=True))
        for process in self._processes:
            process.start()

    @property
    def runs(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def kill(self) -> None:
        """Ends all of it by SIGKILL."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_SECONDS)
            assert process.exitcode == -signal.SIGKILL, self.errors()

    def wait(self) -> list[int | None]:
        """Returns the exit status of each process; ends those that take too long."""
        for process in self._processes:
            process.join(_SECONDS)
            process.kill()
        return [process.exitcode for process in self._processes]

    def output(self, rank: int = 0) -> str:
        return (self._output / f"{rank}.out").read_text()

    def errors(self) -> str:
        return "".join(path.read_text() for path in sorted(self._output.glob("*.err")))


def finished(argv: list[str], ranks: int = 0) -> str:
    """Returns what a script, or its first rank, has written; it must come to its end."""
    script = Script(argv, ranks)
    assert set(script.wait()) == {0}, script.errors()[-4000:]
    return script.output()


def _world(ranks: int) -> list[dict[str, str]]:
    """Returns the environment of each rank, as torchrun has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _run(argv: list[str], world: dict[str, str], output: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(world)
    os.chdir(ROOT)
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(argv[0]))  # as Python does for a script
    runpy.run_path(argv[0], run_name="__main__")
