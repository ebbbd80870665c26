"""Where boxes of objects are after the mix, and which of them are shown.

An operator on the CPU costs by the sample, not by the number, so what can is computed for the boxes
of all images at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix.mixing import avoidance
from dali_cutmix.mixing.plan import MixParams, Regions, Size, regions_of

__all__ = ["of_four", "of_two"]

_SECOND = np.array([[False], [True], [False], [False]])


def _with_filled(params: MixParams) -> tuple[MixParams, DataNode | None]:
    """Returns the plan in which what is filled counts as pasted, and where it is: bool ().

    So that boxes of the image are judged by it; those of the partner are then not to be shown.
    """
    filled: DataNode | None = None
    for pattern in params.patterns:
        regions, chosen = regions_of(params), pattern.chosen
        second = types.Constant(_SECOND[: 2 if regions.sources is None else 4])
        box = fn.reshape(pattern.numbers, shape=[2, 2])
        anchors, shapes = (
            x + (chosen & second) * (box[k : k + 1] - x)
            for k, x in enumerate((regions.anchors, regions.shapes))
        )
        sources = regions.sources
        if sources is not None:
            sources = sources + (chosen & second) * (box[:1] - sources)
        params = params._replace(regions=Regions(anchors, shapes, sources))
        filled = chosen if filled is None else filled | chosen
    return params, filled


def of_two(
    boxes: Sequence[DataNode], together: DataNode, params: MixParams, keep: tuple[float, ...]
) -> tuple[list[DataNode], DataNode]:
    """Returns the boxes of the image and of its partner where they are, and which are shown.

    Args:
        boxes: float32 (n, 4) and (m, 4), ltrb in [0, 1].
        together: the same in one, (n + m, 4).
        keep: of the image and of its partner, see `mix_boxes`.

    Returns:
        Boxes as given ones are, and bool (n + m, 1).
    """
    own, other = boxes
    params, filled = _with_filled(params)
    place = _place(params)
    if place.shift is None:
        pixels = together * place.size
    else:
        pixels = fn.cat(own * place.size, other * place.scale + place.shift)
    clipped = dmath.clamp(pixels, place.low, place.high)
    count = own.shape(dtype=types.INT32)[0]
    beyond = _beyond(pixels, clipped, place.somewhere, keep)
    kept, taken = beyond[:count, :1] < 0.0, beyond[count:, 1:] > 0.0
    if params.avoids is not None:
        kept, taken = _avoiding(kept, taken, other, params)
    if filled is not None:
        taken = taken & (filled ^ True)
    shown = fn.cat(kept, taken)
    if params.blended is not None:
        shown = shown | params.blended
    # What is not clipped is to the bit what it was: a product of a float32 and an integer, exact.
    taken = fn.cast(clipped[count:] / place.size, dtype=types.FLOAT)
    return [own, taken], shown


def of_four(
    boxes: Sequence[DataNode], params: MixParams, keep: tuple[float, ...]
) -> tuple[list[DataNode], DataNode]:
    """As `of_two`, of four images, where four may meet.

    Where they do not, the last two have empty regions, and none of their boxes is shown.
    """
    size = _doubles(fn.reshape(_size(params).node, shape=[1, 2]))
    params, filled = _with_filled(params)
    places, judged = _places_of_four(params, size)
    pixels = [x * at.scale + at.shift for x, at in zip(boxes, places, strict=True)]
    clipped = [dmath.clamp(x, at.low, at.high) for x, at in zip(pixels, places, strict=True)]
    covered = dmath.clamp(pixels[0], judged.low, judged.high)
    beyond = _beyond(fn.cat(*pixels), fn.cat(covered, *clipped[1:]), None, keep)
    count = boxes[0].shape(dtype=types.INT32)[0]
    kept = (beyond[:count, :1] < 0.0) & (_tiled(params) ^ True)
    taken = beyond[:, 1:] > 0.0
    kept, taken = kept | (taken[:count] & _tiled(params)), taken[count:]
    second = boxes[1].shape(dtype=types.INT32)[0]
    if params.avoids is not None:
        kept, partners = _avoiding(kept, taken[:second], boxes[1], params)
        taken = fn.cat(partners, taken[second:])
    if filled is not None:
        taken = taken & (filled ^ True)
    shown = fn.cat(kept, taken)
    if params.blended is not None:
        shown = fn.cat(shown[: count + second] | params.blended, shown[count + second :])
    return [fn.cast(x / size, dtype=types.FLOAT) for x in clipped], shown


def _avoiding(
    kept: DataNode, taken: DataNode, other: DataNode, params: MixParams
) -> tuple[DataNode, DataNode]:
    """Returns which boxes of image and partner are shown, (n, 1) and (m, 1), by `avoidance`."""
    assert params.avoids is not None
    assert params.box is not None
    area = fn.reshape(params.box, shape=[1, 4])
    coming = avoidance.taken(other, area, _size(params))
    coming = fn.transpose(coming[:, 1:], perm=[1, 0])
    taken = (taken & (params.avoids ^ True)) | (coming & params.avoids)
    return kept | params.avoids, taken


class _Moved(NamedTuple):
    """Where one of four images is shown; each is float64 (1, 4), in pixels, ltrb.

    Fields:
        scale, shift: by which boxes of the image become pixels of the output.
        low, high: (left, top) and (right, bottom) of its region, each twice. Of one that is empty
            they are -1, where no box is: one without area may lie on its edge.
    """

    scale: DataNode
    shift: DataNode
    low: DataNode
    high: DataNode


def _places_of_four(params: MixParams, size: DataNode) -> tuple[list[_Moved], _Moved]:
    """Returns where four images are shown, and what the boxes of the first are judged by.

    That is its own region where four images meet, and else what is pasted into it.

    Args:
        size: float64 (1, 4), (W, H, W, H).
    """
    regions = regions_of(params)
    assert regions.sources is not None
    rows = _doubles(fn.cat(regions.sources, regions.anchors, regions.shapes))
    low, sides = rows[4:8], rows[8:]
    shift, somewhere = low - rows[:4], sides > 0.0
    high = (low + sides + 1.0) * somewhere - 1.0
    low = (low + 1.0) * somewhere - 1.0
    original, partner, *others = (
        _Moved(size, shift[k : k + 1], low[k : k + 1], high[k : k + 1]) for k in range(4)
    )
    tiled = _tiled(params)
    judged = original._replace(
        low=partner.low + tiled * (original.low - partner.low),
        high=partner.high + tiled * (original.high - partner.high),
    )
    if params.resized is not None:
        partner = partner._replace(
            scale=size + params.resized * (sides[1:2] - size),
            shift=partner.shift + params.resized * partner.low,
        )
    if params.blended is not None:
        partner = partner._replace(
            low=partner.low * (params.blended ^ True),
            high=partner.high + params.blended * (size - partner.high),
        )
    return [original, partner, *others], judged


def _doubles(yx: DataNode) -> DataNode:
    """Returns (x, y, x, y) of numbers (y, x), int32 (n, 2), as float64 (n, 4)."""
    y, x = yx[:, 0], yx[:, 1]
    return fn.cast(fn.stack(x, y, x, y, axis=1), dtype=types.FLOAT64)


def _size(params: MixParams) -> Size:
    assert params.size is not None
    return params.size


def _tiled(params: MixParams) -> DataNode:
    assert params.tiled is not None
    return params.tiled


class _Place(NamedTuple):
    """Where the partner is shown; each is float64 (1, 4), in pixels, ltrb.

    Fields:
        size: of the images, (W, H, W, H).
        scale, shift: by which boxes of the partner become pixels; no shift is None.
        low, high: (left, top) and (right, bottom) of what is pasted, each twice. Of what is
            blended, those of the image.
        somewhere: bool (1, 4), whether anything is pasted.
    """

    size: DataNode
    scale: DataNode
    shift: DataNode | None
    low: DataNode
    high: DataNode
    somewhere: DataNode


def _place(params: MixParams) -> _Place:
    # All of it are sums of these eight numbers.
    regions = [fn.reshape(part, shape=[4]) for part in regions_of(params)[:2]]
    _, _, y, x, height, width, h, w = np.eye(8, dtype=np.int32)
    sums = np.stack(
        [
            *(width, height, width, height),
            *(x, y, x, y),
            *(x + w, y + h, x + w, y + h),
            *(w, h, w, h),
        ]
    )
    numbers = fn.cat(*regions) * types.Constant(sums)
    found = fn.reductions.sum(numbers, axes=[1], dtype=types.INT32)
    found = fn.cast(fn.reshape(found, shape=[4, 4]), dtype=types.FLOAT64)
    size, low, high = found[:1], found[1:2], found[2:3]
    scale, shift = size, None
    if params.resized is not None:
        scale = size + params.resized * (found[3:] - size)
        shift = low * params.resized
    if params.blended is not None:
        low = low * (params.blended ^ True)
        high = high + params.blended * (size - high)
    return _Place(size, scale, shift, low, high, low < high)


def _beyond(
    pixels: DataNode, clipped: DataNode, somewhere: DataNode | None, keep: tuple[float, ...]
) -> DataNode:
    """Returns by how much what is covered of boxes is more than each of two shares: (n, 2).

    Args:
        pixels: boxes, float64 (n, 4).
        clipped: the same, clipped to what they are judged by.
        somewhere: bool (1, 4), whether that is anything; None where they were clipped to what is
            outside of the image if not.
    """
    start, clipped_start = pixels[:, :2], clipped[:, :2]
    sides, covered = pixels[:, 2:] - start, clipped[:, 2:] - clipped_start
    flat = sides <= 0.0
    inside = flat & (clipped_start == start)
    if somewhere is not None:
        inside = inside & somewhere[:, :2]
    covered = covered + inside
    sides = sides + flat
    part, whole = (x[:, :1] * x[:, 1:] for x in (covered, sides))
    # One comparison each: what is not covered at all is less than any share, what is wholly inside
    # more. A constant of Python's, or of NumPy's, becomes a float32.
    shares = np.array([[max(keep[0], 1e-300), min(keep[1], np.nextafter(1, 0))]])
    bits = types.Constant(shares.view(np.int32))
    return part - whole * fn.reinterpret(bits, dtype=types.FLOAT64)
