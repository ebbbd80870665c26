"""What was found in a data set before, so that a second run reads only what has changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Cache", "cache_folder", "open_cache"]


class Cache:
    """Findings by name, size and time of change of files, in SQLite; used by one thread."""

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection, self._fingerprint = connection, fingerprint
        self._saved = time.monotonic()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS seen (name BLOB PRIMARY KEY, state TEXT, found TEXT)"
        )

    def get(self, name: str, state: str) -> Any:
        """Returns what was put, as JSON has it, or None where the state was another one."""
        query = "SELECT found FROM seen WHERE name = ? AND state = ?"
        row = self._connection.execute(query, (os.fsencode(name), state)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, state: str, found: Any) -> None:
        """Stores what was found in files whose `state` was taken before they were read."""
        row = (os.fsencode(name), state, json.dumps(found))
        self._connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", row)
        if time.monotonic() - self._saved > 1:  # what a kill can lose
            self.save()

    def save(self) -> None:
        self._connection.commit()
        self._saved = time.monotonic()

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
    key = hashlib.sha256(os.fsencode(what)).hexdigest()[:16]
    try:
        path = os.path.join(cache_folder(), f"verified-{key}.sqlite")
        lock = open(f"{path}.lock", "w")
    except OSError:  # nowhere to write: nothing is kept
        connection = sqlite3.connect(":memory:")
        yield Cache(connection, fingerprint)
        connection.close()
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if fresh and os.path.exists(path):
            os.unlink(path)
        connection, cache = _connect(path, fingerprint)
        try:
            yield cache
        finally:
            cache.save()
            connection.close()


def _connect(path: str, fingerprint: str) -> tuple[sqlite3.Connection, Cache]:
    connection = sqlite3.connect(path)
    try:
        return connection, Cache(connection, fingerprint)
    except sqlite3.DatabaseError:  # damaged: it can be made again
        connection.close()
        os.unlink(path)
        connection = sqlite3.connect(path)
        return connection, Cache(connection, fingerprint)


def cache_folder() -> str:
    """Returns the user's folder for what can be made again; made where missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(base, "dali-cutmix")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder
