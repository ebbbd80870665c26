"""Volumes with masks, from .npy files to tensors, with mixing and without, beside MONAI's loader.

    python benchmarks/volumes.py                 # prints a table
    python benchmarks/volumes.py --json FILE     # also writes the result

All read the same files, int16 with uint8 masks, crop at random, mirror along three axes, scale by a
window and yield float32 and int64. The contestants take turns, an epoch each in every round, on as
many threads, or workers, as there are cores; the first epoch of each, with the page cache cold, is
not counted. MONAI's CutMixd mixes its batches, in the main process, by one box for the whole batch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dali_cutmix as dcm
from dali_cutmix.cli.bench.results import environment

WINDOW = (-200.0, 300.0)
PREFETCHED = 2  # batches, while the others had their turn
Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]


def write_volumes(root: Path, count: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 100, shape).astype(np.int16)
    for part in ("images", "masks"):
        (root / part).mkdir(exist_ok=True)
    for number in range(count):
        volume = np.roll(noise, number, 0)
        np.save(root / "images" / f"{number:03}.npy", volume)
        np.save(root / "masks" / f"{number:03}.npy", (volume > 150).astype(np.uint8))


def dali(root: Path, args: argparse.Namespace, mix: dcm.MixConfig | None) -> dcm.Loader:
    return dcm.volume_loader(
        root / "images",
        root / "masks",
        batch_size=args.batch_size,
        size=tuple(args.size),
        mix=mix,
        window=WINDOW,
        num_threads=args.threads,
        device=args.device,
    )


def monai(root: Path, args: argparse.Namespace, mixed: bool) -> Batches:
    """Returns MONAI's loader as its tutorials put it together, with workers that stay."""
    from monai import transforms
    from monai.data import DataLoader, Dataset

    both = ["image", "mask"]
    low, high = WINDOW
    pipeline = transforms.Compose(
        [
            transforms.LoadImaged(both, reader="NumpyReader"),
            transforms.EnsureChannelFirstd(both, channel_dim="no_channel"),
            transforms.SpatialPadd(both, spatial_size=args.size),
            transforms.RandSpatialCropd(both, roi_size=args.size, random_size=False),
            *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            transforms.ScaleIntensityRanged(["image"], low, high, 0.0, 1.0, clip=True),
            transforms.EnsureTyped(["image"], dtype=torch.float32, track_meta=False),
            transforms.EnsureTyped(["mask"], dtype=torch.int64, track_meta=False),
        ]
    )
    files = sorted((root / "images").glob("*.npy"))
    data = [{"image": str(f), "mask": str(root / "masks" / f.name)} for f in files]
    loader = DataLoader(
        Dataset(data, pipeline),
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.threads,
        persistent_workers=True,
    )

    cutmix = transforms.CutMixd(both, batch_size=args.batch_size)

    def batches() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        for batch in loader:
            if mixed:
                batch = cutmix(batch)
            yield batch["image"], batch["mask"][:, 0]

    return batches


def rate(batches: Batches) -> float:
    """Returns volumes per second of an epoch but for its first batches, which were prefetched."""
    count, start = 0, 0.0
    for number, (_, masks) in enumerate(batches(), 1):
        if number > PREFETCHED:
            count += len(masks)
        if number == PREFETCHED:
            start = time.perf_counter()
    if masks.is_cuda:
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def measure(root: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    cutmix = dcm.MixConfig(partner="derangement")
    with ExitStack() as stack:
        contestants: dict[str, Batches] = {}
        for name, mix in (("dali_cutmix", cutmix), ("dali_cutmix without mixing", None)):
            contestants[name] = stack.enter_context(dali(root, args, mix)).__iter__
        rows: dict[str, dict[str, Any]] = {name: {"values": []} for name in contestants}
        for name, mixed in (("MONAI", True), ("MONAI without mixing", False)):
            if importlib.util.find_spec("monai") is None:
                rows[name] = {"note": "absent: needs monai"}
            else:
                contestants[name] = monai(root, args, mixed)
                rows[name] = {"values": []}
        for number in range(args.rounds + 1):
            for name, batches in contestants.items():
                found = rate(batches)
                if number:
                    rows[name]["values"].append(round(found, 3))
    for row in rows.values():
        if values := row.get("values"):
            low, median, high = statistics.quantiles(values, n=4, method="inclusive")
            row |= {"median": round(median, 2), "quartiles": [round(low, 2), round(high, 2)]}
    return [{"name": name, "unit": "volumes/s", **row} for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=24, help="volumes (default: %(default)s)")
    add("--shape", type=int, nargs=3, default=(128, 192, 192), metavar=("D", "H", "W"))
    add("--size", type=int, nargs=3, default=(96, 96, 96), metavar=("D", "H", "W"))
    add("--batch-size", type=int, default=2)
    add("--rounds", type=int, default=7)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--device", choices=("gpu", "cpu"), default="gpu" if torch.cuda.is_available() else "cpu")
    add("--json", metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI
        write_volumes(Path(folder), args.count, tuple(args.shape))
        rows = measure(Path(folder), args)
    print(f"{'volumes/s':30} {'median':>8}   quartiles")
    for row in rows:
        if "median" in row:
            low, high = row["quartiles"]
            print(f"{row['name']:30} {row['median']:8.2f}   {low:.2f} to {high:.2f}")
        else:
            print(f"{row['name']:30} {row['note']}")
    if args.json:
        options = {name: value for name, value in vars(args).items() if name != "json"}
        found = {"environment": environment(), "options": options, "results": rows}
        if importlib.util.find_spec("monai") is not None:
            found["environment"]["versions"]["monai"] = metadata.version("monai")
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
