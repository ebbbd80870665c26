"""The reader of each kind of data set, sharded and shuffled: (encoded image, label), or boxes.

An ImageFolder and a list are shuffled as a whole, anew every epoch. WebDataset, TFRecord and
RecordIO are read in the order of the files: every epoch the order of the shards is drawn anew, and
samples are drawn from a window of `initial_fill` that moves over them. What lies much further
apart than that in a shard does not meet in a batch, so shuffle before you write shards. Where
there is one shard, the parts of several processes go round from epoch to epoch.
"""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
from nvidia.dali import Pipeline, fn, tfrecord, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import BY_NUMBER, graph_function
from dali_cutmix._graph import by_index, class_index, zero_unless
from dali_cutmix._rules import states
from dali_cutmix._seeds import op_seed
from dali_cutmix.data.folders import IMAGE_PATTERNS, class_filters, class_folders, holds_image
from dali_cutmix.data.images import zero_unless_bare_cmyk
from dali_cutmix.data.saliency import Maps
from dali_cutmix.data.sources import Source, find_source, missing_indexes
from dali_cutmix.data.targets import look_up
from dali_cutmix.data.volumes import Volumes

__all__ = ["INITIAL_FILL", "LABEL", "read", "read_boxes", "read_volumes", "read_with_maps"]

# Samples in the window: with ImageNet's 110 kB an image some 450 MB, a good three shards of a
# thousand, and at least two full batches of 2048.
INITIAL_FILL = 4096

LABEL = (
    "A label must be one whole number, at least 0 after `label_offset` was added, and in a tar "
    "text of at most 10 characters."
)
_LABEL_BYTES = 10  # of .cls, with what blanks follow the digits; constants are int32
_DIGITS = list(range(ord("0"), ord("9") + 1))
_BLANKS = [ord(c) for c in "\t\n\r "]
_IN_ORDER = {"stick_to_shard": True}


@graph_function
def read(
    source: Source | str,
    *,
    shuffle: bool,
    seed: int = 0,
    shard_id: int = 0,
    num_shards: int = 1,
    num_classes: int | None = None,
    repeats: int = 1,
    initial_fill: int = INITIAL_FILL,
    name: str = "reader",
) -> tuple[DataNode, DataNode]:
    """Returns (encoded image, uint8 (bytes,); label, integer (1,)), both on the CPU.

    Of a source with targets the label is their row, float32 (K,).

    Args:
        source: what `find_source` found, with its indexes, or takes.
        shuffle: for training. Without, samples come in the order of the source, and each shard
            keeps its own from epoch to epoch.
        seed: of the order; the same on every shard.
        shard_id, num_shards: the part to read. Parts differ by at most one sample; the shorter
            ones are padded with their last sample.
        num_classes: labels must be below it. Of a folder or a list, whose highest label is known,
            nothing need be checked.
        repeats: copies of a sample in a batch (repeated augmentation), of which every batch then
            has batch_size / repeats.
        initial_fill: samples in the window of WebDataset, TFRecord and RecordIO.
        name: of the reader.

    Fails, when it runs, where a label is negative, no whole number, or not below `num_classes`.

    Raises:
        FileNotFoundError: an index was not made.
        ValueError: fewer samples than shards.
    """
    encoded, labels, _ = read_with_maps(
        source,
        shuffle=shuffle,
        seed=seed,
        shard_id=shard_id,
        num_shards=num_shards,
        num_classes=num_classes,
        repeats=repeats,
        initial_fill=initial_fill,
        name=name,
    )
    return encoded, labels


@graph_function
def read_with_maps(
    source: Source | str,
    *,
    shuffle: bool,
    seed: int = 0,
    shard_id: int = 0,
    num_shards: int = 1,
    num_classes: int | None = None,
    repeats: int = 1,
    initial_fill: int = INITIAL_FILL,
    name: str = "reader",
) -> tuple[DataNode, DataNode, DataNode | None]:
    """Returns what `read` does, and the map of each image, uint8 (h, w), CPU.

    None where the source has no file of maps.
    """
    if not isinstance(source, Source):
        source = find_source(source)
    if source.annotations is not None:
        raise ValueError(
            "`source` must have a label for each image, got one with boxes: detection_loader reads "
            "it."
        )
    encoded, labels = _read(source, shuffle, seed, shard_id, num_shards, initial_fill, name)
    labels = labels + zero_unless_bare_cmyk(encoded)  # not of images, which would wait for it
    known, maps = source.num_classes, None
    if source.saliency is not None:
        number = fn.cast(labels, dtype=types.INT32)
        labels = number % _most_label(source)
        maps = _look_up_maps(number // _most_label(source), source.saliency)
    if source.targets is not None:
        labels = look_up(labels, source.targets)
    elif num_classes is not None and (known is None or known > num_classes):
        labels = class_index(labels, num_classes)
    if repeats > 1:  # before decoding: what is read is reused, and decoded and cropped anew
        indices = [i // repeats for i in range(Pipeline.current().max_batch_size)]
        encoded, labels = by_index(encoded, indices), by_index(labels, indices)
        maps = None if maps is None else by_index(maps, indices)
    return encoded, labels, maps


@graph_function
def read_volumes(
    volumes: Volumes,
    *,
    shuffle: bool,
    seed: int = 0,
    shard_id: int = 0,
    num_shards: int = 1,
    name: str = "reader",
) -> DataNode:
    """Returns the volumes as they are in their files, CPU; see `read`."""
    if len(volumes.files) < num_shards:
        raise ValueError(
            f"`num_shards` must be at most the {len(volumes.files)} volumes, got {num_shards}."
        )
    images: DataNode = fn.readers.numpy(
        file_root=volumes.file_root,
        files=list(volumes.files),
        **_options(name, shard_id, num_shards),
        **(_shuffled(seed) if shuffle else _IN_ORDER),
    )
    return fn.reshape(images, layout=volumes.layout)


@graph_function
def read_boxes(
    source: Source,
    *,
    shuffle: bool,
    seed: int = 0,
    shard_id: int = 0,
    num_shards: int = 1,
    name: str = "reader",
) -> tuple[DataNode, DataNode, DataNode, DataNode]:
    """Returns (encoded image, boxes, labels, image id), on the CPU, of a source with annotations.

    The image is uint8 (bytes,); its boxes float32 (n, 4), ltrb in [0, 1], to which they are
    clipped; their labels int32 (n, 1), from 1; the id int32 (1,), as the annotations have it. An
    image without boxes is read too, crowds are not.

    Args:
        source: what `find_source` found.
        shuffle, seed, shard_id, num_shards, name: see `read`.
    """
    if source.annotations is None:
        raise ValueError(
            f"`source` must have `annotations`, as find_source takes them, got {source!r}."
        )
    if len(source.files) < num_shards:
        raise ValueError(
            f"`num_shards` must be at most the {len(source.files)} images, got {num_shards}."
        )
    nodes = fn.readers.coco(
        file_root=source.file_root,
        annotations_file=source.annotations.path,
        images=list(source.files),
        ltrb=True,
        ratio=True,
        image_ids=True,
        include_iscrowd=False,
        size_threshold=0.0,  # else it leaves out small boxes
        avoid_class_remapping=True,  # else it numbers categories as they come in the file
        **_options(name, shard_id, num_shards),
        **(_shuffled(seed) if shuffle else _IN_ORDER),
    )
    encoded, boxes, categories, ids = cast("list[DataNode]", nodes)
    ids = ids + zero_unless_bare_cmyk(encoded)
    keys = {number: k for k, number in enumerate(source.annotations.category_ids, 1) if number >= 0}
    labels = fn.lookup_table(
        categories, keys=list(keys), values=list(keys.values()), dtype=types.INT32
    )
    return encoded, dmath.clamp(boxes, 0.0, 1.0), labels, ids


def _read(
    source: Source,
    shuffle: bool,
    seed: int,
    shard_id: int,
    num_shards: int,
    initial_fill: int,
    name: str,
) -> tuple[DataNode, DataNode]:
    for path, index_path in missing_indexes(source):
        raise FileNotFoundError(
            f"the index {index_path!r} of {path!r} must exist: `dali-cutmix index` makes it."
        )
    if source.size is not None and source.size < num_shards:
        raise ValueError(
            f"`num_shards` must be at most the {source.size} samples, got {num_shards}."
        )
    if source.kind == "folder" and source.classes is not None:
        root = source.paths[0]
        if tuple(class_folders(root)) != source.classes:
            raise ValueError(f"the classes in {root!r} have changed: find it again.")
        # DALI counts one that has become empty, too. To look into all of them costs a quarter of a
        # second for a million files.
        if not any(holds_image(os.path.join(root, name)) for name in source.classes):
            raise FileNotFoundError(f"`source` must hold images, got {root!r}, where none is left.")
    options = _options(name, shard_id, num_shards)
    if not shuffle:
        options |= _IN_ORDER
    elif source.kind in ("folder", "list") or len(source.paths) > 1:
        options |= _shuffled(seed)
    # Else there is one file and nothing to reorder: the parts then go round, from epoch to epoch.
    if source.kind == "folder":
        encoded, labels = fn.readers.file(
            file_root=source.paths[0],
            file_filters=IMAGE_PATTERNS,
            dir_filters=_dir_filters(source),
            **options,
        )
        return encoded, labels
    if source.kind == "list":
        encoded, labels = fn.readers.file(
            file_root=source.file_root,
            files=list(source.files),
            labels=_with_numbers(source),
            **options,
        )
        return encoded, labels
    if shuffle:
        options["random_shuffle"] = True
        options["initial_fill"] = _window(source, num_shards, initial_fill)
        options["seed"] = op_seed(seed, "window", shard_id)
    encoded, labels = _SHARDS[source.kind](source, options)
    if source.label_offset:
        labels = labels + source.label_offset
    return encoded, _not_negative(labels)


def _look_up_maps(number: DataNode, maps: Maps) -> DataNode:
    """Returns the map of each sample, uint8 (h, w), on the CPU.

    Args:
        number: int32 (1,).
    """
    _, height, width = maps.shape
    start = fn.cat(number, types.Constant(np.zeros(2, np.int32)))
    one: DataNode = fn.readers.numpy(
        name=BY_NUMBER,
        file_root=os.path.dirname(maps.path),
        files=[os.path.basename(maps.path)],
        roi_start=start,
        roi_shape=[1, height, width],
        roi_axes=[0, 1, 2],
        pad_last_batch=True,
    )
    return fn.reshape(one, shape=[height, width], layout="")


def _most_label(source: Source) -> int:
    """Returns what is above the highest label of a list."""
    return max(source.labels) + 1


def _with_numbers(source: Source) -> list[int]:
    """Returns the labels of a list, and in them, where there are maps, the number of each."""
    if source.saliency is None:
        return list(source.labels)
    most = _most_label(source)
    if source.saliency.shape[0] * most >= 2**31:
        raise ValueError(
            f"`saliency` must have maps whose number times that of the labels, {most}, is below "
            f"2**31, got {source.saliency.shape[0]} maps."
        )
    numbers = source.saliency.numbers(source.files)
    return [number * most + label for number, label in zip(numbers, source.labels, strict=True)]


def _options(name: str, shard_id: int, num_shards: int) -> dict[str, Any]:
    """Returns what all readers are given."""
    return {
        "name": name,
        # A mapped file that is cut short while it is read kills the process (SIGBUS). Reading is as
        # fast: 15 us a file of 110 kB against 22 us mapped.
        "dont_use_mmap": True,
        "shard_id": shard_id,
        "num_shards": num_shards,
        "pad_last_batch": True,
    }


def _shuffled(seed: int) -> dict[str, Any]:
    """Returns how an order is drawn anew every epoch, the same on every shard."""
    return {"shuffle_after_epoch": True, "shuffle_after_epoch_seed": op_seed(seed, "order") % 2**31}


def _dir_filters(source: Source) -> list[str]:
    if source.classes is None:  # remote
        return ["[!.]*"]
    return class_filters(source.paths[0], source.classes)


def _window(source: Source, num_shards: int, initial_fill: int) -> int:
    """Returns the window, not above the samples of a part: DALI would read them several times."""
    if source.size is None:
        return initial_fill
    return min(initial_fill, source.size // num_shards)


def _webdataset(source: Source, options: dict[str, Any]) -> tuple[DataNode, DataNode]:
    assert source.fields is not None
    indexes: Any = {"index_paths": list(source.index_paths)} if source.index_paths else {}
    nodes = fn.readers.webdataset(
        paths=list(source.paths),
        ext=list(source.fields),
        case_sensitive_extensions=False,
        missing_component_behavior="error",
        **indexes,
        **options,
    )
    encoded, text = cast("list[DataNode]", nodes)
    return encoded, _decimal(text)


def _tfrecord(source: Source, options: dict[str, Any]) -> tuple[DataNode, DataNode]:
    assert source.fields is not None
    image, label = source.fields
    nodes = fn.readers.tfrecord(
        path=list(source.paths),
        index_path=list(source.index_paths),
        features={
            image: tfrecord.FixedLenFeature([], tfrecord.string, ""),
            label: tfrecord.VarLenFeature(tfrecord.int64, -1),
        },
        **options,
    )
    features = cast("dict[str, DataNode]", nodes)  # DALI says a sequence
    return features[image], _one(features[label])


def _recordio(source: Source, options: dict[str, Any]) -> tuple[DataNode, DataNode]:
    encoded, label = fn.readers.mxnet(
        path=list(source.paths), index_path=list(source.index_paths), **options
    )
    return encoded, _as_integer(_one(label))


_SHARDS = {"webdataset": _webdataset, "tfrecord": _tfrecord, "recordio": _recordio}


@states(LABEL)
def _decimal(text: DataNode) -> DataNode:
    """Returns the number that ASCII text stands for, int64 (1,).

    Fails unless the text is digits, at least one, and blanks after them, in all at most 10.
    """
    text = fn.pad(text, axes=[0], shape=[_LABEL_BYTES], fill_value=ord(" "))
    digit = fn.lookup_table(text, keys=_DIGITS, values=list(range(10)), dtype=types.INT64)
    # A bit a character: 1 for a digit, 0 for a blank, far too high for anything else.
    is_digit = fn.lookup_table(
        text,
        keys=[*_DIGITS, *_BLANKS],
        values=[1] * len(_DIGITS) + [0] * len(_BLANKS),
        default_value=2**_LABEL_BYTES,
        dtype=types.INT32,
    )
    positions = np.arange(_LABEL_BYTES, dtype=np.int32)
    bits = fn.reductions.sum(
        is_digit * types.Constant(2**positions), axes=[0], keep_dims=True, dtype=types.INT32
    )
    value = fn.reductions.sum(
        digit * types.Constant(10 ** positions[::-1]), axes=[0], keep_dims=True
    )
    # n digits first, and blanks: the bits are 2^n - 1. Others find a start outside the powers.
    starts = np.full(2**_LABEL_BYTES, -1, np.int32)
    starts[2 ** (positions + 1) - 1] = _LABEL_BYTES - 1 - positions
    start = fn.slice(types.Constant(starts), start=bits, shape=[1], axes=[0])
    return value // fn.slice(types.Constant(10**positions), start=start, shape=[1], axes=[0])


@states(LABEL)
def _one(label: DataNode) -> DataNode:
    """Returns the label, (1,); fails where there is none, or more than one."""
    return fn.reshape(label, shape=[1])


@states(LABEL)
def _as_integer(label: DataNode) -> DataNode:
    """Returns a float label as int64; fails unless it is a whole number."""
    integer = fn.cast(label, dtype=types.INT64)
    return integer + zero_unless(integer != label)


@states(LABEL)
def _not_negative(label: DataNode) -> DataNode:
    """Returns the label as it is; fails if it is negative."""
    return label + zero_unless(label < 0)
