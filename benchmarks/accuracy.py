"""Does mixing help? A small network on few digits, by method, with the spread over several seeds.

    python benchmarks/accuracy.py                          # minutes on a CPU
    python benchmarks/accuracy.py --seeds 5 --json FILE
    python benchmarks/accuracy.py --only none CutMix MixUp

scikit-learn's handwritten digits, of each class a few to train on and the others to test on. Every
seed has a split, a network and draws of its own, and all methods share those of a seed, so that
each is compared with no mixing pair by pair. Published as it comes out: what helps on ImageNet need
not help here, and what helps here is no proof for there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import dali_cutmix as dcm
from dali_cutmix.cli.bench.results import environment

BATCH_SIZE = 50
METHODS: dict[str, dcm.MixConfig | None] = {
    "none": None,
    "CutMix": dcm.MixConfig(),
    "MixUp": dcm.MixConfig(cutmix_alpha=0.0, mixup_alpha=0.2),
    "CutMix or MixUp": dcm.MixConfig(mixup_alpha=0.8),
    **{
        type(method).__name__: dcm.MixConfig(methods=(method,))
        for method in (
            *(dcm.ResizeMix(), dcm.Mosaic(), dcm.GridMix(holes=4), dcm.FMix(), dcm.SmoothMix()),
            *(dcm.Cutout(length=12), dcm.SaliencyMix(), dcm.AttentiveMix(cells=4, pasted=4)),
        )
    },
    "CutMix, same class": dcm.MixConfig(partner="same"),
}


class Digits(NamedTuple):
    """Images, float (N, 8, 8) in [0, 16], and classes (N,), of which `train` are trained on."""

    images: np.ndarray[Any, Any]
    classes: np.ndarray[Any, Any]
    train: np.ndarray[Any, Any]


def split(seed: int, per_class: int) -> Digits:
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    classes = data.target[order]
    train = np.zeros(len(classes), bool)
    for number in range(10):
        train[np.flatnonzero(classes == number)[:per_class]] = True
    return Digits(data.images[order], classes, train)


def write(digits: Digits, root: Path) -> None:
    """Writes the digits as an ImageFolder, train/ and val/, of 32 x 32 pixels."""
    for i, (image, number) in enumerate(zip(digits.images, digits.classes, strict=True)):
        folder = root / ("train" if digits.train[i] else "val") / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((image * 15.9).astype(np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:04}.png")


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def error(root: Path, mix: dcm.MixConfig | None, seed: int, epochs: int) -> float:
    """Returns the share of the test images that a network is wrong about, in percent."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"size": 32, "batch_size": BATCH_SIZE, "device": "cpu"}
    net = network()
    with dcm.train_loader(
        root / "train", mix=mix, hflip=0.0, area=(0.6, 1.0), seed=seed, **options
    ) as train:
        optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, epochs * len(train))
        for _ in range(epochs):
            for images, targets in train:
                loss = dcm.losses.cross_entropy(net(images), targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    net.eval()
    wrong = seen = 0
    with torch.no_grad(), dcm.val_loader(root / "val", resize=32, **options) as val:
        for images, labels in val:
            wrong += int((net(images).argmax(1) != labels).sum())
            seen += len(labels)
    return 100 * wrong / seen


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    errors: dict[str, list[float]] = {name: [] for name in args.only}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            write(split(seed, args.per_class), Path(folder))
            for name in args.only:
                errors[name].append(round(error(Path(folder), METHODS[name], seed, args.epochs), 3))
                print(f"seed {seed}  {name:20} {errors[name][-1]:6.2f} %", flush=True)
    rows = []
    for name, values in errors.items():
        row: dict[str, Any] = {"name": name, "unit": "% errors", "values": values}
        row["mean"] = round(statistics.mean(values), 3)
        if len(values) > 1:
            row["deviation"] = round(statistics.stdev(values), 3)
        if "none" in errors and name != "none":
            fewer = [a - b for a, b in zip(errors["none"], values, strict=True)]
            row["fewer_than_none"] = round(statistics.mean(fewer), 3)
            row["better_seeds"] = sum(x > 0 for x in fewer)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=3, help="default: %(default)s")
    add("--epochs", type=int, default=80, help="default: %(default)s")
    add("--per-class", type=int, default=20, help="images to train on (default: %(default)s)")
    add("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    add("--json", metavar="FILE")
    args = parser.parse_args()
    if args.per_class * 10 % BATCH_SIZE:
        parser.error(f"--per-class must be a multiple of {BATCH_SIZE // 10}, got {args.per_class}.")
    torch.use_deterministic_algorithms(True)
    rows = measure(args)
    print(f"\n{'errors on the test images':26} {'mean':>7} {'sd':>6}   fewer than none")
    for row in rows:
        line = f"{row['name']:26} {row['mean']:5.2f} % {row.get('deviation', 0.0):6.2f}"
        if "fewer_than_none" in row:
            line += f"   {row['fewer_than_none']:+.2f}, in {row['better_seeds']} of {args.seeds}"
        print(line)
    if args.json:
        options = {name: value for name, value in vars(args).items() if name != "json"}
        found = {"environment": environment(), "options": options, "results": rows}
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
