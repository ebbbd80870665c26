"""What trainers ask a torch DataLoader for: its data set, its sampler, and torch.distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from dali_cutmix.loaders._reader import Counts
    from dali_cutmix.loaders.loader import Loader

__all__ = ["Dataset", "Sampler", "joined_a_group"]


class Dataset:
    """A data set of so many images, of all shards, none of which it gives.

    Attributes:
        classes, class_to_idx: as those of the loader.
    """

    def __init__(
        self, images: int, classes: tuple[str, ...] | None, class_to_idx: dict[str, int] | None
    ) -> None:
        self._images, self.classes, self.class_to_idx = images, classes, class_to_idx

    def __len__(self) -> int:
        return self._images

    def __repr__(self) -> str:
        return f"<data set of {self._images} images, which DALI reads>"


class Sampler:
    """The words of a torch DistributedSampler for a loader.

    Attributes:
        num_replicas, rank: of the loader's shards.
        seed: of the loader.
        epoch: of the loader.
    """

    def __init__(self, loader: Loader, counts: Counts) -> None:
        self._loader, self._length = loader, counts.own
        self.num_replicas, self.rank = counts.shards, counts.shard

    def set_epoch(self, epoch: int) -> None:
        """See `Loader.set_epoch`."""
        self._loader.set_epoch(epoch)

    @property
    def seed(self) -> int | None:
        return self._loader.seed

    @property
    def epoch(self) -> int:
        return self._loader.epoch

    def __len__(self) -> int:
        return self._length


def joined_a_group() -> int:
    """Returns the processes of torch.distributed's group, 0 where there is one or no group."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0
    processes = distributed.get_world_size()
    return processes if processes > 1 else 0
