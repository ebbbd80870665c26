"""The commands of volumes: dali-cutmix volumes check, convert and show."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

import dali_cutmix as dcm
from dali_cutmix._validation import checked_int, checked_size
from dali_cutmix.cli.masks import overlaid
from dali_cutmix.cli.shapes import write_solids
from dali_cutmix.data.nifti import convert_nifti
from dali_cutmix.data.volumes import PROBLEMS, VolumeLayout, find_volumes, verify_volumes

__all__ = ["add_parser", "mixed_volumes", "slices"]

_SHOWN = 20  # findings
_SIZE = (64, 96, 96)
_MOST = 100  # volumes that are made


def add_parser(
    commands: Any, *, check: Callable[[str], None], save: Callable[[Image.Image, str], None]
) -> None:
    """Adds ``volumes`` to the commands.

    Args:
        check: fails where a picture cannot be written to a path.
        save: writes one.
    """
    text = "volumes with masks: check them, convert NIfTI, or show mixed ones"
    parser = commands.add_parser("volumes", help=text, description=text)
    inside = parser.add_subparsers(required=True, metavar="COMMAND")

    text = "read every volume and mask to its end; exit status 3 where some have a problem"
    command = inside.add_parser("check", help=text, description=text)
    command.set_defaults(run=run_check)
    _add_data(command)
    command.add_argument("--num-classes", metavar="N", type=int, help="masks must be below")

    text = "make .npy files of NIfTI, in RAS, for volume_loader; the same command goes on"
    command = inside.add_parser("convert", help=text, description=text)
    command.set_defaults(run=run_convert)
    add = command.add_argument
    add("source", metavar="SOURCE", help="folder of .nii and .nii.gz files")
    add("out", metavar="OUT", help="folder for .npy, and .json with the spacing, files")
    add("--masks", action="store_true", help="they are masks: integers, by default uint8")
    add("--dtype", metavar="TYPE", help="default: that of each file, else float32")
    add("--threads", metavar="N", type=int, help="default: the cores")
    add("--json", action="store_true", help="report as JSON on stdout")

    text = "write a picture of mixed volumes: three slices of each, masks in colour"
    command = inside.add_parser("show", help=text, description=text)
    command.set_defaults(run=lambda args: run_show(args, check, save))
    _add_data(command, optional=True)
    add = command.add_argument
    help_text = "of the crops (default: 64 96 96, of volumes that are made)"
    add("--size", type=int, nargs=3, metavar=("D", "H", "W"), help=help_text)
    add("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="black and white")
    add("--batch-size", metavar="N", type=int, default=4, help="shown (default: %(default)s)")
    add("--foreground", metavar="P", type=float, default=1.0, help="default: %(default)s")
    add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    add("--out", metavar="FILE", default="volumes.png", help="picture (default: %(default)s)")


def _add_data(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    add = command.add_argument
    made: dict[str, Any] = {"nargs": "?"} if optional else {}
    text = " (default: some with a ball and a cube are made)" if optional else ""
    add("images", metavar="IMAGES", help=f"folder of volumes, .npy{text}", **made)
    add("masks", metavar="MASKS", help="folder of their masks, .npy", **made)
    help_text = "how names of volumes and of masks end, where they differ"
    add("--mask-names", metavar=("IMAGE", "MASK"), nargs=2, help=help_text)
    add("--layout", choices=get_args(VolumeLayout), default="DHW", help="default: %(default)s")
    add("--json", action="store_true", help="report as JSON on stdout")


def _names(args: argparse.Namespace) -> Any:
    return None if args.mask_names is None else tuple(args.mask_names)


@contextmanager
def _bar(text: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run_check(args: argparse.Namespace) -> int:
    """Looks at every volume and mask; returns 3 where some have a problem."""
    found = find_volumes(
        args.images, args.masks, mask_names=_names(args), layout=args.layout, skip=True
    )
    with _bar("check") as report:
        faults = verify_volumes(found, num_classes=args.num_classes, progress=report)
    if args.json:
        problems = [fault._asdict() for fault in faults]
        kinds = {"dtype": found.dtype, "channels": found.channels, "mask_dtype": found.mask_dtype}
        print(json.dumps({"volumes": len(found.files), **kinds, "problems": problems}, indent=2))
        return 3 if faults else 0
    print(
        f"{len(found.files):,} volumes of {found.file_root}: {found.dtype}, {found.channels} "
        f"channel(s), masks {found.mask_dtype}"
    )
    for problem, count in Counter(fault.problem for fault in faults).most_common():
        print(f"{count:,} {problem}: {PROBLEMS[problem]}")
    for fault in faults[:_SHOWN]:
        print(f"    {fault}")
    if len(faults) > _SHOWN:
        print(f"    and {len(faults) - _SHOWN:,} more, see --json")
    if not faults:
        print("no problems")
    return 3 if faults else 0


def run_convert(args: argparse.Namespace) -> int:
    """Makes .npy files of NIfTI."""
    with _bar("convert") as report:
        made, there = convert_nifti(
            args.source,
            args.out,
            masks=args.masks,
            dtype=args.dtype,
            threads=args.threads,
            progress=report,
        )
    if args.json:
        print(json.dumps({"made": made, "there": there}))
    else:
        print(f"{len(made)} file(s) made in {args.out}, {there} there already")
    return 0


def run_show(
    args: argparse.Namespace,
    check: Callable[[str], None],
    save: Callable[[Image.Image, str], None],
) -> int:
    """Writes a picture of a mixed batch."""
    check(args.out)
    if args.masks is None and args.images is not None:
        raise ValueError(f"`MASKS` must be given with the volumes {args.images!r}.")
    if args.size is None and args.images is not None:
        raise ValueError("`--size` must be given with volumes: that of the crops.")
    options: dict[str, Any] = {"size": tuple(args.size or _SIZE), "batch_size": args.batch_size}
    options |= {"mask_names": _names(args), "layout": args.layout, "seed": args.seed}
    options["foreground"] = args.foreground
    options["window"] = None if args.window is None else tuple(args.window)
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-") as folder:
        data = args.images, args.masks
        if args.images is None:
            checked_int("batch_size", args.batch_size, 2, _MOST)
            depth, height, width = checked_size(options["size"], axes=3)
            data = write_solids(folder, volumes=args.batch_size, shape=(depth, height, width))
        volumes, masks = mixed_volumes(*data, device="cpu", **options)
    save(slices(volumes, masks), args.out)
    if args.json:
        print(json.dumps({"volumes": len(masks), "picture": args.out}))
    else:
        print(f"wrote {args.out}: {len(masks)} mixed volumes, a row each, and their masks")
    return 0


def mixed_volumes(
    images: str, masks: str, **options: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the first batch of the training loader, volumes and masks."""
    mix = dcm.MixConfig(partner="derangement")
    with dcm.volume_loader(images, masks, mix=mix, **options) as loader:
        volumes, classes = next(iter(loader))
        return volumes.cpu().numpy(), classes.cpu().numpy()


def slices(volumes: np.ndarray[Any, Any], masks: np.ndarray[Any, Any]) -> Image.Image:
    """Returns a row for each volume: its middle slices across D, H and W, in gray, masks over them.

    Args:
        volumes: float (N, C, D, H, W), of which the first channel is shown, from its lowest value,
            black, to its highest.
        masks: integer (N, D, H, W).
    """
    rows = []
    for volume, mask in zip(volumes[:, 0], masks, strict=True):
        low, high = float(volume.min()), float(volume.max())
        gray = (volume - low) / max(high - low, 1e-9) * 255
        parts = []
        for axis, side in enumerate(mask.shape):
            plane, classes = (x.take(side // 2, axis)[::-1] for x in (gray, mask))
            parts.append(overlaid(np.repeat(plane[..., None], 3, 2), classes))
        rows.append(parts)
    height = max(part.shape[0] for part in rows[0])
    widths = [part.shape[1] for part in rows[0]]
    sheet = np.zeros((len(rows) * (height + 4), sum(widths) + 4 * len(widths), 3), np.uint8)
    for number, parts in enumerate(rows):
        x = 0
        for part in parts:
            y = number * (height + 4)
            sheet[y : y + part.shape[0], x : x + part.shape[1]] = part
            x += part.shape[1] + 4
    return Image.fromarray(sheet)
