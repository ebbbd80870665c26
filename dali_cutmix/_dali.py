"""Every private or version-bound name of DALI that this package uses, but for its iterator's.

Those are in `loaders._iterator`, which needs torch; a graph does not. tests/test_dali.py has a
test for each name, so that a new DALI says at once what has changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from nvidia.dali import Pipeline, fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

__all__ = [
    "CHECKPOINT_WARNING",
    "abandon",
    "graph_function",
    "is_pipeline_def",
    "merge",
    "operators",
    "pairs_samples",
    "shard_of",
    "shut_down",
    "split",
    "uncycle",
]

Function = TypeVar("Function", bound=Callable[..., object])

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
    arguments = (operator._op._init_args for operator in operators(nodes))
    return max((a.get("shard_id") or 0 for a in arguments), default=0)


# A pipeline


def is_pipeline_def(function: object) -> bool:
    """Returns whether a function was made by ``@pipeline_def``."""
    return bool(getattr(function, "_is_pipeline_def", False))


def pairs_samples(pipeline: Pipeline) -> bool:
    """Returns whether a built pipeline permutes its batches, as every mix within a batch does."""
    return b"BatchPermutation" in pipeline.serialize()


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
