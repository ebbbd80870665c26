"""What timm, torchvision and DeiT III draw for each sample, and what it means in Pillow's units.

    policy -> draw_ops -> OpDraw(op, argument, cubic), one entry per layer

The discrete draws of a policy are one integer, a code: which operation, how strong, which
direction. Tables made when the graph is built say what a code means (`rand_ops`, `trivial_ops`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._seeds import op_seed
from dali_cutmix.augment.nodes import lookup
from dali_cutmix.augment.policies import ColorJitter, RandAugment, ThreeAugment, TrivialAugmentWide

__all__ = ["Op", "OpDraw", "OpPolicy", "draw_ops", "ops_and_layers", "rand_ops", "trivial_ops"]

OpPolicy = RandAugment | TrivialAugmentWide | ThreeAugment | ColorJitter


class Op(IntEnum):
    """An operation on a uint8 image, and the unit of its argument.

    ROTATE degrees counter-clockwise about the centre; SHEAR_X, SHEAR_Y pixels a pixel from the top
    left corner; TRANSLATE_X, TRANSLATE_Y pixels to the left, up. BRIGHTNESS, COLOR, CONTRAST,
    SHARPNESS factors, 1 changes nothing (PIL.ImageEnhance). POSTERIZE bits kept, rounded up;
    SOLARIZE threshold; SOLARIZE_ADD what is added below 128, rounded down. BLUR standard deviation
    in pixels. The others use no argument.
    """

    ROTATE = 0  # the geometric ones come first: operations._warp counts on it
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
    """What each sample of a batch gets, one entry per layer, on the CPU.

    Fields:
        op: int32 (layers,), an `Op`.
        argument: float32 (layers,), in the unit of the operation.
        cubic: bool (layers,), whether a geometric operation interpolates bicubically; None where
            that is not drawn.
    """

    op: DataNode
    argument: DataNode
    cubic: DataNode | None = None


def draw_ops(policy: OpPolicy, *, size: tuple[int, int], seed: int, shard_id: int = 0) -> OpDraw:
    """Returns the operations of each sample and their arguments.

    Args:
        size: (H, W) of the images, in which the distances of RandAugment's moves are counted.
        seed: each random operator derives its own from it and from the shard.
    """

    def own(name: str) -> int:
        return op_seed(seed, name, shard_id)

    if isinstance(policy, RandAugment):
        return _draw_rand(policy, size, own)
    if isinstance(policy, TrivialAugmentWide):
        count = len(_TRIVIAL_OPS) * _BINS * 2
        return trivial_ops(fn.random.choice(count, shape=[1], seed=own("op")))
    if isinstance(policy, ThreeAugment):
        return _draw_three(own)
    return _draw_jitter(policy, own)


def ops_and_layers(policy: OpPolicy) -> tuple[set[Op], int]:
    """Returns which operations `draw_ops` can draw, besides none, and in how many layers."""
    if isinstance(policy, RandAugment):
        return {op for op, *_ in _RAND_OPS}, policy.num_layers
    if isinstance(policy, TrivialAugmentWide):
        return set(_TRIVIAL_OPS), 1
    if isinstance(policy, ThreeAugment):
        return set(_THREE_OPS), 1
    return set(_jitter(policy)), len(_jitter(policy))


# RandAugment

# timm's `_RAND_INCREASING_TRANSFORMS`, in their order: operation, argument at magnitude 0, slope,
# and whether there are two directions. Distances are fractions of the side. Where timm cuts an
# argument to an integer the operation does.
_RAND_OPS = (
    (Op.AUTO_CONTRAST, 0.0, 0.0, False),
    (Op.EQUALIZE, 0.0, 0.0, False),
    (Op.INVERT, 0.0, 0.0, False),
    (Op.ROTATE, 0.0, 3.0, True),
    (Op.POSTERIZE, 4.0, -0.4, False),
    (Op.SOLARIZE, 256.0, -25.6, False),
    (Op.SOLARIZE_ADD, 0.0, 11.0, False),
    (Op.COLOR, 1.0, 0.09, True),
    (Op.CONTRAST, 1.0, 0.09, True),
    (Op.BRIGHTNESS, 1.0, 0.09, True),
    (Op.SHARPNESS, 1.0, 0.09, True),
    (Op.SHEAR_X, 0.0, 0.03, True),
    (Op.SHEAR_Y, 0.0, 0.03, True),
    (Op.TRANSLATE_X, 0.0, 0.045, True),
    (Op.TRANSLATE_Y, 0.0, 0.045, True),
)


def _draw_rand(policy: RandAugment, size: tuple[int, int], own: Callable[[str], int]) -> OpDraw:
    # One draw says the operation, its direction and whether it is applied.
    count = 2 * len(_RAND_OPS)
    weights = [policy.prob / count] * count + [1 - policy.prob]
    layers = [policy.num_layers]
    code = fn.random.choice(count + 1, p=weights, shape=layers, seed=own("op"))
    draw = rand_ops(policy, code, _magnitude(policy, own("magnitude")), size=size)
    if policy.interpolation != "random":
        return draw
    cubic = fn.random.coin_flip(shape=layers, dtype=types.BOOL, seed=own("interpolation"))
    return draw._replace(cubic=cubic)


def _magnitude(policy: RandAugment, seed: int) -> DataNode:
    layers = [policy.num_layers]
    none = policy.magnitude < 1e-38  # fn.random.uniform refuses an empty range, in float32
    if policy.magnitude_std == 0 or (policy.magnitude_std == math.inf and none):
        drawn = min(policy.magnitude, policy.magnitude_max)
        return types.Constant([float(drawn)] * policy.num_layers)
    if policy.magnitude_std == math.inf:
        magnitude = fn.random.uniform(range=[0.0, policy.magnitude], shape=layers, seed=seed)
    else:
        magnitude = fn.random.normal(
            mean=policy.magnitude, stddev=policy.magnitude_std, shape=layers, seed=seed
        )
    return dmath.clamp(magnitude, 0.0, policy.magnitude_max)


def rand_ops(
    policy: RandAugment, code: DataNode, magnitude: DataNode, *, size: tuple[int, int]
) -> OpDraw:
    """Returns what RandAugment's draws mean.

    Args:
        code: int64 (layers,): 2 * operation + direction, in the order of timm's list; 30 for none.
            Direction 1 is the negative one, for the operations that have two.
        magnitude: float32 (layers,).
        size: (H, W) of the images.
    """
    sides = {Op.TRANSLATE_Y: size[0], Op.TRANSLATE_X: size[1]}
    codes = [
        (op, base, sign * slope * sides.get(op, 1))
        for op, base, slope, signed in _RAND_OPS
        for sign in (1, -1 if signed else 1)
    ]
    ops, bases, slopes = zip(*codes, (Op.IDENTITY, 0.0, 0.0), strict=True)
    op = lookup(code, ops, types.INT32)
    argument = lookup(code, bases) + lookup(code, slopes) * magnitude
    if policy.magnitude_max > 10:  # only then can the argument leave timm's bounds
        enhance = (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)
        low = [0.1 if op in enhance else -1e9 for op in ops]
        high = [128.0 if op == Op.SOLARIZE_ADD else 1e9 for op in ops]
        argument = dmath.clamp(argument, lookup(code, low), lookup(code, high))
    return OpDraw(op, argument)


# TrivialAugmentWide

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
    return OpDraw(lookup(code, ops, types.INT32), lookup(code, arguments))


def _trivial_argument(op: Op, strength: int, sign: int) -> float:
    """Returns the argument at one of torchvision's 31 strengths."""
    fraction = strength / (_BINS - 1)
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        # torchvision's positive is to the right and down. Its strengths are float32, counted from
        # the nearer end, and cut to integers: the middle one is a little less than 16, hence 15.
        step = float(np.float32(32 / (_BINS - 1)))
        upper = 2 * strength >= _BINS - 1
        return -sign * int(32 - step * (_BINS - 1 - strength) if upper else step * strength)
    if op in (Op.SHEAR_X, Op.SHEAR_Y):
        return sign * 0.99 * fraction
    if op == Op.ROTATE:
        return sign * 135 * fraction
    if op == Op.POSTERIZE:
        return 8 - round(6 * fraction)
    if op == Op.SOLARIZE:
        return 255 * (1 - fraction)
    return 1 + sign * 0.99 * fraction


# ThreeAugment

_THREE_OPS = (Op.GRAYSCALE, Op.SOLARIZE, Op.BLUR)


def _draw_three(own: Callable[[str], int]) -> OpDraw:
    sigma = fn.random.uniform(range=[0.1, 2.0], shape=[1], seed=own("blur"))
    choice = fn.random.choice(3, shape=[1], seed=own("op"))
    op = lookup(choice, _THREE_OPS, types.INT32)
    return OpDraw(op, lookup(choice, [0, 128, 0]) + lookup(choice, [0, 0, 1]) * sigma)


# ColorJitter


def _draw_jitter(policy: ColorJitter, own: Callable[[str], int]) -> OpDraw:
    """Every operation once, in one of all orders; a factor is uniform around 1."""
    strengths = _jitter(policy)
    orders = list(itertools.permutations(range(len(strengths))))
    order = fn.random.choice(len(orders), shape=[1], seed=own("order"))
    indices = types.Constant(np.arange(len(strengths), dtype=np.int32))
    which = lookup(order * len(strengths) + indices, sum(orders, ()), types.INT32)
    lows = [max(0.0, 1 - strength) for strength in strengths.values()]
    widths = [1 + b - low for b, low in zip(strengths.values(), lows, strict=True)]
    drawn = fn.random.uniform(range=[0.0, 1.0], shape=[len(strengths)], seed=own("factor"))
    argument = lookup(which, lows) + lookup(which, widths) * drawn
    return OpDraw(lookup(which, list(strengths), types.INT32), argument)


def _jitter(policy: ColorJitter) -> dict[Op, float]:
    strengths = {
        Op.BRIGHTNESS: policy.brightness,
        Op.CONTRAST: policy.contrast,
        Op.COLOR: policy.saturation,
    }
    return {op: strength for op, strength in strengths.items() if strength > 0}
