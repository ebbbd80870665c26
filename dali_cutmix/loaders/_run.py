"""A pipeline that runs from a place: what a loader replaces as a whole when it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from nvidia.dali import Pipeline

from dali_cutmix.loaders._iterator import Batches
from dali_cutmix.loaders._reader import Counts
from dali_cutmix.loaders._switch import Switch

__all__ = ["Run"]


class Run:
    """A pipeline and how far it has come.

    Args:
        mark: returns the outputs of a batch, of which a sample comes once more, see `Loader`.

    Attributes:
        counts: of images and batches.
        switch: of a switchable pipeline, else None.
        epoch, position: of the next batch.
        placed: was placed here, in the middle of an epoch, and no batch was taken since.
        interrupted: where it stood while a batch was made, if that did not come to its end; the
            pipeline may then be one batch further.
        batches: None once it is closed.
        other_readers: of a pipeline with several, see `_dali.other_readers`.
        not_computable: why places of the pipeline cannot be computed, or None where they can.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        reader: str,
        counts: Counts,
        switch: Switch | None,
        place: tuple[int, int],
        *,
        restored: bool,
        mark: Callable[[list[torch.Tensor], int], list[torch.Tensor]],
        not_computable: str | None,
        other_readers: dict[str, int],
        explain: Callable[[Exception], NoReturn],
    ) -> None:
        self.counts, self.switch, self.not_computable = counts, switch, not_computable
        self.other_readers = other_readers
        self.epoch, self.position = place
        self.placed = self.position > 0
        self.interrupted: dict[str, Any] | None = None
        self.batches: Batches | None = Batches(pipeline, reader, even=counts.even)
        self._explain, self._mark = explain, mark
        # Whether the pipeline stands at the end of an epoch whose padding was not read yet.
        self._padded = restored and self.epoch > 0 and self.position == 0
        self._checkpoint = self.batches.checkpoints()[0]
        self._ahead: list[list[torch.Tensor]] = []

    @property
    def place(self) -> tuple[int, int]:
        return self.epoch, self.position

    def look(self) -> tuple[bytes, bytes]:
        """Makes the first batch, and returns the checkpoints before and after it."""
        self._ahead = [self._pull()]
        return self._checkpoint, self._running().checkpoints()[0]

    def next(self) -> list[torch.Tensor]:
        """Returns the next batch, images and targets."""
        # Where an exception of a signal, such as KeyboardInterrupt, leaves this method, DALI may
        # have given a batch that no one got.
        self.interrupted = self.moment()
        tensors = self._ahead.pop() if self._ahead else self._pull()
        self.placed = False
        self.position += 1
        if self.position == self.counts.batches:
            self.epoch, self.position, self._padded = self.epoch + 1, 0, True
        self.interrupted = None
        return tensors

    def moment(self) -> dict[str, Any]:
        """Returns where it stands between two batches."""
        batches = self._running()
        fresh = bool(self._ahead)  # the one batch that is there was made by `look`
        return {
            "epoch": self.epoch,
            "position": self.position,
            "mixing": None if self.switch is None else self.switch.state(fresh),
            "checkpoint": self._checkpoint if fresh else batches.checkpoints()[0],
        }

    def close(self) -> None:
        """Stops the pipeline and frees its memory.

        Not left to DALI's __del__, where an exception of a signal would be lost.
        """
        batches, self.batches, self._ahead = self.batches, None, []
        if batches is not None:
            batches.close()

    def abandon(self) -> None:
        """Lets go of the pipeline in a forked child, where its threads are not."""
        batches, self.batches, self._ahead = self.batches, None, []
        if batches is not None:
            batches.abandon()

    # Details

    def _running(self) -> Batches:
        if self.batches is None:
            raise RuntimeError("the loader is closed")
        return self.batches

    def _pull(self) -> list[torch.Tensor]:
        """Returns the next outputs of the pipeline."""
        try:
            if self._padded:
                # The reader pads every shard to the same number of batches: what is left of the
                # last epoch is padding, or the incomplete batch that is dropped. (DALI's own DROP
                # policy leaves such a batch to the next epoch where a shard is a multiple of the
                # batch size and another one is longer.)
                while self._outputs() is not None:
                    pass
                self._padded = False
            outputs = self._outputs()
        except Exception as error:  # DALI raises many types
            if self.batches is not None:
                self.close()
                self._explain(error)
            raise
        assert outputs is not None  # an epoch has at least one batch
        return self._without_padding(outputs)

    def _outputs(self) -> list[torch.Tensor] | None:
        """Returns what DALI gives next: outputs, or None once at the end of an epoch."""
        try:
            outputs = self._running().outputs()
        except StopIteration:
            return None
        if self.switch is not None:
            self.switch.arrived()
        return outputs

    def _without_padding(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns outputs without what the reader has repeated, or with a marked image."""
        kept, twice = self.counts.in_batch(self.position)
        if kept < self.counts.batch_size:
            outputs = [output[:kept] for output in outputs]
        return outputs if twice is None else self._mark(outputs, twice)
