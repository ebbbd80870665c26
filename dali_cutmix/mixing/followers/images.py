"""Images obey the plan: pasted, resized or blended, on the CPU or a GPU. Volumes are images too."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import merge, split
from dali_cutmix._graph import paste
from dali_cutmix.mixing.followers import patterns, volumes
from dali_cutmix.mixing.plan import MixParams, Regions, regions_of

__all__ = ["Images", "mix_images"]

_WORDS = {8: types.INT64, 4: types.INT32, 2: types.INT16, 1: types.UINT8}  # by their bytes


class Images(NamedTuple):
    """The images of a batch, and what is known of them when the graph is built.

    Fields:
        node: (H, W, C), one size for the batch, on the CPU or a GPU. Volumes as `volumes.as_images`
            has them.
        shape: int32 (3,), or where the size is known a list, in which C may be -1.
        dtype: "uint8", "int16", "int32" or "float32"; uint8 and float32 can be blended.
        partners: images of a second batch, else None.
        all_blended: no sample is pasted.
        nearest: pixels are copied where a part is resized, not interpolated.
    """

    node: DataNode
    shape: DataNode | list[int]
    dtype: str = "uint8"
    partners: DataNode | None = None
    all_blended: bool = False
    nearest: bool = False


def mix_images(images: Images, params: MixParams) -> DataNode:
    """Returns the mixed images. Batches are split and merged by reference, without a copy."""
    if params.original is not None and _only_pasted(params):
        # Every pixel is moved once, which pasting gathered images does not reach.
        regions, ids = patterns.pasted(params)
        return _paste(params._replace(regions=regions), images.shape, images.node, in_ids=ids)
    originals, *partners = _gathered(images, params)
    where = _is_resized(params)
    if where is not None:
        in_place = images.node.device == "gpu" or isinstance(images.shape, DataNode)
        if not in_place:
            params = _from_the_corner(params, where)
        partners[0] = _resized(partners[0], where, images, params, in_place)
    mixed = _mixed(images, params, originals, *partners)
    for pattern in params.patterns:
        assert params.size is not None
        pair = patterns.Pair(originals, partners[0], images.dtype, params.size)
        mixed = patterns.shown(pattern, pair, mixed)
    return mixed


def _only_pasted(params: MixParams) -> bool:
    """Returns whether all that is shown are boxes of the images as they are."""
    shown = {pattern.method.shows for pattern in params.patterns}
    boxes_alone = shown <= {"boxes", "own boxes"}
    return params.blended is None and _is_resized(params) is None and boxes_alone


def _is_resized(params: MixParams) -> DataNode | None:
    """Returns where something is resized into the box, bool (); None: nowhere."""
    if params.source is None:
        return params.resized
    in_part = params.source[2] > 0
    return in_part if params.resized is None else in_part | params.resized


def _mixed(images: Images, params: MixParams, originals: DataNode, *partners: DataNode) -> DataNode:
    """Returns what is pasted and blended of gathered images."""
    if images.all_blended:
        assert params.weights is not None
        return _blended(originals, partners[0], params.weights, images.shape, images.dtype)
    if params.blended is None:
        if params.regions is None:
            return originals
        return _paste(params, images.shape, originals, *partners)
    assert params.weights is not None
    originals, cut = split(originals, params.blended)
    (other, patch), *patches = (split(x, params.blended) for x in partners)
    if params.regions is not None:
        regions = _not_blended(params.regions, params.blended)
        pasting = params._replace(regions=regions)
        cut = _paste(pasting, images.shape, cut, patch, *(rest for _, rest in patches))
    weights, shape = split(params.weights, params.blended)[0], images.shape
    if params.tiled is not None:
        weights = weights[:, :2]
    if isinstance(shape, DataNode):
        shape = split(shape, params.blended)[0]
    blended = _blended(originals, other, weights, shape, images.dtype)
    return merge(blended, fn.reshape(cut, layout="HWC"), params.blended)


def _not_blended(regions: Regions, blended: DataNode) -> Regions:
    anchors, shapes = (split(x, blended)[1] for x in regions[:2])
    sources = None if regions.sources is None else split(regions.sources, blended)[1]
    return Regions(anchors, shapes, sources)


def _paste(
    params: MixParams,
    shape: DataNode | list[int],
    images: DataNode,
    *partners: DataNode,
    in_ids: DataNode | None = None,
) -> DataNode:
    """Returns images with the regions of their partners."""
    regions, size = params.regions, params.size
    assert regions is not None
    if size is not None and size.axes == 3:
        assert isinstance(shape, list)
        if in_ids is None:
            (others,) = partners
            return volumes.paste_by_axis(images, others, regions, size, shape)
        regions, in_ids = volumes.rectangles(images, regions, size, shape, in_ids)
    return paste(
        images,
        *partners,
        shape=shape,
        in_ids=in_ids,
        in_anchors=regions.anchors if regions.sources is None else regions.sources,
        out_anchors=regions.anchors,
        shapes=regions.shapes,
    )


def _gathered(images: Images, params: MixParams) -> list[DataNode]:
    """Returns the original and its partners, one or three."""
    originals = images.node
    if params.original is not None:
        originals = _gather(images, params.original)
    partners = images.partners
    if partners is None:
        assert params.partner is not None
        partners = _gather(images, params.partner)
    gathered = [originals, partners]
    if params.others is not None:
        gathered += [_gather(images, params.others[k]) for k in range(2)]
    return gathered


def _gather(images: Images, index: DataNode) -> DataNode:
    if isinstance(images.shape, list):
        # Half of the time, on a GPU a seventh of the instructions, but it does not refuse CHW
        # images and several sizes.
        return fn.permute_batch(images.node, indices=index)
    return paste(images.node, shape=images.shape, in_ids=fn.reshape(index, shape=[1]))


def _resized(
    partners: DataNode, where: DataNode, images: Images, params: MixParams, in_place: bool
) -> DataNode:
    """Returns images that show the partner, or a part of it, resized: as large as the box.

    Or with `in_place` as large as the others, at its place, which takes as long as all the rest:
    fn.multi_paste needs it where it is not told the size, and on a GPU, where it reads all its
    inputs with the width of the first (DALI 2.4.0).
    """
    assert params.box is not None
    assert params.size is not None
    node, rest = split(fn.reshape(partners, layout="HWC"), where)
    box, size = (split(x, where)[0] for x in (params.box, params.size.node))
    if images.dtype == "int32":  # which fn.resize does not take
        node = fn.reinterpret(node, dtype=types.INT16)
    start, end, by = _shown(params, where, box, size)
    small = fn.resize(
        node,
        size=fn.cast(box[2:], dtype=types.FLOAT),
        roi_start=start,
        roi_end=end,
        interp_type=types.INTERP_NN if images.nearest else by,
        antialias=False,
    )
    found = cast("DataNode", small)  # by its annotation it may be several, or None
    if in_place:
        found = fn.slice(
            found, start=box[:2] * -1, shape=size, axes=[0, 1], out_of_bounds_policy="pad"
        )
    if images.dtype == "int32":
        found = fn.reinterpret(found, dtype=types.INT32)
    return merge(found, rest, where)


def _shown(
    params: MixParams, where: DataNode, box: DataNode, size: DataNode
) -> tuple[DataNode, DataNode, DataNode | types.DALIInterpType]:
    """Returns what of the partner is resized into the box, from where to where, and how.

    Of ResizeMix, the whole: pixel y of h shows pixel floor(y * H / h), as torch's nearest has it.
    Of SnapMix a part, of start s and side k: pixel y shows s + y * (k - 1) / (h - 1), linear
    between two pixels, as torch has it with align_corners. DALI's pixel y is at
    (y + 0.5) * (end - start) / h + start - 0.5.
    """
    sides = fn.cast(box[2:], dtype=types.FLOAT)
    # A hair more, where float32 would fall short of a whole number.
    whole = 1e-3 - 0.5 * size / sides
    if params.source is None:
        return whole, whole + size, types.INTERP_NN
    source = split(params.source, where)[0]
    # Of one pixel a step that is hardly one.
    step = dmath.max(source[2:] - 1, 1e-5) / dmath.max(sides - 1.0, 1.0)
    start = source[:2] + (0.5 - 0.5 * step)
    end = start + step * sides
    if params.resized is None:
        return start, end, types.INTERP_LINEAR
    in_part = source[2] > 0
    nearest_or_linear = fn.cast(in_part, dtype=types.INT32)  # they are 0 and 1
    start, end = (whole + in_part * (x - whole) for x in (start, end - size))
    return start, end + size, fn.reinterpret(nearest_or_linear, dtype=types.INTERP_TYPE)


def _from_the_corner(params: MixParams, where: DataNode) -> MixParams:
    """Returns the plan in which a box that is resized into is pasted from (0, 0) of the partner."""
    regions = regions_of(params)
    sources = regions.anchors if regions.sources is None else regions.sources
    second = np.zeros((2 if regions.sources is None else 4, 1), np.int32)
    second[1] = 1
    sources = sources * ((where & types.Constant(second)) ^ 1)
    return params._replace(regions=regions._replace(sources=sources))


def _blended(
    images: DataNode,
    partners: DataNode,
    weights: DataNode,
    shape: DataNode | list[int],
    dtype: str,
) -> DataNode:
    """Returns lam * image + (1 - lam) * partner, HWC; bytes are rounded to nearest, halves to even.

    The same bytes on both devices, where the sum is not nearly a half. On the CPU the two are the
    rows of one image, and a filter of two rows and one column weighs them: a fourth of the time of
    arithmetic on images. On a GPU their pixels lie beside each other, and a matrix of one row and
    two columns weighs them: half the instructions of arithmetic, a sixth of those of fn.filter.
    """
    kind = types.UINT8 if dtype == "uint8" else types.FLOAT
    if images.device == "gpu":
        pairs = fn.stack(images, partners, axis=3)
        blended = fn.coord_transform(pairs, M=weights, dtype=kind)
        return fn.reshape(blended, src_dims=[0, 1, 2], layout="HWC")
    # Joined by words of 8 bytes, where they fit: fn.cat takes as long for a byte.
    word = kind
    if isinstance(shape, list):
        word = _WORDS[math.gcd(8, shape[0] * shape[1] * (1 if dtype == "uint8" else 4))]
    rows = (fn.reinterpret(x, dtype=word, shape=[1, -1], layout="") for x in (images, partners))
    both = fn.reinterpret(fn.cat(*rows, axis=0), dtype=kind, shape=[2, -1], layout="HW")
    column = fn.reshape(weights, shape=[2, 1])
    return fn.reshape(fn.filter(both, column, mode="valid"), shape=shape, layout="HWC")
