"""Masks obey the plan: classes are copied from where the pixels come from, never averaged."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._rules import states
from dali_cutmix._validation import checked_choice
from dali_cutmix.mixing import checks
from dali_cutmix.mixing.followers import volumes
from dali_cutmix.mixing.followers.images import Images, mix_images
from dali_cutmix.mixing.plan import MixParams, Regions, Size, regions_of

__all__ = ["MaskType", "mix_masks"]

MaskType = Literal[
    "uint8",
    "int8",
    "bool",
    "uint16",
    "int16",
    "float16",
    "uint32",
    "int32",
    "float32",
    "uint64",
    "int64",
    "float64",
]
MASKS = (
    "`masks` must be of `dtype`, (H, W) or (H, W, C) (volumes: of `layout`), and of the size of "
    "the images that were mixed: resize and crop them alike, by nearest pixels."
)
# What a pixel is seen as, by its bytes, and as how many of them, since fn.multi_paste takes few
# types. Of the widest it takes a fifth of the time of bytes.
_SEEN: dict[int, tuple[str, int]] = {
    1: ("uint8", 1),
    2: ("int16", 1),
    4: ("int32", 1),
    8: ("int32", 2),
}


@graph_function
def mix_masks(
    masks: DataNode,
    params: MixParams,
    *,
    dtype: MaskType = "uint8",
    layout: Literal["HW", "HWC", "DHW", "DHWC", "CDHW"] | None = None,
    blend: Literal["refuse", "heavier"] = "refuse",
    partners: DataNode | None = None,
) -> DataNode:
    """Returns the masks as `mix` has mixed their images: each class is where its pixels are.

    They are cut and pasted with the same boxes, and resized with the images (ResizeMix) to the same
    pixels, or (SnapMix) to the nearest. Values are copied, never averaged. Those that Cutout fills
    in the image stay.

    Args:
        masks: (H, W) or (H, W, C) of `dtype`, CPU or GPU, of the size of the images. Or of volumes,
            see `layout`.
        params: the ``params`` that `mix` returned.
        dtype: type of the masks. DALI does not tell it when a graph is built.
        layout: of volumes ``"DHW"``, ``"DHWC"`` or ``"CDHW"``, which must be given. Of images
            ``"HW"`` or ``"HWC"`` may be; else (H, W) masks come back without the name of a layout.
        blend: where the images may have been blended (MixUp, SmoothMix), ``"refuse"`` is an error
            when the graph is built, and ``"heavier"`` shows the mask of the image with the larger
            share, the original's where lam >= 0.5; of SmoothMix that of each pixel.
        partners: masks of the second batch, where `mix` was given ``partners``.

    Returns:
        The masks, of the type, the shape and the device of `masks`, in the order of the mixed
        images.

    Raises:
        TypeError, ValueError: for what is known when the graph is built. Wrong masks are known
            only when it runs: a `Loader` raises ValueError for them, a bare pipeline DALI's
            RuntimeError, in which the rule stands.

    >>> import dali_cutmix as dcm
    >>> from nvidia.dali import fn, pipeline_def
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     mixed = dcm.mix(images, None, dcm.MixConfig(), size=(32, 48))
    ...     return mixed.images, dcm.mix_masks(images[:, :, 0], mixed.params)
    >>> images, masks = pipe(root=photo_folder).run()
    >>> bool((masks.as_array() == images.as_array()[..., 0]).all())
    True
    """
    size = _check_arguments(masks, params, dtype, layout, blend, partners)
    seen, _ = _SEEN[np.dtype(dtype).itemsize]
    images, in_rows, shape = _seen(masks, size, dtype, layout)
    others = None if partners is None else _seen(partners, size, dtype, layout)[0]
    params = _pasted_alone(params, size)
    mixed = mix_images(Images(images, in_rows, seen, others, nearest=True), params)

    @states(MASKS)
    def as_they_were() -> DataNode:
        kind = _type(dtype)
        if layout is None:  # then "HWC" stays, where there are three axes
            # A reshape by a node after one that names the layout insists on that (DALI 2.4.0).
            same = fn.reshape(mixed, rel_shape=[1, 1, 1])
            return fn.reinterpret(same, dtype=kind, shape=shape)
        return fn.reinterpret(mixed, dtype=kind, shape=shape, layout=layout)

    return as_they_were()


def _pasted_alone(params: MixParams, size: Size) -> MixParams:
    """Returns the plan in which what was blended shows one image, that with the larger share.

    That is, of the partner all is pasted or nothing. And of what a pattern averages the image with
    the larger weight, pixel by pixel. What it fills keeps its class.
    """
    copied = [x._replace(heavier=True) for x in params.patterns if x.method.shows != "fill"]
    params = params._replace(patterns=tuple(copied))
    if params.blended is None:
        return params
    whole, regions = size.node, regions_of(params)
    shown = fn.cast(params.blended & (params.lam < 0.5), dtype=types.INT32)
    # What is blended has an empty box.
    if params.tiled is None:
        shapes = regions.shapes + shown * fn.stack(whole * 0, whole)
        return params._replace(blended=None, regions=Regions(regions.anchors * (1 - shown), shapes))
    shown = shown * types.Constant(np.array([[0], [1], [0], [0]], np.int32))
    assert regions.sources is not None
    at, sources = (x * (1 - shown) for x in (regions.anchors, regions.sources))
    regions = Regions(at, regions.shapes + shown * whole, sources)
    return params._replace(blended=None, regions=regions)


@states(MASKS)
def _seen(
    masks: DataNode, size: Size, dtype: str, layout: str | None
) -> tuple[DataNode, DataNode | list[int], DataNode]:
    """Returns the masks as `mix_images` takes them, the shape of these, and of the masks.

    The latter fails unless they have the size, the type and, if it is given, the layout.
    """
    seen, words = _SEEN[np.dtype(dtype).itemsize]
    kind, shape = checks.DTYPES[seen], masks.shape(dtype=types.INT32)
    if layout is not None:
        shape = fn.reshape(shape, shape=[len(layout)])
    first = 1 if layout == "CDHW" else 0
    found = fn.slice(shape, start=[first], shape=[size.axes], axes=[0])
    # Both checks in one: where 2 of the type could be joined and the size is right, this is 0.
    if size.known is None:
        beyond = size.node + 2
    else:
        beyond = types.Constant(np.array(size.known, np.int32) + 2)
    start, one = found + _two_of_type(masks, dtype) - beyond, [1] * size.axes
    zero = fn.slice(
        types.Constant(np.zeros(one, np.int32)), start=start, shape=one, axes=list(range(len(one)))
    )
    checked = shape + fn.reshape(zero, shape=[1])
    if size.axes == 3:
        assert layout is not None
        assert size.known is not None
        images, in_rows = volumes.as_images(masks, size.known, layout, kind, words)
        return images, in_rows, checked
    if size.known is not None:
        of_image: DataNode | list[int] = [*size.known, -1]
    else:
        of_image = fn.cat(size.node, types.Constant(np.array([-1], np.int32)))
    return fn.reinterpret(masks, dtype=kind, shape=of_image, layout="HWC"), of_image, checked


def _two_of_type(masks: DataNode, dtype: str) -> DataNode:
    """Returns 2, int32 (1,), on the CPU; fails unless the masks are of the type."""
    pixels = fn.reshape(masks, shape=[-1, 1], layout="")
    # Of the operators that join only those of one type: two values, of which the shape is taken.
    first = fn.reshape(fn.sequence_rearrange(pixels, new_order=[0]), shape=[1])
    zeros = types.Constant(np.zeros(np.dtype(dtype).itemsize, np.uint8), device=masks.device)
    both = fn.cat(first, fn.reinterpret(zeros, dtype=_type(dtype)))
    return both.shape(dtype=types.INT32)


def _type(dtype: str) -> types.DALIDataType:
    found: types.DALIDataType = getattr(types, {"float32": "FLOAT"}.get(dtype, dtype.upper()))
    return found


def _check_arguments(
    masks: DataNode,
    params: MixParams,
    dtype: str,
    layout: str | None,
    blend: str,
    partners: DataNode | None,
) -> Size:
    """Returns the size of the plan; TypeError or ValueError for arguments that cannot be used."""
    checks.check_node("masks", masks)
    size = checks.size_of_plan(params, partners)
    checked_choice("dtype", dtype, get_args(MaskType))
    checked_choice("blend", blend, ("refuse", "heavier"))
    if partners is not None:
        checks.check_node("partners", partners)
        if partners.device != masks.device:
            raise ValueError(
                f"`partners` must be on the device of `masks`, got {partners.device} and "
                f"{masks.device}."
            )
    if size.axes == 3:
        checked_choice("layout", layout, volumes.LAYOUTS)
    elif layout is not None:
        checked_choice("layout", layout, ("HW", "HWC"))
    if checks.averages(params) and blend == "refuse":
        raise ValueError(
            '`blend` must be "heavier" where `params` may blend images (MixUp, SmoothMix), got '
            '"refuse": classes cannot be averaged. With it the mask of the image with the larger '
            "share is shown; or mix without them."
        )
    if Pipeline.current() is None:
        raise RuntimeError("mix_masks() must be called inside a @pipeline_def function.")
    return size
