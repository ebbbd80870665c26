"""Boxes of objects obey the plan: kept, dropped, taken over, moved and clipped, with their classes.

Where they are shown is in `places`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._graph import gathered
from dali_cutmix._rules import states
from dali_cutmix._validation import checked_numbers
from dali_cutmix.mixing import checks
from dali_cutmix.mixing.followers import places
from dali_cutmix.mixing.plan import MixParams

__all__ = ["mix_boxes"]

BOXES = (
    "`boxes` must be float32 (n, 4), left, top, right and bottom of each box in [0, 1], left <= "
    "right and top <= bottom: divide pixels by the image's width and height, and clip."
)
ROWS = "`classes` and `extra` must have a row for each of the `boxes`, (n,) or (n, …)."


@graph_function
def mix_boxes(
    boxes: DataNode,
    classes: DataNode,
    params: MixParams,
    *,
    keep: tuple[float, float] = (0.5, 0.5),
    extra: Sequence[DataNode] = (),
    partners: Sequence[DataNode] | None = None,
) -> tuple[DataNode, ...]:
    """Returns boxes and classes of the objects that `mix` shows: (boxes, classes, *extra).

    Those of the image come first, then those of its partner(s), each in their order. A box of the
    image is kept, as it is, where less than half of it is covered by what is pasted. A box of the
    partner is taken over where more than half of it is inside of what is pasted, and is clipped to
    that. A box that is not covered at all is always kept, and one that is wholly inside always
    taken over.

    - ResizeMix shows the whole partner, so all of its boxes are taken over, made smaller and moved.
    - MixUp shows both images, so all boxes of both are kept, as detection with MixUp has it.
    - Mosaic shows a part of four images, moved: the boxes of all four, also of the image itself,
      are moved with them and treated as those of a partner, by the second threshold.
    - DetectionCutMix keeps all boxes of the image, and takes over those of its partner by a rule of
      its own, whatever `keep` is.
    - Cutout: a box of the image is kept where less than half of it is filled, and none of the
      partner's is taken over.
    - Where nothing is pasted all boxes of the image are kept, and none of its partner.
    - A side of no length counts as covered wholly where it lies in what is pasted, or on its edge,
      and else not at all. So a box without area is judged too, and never lost on the way.

    GridMix, FMix and SmoothMix are refused: of an object they show pieces, which no box tells.

    Areas are computed in pixels, in float64.

    Args:
        boxes: float32 (n, 4), ltrb in [0, 1] as ``fn.readers.coco(ltrb=True, ratio=True)`` gives
            them, on the CPU; n differs by sample, and may be 0.
        classes: of any type, (n,) or (n, 1), on the CPU.
        params: the ``params`` that `mix` returned.
        keep: the two fractions, for the boxes of the image and for those of the partner.
        extra: what else there is for each box, of any type, (n,) or (n, …): ids, scores, indices of
            masks.
        partners: (boxes, classes, *extra) of the second batch, where `mix` was given ``partners``.

    Raises:
        TypeError, ValueError: for what is known when the graph is built. Wrong boxes are known only
            when it runs: a `Loader` raises ValueError for them, a bare pipeline DALI's
            RuntimeError, in which the rule stands.

    >>> import dali_cutmix as dcm
    >>> from nvidia.dali import fn, pipeline_def, types
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     boxes = types.Constant(np.array([(0.2, 0.1, 0.4, 0.9)], np.float32))
    ...     mixed = dcm.mix(images, None, dcm.MixConfig(), size=(32, 48))
    ...     return dcm.mix_boxes(boxes, labels, mixed.params)
    >>> boxes, classes = pipe(root=photo_folder).run()
    >>> boxes.shape() == [(count, 4) for (count,) in classes.shape()]
    True
    """
    shares = _checked_arguments(boxes, classes, params, keep, extra, partners)
    values = [boxes, classes, *extra]
    rows, zero = _counted_rows(values)
    others = values
    if partners is not None:
        others = list(partners)
        zero = zero + _counted_rows(others)[1]
    whose = [(values, params.original), (others, params.partner)]
    if params.others is not None:
        whose += [(values, params.others[k]) for k in range(2)]
    images = [[gathered(x, index) for x in of_image] for of_image, index in whose]
    (boxes_of_all, *values_of_all) = zip(*images, strict=True)
    at, indices = _boxes_of_all(boxes_of_all, params, shares)
    found = [_rows(at, indices)]
    for of_all, row in zip(values_of_all, rows, strict=True):
        zeros = fn.cast_like(fn.zeros(shape=row, dtype=types.UINT8), of_all[0])
        found.append(_rows(fn.cat(*of_all, zeros), indices + zero))
    return tuple(found)


def _rows(x: DataNode, indices: DataNode) -> DataNode:
    """Returns the rows that the indices but for the last name, which is that of a row of zeros.

    It is there because fn.sequence_rearrange takes no empty sequences.
    """
    rows = fn.sequence_rearrange(fn.expand_dims(x, axes=[1]), new_order=indices)
    return fn.squeeze(rows[:-1], axes=[1])


@states(ROWS)
def _counted_rows(values: Sequence[DataNode]) -> tuple[list[DataNode], DataNode]:
    """Returns the shape of a row of each but the first, with a 1 before it, and 0, int32 (1,).

    That fails unless each has as many rows as the first.
    """
    boxes, *others = (x.shape(dtype=types.INT32) for x in values)
    wrong = [shape[:1] - boxes[:1] for shape in others]
    start = wrong[0]
    if len(wrong) > 1:
        start = fn.reductions.max(dmath.abs(fn.cat(*wrong)), keep_dims=True)
    zero = fn.slice(types.Constant(np.zeros(1, np.int32)), start=start, shape=[1], axes=[0])
    one = types.Constant(np.array([1], np.int32))
    return [fn.cat(one, shape[1:]) for shape in others], zero


@states(BOXES)
def _boxes_of_all(
    boxes: Sequence[DataNode], params: MixParams, keep: tuple[float, ...]
) -> tuple[DataNode, DataNode]:
    """Returns the boxes of two images, or four, where they are shown, and one of zeros.

    And the indices of those that are shown, see `_indices`.
    """
    together = fn.cat(*boxes)
    if params.tiled is None:
        at, shown = places.of_two(boxes, together, params, keep)
    else:
        at, shown = places.of_four(boxes, params, keep)
    indices = _indices(shown, together)
    return fn.cat(*at, types.Constant(np.zeros((1, 4), np.float32))), indices


def _indices(shown: DataNode, boxes: DataNode) -> DataNode:
    """Returns the indices of the boxes that are shown, and after them n; int32 (k + 1,).

    Fails unless the boxes, float32 (n, 4), are what they should be.
    """
    # Right and bottom are not less than left and top, and these not than 0.
    least = fn.slice(boxes, start=[-2], shape=[4], axes=[1], out_of_bounds_policy="pad")
    wrong = boxes != dmath.clamp(boxes, least, 1.0)
    # Of all operators this one leaves out rows: boxes without area, and fails for those outside
    # [0, 1]. So each box has one in its place that says what is to be done. One is always there:
    # it warns where none is left. There is nothing random in it.
    whole = types.Constant(np.array([[0, 0, 1, 1]], np.float32))
    outside = types.Constant(np.array([[-2, -2, 2, 2]], np.float32))
    signs = fn.cat(whole * shown + wrong * outside, whole)
    *_, indices = fn.random_bbox_crop(  # type: ignore[misc]  # it returns a list
        signs,
        crop_shape=[1, 1],
        input_shape=[1, 1],
        shape_layout="HW",
        bbox_layout="xyXY",
        allow_no_crop=False,
        thresholds=[0.0],
        bbox_prune_threshold=0.0,
        total_num_attempts=1,
        all_boxes_above_threshold=False,
        output_bbox_indices=True,
        seed=0,
    )
    return indices


def _checked_arguments(
    boxes: DataNode,
    classes: DataNode,
    params: MixParams,
    keep: Any,
    extra: Any,
    partners: Any,
) -> tuple[float, ...]:
    """Returns `keep`; TypeError or ValueError for arguments that cannot be used."""
    size = checks.size_of_plan(params, partners)
    for pattern in params.patterns:
        if pattern.method.shows != "fill":
            raise ValueError(
                f"`params` must not be of {type(pattern.method).__name__} for mix_boxes(): it "
                "shows objects in pieces, or faintly, which no box tells. Mix images with boxes by "
                "other methods."
            )
    if size.axes != 2:
        raise ValueError("`params` must be those of images for mix_boxes(), got those of volumes.")
    if params.source is not None:
        raise ValueError(
            "`params` must not be those of SnapMix for mix_boxes(): of an image that is resized in "
            "part, and whose label is weighted by maps, boxes are not defined."
        )
    for name, group in (("extra", extra), ("partners", partners)):
        if group is not None and not isinstance(group, (tuple, list)):
            raise TypeError(f"`{name}` must be a tuple of nodes, got {group!r}.")
    nodes = [("boxes", boxes), ("classes", classes), *(("extra", node) for node in extra)]
    if partners is not None:
        if len(partners) != len(nodes):
            raise ValueError(
                f"`partners` must be (boxes, classes, *extra), {len(nodes)} nodes, got "
                f"{len(partners)}."
            )
        nodes += [("partners", node) for node in partners]
    for name, node in nodes:
        checks.check_node(name, node)
        if node.device != "cpu":
            raise ValueError(
                f'`{name}` must be on the CPU, got device "{node.device}": pass them as the reader '
                "gives them."
            )
    fractions = checked_numbers("keep", keep, 2)
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"`keep` must be two numbers in [0, 1], got {keep!r}.")
    if Pipeline.current() is None:
        raise RuntimeError("mix_boxes() must be called inside a @pipeline_def function.")
    return fractions
