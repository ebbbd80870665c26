"""Train a small U-Net on images with masks, mixed by CutMix.

    python examples/train_segmentation.py --images IMAGES --masks MASKS \
        --val-images IMAGES --val-masks MASKS --num-classes 21 --device gpu

Masks are gray images with a class per pixel, 255 where there is none. Run again, it goes on where
it was stopped, in the middle of an epoch, too.
"""

from __future__ import annotations

import argparse
import os

import torch
from torch import nn

import dali_cutmix as dcm


class UNet(nn.Module):
    """Ronneberger et al. 2015, with batch norm, and as many levels as there are widths."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            block(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for level, layers in enumerate(self.down):
            x = layers(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for layers, skip in zip(self.up, kept[-2::-1], strict=True):
            x = nn.functional.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = layers(torch.cat([x, skip], dim=1))
        return self.head(x)


def block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def mean_dice(model: nn.Module, loader: dcm.Loader, num_classes: int) -> float:
    """Returns the Dice coefficient of all validation pixels, the mean over classes that occur."""
    pairs = torch.zeros(num_classes, num_classes)
    model.eval()
    with torch.no_grad():
        for images, masks in loader:
            found, known = model(images).argmax(1).cpu(), masks.cpu()
            at = known != 255
            index = known[at] * num_classes + found[at]
            pairs += torch.bincount(index, minlength=num_classes**2).view_as(pairs)
    sizes = pairs.sum(0) + pairs.sum(1)
    return float((2 * pairs.diag() / sizes)[sizes > 0].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "masks", "val-images", "val-masks"):
        parser.add_argument(f"--{name}", required=True, metavar="DIR")
    parser.add_argument("--num-classes", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--no-mix", action="store_true")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--out", default="run", metavar="DIR")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="as an interruption would")
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if args.device == "gpu" else "cpu"
    options = {"batch_size": args.batch_size, "size": args.size, "device": args.device}
    options["num_classes"] = args.num_classes
    mix = None if args.no_mix else dcm.MixConfig(prob=0.5)
    train = dcm.segmentation_loader(args.images, args.masks, mix=mix, **options)
    val = dcm.segmentation_loader(args.val_images, args.val_masks, training=False, **options)

    model = UNet(args.num_classes).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), args.lr)
    steps = args.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, steps)
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule, "loader": train}
    path = os.path.join(args.out, "last.pt")
    os.makedirs(args.out, exist_ok=True)
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])

    def save() -> None:
        torch.save({name: part.state_dict() for name, part in parts.items()}, f"{path}.new")
        os.replace(f"{path}.new", path)

    step = schedule.last_epoch
    with train, val:
        while train.epoch < args.epochs:
            model.train()
            epoch = train.epoch
            for images, masks in train:
                loss = nn.functional.cross_entropy(model(images), masks, ignore_index=255)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                step += 1
                if step == args.stop_after:
                    save()
                    return
            save()
            dice = mean_dice(model, val, args.num_classes)
            print(f"epoch {epoch}: loss {loss.item():.3f}, Dice {dice:.3f}", flush=True)


if __name__ == "__main__":
    main()
