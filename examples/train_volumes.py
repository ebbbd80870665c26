"""Trains a small 3-D U-Net on volumes with masks, mixed by CutMix, validates, and resumes exactly.

    python examples/train_volumes.py --synthetic --device cpu      # some minutes, nothing needed
    python examples/train_volumes.py --data DATA --classes 3 --size 96 96 96 --window -200 300

    volume_loader ─ crops, masks ─ U-Net ─ cross entropy + Dice ─ AdamW
          └──────────── state of all, every --save-every steps ───┘

DATA holds train/images, train/masks, val/images and val/masks: .npy files, paired by name. (NIfTI
becomes that by `dali-cutmix volumes`.) A run that was interrupted, however hard, goes on from its
last state when the same command is given again, to the same weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import dali_cutmix as dcm


def main() -> None:
    args = parse_args()
    if args.synthetic:
        args.data = os.path.join(args.out, "data")
        make_synthetic(args.data)
    device = torch.device("cuda" if args.device == "gpu" else "cpu")
    torch.manual_seed(args.seed)
    common = {"device": args.device, "num_classes": args.classes, "window": args.window}
    common["num_threads"] = args.threads
    mix = dcm.MixConfig(prob=args.mix_prob, partner="derangement") if args.mix_prob else None
    train = dcm.volume_loader(
        *(os.path.join(args.data, "train", part) for part in ("images", "masks")),
        batch_size=args.batch_size,
        size=tuple(args.size),
        mix=mix,
        foreground=0.33,
        seed=args.seed,
        **common,
    )
    val = dcm.volume_loader(
        *(os.path.join(args.data, "val", part) for part in ("images", "masks")),
        batch_size=1,
        size=None,
        training=False,
        **common,
    )
    model = UNet(args.classes, args.width).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr)
    steps = args.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, steps)

    parts = {"model": model, "optimiser": optimiser, "schedule": schedule, "loader": train}
    path = os.path.join(args.out, "last.pt")
    run = {name: getattr(args, name) for name in ("classes", "width", "epochs", "lr", "mix_prob")}
    if os.path.exists(path):
        load_state(path, run, parts)
    with train, val:
        print(f"{len(train)} steps per epoch, from epoch {train.epoch}", flush=True)
        for epoch in range(train.epoch, args.epochs):
            start = time.perf_counter()
            model.train()
            for volumes, masks in train:
                loss = cross_entropy_and_dice(model(volumes), masks)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                if schedule.last_epoch % args.save_every == 0:
                    save_state(path, run, parts)
            seconds = time.perf_counter() - start
            text = f"epoch {epoch}: loss {loss.item():.3f}, {seconds:.1f} s"
            if (epoch + 1) % args.validate_every == 0 or epoch + 1 == args.epochs:
                listed = " ".join(f"{score:.3f}" for score in dice(model, val, args.classes))
                text += f", Dice of each class {listed}"
            print(text, flush=True)
            save_state(path, run, parts)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="DATA", help="see above")
    add("--synthetic", action="store_true", help="make volumes in OUT/data, and train on them")
    add("--out", default="run", metavar="OUT", help="where the state goes (default: %(default)s)")
    add("--classes", type=int, default=3, help="background included (default: %(default)s)")
    add("--size", type=int, nargs=3, default=(24, 32, 32), metavar=("D", "H", "W"))
    add("--window", type=float, nargs=2, default=(-200, 300), metavar=("LOW", "HIGH"))
    add("--batch-size", type=int, default=4)
    add("--epochs", type=int, default=20)
    add("--lr", type=float, default=5e-3)
    add("--width", type=int, default=8, help="channels of the first level (default: %(default)s)")
    add("--mix-prob", type=float, default=0.5, help="of CutMix; 0: none (default: %(default)s)")
    add("--validate-every", type=int, default=5, metavar="EPOCHS")
    add("--save-every", type=int, default=100, metavar="STEPS")
    add("--device", choices=("gpu", "cpu"), default="gpu")
    add("--threads", type=int, help="of DALI; default: the cores, at most 16")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if (args.data is None) != args.synthetic:
        parser.error("give --data or --synthetic")
    return args


class UNet(nn.Module):
    """A U-Net of three levels for volumes of any size (Çiçek et al. 2016)."""

    def __init__(self, classes: int, width: int, channels: int = 1) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        inputs = (channels, *widths[:-1])
        self.down = nn.ModuleList(block(i, o) for i, o in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(block(3 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for number, down in enumerate(self.down):
            x = down(F.max_pool3d(x, 2, ceil_mode=True) if number else x)
            levels.append(x)
        for up, level in zip(self.up, levels[-2::-1], strict=True):
            x = F.interpolate(x, size=level.shape[2:], mode="nearest")
            x = up(torch.cat([x, level], dim=1))
        return self.head(x)


def block(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv3d(channels, outputs, 3, padding=1, bias=False)]
        layers += [nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


def cross_entropy_and_dice(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Returns the sum of both losses, as nnU-Net has it; Dice over the batch, no background."""
    shares = logits.softmax(1).flatten(2)
    wanted = F.one_hot(masks.flatten(1), logits.shape[1]).transpose(1, 2)
    both, sums = (shares * wanted).sum((0, 2)), (shares + wanted).sum((0, 2))
    overlap = (2 * both + 1e-5) / (sums + 1e-5)
    return F.cross_entropy(logits, masks) + 1 - overlap[1:].mean()


@torch.no_grad()
def dice(model: nn.Module, val: dcm.Loader, classes: int) -> list[float]:
    """Returns the Dice of each class but the background, over all voxels of all volumes."""
    model.eval()
    both, sums = torch.zeros(classes), torch.zeros(classes)
    for volumes, masks in val:
        found = model(volumes).argmax(1)
        for label in range(classes):
            a, b = found == label, masks == label
            both[label] += (a & b).sum().cpu()
            sums[label] += (a.sum() + b.sum()).cpu()
    return (2 * both / sums.clamp(min=1))[1:].tolist()


def make_synthetic(root: str, train: int = 24, val: int = 8) -> None:
    """Writes volumes of noise, int16, with a ball (class 1) and a cube (class 2) equally bright."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in ("images", "masks"):
            os.makedirs(os.path.join(root, part, name), exist_ok=True)
        for number in range(count):
            shape = tuple(rng.integers(32, 49, 3))
            mask = np.zeros(shape, np.uint8)
            grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
            for label in (1, 2):
                radius = rng.uniform(6, 9)
                centre = np.array([rng.uniform(radius, side - radius) for side in shape])
                away = np.abs(grid - centre[:, None, None, None])
                inside = (away**2).sum(0) < radius**2
                mask[inside if label == 1 else away.max(0) < 0.75 * radius] = label
            volume = rng.normal(0, 60, shape) + 120 * (mask > 0)
            for name, array in (("images", volume.astype(np.int16)), ("masks", mask)):
                path = os.path.join(root, part, name, f"{number:03}.npy")
                if not os.path.exists(path):
                    np.save(path + ".part.npy", array)
                    os.replace(path + ".part.npy", path)


def save_state(path: str, run: dict, parts: dict) -> None:
    """Writes everything that the rest of the run depends on, at once or not at all."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "run": run}, path + ".part")
    os.replace(path + ".part", path)


def load_state(path: str, run: dict, parts: dict) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["run"] != run:
        sys.exit(f"{path} is of a run with {state['run']}, not {run}: give another --out")
    for name, part in parts.items():
        part.load_state_dict(state[name])


if __name__ == "__main__":
    main()
