"""One of several ranks that validate, with collectives in every batch; torchrun starts it."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist

import dali_cutmix as dcm


def main(root: str, batch_size: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    options = {"batch_size": int(batch_size), "size": 8, "resize": 8, "num_threads": 1}
    loader = dcm.val_loader(root, device="cpu", **options)
    count = torch.zeros((), dtype=torch.int64)
    for _ in range(2):
        count.zero_()
        for images, labels in loader:
            # Of the same sizes on every rank, or it fails.
            gathered = [torch.empty_like(labels) for _ in range(dist.get_world_size())]
            dist.all_gather(gathered, labels)
            assert len(images) == len(labels)
            count += sum((part >= 0).sum() for part in gathered)
    sys.stdout.write(f"{int(count)} images\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
