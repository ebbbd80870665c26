"""The command `saliency`: maps of where the class of each image is seen, by a model of timm.

    image, whole, resized to the model's size  ->  features  ->  map  ->  uint8 (h, w)

A class activation map (CAM, Zhou et al. 2016) is what each place adds to the score of a class: of
models whose classifier is linear on the mean of their features (ResNet, EfficientNet, DenseNet …)
that is exact, of others, and of vision transformers, whose patches stand for the places, it is
near to it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_int
from dali_cutmix.data import images as pixels
from dali_cutmix.data.atomic import check_writable
from dali_cutmix.data.folders import image_files
from dali_cutmix.data.formats.paths import INDEXED
from dali_cutmix.data.readers import read
from dali_cutmix.data.saliency import Unfinished
from dali_cutmix.data.sources import Source, find_source
from dali_cutmix.loaders._arguments import device_id, progress_bar
from dali_cutmix.loaders.loader import Loader

__all__ = ["KINDS", "Kind", "add_parser", "load_model", "maps_of", "store_maps"]

Kind = Literal["cam", "activation"]
KINDS = ("cam", "activation")


def add_parser(commands: Any) -> None:
    """Adds the command to those of the command line."""
    text = "store a map of each image, of where its class is seen, made by a model of timm"
    command = commands.add_parser("saliency", help=text, description=text)
    command.set_defaults(run=_run)
    add = command.add_argument
    add("source", metavar="SOURCE", help="folder or list, as train_loader takes them")
    add("--out", metavar="FILE", default="saliency.npy", help="default: %(default)s")
    add("--model", metavar="NAME", default="resnet50", help="of timm (default: %(default)s)")
    help_text = "its weights (default: those that timm publishes)"
    add("--checkpoint", metavar="FILE", help=help_text)
    add("--num-classes", metavar="N", type=int, help="of the model (default: as published)")
    help_text = "cam: of the image's class; activation: of all features (default: %(default)s)"
    add("--kind", choices=KINDS, default="cam", help=help_text)
    help_text = "rows and columns of a map (default: %(default)s)"
    add("--side", metavar="CELLS", type=int, default=14, help=help_text)
    add("--batch-size", metavar="N", type=int, default=64, help="default: %(default)s")
    add("--device", choices=("gpu", "cpu"), help="default: gpu where there is one, else cpu")
    add("--json", action="store_true", help="report as JSON on stdout")


def _run(args: argparse.Namespace) -> int:
    check_writable("out", args.out)
    device = args.device or ("gpu" if torch.cuda.is_available() else "cpu")
    number = device_id(device)  # raises if it is not there
    device = "cpu" if number is None else f"cuda:{number}"
    model = load_model(args.model, args.checkpoint, args.num_classes, device)
    with progress_bar("maps") as report:
        count = store_maps(
            args.source,
            args.out,
            model,
            about={"model": args.model, "checkpoint": args.checkpoint},
            kind=args.kind,
            side=args.side,
            batch_size=args.batch_size,
            device=device,
            progress=report,
        )
    told = (
        json.dumps({"maps": count, "out": args.out}) if args.json else f"{args.out}: {count} maps"
    )
    sys.stdout.write(f"{told}\n")
    return 0


def store_maps(
    source: Any,
    out: str,
    model: Any,
    *,
    about: dict[str, Any],
    kind: Kind = "cam",
    side: int = 14,
    batch_size: int = 64,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Returns how many maps are in the file that is written, one of each image of a data set.

    What was made before a crash is in ``OUT.part``, and is not made again.

    Args:
        source: a folder of classes, a list, or samples, as `find_source` takes them.
        out: the file.
        model: of timm, in eval mode, on the device.
        about: what the model is, by which a part that was left is known to be of the same.
        kind: ``"cam"``, of the class that the image has, or where the model has another number of
            classes of the one that it finds; ``"activation"``: the mean of the features' sizes.
        side: rows and columns of each map.
        progress: called with (images done, images in all).

    Raises:
        ValueError: the source has no paths within a folder, or the model no such features.
    """
    side = checked_int("side", side, 1, 256)
    found = find_source(source)
    if found.kind in INDEXED or found.remote:
        raise ValueError(
            f"`source` must be a folder or a list on this machine, got {found.paths[0]!r}: maps "
            "are stored by the paths of their images."
        )
    if found.kind == "folder":
        found = find_source(source, subset=range(sum(1 for _ in image_files(found.paths[0]))))
    files = [file.replace(os.sep, "/") for file in found.files]
    made_by = {**about, "kind": kind, "side": side}
    unfinished = Unfinished(out, made_by)
    try:
        left = [k for k, name in enumerate(files) if name not in unfinished.maps]
        batches = _batches(source, left, model, batch_size, device) if left else iter(())
        done = len(files) - len(left)
        for images, labels in batches:
            maps = maps_of(model, images, labels, kind, side, found.num_classes)
            names = [files[k] for k in left[: len(maps)]]
            left = left[len(maps) :]
            unfinished.add(names, maps)
            done += len(maps)
            if progress is not None:
                progress(done, len(files))
        unfinished.finish(list(dict.fromkeys(files)))
    finally:
        unfinished.close()
    return len(set(files))


def load_model(name: str, checkpoint: str | None, num_classes: int | None, device: str) -> Any:
    """Returns a model of timm in eval mode: with its published weights, or those of a checkpoint.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "`dali-cutmix saliency` needs timm, which makes the maps: pip install timm."
        ) from error
    if not timm.is_model(name):
        raise ValueError(f"`model` must be one of timm's (timm.list_models()), got {name!r}.")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if checkpoint is not None:
        options["checkpoint_path"] = checkpoint
    model = timm.create_model(name, pretrained=checkpoint is None, **options)
    return model.eval().to(device)


def _batches(
    source: Any, left: list[int], model: Any, batch_size: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields whole images, resized and normalised for the model, in their order, and labels."""
    config = model.pretrained_cfg
    part = find_source(source, subset=left)
    with Loader(
        _whole_images,
        last_batch="partial",
        source=part,
        batch_size=min(batch_size, len(left)),
        num_threads=min(16, len(os.sched_getaffinity(0))),
        device="cpu" if device == "cpu" else "gpu",
        device_id=None if device == "cpu" else torch.device(device).index or 0,
        size=tuple(config["input_size"][-2:]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    ) as loader:
        yield from loader


@pipeline_def
def _whole_images(
    source: Source,
    *,
    device: str,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[DataNode, DataNode]:
    """Returns images normalised, NCHW, and labels, int64 ()."""
    encoded, labels = read(source, shuffle=False)
    resized = fn.resize(pixels.decode(encoded, device), size=size)
    images = pixels.normalise(cast("DataNode", resized), mean=mean, std=std, layout="NCHW")
    labels = fn.reshape(fn.cast(labels, dtype=types.INT64), shape=[])
    return images, labels.gpu() if device == "gpu" else labels


@torch.no_grad()
def maps_of(
    model: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    kind: Kind,
    side: int,
    num_classes: int | None = None,
) -> NDArray[np.uint8]:
    """Returns the maps of a batch, uint8 (N, side, side), each from 0 to 255.

    Args:
        labels: int64 (N,), of which maps are made where `num_classes` is the model's.
    """
    features = model.forward_features(images)
    grid = _grid(features, model)
    if kind == "activation":
        maps = grid.abs().mean(dim=1)
    else:
        classifier = model.get_classifier()
        if not isinstance(classifier, torch.nn.Linear) or classifier.in_features != grid.shape[1]:
            raise ValueError(
                f"`model` must have a linear classifier on its {grid.shape[1]} features for a map "
                f"of kind cam, got {classifier}: take --kind activation."
            )
        if num_classes != classifier.out_features:
            labels = model.forward_head(features).argmax(dim=1)
        maps = torch.einsum("nchw,nc->nhw", grid, classifier.weight[labels])
    maps = F.interpolate(
        maps[:, None].float(), size=(side, side), mode="bilinear", align_corners=False
    )[:, 0]
    low = maps.amin(dim=(1, 2), keepdim=True)
    high = maps.amax(dim=(1, 2), keepdim=True)
    scaled = (maps - low) / (high - low).clamp(min=1e-12) * 255
    found: NDArray[np.uint8] = scaled.round().byte().cpu().numpy()
    return found


def _grid(features: torch.Tensor, model: Any) -> torch.Tensor:
    """Returns features as (N, C, h, w)."""
    if features.dim() == 4:
        last = features.shape[-1] == model.num_features != features.shape[1]
        return features.permute(0, 3, 1, 2) if last else features
    if features.dim() == 3:
        patches = features[:, getattr(model, "num_prefix_tokens", 0) :]
        rows = round(patches.shape[1] ** 0.5)
        if rows * rows == patches.shape[1]:
            return patches.transpose(1, 2).reshape(len(patches), -1, rows, rows)
    raise ValueError(
        "`model` must give features by place, (N, C, h, w) or a square of patches, got "
        f"{tuple(features.shape)}."
    )
