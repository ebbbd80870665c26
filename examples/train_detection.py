"""Trains torchvision's SSD on images whose boxes are mixed by CutMix, from scratch.

    python examples/train_detection.py          # shapes on photographs, on the CPU: minutes
    python examples/train_detection.py --device gpu --size 320 --epochs 300 \\
        --train train2017 instances_train2017.json --val val2017 instances_val2017.json

The detector is small, so that the first command is fast; the loop is the same for all detection
models of torchvision, which take the targets as they come. Run again, it goes on where it was
stopped, in the middle of an epoch, too. The last epochs are not mixed.
"""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

import dali_cutmix as dcm
from dali_cutmix.cli.shapes import write_shapes

STRIDES = (8, 16, 32, 64)


class Backbone(nn.Module):
    """A map of features for each of the strides."""

    out_channels = (48, 64, 96, 96)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, *self.out_channels)
        self.stages = nn.ModuleList(
            nn.Sequential(*self.block(a, b, 2), *self.block(b, b, 1)) for a, b in pairwise(widths)
        )

    @staticmethod
    def block(channels: int, out: int, stride: int) -> tuple[nn.Module, ...]:
        conv = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        return conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        maps = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= len(self.stages) - len(STRIDES):
                maps[str(number)] = x
        return maps


def detector(num_classes: int, size: int) -> SSD:
    boxes = DefaultBoxGenerator([[2]] * len(STRIDES), min_ratio=0.15, max_ratio=0.8, steps=STRIDES)
    return SSD(
        Backbone(), boxes, (size, size), num_classes,
        image_mean=[0.0] * 3, image_std=[1.0] * 3,  # the loader normalises
        score_thresh=0.05, topk_candidates=100, detections_per_img=50,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", nargs=2, metavar=("IMAGES", "ANNOTATIONS"))
    parser.add_argument("--val", nargs=2, metavar=("IMAGES", "ANNOTATIONS"))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--unmixed", type=int, default=2, metavar="EPOCHS", help="at the end")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="cpu")
    parser.add_argument("--out", default="run", metavar="DIR")
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="as an interruption would")
    args = parser.parse_args()
    device = torch.device("cuda" if args.device == "gpu" else "cpu")
    if args.train is None:
        args.train, args.val = (
            (folder, write_shapes(folder, images=count, seed=count))
            for folder, count in ((f"{args.out}/train", 480), (f"{args.out}/val", 80))
        )

    # The boxes of a mixed image: those of which more than half is left, or came along.
    train = dcm.detection_loader(
        *args.train, batch_size=args.batch_size, size=args.size, mix=dcm.MixConfig(prob=0.5),
        switchable=True, device=args.device,
    )  # fmt: skip
    val = dcm.detection_loader(
        *args.val, batch_size=args.batch_size, size=args.size, training=False, device=args.device,
        classes=train.classes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = detector(train.num_classes, args.size).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=1e-3)
    steps = args.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, steps)
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule, "loader": train}
    path, step = os.path.join(args.out, "last.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step = saved["step"]
        print(f"goes on from step {step}")
    os.makedirs(args.out, exist_ok=True)

    def save() -> None:
        state = {"step": step, **{name: part.state_dict() for name, part in parts.items()}}
        torch.save(state, path + ".new")
        os.replace(path + ".new", path)

    with train, val:
        while train.epoch < args.epochs:
            epoch = train.epoch
            train.mixing = epoch < args.epochs - args.unmixed
            model.train()
            for images, targets in train:
                loss = sum(model(images, targets).values())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                step += 1
                if step % args.save_every == 0 or step == args.stop_after:
                    save()
                if step == args.stop_after:
                    return
            save()
            value = average_precision(model, val, train.num_classes)
            print(f"epoch {epoch}: loss {loss:.3f}, mAP at an IoU of 0.5: {value:.3f}", flush=True)


@torch.no_grad()
def average_precision(model: nn.Module, val: dcm.Loader, num_classes: int) -> float:
    """Returns the mean over the classes of the area under precision over recall."""
    model.eval()
    hits: dict[int, list[tuple[float, bool]]] = {label: [] for label in range(1, num_classes)}
    there = dict.fromkeys(hits, 0)
    for images, targets in val:
        for found, target in zip(model(images), targets, strict=True):
            for label in hits:
                boxes = target["boxes"][target["labels"] == label]
                there[label] += len(boxes)
                own = found["labels"] == label  # the best ones first
                free = torch.ones(len(boxes), dtype=torch.bool)
                for box, score in zip(found["boxes"][own], found["scores"][own], strict=True):
                    overlap = box_iou(box[None], boxes)[0].cpu()
                    best = int(overlap.argmax()) if len(boxes) else 0
                    hit = len(boxes) > 0 and bool(overlap[best] >= 0.5) and bool(free[best])
                    if hit:
                        free[best] = False
                    hits[label].append((float(score), hit))
    values = []
    for label in (label for label in hits if there[label]):
        right = torch.tensor([float(hit) for _, hit in sorted(hits[label], reverse=True)] or [0.0])
        precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
        precision = precision.flip(0).cummax(0).values.flip(0)
        values.append(float(precision @ right) / there[label])
    return sum(values) / max(len(values), 1)


if __name__ == "__main__":
    main()
