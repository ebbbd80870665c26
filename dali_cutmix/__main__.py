"""The command dali-cutmix, also ``python -m dali_cutmix``."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> int:
    """Runs the command; returns its exit status, 1 where something it needs is not installed."""
    # An exception of Ctrl-C that comes while modules are loaded, seconds of torch and DALI, would
    # print their frames, or be turned into another one there.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where LC_ALL has no "…" it is a "?"
            stream.reconfigure(errors="replace")
    try:
        from dali_cutmix.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dali_cutmix"):
            raise
        print(
            f"dali-cutmix: the command needs {error.name}: pip install 'dali-cutmix[cli]'",
            file=sys.stderr,
        )
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    return run()


def _stop(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
