"""Plan: what was drawn for a sample. Nothing that comes after it is random.

A method draws plans as the rows of a table (`Rows`), for the whole batch at once; dealt out, a row
per sample, they are `MixParams`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import split
from dali_cutmix.mixing import boxes, tiles

if TYPE_CHECKING:
    from dali_cutmix.mixing.saliency import Saliency

__all__ = [
    "FLAGS",
    "Beside",
    "Found",
    "Later",
    "Method",
    "MixParams",
    "Part",
    "Pattern",
    "Regions",
    "Rows",
    "Size",
    "choose",
    "completed",
    "packed",
    "plan_of",
    "regions_of",
    "unpacked",
    "with_source",
    "with_unmixed",
]


class Regions(NamedTuple):
    """What fn.multi_paste pastes of two images: the whole of the first, a box of the second.

    Of volumes there is a column more, see `followers.volumes`. Where four images may meet there are
    four rows, see `tiles`.

    Fields:
        anchors: int32 (2, 2), ``((0, 0), (y, x))``.
        shapes: int32 (2, 2), ``((H, W), (h, w))``.
        sources: int32 (4, 2), where the regions are taken from; None: from where they are pasted.
    """

    anchors: DataNode
    shapes: DataNode
    sources: DataNode | None = None


class MixParams(NamedTuple):
    """The plan of each sample of a batch; every field is a DataNode on the CPU, a value per sample.

    What `mix` returns as ``params``, and takes to repeat a mix on other data.

    Fields:
        lam: float32 (), share of the ORIGINAL image in the label, in [0, 1]. A sample that is not
            mixed has 1.
        partner: int32 (), index in the batch of the image that gives the patch; None where the
            partners are a second batch.
        original: int32 (), index in the batch of the original image; None stands for the sample's
            own place.
        box: int32 (4,), ``(y, x, h, w)`` in pixels, clipped to the image. An empty one is
            ``(H, W, 0, 0)`` and means that no pixel is pasted as a box. Of volumes int32 (6,),
            ``(z, y, x, d, h, w)``. Where four images meet, the bottom right one's.
        blended: bool (), whether the two images are blended (MixUp), and nothing is pasted; None
            where no method blends.
        resized: bool (), whether the whole partner is resized into the box (ResizeMix); None where
            no method does that.
        tiled: bool (), whether four images meet at a point (Mosaic): the original top left, the
            partner top right; None where no method does that.
        avoids: bool (), whether what is pasted touches no box of an object of the original, and
            brings those of the partner by a rule of its own (DetectionCutMix); None where no method
            does that.
        others: int32 (2,), indices in the batch of those bottom left and bottom right; None where
            `tiled` is.
        source: int32 (4,), the part of the partner that is resized into the box (SnapMix), empty
            where nothing is; None where no method does that.
        lam_partner: float32 (), share of the partner in the label, which need not be 1 - lam
            (SnapMix); None where it is.
        paired: bool (), whether a partner was found: with ``partner="same"`` or ``"other"`` there
            may be none, and the sample is its own; None where there always is one.
        weights: float32 (1, 2), ``((lam, 1 - lam))``, `lam` as fn.coord_transform takes it, or
            ``((lam, lam_partner))``; (1, 4) of all four images where four may meet.
        regions: `box` as fn.multi_paste takes it; None where nothing is pasted.
        size: of the images or volumes.
        patterns: what is shown in other ways than by a box, one `Pattern` for each of the methods
            that do so. They can be given to `mix` again, with images of the same size.

    Where a plan was not drawn but made by hand, the last four are left out.
    """

    lam: DataNode
    partner: DataNode | None = None
    original: DataNode | None = None
    box: DataNode | None = None
    blended: DataNode | None = None
    resized: DataNode | None = None
    tiled: DataNode | None = None
    avoids: DataNode | None = None
    others: DataNode | None = None
    source: DataNode | None = None
    lam_partner: DataNode | None = None
    paired: DataNode | None = None
    weights: DataNode | None = None
    regions: Regions | None = None
    size: Size | None = None
    patterns: tuple[Pattern, ...] = ()


class Pattern(NamedTuple):
    """What one method shows of two images other than by a box, for the samples that it mixes.

    Of a table of N rows `chosen` is (N, 1), and `numbers` (N, columns).

    Fields:
        method: that drew it, and makes a mask or weights of its numbers, by its `shows`.
        chosen: bool (), whether the sample is mixed by it.
        numbers: int32 (columns,), what it drew for the sample; boxes one after another.
        columns: how many.
        heavier: whether of "weights" the heavier image alone is shown, pixel by pixel.
    """

    method: Method
    chosen: DataNode
    numbers: DataNode
    columns: int
    heavier: bool = False


class Size(NamedTuple):
    """Height and width of the images of a batch, or depth, height and width of volumes.

    Fields:
        node: int32 (axes,), (H, W) or (D, H, W).
        known: the same, where it is known when the graph is built, else None.
        axes: 2 or 3.
        in_part: the node is not that of a whole batch, in which all constants are.
    """

    node: DataNode
    known: tuple[int, ...] | None = None
    axes: int = 2
    in_part: bool = False

    @classmethod
    def of(cls, shape: DataNode | list[int]) -> Size:
        """Returns the size of images of a shape, int32 (3,), or ``[H, W, …]``."""
        if isinstance(shape, DataNode):
            return cls(shape[:2])
        return cls.of_known(tuple(shape[:2]))

    @classmethod
    def of_known(cls, size: tuple[int, ...]) -> Size:
        """Returns a size that is known when the graph is built, (H, W) or (D, H, W)."""
        return cls(types.Constant(np.array(size, np.int32)), size, len(size))

    def whole(self) -> tuple[DataNode, DataNode]:
        """Returns anchor and shape of the whole image as a region, int32 (1, axes) each."""
        if self.known is not None:
            known = np.array([self.known], np.int32)
            return types.Constant(known * 0), types.Constant(known)
        sides = fn.expand_dims(self.node, axes=[0])
        return sides * 0, sides

    def nowhere(self) -> DataNode:
        """Returns the empty box, int32 (4,), ``(H, W, 0, 0)``."""
        if self.known is not None and not self.in_part:
            return types.Constant(np.array([*self.known, *[0] * self.axes], np.int32))
        return fn.cat(self.node, self.node * 0)


def regions_of(params: MixParams) -> Regions:
    """Returns the regions of a plan, also where no method pastes: then the second is empty."""
    if params.regions is not None:
        return params.regions
    assert params.size is not None
    size = params.size.node
    return Regions(fn.stack(size * 0, size), fn.stack(size, size * 0))


FLAGS = ("blended", "resized", "tiled", "avoids")


class Beside(NamedTuple):
    """What is known of the image and of its partner besides their pixels, (own, partner's) each.

    Fields:
        objects: boxes, float32 (n, 4), ltrb in [0, 1], or the one box around an object, int32
            (4,), as `objects.object_boxes` gives it; None where no method needs them.
        saliency: see `saliency.Saliency`; likewise.
    """

    objects: tuple[DataNode, DataNode] | None = None
    saliency: tuple[Saliency, Saliency] | None = None


class Found(NamedTuple):
    """What `Later` gives of each sample. What is not mixed has lam 1 and an empty box.

    Fields:
        box: int32 (1, 4), of volumes (1, 6).
        lam: float64 (1, 1); None: what the box leaves of the original.
        source, lam_partner: int32 (1, 4) and float64 (1, 1), or None, see `MixParams`. Of what is
            not mixed the latter is 0.
        pattern: what is shown other than by the box.
    """

    box: DataNode
    lam: DataNode | None = None
    source: DataNode | None = None
    lam_partner: DataNode | None = None
    pattern: Pattern | None = None


class Later(NamedTuple):
    """Plans of a method that looks at the samples: completed when the rows have been dealt.

    Fields:
        columns: int32 (N, width), what was drawn. Where another method was, or none, all are 0, of
            which `complete` makes what is not mixed.
        width: how many they are.
        complete: returns the plan of each sample: of its row of the columns, (width,), of what is
            beside it, and of the size.
    """

    columns: DataNode
    width: int
    complete: Callable[[DataNode, Beside, Size], Found]


class Rows(NamedTuple):
    """Plans as a table of N rows.

    Fields:
        lam: float64 (N, 1).
        box: int32 (N, 4), an empty one ``(H, W, 0, 0)``; None where nothing is pasted. Of volumes
            int32 (N, 6).
        blended, resized, tiled, avoids: bool (N, 1), or None, see `MixParams`.
        numbers: int32 (N, 1) each, what a method with a pattern drew; empty for others.
        boxes: int32 (N, K, 4), what is drawn instead by one whose pattern is boxes: inside the
            image, an empty one ``(H, W, 0, 0)``.
        num_boxes: K.
        patterns: of all methods, once one is chosen for each row.
        later: of each method that completes its plans later; until then lam is 1, and nothing is
            pasted.
    """

    lam: DataNode
    box: DataNode | None = None
    blended: DataNode | None = None
    resized: DataNode | None = None
    tiled: DataNode | None = None
    avoids: DataNode | None = None
    numbers: tuple[DataNode, ...] = ()
    boxes: DataNode | None = None
    num_boxes: int = 0
    patterns: tuple[Pattern, ...] = ()
    later: tuple[Later, ...] = ()

    @property
    def flags(self) -> dict[str, DataNode]:
        """Those that there are, by their names."""
        flags = {name: getattr(self, name) for name in FLAGS}
        return {name: flag for name, flag in flags.items() if flag is not None}


class Method:
    """A way to mix: a frozen dataclass of its hyper-parameters that draws plans.

    Attributes:
        blends: images are averaged by lam, not pasted.
        resizes: the whole partner is resized into the box.
        tiles: four images meet.
        avoids: its boxes are chosen by those of objects.
        shows: what there is instead of a box, where it draws a `Pattern`. "boxes": the partner
            shows in many of them; "own boxes": the image shows in them, else the partner; "fill":
            they are filled; "mask": each pixel is that of one image; "weights": each is an average.
        sees: what it is chosen by in the images. "saliency": native, or given as maps or points;
            "maps": these alone, and it resizes a part of the partner into the box.
    """

    __slots__ = ()
    blends: ClassVar[bool] = False
    resizes: ClassVar[bool] = False
    tiles: ClassVar[bool] = False
    avoids: ClassVar[bool] = False
    shows: ClassVar[Literal["boxes", "own boxes", "mask", "weights", "fill"] | None] = None
    sees: ClassVar[Literal["saliency", "maps"] | None] = None

    def rows(self, size: Size, draw: Any) -> Rows:
        """Returns a plan per row of `draw.Draw`'s table."""
        raise NotImplementedError

    def filling(self, dtype: str) -> float | tuple[float, ...]:
        """Returns what is shown in the boxes, one number, or one for each channel: "fill".

        Args:
            dtype: of the images, "uint8" or "float32".

        Raises:
            ValueError: these cannot show it.
        """
        raise NotImplementedError

    def mask(self, part: Part) -> DataNode:
        """Returns where the original shows, bool (H, W), on the part's device: "mask"."""
        raise NotImplementedError

    def weights(self, part: Part) -> tuple[DataNode, DataNode]:
        """Returns factors of the partner's weight, float32 (H,) and (W,), on the CPU: "weights"."""
        raise NotImplementedError


class Part(NamedTuple):
    """The samples of a batch that a pattern was chosen for.

    Fields:
        numbers: int32 (columns,), what was drawn for each.
        size: of the images.
        device: of the images, "cpu" or "gpu".
        chosen: bool (), in the batch.
    """

    numbers: DataNode
    size: Size
    device: str
    chosen: DataNode

    @classmethod
    def of(cls, pattern: Pattern, size: Size, device: str) -> Part:
        """Returns the samples of a pattern."""
        own = split(size.node, pattern.chosen)[0]
        numbers = split(pattern.numbers, pattern.chosen)[0]
        return cls(numbers, size._replace(node=own, in_part=True), device, pattern.chosen)

    def constant(self, values: NDArray[Any], device: str = "cpu") -> DataNode:
        """Returns an array for each of the samples, on the CPU or on a GPU."""
        return split(types.Constant(values, device=device), self.chosen)[0]


def choose(
    methods: Sequence[Method],
    rows: Sequence[Rows],
    chosen: Sequence[DataNode],
    mixed: DataNode | None,
    size: Size,
) -> Rows:
    """Returns for each row of a table the plan of the method that was drawn for it.

    Where one method blends every row there is no flag for it.

    Args:
        methods, rows: and the plans of each.
        chosen: for each method, where it was drawn, bool (N, 1); of no use where there is one.
        mixed: bool (N, 1), where anything is mixed at all; None: everywhere.
    """
    nowhere, axes = size.nowhere(), size.axes
    if len(rows) == 1:
        drawn = [mixed]
    else:
        drawn = [where if mixed is None else where & mixed for where in chosen]
    lams, shifts, blended, resized, tiled = [], [], [], [], []
    avoids: DataNode | None = None
    later: list[Later] = []
    patterns = []
    for method, row, where in zip(methods, rows, drawn, strict=True):
        lams.append(_only(where, row.lam))
        if row.box is not None:
            shifts.append(_only(where, row.box - nowhere))
            if method.resizes:
                resized.append(_only(where, row.box[:, axes : axes + 1] > 0))
            if method.tiles:
                tiled.append(_only(where, row.box[:, :1] >= 0))
        for one in row.later:
            later.append(one._replace(columns=_only(where, one.columns)))
            if method.avoids:  # of one method, see `MixConfig`
                avoids = row.lam >= 0.0 if where is None else where
        if method.blends and where is not None:
            blended.append(where)
        if method.shows is not None and not row.later:
            patterns.append(_pattern_rows(method, row, where, nowhere))
    if mixed is not None:
        lams.append(fn.cast(mixed ^ True, dtype=types.FLOAT64))
    return Rows(
        reduce(operator.add, lams),
        nowhere + reduce(operator.add, shifts) if shifts else None,
        reduce(operator.or_, blended) if blended else None,
        reduce(operator.or_, resized) if resized else None,
        reduce(operator.or_, tiled) if tiled else None,
        avoids,
        patterns=tuple(patterns),
        later=tuple(later),
    )


def _pattern_rows(method: Method, rows: Rows, where: DataNode | None, nowhere: DataNode) -> Pattern:
    """Returns the pattern of a method, whose boxes are empty where it was not chosen."""
    chosen = rows.lam >= 0.0 if where is None else where
    if rows.boxes is None:
        return Pattern(method, chosen, fn.cat(*rows.numbers, axis=1), len(rows.numbers))
    found = rows.boxes
    if where is not None:
        found = boxes.where(fn.expand_dims(where, axes=[2]), found, nowhere)
    columns = 4 * rows.num_boxes
    return Pattern(method, chosen, fn.reshape(found, shape=[-1, columns]), columns)


def _only(where: DataNode | None, x: DataNode) -> DataNode:
    """Returns x where it was chosen, else 0 or False."""
    return x if where is None else x * where


def with_unmixed(rows: Rows, size: Size) -> Rows:
    """Returns a table with one more row, the first: the plan of a sample that is not mixed."""

    def before(one: DataNode, all_of_them: DataNode) -> DataNode:
        return fn.cat(one, all_of_them, axis=0)

    def after_zeros(all_of_them: DataNode) -> DataNode:
        return before(all_of_them[:1] * 0, all_of_them)

    box, nowhere = rows.box, size.nowhere()
    flags: dict[str, Any] = {
        name: before(flag[:1] ^ flag[:1], flag) for name, flag in rows.flags.items()
    }
    patterns = []
    for pattern in rows.patterns:
        chosen, first = pattern.chosen, pattern.numbers[:1] * 0
        if pattern.method.shows in ("boxes", "own boxes", "fill"):  # of which none is empty as 0
            places = fn.reshape(first, shape=[pattern.columns // 4, 4]) + nowhere
            first = fn.reshape(places, shape=[1, pattern.columns])
        patterns.append(
            pattern._replace(
                chosen=before(chosen[:1] ^ chosen[:1], chosen),
                numbers=before(first, pattern.numbers),
            )
        )
    return rows._replace(
        lam=before(rows.lam[:1] * 0.0 + 1.0, rows.lam),
        box=None if box is None else before(box[:1] * 0 + nowhere, box),
        patterns=tuple(patterns),
        later=tuple(one._replace(columns=after_zeros(one.columns)) for one in rows.later),
        **flags,
    )


def packed(rows: Rows, size: Size, first: Callable[[DataNode], DataNode] = lambda x: x) -> DataNode:
    """Returns plans as one table, int32 (N, columns), for `unpacked` rows of it.

    Args:
        first: takes what is the same for every sample into the batch of the table, see `Draw`.
    """
    lam = fn.cast(rows.lam, dtype=types.FLOAT)
    weights = fn.cat(lam, 1.0 - lam, axis=1)
    regions = []
    if rows.tiled is not None:
        assert rows.box is not None
        found = tiles.regions(rows.box, rows.tiled, size.node, first(tiles.layouts()))
        of_two = fn.cat(weights, weights * 0.0, axis=1)
        of_four = fn.cast(tiles.area_fractions(found[:, 8:], size.node), dtype=types.FLOAT)
        weights = of_two * (rows.tiled ^ True) + of_four * rows.tiled
        regions = [rows.box, fn.reshape(found, shape=[-1, 24])]
    columns = [fn.reinterpret(weights, dtype=types.INT32)]
    columns += [fn.cast(flag, dtype=types.INT32) for flag in rows.flags.values()]
    for pattern in rows.patterns:
        columns += [fn.cast(pattern.chosen, dtype=types.INT32), pattern.numbers]
    columns += regions
    if rows.box is not None and not regions:
        start, sides = rows.box[:, : size.axes], rows.box[:, size.axes :]
        zeros = start * 0
        columns += [zeros, start, zeros + size.node, sides]
    return fn.cat(*columns, axis=1) if len(columns) > 1 else columns[0]


def unpacked(row: DataNode, rows: Rows, size: Size) -> MixParams:
    """Returns the plan of a row of `packed`, without partners.

    Args:
        row: int32 (columns,).
        rows: those that were packed, which says what there is.
        size: of the images of each sample.
    """
    at = 2 if rows.tiled is None else 4
    weights = fn.reinterpret(row[:at], dtype=types.FLOAT, shape=[1, at])
    params = MixParams(lam=weights[0, 0], box=size.nowhere(), weights=weights)
    for name in rows.flags:
        flag: dict[str, Any] = {name: row[at] != 0}
        params, at = params._replace(**flag), at + 1
    for pattern in rows.patterns:
        end = at + 1 + pattern.columns
        found = pattern._replace(chosen=row[at] != 0, numbers=row[at + 1 : end])
        params, at = params._replace(patterns=(*params.patterns, found)), end
    if rows.box is None:
        return params
    if rows.tiled is not None:
        sources, out, sides = (
            fn.reshape(row[start : start + 8], shape=[4, 2]) for start in range(at + 4, at + 28, 8)
        )
        return params._replace(box=row[at : at + 4], regions=Regions(out, sides, sources))
    axes = size.axes
    anchors = fn.reshape(row[at : at + 2 * axes], shape=[2, axes])
    shapes = fn.reshape(row[at + 2 * axes : at + 4 * axes], shape=[2, axes])
    box = fn.cat(anchors[1], shapes[1])
    return params._replace(box=box, regions=Regions(anchors, shapes))


def plan_of(rows: Rows, size: Size) -> MixParams:
    """Returns the plan of a table of one row, without partners: what `packed` is spared."""
    if rows.tiled is not None:
        return unpacked(packed(rows, size)[0], rows, size)
    lam = fn.reshape(fn.cast(rows.lam, dtype=types.FLOAT), shape=[1])
    # To scale by lam around 1 is x -> lam * x + (1 - lam) * 1.
    weights = fn.transforms.scale(scale=lam, center=[1.0])
    flags: dict[str, Any] = {name: fn.reshape(flag, shape=[]) for name, flag in rows.flags.items()}
    params = MixParams(lam=fn.reshape(lam, shape=[]), box=size.nowhere(), weights=weights, **flags)
    if rows.box is None:
        return params
    both = fn.reshape(rows.box, shape=[2, size.axes])  # (y, x), (h, w)
    anchors = fn.slice(both, start=[-1], shape=[2], axes=[0], out_of_bounds_policy="pad")
    shapes, box = fn.stack(size.node, both[1]), fn.reshape(both, shape=[2 * size.axes])
    return params._replace(box=box, regions=Regions(anchors, shapes))


def completed(params: MixParams, rows: Rows, size: Size, found: Sequence[Found]) -> MixParams:
    """Returns plans with what their methods found later.

    Args:
        params: of a row that was dealt.
        rows: those that were dealt, which says what there is.
        found: of each of `Rows.later`, at least one.
    """
    lams = [
        boxes.original_fraction(one.box, size.node, axes=size.axes) if one.lam is None else one.lam
        for one in found
    ]
    source = _joined([one.source for one in found if one.source is not None], size)
    # A method that was not drawn has an empty box and lam 1.
    box, lam = _joined([one.box for one in found], size), reduce(operator.mul, lams)
    assert box is not None
    if rows.box is not None or rows.blended is not None or rows.patterns:
        assert params.box is not None
        drawn = fn.reshape(params.box, shape=[1, 2 * size.axes])
        box = box if rows.box is None else drawn + (box - size.nowhere())
        lam = fn.reshape(params.lam, shape=[1, 1]) * lam
    patterns = (one.pattern for one in found if one.pattern is not None)
    flags = {name: fn.reshape(getattr(params, name), shape=[1, 1]) for name in rows.flags}
    final = plan_of(Rows(lam, box, **flags), size)
    final = final._replace(patterns=(*params.patterns, *patterns))
    if source is None:
        return final
    shares = (one.lam_partner for one in found if one.lam_partner is not None)
    return with_source(final, source, reduce(operator.add, shares))


def _joined(found: Sequence[DataNode], size: Size) -> DataNode | None:
    """Returns boxes of which all but one are empty in each sample, in one, int32 (1, 4)."""
    if not found:
        return None
    return reduce(lambda box, other: box + (other - size.nowhere()), found)


def with_source(params: MixParams, source: DataNode, share: DataNode) -> MixParams:
    """Returns plans of which some resize a part of the partner into the box.

    Args:
        source: int32 (1, 4), an empty one where that is not so.
        share: of the partner in the label, float64 or float32 (1, 1), where it is so.
    """
    assert params.weights is not None
    is_partner = np.eye(4, dtype=np.bool_)[1:2, : 2 if params.tiled is None else 4]
    shown = (source[:, 2:3] > 0) & types.Constant(is_partner)
    weights = params.weights * (shown ^ True) + fn.cast(share, dtype=types.FLOAT) * shown
    return params._replace(
        source=fn.reshape(source, shape=[4]), lam_partner=weights[0, 1], weights=weights
    )
