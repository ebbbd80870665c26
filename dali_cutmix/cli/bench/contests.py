"""The kinds of `dali-cutmix bench` that compare loaders of boxes, masks and volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dali_cutmix.cli.bench import data, detection, segmentation, volumes
from dali_cutmix.cli.bench.peers import Job, Peer
from dali_cutmix.loaders.loader import Loader

__all__ = ["CONTESTS", "Contest"]


@dataclass(frozen=True)
class Contest:
    """Loaders of a kind of data.

    Fields:
        about: what is compared, in a line.
        peers: who takes part.
        open: returns this package's loader, of which what is wrong with the data is an error.
        beside: what the data have besides a folder, an option of the command.
        generate: makes data, (count, side) and what is called after each sample, and returns the
            folder and what is beside it.
        unit: of the rates.
        size: side of what is yielded, by default.
        count: samples to generate, by default.
        batch_size: by default, on a GPU and on a CPU.
    """

    about: str
    peers: Sequence[Peer]
    open: Callable[..., Loader]
    beside: Literal["annotations", "masks"]
    generate: Callable[[int, int, Callable[[], None]], tuple[str, str]]
    unit: Literal["images/s", "volumes/s"]
    size: int
    count: int
    batch_size: tuple[int, int]

    def check(self, job: Job) -> None:
        """Raises where this package's loader finds something wrong with the data or the job."""
        self.open(job, mixing=True).close()


def _with_boxes(count: int, _: int, advance: Callable[[], None]) -> tuple[str, str]:
    folder = data.generated_shapes(count, advance)
    return f"{folder}/images", f"{folder}/images/annotations.json"


def _with_masks(count: int, _: int, advance: Callable[[], None]) -> tuple[str, str]:
    folder = data.generated_shapes(count, advance)
    return f"{folder}/images", f"{folder}/masks"


def _solids(count: int, size: int, advance: Callable[[], None]) -> tuple[str, str]:
    folder = data.generated_solids(count, max(16, size * 4 // 3), advance)
    return f"{folder}/images", f"{folder}/masks"


CONTESTS = {
    "detection": Contest(
        about="loaders of images with boxes side by side, on the same files",
        peers=detection.PEERS,
        open=detection.our_loader,
        beside="annotations",
        generate=_with_boxes,
        unit="images/s",
        size=320,
        count=1000,
        batch_size=(64, 16),
    ),
    "segmentation": Contest(
        about="loaders of images with masks side by side, on the same files",
        peers=segmentation.PEERS,
        open=segmentation.our_loader,
        beside="masks",
        generate=_with_masks,
        unit="images/s",
        size=256,
        count=1000,
        batch_size=(64, 16),
    ),
    "volumes": Contest(
        about="loaders of volumes with masks side by side, on the same files",
        peers=volumes.PEERS,
        open=volumes.our_loader,
        beside="masks",
        generate=_solids,
        unit="volumes/s",
        size=96,
        count=24,
        batch_size=(4, 2),
    ),
}
