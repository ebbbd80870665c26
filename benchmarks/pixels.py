"""The pixels of DALI's operators, and of the ImageNet pipelines, against PIL and torchvision.

    python benchmarks/pixels.py                 # prints tables
    python benchmarks/pixels.py --json FILE     # also writes the result

Errors are absolute differences in units of 1/255, over all pixels and channels: their mean, their
maximum, that without the outermost ring of pixels, and the share above one unit. The images are
parts of the shipped photographs, at odd sizes, encoded anew with every chroma subsampling. Windows
of random resized crops are given to both sides; how alike both draw them is measured apart. Runs
on the CPU, needs the extras `peers` and `test`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image, features
from rich.console import Console
from rich.table import Table
from scipy import stats

from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.cli.bench.results import environment
from dali_cutmix.data import images as data_images
from dali_cutmix.pipelines import imagenet

import_torchvision()

from torchvision.transforms import InterpolationMode, RandomResizedCrop  # noqa: E402
from torchvision.transforms import functional as F  # noqa: E402

SIZE = 224
FILTERS = ("bilinear", "bicubic")
VALIDATION = (("bilinear", 256), ("bicubic", 256), ("bicubic", 236), ("bilinear", 232))
SHAPES = ((375, 500), (500, 333), (100, 400), (60, 500))
Row = dict[str, Any]


class Crop(NamedTuple):
    y: int
    x: int
    h: int
    w: int


def photographs() -> list[Image.Image]:
    folder = resources.files("dali_cutmix").joinpath("photos")
    paths = sorted(str(p) for p in folder.iterdir() if p.name.endswith(".jpg"))
    return [Image.open(path).convert("RGB") for path in paths]


def parts(count: int, smallest: float = 0.6) -> list[Image.Image]:
    """Returns `count` parts of the photographs, of about 500 x 375 pixels and odd sizes too."""
    rng, photos = np.random.default_rng(0), photographs()
    found = []
    for i in range(count):
        photo = photos[i % len(photos)]
        w, h = (int(side * rng.uniform(smallest, 1)) for side in photo.size)
        x, y = int(rng.integers(photo.width - w + 1)), int(rng.integers(photo.height - h + 1))
        found.append(photo.crop((x, y, x + w, y + h)))
    return found


def crops(images: Sequence[Image.Image], within: tuple[int, int] | None = None) -> list[Crop]:
    """Returns a crop for each image, as RandomResizedCrop draws them, the whole image included."""
    rng, found = np.random.default_rng(1), []
    for i, image in enumerate(images):
        height, width = within or (image.height, image.width)
        fraction = (0.08, 0.15, 0.3, 0.5, 0.8, 1.0)[i % 6]
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h = min(height, round((fraction * height * width / aspect) ** 0.5))
        w = min(width, round((fraction * height * width * aspect) ** 0.5))
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        found.append(Crop(int(y), int(x), h, w))
    return found


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pil(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def feed(values: Sequence[Any]) -> Any:
    arrays = [np.asarray(v) for v in values]
    return fn.external_source(source=lambda: arrays, batch=True)


def bytes_node(files: Sequence[bytes]) -> Any:
    return feed([np.frombuffer(file, np.uint8) for file in files])


def pipeline(build: Callable[[], Any], batch_size: int) -> Any:
    @pipeline_def(batch_size=batch_size, num_threads=2, device_id=None, prefetch_queue_depth=1)
    def definition() -> Any:
        return build()

    return definition()


def run(build: Callable[[], Any], batch_size: int) -> list[np.ndarray]:
    (output,) = pipeline(build, batch_size).run()
    return [np.array(output.at(i)) for i in range(batch_size)]


def row(stage: str, option: str, ours: Sequence[Any], theirs: Sequence[Any]) -> Row:
    errors = [
        np.abs(np.asarray(a, float) - np.asarray(b, float))
        for a, b in zip(ours, theirs, strict=True)
    ]
    flat = np.concatenate([e.ravel() for e in errors])
    inner = np.concatenate([e[1:-1, 1:-1].ravel() for e in errors])  # without the outermost ring
    return {
        "stage": stage,
        "option": option,
        "mean": three_digits(flat.mean()),
        "max": three_digits(flat.max()),
        "max_inner": three_digits(inner.max()),
        "above_1": three_digits((flat > 1.001).mean()),
    }


def three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def whole(encoded: Any, **options: Any) -> Any:
    shape = fn.peek_image_shape(encoded)[:2]
    return fn.decoders.image_slice(encoded, shape * 0, shape, axes=[0, 1], **options)


def decoding() -> list[Row]:
    images, rows = parts(10), []
    files = {
        f"JPEG {name}": [encode(i, quality=q, subsampling=s) for i in images for q in (75, 95)]
        for s, name in enumerate(("4:4:4", "4:2:2", "4:2:0"))
    }
    files["JPEG progressive"] = [encode(i, progressive=True) for i in images]
    files["JPEG grey"] = [encode(i.convert("L")) for i in images]
    files["JPEG CMYK"] = [encode(i.convert("CMYK")) for i in images]
    files["PNG palette"] = [encode(i.quantize(64), "PNG") for i in images]
    files["PNG alpha"] = [encode(i.convert("RGBA"), "PNG") for i in images]
    for name, encoded in files.items():
        pixels = run(lambda e=encoded: whole(bytes_node(e)), len(encoded))
        rows.append(row("decode", name, pixels, [pil(e) for e in encoded]))
    encoded = files["JPEG 4:2:0"]
    for options in ({"jpeg_fancy_upsampling": True}, {"use_fast_idct": True}):
        pixels = run(lambda o=options: whole(bytes_node(encoded), **o), len(encoded))
        name = ", ".join(f"{k}={v}" for k, v in options.items())
        rows.append(row("decode", f"JPEG 4:2:0, {name}", pixels, [pil(e) for e in encoded]))
    windows = crops([pil(e) for e in encoded])
    pixels = run(lambda: crop(bytes_node(encoded), windows), len(encoded))
    cut = [F.crop(pil(e), *c) for e, c in zip(encoded, windows, strict=True)]
    rows.append(row("decode", "JPEG 4:2:0, a window of it", pixels, cut))
    return rows


def crop(encoded: Any, windows: Sequence[Crop], **options: Any) -> Any:
    start, shape = (feed([np.int32(c[part]) for c in windows]) for part in (slice(2), slice(2, 4)))
    return fn.decoders.image_slice(encoded, start, shape, axes=[0, 1], **options)


def resizing() -> list[Row]:
    """The same pixels resized by both: the crop is cut first, from a PNG."""
    images, rows = parts(36), []
    windows, files = crops(images), [encode(i, "PNG") for i in images]
    count = len(files)
    starts = [np.float32(c[:2]) for c in windows]
    ends = [np.float32((c.y + c.h, c.x + c.w)) for c in windows]
    for name in FILTERS:
        kernel = data_images.INTERPOLATION[name]
        other = data_images.INTERPOLATION[FILTERS[1 - FILTERS.index(name)]]

        def resize(interp_type: Any = kernel, **options: Any) -> Any:
            images = crop(bytes_node(files), windows)
            return fn.resize(images, size=[SIZE, SIZE], interp_type=interp_type, **options)

        def passes(interp_type: Any = kernel) -> Any:
            images = crop(bytes_node(files), windows)
            across = fn.resize(images, size=[0, SIZE], mode="stretch", interp_type=interp_type)
            return fn.resize(across, size=[SIZE, SIZE], interp_type=interp_type)

        def in_place(interp_type: Any = kernel) -> Any:
            images = fn.decoders.image(bytes_node(files))
            region = {"roi_start": feed(starts), "roi_end": feed(ends)}
            return fn.resize(images, size=[SIZE, SIZE], interp_type=interp_type, **region)

        theirs = [cropped(i, c, name) for i, c in zip(images, windows, strict=True)]
        for option, build in {
            "crop, then resize": resize,
            "crop, then resize in two passes, as PIL": passes,
            "resize of a region (random_resized_crop)": in_place,
            "antialias=False": lambda r=resize: r(antialias=False),
            "the other filter": lambda r=resize, o=other: r(o),
        }.items():
            rows.append(row(f"resize {name}", option, run(build, count), theirs))
        tensors = [
            cropped(F.pil_to_tensor(i), c, name).permute(1, 2, 0)
            for i, c in zip(images, windows, strict=True)
        ]
        rows.append(row(f"resize {name}", "torchvision's own on tensors", tensors, theirs))
    return rows


def cropped(image: Any, window: Crop, name: str) -> Any:
    mode = InterpolationMode(name)
    return F.resized_crop(image, *window, [SIZE, SIZE], mode, antialias=True)


def folder(root: str, files: Sequence[bytes]) -> str:
    """Makes an ImageFolder with a class for each image: the label says which one it is."""
    for i, encoded in enumerate(files):
        os.mkdir(os.path.join(root, f"{i:04d}"))
        with open(os.path.join(root, f"{i:04d}", "image.jpg"), "wb") as file:
            file.write(encoded)
    return root


def pixels_of(definition: Any, root: str, count: int, **options: Any) -> dict[int, np.ndarray]:
    """Returns the images of a pipeline's first batch by label, normalisation undone."""
    built = definition(root, batch_size=count, num_threads=2, device_id=None, seed=1, **options)
    images, labels = (np.array(output.as_array()) for output in built.run())
    mean, std = (
        np.array(v)[:, None, None] for v in (imagenet.IMAGENET_MEAN, imagenet.IMAGENET_STD)
    )
    restored = 255 * (images.astype(np.float64) * std + mean)
    return dict(zip(labels.tolist(), restored.transpose(0, 2, 3, 1), strict=True))


def training() -> list[Row]:
    """The training pipeline, with the windows it would have drawn given to both sides."""
    files = [encode(image, quality=90, subsampling=i % 3) for i, image in enumerate(parts(36, 0.9))]
    smallest = tuple(min(side) for side in zip(*(pil(f).size[::-1] for f in files), strict=True))
    windows, rows = crops([pil(f) for f in files], smallest), []

    def given(*_: Any, **__: Any) -> Any:
        return tuple(feed([np.int32(c[p]) for c in windows]) for p in (slice(2), slice(2, 4)))

    with tempfile.TemporaryDirectory() as root:
        folder(root, files)
        for name in FILTERS:
            with mock.patch.object(imagenet.fn, "random_crop_generator", given):
                built = in_order(root, len(files), interpolation=name)
            theirs = [
                cropped(pil(files[label]), window, name)
                for label, window in zip(built, windows, strict=True)
            ]
            rows.append(row("training pipeline", name, list(built.values()), theirs))
    return rows


def in_order(root: str, count: int, **options: Any) -> dict[int, np.ndarray]:
    return pixels_of(imagenet.train, root, count, mix=None, hflip=0.0, **options)


def validation() -> list[Row]:
    files = [encode(image, quality=90, subsampling=i % 3) for i, image in enumerate(parts(60))]
    images, rows = [pil(f) for f in files], []
    with tempfile.TemporaryDirectory() as root:
        folder(root, files)
        for name, side in VALIDATION:
            mode = InterpolationMode(name)
            theirs = [F.center_crop(F.resize(i, side, mode), SIZE) for i in images]
            built = pixels_of(imagenet.val, root, len(files), resize=side, interpolation=name)
            ours = [built[label] for label in range(len(files))]
            stage = f"{side} to {SIZE}, {name}"
            rows.append(row("validation pipeline", stage, ours, theirs))
            short = run(lambda n=name, s=side: centre(shorter(files, n, s)), len(files))
            rows.append(row("resize_shorter, crop", stage, short, theirs))
    return rows


def shorter(files: Sequence[bytes], name: str, side: int) -> Any:
    images = whole(bytes_node(files))
    return fn.resize(images, resize_shorter=side, interp_type=data_images.INTERPOLATION[name])


def centre(images: Any) -> Any:
    return fn.crop(images, crop=(SIZE, SIZE))


def centred(files: Sequence[bytes]) -> Any:
    encoded = bytes_node(files)
    start, end = data_images.centre_crop(encoded, (SIZE, SIZE), 256)
    return fn.resize(whole(encoded), size=[SIZE, SIZE], roi_start=start, roi_end=end)


def normalised(
    images: Any, dtype: Any = types.FLOAT, layout: str = "CHW", crop: int | None = None
) -> Any:
    cropped = {} if crop is None else {"crop": (crop, crop)}
    return fn.crop_mirror_normalize(
        images,
        dtype=dtype,
        output_layout=layout,
        mean=[255 * m for m in imagenet.IMAGENET_MEAN],
        std=[255 * s for s in imagenet.IMAGENET_STD],
        **cropped,
    )


def normalising() -> list[Row]:
    image, scale = photographs()[1], 255 * np.array(imagenet.IMAGENET_STD)
    theirs = F.normalize(F.to_tensor(image), imagenet.IMAGENET_MEAN, imagenet.IMAGENET_STD)
    theirs = theirs.permute(1, 2, 0).double().numpy() * scale
    rows = []
    for name, dtype in data_images.DTYPE.items():

        def build(dtype: Any = dtype) -> Any:
            return normalised(whole(bytes_node([encode(image, "PNG")])), dtype, "HWC")

        rows.append(row("normalise", name, [run(build, 1)[0] * scale], [theirs]))
    return rows


def drawing(count: int = 10_000) -> list[Row]:
    """Windows as both draw them: p of two-sample KS tests, and the share of central fallbacks.

    Where ten attempts find no window that fits, torchvision takes the largest one with the nearest
    aspect from the centre; DALI takes one of that size from anywhere.
    """
    rows = []
    area, aspect = [0.08, 1.0], [3 / 4, 4 / 3]
    torch.manual_seed(5)
    for height, width in SHAPES:
        blank = torch.empty(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(blank, area, aspect) for _ in range(count)])

        def build(shape: tuple[int, int] = (height, width)) -> Any:
            sizes = types.Constant([*shape, 3], dtype=types.INT64)
            start, size = fn.random_crop_generator(
                sizes, random_area=area, random_aspect_ratio=aspect, seed=77
            )
            return fn.cat(start, size)

        ours = np.array(run(build, count))
        p_values = {}
        for name, of in {
            "area": lambda c: c[:, 2] * c[:, 3],
            "aspect": lambda c: c[:, 3] / c[:, 2],
            "y": lambda c: c[:, 0],
            "x": lambda c: c[:, 1],
        }.items():
            p_values[f"p_{name}"] = three_digits(stats.ks_2samp(of(ours), of(theirs)).pvalue)
        size = (min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3)))
        centre = np.array([(height - size[0]) // 2, (width - size[1]) // 2, *size])
        rows.append(
            {
                "shape": [height, width],
                **p_values,
                "central_torchvision": three_digits((theirs == centre).all(axis=1).mean()),
                "central_dali": three_digits((ours == centre).all(axis=1).mean()),
            }
        )
    return rows


def speeds(repeats: int) -> list[Row]:
    """Images a second on two threads, the contestants of a group in turn in the same run."""
    files = [encode(i, quality=90, subsampling=2) for i in parts(240)]
    windows = crops([pil(f) for f in files])

    def trained(**options: Any) -> Any:
        images = crop(bytes_node(files), windows, **options)
        return normalised(fn.resize(images, size=[SIZE, SIZE]))

    groups = {
        "train": {
            "image_slice, resize": trained,
            "image_slice with jpeg_fancy_upsampling=True, resize": lambda: trained(
                jpeg_fancy_upsampling=True
            ),
            "image_slice with use_fast_idct=True, resize": lambda: trained(use_fast_idct=True),
        },
        "val": {
            "resize_shorter, crop": lambda: normalised(shorter(files, "bilinear", 256), crop=SIZE),
            "resize of a region, torchvision's integers": lambda: normalised(centred(files)),
        },
    }
    rows = []
    for group, contestants in groups.items():
        built = {name: pipeline(build, len(files)) for name, build in contestants.items()}
        rates: dict[str, list[float]] = {name: [] for name in built}
        for i in range(repeats + 1):
            for name, ready in built.items():
                start = time.perf_counter()
                ready.run()
                if i:
                    rates[name].append(len(files) / (time.perf_counter() - start))
        for name, values in rates.items():
            low, median, high = statistics.quantiles(values, n=4)
            rate = {"median_img_s": round(median), "iqr_img_s": round(high - low)}
            rows.append({"group": group, "option": name, **rate})
    return rows


def show(title: str, rows: Sequence[Row]) -> None:
    table = Table(title=title)
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if i == 0 else "right")
    for found in rows:
        table.add_row(*(str(value) for value in found.values()))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="of the speed measurements")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    errors = [
        row
        for measure in (decoding, resizing, normalising, training, validation)
        for row in measure()
    ]
    results = {"errors": errors, "windows": drawing(), "speed": speeds(args.repeats)}
    show("Error against PIL and torchvision, in units of 1/255", results["errors"])
    show("Windows of random resized crops, DALI's against torchvision's", results["windows"])
    show("Speed", results["speed"])
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            libjpeg = features.version("libjpeg_turbo")
            where = {**environment(), "libjpeg-turbo of pillow": libjpeg, "threads": 2}
            json.dump({"environment": where, "results": results}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
