"""What was found in a data set before, so that a second run reads only what has changed."""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any

from dali_cutmix._rules import warn
from dali_cutmix.data.atomic import atomic_write

__all__ = ["Cache", "cache_folder", "cached_file", "open_cache"]

_REMEDY = "Set XDG_CACHE_HOME to a folder that can be written, or make room there."


class Cache:
    """Findings by name, size and time of change of files, in SQLite; used by one thread."""

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection, self._fingerprint = connection, fingerprint
        self._saved, self._full = time.monotonic(), False
        connection.execute(
            "CREATE TABLE IF NOT EXISTS seen (name BLOB PRIMARY KEY, state TEXT, found TEXT)"
        )

    def get(self, name: str, state: str) -> Any:
        """Returns what was put, as JSON has it, or None where the state was another one."""
        query = "SELECT found FROM seen WHERE name = ? AND state = ?"
        row = self._connection.execute(query, (os.fsencode(name), state)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, state: str, found: Any) -> None:
        """Stores what was found in files whose `state` was taken before they were read.

        Once that fails, on a full disk, it warns, and stores nothing more.
        """
        if self._full:
            return
        row = (os.fsencode(name), state, json.dumps(found))
        try:
            self._connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            self._give_up(error)
        if time.monotonic() - self._saved > 1:  # what a kill can lose
            self.save()

    def save(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.OperationalError as error:
            self._give_up(error)
        self._saved = time.monotonic()

    def _give_up(self, error: sqlite3.OperationalError) -> None:
        self._full = True
        self._connection.rollback()
        _warn_not_kept(error)

    def state(self, *paths: str) -> str:
        """Returns how files are now, by size and time of change."""
        facts = [self._fingerprint]
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                facts.append("none")
            else:
                facts.append(f"{status.st_size} {status.st_mtime_ns}")
        return "; ".join(facts)


@contextmanager
def open_cache(what: str, fingerprint: str, *, fresh: bool = False) -> Iterator[Cache]:
    """Opens the cache of a data set; processes that verify the same one take turns.

    Args:
        what: the data set.
        fingerprint: of the checker; what another one found counts as changed.
        fresh: empty it first.
    """
    try:
        connection, cache, lock = _opened(what, fingerprint, fresh)
    except (OSError, sqlite3.DatabaseError) as error:  # nowhere to write
        _warn_not_kept(error)
        connection, lock = sqlite3.connect(":memory:"), nullcontext()
        cache = Cache(connection, fingerprint)
    with lock:
        try:
            yield cache
        finally:
            cache.save()
            connection.close()


def _opened(
    what: str, fingerprint: str, fresh: bool
) -> tuple[sqlite3.Connection, Cache, IO[str] | nullcontext[None]]:
    """Returns the cache, and a lock that is held until it is closed."""
    key = hashlib.sha256(os.fsencode(what)).hexdigest()[:16]
    path = os.path.join(cache_folder(), f"verified-{key}.sqlite")
    lock = open(f"{path}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if fresh and os.path.exists(path):
            os.unlink(path)
        return *_connect(path, fingerprint), lock
    except BaseException:
        lock.close()
        raise


def _warn_not_kept(error: Exception) -> None:
    warn(f"what is found in the data is not kept for the next time: {error}. {_REMEDY}")


def _connect(path: str, fingerprint: str) -> tuple[sqlite3.Connection, Cache]:
    connection = sqlite3.connect(path)
    try:
        return connection, Cache(connection, fingerprint)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):  # it cannot be written
            raise
        os.unlink(path)  # damaged: it can be made again
        connection = sqlite3.connect(path)
        return connection, Cache(connection, fingerprint)


def cache_folder() -> str:
    """Returns the user's folder for what can be made again; made where missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(base, "dali-cutmix")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def cached_file(name: str, content: bytes) -> str:
    """Returns the path of a file of this content in the user's folder.

    Where that cannot be written, it warns, and the file is in a temporary folder that goes when
    this process ends.

    Raises:
        OSError: that cannot be written, either.
    """
    try:
        path = os.path.join(cache_folder(), name)
        atomic_write(path, content)
    except OSError as error:
        folder = _temporary_folder(os.getpid())
        warn(f"{name!r} is kept in {folder!r} as long as this process runs: {error}. {_REMEDY}")
        path = os.path.join(folder, name)
        atomic_write(path, content)
    return path


@functools.cache
def _temporary_folder(process: int) -> str:
    folder = tempfile.mkdtemp(prefix="dali-cutmix-")

    def remove() -> None:
        if os.getpid() == process:  # not at the end of a forked child
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
