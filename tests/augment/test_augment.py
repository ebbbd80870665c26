"""Augmentations against timm 1.0.31, torchvision 0.28, Pillow, and the formulas themselves.

Operation by operation at injected draws, with the bounds that `pipelines/operations.py`
states; then the distributions of the draws. Every test has a fixed seed: it passes or fails.
"""

from __future__ import annotations

import itertools
import math
import random
import unittest.mock
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from PIL import Image, ImageFilter, ImageOps
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.augment import draws, operations, policies
from dali_cutmix.augment import graph as augment
from dali_cutmix.augment.draws import Op, OpDraw
from dali_cutmix.augment.erasing import apply_erase, draw_erase, erase
from dali_cutmix.augment.lighting import apply_lighting, draw_lighting
from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.data.folders import image_files
from dali_cutmix.pipelines import imagenet
from tests.support import graphs
from tests.support.graphs import Array

import_torchvision()

timm_ops = pytest.importorskip("timm.data.auto_augment", reason="the extra `peers` is missing")
timm_erasing = pytest.importorskip("timm.data.random_erasing")
tv = pytest.importorskip("torchvision.transforms.functional")
autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")

P_MIN = 1e-3  # a right implementation fails one such test in a thousand seeds
DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
FILL = (124, 116, 104)
GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
GEOMETRIC_OPS = {Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y}
TIMM = timm_ops._RAND_INCREASING_TRANSFORMS
NAMES = {  # timm's name of what an operation does
    Op.AUTO_CONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
    Op.INVERT: "Invert",
    Op.ROTATE: "Rotate",
    Op.POSTERIZE: "PosterizeIncreasing",
    Op.SOLARIZE: "SolarizeIncreasing",
    Op.SOLARIZE_ADD: "SolarizeAdd",
    Op.COLOR: "ColorIncreasing",
    Op.CONTRAST: "ContrastIncreasing",
    Op.BRIGHTNESS: "BrightnessIncreasing",
    Op.SHARPNESS: "SharpnessIncreasing",
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateXRel",
    Op.TRANSLATE_Y: "TranslateYRel",
}
SIGNED = {
    n for n in NAMES.values() if n in GEOMETRIC or n[:5] in ("Color", "Contr", "Brigh", "Sharp")
}
# Largest and mean distance from Pillow, in units of 255.
BOUNDS = {
    **dict.fromkeys(("Invert", "PosterizeIncreasing", "SolarizeIncreasing"), (0, 0)),
    "SolarizeAdd": (0, 0),
    **dict.fromkeys(("BrightnessIncreasing", "ColorIncreasing"), (1, 0.005)),
    **dict.fromkeys(("ContrastIncreasing", "SharpnessIncreasing"), (1, 0.005)),
    "AutoContrast": (1, 0.01),
    "Equalize": (1, 0.5),
}
CUBIC_BOUND = {"cpu": 0.9, "gpu": 1.2}  # mean


def photos_of(size: tuple[int, int]) -> list[Array]:
    """The five photographs, and two of low contrast with a channel of one value."""
    height, width = size
    images = []
    for file in sorted(resources.files("dali_cutmix.photos").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".jpg"):
            with resources.as_file(file) as path, Image.open(path) as photo:
                small = photo.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            images.append(np.asarray(small))
    assert len(images) == 5
    dull = [(image // 3 + 60).astype(np.uint8) for image in images[:2]]
    for image in dull:
        image[..., 1] = 77
    return images + dull


SIZE = (112, 160)
PHOTOS = photos_of(SIZE)


def pipeline(function: Any, batch_size: int, device: str = "cpu") -> Pipeline:
    """A pipeline of the outputs of function()."""

    @pipeline_def(
        batch_size=batch_size,
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        prefetch_queue_depth=1,
    )
    def pipe() -> Any:
        return function()

    return pipe()


def run(function: Any, batch_size: int, iterations: int = 1, device: str = "cpu") -> list[Array]:
    """The outputs of function() in a pipeline, the batches one after the other."""
    batches = graphs.run(pipeline(function, batch_size, device), iterations)
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


def pixels(images: Any, device: str) -> Any:
    node = graphs.feed(images, "HWC")
    return node.gpu() if device == "gpu" else node


def applied(
    policy: Any,
    images: list[Array],
    ops: Any,
    arguments: Any,
    cubic: Any = None,
    device: str = "cpu",
) -> Array:
    """The images after operations (N, layers), with arguments (N, layers)."""
    draws = [np.asarray(ops, np.int32), np.asarray(arguments, np.float32)]
    if cubic is not None:
        draws.append(np.asarray(cubic, bool))

    def function() -> Any:
        draw = OpDraw(*(graphs.feed(values) for values in draws))
        size = images[0].shape[:2]
        return operations.apply_ops(pixels(images, device), draw, policy, size=size, fill=FILL)

    return run(function, len(images), device=device)[0]


def distance(mine: Any, theirs: Any) -> tuple[int, float]:
    difference = np.abs(np.asarray(mine).astype(int) - np.asarray(theirs))
    return int(difference.max()), float(difference.mean())


def meant(policy: policies.RandAugment, codes: Any, magnitudes: Any, size: Any = SIZE) -> Any:
    """Operations and arguments of codes and magnitudes (N, layers)."""

    def function() -> Any:
        code, magnitude = graphs.feed(codes), graphs.feed(np.float32(magnitudes))
        return draws.rand_ops(policy, code, magnitude, size=size)[:2]

    return run(function, len(codes))


def timm_arguments(name: str, magnitude: float, negative: bool) -> tuple[Any, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm_ops.random, "random", lambda: 0.9 if negative else 0.1)
        level = timm_ops.LEVEL_TO_ARG[name]
        return () if level is None else level(magnitude, {})


# Operations


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [SIZE, (32, 45)], ids=str)
@pytest.mark.parametrize("name", TIMM)
def test_randaugment_does_what_timm_does(name: str, size: tuple[int, int], device: str) -> None:
    images = PHOTOS if size == SIZE else photos_of(size)
    levels = [0.0, 2.4, 5.0, 9.0, 10.0]
    cases = list(itertools.product(range(len(images)), levels, (False, True)))
    codes = np.array([[2 * TIMM.index(name) + negative] for _, _, negative in cases])
    policy = policies.RandAugment(num_layers=1, interpolation="bilinear")
    ops, arguments = meant(policy, codes, [[level] for _, level, _ in cases], size)
    assert {NAMES[op] for op in ops[:, 0]} == {name}
    mine = applied(policy, [images[i] for i, _, _ in cases], ops, arguments, device=device)
    theirs = []
    for i, level, negative in cases:
        args = timm_arguments(name, level, negative)
        if args == (0,) and name == "PosterizeIncreasing":  # Pillow 13 refuses
            theirs.append(np.zeros_like(images[i]))
            continue
        photo = Image.fromarray(images[i])
        options = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}
        theirs.append(np.asarray(timm_ops.NAME_TO_OP[name](photo, *args, **options)))
    largest, mean = distance(mine, theirs)
    if name in GEOMETRIC:  # Pillow cuts (half a unit), and mixes no fill colour into the edges
        assert mean < (0.6 if size == SIZE else 1.1)
    else:
        assert largest <= BOUNDS[name][0]
        assert mean <= BOUNDS[name][1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_bicubic_warps_are_as_far_from_pillow_as_stated(name: str, device: str) -> None:
    cases = list(itertools.product(range(len(PHOTOS)), (2.4, 5.0, 9.0, 10.0), (False, True)))
    codes = np.array([[2 * TIMM.index(name) + negative] for _, _, negative in cases])
    policy = policies.RandAugment(num_layers=1, interpolation="bicubic")
    ops, arguments = meant(policy, codes, [[level] for _, level, _ in cases])
    mine = applied(policy, [PHOTOS[i] for i, _, _ in cases], ops, arguments, device=device)
    options = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}
    theirs = []
    for i, level, negative in cases:
        args = timm_arguments(name, level, negative)
        warped = timm_ops.NAME_TO_OP[name](Image.fromarray(PHOTOS[i]), *args, **options)
        theirs.append(np.asarray(warped))
    assert distance(mine, theirs)[1] < CUBIC_BOUND[device]


def cubic_convolution(image: Array, angle: float, a: float) -> tuple[Array, Array]:
    """The image rotated, float64, and where no pixel from outside is involved."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dy, dx = y - height / 2, x - width / 2
    found, places = np.zeros(image.shape), []
    for position in (dx * sin + dy * cos + height / 2, dx * cos - dy * sin + width / 2):
        first = np.floor(position - 0.5).astype(int) - 1
        t = np.abs(first + np.arange(4)[:, None, None] + 0.5 - position)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        places.append((first, np.where(t <= 1, near, a * (t**3 - 5 * t**2 + 8 * t - 4))))
    (rows, row_weights), (columns, column_weights) = places
    inside = (rows >= 0) & (rows < height - 3) & (columns >= 0) & (columns < width - 3)
    for i, j in itertools.product(range(4), range(4)):
        taken = image[(rows + i).clip(0, height - 1), (columns + j).clip(0, width - 1)]
        found += taken * (row_weights[i] * column_weights[j])[..., None]
    return found.clip(0, 255), inside


@pytest.mark.parametrize("device", DEVICES)
def test_bicubic_coefficients_are_those_stated(device: str) -> None:
    # Ours rounds to the nearest, Pillow cuts.
    policy = policies.RandAugment(num_layers=1, interpolation="bicubic")
    (mine,) = applied(policy, PHOTOS[:1], [[Op.ROTATE]], [[20.0]], device=device)
    photo = Image.fromarray(PHOTOS[0]).rotate(20, resample=Image.Resampling.BICUBIC)
    coefficient = -0.5 if device == "gpu" else -0.75
    for found, a, cut in ((mine, coefficient, 0.0), (np.asarray(photo), -1.0, 0.5)):
        expected, inside = cubic_convolution(PHOTOS[0], 20.0, a)
        assert 0.5 < inside.mean() < 1
        assert np.abs(found + cut - expected)[inside].max() < 0.51
        other, _ = cubic_convolution(PHOTOS[0], 20.0, a + 0.05)
        assert np.abs(found + cut - other)[inside].max() > 1.1


@pytest.mark.parametrize("device", DEVICES)
def test_bilinear_and_bicubic_are_told_apart(device: str) -> None:
    policy = policies.RandAugment(num_layers=1)
    images = PHOTOS[:5] * 2
    cubic = [[i < 5] for i in range(10)]
    mine = applied(policy, images, [[Op.ROTATE]] * 10, [[20.0]] * 10, cubic, device)
    bound_of_bicubic = 1.5 if device == "gpu" else 1.1
    bounds = ((Image.Resampling.BICUBIC, bound_of_bicubic), (Image.Resampling.BILINEAR, 0.7))
    for way, bound in bounds:
        theirs = [Image.fromarray(i).rotate(20, resample=way, fillcolor=FILL) for i in images]
        right = slice(0, 5) if way == Image.Resampling.BICUBIC else slice(5, 10)
        wrong = slice(5, 10) if way == Image.Resampling.BICUBIC else slice(0, 5)
        near = distance(mine[right], [np.asarray(t) for t in theirs[right]])[1]
        assert near < bound
        assert distance(mine[wrong], [np.asarray(t) for t in theirs[wrong]])[1] > 1.3 * near
    static = policies.RandAugment(num_layers=1, interpolation="bicubic")
    again = applied(static, images, [[Op.ROTATE]] * 10, [[20.0]] * 10, device=device)
    assert np.array_equal(again[:5], mine[:5])


def test_grey_as_on_the_gpu_is_the_same() -> None:
    levels = np.arange(256, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)

    def function() -> Any:
        images = graphs.feed([colors.reshape(4096, 4096, 3)], "HWC")
        return operations._grey(images), operations._grey_by_matrix(images, 1)

    one, other = run(function, 1)
    assert np.array_equal(one, other)


def test_contrast_as_on_the_gpu_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policies.RandAugment(num_layers=1, interpolation="bilinear")
    factors = [[factor] for factor in (0.1, 0.5, 0.9, 1.0, 1.2, 1.5, 1.9)]
    ops = [[Op.CONTRAST]] * len(PHOTOS)
    mine = applied(policy, PHOTOS, ops, factors)
    other = unittest.mock.Mock(wraps=operations._contrast_by_blending)
    monkeypatch.setitem(operations.CATALOGUE, Op.CONTRAST, other)
    largest, mean = distance(applied(policy, PHOTOS, ops, factors), mine)
    assert other.called
    assert largest <= 1
    assert mean < 0.005


def torchvision_space() -> list[tuple[str, list[float], bool]]:
    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    return [
        (name, values.tolist() if values.ndim else [0.0], signed)
        for name, (values, signed) in space.items()
    ]


def test_trivialaugments_codes_are_torchvisions_space() -> None:
    codes = np.arange(14 * 31 * 2)[:, None]
    ops, arguments = run(lambda: draws.trivial_ops(graphs.feed(codes))[:2], len(codes))
    assert ops.dtype == np.int32
    for code, (op, argument) in enumerate(zip(ops[:, 0], arguments[:, 0], strict=True)):
        name, values, signed = torchvision_space()[code // 62]
        value = values[code // 2 % 31] if len(values) > 1 else 0.0
        value *= -1 if signed and code % 2 else 1
        assert Op(op).name.replace("_", "") == name.upper()
        if name.startswith("Translate"):
            # The middle one depends on the processor: with fused multiply-add 15.999999, else 16.
            assert argument == -int(value) or abs(value) == 16.0
        elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
            assert argument == pytest.approx(1 + value, abs=1e-6)
        elif len(values) > 1:
            assert argument == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", range(14))
def test_trivialaugment_does_what_torchvision_does(place: int, device: str) -> None:
    name, values, signed = torchvision_space()[place]
    cases = list(itertools.product(range(len(PHOTOS)), (0, 7, 16, 30), (0, 1)))
    codes = np.array([[(31 * place + strength) * 2 + sign] for _, strength, sign in cases])
    ops, arguments = run(lambda: draws.trivial_ops(graphs.feed(codes))[:2], len(codes))
    images = [PHOTOS[i] for i, _, _ in cases]
    mine = applied(policies.TrivialAugmentWide(), images, ops, arguments, device=device)
    theirs = []
    for i, strength, sign in cases:
        value = values[strength] if len(values) > 1 else 0.0
        value *= -1 if signed and sign else 1
        photo = Image.fromarray(PHOTOS[i])
        theirs.append(autoaugment._apply_op(photo, name, value, tv.InterpolationMode.NEAREST, None))
    theirs = [np.asarray(image) for image in theirs]
    if name == "Rotate":  # a coordinate on the border of two pixels goes either way
        assert (mine != theirs).any(-1).mean() < 0.005
    elif name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Identity"):
        assert (mine != theirs).any(-1).mean() < (0.002 if device == "gpu" else 1e-4)
    else:
        increasing = name if name in BOUNDS else f"{name}Increasing"
        largest, mean = distance(mine, theirs)
        assert largest <= BOUNDS[increasing][0]
        assert mean <= BOUNDS[increasing][1]


@pytest.mark.parametrize("device", DEVICES)
def test_right_angles_are_pillows_where_every_place_is_between_two_pixels(device: str) -> None:
    images = photos_of((33, 32))
    for angle in (90.0, -90.0):
        draw = [[Op.ROTATE]] * len(images), [[angle]] * len(images)
        mine = applied(policies.TrivialAugmentWide(), images, *draw, device=device)
        theirs = [tv.rotate(Image.fromarray(image), angle) for image in images]
        assert (mine != np.array([np.asarray(t) for t in theirs])).any(-1).mean() < 0.005


@pytest.mark.parametrize("device", DEVICES)
def test_threeaugment_does_what_deit_does(device: str) -> None:
    sigmas = [0.1, 0.7, 1.3, 2.0]
    cases = [(Op.GRAYSCALE, 0.0), (Op.SOLARIZE, 128.0), *((Op.BLUR, s) for s in sigmas)]
    for op, argument in cases:
        count = len(PHOTOS)
        policy = policies.ThreeAugment()
        mine = applied(policy, PHOTOS, [[op]] * count, [[argument]] * count, device=device)
        photos = [Image.fromarray(image) for image in PHOTOS]
        if op == Op.GRAYSCALE:
            theirs = [tv.to_grayscale(photo, 3) for photo in photos]
        elif op == Op.SOLARIZE:
            theirs = [ImageOps.solarize(photo) for photo in photos]
        else:
            theirs = [photo.filter(ImageFilter.GaussianBlur(argument)) for photo in photos]
        largest, mean = distance(mine, [np.asarray(image) for image in theirs])
        assert mean < {Op.GRAYSCALE: 0.01, Op.SOLARIZE: 1e-9, Op.BLUR: 0.6}[op], (op, argument)
        assert largest <= {Op.GRAYSCALE: 1, Op.SOLARIZE: 0, Op.BLUR: 40}[op], (op, argument)


@pytest.mark.parametrize("device", DEVICES)
def test_colorjitter_does_what_torchvision_does(device: str) -> None:
    policy = policies.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    jitter = {
        Op.BRIGHTNESS: tv.adjust_brightness,
        Op.CONTRAST: tv.adjust_contrast,
        Op.COLOR: tv.adjust_saturation,
    }
    orders = list(itertools.permutations(jitter))
    images = PHOTOS[:1] * len(orders)
    factors = np.random.default_rng(0).uniform(0.6, 1.4, (len(orders), 3)).astype(np.float32)
    mine = applied(policy, images, orders, factors, device=device)
    for order, numbers, out in zip(orders, factors, mine, strict=True):
        photo = Image.fromarray(images[0])
        for op, factor in zip(order, numbers, strict=True):
            photo = jitter[op](photo, float(factor))
        largest, mean = distance(out, np.asarray(photo))
        assert largest <= 3
        assert mean < 0.05


@pytest.mark.parametrize("device", DEVICES)
def test_lighting_adds_and_clips(device: str) -> None:
    shifts = np.random.default_rng(1).normal(0, 30, (len(PHOTOS), 1, 1, 3)).astype(np.float32)

    def function() -> Any:
        return apply_lighting(pixels(PHOTOS, device), graphs.feed(shifts))

    (mine,) = run(function, len(PHOTOS), device=device)
    expected = np.clip(np.array(PHOTOS) + shifts.astype(float), 0, 255)
    assert mine.dtype == np.uint8
    assert np.abs(mine - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("device", DEVICES)
def test_equalize_rounds_halves_as_pillow_does(device: str) -> None:
    # 105 of 552 pixels are below the value 100, which becomes 105 / 2 = 52.5.
    image = np.repeat(np.array([10, 100, 200], np.uint8), [105, 420, 27]).reshape(23, 24, 1)
    image = image.repeat(3, axis=2)
    policy = policies.RandAugment(num_layers=1, interpolation="bilinear")
    (mine,) = applied(policy, [image], [[Op.EQUALIZE]], [[0.0]], device=device)
    assert np.array_equal(mine, np.asarray(ImageOps.equalize(Image.fromarray(image))))


@pytest.mark.parametrize("device", DEVICES)
def test_lighting_rounds_halves_one_way(device: str) -> None:
    # Not to even: what is added is the same for all values.
    values = np.arange(4, 252, dtype=np.uint8).reshape(1, 8, 31, 1).repeat(3, axis=3)
    shifts = np.array([0.5, -0.5, 2.5]).reshape(1, 1, 1, 3).astype(np.float32)
    (out,) = run(
        lambda: apply_lighting(pixels(values, device), graphs.feed(shifts)), 1, device=device
    )
    added = (out.astype(int) - values).reshape(-1, 3)
    assert (added == added[0]).all()
    assert (np.abs(added[0] - [0.5, -0.5, 2.5]) == 0.5).all()


@pytest.mark.parametrize("device", DEVICES)
def test_samples_without_an_operation_are_the_same_bytes(device: str) -> None:
    policy = policies.RandAugment(num_layers=2)
    images = (PHOTOS * 10)[:60]

    def function() -> Any:
        images_in = pixels(images, device)
        draw = draws.draw_ops(policy, size=SIZE, seed=5)
        return operations.apply_ops(images_in, draw, policy, size=SIZE, fill=FILL), draw.op

    out, ops = run(function, len(images), 3, device)
    plain = (ops == Op.IDENTITY).all(1)
    assert 20 < plain.sum() < 80
    same = (out == np.concatenate([images] * 3)).all(axis=(1, 2, 3))
    assert same[plain].all()
    assert same[~plain].mean() < 0.2  # but some operations change nothing


def test_the_fill_colour_is_used() -> None:
    count = len(PHOTOS)
    policy = policies.RandAugment(num_layers=1)

    def function() -> Any:
        draw = OpDraw(
            graphs.feed(np.full((count, 1), int(Op.TRANSLATE_X), np.int32)),
            graphs.feed(np.full((count, 1), 40, np.float32)),
            graphs.feed(np.ones((count, 1), bool)),
        )
        return operations.apply_ops(
            graphs.feed(PHOTOS, "HWC"), draw, policy, size=SIZE, fill=(1, 2, 3)
        )

    (out,) = run(function, count)
    assert (out[:, :, -39:] == [1, 2, 3]).all()
    assert np.array_equal(out[:, :, :110], np.array(PHOTOS)[:, :, 40:150])


# Draws


def draws_of(policy: Any, seed: int = 1, iterations: int = 10, **options: Any) -> list[Array]:
    """op, argument[, cubic] of 2,000 samples a batch."""

    def function() -> Any:
        draw = draws.draw_ops(policy, size=SIZE, seed=seed, **options)
        return tuple(node for node in draw if node is not None)

    return run(function, 2000, iterations)


def timm_draws(string: str, count: int) -> list[tuple[str, float]]:
    """Names and arguments that timm's RandAugment object applies; ("", 0.0) where it does not."""
    transform = timm_ops.rand_augment_transform(string, {"img_mean": FILL})
    drawn: list[tuple[str, float]] = []

    def record(name: str) -> Any:
        return lambda _, *args, **__: drawn.append((name, *args) if args else (name, 0.0))

    for op in transform.ops:
        op.aug_fn = record(op.name)
    random.seed(3)
    np.random.seed(3)
    for _ in range(count):
        transform(None)
    return drawn


POLICIES = ["rand-m9-mstd0.5-inc1", "rand-m7-n3-mstd4-inc1-p0.8", "rand-m9-mstd101-inc1"]


@pytest.mark.slow
@pytest.mark.parametrize("string", POLICIES)
def test_randaugments_draws_are_timms(string: str) -> None:
    # Ours n = 20,000 samples, timm's 10,000; each test p > 1e-3: operations by chi-square against
    # the formula and against timm's, arguments of each by two-sample Kolmogorov-Smirnov, and the
    # shares of the two clipped ends by chi-square.
    policy = policies.RandAugment.from_timm(string)
    ops, arguments = (values.ravel() for values in draws_of(policy)[:2])
    theirs = timm_draws(string, 10_000)
    counts = np.array([(ops == op).sum() for op in NAMES])
    none = (ops == Op.IDENTITY).sum()
    assert counts.sum() + none == 20_000 * policy.num_layers
    shares = np.array([policy.prob / 15] * 15 + [1 - policy.prob])
    assert stats.chisquare([*counts, none], shares * len(ops)).pvalue > P_MIN
    names = [name for name, _ in theirs]
    their_counts = np.array([names.count(name) for name in NAMES.values()])
    assert stats.chi2_contingency([counts, their_counts]).pvalue > P_MIN
    applied = [[counts.sum(), none], [len(theirs), 10_000 * policy.num_layers - len(theirs)]]
    assert stats.chi2_contingency(applied).pvalue > P_MIN
    for op, name in NAMES.items():
        mine = arguments[ops == op].astype(float)
        if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
            mine /= SIZE[op == Op.TRANSLATE_X]
        if op in (Op.POSTERIZE, Op.SOLARIZE):
            mine = np.ceil(mine)
        if op == Op.SOLARIZE_ADD:
            mine = np.floor(mine)
        other = np.array([argument for n, argument in theirs if n == name])
        mine, other = mine.round(4), other.round(4)  # the ends are equal in float32 too
        assert stats.ks_2samp(mine, other).pvalue > P_MIN, name
        for end in {other.min(), other.max()} - {other.mean()}:
            table = [[(x == end).sum(), (x != end).sum()] for x in (mine, other)]
            if np.sum(table, 0).min() > 10:
                assert stats.chi2_contingency(table).pvalue > P_MIN, (name, end)
        if name in SIGNED:
            middle = 1.0 if op in (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS) else 0.0
            negative = int((mine < middle).sum())
            assert stats.binomtest(negative, int((mine != middle).sum())).pvalue > P_MIN, name


def magnitude_of(ops: Array, arguments: Array) -> Array:
    """The magnitude from 0 to 10 behind the argument; NaN for operations without one."""
    scale = {Op.ROTATE: 3, Op.SHEAR_X: 0.03, Op.SHEAR_Y: 0.03, Op.SOLARIZE_ADD: 11}
    scale |= {Op.TRANSLATE_X: 0.045 * SIZE[1], Op.TRANSLATE_Y: 0.045 * SIZE[0]}
    shift: dict[Op, float] = {Op.POSTERIZE: 4, Op.SOLARIZE: 256}
    scale |= {Op.POSTERIZE: 0.4, Op.SOLARIZE: 25.6}
    for op in (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS):
        scale[op], shift[op] = 0.09, 1
    values = np.full(ops.shape, np.nan)
    for op, factor in scale.items():
        values[ops == op] = np.abs(arguments[ops == op] - shift.get(op, 0)) / factor
    return values


def independent(a: Array, b: Array) -> bool:
    table = stats.contingency.crosstab(a, b).count
    return bool(stats.chi2_contingency(table).pvalue > P_MIN)


def test_randaugments_draws_are_independent() -> None:
    # Chi-square, n = 20,000, p > 1e-3: between the layers, and between operation, magnitude (in
    # fifths), direction and interpolation.
    policy = policies.RandAugment(magnitude=5, magnitude_std=2)
    ops, arguments, cubic = draws_of(policy)
    assert stats.binomtest(int(cubic.sum()), cubic.size).pvalue > P_MIN
    magnitude = magnitude_of(ops, arguments)
    fifth = np.digitize(magnitude, stats.norm(5, 2).ppf([0.2, 0.4, 0.6, 0.8]))
    assert independent(ops[:, 0], ops[:, 1])
    assert independent(cubic[:, 0], cubic[:, 1])
    both = ~np.isnan(magnitude).any(1)
    assert independent(fifth[both, 0], fifth[both, 1])
    one = ~np.isnan(magnitude)
    assert independent(ops[one], fifth[one])
    assert independent(ops[one], cubic[one])
    assert independent(fifth[one], cubic[one])
    turned = ops == Op.ROTATE
    assert independent(arguments[turned] < 0, fifth[turned])
    assert independent(arguments[turned] < 0, cubic[turned])


def test_magnitudes_that_are_not_random() -> None:
    for policy, value in (
        (policies.RandAugment(magnitude=4, magnitude_std=0), 4),
        (policies.RandAugment(magnitude=12, magnitude_std=0), 10),
        (policies.RandAugment(magnitude=12, magnitude_std=0, magnitude_max=15), 12),
        (policies.RandAugment(magnitude=0, magnitude_std=math.inf), 0),
    ):
        ops, arguments = draws_of(policy, iterations=1)[:2]
        geometric = np.isin(ops, [Op.ROTATE, Op.SHEAR_X])
        assert np.allclose(magnitude_of(ops, arguments)[geometric], value, atol=1e-4)


def test_magnitudes_above_10_are_bounded_as_timms() -> None:
    policy = policies.RandAugment(magnitude=15, magnitude_max=20, interpolation="bilinear")
    cases = list(itertools.product(range(15), (12.0, 15.0), (0, 1)))
    codes = np.array([[2 * op + negative] for op, _, negative in cases])
    ops, arguments = meant(policy, codes, [[level] for _, level, _ in cases])
    for (place, level, negative), op, argument in zip(cases, ops, arguments, strict=True):
        theirs = timm_arguments(TIMM[place], level, bool(negative))
        if op[0] in (Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS, Op.ROTATE):
            assert argument[0] == pytest.approx(theirs[0], abs=1e-5)
        elif op[0] == Op.SOLARIZE_ADD:
            assert math.floor(argument[0]) == theirs[0]
        elif op[0] == Op.SOLARIZE:
            assert theirs[0] == 0
            assert argument[0] <= 0


def test_trivialaugment_reaches_everything_equally_often() -> None:
    # Chi-square over all distinct (operation, argument), n = 80,000, p > 1e-3; the expected shares
    # are those of torchvision's space.
    ops, arguments = draws_of(policies.TrivialAugmentWide(), iterations=40)
    assert ops.shape == (80_000, 1)
    codes = np.arange(14 * 31 * 2)[:, None]
    all_ops, all_arguments = run(lambda: draws.trivial_ops(graphs.feed(codes))[:2], len(codes))
    unused = [Op.IDENTITY, Op.AUTO_CONTRAST, Op.EQUALIZE]

    def distinct(ops: Array, arguments: Array) -> Array:
        used = np.where(np.isin(ops, unused), 0, arguments)
        return np.concatenate([ops, used], axis=1).astype(np.float64) + 0.0

    kinds, share = np.unique(distinct(all_ops, all_arguments), axis=0, return_counts=True)
    drawn, counts = np.unique(distinct(ops, arguments), axis=0, return_counts=True)
    assert np.array_equal(drawn, kinds)
    assert len(kinds) > 500
    assert stats.chisquare(counts, share / share.sum() * 80_000).pvalue > P_MIN


def test_threeaugments_draws() -> None:
    # n = 20,000, p > 1e-3: operations by chi-square, the blur by Kolmogorov-Smirnov.
    ops, arguments = (values[:, 0] for values in draws_of(policies.ThreeAugment()))
    kinds, counts = np.unique(ops, return_counts=True)
    assert kinds.tolist() == sorted([Op.GRAYSCALE, Op.SOLARIZE, Op.BLUR])
    assert stats.chisquare(counts).pvalue > P_MIN
    assert (arguments[ops == Op.SOLARIZE] == 128).all()
    assert stats.kstest(arguments[ops == Op.BLUR], stats.uniform(0.1, 1.9).cdf).pvalue > P_MIN


def test_colorjitters_draws() -> None:
    # n = 20,000, p > 1e-3: the order by chi-square, each factor by Kolmogorov-Smirnov.
    strengths = {"brightness": 0.4, "contrast": 0.2, "saturation": 1.5}
    ops, factors = draws_of(policies.ColorJitter(**strengths))
    orders, counts = np.unique(ops, axis=0, return_counts=True)
    assert len(orders) == 6
    assert stats.chisquare(counts).pvalue > P_MIN
    bounds = {Op.BRIGHTNESS: (0.6, 1.4), Op.CONTRAST: (0.8, 1.2), Op.COLOR: (0.0, 2.5)}
    for op, (low, high) in bounds.items():
        drawn = factors[ops == op]
        assert len(drawn) == 20_000
        assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > P_MIN
    share = {}
    for op, (low, high) in bounds.items():
        share[op] = (factors[ops == op] - low) / (high - low)  # one a sample, in their order
    for a, b in itertools.combinations(share.values(), 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(20_000)

    ops, factors = draws_of(policies.ColorJitter(saturation=0.3), iterations=1)
    assert ops.shape == (2000, 1)
    assert (ops == Op.COLOR).all()


def test_lightings_draws() -> None:
    # n = 20,000, p > 1e-3: the factors along the three colours are normal (Kolmogorov-Smirnov) and
    # uncorrelated.
    policy = policies.Lighting(std=0.2)
    (shifts,) = run(lambda: draw_lighting(policy, seed=2), 2000, 10)
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    factors = np.linalg.solve(255 * vectors * values, shifts.reshape(-1, 3).T.astype(float))
    for row in factors:
        assert stats.kstest(row, stats.norm(0, 0.2).cdf).pvalue > P_MIN
    correlation = np.corrcoef(factors) - np.eye(3)
    assert np.abs(correlation).max() < 4 / math.sqrt(20_000)


# Seeds

ALL = (
    policies.RandAugment(),
    policies.RandAugment(num_layers=3, magnitude_std=math.inf),
    policies.TrivialAugmentWide(),
    policies.ThreeAugment(),
    policies.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    policies.Lighting(),
)
BILINEAR = policies.RandAugment(interpolation="bilinear")


def whole(seed: int, shard_id: int = 0, device: str = "cpu") -> Pipeline:
    """All policies and two erasings, on the photographs."""

    def function() -> Any:
        images = augment.augment(
            pixels(PHOTOS, device), ALL, size=SIZE, seed=seed, shard_id=shard_id
        )
        floats = fn.cast(images, dtype=types.FLOAT)
        options: dict[str, Any] = {"size": SIZE, "shard_id": shard_id}
        for i, mode in enumerate(("pixel", "color")):
            erasing = policies.RandomErasing(prob=0.6, mode=mode)
            floats = erase(floats, erasing, seed=seed + i, **options)
        return images, floats

    return pipeline(function, len(PHOTOS), device)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_images_and_another_others() -> None:
    (first, floats), (second, _) = graphs.run(whole(1), 2)
    assert first.dtype == np.uint8
    assert floats.dtype == np.float32
    ((again, same_floats),) = graphs.run(whole(1))
    assert np.array_equal(first, again)
    assert np.array_equal(floats, same_floats)
    ((other_seed, _),) = graphs.run(whole(2))
    ((other_shard, _),) = graphs.run(whole(1, shard_id=1))
    for other in (second, other_seed, other_shard):
        assert (first != other).any(axis=(1, 2, 3)).all()


@pytest.mark.slow
def test_every_random_operator_has_a_seed_of_its_own() -> None:
    # 3 each of the RandAugments, 1, 2, 2, 1; 5 of each erasing.
    seeds = []
    for shard_id in range(2):
        for name, arguments in graphs.serialised(whole(1, shard_id)):
            if name.startswith("random__"):
                seeds.append(arguments["seed"][0])
    assert len(seeds) == 2 * (3 + 3 + 1 + 2 + 2 + 1 + 5 + 5)
    assert len(set(seeds)) == len(seeds)


WARP = "experimental__WarpPerspective"
RAND = {WARP, "BrightnessContrast", "Equalize", "Filter", "ColorSpaceConversion"}


@pytest.mark.parametrize(
    ("policy", "built"),
    [
        (policies.RandAugment(), RAND),
        (policies.ThreeAugment(), {"GaussianBlur", "ColorSpaceConversion"}),
        (policies.ColorJitter(brightness=0.4), {"BrightnessContrast"}),
        (policies.ColorJitter(), set()),
    ],
    ids=["rand", "three", "brightness", "nothing"],
)
def test_only_the_operations_of_the_policy_are_built(policy: Any, built: set[str]) -> None:
    def function() -> Any:
        return augment.augment(graphs.feed(PHOTOS, "HWC"), [policy], size=SIZE, seed=1)

    names = {name for name, _ in graphs.serialised(pipeline(function, len(PHOTOS)))}
    assert names & (RAND | {"GaussianBlur"}) == built


def test_the_graph_has_native_operators_only() -> None:
    names = [name for name, _ in graphs.serialised(whole(1))]
    assert names.count("ExternalSource") == 1  # the photographs
    assert not any("Python" in name or "Numba" in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_checkpoints_resume_bit_for_bit(photos: str, device: str) -> None:
    files = list(image_files(photos))[:40]

    @pipeline_def
    def training() -> Any:
        encoded, labels = fn.readers.file(
            name="reader", files=files, pad_last_batch=True, shuffle_after_epoch=True
        )
        images = fn.resize(imagenet.decode(encoded, device), size=(48, 64))
        images = augment.augment(images, ALL, size=(48, 64), seed=1)
        images = fn.cast(images, dtype=types.FLOAT)
        images = erase(images, policies.RandomErasing(prob=0.5), size=(48, 64), seed=1)
        return images, labels.gpu() if device == "gpu" else labels

    def make() -> dcm.Loader:
        device_id = 0 if device == "gpu" else None
        return dcm.Loader(training, batch_size=8, num_threads=2, device_id=device_id, seed=4)

    with make() as loader:
        for _ in itertools.islice(loader, 2):
            pass
        state = loader.state_dict()
        rest = [images.clone() for images, _ in loader.rest()]
    with make() as resumed:
        resumed.load_state_dict(state)
        again = [images.clone() for images, _ in resumed]
    assert len(rest) == len(again) == 3
    for images, same in zip(rest, again, strict=True):
        assert torch.equal(images, same)


@pytest.mark.parametrize("wrong", ["size", "type"])
def test_images_of_another_size_or_type_are_refused(wrong: str) -> None:
    size = (45, 32) if wrong == "size" else (32, 45)
    policy = policies.Lighting(std=0)
    for dtype, function in (
        (np.uint8, lambda x: augment.augment(x, [policy], size=(32, 45), seed=1)),
        (np.float32, lambda x: erase(x, policies.RandomErasing(), size=(32, 45), seed=1)),
    ):
        kind = dtype if wrong == "size" else np.float16
        images = np.zeros((4, *size, 4 if wrong == "size" else 3), kind)
        with pytest.raises(RuntimeError, match="`images` must be HWC of the size given"):
            run(lambda function=function, images=images: function(graphs.feed(images, "HWC")), 4)


def test_the_graph_for_the_gpu_keeps_the_pixels_there() -> None:
    # Built, not run, so it needs no GPU: draws on the CPU, what is done to pixels on the GPU.
    outputs: list[Any] = []

    @pipeline_def(batch_size=4, num_threads=1, device_id=0)
    def pipe() -> Any:
        images = augment.augment(pixels(PHOTOS[:4], "gpu"), ALL, size=SIZE, seed=1)
        images = fn.cast(images, dtype=types.FLOAT)
        for mode in ("pixel", "color", "const"):
            erasing = policies.RandomErasing(mode=mode)
            images = erase(images, erasing, size=SIZE, seed=1)
        outputs.append(images)
        return images

    pipe()
    assert outputs[0].device == "gpu"
    found = {  # what feeds the pixels has neither
        (getattr(operator._op, "schema_name", ""), getattr(operator._op, "device", "cpu"))
        for operator in graphs.operators(outputs)
    }
    heavy = {"experimental__WarpPerspective", "BrightnessContrast", "Filter", "MultiPaste", "Erase"}
    heavy |= {"Equalize", "GaussianBlur", "CropMirrorNormalize"}
    both = {"CoordTransform", "random__Normal"}  # in the draws too
    assert heavy | both <= {name for name, device in found if device == "gpu"}
    assert not heavy & {name for name, device in found if device == "cpu"}


# Erasing


def erase_draws(erasing: Any, size: tuple[int, int], seed: int = 1, **options: Any) -> list[Array]:
    """erased, box, of 20,000 samples."""

    def function() -> Any:
        return draw_erase(erasing, size=size, seed=seed, **options)[:2]

    return run(function, 2000, 10)


def timm_boxes(size: tuple[int, int], count: int, **options: Any) -> Array:
    """Boxes (y, x, h, w) that timm erases; rows of -1 where it erases nothing."""
    eraser = timm_erasing.RandomErasing(device="cpu", **options)
    random.seed(5)
    boxes = []
    for _ in range(count):
        erased = (eraser(torch.ones(1, *size)) == 0)[0]
        rows, columns = erased.any(1).nonzero()[:, 0], erased.any(0).nonzero()[:, 0]
        if len(rows) == 0:
            boxes.append([-1] * 4)
            continue
        y, x = int(rows[0]), int(columns[0])
        boxes.append([y, x, int(rows[-1]) + 1 - y, int(columns[-1]) + 1 - x])
    return np.array(boxes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("area", "ratio"),
    [((0.02, 1 / 3), (0.3, 1 / 0.3)), ((0.3, 0.95), (0.2, 4.0))],
    ids=["default", "many do not fit"],
)
def test_boxes_are_timms(area: tuple[float, float], ratio: tuple[float, float]) -> None:
    # Two-sample Kolmogorov-Smirnov of y, x, h, w, area and shape, ours n = 20,000 and timm's 6,000;
    # the share that is erased by chi-square; each p > 1e-3.
    size = (32, 45)
    erasing = policies.RandomErasing(prob=0.7, area=area, ratio=ratio)
    erased, boxes = erase_draws(erasing, size)
    theirs = timm_boxes(
        size,
        6000,
        probability=0.7,
        min_area=area[0],
        max_area=area[1],
        min_aspect=ratio[0],
        max_aspect=ratio[1],
    )
    hit = theirs[:, 0] >= 0
    table = [[erased.sum(), (~erased).sum()], [hit.sum(), (~hit).sum()]]
    assert stats.chi2_contingency(table).pvalue > P_MIN
    mine, theirs = boxes[erased].astype(float), theirs[hit].astype(float)
    assert (mine >= 0).all()
    assert (mine[:, :2] + mine[:, 2:] <= size).all()
    assert (mine[:, 2:] < size).all()
    for measure in (
        *(lambda box, i=i: box[:, i] for i in range(4)),
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: box[:, 0] / (size[0] - box[:, 2]),
    ):
        assert stats.ks_2samp(measure(mine), measure(theirs)).pvalue > P_MIN


def test_boxes_that_never_fit_erase_nothing() -> None:
    erasing = policies.RandomErasing(prob=1, area=(1, 1), ratio=(1, 1))
    erased, _ = erase_draws(erasing, (32, 45))
    assert not erased.any()


@pytest.mark.slow
def test_seeds_and_shards_have_other_boxes() -> None:
    erasing = policies.RandomErasing(prob=1)
    base, other, shard = (
        erase_draws(erasing, (32, 45), **options)[1]
        for options in ({}, {"seed": 2}, {"shard_id": 1})
    )
    assert (base == other).all(1).mean() < 0.01
    assert (base == shard).all(1).mean() < 0.01


def erased_images(erasing: Any, iterations: int, device: str = "cpu") -> list[Array]:
    """Outputs before and after, erased, box, [color]."""
    size = (32, 45)
    rng = np.random.default_rng(0)
    images = rng.normal(5, 1, (200, *size, 3)).astype(np.float32)

    def function() -> Any:
        before = pixels(list(images), device)
        draw = draw_erase(erasing, size=size, seed=1, device=device)
        after = apply_erase(before, draw, size=size)
        shown = () if draw.color is None else (draw.color,)
        return before, after, draw.erased, draw.box, *shown

    return run(function, 200, iterations, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["const", "color", "pixel"])
def test_only_the_box_is_erased(mode: Any, device: str) -> None:
    before, after, erased, boxes, *color = erased_images(
        policies.RandomErasing(prob=0.4, mode=mode), 10, device
    )
    assert after.dtype == np.float32
    assert 600 < erased.sum() < 1000
    inside = np.zeros(before.shape[:3], bool)
    for i, (y, x, h, w) in enumerate(boxes):
        inside[i, y : y + h, x : x + w] = erased[i]
    assert np.array_equal(after[~inside], before[~inside])
    noise = after[inside].astype(float)
    if mode == "const":
        assert (noise == 0).all()
    elif mode == "color":
        for i in np.flatnonzero(erased):
            assert (after[i][inside[i]] == color[0][i]).all()
        # Normal and independent, n = 2,000 x 3, p > 1e-3.
        assert stats.kstest(color[0].ravel(), "norm").pvalue > P_MIN
        assert np.abs(np.corrcoef(color[0].T) - np.eye(3)).max() < 4 / math.sqrt(2000)
    else:
        # Normal, n = 20,000 of them, p > 1e-3; neighbours and channels uncorrelated.
        assert stats.kstest(noise.ravel()[:20_000], "norm").pvalue > P_MIN
        assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
        assert abs(noise.std() - 1) < 4 / math.sqrt(noise.size)
        assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 4 / math.sqrt(len(noise))
        assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 4 / math.sqrt(len(noise))


def test_erase_with_probability_0_builds_nothing() -> None:
    def function() -> Any:
        images = graphs.feed(np.zeros((4, 8, 8, 3), np.float32), "HWC")
        out = erase(images, policies.RandomErasing(prob=0), size=(8, 8), seed=1)
        assert out is images
        return out

    run(function, 4)


# GPU


def differences(function: Any, batch_size: int, iterations: int = 1) -> Array:
    """What the first output of function(device) differs by on the two devices."""
    cpu, gpu = (
        run(lambda device=device: function(device), batch_size, iterations, device)[0]
        for device in ("cpu", "gpu")
    )
    return np.abs(cpu.astype(float) - gpu)


ARGUMENTS = {  # halves and whole numbers among the factors, and what is not
    **dict.fromkeys(("BRIGHTNESS", "COLOR", "CONTRAST", "SHARPNESS"), (0, 0.5, 1, 1.5, 0.37, 1.81)),
    "ROTATE": (-27.01, 0, 11.31),
    **dict.fromkeys(("TRANSLATE_X", "TRANSLATE_Y"), (0.5, -11, 20.3127)),
    **dict.fromkeys(("SHEAR_X", "SHEAR_Y"), (0.2817, -0.2671, 0.1293)),
    **dict.fromkeys(("POSTERIZE",), (0, 2.5, 8)),
    **dict.fromkeys(("SOLARIZE", "SOLARIZE_ADD"), (0, 64.5, 110)),
    **dict.fromkeys(("BLUR",), (0.1, 0.7, 2)),
}


@pytest.mark.gpu
@pytest.mark.parametrize("size", [SIZE, (24, 33)], ids=str)
@pytest.mark.parametrize("op", [op for op in Op if op != Op.IDENTITY], ids=lambda op: op.name)
def test_operations_give_the_same_bytes_on_a_gpu(op: Op, size: tuple[int, int]) -> None:
    # In warps and blur float32 may make a half, and with it a unit.
    policy: Any = policies.RandAugment(num_layers=1, interpolation="bilinear")
    if op in (Op.GRAYSCALE, Op.BLUR):
        policy = policies.ThreeAugment()
    arguments = ARGUMENTS.get(op.name, (0,))
    images = photos_of(size) * len(arguments)
    rows = np.repeat(np.array(arguments, float), len(images) // len(arguments))[:, None]
    cpu, gpu = (
        applied(policy, images, [[op]] * len(images), rows, device=device)
        for device in ("cpu", "gpu")
    )
    largest, mean = distance(cpu, gpu)
    assert largest <= 1
    assert mean <= (1e-4 if op in GEOMETRIC_OPS or op == Op.BLUR else 0)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [SIZE, (33, 32)], ids=str)
def test_trivialaugments_warps_are_the_same_on_a_gpu(size: tuple[int, int]) -> None:
    codes = np.arange(14 * 31 * 2)[:, None]
    ops, arguments = run(lambda: draws.trivial_ops(graphs.feed(codes))[:2], len(codes))
    warps = np.isin(ops[:, 0], list(GEOMETRIC_OPS))
    ops, arguments = ops[warps], arguments[warps]
    images = photos_of(size)[:1] * len(ops)
    cpu, gpu = (
        applied(policies.TrivialAugmentWide(), images, ops, arguments, device=device)
        for device in ("cpu", "gpu")
    )
    differ = (cpu != gpu).any(-1).mean(axis=(1, 2))
    assert len(differ) == 5 * 62
    assert differ.max() < 1e-3
    assert differ.mean() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("policy", [*ALL, BILINEAR], ids=lambda policy: type(policy).__name__)
def test_the_gpu_agrees_with_the_cpu_at_one_seed(policy: Any) -> None:
    images = (PHOTOS * 10)[:64]

    def function(device: str) -> Any:
        return augment.augment(pixels(images, device), [policy], size=SIZE, seed=3)

    found = differences(function, 64, 3)
    if isinstance(policy, policies.RandAugment) and policy is not BILINEAR:
        assert found.mean() < 0.15  # bicubic interpolation
    else:
        assert (found > 0).mean() < 1e-4
    assert np.median(found.max(axis=(1, 2, 3))) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["const", "color", "pixel"])
def test_erasing_is_the_same_on_a_gpu(mode: Any) -> None:
    images = np.random.default_rng(0).normal(5, 1, (64, 32, 45, 3)).astype(np.float32)

    def function(device: str) -> Any:
        erasing = policies.RandomErasing(prob=0.6, mode=mode)
        return erase(pixels(list(images), device), erasing, size=(32, 45), seed=3)

    assert differences(function, 64, 3).max() < (1e-6 if mode == "pixel" else 1e-9)


# What is refused


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (policies.RandAugment, {"magnitude": -1}, ValueError, "`magnitude` must be at least 0"),
        (policies.RandAugment, {"magnitude_std": -1}, ValueError, "`magnitude_std` must be at"),
        (policies.RandAugment, {"magnitude_std": math.nan}, ValueError, "`magnitude_std` must be"),
        (policies.RandAugment, {"num_layers": 0}, ValueError, "`num_layers` must be at least 1"),
        (policies.RandAugment, {"num_layers": 17}, ValueError, "`num_layers` must be at most 16"),
        (policies.RandAugment, {"prob": 1.1}, ValueError, r"`prob` must be in \[0, 1\]"),
        (policies.RandAugment, {"magnitude_max": 0}, ValueError, "`magnitude_max` must be above 0"),
        (policies.RandAugment, {"interpolation": "x"}, ValueError, "`interpolation` must be one"),
        (policies.ColorJitter, {"brightness": -0.1}, ValueError, "`brightness` must be at least 0"),
        (policies.ColorJitter, {"contrast": "1"}, TypeError, "`contrast` must be a number"),
        (policies.ColorJitter, {"saturation": -0.1}, ValueError, "`saturation` must be at least"),
        (policies.Lighting, {"std": -0.1}, ValueError, "`std` must be at least 0"),
        (policies.RandomErasing, {"prob": -1}, ValueError, r"`prob` must be in \[0, 1\]"),
        (policies.RandomErasing, {"mode": "rand"}, ValueError, "`mode` must be one of"),
        (policies.RandomErasing, {"area": (0.3, 0.2)}, ValueError, "`area` must be"),
        (policies.RandomErasing, {"area": 0.3}, TypeError, "`area` must be 2 numbers"),
        (policies.RandomErasing, {"ratio": (0, 1)}, ValueError, "`ratio` must be"),
    ],
)
def test_wrong_policies_are_refused(kind: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        kind(**options)


@pytest.mark.parametrize(
    "string",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m7-n3-p0.25-mstd1-mmax15-inc1",
        "rand-inc1",
        "rand-mstd101-inc1-m5",
        "rand-m9-p1-mmax0-inc1",
    ],
)
def test_timms_strings_mean_what_they_mean_to_timm(string: str) -> None:
    mine = policies.RandAugment.from_timm(string, interpolation="bicubic")
    theirs = timm_ops.rand_augment_transform(string, {"img_mean": FILL})
    op = theirs.ops[0]
    assert [op.name for op in theirs.ops] == TIMM
    assert mine.interpolation == "bicubic"
    assert mine.num_layers == theirs.num_layers
    assert mine.prob == op.prob
    assert mine.magnitude == op.magnitude
    assert mine.magnitude_std == op.magnitude_std
    assert mine.magnitude_max == (op.magnitude_max or 10)


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("rand-m9-mstd0.5", 'must have "inc1"'),
        ("rand-m9-inc0", 'must have "inc1"'),
        ("augmix-m9", 'must begin with "rand-"'),
        ("rand-m9-w0-inc1", 'got "w0"'),
        ("rand-tweights-inc1", 'got "tweights"'),
        ("rand-m9-m8-inc1", 'at most once, got "m8"'),
        ("rand-m9.5-inc1", 'got "m9.5"'),
        ("rand-m9-p2-inc1", "`prob` must be in"),
    ],
)
def test_strings_that_are_not_known_are_refused(string: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policies.RandAugment.from_timm(string)


def test_wrong_arguments_are_refused_when_the_graph_is_built() -> None:
    lighting, erasing = policies.Lighting(), policies.RandomErasing()

    def refused(error: Any, message: str, call: Any) -> None:
        def function() -> Any:
            images = graphs.feed(PHOTOS, "HWC")
            with pytest.raises(error, match=message):
                call(images)
            return images

        pipeline(function, len(PHOTOS))

    options: dict[str, Any] = {"size": SIZE, "seed": 1}
    refused(TypeError, "`policies` must", lambda x: augment.augment(x, [erasing], **options))
    refused(TypeError, "`images` must", lambda _: augment.augment(PHOTOS, [lighting], **options))
    refused(TypeError, "`erasing` must", lambda x: erase(x, lighting, **options))
    refused(TypeError, "`size` must", lambda x: augment.augment(x, [], size=9, seed=1))
    refused(ValueError, "`size` must", lambda x: augment.augment(x, [], size=(9, 2), seed=1))
    refused(TypeError, "`fill` must", lambda x: augment.augment(x, ALL, fill=(1, 2), **options))


def test_wrong_images_are_named() -> None:
    wrong = (np.zeros((4, 3, 32, 32), np.uint8), np.zeros((4, 32, 32, 3), np.float32))
    for images in wrong:

        @pipeline_def(batch_size=4, num_threads=1, device_id=None)
        def pipe(images: Any = images) -> Any:
            return augment.augment(
                graphs.feed(images), [policies.ThreeAugment()], size=(32, 32), seed=1
            )

        with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
            pipe().run()
        words = explain(caught.value)
        assert words is not None
        assert words.startswith("`images` must be HWC of the size given")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"augment": policies.RandAugment(magnitude=1e-300, magnitude_std=math.inf)},
        {"augment": policies.RandAugment(magnitude=1e300, magnitude_max=1e300)},
        {"augment": policies.RandAugment(num_layers=16)},
        {"erase": policies.RandomErasing(area=(0.0, 1e-219))},
        {"erase": policies.RandomErasing(ratio=(1.0, 1.0000000001))},
    ],
    ids=str,
)
def test_numbers_that_float32_cannot_tell_apart_work(photos: str, options: Any) -> None:
    with dcm.train_loader(photos, batch_size=8, size=16, device="cpu", **options) as loader:
        assert next(iter(loader))[0].isfinite().all()


@pytest.mark.slow
def test_a_graph_too_deep_for_dali_is_refused_by_name(photos: str) -> None:
    deep = [policies.RandAugment(num_layers=16)] * 3
    with pytest.raises(ValueError, match=r"`augment`, or a higher sys\.setrecursionlimit"):
        dcm.train_loader(photos, batch_size=8, size=16, device="cpu", augment=deep)
