"""How long loaders take to begin on 1,000 classes of few or many files, and how much memory.

    python benchmarks/startup.py                       # 1,000 to 1,280,000 files, a table
    python benchmarks/startup.py --files 1000 --rounds 1
    python benchmarks/startup.py --symbolic            # symbolic links instead
    python benchmarks/startup.py --json FILE           # also writes the result

The files are links to the shipped photographs, in a temporary folder, because it is the names that
are many: hard ones, which are files to who reads them, or symbolic ones. Each measurement is a
process of its own, in turn, on a tree that the file system has in memory:

    ready          seconds from the end of the imports to the first batch, construction included
    memory         peak of the process, in MB above that after the imports, when the batch is there
    state          seconds of the first state_dict, which lists the names once
    state memory   by how much it raises that peak, in MB
    second state   seconds of another one, a batch later

The peer is torchvision's ImageFolder in a DataLoader, which has no state_dict; its worker processes
are not in its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dali_cutmix as dcm
from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.cli.bench.results import environment
from dali_cutmix.data.atomic import atomic_write, check_writable

FILES = (1_000, 10_000, 100_000, 1_280_000)
CLASSES = 1_000
BATCH, SIZE, WORKERS = 64, 224, 2
LINKS = 50_000  # of a file; ext4 has at most 65,000
MEASURED = {
    "ready": "s",
    "memory": "MB",
    "state": "s",
    "state memory": "MB",
    "second state": "s",
}


def make_tree(root: Path, files: int, *, symbolic: bool = False, classes: int = CLASSES) -> None:
    """Makes an ImageFolder of links, the same number a class or one more."""
    link = os.symlink if symbolic else os.link
    photos = resources.files("dali_cutmix").joinpath("photos").iterdir()
    contents = [p.read_bytes() for p in sorted(photos, key=str) if p.name.endswith(".jpg")]
    originals = root.with_name(root.name + "-originals")
    originals.mkdir()
    for label in range(classes):
        (root / f"n{label:08d}").mkdir(parents=True)
    for i in range(files):
        original = originals / f"{i // LINKS}.jpg"
        if i % LINKS == 0:
            original.write_bytes(contents[i // LINKS % len(contents)])
        link(original, root / f"n{i % classes:08d}" / f"n{i % classes:08d}_{i // classes}.JPEG")


def ours(root: str) -> dict[str, float]:
    """Measures train_loader; the CPU's, so that no GPU is opened."""
    peak, start = _peak(), time.perf_counter()
    with dcm.train_loader(
        root,
        batch_size=BATCH,
        mix=dcm.MixConfig(),
        size=SIZE,
        device="cpu",
        num_threads=WORKERS,
    ) as loader:
        next(iter(loader))
        found = {"ready": time.perf_counter() - start, "memory": _peak() - peak}
        peak = _peak()
        found["state"] = _seconds(loader.state_dict)
        found["state memory"] = _peak() - peak
        next(loader.rest())
        found["second state"] = _seconds(loader.state_dict)
    return found


def torchvision(root: str) -> dict[str, float]:
    """Measures ImageFolder and DataLoader as torchvision's reference for training has them."""
    import_torchvision()
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(SIZE), v2.PILToTensor()])
    peak, start = _peak(), time.perf_counter()
    loader = DataLoader(
        ImageFolder(root, transform), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    next(iter(loader))
    return {"ready": time.perf_counter() - start, "memory": _peak() - peak}


CONTESTANTS: dict[str, Callable[[str], dict[str, float]]] = {
    "dali_cutmix": ours,
    "torchvision": torchvision,
}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured_apart(name: str, root: str) -> dict[str, float]:
    """Measures a contestant in a process of its own."""
    command = [sys.executable, __file__, "--here", name, root]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} has failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(files: int, rounds: int, *, symbolic: bool = False) -> list[dict[str, Any]]:
    """Returns a row a contestant, with medians and the values of the rounds."""
    folder = tempfile.mkdtemp(prefix="dali-cutmix-startup-")
    try:
        root = Path(folder, "train")
        make_tree(root, files, symbolic=symbolic)
        values: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(rounds):
            for name in CONTESTANTS:
                values[name].append(measured_apart(name, str(root)))
    finally:
        shutil.rmtree(folder)
    rows = []
    for name, found in values.items():
        links = "symbolic" if symbolic else "hard"
        row: dict[str, Any] = {"files": files, "links": links, "name": name}
        for what in found[0]:
            each = [round(one[what], 4) for one in found]
            unit = MEASURED[what]
            row[what] = {"unit": unit, "median": statistics.median(each), "values": each}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table()
    for column in ("files", "", *(f"{what}, {unit}" for what, unit in MEASURED.items())):
        shown.add_column(column, justify="right" if column else "left")
    for row in rows:
        cells = [f"{row[what]['median']:,.4g}" if what in row else "" for what in MEASURED]
        shown.add_row(f"{row['files']:,}", row["name"], *cells)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", metavar="N", type=int, nargs="+", default=FILES)
    parser.add_argument("--rounds", metavar="N", type=int, default=3)
    parser.add_argument("--symbolic", action="store_true", help="links, not hard ones")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        name, root = args.here
        print(json.dumps(CONTESTANTS[name](root)))
        return 0
    if args.json:
        check_writable("--json", args.json)
    rows = [
        row for files in args.files for row in measure(files, args.rounds, symbolic=args.symbolic)
    ]
    Console().print(table(rows))
    if args.json:
        settings = {
            "classes": CLASSES,
            "batch_size": BATCH,
            "size": SIZE,
            "workers": WORKERS,
            "rounds": args.rounds,
        }
        found = {"environment": environment(), "settings": settings, "results": rows}
        atomic_write(args.json, (json.dumps(found, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
