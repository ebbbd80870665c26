"""What the loaders of all kinds of data ask of their arguments, and how they report progress."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch

from dali_cutmix._rules import warn
from dali_cutmix._validation import checked_choice, checked_fraction, checked_int
from dali_cutmix.data.formats.paths import INDEXED
from dali_cutmix.data.images import DTYPE, LAYOUT
from dali_cutmix.data.pixel_format import RGB8, PixelFormat
from dali_cutmix.data.sources import Source, unusual_files
from dali_cutmix.loaders._torch_words import joined_a_group
from dali_cutmix.loaders.loader import MAX_BATCH
from dali_cutmix.mixing.config import MixConfig

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "Device",
    "OnError",
    "blending_methods",
    "check_mix",
    "check_needs",
    "checked_options",
    "checked_sides",
    "device_id",
    "given",
    "look_at_a_few",
    "pair",
    "progress_bar",
    "without_damaged",
]

_MOST_PIXELS = 2**16  # of a side
Device = str | torch.device
OnError = Literal["raise", "skip"]


def checked_options(**options: Any) -> dict[str, Any]:
    """Returns the options that pipelines of all kinds take, checked and filled in.

    In: on_error, batch_size, num_threads, prefetch_queue_depth, device, dtype, shard_id,
    num_shards, and where there is one layout, antialias, hw_decoder_load, seed. Out: also
    device_id, and ``_alone``, of the loader.
    """
    if options["num_threads"] is None:
        options["num_threads"] = min(16, len(os.sched_getaffinity(0)))
    limits = {"batch_size": MAX_BATCH, "num_threads": 1024, "prefetch_queue_depth": 1024}
    for name, limit in limits.items():
        options[name] = checked_int(name, options[name], 1, limit)
    if "seed" in options:
        options["seed"] = checked_int("seed", options["seed"], 0, 2**63 - 1)
    checked_choice("on_error", options["on_error"], ("raise", "skip"))
    options["device"], options["device_id"] = _device(options["device"])
    checked_choice("dtype", options["dtype"], DTYPE)
    if "layout" in options:
        checked_choice("layout", options["layout"], LAYOUT)
    if not isinstance(options.get("antialias", True), bool):
        raise TypeError(f"`antialias` must be a bool, got {options['antialias']!r}.")
    if "hw_decoder_load" in options:
        options["hw_decoder_load"] = checked_fraction("hw_decoder_load", options["hw_decoder_load"])
    if options["device"] == "cpu":  # it changes nothing there, so it does not belong to the state
        options.pop("hw_decoder_load", None)
    told = options["shard_id"] is not None or _environment() or joined_a_group()
    options["_alone"] = not told
    options["shard_id"], options["num_shards"] = _shard(options["shard_id"], options["num_shards"])
    return options


def given(**values: Any) -> dict[str, Any]:
    """Returns the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (H, W) of a side or of both."""
    return size if isinstance(size, tuple) else (size, size)


def checked_sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (H, W) of a side or of both, checked."""
    sides = pair(size)
    if len(sides) != 2:
        raise ValueError(f"`size` must be a side or (H, W), got {size!r}.")
    height, width = (checked_int("size", side, 1, _MOST_PIXELS) for side in sides)
    return height, width


def check_mix(mix: Any, **only_mixed: bool) -> None:
    """Raises TypeError or ValueError for a `mix`, and for what is of no use where it is None."""
    if mix is not None and not isinstance(mix, MixConfig):
        raise TypeError(f"`mix` must be a MixConfig or None, got {mix!r}.")
    for name, flag in only_mixed.items():
        if mix is None and flag:
            raise ValueError(f"`{name}` must be False where `mix` is None: nothing is mixed.")


def check_needs(
    mix: MixConfig,
    *,
    classes: bool = False,
    maps: bool = False,
    boxes: bool = False,
    masks: bool = False,
) -> None:
    """Raises ValueError for a `mix` that needs what a loader does not read.

    Args:
        classes, maps, boxes, masks: whether it reads one class of each image, maps of where it is
            seen, boxes of objects, masks.
    """
    by_class = "which goes by the class of each image: here it has none, or several"
    lacking = {
        "DetectionCutMix, which looks at boxes of objects: those are read by detection_loader": (
            mix.avoids and not boxes
        ),
        "ObjectCutMix, which looks at masks: those are read by segmentation_loader and "
        "volume_loader": mix.object_method is not None and not masks,
        "SnapMix, which looks at maps: those are read by train_loader": (
            mix.needs_maps and not maps
        ),
        f'`partner="{mix.partner}"`, {by_class}': mix.grouped and not classes,
        f"a `prob` for each class, {by_class}": mix.prob_of_class is not None and not classes,
    }
    for what, is_lacking in lacking.items():
        if is_lacking:
            raise ValueError(f"`mix` must not have {what}.")


def blending_methods(mix: MixConfig) -> list[str]:
    """Returns the names of the methods that average images, as classes of masks cannot be."""
    methods = [method for method, _ in mix.weighted_methods]
    return [type(m).__name__ for m in methods if m.blends or m.shows == "weights"]


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to report progress to; a terminal shows it as a bar, from the first call."""
    bar: Progress | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if find_spec("rich") is None:  # it comes with the command
            return
        if bar is None:
            bar = _start_bar(text)
        bar.update(bar.task_ids[0], completed=done, total=total)

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(text: str) -> Progress:
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn(text),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=console, disable=not console.is_terminal)
    bar.add_task(text, total=None)
    bar.start()
    return bar


def device_id(device: Device) -> int | None:
    """Returns DALI's device_id: for "gpu" torch's current GPU, for "cuda:1" 1, for "cpu" None.

    Raises:
        TypeError, ValueError: `device` is no such name, or there is no such GPU for torch.
    """
    return _device(device)[1]


def _device(device: Device) -> tuple[str, int | None]:
    """Returns "gpu" and its number, or "cpu" and None."""
    name = str(device) if isinstance(device, torch.device) else device
    if name == "cpu":
        return "cpu", None
    if not isinstance(name, str):
        raise TypeError(f"`device` must be a name or a torch.device, got {device!r}.")
    found = re.fullmatch(r"(?:gpu|cuda)(?::(\d+))?", name)
    if found is None:
        raise ValueError(f'`device` must be "gpu", "cuda", "cuda:0" or "cpu", got {name!r}.')
    if not torch.cuda.is_available():
        raise ValueError(
            f'`device` must be "cpu" on this machine, got "{name}": torch finds no CUDA GPU.'
        )
    number = torch.cuda.current_device() if found[1] is None else int(found[1])
    if number >= torch.cuda.device_count():
        raise ValueError(
            f'`device` must be one of the {torch.cuda.device_count()} GPU(s), got "{name}".'
        )
    return "gpu", number


def _environment() -> tuple[str | None, str | None] | None:
    """Returns what torchrun says in the environment, RANK and WORLD_SIZE, or None."""
    ranks = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return None if ranks == (None, None) else ranks


def _shard(shard_id: int | None, num_shards: int | None) -> tuple[int, int]:
    """Returns (shard_id, num_shards): as given, or of torch.distributed, or of torchrun, or all."""
    if (shard_id is None) != (num_shards is None):
        raise ValueError(
            "`shard_id` and `num_shards` must be given together, "
            f"got shard_id={shard_id} and num_shards={num_shards}."
        )
    if shard_id is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        ranks = _environment()
        if ranks is None:
            return 0, 1
        if not all(text is not None and text.isdecimal() for text in ranks):
            raise ValueError(
                "RANK and WORLD_SIZE of the environment must be numbers, both, got "
                f"{ranks[0]!r} and {ranks[1]!r}: pass `shard_id` and `num_shards`."
            )
        shard_id, num_shards = (int(text or "") for text in ranks)
        if num_shards > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:  # not from torchrun
            warn(
                f"only part {shard_id} of {num_shards} of the data is read, because RANK and "
                "WORLD_SIZE are in the environment. Unset them where this process is alone."
            )
    num_shards = checked_int("num_shards", num_shards, 1)
    shard_id = checked_int("shard_id", shard_id, 0)
    if shard_id >= num_shards:
        raise ValueError(
            f"`shard_id` must be in [0, num_shards), got {shard_id} of {num_shards} shards."
        )
    return shard_id, num_shards


# The data


def look_at_a_few(source: Source, to: PixelFormat = RGB8) -> None:
    """Refuses kinds of files that DALI would decode to other pixels, or not at all.

    Of each ending, but for JPEGs, the first few files are looked at; `verify` looks at all.
    """
    files = unusual_files(source)
    if not files:
        return
    from dali_cutmix.data.damage import KINDS, PROBLEMS, verify_image

    for path in files:
        try:
            with open(path, "rb") as file:
                verdict = verify_image(file.read(), to=to)
        except OSError:  # DALI says so
            continue
        if verdict.problem in KINDS:
            other = ", or read them by other `channels` or `read_as`"
            raise ValueError(
                f"{path!r} {PROBLEMS[verdict.problem]}: {verdict.detail}. Convert such files"
                f"{other if verdict.problem in ('bands', 'depth') else ''}; "
                f'`dali-cutmix check{to.flags}` names them all, and `on_error="skip"` leaves them '
                "out."
            )


def without_damaged(
    source: Source, num_classes: int | None = None, to: PixelFormat = RGB8
) -> tuple[Source, tuple[str, ...]]:
    """Returns the source without the samples that have a problem, and their names; warns."""
    from dali_cutmix.data.verification import drop_damaged, verify

    with progress_bar("looking for damage") as report:
        found = verify(source, num_classes=num_classes, progress=report, **to._asdict())
    # An image may have several.
    names = tuple(dict.fromkeys(f"{one.name} ({one.problem})" for one in found.problems))
    if names:
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        of_shards = sum(map(len, found.bad.values()))
        count = of_shards if source.kind in INDEXED else found.samples - len(found.good)
        warn(f"{count} of {found.samples} samples are left out: {listed}")
    return drop_damaged(source, found), names
