"""Every private or version-bound name of DALI that this package uses, in one place.

tests/test_dali.py has a test for each, so that a new DALI says at once what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import do_not_convert

__all__ = ["graph_function", "merge", "operators", "shard_of", "split"]

Function = TypeVar("Function", bound=Callable[..., object])


def graph_function(function: Function) -> Function:
    """Keeps a function as it is written where a pipeline has ``enable_conditionals=True``.

    DALI's AutoGraph otherwise rewrites every Python function that such a pipeline calls, and fails
    for what it does not know (``zip(strict=)``, ``:=``).
    """
    unconverted: Function = do_not_convert(function)
    return unconverted


def split(x: DataNode, predicate: DataNode) -> tuple[DataNode, DataNode]:
    """Returns the samples for which the predicate, bool (), is True, and the others.

    By reference, without a copy. What a pipeline's `if` is made of.
    """
    return tuple(fn._conditional.split(x, predicate=predicate))


def merge(where_true: DataNode, where_false: DataNode, predicate: DataNode) -> DataNode:
    """Returns the batch that `split` took apart; both parts must have one layout and type."""
    return fn._conditional.merge(where_true, where_false, predicate=predicate)


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
