"""Augmentations of timm, torchvision and DeiT III as graphs of native DALI operators.

    uint8 images -> augment(policies) -> mix -> normalise -> erase

`augment` draws first and applies second. A draw says for each sample which operations it gets, one
after the other, each with one number in Pillow's units. What follows is deterministic: a batch is
split by operation, each part gets its own, and the parts are merged again, by reference. Samples
that get none are the same bytes.

Distances from Pillow 13 on photographs of 224 x 224, in units of 255, largest and mean; the tests
hold these bounds:

    invert, posterize, solarize, solarize_add      0
    brightness, color, contrast, sharpness         1, 0.02   (the conversion to grey, ties)
    auto_contrast                                  1, 0.01   (Pillow rounds whole numbers down)
    equalize                                       1, 0.5
    grayscale                                      1, 0.01
    rotate, shear_*, translate_*, bilinear         mean 0.7  (Pillow rounds down; edges differ)
        the same, bicubic                          mean 1.1  (other coefficients)
        the same, nearest                          0.5 % of the pixels, rotated ones only
    blur                                           mean 0.6  (Pillow's is three box filters)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix.config import checked_int, checked_numbers
from dali_cutmix.policies import (
    ColorJitter,
    Lighting,
    Policy,
    RandAugment,
    RandomErasing,
    ThreeAugment,
    TrivialAugmentWide,
)
from dali_cutmix.sampling import op_seed

__all__ = [
    "EraseDraw",
    "Op",
    "OpDraw",
    "apply_erase",
    "apply_lighting",
    "apply_ops",
    "augment",
    "draw_erase",
    "draw_lighting",
    "draw_ops",
    "erase",
]

IMAGENET_FILL = (124, 116, 104)  # round(255 * mean), as timm fills


class Op(IntEnum):
    """An operation on a uint8 image, and the unit of its argument.

    ROTATE degrees counter-clockwise about the centre; SHEAR_X, SHEAR_Y pixels a pixel from the top
    left corner; TRANSLATE_X, TRANSLATE_Y pixels to the left, up. BRIGHTNESS, COLOR, CONTRAST,
    SHARPNESS factors, 1 changes nothing (PIL.ImageEnhance). POSTERIZE bits kept, rounded up;
    SOLARIZE threshold; SOLARIZE_ADD what is added below 128, rounded down. BLUR standard deviation
    in pixels. The others use no argument.
    """

    ROTATE = 0  # the geometric ones come first, `_warped` counts on it
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    BRIGHTNESS = 5
    COLOR = 6
    CONTRAST = 7
    SHARPNESS = 8
    INVERT = 9
    POSTERIZE = 10
    SOLARIZE = 11
    SOLARIZE_ADD = 12
    AUTO_CONTRAST = 13
    EQUALIZE = 14
    GRAYSCALE = 15
    BLUR = 16
    IDENTITY = 17


class OpDraw(NamedTuple):
    """What each sample of a batch gets, one entry a layer, on the CPU.

    Fields:
        op: int32 (layers,), an `Op`.
        argument: float32 (layers,), in the unit of the operation.
        cubic: bool (layers,), whether a geometric operation interpolates bicubically; None where
            that is not drawn.
    """

    op: DataNode
    argument: DataNode
    cubic: DataNode | None = None


class EraseDraw(NamedTuple):
    """What is erased of each sample.

    Fields:
        erased: bool (), CPU, whether anything is.
        box: int32 (4,), CPU, ``(y, x, h, w)`` in pixels, inside the image; of no meaning where
            `erased` is False.
        color: float32 (3,), CPU, what it is filled with for ``mode="color"``, else None.
        noise: float32 (h, w, 3) on the device of the images, for ``mode="pixel"``, else None; one
            pixel where nothing is erased.

    Without color and noise it is filled with 0.
    """

    erased: DataNode
    box: DataNode
    color: DataNode | None = None
    noise: DataNode | None = None


def augment(
    images: DataNode,
    policies: Sequence[Policy],
    *,
    size: tuple[int, int],
    seed: int,
    shard_id: int = 0,
    fill: Sequence[float] = IMAGENET_FILL,
) -> DataNode:
    """Returns the images after each of the policies in turn.

    For use inside a ``@pipeline_def`` without conditionals, before mixing.

    Args:
        images: uint8 HWC RGB, all of `size`, CPU or GPU.
        policies: of `dali_cutmix.policies`, except RandomErasing (see `erase`).
        size: (H, W) of the images, at least 3.
        seed: seed of all draws; each random operator derives its own from it, from the place of the
            policy and from the shard.
        shard_id: the shard, so that each has draws of its own.
        fill: RGB in [0, 255] for what RandAugment moves in from outside the image; timm's is the
            mean of the data. TrivialAugment fills with black, as torchvision does by default.

    Returns:
        uint8 HWC on the device of `images`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Follows timm 1.0.31 (RandAugment), torchvision 0.28 (TrivialAugmentWide, ColorJitter),
    facebookresearch/deit (ThreeAugment) and clovaai/CutMix-PyTorch (Lighting). Deviations: bicubic
    interpolation on the CPU has the coefficient -0.75 (OpenCV) where Pillow has -0.5; Lighting
    rounds to uint8 and clips, where the original adds to floats; posterizing to 0 bits gives black,
    as timm says, where Pillow 13 raises an error.

    >>> from nvidia.dali import fn, pipeline_def
    >>> from dali_cutmix.policies import ColorJitter, RandAugment
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    ... def pipe(root):
    ...     encoded, _ = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     policies = [RandAugment.from_timm("rand-m9-mstd0.5-inc1"), ColorJitter(contrast=0.4)]
    ...     return augment(images, policies, size=(32, 48), seed=1)
    >>> (images,) = pipe(root=photo_folder).run()
    >>> images.dtype.name, images.shape()[0]
    ('UINT8', (32, 48, 3))
    """
    _check(images, size)
    images = _shaped(images, size, types.UINT8)
    for place, policy in enumerate(policies):
        own_seed = op_seed(seed, "augment", place)
        if isinstance(policy, Lighting):
            shift = draw_lighting(policy, seed=own_seed, shard_id=shard_id)
            images = apply_lighting(images, shift)
        elif isinstance(policy, RandAugment | TrivialAugmentWide | ThreeAugment | ColorJitter):
            draw = draw_ops(policy, size=size, seed=own_seed, shard_id=shard_id)
            images = apply_ops(images, draw, policy, size=size, fill=fill)
        else:
            raise TypeError(
                "`policies` must hold RandAugment, TrivialAugmentWide, ThreeAugment, ColorJitter "
                f"or Lighting, got {policy!r}: RandomErasing belongs to erase(), after "
                "normalisation."
            )
    return images


def erase(
    images: DataNode,
    erasing: RandomErasing,
    *,
    size: tuple[int, int],
    seed: int,
    shard_id: int = 0,
) -> DataNode:
    """Returns normalised images with a box of some of them erased.

    Args:
        images: float32 HWC, 3 channels, all of `size`, CPU or GPU.
        erasing: what to erase.
        size: (H, W) of the images.
        seed, shard_id: as for `augment`.

    Returns:
        float32 HWC on the device of `images`; outside the boxes the same bytes.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Follows timm 1.0.31's RandomErasing with count 1.

    >>> from nvidia.dali import fn, pipeline_def, types
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    ... def pipe(root):
    ...     encoded, _ = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48), dtype=types.FLOAT)
    ...     images = fn.normalize(images, axes=[0, 1])
    ...     return erase(images, RandomErasing(prob=0.25), size=(32, 48), seed=1)
    >>> (images,) = pipe(root=photo_folder).run()
    >>> images.dtype.name, images.shape()[0]
    ('FLOAT', (32, 48, 3))
    """
    _check(images, size)
    if not isinstance(erasing, RandomErasing):
        raise TypeError(f"`erasing` must be a RandomErasing, got {erasing!r}.")
    if erasing.prob == 0:
        return images
    images = _shaped(images, size, types.FLOAT)
    draw = draw_erase(erasing, size=size, seed=seed, shard_id=shard_id, device=images.device)
    return apply_erase(images, draw, size=size)


# Draws


def draw_ops(
    policy: RandAugment | TrivialAugmentWide | ThreeAugment | ColorJitter,
    *,
    size: tuple[int, int],
    seed: int,
    shard_id: int = 0,
) -> OpDraw:
    """Returns the operations of each sample and their arguments."""

    def own(name: str) -> int:
        return op_seed(seed, name, shard_id)

    if isinstance(policy, RandAugment):
        # One draw says the operation, its direction and whether it is applied.
        count = 2 * len(_rand_ops(size))
        shares = [policy.prob / count] * count + [1 - policy.prob]
        layers = [policy.num_layers]
        code = fn.random.choice(count + 1, p=shares, shape=layers, seed=own("op"))
        draw = rand_ops(policy, code, _magnitude(policy, own("magnitude")), size=size)
        if policy.interpolation != "random":
            return draw
        cubic = fn.random.coin_flip(shape=layers, dtype=types.BOOL, seed=own("interpolation"))
        return draw._replace(cubic=cubic)
    if isinstance(policy, TrivialAugmentWide):
        count = len(_TRIVIAL_OPS) * _BINS * 2
        code = fn.random.choice(count, shape=[1], seed=own("op"))
        return trivial_ops(code)
    if isinstance(policy, ThreeAugment):
        sigma = fn.random.uniform(range=[0.1, 2.0], shape=[1], seed=own("blur"))
        choice = fn.random.choice(3, shape=[1], seed=own("op"))
        op = _looked_up(choice, [Op.GRAYSCALE, Op.SOLARIZE, Op.BLUR], types.INT32)
        return OpDraw(op, _looked_up(choice, [0, 128, 0]) + _looked_up(choice, [0, 0, 1]) * sigma)
    strengths = _jitter(policy)
    orders = list(itertools.permutations(range(len(strengths))))
    order = fn.random.choice(len(orders), shape=[1], seed=own("order"))
    places = types.Constant(np.arange(len(strengths), dtype=np.int32))
    which = _looked_up(order * len(strengths) + places, sum(orders, ()), types.INT32)
    lows = [max(0.0, 1 - strength) for strength in strengths.values()]
    widths = [1 + b - low for b, low in zip(strengths.values(), lows, strict=True)]
    drawn = fn.random.uniform(range=[0.0, 1.0], shape=[len(strengths)], seed=own("factor"))
    argument = _looked_up(which, lows) + _looked_up(which, widths) * drawn
    return OpDraw(_looked_up(which, list(strengths), types.INT32), argument)


def rand_ops(
    policy: RandAugment, code: DataNode, magnitude: DataNode, *, size: tuple[int, int]
) -> OpDraw:
    """Returns what RandAugment's draws mean.

    Args:
        code: int64 (layers,): 2 * operation + direction, in the order of timm's list; 30 for none.
            Direction 1 is the negative one, for the operations that have two.
        magnitude: float32 (layers,).
    """
    ops = _rand_ops(size)
    both = [(op, base, slope) for op, base, slope, _ in ops]
    negative = [(op, base, -slope if signed else slope) for op, base, slope, signed in ops]
    codes = [entry for pair in zip(both, negative, strict=True) for entry in pair]
    codes.append((Op.IDENTITY, 0.0, 0.0))
    op, base, slope = (
        _looked_up(code, [entry[i] for entry in codes], types.FLOAT if i else types.INT32)
        for i in range(3)
    )
    argument = base + slope * magnitude
    if policy.magnitude_max > 10:  # only then can the argument leave timm's bounds
        enhance = {Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS}
        low = [0.1 if entry[0] in enhance else -1e9 for entry in codes]
        high = [128.0 if entry[0] == Op.SOLARIZE_ADD else 1e9 for entry in codes]
        argument = dmath.clamp(argument, _looked_up(code, low), _looked_up(code, high))
    return OpDraw(op, argument)


def trivial_ops(code: DataNode) -> OpDraw:
    """Returns what TrivialAugment's draw means.

    Args:
        code: int64 (1,): (31 * operation + bin) * 2 + direction, in the order of torchvision's
            list.
    """
    ops = [op for op in _TRIVIAL_OPS for _ in range(2 * _BINS)]
    arguments = [
        _trivial_argument(op, strength, sign)
        for op in _TRIVIAL_OPS
        for strength in range(_BINS)
        for sign in (1, -1)
    ]
    return OpDraw(_looked_up(code, ops, types.INT32), _looked_up(code, arguments))


def _magnitude(policy: RandAugment, seed: int) -> DataNode:
    layers = [policy.num_layers]
    if policy.magnitude_std == 0 or (policy.magnitude_std == math.inf and policy.magnitude == 0):
        drawn = min(policy.magnitude, policy.magnitude_max)
        return fn.constant(fdata=[drawn] * policy.num_layers, shape=layers)
    if policy.magnitude_std == math.inf:
        magnitude = fn.random.uniform(range=[0.0, policy.magnitude], shape=layers, seed=seed)
    else:
        magnitude = fn.random.normal(
            mean=policy.magnitude, stddev=policy.magnitude_std, shape=layers, seed=seed
        )
    return dmath.clamp(magnitude, 0.0, policy.magnitude_max)


def _rand_ops(size: tuple[int, int]) -> list[tuple[Op, float, float, bool]]:
    """Returns operation, argument at magnitude 0, slope, and whether it has two directions.

    timm's `_RAND_INCREASING_TRANSFORMS`, in their order. Where timm cuts an argument to an integer
    the operation does.
    """
    height, width = size
    enhance = [(op, 1.0, 0.09, True) for op in (Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS)]
    return [
        (Op.AUTO_CONTRAST, 0.0, 0.0, False),
        (Op.EQUALIZE, 0.0, 0.0, False),
        (Op.INVERT, 0.0, 0.0, False),
        (Op.ROTATE, 0.0, 3.0, True),
        (Op.POSTERIZE, 4.0, -0.4, False),
        (Op.SOLARIZE, 256.0, -25.6, False),
        (Op.SOLARIZE_ADD, 0.0, 11.0, False),
        *enhance,
        (Op.SHEAR_X, 0.0, 0.03, True),
        (Op.SHEAR_Y, 0.0, 0.03, True),
        (Op.TRANSLATE_X, 0.0, 0.045 * width, True),
        (Op.TRANSLATE_Y, 0.0, 0.045 * height, True),
    ]


_BINS = 31
_TRIVIAL_OPS = (
    Op.IDENTITY,
    Op.SHEAR_X,
    Op.SHEAR_Y,
    Op.TRANSLATE_X,
    Op.TRANSLATE_Y,
    Op.ROTATE,
    Op.BRIGHTNESS,
    Op.COLOR,
    Op.CONTRAST,
    Op.SHARPNESS,
    Op.POSTERIZE,
    Op.SOLARIZE,
    Op.AUTO_CONTRAST,
    Op.EQUALIZE,
)


def _trivial_argument(op: Op, strength: int, sign: int) -> float:
    """Returns the argument at one of torchvision's 31 strengths."""
    share = strength / (_BINS - 1)
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        # torchvision's positive is to the right and down. Its strengths are float32, counted from
        # the nearer end, and cut to integers: the middle one is a little less than 16, hence 15.
        step = float(np.float32(32 / (_BINS - 1)))
        upper = 2 * strength >= _BINS - 1
        return -sign * int(32 - step * (_BINS - 1 - strength) if upper else step * strength)
    if op in (Op.SHEAR_X, Op.SHEAR_Y):
        return sign * 0.99 * share
    if op == Op.ROTATE:
        return sign * 135 * share
    if op == Op.POSTERIZE:
        return 8 - round(6 * share)
    if op == Op.SOLARIZE:
        return 255 * (1 - share)
    return 1 + sign * 0.99 * share


def _jitter(policy: ColorJitter) -> dict[Op, float]:
    strengths = {
        Op.BRIGHTNESS: policy.brightness,
        Op.CONTRAST: policy.contrast,
        Op.COLOR: policy.saturation,
    }
    return {op: strength for op, strength in strengths.items() if strength > 0}


def _looked_up(
    code: DataNode, values: Collection[float], dtype: types.DALIDataType = types.FLOAT
) -> DataNode:
    numbers = [float(value) for value in values]
    return fn.lookup_table(code, keys=list(range(len(numbers))), values=numbers, dtype=dtype)


# Operations on uint8 images


_INTERPOLATION = {
    "nearest": types.INTERP_NN,
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
}


class _Canvas(NamedTuple):
    size: tuple[int, int]
    fill: list[float]
    interpolation: str  # of _INTERPOLATION, or "random"


class _Part(NamedTuple):
    """The samples of a batch that get the same kind of operation.

    ``of`` returns their share of a node that has the whole batch: a constant always has.
    """

    images: DataNode
    op: DataNode
    argument: DataNode
    cubic: DataNode | None
    of: Callable[[DataNode], DataNode]
    canvas: _Canvas


def apply_ops(
    images: DataNode,
    draw: OpDraw,
    policy: RandAugment | TrivialAugmentWide | ThreeAugment | ColorJitter,
    *,
    size: tuple[int, int],
    fill: Sequence[float] = IMAGENET_FILL,
) -> DataNode:
    """Returns uint8 images after the drawn operations. Nothing is random.

    Args:
        images: uint8 HWC RGB, all of `size`, CPU or GPU.
        draw: operations that `policy` has, as many as it has layers.
        policy: says which operations there can be, and how many layers: only those are built.
        size: (H, W).
        fill: RGB in [0, 255] outside of the image; TrivialAugment's is black.
    """
    ops, layers = _ops_and_layers(policy, size)
    canvas = _Canvas(size, [float(v) for v in checked_numbers("fill", fill, 3)], "bilinear")
    if isinstance(policy, RandAugment):
        canvas = canvas._replace(interpolation=policy.interpolation)
    elif isinstance(policy, TrivialAugmentWide):
        canvas = _Canvas(size, [0.0] * 3, "nearest")
    kinds = [(members, function) for members, function in _KINDS if ops & set(members)]
    if not kinds:
        return images
    kind_of = {op: kind for kind, (members, _) in enumerate(kinds) for op in members}
    kind = _looked_up(draw.op, [kind_of.get(op, len(kinds)) for op in Op], types.INT32)
    images = fn.reshape(images, layout="HWC")
    for layer in range(layers):
        here = OpDraw(*(None if node is None else node[layer] for node in draw))
        kind_here = kind[layer]
        for i, (_, function) in enumerate(kinds):
            images = _applied(images, kind_here == i, here, canvas, function)
    return images


def _applied(
    images: DataNode,
    chosen: DataNode,
    draw: OpDraw,
    canvas: _Canvas,
    function: Callable[[_Part], DataNode],
) -> DataNode:
    # Batches are split and merged by reference, without a copy. An operator whose part is empty is
    # not run.
    def of(node: DataNode) -> DataNode:
        return fn._conditional.split(node, predicate=chosen)[0]

    part, rest = fn._conditional.split(images, predicate=chosen)
    cubic = None if draw.cubic is None else of(draw.cubic)
    changed = function(_Part(part, of(draw.op), of(draw.argument), cubic, of, canvas))
    return fn._conditional.merge(changed, rest, predicate=chosen)


def _ops_and_layers(policy: Policy, size: tuple[int, int]) -> tuple[set[Op], int]:
    if isinstance(policy, RandAugment):
        return {op for op, *_ in _rand_ops(size)}, policy.num_layers
    if isinstance(policy, TrivialAugmentWide):
        return set(_TRIVIAL_OPS), 1
    if isinstance(policy, ThreeAugment):
        return {Op.GRAYSCALE, Op.SOLARIZE, Op.BLUR}, 1
    assert isinstance(policy, ColorJitter)
    return set(_jitter(policy)), len(_jitter(policy))


def _warped(part: _Part) -> DataNode:
    """Rotated, sheared or moved: one matrix from an output pixel to where its value comes from."""
    height, width = part.canvas.size
    values = fn.one_hot(part.op, num_classes=5) * part.argument
    matrix = fn.transforms.rotation(angle=values[Op.ROTATE], center=[width / 2, height / 2])
    matrix = fn.transforms.shear(matrix, shear=values[Op.SHEAR_X : Op.TRANSLATE_X])
    matrix = fn.transforms.translation(matrix, offset=values[Op.TRANSLATE_X :])
    last_row = part.of(types.Constant(np.array([[0, 0, 1]], np.float32)))
    matrix = fn.cat(matrix, last_row, axis=0)
    if part.canvas.interpolation != "random":
        return _warp(part.images, matrix, part.canvas, part.canvas.interpolation)
    images = fn._conditional.split(part.images, predicate=part.cubic)
    matrices = fn._conditional.split(matrix, predicate=part.cubic)
    cubic = _warp(images[0], matrices[0], part.canvas, "bicubic")
    linear = _warp(images[1], matrices[1], part.canvas, "bilinear")
    return fn._conditional.merge(cubic, linear, predicate=part.cubic)


def _warp(images: DataNode, matrix: DataNode, canvas: _Canvas, interpolation: str) -> DataNode:
    # Several times as fast on the CPU as fn.warp_affine, which also has only one fill value and no
    # bicubic interpolation.
    return fn.experimental.warp_perspective(
        images,
        matrix=matrix,
        fill_value=canvas.fill,
        interp_type=_INTERPOLATION[interpolation],
    )


# fn.cast and operators with a uint8 output round to the nearest, Pillow cuts: half a unit less. A
# hair less than a half where float32 would turn whole numbers into a little less than whole ones.
_HALF = 0.4999


def _brightened(part: _Part) -> DataNode:
    return fn.brightness_contrast(
        part.images, brightness=part.argument, brightness_shift=-0.5 / 255
    )


def _contrasted(part: _Part) -> DataNode:
    """Away from the mean of the grey image, which Pillow rounds to the nearest."""
    if part.images.device == "gpu":  # where the mean is, too: it cannot be an argument
        return _contrasted_by_blending(part)
    mean = dmath.floor(fn.reductions.mean(_grey(part.images)) + 0.5)
    return fn.brightness_contrast(
        part.images, contrast=part.argument, contrast_center=mean, brightness_shift=-_HALF / 255
    )


def _contrasted_by_blending(part: _Part) -> DataNode:
    mean = fn.reductions.mean(_grey(part.images), axes=[0, 1], keep_dims=True)
    return _blended(part.images, dmath.floor(mean + 0.5), part.argument)


def _colored(part: _Part) -> DataNode:
    """Away from the grey image."""
    return _blended(part.images, _grey(part.images), part.argument)


def _sharpened(part: _Part) -> DataNode:
    """Away from the smooth image; as in Pillow a border of one pixel stays."""
    height, width = part.canvas.size
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    kernel_node = part.of(_beside(types.Constant(kernel / 13), part.images))
    inside = fn.filter(part.images, kernel_node, mode="valid")
    smooth = fn.multi_paste(
        part.images,
        inside,
        output_size=[height, width],
        in_anchors=part.of(types.Constant(np.zeros((2, 2), np.int32))),
        out_anchors=part.of(types.Constant(np.array([[0, 0], [1, 1]], np.int32))),
        shapes=part.of(
            types.Constant(np.array([[height, width], [height - 2, width - 2]], np.int32))
        ),
    )
    return _blended(part.images, smooth, part.argument)


def _blended(images: DataNode, other: DataNode, factor: DataNode) -> DataNode:
    """Returns other + factor * (images - other)."""
    scaled = fn.brightness_contrast(
        images, brightness=factor, brightness_shift=-_HALF, dtype=types.FLOAT
    )
    return fn.cast(scaled + other * _beside(1.0 - factor, images), dtype=types.UINT8)


def _grey(images: DataNode) -> DataNode:
    return fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)


def _inverted(part: _Part) -> DataNode:
    return part.images ^ _byte(255)


def _posterized(part: _Part) -> DataNode:
    bits = fn.cast(dmath.ceil(part.argument), dtype=types.INT32)
    masks = [256 - 2 ** (8 - bits) for bits in range(9)]
    return part.images & _beside(_looked_up(bits, masks, types.UINT8), part.images)


def _solarized(part: _Part) -> DataNode:
    above = part.images >= _beside(part.argument, part.images)
    return part.images ^ (above * _byte(255))


def _solarized_add(part: _Part) -> DataNode:
    add = fn.cast(dmath.floor(part.argument), dtype=types.UINT8)
    return part.images + (part.images < 128) * _beside(add, part.images)


def _auto_contrasted(part: _Part) -> DataNode:
    """Stretched, each channel for itself, to [0, 255]; a channel of one value stays."""
    low = fn.reductions.min(part.images, axes=[0, 1], keep_dims=True)
    width = fn.reductions.max(part.images, axes=[0, 1], keep_dims=True) - low
    scale = 255.0 / (width + (width == 0) * _byte(255))
    offset = low * (width > 0) * scale + _HALF
    return fn.cast(part.images * scale - offset, dtype=types.UINT8)


def _equalized(part: _Part) -> DataNode:
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
    scale = (step > 0) * below / ((step + alone) * 255.0)
    return fn.cast(flat * scale + part.images * alone, dtype=types.UINT8)


def _greyed(part: _Part) -> DataNode:
    return fn.color_space_conversion(
        _grey(part.images), image_type=types.GRAY, output_type=types.RGB
    )


def _blurred(part: _Part) -> DataNode:
    return fn.gaussian_blur(part.images, sigma=part.argument)


_KINDS: tuple[tuple[tuple[Op, ...], Callable[[_Part], DataNode]], ...] = (
    ((Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y), _warped),
    ((Op.BRIGHTNESS,), _brightened),
    ((Op.COLOR,), _colored),
    ((Op.CONTRAST,), _contrasted),
    ((Op.SHARPNESS,), _sharpened),
    ((Op.INVERT,), _inverted),
    ((Op.POSTERIZE,), _posterized),
    ((Op.SOLARIZE,), _solarized),
    ((Op.SOLARIZE_ADD,), _solarized_add),
    ((Op.AUTO_CONTRAST,), _auto_contrasted),
    ((Op.EQUALIZE,), _equalized),
    ((Op.GRAYSCALE,), _greyed),
    ((Op.BLUR,), _blurred),
)


def _beside(value: DataNode, images: DataNode) -> DataNode:
    """Returns a CPU node where the images are, for arithmetic with them."""
    return value.gpu() if images.device == "gpu" else value


def _byte(value: int) -> Any:
    return types.Constant(value, dtype=types.UINT8)


# Lighting

# Eigenvalues and, in columns, eigenvectors of the RGB values of ImageNet in [0, 1].
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)


def draw_lighting(policy: Lighting, *, seed: int, shard_id: int = 0) -> DataNode | None:
    """Returns what is added to each sample's RGB in units of 1 / 255, float32 (1, 1, 3), or None.

    CPU; None where the deviation is 0.
    """
    if policy.std == 0:
        return None
    factors = fn.random.normal(
        stddev=policy.std, shape=[1, 1, 3], seed=op_seed(seed, "lighting", shard_id)
    )
    matrix = 255 * _EIGENVECTORS * _EIGENVALUES
    return fn.coord_transform(factors, M=matrix.ravel().tolist())


def apply_lighting(images: DataNode, shift: DataNode | None) -> DataNode:
    """Returns uint8 images + shift, rounded to the nearest and clipped."""
    if shift is None:
        return images
    return fn.cast(images + _beside(shift, images), dtype=types.UINT8)


# Random erasing

_ATTEMPTS = 10


def draw_erase(
    erasing: RandomErasing,
    *,
    size: tuple[int, int],
    seed: int,
    shard_id: int = 0,
    device: str = "cpu",
) -> EraseDraw:
    """Returns which samples are erased, where and with what.

    Args:
        device: that of the images, where ``mode="pixel"`` draws its noise.
    """

    def own(name: str) -> int:
        return op_seed(seed, "erase", name, shard_id)

    pixels = size[0] * size[1]
    area = _attempts([share * pixels for share in erasing.area], own("area"))
    half_log_ratio = _attempts([math.log(ratio) / 2 for ratio in erasing.ratio], own("ratio"))
    place = fn.random.uniform(range=[0.0, 1.0], shape=[2], dtype=types.FLOAT64, seed=own("place"))
    erased = fn.random.coin_flip(probability=erasing.prob, dtype=types.BOOL, seed=own("apply"))
    box, fits = _first_that_fits(area, half_log_ratio, place, size)
    erased = erased & fits
    color = noise = None
    if erasing.mode == "color":
        color = fn.random.normal(shape=[3], seed=own("values"))
    elif erasing.mode == "pixel":
        sides = dmath.max(box[2:] * fn.cast(erased, dtype=types.INT32), 1)
        shape = fn.cat(sides, types.Constant(np.array([3], np.int32)))
        noise = fn.random.normal(device=device, shape=shape, seed=own("values"))
    return EraseDraw(erased, box, color, noise)


def _attempts(bounds: list[float], seed: int) -> DataNode:
    low, high = bounds
    if low == high:  # refused by fn.random.uniform
        return types.Constant(np.full(_ATTEMPTS, low))
    return fn.random.uniform(range=bounds, shape=[_ATTEMPTS], dtype=types.FLOAT64, seed=seed)


def _first_that_fits(
    area: DataNode, half_log_ratio: DataNode, place: DataNode, size: tuple[int, int]
) -> tuple[DataNode, DataNode]:
    """Returns the box of the first attempt that fits, int32 (4,), and whether one does.

    Args:
        area: float64 (attempts,), in pixels.
        half_log_ratio: float64 (attempts,), log(height / width) / 2.
        place: float64 (2,) in [0, 1): where the box is between its first and its last place.
    """
    column = types.Constant(np.array([[1.0], [-1.0]]))
    image = types.Constant(np.array(size, np.int32))
    sides = dmath.floor(dmath.sqrt(area) * dmath.exp(half_log_ratio * column) + 0.5)
    limits = types.Constant(np.array(size, np.float64)[:, None])
    number = types.Constant(np.arange(_ATTEMPTS, dtype=np.int32))
    # Timm and torchvision ask for less than the image in both axes.
    bad = fn.reductions.max(fn.cast(sides >= limits, dtype=types.INT32), axes=[0])
    first = fn.reductions.min(bad * _ATTEMPTS + number)
    fits = first < _ATTEMPTS
    chosen = fn.cast(sides[:, dmath.min(first, _ATTEMPTS - 1)], dtype=types.INT32)
    start = fn.cast(dmath.floor(place * (image - chosen + 1)), dtype=types.INT32)
    # A box of no area erases nothing.
    return fn.cat(start, chosen), fits & (chosen[0] * chosen[1] > 0)


def apply_erase(images: DataNode, draw: EraseDraw, *, size: tuple[int, int]) -> DataNode:
    """Returns normalised images with the drawn boxes erased. Nothing is random.

    Args:
        images: float32 HWC, 3 channels, all of `size`, CPU or GPU.
        draw: what to erase; where `erased` is set, the box must not be empty.
        size: (H, W).
    """

    def of(node: DataNode) -> DataNode:
        return fn._conditional.split(node, predicate=draw.erased)[0]

    images = fn.reshape(images, layout="HWC")
    part, rest = fn._conditional.split(images, predicate=draw.erased)
    box = of(draw.box)
    if draw.noise is not None:
        origin = box[:2] * 0
        part = fn.multi_paste(
            part,
            of(draw.noise),
            output_size=list(size),
            in_anchors=fn.stack(origin, origin),
            out_anchors=fn.stack(origin, box[:2]),
            shapes=fn.stack(of(types.Constant(np.array(size, np.int32))), box[2:]),
        )
    else:
        color = [0.0, 0.0, 0.0] if draw.color is None else of(draw.color)
        ends = fn.cast(box, dtype=types.FLOAT)
        part = fn.erase(part, anchor=ends[:2], shape=ends[2:], axes=[0, 1], fill_value=color)
    return fn._conditional.merge(part, rest, predicate=draw.erased)


def _shaped(images: DataNode, size: tuple[int, int], dtype: types.DALIDataType) -> DataNode:
    """Returns the images as they are; fails at run time unless they are of this size and type."""
    return fn.reinterpret(images, dtype=dtype, shape=[*size, 3], layout="HWC")


def _check(images: DataNode, size: tuple[int, int]) -> None:
    if not isinstance(images, DataNode):
        kind = type(images).__name__
        raise TypeError(f"`images` must be a DataNode of a pipeline, got {kind}.")
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"`size` must be (height, width), got {size!r}.")
    for side in size:
        checked_int("size", side, 3)
