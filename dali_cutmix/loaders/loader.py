"""Loader: a DALI pipeline as an iterable of torch tensors, like a torch DataLoader."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import torch
from nvidia.dali import Pipeline

from dali_cutmix import _dali
from dali_cutmix._rules import warn
from dali_cutmix._validation import checked_choice, checked_int
from dali_cutmix.data.sources import Source
from dali_cutmix.data.volumes import Volumes
from dali_cutmix.loaders._reader import Counts, checked_reader
from dali_cutmix.loaders._run import Run
from dali_cutmix.loaders._switch import Switch
from dali_cutmix.loaders._torch_words import Dataset, Sampler, joined_a_group
from dali_cutmix.loaders.errors import in_own_words

if TYPE_CHECKING:
    from dali_cutmix.recipes import Recipe

__all__ = ["Loader"]

MAX_BATCH = 2**20
_OPENING = threading.Lock()  # warnings.catch_warnings is for one thread at a time
# Any: what a tuple of targets can do is not refused either.
Batch = tuple[torch.Tensor, torch.Tensor | Any]
Mark = Callable[[list[torch.Tensor], int], list[torch.Tensor]]
_STATE_VERSION = 4  # raised whenever a seed gives other batches than before
_STATE_KEYS = {
    *("version", "dali", "epoch", "position", "options", "data", "mixing", "checkpoint"),
}
# Arguments that may differ between a run and the one that resumes it: the stream is the same.
# (What the data are is checked by itself, and a state of one shard is one of every other.)
_NOT_IN_STATE = {
    *("source", "partners", "root", "shard_id"),
    *("num_threads", "device_id", "prefetch_queue_depth"),
}


class Loader:
    """Iterates over a DALI pipeline: ``for images, targets in loader``, epoch after epoch.

    ``len(loader)`` is the number of batches of an epoch. Each `for` loop is one epoch, as with a
    torch DataLoader: of training data the next one, also after a `break`; of validation data
    (``last_batch="partial"``) always the same. Three things make a loop go on within an epoch:
    `load_state_dict`, `seek`, and `rest`.

    Args:
        pipeline: a ``@pipeline_def`` function with a reader and outputs ``images, targets`` or
            ``images, label_a, label_b, lam``. It is called with `options` here, and again by
            `load_state_dict`.
        reader_name: name of the reader whose epochs count, where the pipeline has several.
        last_batch: ``"drop"`` the last, incomplete batch (training), or yield it ``"partial"``
            (validation; not where the pipeline mixes, for partners would be padding). The reader
            must have ``pad_last_batch=True``, and with ``"partial"`` and several shards
            ``stick_to_shard=True``.
        even: with ``"partial"`` and several shards, whose lengths may differ by one sample: every
            shard yields as many batches of the same sizes, so that a collective in each batch
            finds all of them. A shard that lacks a sample yields its last one twice, the first
            time with label `ignore_index`. Then the targets must be integers, (N,) or (N, …), or
            `mark` be given.
        ignore_index: label that is ignored, by default that of torch's cross_entropy.
        mark: marks the sample that comes once more in another way: it gets the outputs of the
            batch and the index, and returns the outputs. It must not write into them.
        channels_last: the images leave the pipeline as NHWC; they are yielded as NCHW tensors in
            torch.channels_last, without a copy.
        switchable: makes `mixing` settable. The pipeline then has an argument ``mixing``, a source
            for ``fn.external_source(source=mixing, batch=True)``, whose node it gives to ``mix``
            as ``enabled``.
        start_epoch: the epoch to begin with, as after `set_epoch`.
        collate: makes the targets of a batch of the outputs after the images; by default those
            outputs are the targets.
        **options: arguments of `pipeline`, among them batch_size, num_threads, device_id, seed.

    Attributes:
        classes: the class names, where the loader knows them, else None.
        num_classes: the number of classes, likewise.
        class_to_idx: the label of each class, likewise.
        skipped: what ``on_error="skip"`` of `train_loader` and `val_loader` left out.
        recipe: what `train_loader` and `val_loader` were made with, else None.

    Raises:
        TypeError: `pipeline` is no ``@pipeline_def`` function.
        ValueError: the data are not what the pipeline can use, or a file cannot be decoded.
            Whatever the first batch shows is raised at construction.
    """

    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    skipped: tuple[str, ...] = ()
    recipe: Recipe | None = None
    batch_sampler = None  # who asks for a sampler, asks for this one first
    _forked: bool = False
    _alone: bool = False  # the only process, as far as was known when the loader was made

    def __init__(
        self,
        pipeline: Callable[..., Pipeline],
        *,
        reader_name: str | None = None,
        last_batch: Literal["drop", "partial"] = "drop",
        even: bool = False,
        ignore_index: int = -100,
        mark: Mark | None = None,
        channels_last: bool = False,
        switchable: bool = False,
        start_epoch: int = 0,
        collate: Callable[[list[torch.Tensor]], Any] | None = None,
        **options: Any,
    ) -> None:
        checked_choice("last_batch", last_batch, ("drop", "partial"))
        if not callable(pipeline):
            raise TypeError(f"`pipeline` must be a @pipeline_def function, got {pipeline!r}.")
        if "batch_size" not in options:
            raise TypeError("`batch_size` must be given, with the other arguments of `pipeline`.")
        options["batch_size"] = checked_int("batch_size", options["batch_size"], 1, MAX_BATCH)
        flags = {"even": even, "channels_last": channels_last, "switchable": switchable}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise TypeError(f"`{name}` must be a bool, got {value!r}.")
        if even and last_batch == "drop":
            raise ValueError('`even` must be False with `last_batch="drop"`: all batches are full.')
        for name, function in (("collate", collate), ("mark", mark)):
            if function is not None and not callable(function):
                raise TypeError(f"`{name}` must be a function or None, got {function!r}.")
        if reader_name is not None and not isinstance(reader_name, str):
            raise TypeError(f"`reader_name` must be a name or None, got {reader_name!r}.")
        start_epoch = checked_int("start_epoch", start_epoch, 0)
        self._pipeline_fn = pipeline
        self._reader_name = reader_name
        self._last_batch = last_batch
        self._even = even
        ignore_index = checked_int("ignore_index", ignore_index, -(2**31))
        self._mark = partial(_ignored, ignore_index) if mark is None else mark
        self._channels_last = channels_last
        self._collate = _as_they_are if collate is None else collate
        self._options = options
        self._switchable = switchable
        self._identity: str | None = None
        self._loops = 0  # that were begun, or could not go on
        self._run = self._opened(None, (0, 0), self._new_switch())
        _LOADERS.add(self)
        # The first batch is made here, so that wrong data are an error at construction.
        self._begin = self._run.look()
        if start_epoch:
            self.set_epoch(start_epoch)

    # A loop

    def __iter__(self) -> Iterator[Batch]:
        """Returns an iterator over one epoch, which begins with its first batch.

        Until then the loader can be moved; from then on an older iterator cannot go on.
        """
        return Pass(self)

    def rest(self) -> Iterator[Batch]:
        """Returns an iterator over what is left of the epoch that a `break` has left.

        At its end, where nothing is left, that is the next epoch, as after `load_state_dict`.

        >>> import dali_cutmix as dcm
        >>> with dcm.train_loader(photo_folder, batch_size=16, size=32, device="cpu") as loader:
        ...     for number, batch in enumerate(loader, 1):
        ...         if number == 2:
        ...             break
        ...     len(loader), len(list(loader.rest()))
        (5, 3)
        """
        return Pass(self, rest=True)

    def _begin_loop(self, rest: bool) -> int:
        """Returns the number of a loop that begins here, or with the next epoch."""
        run = self._mended()
        if self._alone and (processes := joined_a_group()):
            raise RuntimeError(
                "the loader was made before torch.distributed.init_process_group(), so that each "
                f"of the {processes} processes would read all images: make it afterwards, or give "
                "`shard_id` and `num_shards`."
            )
        if run.position and not (rest or run.placed):
            self._go_to(run.epoch + (self._last_batch == "drop"), 0)
        self._loops += 1
        return self._loops

    def __len__(self) -> int:
        return self._run.counts.batches

    # Where it stands

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next batch belongs to, from 0; `set_epoch` sets it."""
        return self._run.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        raise AttributeError(f"`epoch` can only be read: call set_epoch({epoch!r}).")

    def set_epoch(self, epoch: int) -> None:
        """Makes the next loop begin with an epoch, which has its own order and draws.

        After `load_state_dict` and `seek`, which are in the middle of an epoch, it leaves the
        loader there if it is that epoch. What trainers call on a sampler: ``loader.sampler`` has
        it, too. Cost: see `seek`.

        Raises:
            TypeError, ValueError: `epoch` is no int of at least 0.
        """
        epoch = checked_int("epoch", epoch, 0)
        if epoch != self.epoch or (self._run.position and not self._run.placed):
            self.seek(epoch)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Goes to a batch of an epoch; the next loop begins there and ends with the epoch.

        The batches are those that an uninterrupted run has there, bit for bit. The place is
        computed, at the same cost for every epoch: that of a new pipeline. Only data that are
        shuffled within a window (tars, TFRecords, RecordIO) are read on from the last place that is
        known, with a warning.

        Raises:
            TypeError, ValueError: `epoch` is no int of at least 0, or `batch` none of the epoch's.
        """
        epoch = checked_int("epoch", epoch, 0)
        batch = checked_int("batch", batch, 0, max(0, len(self) - 1))
        self._go_to(epoch, batch)

    def state_dict(self) -> dict[str, Any]:
        """Returns where the run stands, as plain values, a few kB, for torch.save or JSON.

        It is that of all shards: each can be restored from the state of any other.
        """
        run = self._running()
        moment = run.moment() if run.interrupted is None else run.interrupted
        return {
            "version": _STATE_VERSION,
            "dali": _dali.VERSION,
            "options": self._stream_options(),
            "data": self._data(),
            **moment,
            # One value, and all others are the same on every shard: torch.distributed.checkpoint
            # takes each value from another one.
            "checkpoint": f"{run.counts.shard}:{moment['checkpoint'].hex()}",
        }

    def load_state_dict(self, state: dict[str, Any], *, allow: Collection[str] = ()) -> None:
        """Continues from a `state_dict`: the batches that follow are the same, bit for bit.

        The state may be of another shard, also in the middle of an epoch (data that are shuffled
        within a window are then read anew up to there, with a warning).

        Args:
            allow: names of options that may differ between the state and this loader where the
                state is of the end of an epoch: ``{"size"}``, ``{"batch_size", "num_shards"}``,
                ``{"mix", "augment"}``, ``{"dali"}`` (its version) … The next epoch is then the one
                that this loader has at this number. The seed and the data must always be the same.

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
        changed = self._changed_options(state, self._checked_allow(allow, state["options"]))
        counts = self._run.counts
        try:
            epoch = checked_int("epoch", state["epoch"], 0)
            position = checked_int("position", state["position"], 0)
            if position >= counts.batches:
                # A shard may have less batches, where they are not to be even.
                if self._last_batch == "drop" or self._even or position > counts.runs:
                    raise ValueError(f"`position` must be below {counts.batches}, got {position}.")
                epoch, position = epoch + 1, 0
            answers = state["mixing"] or {}
            if changed or not self._switchable:
                answers = {"on": answers.get("on", True)}
            switch = self._new_switch(**answers)
            shard, checkpoint = state["checkpoint"].split(":")
            bits = bytes.fromhex(checkpoint)
            own = not changed
            if own:
                own = checked_int("shard", int(shard), 0, counts.shards - 1) == counts.shard
            if not own and self.seed is None and _dali.has_draws(self._begin[0]):
                raise ValueError("without a `seed` only a state of the same loader can be.")
            if not own:
                self._go_to(epoch, position, switch)
            else:
                run = self._opened(bits, (epoch, position), switch)
                begin, after = (_dali.with_keys(x, bits) for x in self._begin)
                self._begin = begin, after
                self._move(run)
        except Exception as error:
            raise ValueError(f"`state` cannot be restored: {error}") from error

    def _checked_allow(self, allow: Collection[str], theirs: dict[str, str]) -> set[str]:
        if isinstance(allow, str) or not isinstance(allow, Collection):
            raise TypeError(f"`allow` must be a set of names of options, got {allow!r}.")
        known = {"dali", *self._stream_options(), *theirs} - {"seed"}
        if unknown := set(allow) - known:
            raise ValueError(
                f"`allow` must have names among {', '.join(sorted(known))}, "
                f"got {', '.join(sorted(map(repr, unknown)))}."
            )
        return set(allow)

    def _changed_options(self, state: dict[str, Any], allow: set[str]) -> bool:
        """Returns whether the state has other options, all allowed; raises where one is not."""
        mine = {"dali": _dali.VERSION, **self._stream_options(), **self._data()}
        theirs = {"dali": state["dali"], **state["options"], **state["data"]}
        different = {
            name: f"{name}: {mine.get(name, 'default')} here, "
            f"{theirs.get(name, 'default')} in the state"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        }
        if refused := [text for name, text in different.items() if name not in allow]:
            raise ValueError(
                "`state` must come from a loader with the same options and data, got "
                + "; ".join(refused)
                + ". (At the end of an epoch `allow` names options that may differ.)"
            )
        if different and state["position"]:
            raise ValueError(
                "`state` must be of the end of an epoch where options differ, got one after "
                f"{state['position']} batches, and " + "; ".join(different.values())
            )
        return bool(different)

    def _go_to(self, epoch: int, position: int, switch: Switch | None = None) -> None:
        """Goes to a place, computed where that can be, else by reading on."""
        if switch is None:
            switch = self._new_switch(on=self.mixing)
        reason = self._run.not_computable
        if (epoch, position) == (0, 0):
            self._move(self._opened(self._begin[0], (0, 0), switch))
            return
        if reason is None:
            try:
                checkpoint = self._checkpoint_at(epoch, position)
            except ValueError as error:
                reason = f"DALI {_dali.VERSION} has other checkpoints: {error}"
        if reason is None:
            self._move(self._opened(checkpoint, (epoch, position), switch))
        else:
            self._move(self._read_until(epoch, position, switch, reason))

    def _checkpoint_at(self, epoch: int, position: int) -> bytes:
        counts = self._run.counts
        done = position == 0  # at the end of an epoch its padding is not read yet
        return _dali.checkpoint_at(
            *self._begin,
            runs=counts.runs_before(epoch, position),
            epoch=epoch - done,
            samples=(counts.batches if done else position) * counts.batch_size,
            batch_size=counts.batch_size,
            epoch_size=counts.runs * counts.batch_size,
            others=self._run.other_readers,
        )

    def _read_until(self, epoch: int, position: int, switch: Switch | None, reason: str) -> Run:
        """Returns a run that has come to a place by reading what is before it.

        Until it is there, the loader stays where it is.
        """
        start, checkpoint = (0, 0), self._begin[0]
        if self._run.batches is not None and self._run.place <= (epoch, position):
            moment = self._run.moment() if self._run.interrupted is None else self._run.interrupted
            start, checkpoint = (moment["epoch"], moment["position"]), moment["checkpoint"]
        counts = self._run.counts
        if switch is not None:  # the answers are to those who come after the place
            switch.skip(counts.runs_before(epoch, position) - counts.runs_before(*start))
        batches = (epoch - start[0]) * counts.batches + position - start[1]
        if batches:
            warn(
                f"{batches} batches are read to reach batch {position} of epoch {epoch}, whose "
                f"place cannot be computed: {reason}. (To go on after a break use rest().)"
            )
        run = self._opened(checkpoint, start, switch)
        try:
            while run.place != (epoch, position):
                run.next()
        except BaseException:
            run.close()
            raise
        run.placed = position > 0
        return run

    def _move(self, run: Run) -> None:
        """Replaces what runs, at once; no loop that is under way can go on."""
        self._loops += 1
        before, self._run = self._run, run
        before.close()

    def _mended(self) -> Run:
        """Returns what runs, from where it stood before a batch was interrupted."""
        run = self._running()
        if run.interrupted is not None:
            moment = run.interrupted
            switch = self._new_switch(**moment["mixing"]) if self._switchable else None
            mended = self._opened(
                moment["checkpoint"], (moment["epoch"], moment["position"]), switch
            )
            mended.placed = run.placed
            before, self._run = run, mended  # the loop goes on
            before.close()
        return self._run

    def _new_switch(self, on: bool = True, given: Sequence[bool] = ()) -> Switch | None:
        return Switch(self._options["batch_size"], on, given) if self._switchable else None

    # What it is

    def __repr__(self) -> str:
        counts, options = self._run.counts, self._options
        parts = [f"{counts.images} images"]
        if self.num_classes is not None:
            parts.append(f"{self.num_classes} classes")
        parts.append(f"{len(self)} batches of {counts.batch_size}")
        if counts.shards > 1:
            parts.append(f"shard {counts.shard} of {counts.shards}")
        for name in ("size", "device", "seed"):
            if options.get(name) is not None:
                parts.append(f"{name} {options[name]}")
        closed = ", closed" if self._run.batches is None else ""
        return f"<Loader: {', '.join(parts)}, at epoch {self.epoch}{closed}>"

    @property
    def batch_size(self) -> int:
        """Samples per batch, of this shard."""
        return self._run.counts.batch_size

    @property
    def num_images(self) -> int:
        """Images of all shards."""
        return self._run.counts.images

    @property
    def drop_last(self) -> bool:
        """Whether the last, incomplete batch is dropped."""
        return self._last_batch == "drop"

    @property
    def num_workers(self) -> int:
        """Threads of DALI; there are no worker processes."""
        return int(self._options.get("num_threads") or 0)

    @property
    def seed(self) -> int | None:
        """The seed that it was made with."""
        seed: int | None = self._options.get("seed")
        return seed

    @property
    def class_to_idx(self) -> dict[str, int] | None:
        """The label of each class, where the loader knows the classes."""
        if self.classes is None:
            return None
        return {name: label for label, name in enumerate(self.classes)}

    @property
    def dataset(self) -> Dataset:
        """What has the length of the data set, for trainers that ask; no single image."""
        return Dataset(self._run.counts.images, self.classes, self.class_to_idx)

    @property
    def sampler(self) -> Sampler:
        """What has the `set_epoch` of a torch DistributedSampler, for trainers that call it."""
        return Sampler(self, self._run.counts)

    @property
    def mixing(self) -> bool:
        """Whether batches are mixed; with ``switchable=True`` it can be set.

        That touches neither the order of the data nor the draws. It takes effect at most
        `prefetch_queue_depth` batches later (2 by default): those are under way. (One more before
        the first batch, which is made with the loader.)

        Raises:
            ValueError: it is set, and the loader was not made with ``switchable=True``.
        """
        if self._run.switch is not None:
            return self._run.switch.on
        return self._options.get("mix") is not None

    @mixing.setter
    def mixing(self, on: bool) -> None:
        switch = self._running().switch
        if switch is None:
            raise ValueError("`switchable` must be True where mixing is to be switched, got False.")
        switch.on = bool(on)

    # Its end

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
        """Stops the pipeline and frees its memory; `load_state_dict` and `seek` open it again."""
        self._run.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Loader cannot be copied or sent to another process, for its threads cannot: make "
            "one there. state_dict() says where it stands."
        )

    # Details

    def _next(self) -> Batch:
        images, *targets = self._run.next()
        if self._channels_last:
            images = images.permute(0, 3, 1, 2)
        return images, self._collate(targets)

    def _opened(
        self, checkpoint: bytes | None, place: tuple[int, int], switch: Switch | None
    ) -> Run:
        """Returns a new pipeline at a place; nothing of the loader is changed."""
        fed = {} if switch is None else {"mixing": switch}
        try:
            with _OPENING, warnings.catch_warnings():  # the state of the switch is in ours
                warnings.filterwarnings("ignore", message=_dali.CHECKPOINT_WARNING)
                pipeline = self._pipeline_fn(
                    enable_checkpointing=True, checkpoint=checkpoint, **fed, **self._options
                )
                pipeline.build()
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
            _raise_explained(self._options, error)
        reader, meta = checked_reader(pipeline, self._reader_name, self._last_batch)
        counts = Counts.of(meta, pipeline.max_batch_size, self._last_batch, self._even)
        not_computable = _dali.not_computable(pipeline, fed=switch is not None)
        _dali.uncycle(pipeline)
        return Run(
            pipeline,
            reader,
            counts,
            switch,
            place,
            restored=checkpoint is not None,
            mark=self._mark,
            not_computable=not_computable,
            other_readers=_dali.other_readers(pipeline, reader),
            explain=partial(_raise_explained, self._options),
        )

    def _running(self) -> Run:
        if self._run.batches is None:
            here = ", in a process that was forked: make one here" if self._forked else ""
            raise RuntimeError("the loader is closed" + here)
        return self._run

    def _stream_options(self) -> dict[str, str]:
        options = {
            "switchable": self._switchable,
            "reader_name": self._reader_name,
            "last_batch": self._last_batch,
            "even": self._even,
            "channels_last": self._channels_last,
            **self._options,
        }
        if "layout" in self._options:
            del options["channels_last"]  # follows from it
        return {k: _printed(v) for k, v in options.items() if k not in _NOT_IN_STATE}

    def _data(self) -> dict[str, str]:
        if self._identity is None:  # once: of a folder it lists all names
            source = self._options.get("source")
            self._identity = source.identity if isinstance(source, (Source, Volumes)) else ""
            partners = self._options.get("partners")
            if isinstance(partners, Source):
                self._identity += f", partners {partners.identity}"
        return {
            "images": str(self._run.counts.images),
            "classes": _printed(self.classes),
            "source": self._identity,
        }


def _as_they_are(targets: list[torch.Tensor]) -> Any:
    return targets[0] if len(targets) == 1 else tuple(targets)


def _ignored(ignore_index: int, outputs: list[torch.Tensor], index: int) -> list[torch.Tensor]:
    """Returns outputs with one target that is ignored."""
    images, labels, *others = outputs
    if labels.is_floating_point():
        raise ValueError(
            "`even` must be False where targets are no integers, or `mark` be given: else the "
            "repeated sample is not told from others."
        )
    labels = labels.clone()  # not in DALI's memory
    labels[index] = ignore_index
    return [images, labels, *others]


class Pass(Iterator[Batch]):
    """One loop over a loader, from where it stands to the end of the epoch."""

    def __init__(self, loader: Loader, *, rest: bool = False) -> None:
        self._loader, self._rest, self._ended = loader, rest, False
        self._number: int | None = None  # none yet
        self._epoch = 0

    def __next__(self) -> Batch:
        loader = self._loader
        if self._ended:
            raise StopIteration
        if self._number is None:
            self._number = loader._begin_loop(self._rest)
            self._epoch = loader.epoch
        elif loader._loops != self._number:
            loader._running()
            raise RuntimeError(
                "this loop over the loader cannot go on: another one was begun, or the loader was "
                "moved to another place. For two loops at once make two loaders."
            )
        if loader._mended().epoch != self._epoch:  # its last batch was lost to an interrupt
            self._ended = True
            raise StopIteration
        batch = loader._next()
        self._ended = loader.epoch != self._epoch
        return batch


_LOADERS: weakref.WeakSet[Loader] = weakref.WeakSet()


def _in_forked_child() -> None:
    """Lets go of the parent's pipelines: DALI would wait for their threads, which are not here."""
    for loader in list(_LOADERS):
        if loader._run.batches is not None:
            loader._run.abandon()
            loader._forked = True


os.register_at_fork(after_in_child=_in_forked_child)


def _raise_explained(options: dict[str, Any], error: Exception) -> NoReturn:
    """Raises what DALI raised in words of this package, naming the file where there is one."""
    words = in_own_words(error, options)
    if words is None:
        raise error
    raise ValueError(words) from error


def _printed(value: Any) -> str:
    """Returns a value of an option as short text that is equal for equal values."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)  # objects that print their address
    if len(text) <= 300:
        return text
    return f"{text[:40]}… sha256 {hashlib.sha256(text.encode()).hexdigest()}"
