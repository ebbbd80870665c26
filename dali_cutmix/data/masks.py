"""Images with a mask each: which file is the mask of which image, and how a graph reads it.

They are paired by name, see `pairs`, whatever their ending. Only the image goes through the reader,
and the path of its mask is made from its own, so that no order can part them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, read_file
from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states, warn
from dali_cutmix.data.folders import folder_entries
from dali_cutmix.data.images import shape_of
from dali_cutmix.data.pairs import by_ends, check_lacking

__all__ = [
    "MASK_KIND",
    "MASK_SIZE",
    "MASK_VALUES",
    "Masks",
    "decode_part",
    "fault_of",
    "look_at",
    "mask_path",
    "pair",
    "read_encoded",
    "type_of",
]

_LOSSY = (".jpg", ".jpeg", ".jp2", ".webp")
MaskBits = Literal["uint8", "uint16"]
MASK_KIND = (
    "Every mask must be gray, a class per pixel, and have as many bits as the others, 8 or 16: no "
    "palette, no colours."
)
_PNG = b"\x89PNG"
MASK_SIZE = "Every mask must be as large as its image."
MASK_VALUES = (
    "Every mask must hold class indices below `num_classes`, or `ignore_index` where a pixel has "
    "no class."
)
_MODES: dict[str, MaskBits] = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16"}  # of Pillow


class Masks(NamedTuple):
    """Where the masks of a source are; the label of an image in it is the number of its rule.

    Fields:
        root: the folder of the masks.
        rules: (the end of the image's path, what comes in its place), different ones.
        dtype: "uint8" or "uint16".
        num_classes: values are below it, or `ignore_index`; None: any will do.
        ignore_index: the value of pixels without a class.
    """

    root: str
    rules: tuple[tuple[str, str], ...]
    dtype: MaskBits = "uint8"
    num_classes: int | None = None
    ignore_index: int = 255


def mask_path(masks: Masks, file: str, rule: int) -> str:
    """Returns the path of the mask of an image, whose path is within the root of the images."""
    of_image, of_mask = masks.rules[rule]
    return os.path.join(masks.root, file[: len(file) - len(of_image)] + of_mask)


def pair(
    files: Sequence[str],
    root: str,
    names: tuple[str, str] | None,
    *,
    lacking_is_fault: bool = True,
) -> tuple[Masks, tuple[int, ...], list[str]]:
    """Returns the masks in a folder, the number of the rule for each image, and masks of none.

    Args:
        names: how the names of images and of masks end, where not only the ending differs.
        lacking_is_fault: else an image without a mask gets the rule of the first one with a mask.

    Raises:
        FileNotFoundError: an image has no mask, or none has one.
        ValueError: two masks have the name of one image, or two images that of one mask; an image
            does not end so; or masks are of a format that changes values.
    """
    there = [os.path.relpath(entry.path, root) for entry in folder_entries(root) if entry.is_image]
    if names is None:
        wanted = _by_name(files, there)
    else:
        masks_of = by_ends(files, there, *names, "image")
        wanted = [None if mask is None else names for mask in masks_of]
    lacking = [file for file, rule in zip(files, wanted, strict=True) if rule is None]
    if lacking_is_fault or len(lacking) == len(files):
        check_lacking(lacking, len(files), root, there, "image")
    rules = {rule: number for number, rule in enumerate(sorted({r for r in wanted if r}))}
    changing = [end for _, end in rules if end.lower().endswith(_LOSSY)]
    if changing:
        raise ValueError(
            f"`masks` must be of a format that keeps values, such as PNG, got {changing[0]!r}."
        )
    masks = Masks(root, tuple(rules))
    numbers = tuple(0 if rule is None else rules[rule] for rule in wanted)
    images = dict(zip(files, numbers, strict=True))
    used: dict[str, str] = {}
    for image, number in images.items():
        mask = mask_path(masks, image, number)
        if mask in used:
            raise ValueError(
                f"`masks` must have a mask for each image, got {mask!r} for {used[mask]!r} and "
                f"{image!r}."
            )
        used[mask] = image
    return masks, numbers, [name for name in there if os.path.join(root, name) not in used]


def _by_name(files: Sequence[str], there: Sequence[str]) -> list[tuple[str, str] | None]:
    by_stem: dict[str, str] = {}
    for name in there:
        stem, ending = os.path.splitext(name)
        if stem in by_stem:
            raise ValueError(f"`masks` must have one mask of the name {stem!r}, got several.")
        by_stem[stem] = ending
    found: list[tuple[str, str] | None] = []
    for file in files:
        stem, ending = os.path.splitext(file)
        found.append((ending, by_stem[stem]) if stem in by_stem else None)
    return found


# Whether a mask is right


def look_at(paths: Sequence[tuple[str, str]]) -> MaskBits:
    """Returns the type of the masks, from the headers of some (image, mask), or refuses them.

    Raises:
        ValueError: a mask is no gray image of 8 or 16 bits, or not as large as its image; or they
            are of both types.
    """
    from PIL import Image  # not needed for a graph

    kinds: dict[MaskBits, str] = {}
    turned: list[str] = []
    for image, mask in paths:
        try:
            with Image.open(mask) as opened, Image.open(image) as other:
                fault = _fault_of_header(opened, other)
                mode = opened.mode
                if _orientation(other) not in (0, 1) and not turned:
                    turned.append(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"the mask {mask!r} or its image cannot be read: {error}.") from error
        if fault:
            raise ValueError(f"the mask {mask!r} {fault}.")
        kinds.setdefault(_MODES[mode], mask)
    if turned:
        warn(
            f"images are turned upright as their EXIF tag says, such as {turned[0]!r}: masks must "
            "be those of the images as they are then shown."
        )
    if len(kinds) > 1:
        raise ValueError(f"`masks` must all have 8 bits, or all 16, got {kinds}.")
    return next(iter(kinds))


def type_of(paths: Sequence[tuple[str, str]]) -> MaskBits:
    """Returns the type that most of some masks have."""
    from PIL import Image

    found: Counter[MaskBits] = Counter()
    for _, mask in paths:
        try:
            with Image.open(mask) as opened:
                if opened.mode in _MODES:
                    found[_MODES[opened.mode]] += 1
        except (OSError, ValueError, SyntaxError):
            continue
    return found.most_common(1)[0][0] if found else "uint8"


def fault_of(image: str, mask: str, masks: Masks) -> str | None:
    """Returns what is wrong with a mask, all of which is decoded, or None."""
    from PIL import Image

    try:
        with Image.open(mask) as opened, Image.open(image) as other:
            fault = _fault_of_header(opened, other)
            if fault is None and _MODES[opened.mode] != masks.dtype:
                fault = f"must be of the type of the others, {masks.dtype}"
            if fault is not None:
                return fault
            values = np.unique(np.asarray(opened))
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError, SyntaxError) as error:
        return f"cannot be read: {error}"
    if masks.num_classes is None:
        return None
    wrong = values[(values >= masks.num_classes) & (values != masks.ignore_index)]
    if len(wrong):
        return (
            f"must have values below {masks.num_classes}, or {masks.ignore_index}, got "
            f"{', '.join(map(str, wrong[:5]))}"
        )
    return None


def _fault_of_header(mask: Any, image: Any) -> str | None:
    if mask.mode in ("P", "PA"):
        return (
            "must be gray, got a palette, whose colours DALI would read and not its indices. "
            "Convert it: Image.fromarray(np.asarray(Image.open(path))).save(path)"
        )
    if mask.mode not in _MODES or _bits(mask) < 8:
        return (
            f"must be gray, of 8 or 16 bits, with a class per pixel, got mode {mask.mode!r} of "
            f"{_bits(mask)} bits: colours, and values that are scaled to 8 bits, must be turned "
            "into classes first"
        )
    if mask.format in ("JPEG", "MPO", "WEBP", "JPEG2000"):
        return f"must be of a format that keeps values, such as PNG, got {mask.format}"
    if (found := _upright(mask)) != (size := _upright(image)):
        return f"must be as large as its image, {size}, got {found} (width, height)"
    return None


def _bits(mask: Any) -> int:
    """Returns the bits of a value, of formats in which they may be less than 8."""
    if mask.mode == "1":
        return 1
    rawmode = str(mask.tile[0].args) if mask.tile else ""
    fewer = re.search(r"L;([124])\b", rawmode)
    return int(fewer[1]) if fewer else 8 if mask.mode == "L" else 16


def _upright(image: Any) -> tuple[int, int]:
    """Returns (width, height) as it is shown, by EXIF's orientation."""
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Any) -> int:
    return int(image.getexif().get(0x0112, 1))


# In a graph


@graph_function
def read_encoded(encoded: DataNode, rule: DataNode, masks: Masks) -> DataNode:
    """Returns the bytes of the mask's file, uint8 (bytes,), on the CPU.

    Args:
        encoded: the image's, as fn.readers.file gives it.
        rule: int32 (1,), the number of its rule.
    """
    path = fn.get_property(encoded, key="source_info")
    rule = fn.reshape(rule, shape=[1])
    cuts, endings = ([text.encode() for text in texts] for texts in zip(*masks.rules, strict=True))
    widest = max(map(len, endings))
    table = np.array([np.frombuffer(e.ljust(widest), np.uint8) for e in endings])
    lengths = [[*map(len, pair)] for pair in zip(cuts, endings, strict=True)]
    ends = _row(types.Constant(np.array(lengths, np.int32)), rule)
    length = path.shape(dtype=types.INT32) - ends[:1]
    ending = fn.slice(_row(types.Constant(table), rule), start=[0], shape=ends[1:], axes=[0])
    root = np.frombuffer(os.path.join(masks.root, "").encode(), np.uint8)
    stem = fn.slice(path, start=[0], shape=length, axes=[0])
    return read_file(fn.cat(types.Constant(root), stem, ending))


def _row(table: DataNode, number: DataNode) -> DataNode:
    return fn.slice(table, start=number, shape=[1], axes=[0])[0]


@graph_function
def decode_part(
    encoded: DataNode, masks: Masks, start: DataNode, shape: DataNode, image: DataNode
) -> DataNode:
    """Returns a part of each mask, (h, w, 1), of the masks' type, on the CPU.

    Args:
        encoded: the mask's.
        start, shape: of the part, as fn.decoders.image_slice takes them.
        image: the image's file, which must be as large.
    """
    checked = _of_size(shape_of(encoded), shape_of(image)) + _gray_png(encoded, masks)
    part: DataNode = fn.decoders.image_slice(
        encoded,
        start + checked,
        shape,
        axes=[0, 1],
        output_type=types.GRAY,
        dtype=types.UINT8 if masks.dtype == "uint8" else types.UINT16,
    )
    if masks.num_classes is None:
        return part
    return _of_classes(part, masks.num_classes, masks.ignore_index)


@states(MASK_VALUES)
def _of_classes(part: DataNode, num_classes: int, ignore_index: int) -> DataNode:
    """Returns a part of each mask as it is; fails where a value is no class and not ignored."""
    highest = fn.reductions.max(part * (part != ignore_index))
    zero = zero_unless(highest >= num_classes)
    return fn.reinterpret(part, shape=part.shape(dtype=types.INT32) + zero, layout="HWC")


@states(MASK_KIND)
def _gray_png(encoded: DataNode, masks: Masks) -> DataNode:
    """Returns 0, int32 (1,); fails where a mask is a PNG of another kind than the others.

    Of a palette DALI would read the colours, of colours their luma, and other bits it would scale.
    """
    head = fn.slice(encoded, start=[0], shape=[26], axes=[0], out_of_bounds_policy="pad")
    wrong = (head[24] != (8 if masks.dtype == "uint8" else 16)) | (head[25] != 0)  # bits and colour
    is_png = head[0] == _PNG[0]
    if all(of_mask.lower().endswith(".png") for _, of_mask in masks.rules):
        return zero_unless((is_png ^ True) | wrong)
    return zero_unless(is_png & wrong)


@states(MASK_SIZE)
def _of_size(shape: DataNode, other: DataNode) -> DataNode:
    """Returns 0, int32 (2,); fails where two shapes have other heights or widths."""
    different = fn.reductions.sum(fn.cast(shape[:2] != other[:2], dtype=types.INT32))
    return shape[:2] * 0 + zero_unless(different)
