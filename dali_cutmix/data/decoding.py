"""One encoded image as the loaders' graph decodes it, for judging files before they are read."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types

from dali_cutmix._rules import dali_reason
from dali_cutmix.data.images import decode

__all__ = ["decoded"]

_LOCK = threading.Lock()
_PIPELINES: list[Pipeline] = []  # one, or none yet


def decoded(data: bytes) -> NDArray[np.uint8]:
    """Returns the pixels of an encoded image, uint8 (H, W, 3), as `images.decode` gives them.

    Raises:
        ValueError: DALI does not decode it; with its words.
    """
    with _LOCK:
        pipeline = _PIPELINES.pop() if _PIPELINES else _pipeline()
        try:
            pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8)])
            (output,) = pipeline.run()
            pixels = np.array(output.as_cpu().as_array()[0])
        except RuntimeError as error:  # after which a pipeline cannot be used
            raise ValueError(dali_reason(str(error))) from None
        _PIPELINES.append(pipeline)
        return pixels


def _pipeline() -> Pipeline:
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        encoded: Any = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(decode(encoded, "cpu"))
    pipeline.build()
    return pipeline
