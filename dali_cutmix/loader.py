"""Loader: a DALI pipeline as an iterable of torch tensors, like a torch DataLoader."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn

import torch
from nvidia.dali import Pipeline
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from dali_cutmix import checks
from dali_cutmix.config import MixConfig
from dali_cutmix.folders import class_names, unreadable_files
from dali_cutmix.pipelines import imagenet

__all__ = ["Loader", "train_loader", "val_loader"]

Batch = tuple[torch.Tensor, Any]
_STATE_VERSION = 1
# Arguments that may differ between a run and the one that resumes it: the stream is the same.
_NOT_IN_STATE = {"root", "num_threads", "device_id", "prefetch_queue_depth", "hw_decoder_load"}


class Loader:
    """Iterates over a DALI pipeline: ``for images, targets in loader``, epoch after epoch.

    A `for` loop yields the rest of the current epoch; after a `break`, the next loop goes on where
    the last one stopped. ``len(loader)`` is the number of batches of an epoch.

    Args:
        pipeline: a ``@pipeline_def`` function with one reader and outputs ``images, targets`` or
            ``images, label_a, label_b, lam``. It is called with `options` here, and again by
            `load_state_dict`.
        last_batch: ``"drop"`` the last, incomplete batch (training), or yield it ``"partial"``
            (validation; not where the pipeline mixes, for partners would be padding). The reader
            must have ``pad_last_batch=True``.
        channels_last: the images leave the pipeline as NHWC; they are yielded as NCHW tensors in
            torch.channels_last, without a copy.
        **options: arguments of `pipeline`, among them batch_size, num_threads, device_id, seed.

    Attributes:
        classes: the class names, where the loader knows them, else None.
        epoch: number of the epoch that the next batch belongs to, from 0.

    Raises:
        ValueError: the data are not what the pipeline can use, or a file cannot be decoded.
            Whatever the first batch shows is raised at construction.
    """

    classes: tuple[str, ...] | None = None
    epoch: int
    _ahead: list[list[torch.Tensor] | None]

    def __init__(
        self,
        pipeline: Callable[..., Pipeline],
        *,
        last_batch: Literal["drop", "partial"] = "drop",
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        if last_batch not in ("drop", "partial"):
            raise ValueError(f'`last_batch` must be one of "drop", "partial", got {last_batch!r}.')
        self._pipeline_fn = pipeline
        self._last_batch = last_batch
        self._channels_last = channels_last
        self._options = options
        self._batches: DALIGenericIterator | None = None
        self._open(checkpoint=None, epoch=0, position=0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        outputs = self._ahead.pop() if self._ahead else self._pull()
        if outputs is None:
            self.epoch, self._position = self.epoch + 1, 0
            raise StopIteration
        self._position += 1
        images, *targets = outputs
        if self._channels_last:
            images = images.permute(0, 3, 1, 2)
        return images, targets[0] if len(targets) == 1 else tuple(targets)

    def __len__(self) -> int:
        return self._length

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the pipeline and frees its memory. The loader cannot be used afterwards."""
        self._batches = None
        self._ahead = []

    def state_dict(self) -> dict[str, Any]:
        """Returns where the loader stands, as plain values, a few kB, for torch.save or JSON."""
        batches = self._running()
        checkpoint = self._checkpoint if self._ahead else batches.checkpoints()[0]
        return {
            "version": _STATE_VERSION,
            "epoch": self.epoch,
            "position": self._position,
            "options": self._stream_options(),
            "checkpoint": checkpoint.hex(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`: the batches that follow are the same, bit for bit.

        Raises:
            ValueError: the state is of another version, or of a loader with other options.
        """
        if state["version"] != _STATE_VERSION:
            raise ValueError(
                f"state must be of version {_STATE_VERSION}, got version {state['version']}."
            )
        mine, theirs = self._stream_options(), state["options"]
        different = [
            f"{name}: {mine.get(name, 'default')} here, {theirs.get(name, 'default')} in the state"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        if different:
            raise ValueError(
                "state must come from a loader with the same options, got " + "; ".join(different)
            )
        self.close()
        self._open(bytes.fromhex(state["checkpoint"]), state["epoch"], state["position"])

    def _open(self, checkpoint: bytes | None, epoch: int, position: int) -> None:
        self.epoch, self._position = epoch, position
        pipeline = self._pipeline_fn(
            enable_checkpointing=True, checkpoint=checkpoint, **self._options
        )
        try:
            pipeline.build()
        except Exception as error:
            self._raise_explained(error)
        if self._last_batch == "partial" and b"BatchPermutation" in pipeline.serialize():
            raise ValueError(
                '`last_batch` must be "drop" for a pipeline that mixes, got "partial": '
                "samples of the last batch would be mixed with padding."
            )
        reader, meta = _only_reader(pipeline)
        self._length = _batches_an_epoch(meta, pipeline.max_batch_size, self._last_batch == "drop")
        self._batches = DALIGenericIterator(
            pipeline,
            [f"output {i}" for i in range(pipeline.num_outputs)],
            reader_name=reader,
            last_batch_policy=LastBatchPolicy.PARTIAL,
            auto_reset=True,
            prepare_first_batch=False,
        )
        # The first batch is made here, so that wrong data are an error at construction.
        self._checkpoint = self._batches.checkpoints()[0]
        self._ahead = [self._pull()]

    def _pull(self) -> list[torch.Tensor] | None:
        """Returns the next outputs of the pipeline, or None once at the end of an epoch."""
        try:
            while True:
                outputs: list[torch.Tensor] = list(next(self._running())[0].values())
                # The reader pads every shard to the same number of batches: those beyond the
                # length are padding, or the incomplete batch that is dropped. (DALI's own DROP
                # policy leaves such a batch to the next epoch where a shard is a multiple of the
                # batch size and another one is longer.)
                if self._position < self._length:
                    return outputs
        except StopIteration:
            return None
        except Exception as error:  # DALI raises many types
            self.close()
            self._raise_explained(error)

    def _running(self) -> DALIGenericIterator:
        if self._batches is None:
            raise RuntimeError("the loader is closed")
        return self._batches

    def _stream_options(self) -> dict[str, str]:
        return {k: repr(v) for k, v in self._options.items() if k not in _NOT_IN_STATE}

    def _raise_explained(self, error: Exception) -> NoReturn:
        """Raises what DALI raised in words of this package, naming the file where there is one."""
        words = checks.explain(error)
        if words is None and "root" in self._options:
            words = _about_files(str(error), self._options["root"])
        if words is None:
            raise error
        raise ValueError(words) from error


def train_loader(
    root: str | os.PathLike[str],
    *,
    batch_size: int,
    mix: MixConfig | None = None,
    size: int | tuple[int, int] = 224,
    device: Literal["gpu", "cpu"] = "gpu",
    seed: int = 0,
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    area: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
    hflip: float = 0.5,
    mean: Sequence[float] = imagenet.IMAGENET_MEAN,
    std: Sequence[float] = imagenet.IMAGENET_STD,
    prefetch_queue_depth: int = 2,
    hw_decoder_load: float = 0.65,
    with_params: bool = False,
) -> Loader:
    """Returns a loader of training batches from an ImageFolder: decode, crop, flip, mix, normalise.

    Yields ``(images, targets)`` on the device: images float32 or float16, (N, 3, H, W); targets
    float32 (N, K), or ``(label_a, label_b, lam)`` with ``targets="pair"``, or int64 (N,) without
    `mix`. All batches are full; the last, incomplete one of an epoch is dropped. The whole data
    set is shuffled anew every epoch, and the same on every shard.

    Args:
        root: folder with one folder of images a class.
        batch_size: samples a batch, of this shard.
        mix: how to mix; None for no mixing. ``num_classes`` is that of the folder where not given.
        size: side, or (H, W), of the images.
        device: ``"gpu"`` decodes with nvJPEG and does the rest on the GPU.
        seed: at least 0. The same seed gives the same stream.
        shard_id, num_shards: this process's part; by default from torch.distributed, or
            torchrun's environment, or all.
        num_threads: of DALI; by default the cores this process may use, at most 16.
        dtype, layout: of the images; with ``"NHWC"`` the tensors are (N, 3, H, W) in
            torch.channels_last, without a copy.
        area, ratio: range of the crop's share of the image and of its aspect ratio
            (torchvision's defaults).
        interpolation, antialias: of the resize.
        hflip: probability of a horizontal flip.
        mean, std: for images in [0, 1]; ImageNet's by default.
        prefetch_queue_depth: batches prepared ahead.
        hw_decoder_load: share of the images for the GPU's JPEG hardware, where it has one.
        with_params: for looking into a batch: after the targets, also yield what was mixed, on
            the CPU: lam float32 (N,), box int32 (N, 4), and the labels of the sample and its
            partner, int64 (N,).

    Raises:
        FileNotFoundError: `root` does not exist or lacks images.
        TypeError, ValueError: an argument is wrong, `device` is not there, or the first batch
            shows a damaged file.

    >>> with train_loader(photo_folder, batch_size=16, size=32, device="cpu",
    ...                   mix=MixConfig()) as loader:
    ...     for images, targets in loader:
    ...         pass
    >>> images.shape, targets.shape
    (torch.Size([16, 3, 32, 32]), torch.Size([16, 5]))
    """
    classes = class_names(root)
    if mix is not None:
        mix = _with_classes(mix, len(classes))
    options = _checked(
        root=root,
        batch_size=batch_size,
        size=size,
        device=device,
        seed=seed,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        interpolation=interpolation,
        antialias=antialias,
        mean=mean,
        std=std,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
    )
    if with_params and mix is None:
        raise ValueError("`with_params` must be False where `mix` is None: nothing is mixed.")
    for name, bounds in (("area", area), ("ratio", ratio)):
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
            raise ValueError(f"`{name}` must be (low, high) with 0 < low <= high, got {bounds!r}.")
    if area[1] > 1:
        raise ValueError(f"`area` must be within (0, 1], got {area!r}.")
    if not 0 <= hflip <= 1:
        raise ValueError(f"`hflip` must be in [0, 1], got {hflip}.")
    loader = Loader(
        imagenet.train,
        channels_last=layout == "NHWC",
        mix=mix,
        area=tuple(area),
        ratio=tuple(ratio),
        hflip=hflip,
        with_params=with_params,
        **options,
    )
    loader.classes = tuple(classes)
    return loader


def val_loader(
    root: str | os.PathLike[str],
    *,
    batch_size: int,
    size: int | tuple[int, int] = 224,
    resize: int = 256,
    device: Literal["gpu", "cpu"] = "gpu",
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
    mean: Sequence[float] = imagenet.IMAGENET_MEAN,
    std: Sequence[float] = imagenet.IMAGENET_STD,
    prefetch_queue_depth: int = 2,
    hw_decoder_load: float = 0.65,
) -> Loader:
    """Returns a loader of validation batches: decode, resize, centre crop, normalise. Never mixes.

    Yields ``(images, labels)``: images as `train_loader` does, labels int64 (N,). Every image
    comes once an epoch, in the order of the folder; the last batch may be smaller.

    Args:
        size: side, or (H, W), of the centre crop.
        resize: length of the shorter side before the crop; at least `size`.

    The other arguments and the errors are those of `train_loader`.

    >>> with val_loader(photo_folder, batch_size=16, size=32, resize=36, device="cpu") as loader:
    ...     print(sum(len(labels) for images, labels in loader))
    80
    """
    classes = class_names(root)
    options = _checked(
        root=root,
        batch_size=batch_size,
        size=size,
        device=device,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        interpolation=interpolation,
        antialias=antialias,
        mean=mean,
        std=std,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
    )
    if resize < max(options["size"]):
        raise ValueError(f"`resize` must be at least `size`, got resize={resize} and size={size}.")
    loader = Loader(
        imagenet.val,
        last_batch="partial",
        channels_last=layout == "NHWC",
        resize=resize,
        **options,
    )
    loader.classes = tuple(classes)
    return loader


def _with_classes(mix: MixConfig, found: int) -> MixConfig:
    if not isinstance(mix, MixConfig):
        raise TypeError(f"`mix` must be a MixConfig or None, got {mix!r}.")
    if mix.labels != "int":
        raise ValueError('`labels` must be "int" for a folder of classes, got "float".')
    if mix.num_classes is None:
        return dataclasses.replace(mix, num_classes=found)
    if mix.num_classes < found:
        raise ValueError(
            f"`num_classes` must be at least the {found} class folders of `root`, "
            f"got {mix.num_classes}."
        )
    return mix


def _checked(**options: Any) -> dict[str, Any]:
    """Returns the options that both pipelines take, checked and filled in."""
    options["root"] = os.fspath(options["root"])
    if isinstance(options["size"], int):
        options["size"] = (options["size"], options["size"])
    if options["num_threads"] is None:
        options["num_threads"] = min(16, len(os.sched_getaffinity(0)))
    options["shard_id"], options["num_shards"] = _shard(options["shard_id"], options["num_shards"])

    if len(options["size"]) != 2:
        raise ValueError(f"`size` must be an int or (H, W), got {options['size']!r}.")
    ints = {"batch_size": 1, "seed": 0, "num_threads": 1, "prefetch_queue_depth": 1}
    checked = [(name, options[name], low) for name, low in ints.items() if name in options]
    for name, value, low in checked + [("size", side, 1) for side in options["size"]]:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"`{name}` must be an int, got {value!r}.")
        if value < low:
            raise ValueError(f"`{name}` must be at least {low}, got {value}.")
    choices = {
        "device": ("gpu", "cpu"),
        "dtype": imagenet.DTYPE,
        "layout": imagenet.LAYOUT,
        "interpolation": imagenet.INTERPOLATION,
    }
    for name, allowed in choices.items():
        if options[name] not in allowed:
            listed = ", ".join(f'"{a}"' for a in allowed)
            raise ValueError(f"`{name}` must be one of {listed}, got {options[name]!r}.")
    mean, std = options["mean"], options["std"]
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"`mean` and `std` must be 3 numbers, std above 0, got {mean}, {std}.")
    if not 0 <= options["hw_decoder_load"] <= 1:
        raise ValueError(f"`hw_decoder_load` must be in [0, 1], got {options['hw_decoder_load']}.")
    options["device_id"] = device_id(options["device"])
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def device_id(device: str) -> int | None:
    """Returns DALI's device_id: torch's current GPU for "gpu", None for "cpu".

    Raises:
        ValueError: there is no GPU that torch can use.
    """
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        raise ValueError(
            '`device` must be "cpu" on this machine, got "gpu": torch finds no CUDA GPU.'
        )
    return torch.cuda.current_device()


def _shard(shard_id: int | None, num_shards: int | None) -> tuple[int, int]:
    """Returns (shard_id, num_shards): as given, or of torch.distributed, or of torchrun, or all."""
    if (shard_id is None) != (num_shards is None):
        raise ValueError(
            "`shard_id` and `num_shards` must be given together, "
            f"got shard_id={shard_id} and num_shards={num_shards}."
        )
    if shard_id is None or num_shards is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not (num_shards >= 1 and 0 <= shard_id < num_shards):
        raise ValueError(
            f"`shard_id` must be in [0, num_shards), got {shard_id} of {num_shards} shards."
        )
    return shard_id, num_shards


def _about_files(text: str, root: str) -> str | None:
    """Returns words for a failed read or decode. DALI names the file of some failures only."""
    if not re.search(r"fn\.(decoders|readers)\.|fn\.peek_image_shape", text):
        return None
    named = re.search(r"(?:Failed to decode sample #\d+ ?: |File mapping failed: )(.+)", text)
    files = [named[1].strip()] if named else unreadable_files(root)
    if not files:
        return None
    listed = ", ".join(files[:5]) + (", …" if len(files) > 5 else "")
    return (
        f"{len(files)} image file(s) cannot be read: {listed}. They are damaged or no images: "
        "replace or remove them, then start again."
    )


def _only_reader(pipeline: Pipeline) -> tuple[str, dict[str, Any]]:
    readers = pipeline.reader_meta()
    if len(readers) != 1:
        raise ValueError(
            f"`pipeline` must have exactly one reader, got {len(readers)}: {sorted(readers)}."
        )
    ((name, meta),) = readers.items()
    if not meta["pad_last_batch"]:
        raise ValueError(
            f"`pipeline` must read with pad_last_batch=True, got reader {name!r} without: "
            "batches would run over the end of an epoch."
        )
    return name, meta


def _batches_an_epoch(meta: dict[str, Any], batch_size: int, drop: bool) -> int:
    """Returns the number of batches; when dropping, it is the same on every shard."""
    total: int = meta["epoch_size"]
    shards, shard = meta["number_of_shards"], meta["shard_id"]
    if not drop:
        own = total * (shard + 1) // shards - total * shard // shards
        return int(-(-own // batch_size))
    length = int(total // shards // batch_size)
    if length == 0:
        raise ValueError(
            f"`batch_size` must be at most the {total // shards} images of a shard "
            f"({total} images, {shards} shard(s)), got {batch_size}: no batch would be full."
        )
    return length
