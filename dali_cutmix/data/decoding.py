"""One encoded image as the loaders' graph decodes it, for judging files before they are read."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types

from dali_cutmix._rules import dali_reason, explain
from dali_cutmix.data.images import BANDS, decode
from dali_cutmix.data.pixel_format import RGB8, PixelFormat

__all__ = ["OtherBands", "decoded"]

_LOCK = threading.Lock()
_PIPELINES: defaultdict[PixelFormat, list[Pipeline]] = defaultdict(list)  # one, or none yet


class OtherBands(ValueError):
    """The image does not have as many bands as it is to have channels."""


def decoded(data: bytes, to: PixelFormat = RGB8) -> NDArray[Any]:
    """Returns the pixels of an encoded image, (H, W, C), as `images.decode` gives them.

    Raises:
        OtherBands: it has other bands than `to` has channels.
        ValueError: DALI does not decode it; with its words.
    """
    with _LOCK:
        idle = _PIPELINES[to]
        pipeline = idle.pop() if idle else _pipeline(to)
        try:
            pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8)])
            (output,) = pipeline.run()
            pixels = np.array(output.as_cpu().as_array()[0])
        except RuntimeError as error:  # after which a pipeline cannot be used
            words = explain(error)
            if words is not None and words.startswith(BANDS):
                raise OtherBands(words) from None
            raise ValueError(dali_reason(str(error))) from None
        idle.append(pipeline)
        return pixels


def _pipeline(to: PixelFormat) -> Pipeline:
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        encoded: Any = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(decode(encoded, "cpu", to=to))
    pipeline.build()
    return pipeline
