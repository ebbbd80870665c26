"""One of several ranks that validate, with collectives in every batch."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist

import dali_cutmix as dcm


def count(root: str, batch_size: int) -> int:
    """Images of all ranks in the second epoch, each rank counting them all."""
    options = {"size": 8, "resize": 8, "num_threads": 1}
    loader = dcm.val_loader(root, batch_size=batch_size, device="cpu", **options)
    counted = 0
    for _ in range(2):
        counted = 0
        for images, labels in loader:
            # Of the same sizes on every rank, or it fails.
            gathered = [torch.empty_like(labels) for _ in range(dist.get_world_size())]
            dist.all_gather(gathered, labels)
            assert len(images) == len(labels)
            counted += int(sum((part >= 0).sum() for part in gathered))
    return counted


def main(*roots: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    for root in roots:
        for batch_size in (4, 16):
            found = count(root, batch_size)
            sys.stdout.write(f"{found} images in batches of {batch_size}\n")
            sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
