"""Loader: a DALI pipeline as an iterable of torch tensors, like a torch DataLoader."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from nvidia.dali import Pipeline

from dali_cutmix import _dali
from dali_cutmix._validation import checked_choice, checked_int
from dali_cutmix.data.sources import Source
from dali_cutmix.loaders._iterator import Batches
from dali_cutmix.loaders._reader import batches_per_epoch, checked_reader
from dali_cutmix.loaders._switch import Switch
from dali_cutmix.loaders.errors import in_own_words

__all__ = ["Loader"]

MAX_BATCH = 2**20
_OPENING = threading.Lock()  # warnings.catch_warnings is for one thread at a time
# Any: what a tuple of targets can do is not refused either.
Batch = tuple[torch.Tensor, torch.Tensor | Any]
_STATE_VERSION = 3  # raised whenever a seed gives other batches than before
_STATE_KEYS = {"version", "epoch", "position", "options", "data", "mixing", "checkpoint"}
# Arguments that may differ between a run and the one that resumes it: the stream is the same.
# (What the data are is checked by itself.)
_NOT_IN_STATE = {
    *("source", "root"),
    *("num_threads", "device_id", "prefetch_queue_depth"),
}


class Loader:
    """Iterates over a DALI pipeline: ``for images, targets in loader``, epoch after epoch.

    ``len(loader)`` is the number of batches of an epoch. A `for` loop over training data yields the
    rest of the current epoch: after a `break`, the next loop goes on where the last one stopped.
    A loop over validation data (``last_batch="partial"``) begins with the first batch, but for
    the first loop after `load_state_dict`.

    Args:
        pipeline: a ``@pipeline_def`` function with a reader and outputs ``images, targets`` or
            ``images, label_a, label_b, lam``. It is called with `options` here, and again by
            `load_state_dict`.
        reader_name: name of the reader whose epochs count, where the pipeline has several.
        last_batch: ``"drop"`` the last, incomplete batch (training), or yield it ``"partial"``
            (validation; not where the pipeline mixes, for partners would be padding). The reader
            must have ``pad_last_batch=True``, and with ``"partial"`` and several shards
            ``stick_to_shard=True``.
        channels_last: the images leave the pipeline as NHWC; they are yielded as NCHW tensors in
            torch.channels_last, without a copy.
        switchable: makes `mixing` work. The pipeline then has an argument ``mixing``, a source for
            ``fn.external_source(source=mixing, batch=True)``, whose node it gives to ``mix`` as
            ``enabled``.
        **options: arguments of `pipeline`, among them batch_size, num_threads, device_id, seed.

    Attributes:
        classes: the class names, where the loader knows them, else None.
        num_classes: the number of classes, likewise.
        skipped: what ``on_error="skip"`` of `train_loader` and `val_loader` left out.
        epoch: number of the epoch that the next batch belongs to, from 0.

    Raises:
        TypeError: `pipeline` is no ``@pipeline_def`` function.
        ValueError: the data are not what the pipeline can use, or a file cannot be decoded.
            Whatever the first batch shows is raised at construction.
    """

    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    skipped: tuple[str, ...] = ()
    epoch: int
    _position: int
    _padded: bool
    _before: dict[str, Any] | None  # where it stood, while a batch is made
    _restored: bool
    _ahead: list[list[torch.Tensor]]

    def __init__(
        self,
        pipeline: Callable[..., Pipeline],
        *,
        reader_name: str | None = None,
        last_batch: Literal["drop", "partial"] = "drop",
        channels_last: bool = False,
        switchable: bool = False,
        **options: Any,
    ) -> None:
        checked_choice("last_batch", last_batch, ("drop", "partial"))
        if not callable(pipeline):
            raise TypeError(f"`pipeline` must be a @pipeline_def function, got {pipeline!r}.")
        if "batch_size" not in options:
            raise TypeError("`batch_size` must be given, with the other arguments of `pipeline`.")
        options["batch_size"] = checked_int("batch_size", options["batch_size"], 1, MAX_BATCH)
        for name, value in (("channels_last", channels_last), ("switchable", switchable)):
            if not isinstance(value, bool):
                raise TypeError(f"`{name}` must be a bool, got {value!r}.")
        if reader_name is not None and not isinstance(reader_name, str):
            raise TypeError(f"`reader_name` must be a name or None, got {reader_name!r}.")
        self._pipeline_fn = pipeline
        self._reader_name = reader_name
        self._last_batch = last_batch
        self._channels_last = channels_last
        self._options = options
        self._switch = Switch(options["batch_size"]) if switchable else None
        self._batches: Batches | None = None
        self._identity: str | None = None
        self._open(checkpoint=None, epoch=0, position=0)
        # The first batch is made here, so that wrong data are an error at construction.
        self._ahead = [self._pull()]

    def __iter__(self) -> Iterator[Batch]:
        self._at_end = False
        if self._last_batch == "partial" and self._position and not self._restored:
            self._running()
            self._open(checkpoint=None, epoch=self.epoch, position=0)
        self._restored = False
        return self

    def __next__(self) -> Batch:
        if self._at_end:
            self._at_end = False
            raise StopIteration
        if self._before is not None:
            self._step_back(self._before)
        # Where an exception of a signal, such as KeyboardInterrupt, leaves this method, DALI may
        # have given a batch that no one got.
        self._before = self._moment()
        images, *targets = self._ahead.pop() if self._ahead else self._pull()
        self._position += 1
        if self._position == self._length:
            self.epoch, self._position, self._at_end = self.epoch + 1, 0, True
            self._padded = True
        if self._channels_last:
            images = images.permute(0, 3, 1, 2)
        batch = images, targets[0] if len(targets) == 1 else tuple(targets)
        self._before = None
        return batch

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the pipeline and frees its memory; only `load_state_dict` opens it again."""
        batches, self._batches, self._ahead = self._batches, None, []
        if batches is not None:
            batches.close()

    def mixing(self, on: bool) -> None:
        """Turns mixing off, or on again, without touching the order of the data or the draws.

        It takes effect at most `prefetch_queue_depth` batches later (2 by default): those are
        under way. (One more before the first batch, which is made with the loader.)

        Raises:
            ValueError: the loader was not made with ``switchable=True``.
        """
        self._running()
        if self._switch is None:
            raise ValueError("`switchable` must be True where mixing is to be switched, got False.")
        self._switch.on = bool(on)

    def state_dict(self) -> dict[str, Any]:
        """Returns where the loader stands, as plain values, a few kB, for torch.save or JSON."""
        self._running()
        moment = self._moment() if self._before is None else self._before
        return {
            "version": _STATE_VERSION,
            "options": self._stream_options(),
            "data": self._data(),
            **moment,
            "checkpoint": moment["checkpoint"].hex(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`: the batches that follow are the same, bit for bit.

        Raises:
            TypeError: `state` is no state of a loader.
            ValueError: the state is of another version, of a loader with other options or other
                data, or damaged. The loader is then as it was.
        """
        if (
            not isinstance(state, dict)
            or not state.keys() >= _STATE_KEYS
            or not isinstance(state["options"], dict)
            or not isinstance(state["data"], dict)
        ):
            raise TypeError("`state` must be what state_dict() of a loader returned.")
        if state["version"] != _STATE_VERSION:
            raise ValueError(
                f"`state` must be of version {_STATE_VERSION}, got version {state['version']}: "
                "it was made by another release, whose batches are others."
            )
        mine = {**self._stream_options(), **self._data()}
        theirs = {**state["options"], **state["data"]}
        different = [
            f"{name}: {mine.get(name, 'default')} here, {theirs.get(name, 'default')} in the state"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        if different:
            raise ValueError(
                "`state` must come from a loader with the same options and data, got "
                + "; ".join(different)
            )
        before = dict(self.__dict__)
        try:
            epoch = checked_int("epoch", state["epoch"], 0)
            position = checked_int("position", state["position"], 0, max(0, self._length - 1))
            if self._switch is not None:
                self._switch = Switch(self._options["batch_size"], **state["mixing"])
            self._open(bytes.fromhex(state["checkpoint"]), epoch, position)
            self._restored = True
        except Exception as error:
            self.__dict__.update(before)
            raise ValueError(f"`state` cannot be restored: {error}") from error

    def _moment(self) -> dict[str, Any]:
        """Returns where the loader stands between two batches."""
        batches = self._running()
        fresh = bool(self._ahead)  # the one batch that is there was made at construction
        return {
            "epoch": self.epoch,
            "position": self._position,
            "mixing": None if self._switch is None else self._switch.state(fresh),
            "checkpoint": self._checkpoint if fresh else batches.checkpoints()[0],
        }

    def _step_back(self, moment: dict[str, Any]) -> None:
        """Goes back to where the loader stood before a batch was interrupted."""
        if self._switch is not None:
            self._switch = Switch(self._options["batch_size"], **moment["mixing"])
        self._open(moment["checkpoint"], moment["epoch"], moment["position"])

    def _open(self, checkpoint: bytes | None, epoch: int, position: int) -> None:
        switch = {} if self._switch is None else {"mixing": self._switch}
        try:
            with _OPENING, warnings.catch_warnings():  # the state of the switch is in ours
                warnings.filterwarnings("ignore", message=_dali.CHECKPOINT_WARNING)
                pipeline = self._pipeline_fn(
                    enable_checkpointing=True, checkpoint=checkpoint, **switch, **self._options
                )
                pipeline.build()
                _dali.uncycle(pipeline)
        except TypeError as error:
            if _dali.is_pipeline_def(self._pipeline_fn):
                raise
            raise TypeError(
                f"`pipeline` must be a @pipeline_def function, got {self._pipeline_fn!r}: {error}"
            ) from error
        except AssertionError as error:  # what DALI says to an argument that it does not know
            raise TypeError(f"`pipeline` does not take one of {sorted(self._options)}.") from error
        except RecursionError as error:
            raise ValueError(
                "`pipeline` must have a smaller graph, which DALI walks by recursion: fewer "
                "policies in `augment`, or a higher sys.setrecursionlimit."
            ) from error
        except RuntimeError as error:
            self._raise_explained(error)
        self._meta = checked_reader(pipeline, self._reader_name, self._last_batch)
        self._length = batches_per_epoch(self._meta, pipeline.max_batch_size, self._last_batch)
        self._batches = Batches(pipeline, self._meta["name"])
        self.epoch, self._position, self._at_end = epoch, position, False
        self._restored = False
        # Whether the pipeline stands at the end of an epoch whose padding was not read yet.
        self._padded = checkpoint is not None and epoch > 0 and position == 0
        self._checkpoint = self._batches.checkpoints()[0]
        self._ahead = []
        self._before = None
        _LOADERS.add(self)

    def _pull(self) -> list[torch.Tensor]:
        """Returns the next outputs of the pipeline."""
        try:
            if self._padded:
                # The reader pads every shard to the same number of batches: what is left of the
                # last epoch is padding, or the incomplete batch that is dropped. (DALI's own DROP
                # policy leaves such a batch to the next epoch where a shard is a multiple of the
                # batch size and another one is longer.)
                while self._next_outputs() is not None:
                    pass
                self._padded = False
            outputs = self._next_outputs()
        except Exception as error:  # DALI raises many types
            if self._batches is not None:
                self.close()
                self._raise_explained(error)
            raise
        assert outputs is not None  # an epoch has at least one batch
        return outputs

    def _next_outputs(self) -> list[torch.Tensor] | None:
        """Returns what DALI gives next: outputs, or None once at the end of an epoch."""
        try:
            outputs = self._running().outputs()
        except StopIteration:
            return None
        if self._switch is not None:
            self._switch.arrived()
        return outputs

    def _running(self) -> Batches:
        if self._batches is None:
            raise RuntimeError("the loader is closed")
        return self._batches

    def _stream_options(self) -> dict[str, str]:
        options = {
            "switchable": self._switch is not None,
            "reader_name": self._reader_name,
            "last_batch": self._last_batch,
            "channels_last": self._channels_last,
            **self._options,
        }
        return {k: _printed(v) for k, v in options.items() if k not in _NOT_IN_STATE}

    def _data(self) -> dict[str, str]:
        if self._identity is None:  # once: of a folder it lists all names
            source = self._options.get("source")
            self._identity = source.identity if isinstance(source, Source) else ""
        return {
            "images": str(self._meta["epoch_size"]),
            "classes": _printed(self.classes),
            "source": self._identity,
        }

    def _raise_explained(self, error: Exception) -> NoReturn:
        """Raises what DALI raised in words of this package, naming the file where there is one."""
        words = in_own_words(error, self._options)
        if words is None:
            raise error
        raise ValueError(words) from error


_LOADERS: weakref.WeakSet[Loader] = weakref.WeakSet()


def _in_forked_child() -> None:
    """Lets go of the parent's pipelines: DALI would wait for their threads, which are not here."""
    for loader in list(_LOADERS):
        if loader._batches is not None:
            loader._batches.abandon()
            loader._batches, loader._ahead = None, []


os.register_at_fork(after_in_child=_in_forked_child)


def _printed(value: Any) -> str:
    """Returns a value of an option as short text that is equal for equal values."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)  # objects that print their address
    if len(text) <= 300:
        return text
    return f"{text[:40]}… sha256 {hashlib.sha256(text.encode()).hexdigest()}"
