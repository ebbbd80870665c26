"""Draw: the random numbers of a mix. Besides `pairing`, only this module draws.

Draws are made on the CPU, because DALI takes operator arguments only from there; they are a few
numbers per sample. Every random operator has a seed of its own: one seed given to two operators
makes their draws alike, and DALI's automatic seeds change when an output is added to a pipeline.

An operator on the CPU costs by the samples that it hands to its threads, not by their numbers: 0.1
to 0.2 ms for 256 samples of a few numbers each, and 0.05 ms for one sample of as many numbers. So
what is drawn and computed for every sample is drawn and computed in a batch of one sample, split
off by DALI's conditionals, and then dealt out, a row per sample. A lam alone is not: to deal takes
more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any, cast

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import merge, split
from dali_cutmix._graph import by_index
from dali_cutmix._seeds import op_seed

__all__ = ["Draw", "broadcast_first"]

_MOST = 2**31 - 1


class Draw:
    """Draws for one batch; every draw has a name, from which its seed is derived.

    Args:
        seed: of the mix.
        order: int32 (), a permutation of the batch. Any will do: rows are drawn alike. None where
            each sample has a table of its own, of one row.
        row: int32 (), the row of the table that each sample gets; None where there is one for all.
        count: rows of the table.
    """

    def __init__(self, seed: int, order: DataNode | None, row: DataNode | None, count: int) -> None:
        self._seed, self._order, self._row, self.count = seed, order, row, count

    @classmethod
    def for_mode(cls, mode: str, batch_size: int, seed: int, order: DataNode | None) -> Draw:
        """Returns draws with a row for each sample, for each pair, or one for all."""
        if order is None:
            return cls(seed, None, None, 1)
        if mode == "batch":
            return cls(seed, order, None, 1)
        if mode == "pair":
            mirrored = [min(i, batch_size - 1 - i) for i in range(batch_size)]
            return cls(seed, order, by_index(order, mirrored), batch_size)
        return cls(seed, order, order, batch_size)

    def named(self, again: int) -> Draw:
        """Returns the same table for a method that is there `again` times before."""
        if not again:
            return self
        return Draw(op_seed(self._seed, "again", again), self._order, self._row, self.count)

    # A table of `count` rows, in a batch of one sample, or one row for each sample

    def uniform(self, name: str, columns: int = 1) -> DataNode:
        """Returns numbers in [0, 1), float64 (count, columns)."""
        drawn: DataNode = self._table(
            fn.random.uniform, name, columns, range=[0.0, 1.0], dtype=types.FLOAT64
        )
        return drawn

    def beta(self, name: str, alpha: float) -> DataNode:
        """Returns draws of Beta(alpha, alpha), float64 (count, 1)."""
        # In float64: in float32 a small alpha gives exact zeros and ones.
        drawn: DataNode = self._table(
            fn.random.beta, name, alpha=alpha, beta=alpha, dtype=types.FLOAT64
        )
        return drawn

    def coin(self, name: str, probability: float) -> DataNode:
        """Returns what is True with a probability, bool (count, 1)."""
        drawn: DataNode = self._table(
            fn.random.coin_flip, name, probability=probability, dtype=types.BOOL
        )
        return drawn

    def one_of(self, name: str, weights: Sequence[float]) -> list[DataNode]:
        """Returns for each of the weights, which sum to 1, where it was drawn: bool (count, 1)."""
        if len(weights) == 2:
            second = self.coin(name, weights[1])
            return [second ^ True, second]
        drawn, chosen = self.uniform(name), []
        edges = np.cumsum(weights)[:-1].tolist()
        for low, high in zip([0.0, *edges], [*edges, 2.0], strict=True):
            chosen.append((drawn >= low) & (drawn < high))
        return chosen

    def number(self, value: float) -> DataNode:
        """Returns a number for use with the table, float64 (1, 1): Python's are float32 to DALI."""
        return self.first(types.Constant(np.array([[value]])))

    def first(self, x: DataNode) -> DataNode:
        """Returns the first sample's x, for use with the table."""
        return x if self._order is None else split(x, self._is_first)[0]

    def repeat(self, flag: DataNode) -> DataNode:
        """Returns the first sample's flag, bool (), for every row: bool (count, 1)."""
        if self._order is None:
            return fn.reshape(flag, shape=[1, 1])
        return (self._zeros(1) == 0) & self.first(flag)

    def true(self) -> DataNode:
        """Returns True for every row, bool (count, 1)."""
        return self._zeros(1) == 0

    def deal(self, table: DataNode, mixed: DataNode | None = None) -> DataNode:
        """Returns for each sample its row, (columns,), of a table, int32 (count, columns).

        Args:
            mixed: bool (), for each sample. Then the table has another row before these, which a
                sample gets for which that is False.
        """
        rest = fn.reshape(split(self._everyone, self._is_first)[1], shape=[1, 1])
        everywhere = broadcast_first(merge(table, rest, self._is_first), self._zero)
        if mixed is None:
            return everywhere[0 if self._row is None else self._row]
        if self._row is None:
            return everywhere[fn.cast(mixed, dtype=types.INT32)]
        return everywhere[(self._row + 1) * mixed]

    # Per sample

    def coin_of(self, name: str, labels: DataNode, probabilities: Sequence[float]) -> DataNode:
        """Returns what is True with the probability of a sample's class, bool ().

        Args:
            labels: int32 (1,).
            probabilities: of each class.
        """
        of_class = types.Constant(np.array(probabilities, np.float32))
        return fn.random.coin_flip(
            probability=of_class[labels[0]], dtype=types.BOOL, seed=self._own(name)
        )

    def object_box(
        self, name: str, masks: DataNode, classes: Sequence[int], background: int
    ) -> tuple[DataNode, DataNode]:
        """Returns the box around an object of each mask, int32 (2 axes,), and if there is one.

        Args:
            masks: (H, W) or (D, H, W), integers.
            classes: values that are objects; none: all but `background`.
        """
        nodes = fn.segmentation.random_object_bbox(
            masks,
            background=background,
            classes=list(classes) or None,
            output_class=True,
            seed=self._own(name),
        )
        start, sides, found = cast("Sequence[DataNode]", nodes)
        return fn.cat(start, sides), fn.reshape(found, shape=[]) != background

    def entry(self, name: str, entries: Any, weights: Sequence[float] | None = None) -> DataNode:
        """Returns one of the entries of an array (also one per sample), by their weights."""
        p = None if weights is None else list(weights)
        chosen: DataNode = fn.random.choice(entries, p=p, seed=self._own(name))
        return chosen

    def entries(self, name: str, entries: DataNode, count: int) -> DataNode:
        """Returns `count` entries of an array, drawn alike and apart, (count, …)."""
        return fn.random.choice(entries, shape=[count], seed=self._own(name))

    def weight_drawn(self, name: str) -> DataNode:
        """Returns the number in [0, 1) by which `entry` of this name chooses: float64 ()."""
        return fn.random.uniform(range=[0.0, 1.0], dtype=types.FLOAT64, seed=self._own(name))

    def words(self, *names: str) -> DataNode:
        """Returns the words by which `entry` of each name chooses of K, int32 (len(names),).

        The index is word * K / 2**31, but for one in some ten million.
        """
        return fn.stack(*(fn.random.choice(_MOST, seed=self._own(name)) for name in names))

    def words_of_entries(self, name: str) -> DataNode:
        """Returns the words by which `entries` chooses a first and a second: int32 (2,)."""
        # For rows of a table DALI takes one word of its generator after the other, and for a
        # float64 two, of which the second counts.
        second = dmath.floor(self.weight_drawn(name) * 2.0**31)  # a cast rounds
        second = fn.cast(second, dtype=types.INT32)
        return fn.stack(fn.random.choice(_MOST, seed=self._own(name)), second)

    # Details

    def _own(self, name: str) -> int:
        return reduce(op_seed, name.split("/"), self._seed)

    def _table(self, operator: Any, name: str, columns: int = 1, **options: Any) -> Any:
        if self._order is None:
            return operator(shape=[1, columns], seed=self._own(name), **options)
        return operator(self._zeros(columns), seed=self._own(name), **options)

    @cached_property
    def _everyone(self) -> DataNode:
        assert self._order is not None
        return self._order

    @cached_property
    def _zero(self) -> DataNode:
        return self._everyone * 0

    @cached_property
    def _is_first(self) -> DataNode:
        return self._everyone == broadcast_first(self._everyone, self._zero)

    def _zeros(self, columns: int) -> DataNode:
        one = fn.reshape(split(self._everyone, self._is_first)[0], shape=[1, 1])
        shape = [self.count, columns]
        return fn.slice(one * 0, start=[0, 0], shape=shape, axes=[0, 1], out_of_bounds_policy="pad")


def broadcast_first(x: DataNode, zero: DataNode) -> DataNode:
    """Returns the first sample's value for every sample; `zero` is a 0, int32 (), for each."""
    return fn.permute_batch(x, indices=zero)
