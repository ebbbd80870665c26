"""The command dali-cutmix."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch
from PIL import Image
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

import dali_cutmix as dcm
from dali_cutmix import recipes
from dali_cutmix._validation import checked_int
from dali_cutmix.cli import boxes, demo, masks, pictures, saliency, volumes
from dali_cutmix.cli.bench import command as bench
from dali_cutmix.data import folders, sources, verification
from dali_cutmix.data.atomic import atomic_write, check_writable
from dali_cutmix.data.damage import MAX_PIXELS
from dali_cutmix.data.formats.paths import INDEXED, Kind, named_files
from dali_cutmix.data.pixel_format import ReadAs
from dali_cutmix.loaders._arguments import device_id
from dali_cutmix.loaders.detection import Crop
from dali_cutmix.mixing.methods import METHODS

__all__ = ["build_parser", "main"]

_METHODS = {method.__name__: method for method in METHODS}
_SHOWN = 20  # findings per problem
_MOST = 1000  # images of a picture, and epochs of a demo


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 for an error, 2 for wrong usage."""
    args = build_parser().parse_args(bench.with_kind(sys.argv[1:] if argv is None else argv))
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"dali-cutmix: {error}", file=sys.stderr)
        return 1


def run_demo(args: argparse.Namespace) -> int:
    """Trains nothing: runs the training loader for some epochs and shows what comes out of it.

    Without data of one's own it also shows what the loaders of boxes, masks and volumes give.
    """
    if args.data is None:
        for name in pictures.FURTHER:
            _writable(pictures.beside(args.out, name))
    console = Console(stderr=args.json, highlight=False)
    device = _device(args)
    console.print(f"device: {_device_name(device)}", markup=False)
    if args.data is None:
        console.print("making crops of the shipped photographs; nothing is downloaded")
    with _data(args.data) as root:
        classes, mix = _classes_and_mix(root, args)
        with dcm.train_loader(
            root,
            batch_size=args.batch_size,
            recipe=args.recipe,
            mix=mix,
            size=args.size,
            device=device,
            seed=args.seed,
        ) as loader:
            console.print(
                f"data: {args.data or 'crops of the shipped photographs'}, "
                f"{len(classes)} classes, {len(loader)} batches of {args.batch_size} an epoch",
                markup=False,
            )
            rate = _throughput(loader, args.epochs, console)
        samples = _samples(root, mix, device, args)
    _save(demo.grid(samples, classes, args.columns), args.out)
    written = {args.out: f"{len(samples)} mixed images and their shares"}
    if args.data is None:
        size = args.size or 224
        for name, about, picture in pictures.further(device, size, args.seed):
            path = pictures.beside(args.out, name)
            _save(picture, path)
            written[path] = about
    shown = samples[:8]
    if args.json:
        report = {
            "device": device,
            "images_per_second": round(rate, 1),
            "samples": [
                {
                    "class": classes[s.label],
                    "partner_class": classes[s.partner_label],
                    "lam": round(s.lam, 6),
                    "box": s.box,
                }
                for s in shown
            ],
            "picture": args.out,
            "pictures": [*written],
        }
        print(json.dumps(report, indent=2))
        return 0
    console.print(f"[bold]{rate:,.0f} images/s[/] decoded, cropped, flipped, mixed, normalised")
    table = Table(title="The first samples")
    for column in ("class", "partner's class", "lam", "box (y, x, h, w)"):
        table.add_column(column, justify="right" if column == "lam" else "left")
    for s in shown:
        names = (escape(demo.shown_name(classes[k])) for k in (s.label, s.partner_label))
        table.add_row(*names, f"{s.lam:.4f}", str(s.box))
    console.print(table)
    for path, about in written.items():
        console.print(f"wrote {path}: {about}", markup=False)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Writes only the picture."""
    device = _device(args)
    if args.annotations is not None:
        return _show_boxes(args, device)
    if args.masks is not None:
        return _show_masks(args, device)
    with _data(args.data) as root:
        classes, mix = _classes_and_mix(root, args)
        samples = _samples(root, mix, device, args)
    _save(demo.grid(samples, classes, args.columns), args.out)
    if args.json:
        report = [
            {
                "target": s.target.round(6).tolist(),
                "lam": round(s.lam, 6),
                "box": s.box,
                "paired": s.paired,
            }
            for s in samples
        ]
        print(json.dumps({"classes": classes, "samples": report, "picture": args.out}))
    else:
        print(f"wrote {args.out}: {len(samples)} mixed images and their shares")
        if mix.grouped:
            found = sum(s.paired for s in samples)
            kind = "the same" if mix.partner == "same" else "another"
            print(f"{found} of {len(samples)} found a partner of {kind} class")
    return 0


def _show_boxes(args: argparse.Namespace, device: Literal["gpu", "cpu"]) -> int:
    """Writes a picture of mixed images with their boxes."""
    _check_picture(args)
    if args.annotations and args.data is None:
        raise ValueError("`--data` must be the folder of the images of `--annotations`.")
    options = {"device": device, "size": args.size or 224, "batch_size": args.batch_size}
    options |= {"crop": args.crop, "seed": args.seed}
    mix = _mix(args)
    given = nullcontext() if args.annotations else pictures.shape_data()
    with given as made:
        data, annotations = (args.data, args.annotations) if made is None else made[:2]
        samples = boxes.mixed_objects(data, annotations, mix, args.images, **options)
    _save(boxes.grid(samples, args.columns), args.out)
    if args.json:
        report = [
            {
                "image_id": s.image_id,
                "partner_id": s.partner_id,
                "lam": round(s.lam, 6),
                "cut": s.cut,
                "boxes": s.boxes.round(3).tolist(),
                "classes": s.labels,
            }
            for s in samples
        ]
        print(json.dumps({"samples": report, "picture": args.out}))
    else:
        count = sum(len(s.labels) for s in samples)
        print(f"wrote {args.out}: {len(samples)} mixed images with {count} boxes")
    return 0


def _show_masks(args: argparse.Namespace, device: Literal["gpu", "cpu"]) -> int:
    """Writes a picture of mixed images with their masks."""
    _check_picture(args)
    if args.masks and args.data is None:
        raise ValueError("`--data` must be the folder of the images of `--masks`.")
    options = {"device": device, "size": args.size or 224, "batch_size": args.batch_size}
    given = nullcontext() if args.masks else pictures.shape_data()
    with given as made:
        data, folder = (args.data, args.masks) if made is None else (made.images, made.masks)
        samples = masks.mixed_masks(
            data, folder, _mix(args), args.images, seed=args.seed, **options
        )
    _save(masks.grid(samples, args.columns), args.out)
    if args.json:
        report = [sorted({*mask.ravel().tolist()}) for _, mask in samples]
        print(json.dumps({"classes": report, "picture": args.out}))
    else:
        print(f"wrote {args.out}: {len(samples)} mixed images and their masks")
    return 0


def run_recipes(args: argparse.Namespace) -> int:
    """Lists the published recipes, or prints one with the source of each number."""
    chosen = recipes.RECIPES.values() if args.name is None else [recipes.get(args.name)]
    if args.json:
        report = [_plain(recipe) for recipe in chosen]
        print(json.dumps(report if args.name is None else report[0], indent=2))
        return 0
    console = Console(highlight=False)
    if args.name is None:
        for recipe in chosen:
            console.print(f"[bold]{recipe.name}[/]  {escape(recipe.title)}", soft_wrap=True)
            console.print(f"    {escape(_summary(recipe))}", soft_wrap=True)
        console.print("\ntrain_loader(source, recipe=NAME, …) uses one;", markup=False)
        console.print("dali-cutmix recipes NAME prints one, with the source of every number.")
        return 0
    (recipe,) = chosen
    table = Table(title=escape(recipe.title), box=box.SIMPLE_HEAD)
    for column in (recipe.name, "value", "source"):
        table.add_column(column, overflow="fold")
    for field in dataclasses.fields(recipe):
        if field.name in recipe.sources:
            value = _shown(getattr(recipe, field.name))
            table.add_row(field.name, escape(value), escape(recipe.sources[field.name]))
    console.print(table)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Looks at every sample of a data set; returns 3 where some have a problem."""
    for name in ("report", "write_list"):
        if getattr(args, name) is not None:
            check_writable(f"--{name.replace('_', '-')}", getattr(args, name))
    console = Console(stderr=True, highlight=False)
    given = args.source if len(args.source) > 1 else args.source[0]
    beside = {
        "masks": args.masks,
        "mask_names": None if args.mask_names is None else tuple(args.mask_names),
        "annotations": args.annotations,
    }
    if args.targets is not None:
        source = sources.find_source(
            given, targets=args.targets, file_root=args.file_root, **beside
        )
    else:
        source = sources.unchecked_source(
            given,
            file_root=args.file_root,
            index_dir=args.index_dir,
            label_offset=args.label_offset,
            **beside,
        )
    if source.masks is not None:
        ends = {"num_classes": args.num_classes, "ignore_index": args.ignore_index}
        source = dataclasses.replace(source, masks=source.masks._replace(**ends))
    if args.write_list is not None and args.annotations is not None:
        raise ValueError("`--write-list` must be left out with `--annotations`.")
    if args.write_list is not None and source.kind not in ("folder", "list"):
        raise ValueError(f"`--write-list` must be left out for {source.kind}: it has no files.")
    speed = TextColumn("{task.fields[speed]}")
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), speed, TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("check", total=None, speed="")

        def report(done: int, total: int) -> None:
            rate = bar.tasks[0].speed or 0
            is_bytes = source.kind not in ("folder", "list")
            text = f"{rate / 1e6:,.0f} MB/s" if is_bytes else f"{rate:,.0f} files/s"
            bar.update(task, completed=done, total=total, speed=text)

        try:
            found = verification.verify(
                source,
                num_classes=args.num_classes,
                channels=args.channels,
                read_as=args.read_as,
                max_pixels=args.max_pixels,
                threads=args.threads,
                fresh=args.fresh,
                progress=report,
            )
        except KeyboardInterrupt:
            bar.stop()
            console.print("interrupted; the same command goes on from here", markup=False)
            return 130
    if args.write_list is not None:
        verification.write_list(found, args.write_list)
    if args.report is not None:
        verification.write_report(found, args.report)
    if args.json:
        print(json.dumps(verification.report(found), indent=2))
    else:
        _print_findings(found, args)
    return 3 if found.problems else 0


def _print_findings(found: verification.Verification, args: argparse.Namespace) -> None:
    console = Console(highlight=False)
    before = found.samples - found.scanned
    console.print(
        f"{found.samples:,} images of {_visible(found.source.paths[0])} ({found.source.kind}), "
        f"{found.scanned:,} looked at in {found.seconds:.1f} s, {before:,} not changed since",
        markup=False,
        soft_wrap=True,
    )
    notes = Counter(note.problem for note in found.notes)
    if notes:
        listed = ", ".join(f"{count:,} {note}" for note, count in notes.most_common())
        console.print(f"notes: {listed}", markup=False, soft_wrap=True)
        _print_names(console, [note for note in found.notes if note.problem == "not read"])
    if not found.problems:
        console.print("no problems", markup=False)
    for problem, count in found.counts.items():
        meaning = verification.PROBLEMS[problem]
        console.print(f"{count:,} {problem}: {meaning}", markup=False, soft_wrap=True)
        _print_names(console, [one for one in found.problems if one.problem == problem])
    if args.report is not None:
        console.print(f"wrote {args.report}", markup=False, soft_wrap=True)
    if args.write_list is not None:
        root = found.source.file_root
        console.print(
            f"wrote {args.write_list}: {len(found.good):,} good images; read it by "
            f"find_source({args.write_list!r}, file_root={root!r})",
            markup=False,
            soft_wrap=True,
        )


def _print_names(console: Console, findings: Sequence[verification.Finding]) -> None:
    for finding in findings[:_SHOWN]:
        detail = f": {_visible(finding.detail)}" if finding.detail else ""
        console.print(f"    {_visible(finding.name)}{detail}", markup=False, soft_wrap=True)
    if len(findings) > _SHOWN:
        console.print(f"    and {len(findings) - _SHOWN:,} more, see --report", markup=False)


def _visible(text: str) -> str:
    """Returns text without control characters and what no terminal shows."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _summary(recipe: dcm.Recipe) -> str:
    """Returns what a recipe does, in one line."""
    parts = []
    if recipe.mix is not None:
        parts += [f"mixup {recipe.mix.mixup_alpha:g}"] if recipe.mix.mixup_alpha else []
        parts += [f"cutmix {recipe.mix.cutmix_alpha:g}"] if recipe.mix.cutmix_alpha else []
        smoothing = recipe.mix.label_smoothing or recipe.loss_smoothing
        parts += [f"smoothing {smoothing:g}"] if smoothing else []
    parts += [type(policy).__name__ for policy in recipe.augment]
    parts += [f"erasing {recipe.erase.prob:g} {recipe.erase.mode}"] if recipe.erase else []
    parts += [f"partners of a second reader, {recipe.partners}"] if recipe.partners else []
    parts += [f"{recipe.repeats} repeats"] if recipe.repeats > 1 else []
    parts.append(f"{recipe.size} {recipe.interpolation}")
    return ", ".join([*parts, recipe.loss, f"{recipe.epochs} epochs"])


def _shown(value: object) -> str:
    """Returns an option as one would write it, without what is None."""
    if isinstance(value, tuple):
        listed = ", ".join(map(_shown, value))
        return listed if value and dataclasses.is_dataclass(value[0]) else f"({listed})"
    if isinstance(value, float):
        return f"{value:g}"
    if not dataclasses.is_dataclass(value):
        return str(value)
    given = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    listed = ", ".join(f"{name}={_shown(part)}" for name, part in given if part not in (None, ()))
    return f"{type(value).__name__}({listed})"


def _plain(value: object) -> object:
    """Returns dataclasses as dictionaries with their type, for JSON."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"type": type(value).__name__, **fields}


def run_index(args: argparse.Namespace) -> int:
    """Makes the index files that are missing."""
    source = args.source if len(args.source) > 1 else args.source[0]
    paths, kind = named_files(source, None)
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("index", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        made = sources.index(source, args.out, progress=report)
    if args.json:
        print(json.dumps({"made": made}))
    else:
        for path in made:
            print(path)
        console.print(_about_indexes(paths, kind, len(made)), markup=False, soft_wrap=True)
    return 0


def _about_indexes(paths: Sequence[str], kind: Kind, made: int) -> str:
    if kind not in INDEXED:
        what = "folder of classes" if kind == "folder" else "list"
        return f"nothing to do: {paths[0]} is a {what}, which needs no index"
    there = len(paths) - made
    said = f"{made} index file(s) made" if made else "nothing to do"
    return f"{said}, {there} there already, which fit" if there else said


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command and of all commands inside it."""
    parser = argparse.ArgumentParser(
        prog="dali-cutmix", description="CutMix and its family inside the graph of a DALI pipeline."
    )
    parser.add_argument("--version", action="version", version=dcm.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = {
        "demo": (
            run_demo,
            "run the training loaders on photographs and shapes, and show the result",
        ),
        "show": (run_show, "write a picture of mixed images with their label shares"),
    }
    for name, (run, text) in about.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        add = command.add_argument
        add("--data", metavar="ROOT", help="ImageFolder (default: the shipped photographs)")
        add("--out", metavar="FILE", default="mixed.png", help="picture (default: %(default)s)")
        add("--device", choices=("gpu", "cpu"), help="default: gpu where there is one, else cpu")
        add("--batch-size", metavar="N", type=int, default=32, help="default: %(default)s")
        add("--size", metavar="PIXELS", type=int, help="side (default: the recipe's, or 224)")
        add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
        add("--images", metavar="N", type=int, default=12, help="shown (default: %(default)s)")
        add("--columns", metavar="N", type=int, default=4, help="default: %(default)s")
        help_text = "maps of the images in --data, for methods that look at them"
        add("--saliency", metavar="FILE", help=help_text)
        add("--json", action="store_true", help="report as JSON on stdout")
        if name == "show":
            help_text = "of boxes, as COCO has them, of the images in --data (default: of shapes)"
            add("--annotations", metavar="FILE", nargs="?", const="", help=help_text)
            help_text = "folder with a mask for each of the images in --data (default: of shapes)"
            add("--masks", metavar="DIR", nargs="?", const="", help=help_text)
            help_text = "of images with boxes: resize or ssd (default: %(default)s)"
            add("--crop", choices=get_args(Crop), default="resize", help=help_text)
        if name == "demo":
            add("--epochs", metavar="N", type=int, default=5, help="timed (default: %(default)s)")
        _add_mix_options(command)
    text = "list the published recipes, or print one with the source of every number"
    command = commands.add_parser("recipes", help=text, description=text)
    command.set_defaults(run=run_recipes)
    command.add_argument("name", metavar="NAME", nargs="?", help="the recipe to print")
    command.add_argument("--json", action="store_true", help="print as JSON")
    text = "look at every image of a data set for damage; exit status 3 where there is some"
    command = commands.add_parser("check", help=text, description=text)
    command.set_defaults(run=run_check)
    add = command.add_argument
    help_text = "folder, list, files or patterns, as train_loader takes them"
    add("source", metavar="SOURCE", nargs="+", help=help_text)
    help_text = "of boxes in the images of a folder, as COCO has them"
    add("--annotations", metavar="FILE", help=help_text)
    add("--file-root", metavar="DIR", help="of a list (default: its folder)")
    add("--index-dir", metavar="DIR", help="of shards (default: beside them)")
    add("--label-offset", metavar="N", type=int, default=0, help="added to each label")
    add("--num-classes", metavar="N", type=int, help="labels from N on are a problem")
    help_text = "CSV or JSON file, or labels or rows in a list, as find_source takes them"
    add("--targets", metavar="FILE", help=help_text)
    add("--masks", metavar="DIR", help="folder with the mask of each image, to be looked at too")
    help_text = "how names of images and of masks end, where not only the ending differs"
    add("--mask-names", metavar=("IMAGE", "MASK"), nargs=2, help=help_text)
    help_text = "value of pixels without a class (default: %(default)s)"
    add("--ignore-index", metavar="N", type=int, default=255, help=help_text)
    help_text = "that the loaders read (default: %(default)s)"
    add("--channels", metavar="N", type=int, default=3, help=help_text)
    help_text = "what the loaders read them as (default: %(default)s)"
    add("--read-as", choices=get_args(ReadAs), default="uint8", help=help_text)
    add("--max-pixels", metavar="N", type=int, default=MAX_PIXELS, help="default: %(default)s")
    add("--threads", metavar="N", type=int, help="default: the cores")
    add("--report", metavar="FILE", help="write all findings as JSON")
    add("--write-list", metavar="FILE", help="write a list of the good images, for the loaders")
    add("--fresh", action="store_true", help="look at what has not changed, too")
    add("--json", action="store_true", help="report as JSON on stdout")
    text = "make the index files of tar shards, TFRecords or RecordIO that are missing"
    command = commands.add_parser("index", help=text, description=text)
    command.set_defaults(run=run_index)
    help_text = "folder, files or patterns, as train_loader takes them"
    command.add_argument("source", metavar="SOURCE", nargs="+", help=help_text)
    command.add_argument("--out", metavar="DIR", help="folder for them (default: beside the data)")
    command.add_argument("--json", action="store_true", help="report as JSON on stdout")
    saliency.add_parser(commands)
    volumes.add_parser(commands, check=_writable, save=_save)
    bench.add_parser(commands)
    return parser


def _add_mix_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--recipe", metavar="NAME", help="a published recipe, see recipes")
    group = command.add_argument_group("mixing, see MixConfig; overrides the recipe")
    add = group.add_argument
    help_text = f"in place of the alphas, one or several, equally likely, of {', '.join(_METHODS)}"
    add("--method", metavar="NAME", nargs="+", type=_method_name, choices=_METHODS, help=help_text)
    add("--cutmix-alpha", metavar="A", type=float, help="lam ~ Beta(A, A); 0: off (default: 1)")
    add("--mixup-alpha", metavar="A", type=float, help="likewise (default: 0)")
    add("--prob", metavar="P", type=float, help="of mixing (default: 1)")
    add("--switch-prob", metavar="P", type=float, help="of CutMix (default: 0.5)")
    add("--mode", help="elem, batch or pair (default: elem)")
    add("--minmax", metavar=("LO", "HI"), type=float, nargs=2, help="sides of the box, as shares")
    add("--box", help="paper, timm, torchvision or inside (default: paper)")
    help_text = "permutation, derangement, flip, roll, same or other (default: permutation)"
    add("--partner", help=help_text)
    add("--label-smoothing", metavar="EPS", type=float, help="default: 0")
    help_text = "label by the drawn lam"
    add("--no-correct-lam", dest="correct_lam", action="store_false", default=None, help=help_text)


def _classes_and_mix(root: str, args: argparse.Namespace) -> tuple[list[str], dcm.MixConfig]:
    _check_picture(args)
    classes = folders.class_names(root)
    return classes, dataclasses.replace(_mix(args), num_classes=len(classes))


def _check_picture(args: argparse.Namespace) -> None:
    _writable(args.out)
    for name in ("images", "columns", "epochs"):
        checked_int(f"--{name}", getattr(args, name, 1), 1, _MOST)


def _method_name(text: str) -> str:
    """Returns the name of a method that was written in small or capital letters."""
    return next((name for name in _METHODS if name.lower() == text.lower()), text)


def _mix(args: argparse.Namespace) -> dcm.MixConfig:
    """Returns how to mix, as the options and the recipe say."""
    base = None if args.recipe is None else recipes.get(args.recipe).mix
    if args.method is not None:  # with the options of a recipe's short form it would be refused
        base = dcm.MixConfig(methods=tuple(_METHODS[name]() for name in args.method))
    names = {field.name for field in dataclasses.fields(dcm.MixConfig)}
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    if "minmax" in given:
        given["minmax"] = tuple(given["minmax"])
    return dataclasses.replace(base or dcm.MixConfig(), **given)


def _samples(
    root: str, mix: dcm.MixConfig, device: Literal["gpu", "cpu"], args: argparse.Namespace
) -> list[demo.MixedSample]:
    options = {"device": device, "size": args.size, "batch_size": args.batch_size}
    options |= {"recipe": args.recipe, "seed": args.seed, "saliency": args.saliency}
    return demo.mixed_samples(root, mix, args.images, **options)


def _throughput(loader: dcm.Loader, epochs: int, console: Console) -> float:
    """Returns images per second over whole epochs, after one of warm-up."""
    images_seen, seconds = 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("batches", total=(epochs + 1) * len(loader))
        for epoch in range(epochs + 1):
            start = time.perf_counter()
            for images, _ in loader:
                progress.advance(task)
                images_seen += len(images) if epoch else 0
            if images.is_cuda:
                torch.cuda.synchronize()
            seconds += time.perf_counter() - start if epoch else 0
    return images_seen / seconds


def _device(args: argparse.Namespace) -> Literal["gpu", "cpu"]:
    device: Literal["gpu", "cpu"] = args.device or ("gpu" if torch.cuda.is_available() else "cpu")
    device_id(device)  # raises if it is not there
    return device


def _device_name(device: str) -> str:
    if device == "gpu":
        return f"gpu ({torch.cuda.get_device_name()})"
    return f"cpu ({len(os.sched_getaffinity(0))} cores)"


@contextmanager
def _data(root: str | None) -> Iterator[str]:
    with nullcontext(root) if root is not None else demo.photo_folder() as folder:
        yield folder


def _save(picture: Image.Image, path: str) -> None:
    encoded = io.BytesIO()
    form = Image.registered_extensions()[os.path.splitext(path)[1].lower()]
    try:
        picture.save(encoded, form)
    except (OSError, ValueError) as error:  # JPEG and WebP have largest sides
        raise ValueError(
            f"`--out` must be a format that holds {picture.width} x {picture.height} pixels, such "
            f"as .png, got {path!r}; or show fewer `--images`."
        ) from error
    atomic_write(path, encoded.getvalue())


def _writable(path: str) -> None:
    """Fails now rather than after the run if the picture cannot be written."""
    extension = os.path.splitext(path)[1].lower()
    if Image.registered_extensions().get(extension) not in {"PNG", "JPEG", "WEBP", "BMP", "TIFF"}:
        raise ValueError(f"`--out` must end in .png, .jpg or another picture format, got {path!r}.")
    check_writable("--out", path)
