"""From the bytes of files to images of one size, and from bytes to normalised floats.

The pixels are as near to PIL's and torchvision's as DALI's operators allow.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, merge, split
from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix._seeds import op_seed
from dali_cutmix.data.pixel_format import RGB8, PixelFormat

__all__ = [
    "BANDS",
    "CMYK",
    "DTYPE",
    "INTERPOLATION",
    "LAYOUT",
    "centre_crop",
    "convert",
    "decode",
    "decode_part",
    "normalise",
    "random_crop",
    "resize",
    "shape_of",
    "signed_width",
    "zero_unless_bare_cmyk",
]

INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
DTYPE = {"float32": types.FLOAT, "float16": types.FLOAT16}
LAYOUT = {"NCHW": "CHW", "NHWC": "HWC"}
BANDS = (
    "`channels` must be the number of bands of every image, unless it is 1 or 3, to which gray and "
    "colours are converted; JPEGs are read by no other."
)
CMYK = "A JPEG of four channels must have Adobe's marker, without which DALI reads other colours."
_READ_AS = {"uint8": types.UINT8, "float32": types.FLOAT}
_COLORS = {1: types.GRAY, 3: types.RGB}


@graph_function
def decode(
    encoded: DataNode, device: str, hw_decoder_load: float = 0.65, to: PixelFormat = RGB8
) -> DataNode:
    """Returns whole images, HWC: by nvJPEG for ``"gpu"``, by libjpeg-turbo for ``"cpu"``.

    They are RGB, uint8, or what `to` says. The header is read first, and a file that has none is an
    error: fn.decoders.image can crash the process where one is no image at all (DALI 2.4.0, on a
    GPU in large batches).

    For ``"gpu"`` bands as they are and floats are decoded on the CPU and copied: of the files that
    have them DALI decodes few kinds on a GPU, if any.
    """
    shape = shape_of(encoded)
    if device == "gpu" and not _needs_cpu(to):
        # The decoder runs after what reads the header only where its input depends on it: -1, which
        # this always is, leaves the bytes as they are.
        length = dmath.min(shape[:1], -1)
        return fn.decoders.image(
            fn.reshape(encoded, shape=length),
            device="mixed",
            hw_decoder_load=hw_decoder_load,
            jpeg_fancy_upsampling=True,  # chroma is interpolated, as libjpeg-turbo does
            **_output_of(to),
        )
    return _decode_part(encoded, shape[:2] * 0, shape[:2], to, device)


def _needs_cpu(to: PixelFormat) -> bool:
    return to.as_in_file or to.read_as == "float32"


def shape_of(encoded: DataNode) -> DataNode:
    """Returns (H, W, C) of each file's header, int32; DALI merges equal operators of a graph."""
    return fn.peek_image_shape(encoded, dtype=types.INT32, image_type=types.ANY_DATA)


_ADOBE = (0xFF, 0xEE, 0x00, 0x0E)  # the marker and its length


@states(CMYK)
def zero_unless_bare_cmyk(encoded: DataNode) -> DataNode:
    """Returns 0, int32 (1,); fails where a JPEG has four channels and no marker of Adobe's."""
    has_four = shape_of(encoded)[2] == 4
    suspicious = split(encoded, has_four)[0]
    zero, zeros = split(types.Constant(np.zeros(1, np.int32)), has_four)
    length = suspicious.shape(dtype=types.INT32) - (len(_ADOBE) - 1)
    found = suspicious[0] != 0xFF  # no JPEG
    match = reduce(
        operator.and_,
        (
            fn.slice(suspicious, start=[i], shape=length, axes=[0]) == byte
            for i, byte in enumerate(_ADOBE)
        ),
    )
    found = found | (fn.reductions.max(fn.cast(match, dtype=types.INT32)) > 0)
    start = fn.reshape(fn.cast(found ^ True, dtype=types.INT32), shape=[1])
    return merge(fn.slice(zero, start=start, shape=[1], axes=[0]), zeros, has_four)


def _decode_part(
    encoded: DataNode, start: DataNode, shape: DataNode, to: PixelFormat, device: str
) -> DataNode:
    """Returns a part of each image on the device, decoded on the CPU."""
    if to.as_in_file:
        start = start + _zero_unless_jpeg(encoded)
    images: DataNode = fn.decoders.image_slice(encoded, start, shape, axes=[0, 1], **_output_of(to))
    if to.as_in_file:
        images = _of_bands(images, to.channels)
    return images.gpu() if device == "gpu" else images


def _output_of(to: PixelFormat) -> dict[str, Any]:
    """Returns the arguments by which a decoder gives such images."""
    output_type = _COLORS.get(to.channels, types.ANY_DATA)
    return {"output_type": output_type, "dtype": _READ_AS[to.read_as]}


@states(BANDS)
def _zero_unless_jpeg(encoded: DataNode) -> DataNode:
    """Returns 0, int32 (1,); fails where a file is a JPEG.

    Of a gray JPEG ANY_DATA ends the process (DALI 2.4.0), so that the decoder's input must depend
    on this.
    """
    head = fn.slice(encoded, start=[0], shape=[2], axes=[0], out_of_bounds_policy="pad")
    return zero_unless((head[0] == 0xFF) & (head[1] == 0xD8))


@states(BANDS)
def _of_bands(images: DataNode, channels: int) -> DataNode:
    """Returns decoded images as they are; fails where one has another number of channels."""
    shape = images.shape(dtype=types.INT32)
    return fn.reinterpret(images, shape=shape + zero_unless(shape[2] != channels))


@graph_function
def random_crop(
    encoded: DataNode, *, area: Sequence[float], ratio: Sequence[float], seed: int, shard_id: int
) -> tuple[DataNode, DataNode]:
    """Returns start and shape of a random part of each image, int64 (2,), as torchvision draws it.

    To be resized afterwards, as torchvision does it. fn.random_resized_crop lets the filter see
    pixels outside the crop.
    """
    start, shape = fn.random_crop_generator(
        shape_of(encoded),
        random_area=area,
        random_aspect_ratio=ratio,
        num_attempts=10,
        seed=op_seed(seed, "crop", shard_id),
    )
    return start, shape


@graph_function
def decode_part(
    encoded: DataNode,
    start: DataNode,
    shape: DataNode,
    device: str,
    hw_decoder_load: float = 0.65,
    to: PixelFormat = RGB8,
) -> DataNode:
    """Returns a part of each image: HWC, uint8 RGB or what `to` says, see `decode`."""
    if device == "gpu" and not _needs_cpu(to):
        images = decode(encoded, device, hw_decoder_load, to)
        return fn.slice(images, start=start, shape=shape, axes=[0, 1])
    return _decode_part(encoded, start, shape, to, device)


@graph_function
def centre_crop(encoded: DataNode, size: tuple[int, int], resize: int) -> tuple[DataNode, DataNode]:
    """Returns start and end of the part of an image that a resize and a centre crop show.

    Float32, in pixels of the image. Resizing that part alone computes nothing that is cropped
    afterwards. The integers are torchvision's: the longer side is int(resize * long / short),
    the crop starts at round((side - size) / 2), halves to even. DALI's resize_shorter rounds, and
    its crop takes halves up: a pixel off in three image sizes of five.

    Raises:
        ValueError: the crop is larger than the resized image, where torchvision pads.
    """
    if resize < max(size):
        raise ValueError(f"`resize` must be at least `size`, got resize={resize} and size={size}.")
    shape = shape_of(encoded)[:2]
    resized = shape * resize // fn.reductions.min(shape, axes=[0])
    sides = types.Constant(list(size), dtype=types.INT32)
    spare = resized - sides
    start = (spare + 1) // 4 + (spare + 2) // 4
    scale = shape / resized
    return start * scale, (start + sides) * scale


@graph_function
def signed_width(size: tuple[int, int], hflip: float, *, seed: int, shard_id: int) -> DataNode:
    """Returns the width for fn.resize, float32 (): a negative one mirrors."""
    return fn.random.choice(
        [-float(size[1]), float(size[1])],
        p=[hflip, 1 - hflip],
        seed=op_seed(seed, "flip", shard_id),
    )


@graph_function
def resize(
    images: DataNode,
    size: tuple[int, int],
    width: DataNode,
    *,
    interpolation: str,
    antialias: bool,
    seed: int,
    shard_id: int,
) -> DataNode:
    """Returns the images, of one size, some of them mirrored: which a resize does at no cost.

    Args:
        width: `signed_width`.
        interpolation: "bilinear", "bicubic", or "random", one of the two for each image.
    """
    interp: Any
    if interpolation == "random":
        coin = fn.random.coin_flip(seed=op_seed(seed, "interpolation", shard_id), dtype=types.INT32)
        low, high = (int(code.value) for code in INTERPOLATION.values())
        interp = fn.reinterpret(low + coin * (high - low), dtype=types.INTERP_TYPE)
    else:
        interp = INTERPOLATION[interpolation]
    resized = fn.resize(
        images,
        resize_y=float(size[0]),
        resize_x=width,
        interp_type=interp,
        antialias=antialias,
    )
    return cast("DataNode", resized)  # by its annotation it may be several, or None


@graph_function
def normalise(
    images: DataNode,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str = "float32",
    layout: str = "NHWC",
    white: int = 255,
) -> DataNode:
    """Returns (images / white - mean) / std, of any number of channels."""
    return fn.crop_mirror_normalize(
        images,
        dtype=DTYPE[dtype],
        output_layout=LAYOUT[layout],
        mean=[white * m for m in mean],
        std=[white * s for s in std],
    )


@graph_function
def convert(images: DataNode, dtype: str, layout: str) -> DataNode:
    """Returns float32 HWC images in the type and layout of the output.

    Always by one operator: erasing and mixing may end in a merged batch, whose samples lie apart,
    and DALI would make it contiguous by a copy for each image.
    """
    return fn.crop_mirror_normalize(
        images, dtype=DTYPE[dtype], output_layout=LAYOUT[layout], mean=[0.0], std=[1.0]
    )
