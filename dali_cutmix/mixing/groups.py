"""Partners by groups: each image's next, of its own group or of another one, in a random ring.

All images of a batch stand in a ring, in a random order. Within a group the next of one's own is a
single cycle, uniformly random among all cycles. The next of another group is, of all images of
other groups, each with the same probability.

That takes the groups of the whole batch in one place. As in `draw`, what is computed from them is
computed once, for the first sample, and then dealt out.
"""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import merge, split
from dali_cutmix._graph import FULL
from dali_cutmix._rules import states
from dali_cutmix.mixing.draw import broadcast_first

__all__ = ["MOST", "next_in_ring"]

MOST = 4096  # images: tables are of all pairs of them


def next_in_ring(
    groups: DataNode, order: DataNode, count: int, *, same: bool, words: int = 1
) -> tuple[DataNode, DataNode]:
    """Returns for each image its own index in the batch, and that of its partner: int32 () both.

    They are equal where there is no partner.

    Args:
        groups: int32 (words,): a number of 32 bits, or the words of one of 64.
        order: int32 (), a random permutation: the place of each image in the ring.
        count: images in the batch, at most `MOST`.
        same: whether partners are of one's own group; else they are of another.
    """
    zero = order * 0
    is_first = order == broadcast_first(order, zero)
    values = fn.cat(groups, fn.reshape(order, shape=[1]))
    table, rest = split(_gathered(values, is_first, count, words + 1), is_first)
    bits = (count - 1).bit_length()
    number = split(types.Constant(np.arange(count, dtype=np.uint32)[:, None]), is_first)[0]
    table = _own_and_partner(table, number, same=same, words=words, bits=bits)
    rest = fn.reshape(rest, shape=[words + 1], layout="")
    both = broadcast_first(merge(table, rest, is_first), zero)[order]
    return both >> bits, both & (2**bits - 1)


@states(FULL)
def _gathered(values: DataNode, is_first: DataNode, count: int, columns: int) -> DataNode:
    """Returns the values of all samples, int32 (count, 1, columns), for the first sample.

    For the others those of one sample, (1, 1, columns), of no use. Values are images of one pixel,
    pasted into one.

    Args:
        values: int32 (columns,).
    """
    every, one = (types.Constant(np.arange(n, dtype=np.int32)) for n in (count, 1))
    ids = merge(split(every, is_first)[0], split(one, is_first)[1], is_first)
    gathered: DataNode = fn.multi_paste(
        fn.reshape(values, shape=[1, 1, columns]),
        in_ids=ids,
        out_anchors=fn.pad(fn.reshape(ids, shape=[-1, 1]), axes=[1], shape=[2]),
        output_size=fn.pad(ids.shape(dtype=types.INT32), axes=[0], shape=[2], fill_value=1),
    )
    return gathered


def _own_and_partner(
    table: DataNode, number: DataNode, *, same: bool, words: int, bits: int
) -> DataNode:
    """Returns index << bits | index of the partner, by place in the ring: int32 (count,).

    Args:
        table: int32 (count, 1, words + 1), group and place of each image.
        number: uint32 (count, 1), 0, 1, 2, …
    """

    shift, index = (types.Constant(x, dtype=types.UINT32) for x in (bits, 2**bits - 1))

    def as_row(column: DataNode) -> DataNode:
        return fn.reshape(column, shape=[1, -1])

    table = fn.reinterpret(table, dtype=types.UINT32, layout="")
    group, place = table[:, 0, :words], table[:, 0, words:]
    if words == 2:
        group = fn.reinterpret(group, dtype=types.INT64, shape=[-1, 1])
    # Place and index in one number, so that the distance behind an image names it. Unsigned numbers
    # begin anew below 0, which closes the ring: the next image is the farthest behind. Oneself is
    # at 0, where all that are of no use are put.
    code = (place << shift) + number
    use = group == as_row(group) if same else group != as_row(group)
    behind = (code - as_row(code)) * use
    partner = code - fn.reductions.max(behind, axes=[1], keep_dims=True) & index
    both = (number << shift) + partner
    at_place = number == as_row(place)
    by_place = fn.reductions.max(at_place * as_row(both), axes=[1])
    return fn.cast(by_place, dtype=types.INT32)
