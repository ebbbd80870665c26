"""What one rank of tests/loaders/test_distributed.py does."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import dali_cutmix as dcm


def rows(targets: torch.Tensor) -> list[dict[int, float]]:
    """The classes in each target, with their shares."""
    return [{int(k): float(row[k]) for k in row.nonzero()} for row in targets]


def main(root: str, out: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found: dict[str, object] = {}
    options = {"size": 16, "batch_size": 8, "device": "cpu", "num_threads": 1}
    mix = dcm.MixConfig(cutmix_alpha=1.0, mixup_alpha=0.5)
    for name, config in (("plain", None), ("mixed", mix)):
        with dcm.train_loader(root, mix=config, seed=3, **options) as loader:
            epochs = []
            for _ in range(2):
                batches = []
                for _, targets in loader:
                    dist.all_reduce(torch.ones(1))  # waits for ever where a rank has a batch less
                    batches.append(targets.tolist() if config is None else rows(targets))
                epochs.append(batches)
            found[name] = epochs
    with dcm.val_loader(root, resize=16, **options) as loader:
        found["val"] = [label for _, labels in loader for label in labels.tolist()]
    Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
