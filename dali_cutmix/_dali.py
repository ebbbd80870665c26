"""Every private or version-bound name of DALI that this package uses, but for its iterator's.

Those are in `loaders._iterator`, which needs torch; a graph does not. tests/test_dali.py has a
test for each name, so that a new DALI says at once what has changed.
"""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import nvidia.dali
from nvidia.dali import Pipeline, fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

from dali_cutmix._protobuf import field, fields

__all__ = [
    "BY_NUMBER",
    "CHECKPOINT_WARNING",
    "VERSION",
    "abandon",
    "checkpoint_at",
    "graph_function",
    "has_draws",
    "is_pipeline_def",
    "merge",
    "not_computable",
    "operators",
    "other_readers",
    "pairs_samples",
    "read_file",
    "shard_of",
    "shut_down",
    "split",
    "uncycle",
    "with_keys",
]

Function = TypeVar("Function", bound=Callable[..., object])

VERSION: str = nvidia.dali.__version__

# The name of a reader that reads what it is told, so that where it stands is of no matter.
BY_NUMBER = "dali_cutmix, by number"

# How the warning begins that a checkpoint has no state of an external source.
CHECKPOINT_WARNING = "Checkpointing enabled in a pipeline with external source operator"


def graph_function(function: Function) -> Function:
    """Keeps a function as it is written where a pipeline has ``enable_conditionals=True``.

    DALI's AutoGraph otherwise rewrites every Python function that such a pipeline calls, and fails
    for what it does not know (``zip(strict=)``, ``:=``).
    """
    unconverted: Function = do_not_convert(function)
    return unconverted


# A graph


def split(x: DataNode, predicate: DataNode) -> tuple[DataNode, DataNode]:
    """Returns the samples for which the predicate, bool (), is True, and the others.

    By reference, without a copy. What a pipeline's `if` is made of.
    """
    where_true, where_false = _conditional().split(x, predicate=predicate)
    return where_true, where_false


def merge(where_true: DataNode, where_false: DataNode, predicate: DataNode) -> DataNode:
    """Returns the batch that `split` took apart; both parts must have one layout and type."""
    merged: DataNode = _conditional().merge(where_true, where_false, predicate=predicate)
    return merged


def _conditional() -> Any:
    return fn._conditional  # type: ignore[attr-defined]  # not in DALI's stubs


def read_file(path: DataNode) -> DataNode:
    """Returns the bytes of the file at a path, uint8 (characters,), on the CPU."""
    content: DataNode = fn.io.file.read(path)  # type: ignore[attr-defined]  # not in DALI's stubs
    return content


def operators(nodes: Iterable[DataNode]) -> list[Any]:
    """Returns the operators behind the nodes of a graph that need not be built."""
    left, found = list(nodes), {}
    while left:
        source = left.pop().source
        if source is not None and source.id not in found:
            found[source.id] = source
            left += [node for node in source.inputs if hasattr(node, "source")]
    return list(found.values())


def shard_of(nodes: Iterable[DataNode]) -> int:
    """Returns the ``shard_id`` of the reader that the nodes come from, 0 where there is none."""
    return max((_arguments(o).get("shard_id") or 0 for o in operators(nodes)), default=0)


def _arguments(operator: Any) -> dict[str, Any]:
    """Returns the arguments of an operator as they were given, and ``_display_name``."""
    return getattr(operator._op, "_init_args", None) or {}


# A pipeline


def is_pipeline_def(function: object) -> bool:
    """Returns whether a function was made by ``@pipeline_def``."""
    return bool(getattr(function, "_is_pipeline_def", False))


def pairs_samples(pipeline: Pipeline) -> bool:
    """Returns whether a built pipeline permutes its batches, as every mix within a batch does."""
    return b"BatchPermutation" in pipeline.serialize()


def not_computable(pipeline: Pipeline, fed: bool) -> str | None:
    """Returns why `checkpoint_at` cannot be used for a pipeline, or None where it can.

    Args:
        fed: one ``external_source`` is that of a switch, whose state is elsewhere.
    """
    operators = pipeline._ops or ()
    readers = {name: meta for name, meta in pipeline.reader_meta().items() if name != BY_NUMBER}
    if not all(meta["pad_last_batch"] for meta in readers.values()):
        return "the pipeline has a reader without pad_last_batch"
    if sum("external_source" in _arguments(o).get("_display_name", "") for o in operators) > fed:
        return "the pipeline has an external source"
    if any(_arguments(o).get("random_shuffle") for o in operators if o.name in readers):
        return "its reader shuffles within a window"
    return None


def other_readers(pipeline: Pipeline, reader_name: str) -> dict[str, int]:
    """Returns for each reader but one the samples that it gives in an epoch, padding included."""
    sizes = {}
    for name, meta in pipeline.reader_meta().items():
        longest = -(-meta["epoch_size"] // meta["number_of_shards"])
        batches = -(-longest // pipeline.max_batch_size)
        sizes[str(name)] = batches * pipeline.max_batch_size
    del sizes[reader_name]
    sizes.pop(BY_NUMBER, None)
    return sizes


def uncycle(pipeline: Pipeline) -> None:
    """Takes the cycles out of the graph that DALI has in Python, so that it goes with the pipeline.

    It is 0.5 MB, of a large recipe 2.4 MB, not needed once the pipeline is built, and Python's
    collector may leave it alone for over a thousand pipelines. The cycles: an operator and its
    outputs, and the closure of DALI's _collect_ops, whose list is the pipeline's.
    """
    operators = list(getattr(pipeline, "_ops", None) or ())
    if operators and pipeline._ops is not None:
        pipeline._ops.clear()
        pipeline._ops = operators
    for operator in operators:
        for held in (getattr(operator, "_inputs", None), getattr(operator, "_outputs", None)):
            if isinstance(held, list):
                held.clear()


def shut_down(pipeline: Pipeline) -> None:
    """Stops a pipeline and frees its memory now, not when the last reference to it goes."""
    pipeline._shutdown()


def abandon(pipeline: Pipeline) -> None:
    """Lets go of the parent's pipeline in a forked child, without waiting for its threads.

    Those are not here, so that the pipeline must never be destroyed.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline._pipe))
    pipeline._pipe = None


# A checkpoint

# A message of Google's protocol buffers: field 1 for each operator (1: its name, 2: its state),
# field 2 what the iterators add (1: the pipeline's, 2: the iterator's, both JSON).
# The state of a random operator: key, number of samples or batches drawn, and place within.
_RANDOM = re.compile(rb"Philox_([0-9A-F]{16})_([0-9A-F]{16}):([0-9A-F]{16})_(\d+)")


def checkpoint_at(
    begin: bytes,
    after: bytes,
    *,
    runs: int,
    epoch: int,
    samples: int,
    batch_size: int,
    epoch_size: int,
    others: Mapping[str, int],
) -> bytes:
    """Returns the checkpoint of a pipeline at another place, computed from two of its own.

    DALI's random states are counters, which every run moves on by the same step, and those of a
    reader that shuffles by the number of the epoch are that number and the samples read.

    Args:
        begin, after: the checkpoints of the pipeline before and after its first run.
        runs: of the pipeline until the place.
        epoch: of the reader, from 0.
        samples: read in that epoch.
        batch_size: of the pipeline.
        epoch_size: samples that the reader gives in an epoch, padding included.
        others: as `other_readers` gives them. They go on, whatever the epoch is.

    Raises:
        ValueError: an operator's state is something else, as that of a reader with a window is
            from its second epoch on, or DALI's format is another one.
    """
    try:
        places = {name: divmod(batch_size, size) for name, size in others.items()}
        if _moved(begin, after, 1, 0, batch_size, epoch_size, places) != after:
            raise ValueError("the first run moves it otherwise")
        places = {name: divmod(runs * batch_size, size) for name, size in others.items()}
        return _moved(begin, after, runs, epoch, samples, epoch_size, places)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"it has another form ({error!r})") from error


def _moved(
    begin: bytes,
    after: bytes,
    runs: int,
    epoch: int,
    samples: int,
    epoch_size: int,
    others: Mapping[str, tuple[int, int]],
) -> bytes:
    # A reader that has given all its samples is in its next epoch, its iterator is not.
    reader = (epoch + 1, 0) if samples == epoch_size else (epoch, samples)
    moved = b""
    for (number, part), (_, other) in zip(_parts(begin), _parts(after), strict=True):
        if number == 1:
            (_, name), *state = _parts(part)
            (_, other_name), *other_state = _parts(other)
            if name != other_name or len(state) > 1:
                raise ValueError(f"the operators differ in {name!r}")
            if name == BY_NUMBER.encode():
                state = other_state
            elif state != other_state:
                place = others.get(name.decode(), reader)
                state = [(2, _moved_state(state[0][1], other_state[0][1], runs, *place))]
            moved += field(1, field(1, name) + b"".join(field(*s) for s in state))
        else:
            pipeline, iterator = (json.loads(text) for _, text in _parts(part))
            pipeline["iter"], iterator["_counter"] = runs, samples
            texts = (json.dumps(values).encode() for values in (pipeline, iterator))
            moved += field(2, b"".join(field(i, text) for i, text in enumerate(texts, 1)))
    return moved


def _moved_state(begin: bytes, after: bytes, runs: int, epoch: int, samples: int) -> bytes:
    """Returns the state of an operator that a run changes."""
    was, became = _RANDOM.fullmatch(begin), _RANDOM.fullmatch(after)
    if was and became and was[1] == became[1] and was[3] == became[3] and was[4] == became[4]:
        count = int(was[2], 16) + runs * (int(became[2], 16) - int(was[2], 16))
        return b"Philox_%b_%016X:%b_%b" % (was[1], count, was[3], was[4])
    ((number, snapshot),) = _parts(begin)
    (first, seed), (second, at_epoch), (third, at_sample) = _parts(snapshot)
    if (number, first, second, third) != (1, 1, 2, 3) or at_epoch != 0 or at_sample != 0:
        raise ValueError(f"a state that is not known: {begin!r}")
    return field(1, field(1, seed) + field(2, epoch) + field(3, samples))


def _parts(message: bytes) -> list[tuple[int, Any]]:
    return list(fields(message))


def has_draws(checkpoint: bytes) -> bool:
    """Returns whether a pipeline has random operators."""
    return _RANDOM.search(checkpoint) is not None


def with_keys(checkpoint: bytes, other: bytes) -> bytes:
    """Returns a checkpoint whose draws have the keys of another one of the same graph.

    Without a seed a pipeline has other keys in every process.
    """
    keys = iter(_RANDOM.findall(other))

    def exchanged(found: re.Match[bytes]) -> bytes:
        key, *_ = next(keys, found.groups())
        return b"Philox_%b_%b:%b_%b" % (key, *found.groups()[1:])

    return _RANDOM.sub(exchanged, checkpoint)
