"""Every random draw of a mix, as one value. Nothing after it is random.

Draws are made on the CPU, because DALI takes operator arguments only from there; they are a few
numbers a sample. Every random operator has a seed of its own: one seed given to two operators
makes their draws alike, and DALI's automatic seeds change when an output is added to a pipeline.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix.config import MixConfig

__all__ = ["MixParams", "op_seed", "sample"]


class MixParams(NamedTuple):
    """What is done to each sample of a batch; a DataNode (CPU) a field.

    As drawn by `sample`, ``box`` is None and ``lam`` is the draw. As returned by `mix`, both are
    final: what the pixels and the label show. Either form can be passed to `mix` in place of a
    draw; where ``box`` is given, ``lam`` and ``box`` are taken as they are.

    Fields:
        lam: float64 (), share of the ORIGINAL image in [0, 1]; float32 once final.
        partner: int32 (), index in the batch of the image that gives the patch.
        centre: float64 (2,), integer-valued (y, x), centre of the box before clipping.
        box: int32 (4,), ``(y, x, h, w)`` in pixels, clipped to the image; ``h * w == 0`` means
            that the original is kept as it is.
        original: int32 (), index in the batch of the original image; None stands for the sample's
            own place.
    """

    lam: DataNode
    partner: DataNode
    centre: DataNode | None = None
    box: DataNode | None = None
    original: DataNode | None = None


def sample(cfg: MixConfig, size: DataNode, seed: int, *, keep_order: bool = True) -> MixParams:
    """Returns the draws for one batch.

    Args:
        cfg: what to draw.
        size: int (2,), (H, W) of the images, CPU.
        seed: seed of this mix; every draw derives its own from it.
        keep_order: with ``False`` the batch is shuffled too: ``original`` is a random permutation
            and partners are drawn among the shuffled samples.
    """
    alpha = float(cfg.cutmix_alpha)
    # In float64: in float32 a small alpha gives exact zeros and ones.
    lam = fn.random.beta(
        alpha=alpha, beta=alpha, dtype=types.FLOAT64, seed=op_seed(seed, "cutmix lam")
    )
    if cfg.prob < 1:
        mixed = fn.random.coin_flip(probability=cfg.prob, seed=op_seed(seed, "apply"))
        lam = 1.0 - mixed * (1.0 - lam)
    position = fn.random.uniform(
        range=[0.0, 1.0], shape=[2], dtype=types.FLOAT64, seed=op_seed(seed, "centre")
    )
    centre = dmath.floor(position * size)
    if cfg.mode == "batch":
        lam, centre = _of_first(lam), _of_first(centre)

    partner = fn.batch_permutation(
        no_fixed_points=cfg.partner == "derangement", seed=op_seed(seed, "partner")
    )
    if keep_order:
        return MixParams(lam, partner, centre)
    original = fn.batch_permutation(seed=op_seed(seed, "order"))
    # original o partner: who was paired by place is still paired, after the shuffle.
    partner = fn.permute_batch(original, indices=partner)
    return MixParams(lam, partner, centre, original=original)


def op_seed(seed: int, *path: str | int) -> int:
    """Returns the seed of one random operator, a non-negative int64.

    Distinct paths give independent streams (NumPy's SeedSequence).

    >>> op_seed(0, "flip") != op_seed(0, "crop") != op_seed(1, "crop")
    True
    """
    words = [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in path]
    state = np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _of_first(x: DataNode) -> DataNode:
    """Returns the first sample's value for every sample, whatever the batch size."""
    return fn.permute_batch(x, indices=fn.zeros(shape=[], dtype=types.INT32))
