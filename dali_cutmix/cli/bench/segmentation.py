"""Ways to load images with masks, crops of both, mixed by CutMix or not.

Everyone does the same work: random resized crop (images bilinear with antialiasing, masks to
nearest pixels), flip, ImageNet's mean and standard deviation, float32 and int64. torchvision's
CutMix takes no masks: here plain torch pastes both.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dali_cutmix.cli.bench.peers import (
    MEAN,
    STD,
    Batch,
    Batches,
    Job,
    Peer,
    import_torchvision,
    on_device,
    order,
    own_peers,
)
from dali_cutmix.data.masks import mask_path
from dali_cutmix.data.sources import find_source
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.loaders.segmentation import segmentation_loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["PEERS", "our_loader", "random_box"]

AREA, RATIO = (0.25, 1.0), (3 / 4, 4 / 3)


def our_loader(job: Job, *, mixing: bool) -> Loader:
    """Returns this package's loader for the job."""
    return segmentation_loader(
        job.root,
        job.beside,
        batch_size=job.batch_size,
        size=job.size,
        area=AREA,
        ratio=RATIO,
        mix=MixConfig() if mixing else None,
        device=job.device,
        num_threads=job.workers,
        seed=job.seed,
    )


def _torchvision(job: Job) -> Batches:
    yield from _by_data_loader(job, mixed=False)


def _torchvision_mixed(job: Job) -> Batches:
    yield from _by_data_loader(job, mixed=True)


PEERS: tuple[Peer, ...] = (
    *own_peers(
        our_loader,
        "segmentation_loader, mixed inside the pipeline",
        "segmentation_loader, not mixed",
    ),
    Peer(
        "torchvision, CutMix in torch",
        "DataLoader, PIL, v2 transforms of tv_tensors, pasted in collate_fn",
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
)


class _Pairs(Dataset[Any]):
    """Images and masks, as torchvision's reference for segmentation reads them."""

    def __init__(self, files: list[tuple[str, str]], transform: Any) -> None:
        self._files, self._transform = files, transform

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        from torchvision import tv_tensors

        image, mask = self._files[i]
        with Image.open(image) as opened, Image.open(mask) as classes:
            pixels, values = self._transform(
                opened.convert("RGB"), tv_tensors.Mask(np.array(classes, np.uint8))
            )
        return pixels.as_subclass(Tensor), values.as_subclass(Tensor)


def _by_data_loader(job: Job, *, mixed: bool) -> Batches:
    import_torchvision()
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    types = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}
    steps = v2.Compose(
        [
            v2.RandomResizedCrop(job.size, scale=AREA, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(types, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    files = _files(job)
    loader = DataLoader(
        _Pairs(files, steps),
        batch_size=job.batch_size,
        sampler=order(job, len(files)),
        num_workers=job.workers,
        collate_fn=_mixed if mixed else default_collate,
        pin_memory=job.device == "gpu",
        drop_last=True,
    )
    yield from on_device(job, loader)


def _files(job: Job) -> list[tuple[str, str]]:
    """Returns the paths of images and of their masks."""
    source = find_source(job.root, masks=job.beside)
    assert source.masks is not None
    root = source.file_root or source.paths[0]
    return [
        (os.path.join(root, file), mask_path(source.masks, file, rule))
        for file, rule in zip(source.files, source.labels, strict=True)
    ]


def _mixed(samples: Any) -> Batch:
    """Returns a batch with a box of the partner in each image and mask, one box a batch."""
    images, masks = default_collate(samples)
    y, x, h, w = random_box(images.shape[-2:])
    partner = torch.randperm(len(images))
    for batch in (images, masks):
        batch[..., y : y + h, x : x + w] = batch[partner, ..., y : y + h, x : x + w]
    return images, masks


def random_box(shape: torch.Size) -> tuple[int, ...]:
    """Returns (start of each axis, side of each axis) of a box, as CutMix's paper draws it."""
    side = (1 - torch.rand(()).item()) ** 0.5  # lam is uniform
    starts, sides = [], []
    for length in shape:
        half, centre = int(length * side) // 2, int(torch.randint(length, ()))
        starts.append(max(centre - half, 0))
        sides.append(min(centre + half, length) - starts[-1])
    return (*starts, *sides)
