"""Pairing: who meets whom, apart from what is then done to the two."""

from __future__ import annotations

from typing import NamedTuple

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import by_index
from dali_cutmix._rules import warn
from dali_cutmix._seeds import op_seed
from dali_cutmix.mixing import groups as by_group
from dali_cutmix.mixing.draw import broadcast_first

__all__ = ["GROUPED", "Group", "Pairs", "pair"]

GROUPED = ("same", "other")  # rules that ask for groups
_LITTLE_VARIETY = 16


class Group(NamedTuple):
    """The group of every sample.

    Fields:
        node: int32 (words,).
        words: 1, or 2 of a number of 64 bits.
    """

    node: DataNode
    words: int = 1


class Pairs(NamedTuple):
    """Indices in the batch, each int32 (), of the two images of every sample.

    Fields:
        order: a random permutation of the batch.
        original: None stands for the sample's own index.
        partner: None where the partners are a second batch.
        others: of two more partners, int32 (2,); None where none were asked for.
        paired: bool (), whether there is a partner; None where there always is.
    """

    order: DataNode
    original: DataNode | None
    partner: DataNode | None
    others: DataNode | None = None
    paired: DataNode | None = None


def pair(
    partner: str,
    batch_size: int,
    seed: int,
    *,
    keep_order: bool = True,
    second_batch: bool = False,
    small: bool = False,
    of_four: bool = False,
    group: Group | None = None,
) -> Pairs:
    """Returns the two images of every sample.

    Args:
        partner: rule of ``MixConfig.partner``.
        batch_size: the same in every iteration for all but ``"permutation"`` and
            ``"derangement"``.
        seed: of the mix.
        keep_order: with ``False`` the batch is shuffled too: ``original`` is a random permutation,
            and partners are drawn among the shuffled samples. That saves a copy of the images.
        second_batch: no partners are drawn.
        small: there is no other way than small batches, of which then nothing is said.
        of_four: two more are drawn, each as the first is, and apart from it. By ``"permutation"``
            or ``"derangement"``.

    Raises:
        ValueError: there are no two samples to pair.
    """
    order = fn.batch_permutation(seed=op_seed(seed, "order"))
    if second_batch:
        return Pairs(order, None, None)
    _check_batch_size(batch_size, small)
    if partner in GROUPED:
        assert group is not None
        _check_most(batch_size, partner)
        place, other = by_group.next_in_ring(
            group.node, order, batch_size, same=partner == "same", words=group.words
        )
        # To name all, in the order that there is, costs nothing here.
        return Pairs(order, None if keep_order else place, other, paired=place != other)
    original = None if keep_order else order
    if partner in ("flip", "roll"):
        places = [-1 - i if partner == "flip" else i - 1 for i in range(batch_size)]
        own = original
        if own is None:
            own = _own_index(batch_size, op_seed(seed, "place"))
        return Pairs(order, original, by_index(own, [i % batch_size for i in places]))

    def drawn(*path: int) -> DataNode:
        index = fn.batch_permutation(
            no_fixed_points=partner == "derangement", seed=op_seed(seed, "partner", *path)
        )
        if original is not None and partner == "derangement":
            index = fn.permute_batch(original, indices=index)
        # Else two permutations drawn apart need no composition.
        return index

    others = fn.stack(drawn(1), drawn(2)) if of_four else None
    return Pairs(order, original, drawn(), others)


def _check_batch_size(batch_size: int, small: bool) -> None:
    if batch_size < 2:
        raise ValueError(
            f"`batch_size` must be at least 2 for mixing, got {batch_size}: "
            "pass `partners=` to mix with a second batch."
        )
    if batch_size < _LITTLE_VARIETY and not small:
        warn(
            f"Mixing in a batch of {batch_size}: pairing has little variety below "
            f"{_LITTLE_VARIETY}."
        )


def _check_most(batch_size: int, partner: str) -> None:
    if batch_size > by_group.MOST:
        raise ValueError(
            f'`batch_size` must be at most {by_group.MOST} with `partner="{partner}"`, got '
            f"{batch_size}: each image is compared with each other one."
        )


def _own_index(batch_size: int, seed: int) -> DataNode:
    """Returns every sample's own index in the batch, int32 (), which no DALI operator tells.

    The first sample is the only one whose entry of a permutation equals the first's. From this
    0, 1, 1, 1, … the bits of 0, 1, 2, … are picked by index.
    """
    distinct = fn.batch_permutation(seed=seed)
    not_first = fn.cast(distinct != broadcast_first(distinct, distinct * 0), dtype=types.INT32)
    index = not_first * 0
    for bit in range((batch_size - 1).bit_length()):
        picked = by_index(not_first, [i >> bit & 1 for i in range(batch_size)])
        index = index + (picked << bit)
    return index
