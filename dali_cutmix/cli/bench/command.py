"""The command ``dali-cutmix bench``."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dali_cutmix._validation import checked_int, checked_number
from dali_cutmix.cli.bench import data, loaders, mixing, profile, report, training
from dali_cutmix.cli.bench.contests import CONTESTS
from dali_cutmix.cli.bench.peers import PEERS, Job, Peer, our_loader
from dali_cutmix.cli.bench.results import Result
from dali_cutmix.data.atomic import check_writable
from dali_cutmix.data.sources import Source, find_source
from dali_cutmix.loaders._arguments import device_id
from dali_cutmix.loaders.classification import train_loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["add_parser", "with_kind"]

KINDS = {
    "profile": "stages and settings of this loader on your data: what to change (the default)",
    "mix": "mixing alone, in the graph and in torch",
    "loader": "whole loaders side by side, on the same files",
    "train": "training steps with loaders, against synthetic data",
    **{kind: contest.about for kind, contest in CONTESTS.items()},
}
_CLASSES = 1000  # ImageNet's, whatever the images
_BATCH = {"gpu": 256, "cpu": 64}


def with_kind(argv: list[str]) -> list[str]:
    """Returns the arguments with ``profile`` after ``bench`` where no kind is said."""
    if argv[:1] == ["bench"] and (len(argv) == 1 or argv[1].startswith("-")):
        if not {"-h", "--help"} & set(argv[1:2]):
            return ["bench", "profile", *argv[1:]]
    return argv


def add_parser(commands: Any) -> None:
    """Adds the command and its kinds."""
    text = "measure an input pipeline: where it loses time, what mixing costs, what others reach"
    bench = commands.add_parser("bench", help=text, description=text)
    kinds = bench.add_subparsers(required=True, metavar="KIND")
    for kind, about in KINDS.items():
        parser = kinds.add_parser(kind, help=about, description=about)
        parser.set_defaults(run=run, kind=kind)
        _common(parser, kind)
        if kind == "profile":
            _sweeps(parser)
        if kind not in ("profile", "mix"):
            names = ", ".join(repr(peer.name) for peer in _peers(kind))
            parser.add_argument("--only", metavar="NAME", nargs="+", help=f"of {names}")
        if kind == "train":
            add = parser.add_argument
            add("--model", choices=training.MODELS, help="default: resnet50, on a CPU tiny")


def _peers(kind: str) -> Sequence[Peer]:
    return CONTESTS[kind].peers if kind in CONTESTS else PEERS


def _common(parser: argparse.ArgumentParser, kind: str) -> None:
    add, contest = parser.add_argument, CONTESTS.get(kind)
    if contest is not None:
        add("--data", metavar="DIR", help="images or volumes (default: generated)")
        help_text = "of the data: COCO's file" if kind == "detection" else "of the data: a folder"
        add(f"--{contest.beside}", metavar="PATH", help=help_text)
    elif kind != "mix":
        text = "ImageFolder" if kind != "profile" else "folder, list or shards, as train_loader"
        add("--data", metavar="SOURCE", help=f"{text} (default: generated images)")
    if kind != "mix":
        count = 2000 if contest is None else contest.count
        add("--images", metavar="N", type=int, help=f"to generate (default: {count})")
    if kind != "profile":
        gpu, cpu = (_BATCH["gpu"], _BATCH["cpu"]) if contest is None else contest.batch_size
        add("--batch-size", metavar="N", type=int, help=f"default: {gpu}, on a CPU {cpu}")
        add("--threads", metavar="N", type=int, help="and workers (default: the cores, at most 16)")
        add("--device", choices=("gpu", "cpu"), help="default: gpu where there is one")
    size = 224 if contest is None else contest.size
    add("--size", metavar="PIXELS", type=int, default=size, help="side (default: %(default)s)")
    if contest is None:
        text = f"default: {_CLASSES}" + ("" if kind == "mix" else ", or those of a folder or list")
        add("--num-classes", metavar="K", type=int, help=text)
    add("--rounds", metavar="N", type=int, help="measurements of each, in turn (default: 5)")
    if kind == "mix":
        add("--batches", metavar="N", type=int, help="a measurement (default: 20)")
    else:
        add("--seconds", metavar="S", type=float, help="a measurement (default: 2)")
    add("--quick", action="store_true", help="a look in seconds, not a measurement")
    file = f"bench-{kind}.json"
    add("--out", metavar="FILE", default=file, help="result as JSON (default: %(default)s)")
    add("--plot", metavar="FILE", help="also draw it; needs matplotlib")
    add("--json", action="store_true", help="print the result as JSON")


def _sweeps(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "settings", "of several values the first is the base, and each is tried alone"
    )
    add = group.add_argument
    add("--batch-size", metavar="N", type=int, nargs="+")
    add("--threads", metavar="N", type=int, nargs="+", help="of DALI")
    add("--prefetch", metavar="N", type=int, nargs="+", help="batches prepared ahead")
    add("--hw-decoder-load", metavar="SHARE", type=float, nargs="+", help="GPU only")
    add("--dtype", choices=("float32", "float16"), nargs="+")
    add("--layout", choices=("NCHW", "NHWC"), nargs="+")
    add("--device", choices=("gpu", "cpu"), nargs="+", help="default: both, where there is a GPU")
    parser.add_argument("--recipe", metavar="NAME", help="a published recipe, see recipes")


def run(args: argparse.Namespace) -> int:
    """Runs a benchmark; returns 130 where it was interrupted, with what there was written."""
    console = Console(stderr=True, highlight=False)
    check_writable("--out", args.out)
    if args.plot is not None:
        report.check_plot(args.plot)
        check_writable("--plot", args.plot)
    _fill_in(args)
    warnings.filterwarnings("ignore", message="Mixing in a batch of")  # that is not asked here
    interrupted = False
    result, steps, measure = _prepared(args, console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("measurements", total=steps)
        try:
            measure(lambda: bar.advance(task))
            result.complete = True
        except KeyboardInterrupt:
            interrupted = True
    found = result.as_json()
    result.write(args.out)
    if args.plot is not None:
        report.plot(found, args.plot)
    _show(found, args)
    if interrupted:
        console.print("interrupted", markup=False)
    return 130 if interrupted else 0


def _fill_in(args: argparse.Namespace) -> None:
    quick, contest = args.quick, CONTESTS.get(args.kind)
    count = 2000 if contest is None else contest.count
    defaults = {
        "rounds": 1 if quick else 5,
        "seconds": 0.1 if quick else 2.0,
        "batches": 2 if quick else 20,
        "images": min(40, count) if quick else count,
    }
    for name, value in defaults.items():
        if getattr(args, name, 0) is None:
            setattr(args, name, value)
    for name in ("rounds", "batches", "images", "size", "num_classes"):
        if getattr(args, name, None) is not None:
            checked_int(name, getattr(args, name), 1)
    if hasattr(args, "seconds") and not 0 < checked_number("seconds", args.seconds) < 3600:
        raise ValueError(f"`seconds` must be above 0 and below 3600, got {args.seconds}.")


def _prepared(
    args: argparse.Namespace, console: Console
) -> tuple[Result, int, Callable[[Callable[[], None]], None]]:
    """Returns the result, the number of measurements, and what makes them."""
    timing = {"rounds": args.rounds}
    settings: dict[str, Any] = {"quick": args.quick, **timing}
    settings["seconds" if hasattr(args, "seconds") else "batches"] = getattr(
        args, "seconds", getattr(args, "batches", None)
    )
    if args.kind == "profile":
        return _profile(args, settings, console)
    device = args.device or _devices()[0]
    device_id(device)  # raises if it is not there
    threads = args.threads or _threads()
    batch_size = checked_int("batch_size", args.batch_size or _usual_batch(args, device), 2)
    checked_int("threads", threads, 1, 1024)
    settings |= {"device": device, "batch_size": batch_size, "threads": threads}
    settings["size"] = args.size
    if args.kind == "mix":
        settings["num_classes"] = args.num_classes = args.num_classes or _CLASSES
        work = mixing.Work(batch_size, args.size, args.num_classes, threads, device)
        result = Result("mix", settings)
        steps = args.rounds * len(mixing.row_names())
        return (
            result,
            steps,
            lambda advance: mixing.run(
                work, rounds=args.rounds, batches=args.batches, result=result, advance=advance
            ),
        )
    known = [peer.name for peer in _peers(args.kind)]
    for name in args.only or ():
        if name not in known:
            raise ValueError(f"`--only` must be among {', '.join(known)}, got {name!r}.")
    if args.kind in CONTESTS:
        return _contest(args, settings, console)
    root = _data(args, settings, console)
    settings["num_classes"] = _class_count(args, find_source(root))
    job = Job(root, batch_size, args.size, threads, device, settings["num_classes"])
    # What is wrong with the data is an error before anything is measured.
    our_loader(job, mixing=True).close()
    options: dict[str, Any] = {**timing, "seconds": args.seconds, "names": args.only}
    if args.kind == "loader":
        result = Result("loader", settings)
        steps = args.rounds * len(loaders.chosen(PEERS, args.only))
        return (
            result,
            steps,
            lambda advance: loaders.run(
                job, peers=PEERS, **options, result=result, advance=advance
            ),
        )
    settings["model"] = args.model or ("resnet50" if device == "gpu" else "tiny")
    result = Result("train", settings)
    steps = args.rounds * (1 + len(training.entered(args.only)))
    return (
        result,
        steps,
        lambda advance: training.run(
            job, model=settings["model"], **options, result=result, advance=advance
        ),
    )


def _usual_batch(args: argparse.Namespace, device: str) -> int:
    contest = CONTESTS.get(args.kind)
    gpu, cpu = (_BATCH["gpu"], _BATCH["cpu"]) if contest is None else contest.batch_size
    usual = gpu if device == "gpu" else cpu
    return min(8, usual) if args.quick else usual


def _contest(
    args: argparse.Namespace, settings: dict[str, Any], console: Console
) -> tuple[Result, int, Callable[[Callable[[], None]], None]]:
    """Returns what `_prepared` does, for loaders of boxes, masks or volumes."""
    contest = CONTESTS[args.kind]
    root, beside = args.data, getattr(args, contest.beside)
    if (root is None) != (beside is None):
        raise ValueError(
            f"`--data` and `--{contest.beside}` must be given together, got {root!r} and "
            f"{beside!r}."
        )
    settings["data"] = "given"
    if root is None:
        settings["data"] = f"{args.images} generated {contest.unit.removesuffix('/s')}"
        with _generating(args.images, console) as advance:
            root, beside = contest.generate(args.images, args.size, advance)
    job = Job(
        root,
        settings["batch_size"],
        args.size,
        settings["threads"],
        settings["device"],
        num_classes=1,
        beside=beside,
    )
    # What is wrong with the data is an error before anything is measured.
    contest.check(job)
    result = Result(args.kind, settings)
    return (
        result,
        args.rounds * len(loaders.chosen(contest.peers, args.only)),
        lambda advance: loaders.run(
            job,
            peers=contest.peers,
            group=args.kind,
            unit=contest.unit,
            rounds=args.rounds,
            seconds=args.seconds,
            names=args.only,
            result=result,
            advance=advance,
        ),
    )


def _profile(
    args: argparse.Namespace, settings: dict[str, Any], console: Console
) -> tuple[Result, int, Callable[[Callable[[], None]], None]]:
    source = find_source(_data(args, settings, console))
    num_classes = _class_count(args, source)
    devices = args.device or _devices()
    for device in devices:
        device_id(device)
    options: dict[str, Any] = {
        "source": source,
        "batch_size": args.batch_size[0] if args.batch_size else _fitting(source, devices[0], args),
        "recipe": args.recipe,
        "size": args.size,
        "device": devices[0],
        "num_threads": args.threads[0] if args.threads else _threads(),
        "prefetch_queue_depth": args.prefetch[0] if args.prefetch else 2,
        "hw_decoder_load": args.hw_decoder_load[0] if args.hw_decoder_load else 0.65,
        "dtype": args.dtype[0] if args.dtype else "float32",
        "layout": args.layout[0] if args.layout else "NCHW",
    }
    if args.recipe is None:
        options["mix"] = MixConfig(num_classes=num_classes)
    else:
        options["num_classes"] = num_classes
    sweep = _sweep(args, options, devices)
    for name, values in sweep.items():  # impossible values are errors before anything is measured
        for value in values:
            with train_loader(**{**options, name: value}):
                pass
    stages = profile.stage_names(options)
    shown = {**options, "source": "DATA" if args.data is None else args.data}
    settings |= {"base": profile.as_plain(shown), "num_classes": num_classes}
    result = Result("profile", settings)
    return (
        result,
        profile.steps(sweep, len(stages), args.rounds),
        lambda advance: profile.run(
            options, sweep, rounds=args.rounds, seconds=args.seconds, result=result, advance=advance
        ),
    )


def _sweep(
    args: argparse.Namespace, options: dict[str, Any], devices: Sequence[str]
) -> dict[str, list[Any]]:
    """Returns the values to try by argument of train_loader, those given or some around the base.

    What is not given is not tried with ``--quick``; and what has one value is not compared.
    """
    base, cores = options["batch_size"], _threads()
    automatic: dict[str, Sequence[Any]] = {
        "num_threads": sorted({1, max(1, cores // 2), cores, min(16, 2 * cores)}),
        "prefetch_queue_depth": [1, 2, 3],
        "hw_decoder_load": [0.0, 0.4, 0.65, 0.9] if devices[0] == "gpu" else [],
        "batch_size": sorted({max(2, base // 4), max(2, base // 2), base}),
        "dtype": ["float32", "float16"],
        "layout": ["NCHW", "NHWC"],
        "device": devices,
    }
    given = {
        "num_threads": args.threads,
        "prefetch_queue_depth": args.prefetch,
        "hw_decoder_load": args.hw_decoder_load,
        "batch_size": args.batch_size,
        "dtype": args.dtype,
        "layout": args.layout,
        "device": args.device,
    }
    if args.quick:
        automatic = {name: [] for name in automatic} | {"num_threads": sorted({1, cores})}
    chosen = {name: given[name] or values for name, values in automatic.items()}
    return {
        name: list(dict.fromkeys([options[name], *values]))
        for name, values in chosen.items()
        if len(set(values)) > 1
    }


def _fitting(source: Source, device: str, args: argparse.Namespace) -> int:
    """Returns the usual batch size, or half of it as often as the data are too few."""
    batch_size = 8 if args.quick else _BATCH[device]
    while batch_size > 2:
        try:
            options: dict[str, Any] = {"num_threads": 1, "mix": None, "size": 8, "device": "cpu"}
            with train_loader(source, batch_size=batch_size, **options):
                return batch_size
        except ValueError as error:
            if "batch_size" not in str(error):
                raise
            batch_size //= 2
    return batch_size


def _class_count(args: argparse.Namespace, source: Source) -> int:
    """Returns the classes asked for, or else those of the user's data, where they tell."""
    own = source.num_classes if args.data is not None else None
    return int(args.num_classes or own or _CLASSES)


def _data(args: argparse.Namespace, settings: dict[str, Any], console: Console) -> str:
    if args.data is not None:
        settings["data"] = "given"
        return str(args.data)
    settings["data"] = f"{args.images} generated images"
    with _generating(args.images, console) as advance:
        return data.generated(args.images, advance)


@contextmanager
def _generating(count: int, console: Console) -> Iterator[Callable[[], None]]:
    """Gives what is called after each sample; mostly there is nothing to generate."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("generate data, once", total=count)
        yield lambda: bar.advance(task)


def _show(found: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(found, indent=1))
        return
    console = Console(highlight=False)
    for table in report.tables(found):
        console.print(table)
    for line in report.summary(found):
        console.print(line, markup=False, soft_wrap=True)
    written = [args.out] if args.plot is None else [args.out, args.plot]
    console.print(f"wrote {' and '.join(written)}", markup=False, soft_wrap=True)


def _devices() -> list[Literal["gpu", "cpu"]]:
    return ["gpu", "cpu"] if torch.cuda.is_available() else ["cpu"]


def _threads() -> int:
    return min(16, len(os.sched_getaffinity(0)))
