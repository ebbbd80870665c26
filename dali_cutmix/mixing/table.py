"""Numbers of all samples as one table: the CPU's operators cost by sample, not by number.

An operator takes 0.1 to 0.2 ms for 256 samples of a few numbers each, and 0.05 ms for one sample of
as many numbers. So what is drawn and computed for every sample is drawn and computed in a batch of
one sample, split off by DALI's conditionals, and then dealt out, a row a sample.
"""

from __future__ import annotations

from nvidia.dali import fn
from nvidia.dali.data_node import DataNode

__all__ = ["Table", "of_first"]


class Table:
    """A batch of one sample, for tables of `count` rows.

    Args:
        order: int32 (), a permutation of the batch.
        row: int32 (), the row of each sample; where `count` is 1 all have that one.
        count: rows.
    """

    def __init__(self, order: DataNode, row: DataNode, count: int) -> None:
        self._zero = order * 0
        self._first = order == of_first(order, self._zero)
        one, self._rest = fn._conditional.split(order, predicate=self._first)
        self._one = fn.reshape(one, shape=[1, 1])
        self._row, self._count = row, count

    def zeros(self, columns: int) -> DataNode:
        """Returns a table of zeros, int32 (count, columns)."""
        shape = [self._count, columns]
        return fn.slice(
            self._one * 0, start=[0, 0], shape=shape, axes=[0, 1], out_of_bounds_policy="pad"
        )

    def of_first(self, x: DataNode) -> DataNode:
        """Returns the first sample's x, for use with tables."""
        return fn._conditional.split(x, predicate=self._first)[0]

    def rows(self, table: DataNode) -> DataNode:
        """Returns for each sample its row, (columns,), of a table, int32 (count, columns)."""
        rest = fn.reshape(self._rest, shape=[1, 1])
        merged = fn._conditional.merge(table, rest, predicate=self._first)
        everywhere = fn.permute_batch(merged, indices=self._zero)
        return everywhere[0 if self._count == 1 else self._row]


def of_first(x: DataNode, zero: DataNode) -> DataNode:
    """Returns the first sample's value for every sample; `zero` is a 0, int32 (), for each."""
    return fn.permute_batch(x, indices=zero)
