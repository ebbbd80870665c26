"""Writing files that others rely on."""

from __future__ import annotations

import os
import secrets

__all__ = ["atomic_write", "check_writable"]


def atomic_write(path: str, content: bytes) -> None:
    """Writes a file that appears at once, complete, or not at all; until then the old one stays.

    Raises:
        OSError: it cannot be written; the path is in the message.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
        with open(path, "wb") as file:
            file.write(content)
        return
    part = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        with open(part, "xb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    finally:
        if os.path.exists(part):
            os.unlink(part)


def check_writable(option: str, path: str) -> None:
    """Raises OSError now rather than after a run if the file cannot be written."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"`{option}` must be a file, got the folder {path!r}.")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"`{option}` must be in an existing folder, got {path!r}.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"`{option}` must be in a writable folder, got {path!r}.")
