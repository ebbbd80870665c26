"""Ways to load images with the boxes of their objects, mixed by CutMix or not.

All images are resized to a square, bilinear with antialiasing, flipped and scaled to float32, and
boxes go along. This package and torchvision stretch images and normalise by ImageNet's mean and
standard deviation; Ultralytics' loader keeps the aspect ratio, fills up with gray, interpolates
without antialiasing, and only divides by 255.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dali_cutmix.cli.bench.peers import (
    MEAN,
    STD,
    Batch,
    Batches,
    Job,
    Peer,
    check_count,
    copied,
    import_torchvision,
    order,
    own_peers,
)
from dali_cutmix.cli.bench.segmentation import random_box
from dali_cutmix.data.sources import Source, find_source
from dali_cutmix.loaders.detection import detection_loader
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["PEERS", "our_loader"]


def our_loader(job: Job, *, mixing: bool) -> Loader:
    """Returns this package's loader for the job."""
    return detection_loader(
        job.root,
        job.beside,
        batch_size=job.batch_size,
        size=job.size,
        mix=MixConfig() if mixing else None,
        device=job.device,
        num_threads=job.workers,
        seed=job.seed,
    )


def _torchvision(job: Job) -> Batches:
    yield from _by_data_loader(job, mixed=False)


def _torchvision_mixed(job: Job) -> Batches:
    yield from _by_data_loader(job, mixed=True)


def _ultralytics(job: Job) -> Batches:
    yield from _by_ultralytics(job, cutmix=0.0)


def _ultralytics_mixed(job: Job) -> Batches:
    yield from _by_ultralytics(job, cutmix=1.0)


PEERS: tuple[Peer, ...] = (
    *own_peers(
        our_loader, "detection_loader, mixed inside the pipeline", "detection_loader, not mixed"
    ),
    Peer(
        "torchvision, CutMix in torch",
        "DataLoader, PIL, v2 transforms of tv_tensors, images and boxes mixed in collate_fn",
        ("torchvision",),
        "processes",
        _torchvision_mixed,
    ),
    Peer(
        "torchvision without mixing",
        "DataLoader, PIL, v2 transforms of tv_tensors",
        ("torchvision",),
        "processes",
        _torchvision,
    ),
    Peer(
        "Ultralytics",
        "its dataset and loader, CutMix with probability 1, no other augmentation than a flip",
        ("ultralytics", "torchvision"),
        "processes",
        _ultralytics_mixed,
    ),
    Peer(
        "Ultralytics without mixing",
        "the same without CutMix",
        ("ultralytics", "torchvision"),
        "processes",
        _ultralytics,
    ),
)


# torchvision


class _Objects(Dataset[Any]):
    """Images with boxes in pixels, xyxy, and labels, through transforms."""

    def __init__(self, source: Source, transform: Any) -> None:
        self._samples = _samples(source)
        self._transform = transform

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        from torchvision import tv_tensors

        path, boxes, labels = self._samples[i]
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        pixels, found = self._transform(
            image,
            tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width)),
        )
        target = {"boxes": found.as_subclass(Tensor), "labels": torch.from_numpy(labels)}
        return pixels.as_subclass(Tensor), target


def _by_data_loader(job: Job, *, mixed: bool) -> Batches:
    import_torchvision()
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.Resize((job.size, job.size), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    dataset = _Objects(find_source(job.root, annotations=job.beside), steps)
    loader = DataLoader(
        dataset,
        batch_size=job.batch_size,
        sampler=order(job, len(dataset)),
        num_workers=job.workers,
        collate_fn=_mixed if mixed else _collated,
        pin_memory=job.device == "gpu",
        drop_last=True,
    )
    device = job.torch_device
    for images, targets in loader:
        moved = [{k: v.to(device, non_blocking=True) for k, v in one.items()} for one in targets]
        yield images.to(device, non_blocking=True), moved


def _collated(samples: Any) -> Batch:
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


def _mixed(samples: Any) -> Batch:
    """Returns a batch mixed by one box; boxes stay by half of their area, as `mix_boxes` has it."""
    images, targets = _collated(samples)
    y, x, h, w = random_box(images.shape[-2:])
    partner = torch.randperm(len(images))
    images[..., y : y + h, x : x + w] = images[partner, :, y : y + h, x : x + w]
    cut = torch.tensor([x, y, x + w, y + h], dtype=torch.float32)
    mixed = []
    for own, other in ((targets[i], targets[j]) for i, j in enumerate(partner.tolist())):
        stays, comes = _inside(own["boxes"], cut) < 0.5, _inside(other["boxes"], cut) > 0.5
        pasted = other["boxes"][comes]
        clipped = torch.cat([pasted[:, :2].max(cut[:2]), pasted[:, 2:].min(cut[2:])], 1)
        boxes = torch.cat([own["boxes"][stays], clipped])
        labels = torch.cat([own["labels"][stays], other["labels"][comes]])
        mixed.append({"boxes": boxes, "labels": labels})
    return images, mixed


def _inside(boxes: Tensor, cut: Tensor) -> Tensor:
    """Returns the share of each box that is in the cut."""
    sides = (boxes[:, 2:].min(cut[2:]) - boxes[:, :2].max(cut[:2])).clamp(min=0)
    return sides.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _samples(source: Source) -> list[tuple[str, Any, Any]]:
    """Returns path, boxes float32 (n, 4), xyxy in pixels, and labels int64 (n,) of each image."""
    assert source.annotations is not None
    label = {number: k for k, number in enumerate(source.annotations.category_ids, 1)}
    content = json.loads(Path(source.annotations.path).read_text(encoding="utf-8"))
    rows: dict[int, list[list[float]]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        if not entry.get("iscrowd"):
            x, y, w, h = entry["bbox"]
            rows[entry["image_id"]].append([x, y, x + w, y + h, label[entry["category_id"]]])
    found = []
    for image in content["images"]:
        values = np.array(rows[image["id"]], np.float32).reshape(-1, 5)
        path = os.path.join(source.file_root or source.paths[0], image["file_name"])
        found.append((path, values[:, :4], values[:, 4].astype(np.int64)))
    return found


# Ultralytics


def _by_ultralytics(job: Job, *, cutmix: float) -> Batches:
    """Ultralytics' training set and loader, whose workers stay over epochs."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())  # it writes there
    os.environ.setdefault("YOLO_OFFLINE", "1")
    import_torchvision()
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_dataloader, build_yolo_dataset

    source = find_source(job.root, annotations=job.beside)
    samples = _samples(source)
    check_count(job, len(samples))

    def write(folder: Path) -> None:
        for name in ("images", "labels"):
            (folder / name).mkdir()
        for i, (path, boxes, labels) in enumerate(samples):
            (folder / "images" / f"{i:07d}{Path(path).suffix}").symlink_to(os.path.abspath(path))
            with Image.open(path) as image:
                sides = np.array([image.width, image.height])
            centres, spans = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            rows = np.concatenate([labels[:, None] - 1, centres / sides, spans / sides], 1)
            np.savetxt(folder / "labels" / f"{i:07d}.txt", rows, "%.9g")

    folder = copied([path for path, *_ in samples], "yolo", write)
    off = ("mosaic", "mixup", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "copy_paste")
    overrides = dict.fromkeys(off, 0.0)
    settings = get_cfg(overrides={**overrides, "imgsz": job.size, "cutmix": cutmix})
    names = dict(enumerate((source.classes or ())[1:]))
    data = {"names": names, "nc": len(names), "channels": 3}
    dataset = build_yolo_dataset(settings, str(folder / "images"), job.batch_size, data)
    loader = build_dataloader(
        dataset, job.batch_size, job.workers, drop_last=True, device=job.torch_device
    )
    device = job.torch_device
    while True:
        for batch in loader:  # its trainer moves and scales it so
            yield batch["img"].to(device, non_blocking=True).float() / 255, batch
