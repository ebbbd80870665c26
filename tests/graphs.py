"""Small pipelines around mix(), fed with arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def

import dali_cutmix as dcm

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
    **options: Any,
) -> Pipeline:
    """Outputs: images, lam, box, partner, [original,] *targets[, blended].

    `draws` are injected if given.
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
        params = None
        if draws is not None:
            params = dcm.MixParams(**{name: feed(values) for name, values in draws.items()})
        mixed = dcm.mix(pixels, feed(labels), cfg, params=params, **options)
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


def distinct_images(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """Images in which no two samples share a value at the same place, as far as bytes allow."""
    base = rng.permutation(256).astype(np.uint8)
    pattern = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.stack([pattern + base[i % 256] for i in range(count)])
