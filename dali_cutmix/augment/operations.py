"""The operations on uint8 images, each a function from the samples that get it to what they become.

A batch is split by operation, each part gets its own, and the parts are merged again, by reference
(`apply_ops`). Samples that get none are the same bytes. Nothing here is random.

On a GPU the bytes are the CPU's, but where a warp or a blur comes close to a half, and after
bicubic warps. Distances from Pillow 13 on photographs of 112 x 160, in units of 255, largest and
mean; the tests hold these bounds:

    invert, posterize, solarize, solarize_add      0
    brightness, color, contrast, sharpness         1, 0.005  (the conversion to grey, float32)
    auto_contrast                                  1, 0.01   (Pillow rounds whole numbers down)
    equalize                                       1, 0.5
    grayscale                                      1, 0.01
    rotate, shear_*, translate_*, bilinear         mean 0.6  (Pillow rounds down; edges differ)
        the same, bicubic                          mean 0.9 on the CPU, 1.2 on a GPU
        the same, nearest                          0.5 % of the pixels, rotated ones only
    blur                                           mean 0.6  (Pillow's is three box filters)

Bicubic interpolation has the coefficient -1.0 in Pillow, -0.75 on the CPU and -0.5 on a GPU; there
is no operator with another. At magnitude 9 on 224 x 224 the CPU is 0.60 from Pillow in the mean, a
GPU 0.80, and the two 0.28 from each other; with Pillow's own coefficient 0.50 would be left.
Nothing nearer is as cheap. The sum 4/3 * bicubic - 1/3 * bilinear reaches 0.55 on the CPU, 5/4 and
-1/4 reach 0.76 on a GPU, in two warps and arithmetic. A bilinear warp of the image enlarged
threefold (Lanczos) gives both the same pixels, 0.60 from Pillow, in ten times the time that the
bicubic warp takes on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import merge, split
from dali_cutmix._graph import paste
from dali_cutmix._validation import checked_numbers
from dali_cutmix.augment.draws import Op, OpDraw, OpPolicy, ops_and_layers
from dali_cutmix.augment.nodes import lookup, to_device_of
from dali_cutmix.augment.policies import RandAugment, TrivialAugmentWide

__all__ = ["CATALOGUE", "Canvas", "Part", "apply_ops"]

_INTERPOLATION = {
    "nearest": types.INTERP_NN,
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
}


class Canvas(NamedTuple):
    """What the operations of one policy share: (H, W), and how moved pixels are found."""

    size: tuple[int, int]
    fill: list[float]
    interpolation: str  # of _INTERPOLATION, or "random"


class Part(NamedTuple):
    """The samples of a batch that get the same operation, or one of a family.

    ``of`` returns their part of a node that has the whole batch, as every constant has.
    """

    images: DataNode
    op: DataNode
    argument: DataNode
    cubic: DataNode | None
    of: Callable[[DataNode], DataNode]
    canvas: Canvas


def apply_ops(
    images: DataNode,
    draw: OpDraw,
    policy: OpPolicy,
    *,
    size: tuple[int, int],
    fill: Sequence[float],
) -> DataNode:
    """Returns uint8 images after the drawn operations.

    Args:
        images: uint8 HWC RGB, all of `size`, CPU or GPU.
        draw: operations that `policy` has, as many as it has layers.
        policy: says which operations there can be, and how many layers: only those are built.
        size: (H, W).
        fill: RGB in [0, 255] outside of the image; TrivialAugment's is black.
    """
    canvas = Canvas(size, [float(v) for v in checked_numbers("fill", fill, 3)], "bilinear")
    if isinstance(policy, RandAugment):
        canvas = canvas._replace(interpolation=policy.interpolation)
    elif isinstance(policy, TrivialAugmentWide):
        canvas = Canvas(size, [0.0] * 3, "nearest")
    ops, layers = ops_and_layers(policy)
    functions = list(dict.fromkeys(f for op, f in CATALOGUE.items() if op in ops))
    if not functions:
        return images
    # -1 is none of them: IDENTITY.
    indices = [functions.index(f) if (f := CATALOGUE.get(op)) in functions else -1 for op in Op]
    index = lookup(draw.op, indices, types.INT32)
    images = fn.reshape(images, layout="HWC")
    for layer in range(layers):
        cubic = None if draw.cubic is None else draw.cubic[layer]
        here = OpDraw(draw.op[layer], draw.argument[layer], cubic)
        function_here = index[layer]
        for i, function in enumerate(functions):
            images = _apply(images, function_here == i, here, canvas, function)
    return images


def _apply(
    images: DataNode,
    chosen: DataNode,
    draw: OpDraw,
    canvas: Canvas,
    function: Callable[[Part], DataNode],
) -> DataNode:
    # Batches are split and merged by reference, without a copy. An operator whose part is empty is
    # not run.
    def of(node: DataNode) -> DataNode:
        return split(node, chosen)[0]

    part, rest = split(images, chosen)
    cubic = None if draw.cubic is None else of(draw.cubic)
    changed = function(Part(part, of(draw.op), of(draw.argument), cubic, of, canvas))
    return merge(changed, rest, chosen)


# The catalogue


def _warp(part: Part) -> DataNode:
    """Rotated, sheared or moved: one matrix from an output pixel to where its value comes from."""
    height, width = part.canvas.size
    values = fn.one_hot(part.op, num_classes=5) * part.argument
    matrix = fn.transforms.rotation(angle=values[Op.ROTATE], center=[width / 2, height / 2])
    matrix = fn.transforms.shear(matrix, shear=values[Op.SHEAR_X : Op.TRANSLATE_X])
    offset = values[Op.TRANSLATE_X :]
    if part.canvas.interpolation == "nearest":
        # A point between two pixels belongs to the farther one, as in Pillow: every point is one at
        # 90 degrees where H - W is odd, and the CPU and a GPU would decide it by float32.
        offset = offset + 1e-4
    matrix = fn.transforms.translation(matrix, offset=offset)
    last_row = part.of(types.Constant(np.array([[0, 0, 1]], np.float32)))
    matrix = fn.cat(matrix, last_row, axis=0)
    if part.canvas.interpolation != "random":
        return _warp_by(part.images, matrix, part.canvas, part.canvas.interpolation)
    assert part.cubic is not None
    images = split(part.images, part.cubic)
    matrices = split(matrix, part.cubic)
    cubic = _warp_by(images[0], matrices[0], part.canvas, "bicubic")
    linear = _warp_by(images[1], matrices[1], part.canvas, "bilinear")
    return merge(cubic, linear, part.cubic)


def _warp_by(images: DataNode, matrix: DataNode, canvas: Canvas, interpolation: str) -> DataNode:
    # Several times as fast on the CPU as fn.warp_affine, which also has only one fill value and no
    # bicubic interpolation.
    return fn.experimental.warp_perspective(
        images,
        matrix=matrix,
        fill_value=canvas.fill,
        interp_type=_INTERPOLATION[interpolation],
    )


# fn.cast and operators with a uint8 output round to the nearest, Pillow cuts: half a unit less. A
# hair less than a half, because halves go away from zero on the CPU and to even on a GPU, and
# because float32 turns whole numbers into a little less than whole ones.
_HALF = 0.4999


def _brighten(part: Part) -> DataNode:
    return fn.brightness_contrast(
        part.images, brightness=part.argument, brightness_shift=-_HALF / 255
    )


def _contrast(part: Part) -> DataNode:
    """Away from the mean of the grey image, which Pillow rounds to the nearest."""
    if part.images.device == "gpu":  # where the mean is, too: it cannot be an argument
        return _contrast_by_blending(part)
    mean = dmath.floor(fn.reductions.mean(_grey(part.images)) + 0.5)
    return fn.brightness_contrast(
        part.images, contrast=part.argument, contrast_center=mean, brightness_shift=-_HALF / 255
    )


def _contrast_by_blending(part: Part) -> DataNode:
    mean = fn.reductions.mean(_grey(part.images), axes=[0, 1], keep_dims=True)
    return _blend(part.images, dmath.floor(mean + 0.5), part.argument)


def _color(part: Part) -> DataNode:
    """Away from the grey image."""
    return _blend(part.images, _grey(part.images), part.argument)


def _sharpen(part: Part) -> DataNode:
    """Away from the smooth image; as in Pillow a border of one pixel stays."""
    height, width = part.canvas.size
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    kernel_node = part.of(to_device_of(types.Constant(kernel / 13), part.images))
    # Of the size of the images: on a GPU fn.multi_paste (DALI 2.4.0) reads inputs of another width
    # with the row length of the first.
    smooth = fn.filter(part.images, kernel_node, mode="same")
    anchors = part.of(types.Constant(np.array([[0, 0], [1, 1]], np.int32)))
    shapes = np.array([[height, width], [height - 2, width - 2]], np.int32)
    smooth = paste(
        part.images,
        smooth,
        shape=[height, width, 3],
        in_anchors=anchors,
        out_anchors=anchors,
        shapes=part.of(types.Constant(shapes)),
    )
    return _blend(part.images, smooth, part.argument)


def _blend(images: DataNode, other: DataNode, factor: DataNode) -> DataNode:
    """Returns other + factor * (images - other)."""
    scaled = fn.brightness_contrast(
        images, brightness=factor, brightness_shift=-_HALF, dtype=types.FLOAT
    )
    return fn.cast(scaled + other * to_device_of(1.0 - factor, images), dtype=types.UINT8)


# By which fn.color_space_conversion weighs R, G and B on the CPU, in units of 2**-15; it rounds
# halves up. On a GPU it uses 0.299, 0.587 and 0.114, and float32.
_GREY = (9798, 19235, 3735)


def _grey(images: DataNode, channels: int = 1) -> DataNode:
    """Returns grey images of 1 or 3 channels, the same bytes on both devices."""
    if images.device == "gpu":  # where fn.color_space_conversion has a kernel for each image
        return _grey_by_matrix(images, channels)
    grey = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
    if channels == 1:
        return grey
    return fn.color_space_conversion(grey, image_type=types.GRAY, output_type=types.RGB)


def _grey_by_matrix(images: DataNode, channels: int) -> DataNode:
    # Exact in float32; half a unit more puts every half above.
    return fn.coord_transform(
        images,
        M=[weight / 2**15 for weight in _GREY] * channels,
        T=[2.0**-16] * channels,
        dtype=types.UINT8,
    )


def _invert(part: Part) -> DataNode:
    return part.images ^ _byte(255)


def _posterize(part: Part) -> DataNode:
    bits = fn.cast(dmath.ceil(part.argument), dtype=types.INT32)
    masks = [256 - 2 ** (8 - bits) for bits in range(9)]
    return part.images & to_device_of(lookup(bits, masks, types.UINT8), part.images)


def _solarize(part: Part) -> DataNode:
    above = part.images >= to_device_of(part.argument, part.images)
    return part.images ^ (above * _byte(255))


def _solarize_add(part: Part) -> DataNode:
    add = fn.cast(dmath.floor(part.argument), dtype=types.UINT8)
    return part.images + (part.images < 128) * to_device_of(add, part.images)


def _auto_contrast(part: Part) -> DataNode:
    """Stretched, each channel for itself, to [0, 255]; a channel of one value stays."""
    low = fn.reductions.min(part.images, axes=[0, 1], keep_dims=True)
    width = fn.reductions.max(part.images, axes=[0, 1], keep_dims=True) - low
    scale = 255.0 / (width + (width == 0) * _byte(255))
    offset = low * (width > 0) * scale + _HALF
    return fn.cast(part.images * scale - offset, dtype=types.UINT8)


def _equalize(part: Part) -> DataNode:
    """Each channel's histogram flattened by Pillow's rule.

    DALI's rule is OpenCV's, which counts the pixels up to a value where Pillow counts those below:
    on the inverted image the two are the same. What is left is that Pillow divides by a
    whole number of pixels, and leaves a channel alone where that is 0.
    """
    height, width = part.canvas.size
    flat = fn.equalize(part.images ^ _byte(255)) ^ _byte(255)
    high = fn.reductions.max(part.images, axes=[0, 1], keep_dims=True)
    below = fn.reductions.mean((part.images < high) * _byte(1), axes=[0, 1], keep_dims=True)
    below = dmath.floor(below * float(height * width) + 0.5)
    step = dmath.floor(below / 255.0 + 1e-4)
    alone = step == 0
    # A hair more, so that no product is a half.
    scale = (step > 0) * below / ((step + alone) * (255.0 * (1 - 1e-6)))
    return fn.cast(flat * scale + part.images * alone, dtype=types.UINT8)


def _to_grey(part: Part) -> DataNode:
    return _grey(part.images, channels=3)


def _blur(part: Part) -> DataNode:
    return fn.gaussian_blur(part.images, sigma=part.argument)


def _byte(value: int) -> types.ScalarConstant:
    return types.Constant(value, dtype=types.UINT8)


# What each operation does; IDENTITY nothing.
CATALOGUE: dict[Op, Callable[[Part], DataNode]] = {
    Op.ROTATE: _warp,
    Op.SHEAR_X: _warp,
    Op.SHEAR_Y: _warp,
    Op.TRANSLATE_X: _warp,
    Op.TRANSLATE_Y: _warp,
    Op.BRIGHTNESS: _brighten,
    Op.COLOR: _color,
    Op.CONTRAST: _contrast,
    Op.SHARPNESS: _sharpen,
    Op.INVERT: _invert,
    Op.POSTERIZE: _posterize,
    Op.SOLARIZE: _solarize,
    Op.SOLARIZE_ADD: _solarize_add,
    Op.AUTO_CONTRAST: _auto_contrast,
    Op.EQUALIZE: _equalize,
    Op.GRAYSCALE: _to_grey,
    Op.BLUR: _blur,
}
