"""Every random draw of a mix, as one value. Nothing after it is random.

Draws are made on the CPU, because DALI takes operator arguments only from there; they are a few
numbers a sample. Every random operator has a seed of its own: one seed given to two operators
makes their draws alike, and DALI's automatic seeds change when an output is added to a pipeline.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix import boxes
from dali_cutmix.config import MixConfig
from dali_cutmix.table import Table, of_first

__all__ = ["Draws", "MixParams", "draw", "draw_boxes", "has_law", "op_seed", "sample"]


_LARGEST = 640  # pixels a side: 6 MB


class MixParams(NamedTuple):
    """What is done to each sample of a batch; a DataNode (CPU) a field.

    As drawn by `sample`, ``box`` is None and ``lam`` is the draw. As returned by `mix`, both are
    final: what the pixels and the label show. Either form can be passed to `mix` in place of a
    draw; where ``box`` is given, ``lam`` and ``box`` are taken as they are.

    Fields:
        lam: float64 (), share of the ORIGINAL image in [0, 1]; float32 once final. A sample that
            is not mixed has 1.
        partner: int32 (), index in the batch of the image that gives the patch; None where the
            partners are a second batch.
        position: float64 (2,) in [0, 1): place of the box in (y, x). For the boxes around a centre
            that is floor(position * S), for those inside the image the first pixel is
            floor(position * (S - side + 1)). None once final.
        sides: float64 (2,) in [0, 1): (h, w) between the bounds of ``minmax``; else, and once
            final, None.
        blended: bool (): MixUp, no box. None in final params: nobody; as drawn: all or nobody,
            whichever method the configuration has.
        box: int32 (4,), ``(y, x, h, w)`` in pixels, clipped to the image. An empty one is
            ``(H, W, 0, 0)`` and means that no pixel is pasted.
        original: int32 (), index in the batch of the original image; None stands for the sample's
            own place.
    """

    lam: DataNode
    partner: DataNode | None = None
    position: DataNode | None = None
    sides: DataNode | None = None
    blended: DataNode | None = None
    box: DataNode | None = None
    original: DataNode | None = None


class Draws(NamedTuple):
    """The draws of `draw`: what `MixParams` has a sample, here a row of a table, see `Table`.

    Fields:
        table: whose rows the others are; with ``mode="batch"`` it has one, for all samples.
        lam: float64 (N, 1).
        position, sides: float64 (N, 2).
        blended: bool (N, 1).
        partner, original: int32 (), for each sample; not in the table.
    """

    table: Table
    lam: DataNode
    position: DataNode | None
    sides: DataNode | None
    blended: DataNode | None
    partner: DataNode | None
    original: DataNode | None

    def for_each_sample(self) -> MixParams:
        """Returns the draws a sample."""

        def doubles(x: DataNode | None, shape: list[int]) -> DataNode | None:
            if x is None:
                return None
            bits = self.table.rows(fn.reinterpret(x, dtype=types.INT32))
            return fn.reinterpret(bits, dtype=types.FLOAT64, shape=shape)

        blended = self.blended
        if blended is not None:
            blended = (
                fn.reshape(self.table.rows(fn.cast(blended, dtype=types.INT32)), shape=[]) != 0
            )
        return MixParams(
            lam=doubles(self.lam, []),
            partner=self.partner,
            position=doubles(self.position, [2]),
            sides=doubles(self.sides, [2]),
            blended=blended,
            original=self.original,
        )


def sample(cfg: MixConfig, batch_size: int, seed: int, **options: Any) -> MixParams:
    """Returns the draws for one batch, for each sample; for the arguments see `draw`."""
    return draw(cfg, batch_size, seed, **options).for_each_sample()


def draw(
    cfg: MixConfig,
    batch_size: int,
    seed: int,
    *,
    keep_order: bool = True,
    enabled: DataNode | None = None,
    own_partners: bool = True,
) -> Draws:
    """Returns the draws for one batch, in a table.

    Args:
        cfg: what to draw.
        batch_size: samples a batch, the same in every iteration for ``mode="pair"`` and the
            partners ``"flip"`` and ``"roll"``.
        seed: seed of this mix; every draw derives its own from it.
        keep_order: with ``False`` the batch is shuffled too: ``original`` is a random permutation
            and partners are drawn among the shuffled samples.
        enabled: bool (), the same for the whole batch: where it is False nothing is mixed.
        own_partners: with ``False`` no partners are drawn.
    """
    # Any permutation will do: the rows are drawn alike.
    order, original, partner = draw_partners(
        cfg, batch_size, seed, keep_order=keep_order, own_partners=own_partners
    )
    if cfg.mode == "pair":
        row = by_place(order, [min(i, batch_size - 1 - i) for i in range(batch_size)])
        table = Table(order, row, batch_size)
    else:
        table = Table(order, order, batch_size if cfg.mode == "elem" else 1)

    mixed = None if enabled is None else table.of_first(enabled)
    if cfg.prob < 1:
        drawn = _coin(cfg.prob, op_seed(seed, "apply"), table)
        mixed = drawn if mixed is None else drawn & mixed
    both = cfg.cutmix_alpha > 0 and cfg.mixup_alpha > 0
    blend = _coin(1 - cfg.switch_prob, op_seed(seed, "switch"), table) if both else None
    lam = _lam(cfg, seed, blend, table)
    if mixed is not None:
        lam = 1.0 - mixed * (1.0 - lam)
    blended = position = sides = None
    if both:
        blended = blend if mixed is None else blend & mixed
    elif cfg.mixup_alpha > 0 and mixed is not None:
        blended = mixed & (lam <= 1.0)  # one for each row
    if cfg.cutmix_alpha > 0:
        position = _uniform_pair(op_seed(seed, "position"), table)
    if cfg.minmax is not None:
        sides = _uniform_pair(op_seed(seed, "sides"), table)
    return Draws(table, lam, position, sides, blended, partner, original)


def draw_partners(
    cfg: MixConfig, batch_size: int, seed: int, *, keep_order: bool, own_partners: bool = True
) -> tuple[DataNode, DataNode | None, DataNode | None]:
    """Returns a permutation, and originals and partners, see `draw`; each int32 ()."""
    order = fn.batch_permutation(seed=op_seed(seed, "order"))
    original = order if own_partners and not keep_order else None
    return order, original, _partner(cfg, batch_size, seed, original) if own_partners else None


def has_law(cfg: MixConfig, size: tuple[int, int]) -> bool:
    """Says whether `draw_boxes` can draw: CutMix alone, around a centre, a sample its own box.

    Not for large images, whose tables would take more than some megabytes.
    """
    around = cfg.minmax is None and cfg.box != "inside"
    uniform = cfg.cutmix_alpha == 1 and cfg.mixup_alpha == 0 and cfg.correct_lam
    return around and uniform and cfg.mode == "elem" and max(size) <= _LARGEST


def draw_boxes(
    cfg: MixConfig, size: tuple[int, int], seed: int, enabled: DataNode | None = None
) -> DataNode:
    """Returns a box for each sample, drawn from `boxes.law` without a detour by lam and centre.

    Three operators instead of some forty: the class of the sides by its probability, which gives a
    table by centre, and a row of that for each axis.

    Args:
        cfg: one that `has_law`.
        size: (H, W) of the images.
        enabled: bool (): where it is False all boxes are empty; what is drawn does not change.

    Returns:
        int32 (4, 2): rows ``(0, 0)``, ``(y, x)``, ``(H, W)``, ``(h, w)``.
    """
    probabilities, axes = boxes.law(size, odd=cfg.box == "timm")
    tables = axes[:1] if size[0] == size[1] else axes
    of_class = np.concatenate(tables, axis=1)
    unmixed = [
        np.broadcast_to(np.array([0, length, length, 0], np.int32), (length, 4)) for length in size
    ]
    of_class = np.concatenate([of_class, np.concatenate(unmixed[: len(tables)])[None]])
    shares = [*(cfg.prob * probabilities).tolist(), 1 - cfg.prob]
    by_centre = fn.random.choice(
        types.Constant(of_class), p=shares, seed=op_seed(seed, "class of the box")
    )
    own = op_seed(seed, "centre")
    if len(tables) == 1:
        rows = fn.random.choice(by_centre, shape=[2], seed=own)
    else:
        parts = by_centre[: size[0]], by_centre[size[0] :]
        rows = fn.stack(
            *(fn.random.choice(part, seed=op_seed(own, str(i))) for i, part in enumerate(parts))
        )
    drawn = fn.transpose(rows, perm=[1, 0])
    if enabled is None:
        return drawn
    empty = types.Constant(np.array([(0, 0), size, size, (0, 0)], np.int32))
    return empty + enabled * (drawn - empty)


def op_seed(seed: int, *path: str | int) -> int:
    """Returns the seed of one random operator, a non-negative int64.

    Distinct paths give independent streams (NumPy's SeedSequence).

    >>> op_seed(0, "flip") != op_seed(0, "crop") != op_seed(1, "crop")
    True
    """
    words = [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in path]
    state = np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def by_place(x: DataNode, places: list[int]) -> DataNode:
    """Returns sample ``places[i]`` of x as sample i; fails unless the batch has len(places)."""
    return fn.permute_batch(x, indices=places)


def _lam(cfg: MixConfig, seed: int, blend: DataNode | None, table: Table) -> DataNode:
    """Returns lam by the method that each sample has if it is mixed."""
    mixup_lam = cut_lam = None
    if cfg.mixup_alpha > 0:
        mixup_lam = _beta(cfg.mixup_alpha, op_seed(seed, "mixup lam"), table)
    if cfg.minmax is not None:  # sides are drawn instead; lam will be that of the box
        cut_lam = fn.cast(table.zeros(1), dtype=types.FLOAT64)
    elif cfg.cutmix_alpha > 0:
        cut_lam = _beta(cfg.cutmix_alpha, op_seed(seed, "cutmix lam"), table)
    if blend is None:
        return cut_lam if mixup_lam is None else mixup_lam
    return mixup_lam * blend + cut_lam * (blend ^ True)


def _coin(probability: float, seed: int, table: Table) -> DataNode:
    return fn.random.coin_flip(table.zeros(1), probability=probability, dtype=types.BOOL, seed=seed)


def _beta(alpha: float, seed: int, table: Table) -> DataNode:
    # In float64: in float32 a small alpha gives exact zeros and ones.
    return fn.random.beta(table.zeros(1), alpha=alpha, beta=alpha, dtype=types.FLOAT64, seed=seed)


def _uniform_pair(seed: int, table: Table) -> DataNode:
    return fn.random.uniform(table.zeros(2), range=[0.0, 1.0], dtype=types.FLOAT64, seed=seed)


def _partner(cfg: MixConfig, batch_size: int, seed: int, original: DataNode | None) -> DataNode:
    if cfg.partner in ("flip", "roll"):
        places = [-1 - i if cfg.partner == "flip" else i - 1 for i in range(batch_size)]
        own = _own_place(batch_size, op_seed(seed, "place")) if original is None else original
        return by_place(own, [place % batch_size for place in places])
    partner = fn.batch_permutation(
        no_fixed_points=cfg.partner == "derangement", seed=op_seed(seed, "partner")
    )
    if original is None or cfg.partner == "permutation":
        return partner  # two permutations drawn apart need no composition
    return fn.permute_batch(original, indices=partner)


def _own_place(batch_size: int, seed: int) -> DataNode:
    """Returns every sample's own place in the batch, int32 (), which no DALI operator tells.

    The first sample is the only one whose entry of a permutation equals the first's. From this
    0, 1, 1, 1, … the bits of 0, 1, 2, … are picked by place.
    """
    distinct = fn.batch_permutation(seed=seed)
    not_first = fn.cast(distinct != of_first(distinct, distinct * 0), dtype=types.INT32)
    bits = range((batch_size - 1).bit_length())
    picked = [by_place(not_first, [i >> bit & 1 for i in range(batch_size)]) for bit in bits]
    place = not_first * 0
    for bit, value in zip(bits, picked, strict=True):
        place = place + (value << bit)
    return place
