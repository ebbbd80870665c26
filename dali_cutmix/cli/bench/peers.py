"""Ways to load CutMix batches from an ImageFolder, each as its own documentation has it.

Everyone does the same work: random resized crop (bilinear, with antialiasing), flip, CutMix,
ImageNet's mean and standard deviation, float32, soft labels. And everyone goes on over the end of
an epoch without a pause, so that a small folder is no disadvantage to those that prepare ahead.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, library
from torch.utils.data import DataLoader, Dataset, default_collate

from dali_cutmix.cli.bench.data import kept
from dali_cutmix.data.folders import class_names, image_files
from dali_cutmix.loaders.classification import train_loader
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.recipes import Recipe

__all__ = [
    "MEAN",
    "PEERS",
    "STD",
    "Batches",
    "Job",
    "Peer",
    "check_count",
    "copied",
    "import_torchvision",
    "on_device",
    "order",
    "our_loader",
    "own_peers",
]

MEAN, STD = Recipe().mean, Recipe().std  # ImageNet's, of images in [0, 1]
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_COPIED_AT_MOST = 20_000  # images that are written to the cache folder in another form

Batch = tuple[Tensor, Any]
Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class Job:
    """The work, the same for everyone.

    Fields:
        root: an ImageFolder, or the folder of images or volumes.
        batch_size: images a batch; the last, incomplete one of an epoch is dropped.
        size: side of the crop, or of the image that boxes are in.
        workers: threads of DALI and SPDL, worker processes of the others.
        device: where the batches are to be, ``"cpu"`` or ``"gpu"``.
        num_classes: length of the soft labels, at least the classes of the folder.
        seed: of order, crops and mixing.
        beside: the annotations of the images, or the folder of the masks.
    """

    root: str
    batch_size: int
    size: int
    workers: int
    device: Literal["cpu", "gpu"]
    num_classes: int
    seed: int = 0
    beside: str = ""

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda" if self.device == "gpu" else "cpu")


@dataclass(frozen=True)
class Peer:
    """A way to load batches.

    Fields:
        name: what it is called in a result.
        about: what it does, in a line.
        needs: names of what must be importable.
        workers: what its workers are.
        batches: returns the batches of a job, without end: images float32 (N, 3, H, W), targets
            float32 (N, num_classes), on the device. Closed, it ends its workers. (What the images
            of other tasks have in place of labels, their modules say.)
    """

    name: str
    about: str
    needs: tuple[str, ...]
    workers: Literal["threads", "processes"]
    batches: Callable[[Job], Batches]

    def open(self, job: Job) -> contextlib.closing[Batches]:
        """Returns a context with the batches of a job."""
        return contextlib.closing(self.batches(job))

    def ahead(self, job: Job) -> int:
        """Returns how many batches may lie ready where no one has asked for some time."""
        return 2 * job.workers + 2 if self.workers == "processes" else 5


def our_loader(job: Job, *, mixing: bool) -> Loader:
    """Returns this package's loader for the job; without mixing it has integer labels (N,)."""
    return train_loader(
        job.root,
        batch_size=job.batch_size,
        mix=MixConfig(num_classes=job.num_classes) if mixing else None,
        size=job.size,
        device=job.device,
        num_threads=job.workers,
        seed=job.seed,
    )


def own_peers(open_loader: Callable[..., Loader], mixed: str, unmixed: str) -> tuple[Peer, Peer]:
    """Returns this package, with mixing and without.

    Args:
        open_loader: takes a job and ``mixing=``.
        mixed, unmixed: what each does, in a line.
    """
    name, batches = "dali_cutmix", functools.partial(_own_batches, open_loader)
    return (
        Peer(name, mixed, (), "threads", functools.partial(batches, True)),
        Peer(f"{name} without mixing", unmixed, (), "threads", functools.partial(batches, False)),
    )


def _own_batches(open_loader: Callable[..., Loader], mixing: bool, job: Job) -> Batches:
    with open_loader(job, mixing=mixing) as loader:
        while True:
            yield from loader


def _mixed_in_torch(job: Job) -> Batches:
    rng = random.Random(job.seed)
    with contextlib.closing(_own_batches(our_loader, False, job)) as batches:
        for images, labels in batches:
            yield _cutmix(images, labels, job.num_classes, rng)


def _torchvision(job: Job) -> Batches:
    """torchvision's reference for training: PIL images, CutMix in collate_fn."""
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [*_crop_and_flip(job), v2.PILToTensor(), *_normalised()]
    yield from _by_data_loader(job, ImageFolder(job.root, v2.Compose(steps)))


def _torchvision_io(job: Job) -> Batches:
    """As torchvision recommends for speed: uint8 tensors throughout, its own JPEG decoder."""
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    decode = functools.partial(decode_image, mode="RGB")
    steps = v2.Compose([*_crop_and_flip(job), *_normalised()])
    yield from _by_data_loader(job, ImageFolder(job.root, steps, loader=decode))


def _simplejpeg(job: Job) -> Batches:
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose([*_crop_and_flip(job), *_normalised()])
    yield from _by_data_loader(job, ImageFolder(job.root, steps, loader=_decoded_by_simplejpeg))


def _timm(job: Job) -> Batches:
    """timm's create_loader as its train.py calls it; the prefetcher works on the CPU too."""
    import_torchvision()
    from timm.data import FastCollateMixup, create_dataset, create_loader

    dataset = create_dataset("", root=job.root, is_training=True)
    check_count(job, len(dataset))
    loader = create_loader(
        dataset,
        input_size=(3, job.size, job.size),
        batch_size=job.batch_size,
        is_training=True,
        scale=AREA,
        ratio=RATIO,
        hflip=0.5,
        color_jitter=None,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=job.workers,
        collate_fn=FastCollateMixup(
            mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=job.num_classes
        ),
        pin_memory=job.device == "gpu",
        device=job.torch_device,
        use_multi_epochs_loader=True,  # no pause at the end of an epoch
    )
    while True:
        yield from loader


def _ffcv(job: Job) -> Batches:
    """FFCV with JPEGs in its own file, as in its ImageNet example; CutMix in torch.

    Written from its documentation and not run: it does not install everywhere. It resizes by area.
    The JPEGs are encoded once more, with quality 90.
    """
    import_torchvision()
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        RandomHorizontalFlip,
        Squeeze,
        ToDevice,
        ToTensor,
        ToTorchImage,
    )
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(job.root)
    check_count(job, len(dataset))

    def write(folder: Path) -> None:
        fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
        writer = DatasetWriter(str(folder / "images.beton"), fields, num_workers=job.workers)
        writer.from_indexed_dataset(dataset)

    decoder = RandomResizedCropRGBImageDecoder((job.size, job.size), scale=AREA, ratio=RATIO)
    to_device = [ToDevice(job.torch_device, non_blocking=True)] if job.device == "gpu" else []
    # An epoch of at least 1000 batches, for one begins with a pause.
    repeats = 1 + 1000 * job.batch_size // len(dataset)
    loader = Loader(
        str(copied([*image_files(job.root)], "ffcv", write) / "images.beton"),
        batch_size=job.batch_size,
        num_workers=job.workers,
        order=OrderOption.RANDOM,
        indices=np.tile(np.arange(len(dataset), dtype="uint64"), repeats),
        seed=job.seed,
        drop_last=True,
        pipelines={
            "image": [decoder, RandomHorizontalFlip(), ToTensor(), *to_device, ToTorchImage()],
            "label": [IntDecoder(), ToTensor(), Squeeze(), *to_device],
        },
    )
    rng = random.Random(job.seed)
    while True:
        for images, labels in loader:
            yield _cutmix(_as_floats(images), labels.long(), job.num_classes, rng)


def _spdl(job: Job) -> Batches:
    """SPDL's pipeline of threads; FFmpeg decodes, crops, resizes and flips; CutMix in torch."""
    from spdl.io import convert_frames, decode_packets, demux_image, to_torch, transfer_tensor_h2d
    from spdl.pipeline import PipelineBuilder

    samples = _samples(job.root)
    rng = random.Random(job.seed)

    def decode(i: int) -> tuple[Any, int]:
        path, label = samples[i]
        packets = demux_image(path)
        y, x, h, w = _random_box(packets.height, packets.width, rng)
        flip = ",hflip" if rng.random() < 0.5 else ""
        steps = f"crop={w}:{h}:{x}:{y},scale={job.size}:{job.size}:flags=bilinear{flip}"
        return decode_packets(packets, filter_desc=f"{steps},format=pix_fmts=rgb24"), label

    def batch(items: list[tuple[Any, int]]) -> Batch:
        images = to_torch(convert_frames([frames for frames, _ in items])).permute(0, 3, 1, 2)
        return images, torch.tensor([label for _, label in items])

    builder = (
        PipelineBuilder()
        .add_source(order(job, len(samples)))
        .pipe(decode, concurrency=job.workers)
        .aggregate(job.batch_size, drop_last=True)
        .pipe(batch)
    )
    if job.device == "gpu":
        builder = builder.pipe(transfer_tensor_h2d)
    pipeline = builder.add_sink(3).build(num_threads=job.workers, max_failures=0)
    with pipeline.auto_stop():
        for images, labels in pipeline:
            yield _cutmix(_as_floats(images), labels, job.num_classes, rng)


def _webdataset(job: Job) -> Batches:
    """WebDataset: shards of 100 images, drawn anew all the time, batches made by the workers."""
    import_torchvision()
    import webdataset
    from torchvision.transforms import v2

    samples = _samples(job.root)
    check_count(job, len(samples))

    def write(folder: Path) -> None:
        pattern = str(folder / "images-%05d.tar")
        with webdataset.ShardWriter(pattern, maxcount=100, verbose=0) as writer:
            for i in np.random.default_rng(0).permutation(len(samples)):
                path, label = samples[i]
                writer.write({"__key__": f"{i:08d}", "jpg": _content(path), "cls": label})

    shards = sorted(map(str, copied([*image_files(job.root)], "webdataset", write).glob("*.tar")))
    steps = v2.Compose([*_crop_and_flip(job), v2.PILToTensor(), *_normalised()])
    dataset = (
        webdataset.WebDataset(shards, resampled=True, shardshuffle=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(steps)
        .batched(job.batch_size, partial=False, collation_fn=_mixing_collate(job))
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=job.workers, pin_memory=job.device == "gpu"
    )
    yield from on_device(job, loader)


PEERS: tuple[Peer, ...] = (
    *own_peers(
        our_loader,
        "train_loader, mixed inside the pipeline",
        "train_loader with integer labels: what mixing costs",
    ),
    Peer(
        "DALI, CutMix in torch",
        "train_loader without mixing, then CutMix of the batch in plain torch",
        (),
        "threads",
        _mixed_in_torch,
    ),
    Peer(
        "torchvision",
        "DataLoader, PIL, v2 transforms, v2.CutMix in collate_fn",
        ("torchvision",),
        "processes",
        _torchvision,
    ),
    Peer(
        "torchvision.io",
        "DataLoader, decode_image, v2 transforms of uint8 tensors, v2.CutMix in collate_fn",
        ("torchvision",),
        "processes",
        _torchvision_io,
    ),
    Peer(
        "simplejpeg",
        "DataLoader, simplejpeg, v2 transforms of uint8 tensors, v2.CutMix in collate_fn",
        ("simplejpeg", "torchvision"),
        "processes",
        _simplejpeg,
    ),
    Peer(
        "timm",
        "create_loader with FastCollateMixup and its prefetcher",
        ("timm", "torchvision"),
        "processes",
        _timm,
    ),
    Peer(
        "FFCV",
        "its own file with JPEGs, crop in the decoder, CutMix in torch",
        ("ffcv", "torchvision"),
        "threads",
        _ffcv,
    ),
    Peer("SPDL", "threads, FFmpeg, CutMix in torch", ("spdl",), "threads", _spdl),
    Peer(
        "WebDataset",
        "shards, PIL, v2 transforms, v2.CutMix in the workers",
        ("webdataset", "torchvision"),
        "processes",
        _webdataset,
    ),
)


def import_torchvision() -> None:
    """Imports torchvision, also one for CUDA beside a torch for CPUs, which lacks two schemas.

    Where it is absent nothing happens: the import that follows says so.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(f"torchvision::{name}", schema)
        importlib.import_module("torchvision")


def _crop_and_flip(job: Job) -> list[Any]:
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(job.size, scale=AREA, ratio=RATIO, antialias=True)
    return [crop, v2.RandomHorizontalFlip()]


def _normalised() -> list[Any]:
    from torchvision.transforms import v2

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


def _by_data_loader(job: Job, dataset: Dataset[Any]) -> Batches:
    loader = DataLoader(
        dataset,
        batch_size=job.batch_size,
        sampler=order(job, len(dataset)),  # type: ignore[arg-type]  # an ImageFolder has a length
        num_workers=job.workers,
        collate_fn=_mixing_collate(job),
        pin_memory=job.device == "gpu",
        drop_last=True,
    )
    yield from on_device(job, loader)


def _mixing_collate(job: Job) -> Callable[[Any], Batch]:
    from torchvision.transforms import v2

    return functools.partial(_collated, v2.CutMix(num_classes=job.num_classes))


def _collated(cutmix: Callable[..., Batch], samples: Any) -> Batch:
    return cutmix(*default_collate(samples))


def on_device(job: Job, batches: Iterable[Batch]) -> Batches:
    device = job.torch_device
    for images, targets in batches:
        yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _decoded_by_simplejpeg(path: str) -> Tensor:
    """Returns an image as uint8 (3, H, W); of what is no common JPEG, PIL makes it."""
    import simplejpeg

    content = _content(path)
    try:
        pixels = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        pixels = np.array(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _as_floats(images: Tensor) -> Tensor:
    """Returns uint8 images (N, 3, H, W) normalised."""
    mean, std = (
        torch.tensor(values, device=images.device).view(3, 1, 1) * 255 for values in (MEAN, STD)
    )
    return images.float().sub_(mean).div_(std)


def _cutmix(images: Tensor, labels: Tensor, num_classes: int, rng: random.Random) -> Batch:
    """Returns images and soft labels, mixed as the CutMix paper has it: one box a batch.

    Writes into `images`.
    """
    height, width = images.shape[-2:]
    side = (1 - rng.random()) ** 0.5  # lam is uniform
    h, w = int(height * side), int(width * side)
    y, x = rng.randrange(height), rng.randrange(width)
    top, bottom = max(y - h // 2, 0), min(y + h // 2, height)
    left, right = max(x - w // 2, 0), min(x + w // 2, width)
    partner = torch.randperm(len(images), device=images.device)
    images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    lam = 1 - (bottom - top) * (right - left) / (height * width)
    targets = F.one_hot(labels, num_classes).float()
    return images, lam * targets + (1 - lam) * targets[partner]


def _random_box(height: int, width: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Returns (y, x, h, w) of a random resized crop, as torchvision draws it."""
    low, high = (np.log(side) for side in RATIO)
    for _ in range(10):
        area = rng.uniform(*AREA) * height * width
        ratio = np.exp(rng.uniform(low, high))
        h, w = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < h <= height and 0 < w <= width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    h, w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _samples(root: str) -> list[tuple[str, int]]:
    labels = {name: label for label, name in enumerate(class_names(root))}
    return [(path, labels[Path(path).parent.name]) for path in image_files(root)]


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


def check_count(job: Job, count: int) -> None:
    if count < job.batch_size:
        raise ValueError(
            f"`batch_size` must be at most the {count} images, got {job.batch_size}: "
            "no batch would be full."
        )


def order(job: Job, count: int) -> Iterator[int]:
    """Yields the indices of epoch after epoch, each shuffled anew and of whole batches."""
    check_count(job, count)
    generator = torch.Generator().manual_seed(job.seed)
    while True:
        indices = torch.randperm(count, generator=generator)
        yield from indices[: count // job.batch_size * job.batch_size].tolist()


def copied(paths: Sequence[str], form: str, write: Callable[[Path], None]) -> Path:
    """Returns the folder with some images in another form, in the cache, written the first time.

    Raises:
        ValueError: there are too many to do that unasked.
    """
    if len(paths) > _COPIED_AT_MOST:
        raise ValueError(
            f"`root` must hold at most {_COPIED_AT_MOST} images for a copy in another form, "
            f"got {len(paths)}."
        )
    facts = [(os.path.abspath(path), os.path.getsize(path)) for path in paths]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return Path(kept(f"bench-{form}-{key}", write))
