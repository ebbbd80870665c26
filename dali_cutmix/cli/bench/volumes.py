"""Ways to load crops of volumes with masks, mixed by CutMix or not.

All read the same .npy files, int16 with uint8 masks, crop at random, mirror along three axes, scale
by a window and yield float32 and int64. MONAI's CutMixd mixes its batches, as the torch code here
does, by one box a batch, in the main process.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dali_cutmix.cli.bench.peers import Batch, Batches, Job, Peer, on_device, order, own_peers
from dali_cutmix.cli.bench.segmentation import random_box
from dali_cutmix.data.volumes import find_volumes
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.loaders.volumes import volume_loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["PEERS", "our_loader"]

WINDOW = (-200.0, 300.0)


def our_loader(job: Job, *, mixing: bool) -> Loader:
    """Returns this package's loader for the job."""
    return volume_loader(
        job.root,
        job.beside,
        batch_size=job.batch_size,
        size=(job.size, job.size, job.size),
        mix=MixConfig(partner="derangement") if mixing else None,
        window=WINDOW,
        device=job.device,
        num_threads=job.workers,
        seed=job.seed,
    )


def _monai(job: Job) -> Batches:
    """MONAI's loader as its tutorials put it together."""
    from monai import transforms
    from monai.data import DataLoader as MonaiLoader
    from monai.data import Dataset as MonaiDataset

    both, size = ["image", "mask"], [job.size] * 3
    low, high = WINDOW
    pipeline = transforms.Compose(
        [
            transforms.LoadImaged(both, reader="NumpyReader"),
            transforms.EnsureChannelFirstd(both, channel_dim="no_channel"),
            transforms.SpatialPadd(both, spatial_size=size),
            transforms.RandSpatialCropd(both, roi_size=size, random_size=False),
            *(transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            transforms.ScaleIntensityRanged(["image"], low, high, 0.0, 1.0, clip=True),
            transforms.EnsureTyped(["image"], dtype=torch.float32, track_meta=False),
            transforms.EnsureTyped(["mask"], dtype=torch.int64, track_meta=False),
        ]
    )
    files = [{"image": image, "mask": mask} for image, mask in _files(job)]
    loader = MonaiLoader(
        MonaiDataset(files, pipeline),
        batch_size=job.batch_size,
        sampler=order(job, len(files)),
        num_workers=job.workers,
        pin_memory=job.device == "gpu",
        drop_last=True,
    )
    yield from on_device(job, ((batch["image"], batch["mask"][:, 0]) for batch in loader))


def _monai_mixed(job: Job) -> Batches:
    from monai import transforms

    # Without label_keys MONAI 1.6 mixes nothing at all.
    cutmix = transforms.CutMixd(["image"], batch_size=job.batch_size, label_keys=["mask"])
    for images, masks in _monai(job):
        mixed = cutmix({"image": images, "mask": masks[:, None]})
        yield mixed["image"], mixed["mask"][:, 0]


def _torch(job: Job) -> Batches:
    files = _files(job)
    loader = DataLoader(
        _Crops(files, job.size),
        batch_size=job.batch_size,
        sampler=order(job, len(files)),
        num_workers=job.workers,
        collate_fn=_mixed,
        pin_memory=job.device == "gpu",
        drop_last=True,
    )
    yield from on_device(job, loader)


PEERS: tuple[Peer, ...] = (
    *own_peers(our_loader, "volume_loader, mixed inside the pipeline", "volume_loader, not mixed"),
    Peer(
        "torch, CutMix in torch",
        "DataLoader, np.load with mmap_mode, NumPy, pasted in collate_fn",
        (),
        "processes",
        _torch,
    ),
    Peer("MONAI", "its transforms and loader, CutMixd", ("monai",), "processes", _monai_mixed),
    Peer("MONAI without mixing", "its transforms and loader", ("monai",), "processes", _monai),
)


class _Crops(Dataset[Any]):
    """Random crops of volumes and their masks, of which only the crop is read."""

    def __init__(self, files: list[tuple[str, str]], side: int) -> None:
        self._files, self._side = files, side

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        volume, mask = (np.load(path, mmap_mode="r") for path in self._files[i])
        spare = [max(0, length - self._side) for length in volume.shape]
        starts = [int(torch.randint(n + 1, ())) for n in spare]
        steps = [1 - 2 * int(torch.randint(2, ())) for _ in spare]
        crop, classes = (self._cut(array, starts, steps) for array in (volume, mask))
        low, high = WINDOW
        scaled = ((crop.astype(np.float32) - low) / (high - low)).clip(0, 1)
        return torch.from_numpy(scaled)[None], torch.from_numpy(classes.astype(np.int64))

    def _cut(self, array: Any, starts: list[int], steps: list[int]) -> Any:
        part = array[tuple(slice(start, start + self._side) for start in starts)]
        missing = [self._side - length for length in part.shape]
        if any(missing):
            part = np.pad(part, [(n // 2, n - n // 2) for n in missing])
        return part[tuple(slice(None, None, step) for step in steps)]


def _files(job: Job) -> list[tuple[str, str]]:
    """Returns the paths of volumes and of their masks."""
    found = find_volumes(job.root, job.beside)
    return [(os.path.join(found.file_root, file), found.mask_of(file)) for file in found.files]


def _mixed(samples: Any) -> Batch:
    """Returns a batch with a box of the partner in each volume and mask, one box a batch."""
    volumes, masks = default_collate(samples)
    *starts, d, h, w = random_box(masks.shape[1:])
    box = tuple(slice(a, a + n) for a, n in zip(starts, (d, h, w), strict=True))
    partner = torch.randperm(len(volumes))
    for batch in (volumes, masks):
        batch[(..., *box)] = batch[partner][(..., *box)]
    return volumes, masks
