"""Small pipelines around mix(), fed with arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.mixing import mix_known
from tests import reference

Array = NDArray[Any]


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


def operators(outputs: Iterable[Any]) -> list[Any]:
    """The operators behind the nodes of a graph that need not be built."""
    nodes, found = list(outputs), {}
    while nodes:
        source = nodes.pop().source
        if source is not None and source.id not in found:
            found[source.id] = source
            nodes += [node for node in source.inputs if hasattr(node, "source")]
    return list(found.values())


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
    **options: Any,
) -> Pipeline:
    """Outputs: images, lam, box, partner, [original,] *targets[, blended].

    `draws` are injected if given. With `known` it is mix_known() that mixes.
    """
    batch_size = len(images)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=seed,
        prefetch_queue_depth=1,
    )
    def pipe() -> tuple[Any, ...]:
        pixels = feed(images, layout)
        if device == "gpu":
            pixels = pixels.gpu()
        if draws is not None:
            given = {name: feed(values) for name, values in draws.items()}
            options["params"] = dcm.MixParams(**given)
        if known:
            options["size"] = tuple(images.shape[1:3])
        mixed = (mix_known if known else dcm.mix)(pixels, feed(labels), cfg, **options)
        targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
        used = [mixed.params.lam, mixed.params.box, mixed.params.partner]
        if mixed.params.original is not None:
            used.append(mixed.params.original)
        if with_blended:
            blended = mixed.params.blended
            always = fn.constant(idata=[int(cfg.cutmix_alpha == 0)], shape=[])
            targets += (always if blended is None else blended,)
        return (mixed.images, *used, *targets)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        return pipe()


def sample_pipeline(cfg: dcm.MixConfig, batch_size: int, seed: int, **options: Any) -> Pipeline:
    """Outputs the draws alone: the fields of MixParams that are drawn, in their order."""

    @pipeline_def(batch_size=batch_size, num_threads=2, device_id=None)
    def pipe() -> tuple[Any, ...]:
        params = dcm.sampling.sample(cfg, batch_size, seed, **options)
        return tuple(node for node in params if node is not None)

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
