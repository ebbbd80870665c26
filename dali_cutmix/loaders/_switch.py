"""The fed input of a switchable pipeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Switch"]


class Switch:
    """Says for each batch of a switchable pipeline whether it is mixed.

    DALI asks ahead of time, so the answers to batches under way belong to the loader's state.
    """

    def __init__(self, batch_size: int, on: bool = True, given: Sequence[bool] = ()) -> None:
        if not all(isinstance(answer, bool) for answer in (on, *given)):
            raise TypeError(f"`mixing` must hold bools, got {on!r} and {given!r}")
        self.on = on
        self._batch_size = batch_size
        self._again = deque(given)  # answers that were under way when the state was saved
        self._under_way: deque[bool] = deque()
        self._last = on
        self._skipped = 0

    def skip(self, runs: int) -> None:
        """The next runs are only read, to come to the place that the given answers belong to."""
        self._skipped = runs

    def __call__(self) -> list[np.ndarray[Any, Any]]:
        if self._skipped:
            self._skipped -= 1
            answer = self.on
        else:
            answer = self._again.popleft() if self._again else self.on
        self._under_way.append(answer)
        return [np.array(answer)] * self._batch_size

    def arrived(self) -> None:
        """A batch has arrived."""
        self._last = self._under_way.popleft()

    def state(self, fresh: bool) -> dict[str, Any]:
        """Returns plain values; `fresh` for the state before the one batch that has arrived."""
        given = [*([self._last] if fresh else []), *self._under_way, *self._again]
        return {"on": self.on, "given": given}
