"""Patterns: what is shown of two images other than by a box, in many boxes or pixel by pixel.

Where a pixel is wholly of one image it is copied, whatever its type: of partner ^ image all is kept
where the image shows, and all else made 0, so that ^ partner gives both. In words of 8 bytes that
is a fourth of what arithmetic with a mask takes on the CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import merge, split
from dali_cutmix._rules import states
from dali_cutmix.mixing.plan import MixParams, Part, Pattern, Regions, Size

__all__ = ["Pair", "pasted", "shown"]

_BYTES = {"uint8": 1, "int16": 2, "int32": 4, "float32": 4}
_INTEGERS = {1: types.UINT8, 2: types.INT16, 4: types.INT32, 8: types.INT64}


class Pair(NamedTuple):
    """An image and its partner, (H, W, C) of `dtype`, of all samples or of some.

    Fields:
        own, other: on the CPU or a GPU.
        dtype: "uint8", "int16", "int32" or "float32"; weights are for uint8 and float32 alone.
        size: of both.
    """

    own: DataNode
    other: DataNode
    dtype: str
    size: Size

    def pixels(self, words: DataNode) -> DataNode:
        """Returns words as an image, of integers as wide as `dtype`."""
        kind = _INTEGERS[_BYTES[self.dtype]]
        if self.size.known is not None:
            return fn.reinterpret(words, dtype=kind, shape=[*self.size.known, -1], layout="HWC")
        shape = self.own.shape(dtype=types.INT32)
        return fn.reinterpret(words, dtype=kind, shape=shape, layout="HWC")

    def words(self, pixels: DataNode) -> DataNode:
        """Returns an image as the widest integers that its bytes fill, whatever its channels."""
        width = _BYTES[self.dtype]
        if self.size.known is not None:
            width = math.gcd(8, math.prod(self.size.known) * width)
        return fn.reinterpret(pixels, dtype=_INTEGERS[width], shape=[-1], layout="")


def shown(pattern: Pattern, pair: Pair, otherwise: DataNode) -> DataNode:
    """Returns images by the pattern, HWC, where it was chosen, and else as they are otherwise."""
    part = Part.of(pattern, pair.size, pair.own.device)
    own, other = (split(x, pattern.chosen)[0] for x in (pair.own, pair.other))
    found = _by_pattern(pattern, part, Pair(own, other, pair.dtype, part.size))
    rest = split(fn.reshape(otherwise, layout="HWC"), pattern.chosen)[1]
    return merge(found, rest, pattern.chosen)


def pasted(params: MixParams) -> tuple[Regions, DataNode]:
    """Returns all regions of a plan whose patterns are boxes, and whose pixels each shows.

    The latter as indices in the batch, int32 (regions,).
    """
    assert params.original is not None
    assert params.partner is not None
    original, partner, regions = params.original, params.partner, params.regions
    if not params.patterns and regions is not None:
        ids = fn.stack(original, partner)
        return regions, ids if params.others is None else fn.cat(ids, params.others)
    assert params.size is not None
    first, others, taken_from = original, [], None
    anchors, shapes = ([part] for part in params.size.whole())
    if regions is not None:
        anchors, shapes, taken_from = [regions.anchors], [regions.shapes], regions.sources
        others.append(fn.reshape(partner, shape=[1]))
    if params.others is not None:
        others.append(params.others)
    for pattern in params.patterns:
        boxes, count = _boxes(pattern.numbers), pattern.columns // 4
        shown = partner
        if pattern.method.shows == "own boxes":
            first, shown = first + pattern.chosen * (partner - first), original
        anchors.append(boxes[:, :2])
        shapes.append(boxes[:, 2:])
        others.append(shown + types.Constant(np.zeros(count, np.int32)))
    if taken_from is not None:
        taken_from = fn.cat(taken_from, *anchors[1:])
    ids = fn.cat(fn.reshape(first, shape=[1]), *others)
    return Regions(fn.cat(*anchors), fn.cat(*shapes), taken_from), ids


def _boxes(numbers: DataNode) -> DataNode:
    return fn.reshape(numbers, shape=[-1, 4])


def _by_pattern(pattern: Pattern, part: Part, pair: Pair) -> DataNode:
    method = pattern.method
    if method.shows == "fill":
        own, fill = fn.reshape(pair.own, layout="HWC"), method.filling(pair.dtype)
        return _erased(own, _boxes(part.numbers), fill)
    if method.shows == "boxes":
        return _joined(_erased(_difference(pair), _boxes(part.numbers)), pair)
    if method.shows == "own boxes":
        swapped = pair._replace(own=pair.other, other=pair.own)
        return _joined(_erased(_difference(pair), _boxes(part.numbers)), swapped)
    if method.shows == "mask":
        return _joined(_masked(method.mask(part), pair), pair)
    weights = [x.gpu() if part.device == "gpu" else x for x in method.weights(part)]
    if pattern.heavier:
        down, across = (fn.expand_dims(x, axes=[k]) for k, x in zip((1, 0), weights, strict=True))
        return _joined(_masked(down * across <= 0.5, pair), pair)
    return _averaged(weights[0], weights[1], pair)


def _difference(pair: Pair) -> DataNode:
    """Returns image ^ partner, as an image."""
    return pair.pixels(pair.words(pair.own) ^ pair.words(pair.other))


def _joined(kept: DataNode, pair: Pair) -> DataNode:
    """Returns the partner where nothing of the difference was kept, and else the image."""
    pixels = pair.pixels(pair.words(kept) ^ pair.words(pair.other))
    if pair.dtype == "float32":
        return fn.reinterpret(pixels, dtype=types.FLOAT)
    return pixels


@states("`fill` of Cutout must be a number, or one for each channel of the images.")
def _erased(images: DataNode, boxes: DataNode, fill: float | tuple[float, ...] = 0.0) -> DataNode:
    """Returns images with boxes, int32 (K, 4), filled."""
    anchors, shapes = (
        fn.cast(fn.reshape(x, shape=[-1]), dtype=types.FLOAT) for x in (boxes[:, :2], boxes[:, 2:])
    )
    return fn.erase(images, anchor=anchors, shape=shapes, axes=[0, 1], fill_value=fill)


def _masked(mask: DataNode, pair: Pair) -> DataNode:
    """Returns the difference where the mask, bool (H, W), is True, and else 0."""
    difference, kind = _difference(pair), _INTEGERS[_BYTES[pair.dtype]]
    bits = fn.reinterpret(mask, dtype=types.UINT8)
    if pair.dtype == "uint8" and pair.own.device == "cpu":
        return _masked_bytes(difference, bits, pair)
    bits = fn.cast(bits, dtype=kind) * types.Constant(
        255 if kind == types.UINT8 else -1, dtype=kind
    )
    return difference & fn.expand_dims(bits, axes=[2])


def _masked_bytes(difference: DataNode, bits: DataNode, pair: Pair) -> DataNode:
    """As `_masked`, by words, on the CPU.

    One value is made three by fn.color_space_conversion, where there are three: a twentieth of the
    time of arithmetic. On a GPU that would launch a kernel for each image.
    """
    size = pair.size.known
    if size is not None and math.prod(size) % 8 == 0:
        words = fn.reinterpret(bits, dtype=types.INT64, shape=[-1])
        words = words * types.Constant(255, dtype=types.INT64)  # no byte reaches the next
        bits = fn.reinterpret(words, dtype=types.UINT8, shape=[*size, 1], layout="HWC")
    else:
        bits = bits * types.Constant(255, dtype=types.UINT8)
        bits = fn.reshape(fn.expand_dims(bits, axes=[2]), layout="HWC")
    of_three = pair.own.shape(dtype=types.INT32)[2] == 3
    (color, other), (color_bits, bits) = (split(x, of_three) for x in (difference, bits))
    color_bits = fn.color_space_conversion(color_bits, image_type=types.GRAY, output_type=types.RGB)
    colored = pair._replace(own=color)
    color = colored.pixels(colored.words(color) & colored.words(color_bits))
    return merge(color, fn.reshape(other & bits, layout="HWC"), of_three)


def _averaged(down: DataNode, across: DataNode, pair: Pair) -> DataNode:
    """Returns image + weight * (partner - image); bytes are rounded to nearest."""
    weights = fn.expand_dims(down, axes=[1, 2]) * fn.expand_dims(across, axes=[0, 2])
    kind, other = types.FLOAT, pair.other
    if pair.dtype == "uint8":
        kind, other = types.UINT8, fn.cast(other, dtype=types.INT16)
    blended = fn.cast(pair.own + (other - pair.own) * weights, dtype=kind)
    return fn.reshape(blended, layout="HWC")
