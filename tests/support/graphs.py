"""Small pipelines around mix(), fed with arrays."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali._utils import dali_trace
from nvidia.dali.pipeline import do_not_convert
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix._dali import operators
from dali_cutmix.mixing import api
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.pairing import pair
from dali_cutmix.mixing.plan import Beside, Size, choose
from dali_cutmix.mixing.saliency import Saliency
from tests import reference

__all__ = [
    "Array",
    "assert_blended",
    "distinct_images",
    "feed",
    "hand_made",
    "injected",
    "mix_pipeline",
    "numbered_folder",
    "operators",
    "plan_of_draws",
    "run",
    "sample_pipeline",
    "serialised",
    "untraced",
]

Array = NDArray[Any]


@contextmanager
def untraced() -> Iterator[None]:
    """Graphs that are built within do not know where each operator stands, which takes 40 % of it.

    Not where an error is to tell its rule: that is by this.
    """
    dali_trace.set_tracing(enabled=False)
    try:
        yield
    finally:
        dali_trace.set_tracing(enabled=True)


def feed(batch: Array | list[Array], layout: str | None = None) -> Any:
    """A DataNode that gives the batch, again in every iteration."""
    samples = [np.array(sample) for sample in batch]
    return fn.external_source(source=lambda: samples, batch=True, layout=layout)


def run(pipeline: Pipeline, iterations: int = 1) -> list[list[Array]]:
    """The outputs of each iteration as arrays, from whichever device."""
    return [
        [np.array(output.as_cpu().as_array()) for output in pipeline.run()]
        for _ in range(iterations)
    ]


def serialised(pipeline: Pipeline) -> list[tuple[str, dict[str, list[int]]]]:
    """Name and integer arguments of each operator.

    Protobuf: the pipeline has the operators in field 5; an operator its name in field 1 and its
    arguments in field 4; an argument its name in field 1 and its integers in field 4.
    """
    operators = []
    for field, operator in _fields(pipeline.serialize()):
        if field != 5:
            continue
        parts = _fields(operator)
        arguments = {}
        for inner, argument in parts:
            if inner == 4:
                values = _fields(argument)
                name = next(v for k, v in values if k == 1)
                arguments[name.decode()] = [v for k, v in values if k == 4]
        operators.append((next(v for k, v in parts if k == 1).decode(), arguments))
    return operators


def _fields(message: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: numbers, or bytes."""
    at, fields = 0, []

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(message):
        field, wire = divmod(varint(), 8)
        if wire == 0:
            fields.append((field, varint()))
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            length = varint()
            fields.append((field, message[at : at + length]))
            at += length
    return fields


class FedDraws:
    """Draws of the tests' own in the place of `draw.Draw`: one row of a table for each sample."""

    NAMES: ClassVar = {
        "resizemix position": "position",
        "resizemix scale": "scale",
        "mosaic centre": "position",
        "gridmix holes": "holes",
        "gridmix lam": "lam",
        "fmix place": "place",
        "fmix up": "up",
        "smoothmix centre": "position",
        "smoothmix sigma": "scale",
        "cutout centre": "position",
        "snapmix image's position": "position",
        "snapmix partner's position": "partner's position",
        "snapmix partner's lam": "partner's lam",
    }

    def __init__(self, draws: dict[str, Any]) -> None:
        self._draws = draws

    def uniform(self, name: str, columns: int = 1) -> Any:
        fed = self._draws[self.NAMES.get(name, name)]
        return fn.reshape(feed(np.asarray(fed, np.float64)), shape=[1, columns])

    def beta(self, name: str, alpha: float) -> Any:  # noqa: ARG002
        fed = self._draws[self.NAMES.get(name, "lam")]
        return fn.reshape(feed(np.asarray(fed, np.float64)), shape=[1, 1])

    def true(self) -> Any:
        return types.Constant(np.ones((1, 1), np.bool_))

    def first(self, x: Any) -> Any:
        return x

    def deal(self, table: Any, mixed: None) -> Any:  # noqa: ARG002
        return table[0]

    def coin(self, name: str, probability: float) -> Any:  # noqa: ARG002
        return fn.reshape(feed(np.asarray(self._draws[self.NAMES[name]], bool)), shape=[1, 1])


def injected(cfg: dcm.MixConfig, draws: dict[str, Any], size: tuple[int, ...]) -> dcm.MixParams:
    """The plans that the methods of a configuration make of given draws, with given partners."""
    partner = feed(draws["partner"])
    if "box" in draws:
        return dcm.MixParams(**{name: feed(values) for name, values in draws.items()})
    sizes, methods = Size.of_known(size), [method for method, _ in cfg.weighted_methods]
    chosen = []
    if "blended" in draws:
        blended = fn.reshape(feed(draws["blended"]), shape=[1, 1])
        chosen = [blended if method.blends else blended ^ True for method in methods]
    mixed = None
    if cfg.minmax is not None:  # draws its sides, not lam: 1 stands for not mixed
        mixed = fn.reshape(feed(draws["lam"] < 1), shape=[1, 1])
    given: Any = FedDraws(draws)
    rows = choose(methods, [method.rows(sizes, given) for method in methods], chosen, mixed, sizes)
    beside = None
    if cfg.by_saliency:
        seen = [draws["saliency"][j] for j in draws["partner"]]
        both = [Saliency.given(feed(maps)) for maps in (draws["saliency"], seen)]
        beside = Beside(saliency=(both[0], both[1]))
    params = api._dealt(rows, given, sizes, sizes, beside or Beside(), None)
    if params.blended is None and cfg.always_blends:
        params = params._replace(blended=fn.ones(shape=[], dtype=types.BOOL))
    others = feed(draws["others"]) if "others" in draws else None
    drawn_for = sizes if params.patterns else None
    return params._replace(partner=partner, others=others, regions=None, size=drawn_for)


def mix_pipeline(
    images: Array,
    labels: Array,
    cfg: dcm.MixConfig,
    *,
    draws: dict[str, Array] | None = None,
    device: str = "cpu",
    seed: int | None = 1,
    layout: str | None = "HWC",
    with_blended: bool = False,
    known: bool = False,
    conditionals: bool = False,
    **options: Any,
) -> Pipeline:
    """Outputs: images, lam, box, partner, [original,] *targets[, blended].

    `draws` are injected if given. With `known` mix() is told the size.
    """
    batch_size = len(images)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=seed,
        prefetch_queue_depth=1,
        enable_conditionals=conditionals,
    )
    def pipe() -> tuple[Any, ...]:
        return outputs()

    @do_not_convert
    def outputs() -> tuple[Any, ...]:
        pixels = feed(images, layout)
        if device == "gpu":
            pixels = pixels.gpu()
        if draws is not None:
            options["params"] = injected(cfg, draws, images[0].shape[:2])
        if known:
            options["size"] = tuple(images.shape[1:3])
        mixed = dcm.mix(pixels, feed(labels), cfg, **options)
        targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
        used = [mixed.params.lam, mixed.params.box, mixed.params.partner]
        if mixed.params.original is not None:
            used.append(mixed.params.original)
        if with_blended:
            blended = mixed.params.blended
            targets += (fn.constant(idata=[0], shape=[]) if blended is None else blended,)
        return (mixed.images, *used, *targets)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        return pipe()


class _RecordingDraw(Draw):
    """Draws, and remembers what."""

    def uniform(self, name: str, columns: int = 1) -> Any:
        self.drawn: dict[str, Any] = getattr(self, "drawn", {})
        self.drawn[name] = super().uniform(name, columns)
        return self.drawn[name]


def sample_pipeline(
    cfg: dcm.MixConfig, batch_size: int, seed: int, keep_order: bool = True
) -> Pipeline:
    """Outputs the draws by themselves: lam, partner[, position][, sides][, blended][, original].

    As the table of a batch has them, float64, lam before it is corrected.
    """
    if cfg.minmax is None:
        cfg = dataclasses.replace(cfg, correct_lam=False)

    @pipeline_def(batch_size=batch_size, num_threads=2, device_id=None)
    def pipe() -> tuple[Any, ...]:
        pairs = pair(cfg.partner, batch_size, seed, keep_order=keep_order)
        draw = _RecordingDraw.for_mode(cfg.mode, batch_size, seed, pairs.order)
        size = Size(draw.first(types.Constant(np.array([224, 224], np.int32))))
        rows = api._draw_rows(cfg, draw, size, None)

        def doubles(x: Any, shape: list[int]) -> Any:
            bits = draw.deal(fn.reinterpret(x, dtype=types.INT32))
            return fn.reinterpret(bits, dtype=types.FLOAT64, shape=shape)

        outputs = [doubles(rows.lam, []), pairs.partner]
        outputs += [doubles(x, [2]) for name, x in draw.drawn.items() if name != "switch"]
        if rows.blended is not None:
            dealt = draw.deal(fn.cast(rows.blended, dtype=types.INT32))
            outputs.append(fn.reshape(dealt, shape=[]) != 0)
        return (*outputs, *([] if pairs.original is None else [pairs.original]))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        return pipe()


def assert_blended(out: Array, image: Array, partner: Array, lam: float) -> None:
    """Asserts that bytes are the reference's; one off only where the exact sum is nearly a half.

    Sums in float32 may then fall on the other side; not where they are exact, as for lam 0.5.
    """
    wrong = out != reference.blended(image, partner, lam)
    if wrong.any():
        assert lam not in (0, 0.5, 1)
        exact = reference.weighted_sum(image, partner, lam)[wrong]
        assert np.abs(exact - np.floor(exact) - 0.5).max() < 1e-4
        assert np.abs(out[wrong] - exact).max() < 0.5 + 1e-4


def numbered_folder(root: Path, count: int, size: tuple[int, int] = (40, 50)) -> str:
    """Makes an ImageFolder of one image a class: the label is the identity of the image."""
    rng = np.random.default_rng(0)
    for i in range(count):
        (root / f"{i:02d}").mkdir()
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}" / "image.jpg", quality=95)
    return str(root)


def distinct_images(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """Images in which no two samples share a value at the same place, as far as bytes allow."""
    base = rng.permutation(256).astype(np.uint8)
    pattern = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.stack([pattern + base[i % 256] for i in range(count)])


def hand_made(
    rng: np.random.Generator, count: int, size: tuple[int, ...], methods: tuple[str, ...]
) -> tuple[list[str], dict[str, Array]]:
    """Plans of all kinds: the method of each sample, and fields of `MixParams`.

    Boxes lie anywhere, also at every edge, also whole, also empty; lam also is just 0.5.
    """
    kinds = rng.choice([*methods, "none"], count, p=[*[0.9 / len(methods)] * len(methods), 0.1])
    nowhere = np.array([*size, *[0] * len(size)], np.int32)
    boxes = np.tile(nowhere, (count, 1))
    for i in np.flatnonzero((kinds == "CutMix") | (kinds == "ResizeMix")):
        ends = np.sort(rng.integers(0, np.array(size) + 1, (2, len(size))), axis=0)
        edges = rng.random((2, len(size))) < 0.2
        ends = np.where(edges, np.array([[0] * len(size), size]), ends)
        if (ends[1] > ends[0]).all():
            boxes[i] = [*ends[0], *(ends[1] - ends[0])]
        else:
            kinds[i] = "none"
    covered = boxes[:, len(size) :].astype(np.float64).prod(1) / np.prod(size)
    lam = np.where(kinds == "MixUp", rng.choice([0.0, 0.3, 0.5, 0.7, 1.0], count), 1 - covered)
    draws = {
        "lam": lam.astype(np.float32),
        "box": boxes,
        "partner": rng.integers(0, count, count, dtype=np.int32),
        "original": rng.permutation(count).astype(np.int32),
    }
    if "MixUp" in methods:
        draws["blended"] = kinds == "MixUp"
    if "ResizeMix" in methods:
        draws["resized"] = kinds == "ResizeMix"
    if "Mosaic" in methods:
        draws["tiled"] = tiled = kinds == "Mosaic"
        draws["others"] = rng.integers(0, count, (count, 2), dtype=np.int32)
        edge = rng.random((count, 2)) < 0.2
        centre = np.where(edge, 0, rng.integers(0, size, (count, 2)))
        boxes[tiled] = np.concatenate([centre, np.array(size) - centre], axis=1)[tiled]
        draws["lam"][tiled] = centre[tiled].prod(1) / np.prod(size)
    return kinds.tolist(), draws


def plan_of_draws(images: Any, draws: dict[str, Array], **options: Any) -> dcm.MixParams:
    """The plan that mix() makes of plans made by hand."""
    params = dcm.MixParams(**{name: feed(values) for name, values in draws.items()})
    return dcm.mix(images, None, dcm.MixConfig(), params=params, **options).params
