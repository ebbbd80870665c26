"""Damaged JPEGs of every kind: through Pillow, through `check`, through DALI, through a loader.

    python benchmarks/fuzz.py --json benchmarks/results/cpu/fuzz.json

Exit status 1 where a file that Pillow rejects, or DALI does not decode, has no problem by `check`,
or where a process crashes or hangs. Also counts how often damage of one size is found.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import nvidia.dali
from nvidia.dali import fn, pipeline_def
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import dali_cutmix as dcm  # noqa: E402
from dali_cutmix.cli import demo  # noqa: E402
from dali_cutmix.data import damage  # noqa: E402
from dali_cutmix.pipelines import imagenet  # noqa: E402
from tests.support import damaged  # noqa: E402

CHUNK = 200  # files that one process decodes


@pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
def one_file(path: str) -> Any:
    return imagenet.decode(fn.readers.file(files=[path])[0], "cpu")


def decoded_by_dali(paths: list[str]) -> list[bool]:
    """Which of the files DALI decodes, each in a pipeline of its own."""
    good = []
    for path in paths:
        try:
            one_file(path).run()
            good.append(True)
        except Exception:  # it raises many types
            good.append(False)
    return good


def in_processes(paths: list[str]) -> tuple[list[bool], int]:
    """The same, and how many processes crashed or hung; their files count as decoded."""
    good, lost = [], 0
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        command = [sys.executable, __file__, "--worker", *chunk]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            good += json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError):
            lost += 1
            good += [True] * len(chunk)
    return good, lost


def rejected_by_pillow(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:  # it raises many types
        return True
    return False


def fuzz(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root:
        paths, kinds, problems, rejected = [], [], [], []
        for number, (kind, data) in enumerate(damaged.corpus(count)):
            folder = Path(root, str(number % 2))
            folder.mkdir(exist_ok=True)
            paths.append(str(folder / f"{number:05d}.jpg"))
            Path(paths[-1]).write_bytes(data)
            kinds.append(kind)
            problems.append(damage.verify_image(data).problem)
            rejected.append(rejected_by_pillow(data))
        by_dali, lost = in_processes(paths)
        os.environ["XDG_CACHE_HOME"] = f"{root}.cache"
        options: dict[str, Any] = {"batch_size": 1, "size": 32, "device": "cpu"}
        loaded = []
        for make in (dcm.train_loader, dcm.val_loader):
            with make(root, on_error="skip", **options) as loader:
                loaded.append(sum(len(labels) for _, labels in loader))
    whole = [problem is None for problem in problems]
    found = Counter(kind for kind, good in zip(kinds, whole, strict=True) if not good)
    return {
        "files": count,
        "problem by check": whole.count(False),
        "rejected by Pillow": sum(rejected),
        "not decoded by DALI": by_dali.count(False),
        "rejected by Pillow, decoded by DALI": sum(map(all, zip(rejected, by_dali, strict=True))),
        "rejected by Pillow, no problem by check": sum(map(all, zip(rejected, whole, strict=True))),
        "not decoded by DALI, no problem by check": sum(
            good and not decoded for good, decoded in zip(whole, by_dali, strict=True)
        ),
        "processes crashed or hung": lost,
        "through the loaders with on_error=skip": loaded,
        "problem by check, by kind": {
            kind: f"{found[kind]} of {kinds.count(kind)}" for kind in damaged.KINDS
        },
    }


def detection(count: int) -> dict[str, float]:
    """How often overwritten bytes in the middle of a photograph are found."""
    rng = random.Random(0)
    with demo.photo_folder(4) as root:
        photos = [path.read_bytes() for path in sorted(Path(root).rglob("*.jpg"))]

    def fraction_found(change: Any) -> float:
        hits = 0
        for _ in range(count):
            data = bytearray(rng.choice(photos))
            offset = rng.randrange(700, len(data) - 5000)
            change(data, offset)
            hits += damage.verify_image(bytes(data)).problem is not None
        return round(hits / count, 3)

    def bit(data: bytearray, offset: int) -> None:
        data[offset] ^= 1 << rng.randrange(8)

    def noise(data: bytearray, offset: int) -> None:
        data[offset : offset + 40] = rng.randbytes(40)

    def zeros(data: bytearray, offset: int) -> None:
        data[offset : offset + 40] = bytes(40)

    def block(data: bytearray, offset: int) -> None:
        start = offset // 4096 * 4096 or 4096
        data[start : start + 4096] = bytes(len(data[start : start + 4096]))

    return {
        "one bit": fraction_found(bit),
        "40 random bytes": fraction_found(noise),
        "40 zeros": fraction_found(zeros),
        "a zeroed block of 4096 bytes": fraction_found(block),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2800, help="files (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(decoded_by_dali(args.worker)))
        return 0
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fuzz(args.count)
        fractions = detection(max(20, args.count // 4))
    seconds = round(time.monotonic() - start, 1)
    table = Table("", "files", title="Damaged JPEGs")
    for name, value in [*result.items(), *fractions.items()]:
        if isinstance(value, dict):
            for kind, text in value.items():
                table.add_row(f"    {kind}", text)
        else:
            table.add_row(name, str(value))
    Console().print(table)
    if args.json:
        versions = {name: metadata.version(name) for name in ("pillow", "simplejpeg")}
        versions["nvidia-dali"] = nvidia.dali.__version__
        environment = {
            "commit": subprocess.run(
                ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
            ).stdout.strip(),
            **versions,
            "python": platform.python_version(),
            "seconds": seconds,
        }
        report = {"environment": environment, "fuzz": result, "found": fractions}
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    wrong = ("rejected by Pillow, no problem by check", "not decoded by DALI, no problem by check")
    return int(any(result[name] for name in (*wrong, "processes crashed or hung")))


if __name__ == "__main__":
    sys.exit(main())
