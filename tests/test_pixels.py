"""The ImageNet pipelines show the pixels that torchvision shows: the same files, the same crops.

Errors are absolute differences in units of 1/255 after normalisation on both sides. Where both
resize the same pixels to the same places, what is left is known, and the bounds are made of it:

- PIL rounds to bytes after each of its two passes, so it is within 1 of the exact value, DALI
  rounds once and is within 0.5: bytes that differ by a unit at most, by 0.15 in the mean;
- bicubic overshoots, and PIL clips that between the passes too: at most 10 units on these images,
  in one pixel of five thousand;
- at the border of a crop DALI's antialiasing repeats the last pixel where PIL leaves it out of the
  average: at most 20 units on these images, in the outermost ring alone.

Without antialiasing the mean is above 0.5, with the other filter 0.8, with the fast IDCT 1, with
a crop or a side that is off by one pixel 2.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image, ImageOps
from scipy import stats

from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.cli.demo import photo_folder
from dali_cutmix.data import images as data_images
from dali_cutmix.pipelines import imagenet
from tests.support import graphs
from tests.support.graphs import Array

import_torchvision()

transforms = pytest.importorskip(
    "torchvision.transforms", reason="the extra `peers` is not installed"
)
F = transforms.functional
InterpolationMode = transforms.InterpolationMode

MEAN, INNER, RING = 0.2, {"bilinear": 1.01, "bicubic": 12}, 24
SCALE = 255 * np.array(imagenet.IMAGENET_STD)[:, None, None]
# (height, width): common ones of ImageNet, odd and square ones, upright and across.
SIDES = [(375, 500), (333, 500), (500, 375), (300, 451), (299, 299), (302, 401), (441, 303)]
SIDES += [(447, 311), (256, 384), (400, 257), (224, 350), (200, 333)]  # the last is enlarged


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Image.Image]]:
    """An ImageFolder of 24 JPEGs, a class each, and the same images as PIL decodes them."""
    root, opened = tmp_path_factory.mktemp("pixels"), []
    with photo_folder(crops_a_class=6) as photos:
        sources = [Image.open(path).copy() for path in sorted(Path(photos).glob("*/*.jpg"))]
    for i, side in enumerate(SIDES * 2):
        image = ImageOps.fit(sources[i + 3], side[::-1], Image.Resampling.LANCZOS)
        image = image.convert("L") if i == 11 else image
        folder = root / f"{i:02d}"
        folder.mkdir()
        options = {} if i == 11 else {"subsampling": i % 3}  # 4:4:4, 4:2:2, 4:2:0
        image.save(folder / "image.jpg", quality=75 + i % 20, progressive=i == 7, **options)
        with Image.open(folder / "image.jpg") as file:
            opened.append(file.convert("RGB"))
    return str(root), opened


def batch(definition: Any, root: str, count: int, **options: Any) -> dict[int, Array]:
    """The normalised images of a pipeline's first batch, by label."""
    options = {"batch_size": count, "num_threads": 2, "device_id": None, "seed": 1, **options}
    ((pixels, labels),) = graphs.run(definition(root, **options))
    return dict(zip(labels.tolist(), pixels, strict=True))


def normalised(image: Image.Image) -> Array:
    tensor = F.to_tensor(image)
    return F.normalize(tensor, imagenet.IMAGENET_MEAN, imagenet.IMAGENET_STD).numpy()


def distance(ours: Array, theirs: Image.Image) -> Array:
    """Units of 1/255, a pixel and channel."""
    return np.abs(ours.astype(float) - normalised(theirs)) * SCALE


def windows(count: int) -> Array:
    """(y, x, h, w) that fit in every image: of 1 pixel, enlarged, reduced, up to all of them."""
    rng = np.random.default_rng(0)
    low, high = np.array([1, 1]), np.min(SIDES, axis=0)
    sizes = [low, (1, 90), (120, 3), high, *rng.integers(40, high + 1, (count - 4, 2))]
    return np.array([[*rng.integers(high - size + 1), *size] for size in sizes], np.int32)


def inject(monkeypatch: pytest.MonkeyPatch, drawn: Array) -> None:
    """Gives the crops in the place of those that the training pipeline draws."""

    def given(*_: Any, **__: Any) -> tuple[Any, Any]:
        return graphs.feed(drawn[:, :2]), graphs.feed(drawn[:, 2:])

    monkeypatch.setattr(imagenet.fn, "random_crop_generator", given)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (96, 128)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_shows_the_pixels_of_torchvision(
    images: Any, monkeypatch: pytest.MonkeyPatch, interpolation: str, size: tuple[int, int]
) -> None:
    root, opened = images
    drawn = windows(len(opened))
    inject(monkeypatch, drawn)
    options = {"mix": None, "hflip": 0.0, "interpolation": interpolation, "size": size}
    found = batch(imagenet.train, root, len(opened), **options)
    mode, errors = InterpolationMode(interpolation), []
    for (label, ours), window in zip(found.items(), drawn.tolist(), strict=True):
        theirs = F.resized_crop(opened[label], *window, list(size), mode)
        errors.append(distance(ours, theirs))
    _check(np.stack(errors), interpolation, ring=RING)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interpolation", "resize", "size"),
    [
        ("bilinear", 256, (224, 224)),
        ("bicubic", 256, (224, 224)),
        ("bicubic", 236, (224, 224)),
        ("bilinear", 232, (224, 224)),
        ("bilinear", 235, (224, 199)),
        ("bilinear", 224, (224, 224)),
    ],
)
def test_validation_shows_the_pixels_of_torchvision(
    images: Any, interpolation: str, resize: int, size: tuple[int, int]
) -> None:
    root, opened = images
    options = {"interpolation": interpolation, "resize": resize, "size": size}
    found = batch(imagenet.val, root, len(opened), **options)
    mode, errors = InterpolationMode(interpolation), []
    for label, image in enumerate(opened):
        theirs = F.center_crop(F.resize(image, resize, mode), list(size))
        errors.append(distance(found[label], theirs))
    # Without a margin the crop touches the border of the image.
    ring = RING if resize == max(size) else INNER[interpolation]
    _check(np.stack(errors), interpolation, ring)


def _check(errors: Array, interpolation: str, ring: float) -> None:
    # Every image for itself: a shift of one pixel in one of them must not drown in the others.
    assert errors.mean(axis=(1, 2, 3)).max() < 1.5 * MEAN
    assert errors.mean() < MEAN
    assert errors[..., 1:-1, 1:-1].max() < INNER[interpolation]
    assert errors.max() < ring
    assert (errors > 1.01).mean() < 1e-3


@pytest.mark.parametrize(("resize", "size"), [(256, (224, 224)), (236, (224, 160)), (7, (7, 4))])
def test_the_validation_crop_has_the_integers_of_torchvision(
    monkeypatch: pytest.MonkeyPatch, resize: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    shapes = rng.integers(7, 3000, (2000, 2))
    peeked = np.column_stack([shapes, np.full(len(shapes), 3)]).astype(np.int32)
    monkeypatch.setattr(imagenet.fn, "peek_image_shape", lambda *_, **__: graphs.feed(peeked))

    @pipeline_def(batch_size=len(shapes), num_threads=2, device_id=None)
    def pipe() -> tuple[Any, Any]:
        return data_images.centre_crop(None, size, resize)

    ((start, end),) = graphs.run(pipe())
    resized = np.array([_resized(*shape, resize) for shape in shapes.tolist()])
    first = np.array([[round((a - b) / 2) for a, b in zip(s, size, strict=True)] for s in resized])
    spare = (resized - size) % 4
    assert all((spare == rest).sum() > 20 for rest in range(4))  # halves to either side among them
    # Thousandths of a pixel of the resized image: float32, sides up to 1e5.
    assert np.abs(start * resized / shapes - first).max() < 0.02
    assert np.abs(end * resized / shapes - first - size).max() < 0.02


def _resized(height: int, width: int, resize: int) -> list[int]:
    """The size that torchvision's Resize gives, asked of an image that has no memory."""
    return list(F.resize(torch.empty(1, height, width, device="meta"), resize).shape[1:])


def test_a_validation_crop_larger_than_the_image_is_refused(photos: str) -> None:
    with pytest.raises(ValueError, match=r"`resize` must be at least `size`, got resize=32 and"):
        batch(imagenet.val, photos, 4, resize=32, size=(32, 33))


@pytest.mark.parametrize("shape", [(375, 500), (500, 333)])
def test_training_draws_crops_as_torchvision_does(
    photos: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    # n = 10,000 of each, four two-sample KS tests at two shapes, alarm below 1e-3: aspects from
    # 0.7 or 0.8 are below 1e-25. The ends of the ranges are compared too, for areas of 0.08 to
    # 0.9 give much the same distribution: most crops that large are rejected.
    n, used = 10_000, {}
    draw = imagenet.fn.random_crop_generator

    def recorded(*inputs: Any, **options: Any) -> Any:
        used.update(options)
        return draw(*inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(imagenet.fn, "random_crop_generator", recorded)
        batch(imagenet.train, photos, 4, mix=None)

    @pipeline_def(batch_size=n, num_threads=2, device_id=None)
    def pipe() -> tuple[Any, ...]:
        return tuple(fn.random_crop_generator(types.Constant([*shape, 3]), **used))

    ((start, size),) = graphs.run(pipe())
    torch.manual_seed(1)
    crop = transforms.RandomResizedCrop(224)
    blank = torch.empty(3, *shape, device="meta")
    theirs = np.array([crop.get_params(blank, crop.scale, crop.ratio) for _ in range(n)])
    both, side, end = (np.column_stack([start, size]), theirs), np.array(shape), start + size
    assert start.min() == 0
    assert (end.max(axis=0) == side).all()
    room = size < side
    assert all((room & edge).any(axis=0).all() for edge in (start == 0, end == side))
    ours, theirs = ((c[:, 2] * c[:, 3] / side.prod(), c[:, 3] / c[:, 2], *c.T[:2]) for c in both)
    for a, b in zip(ours, theirs, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    for a, b in zip(ours[:2], theirs[:2], strict=True):  # share of the area, aspect
        assert abs(a.min() - b.min()) < 0.01
        assert abs(a.max() - b.max()) < 0.02


def test_photographs_taken_sideways_are_turned_upright(tmp_path: Path, images: Any) -> None:
    # By the EXIF orientation, which torchvision's ImageFolder ignores: a deviation.
    (tmp_path / "a").mkdir()
    image, exif = images[1][0], Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a" / "image.jpg", exif=exif)
    found = batch(imagenet.val, str(tmp_path), 1)[0]
    with Image.open(tmp_path / "a" / "image.jpg") as file:
        upright, sideways = ImageOps.exif_transpose(file), file.convert("RGB")
    errors = [
        distance(found, F.center_crop(F.resize(i, 256), 224)).mean() for i in (upright, sideways)
    ]
    assert errors[0] < MEAN
    assert errors[1] > 10


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_float16_loses_a_twentieth_of_a_unit(images: Any, device: str, layout: str) -> None:
    # Half of 2**-9, the spacing of float16 from 2 to 4, times 255 * 0.229; on a GPU twice that
    # from uint8 NHWC to float16 NHWC, for which fn.crop_mirror_normalize has a kernel of its own.
    root, opened = images
    options: dict[str, Any] = {"device": device, "layout": layout}
    options["device_id"] = 0 if device == "gpu" else None
    wide, half = (
        batch(imagenet.val, root, len(opened), dtype=dtype, **options)
        for dtype in ("float32", "float16")
    )
    scale = SCALE if layout == "NCHW" else SCALE.ravel()
    errors = [np.abs(wide[i] - half[i].astype(np.float32)) * scale for i in wide]
    assert 0.01 < np.max(errors) < (0.125 if (device, layout) == ("gpu", "NHWC") else 0.058)


@pytest.mark.parametrize("definition", [imagenet.train, imagenet.val])
def test_the_gpu_is_asked_for_interpolated_chroma(
    photos: str, monkeypatch: pytest.MonkeyPatch, definition: Any
) -> None:
    # nvJPEG repeats chroma by default, libjpeg-turbo interpolates. The graph needs no GPU.
    used: dict[str, Any] = {}
    decoder = imagenet.fn.decoders.image

    def recorded(*inputs: Any, **options: Any) -> Any:
        used.update(options)
        return decoder(*inputs, **options)

    monkeypatch.setattr(imagenet.fn.decoders, "image", recorded)
    definition(photos, device="gpu", batch_size=4, num_threads=2, device_id=0, seed=1)
    assert used["device"] == "mixed"
    assert used["jpeg_fancy_upsampling"] is True


@pytest.mark.gpu
def test_the_gpu_shows_the_pixels_of_the_cpu(tmp_path: Path) -> None:
    # Bars of pure colours of odd width with 4:2:0: repeated chroma is off by far more than a unit
    # in the mean, interpolated chroma by the rounding of another IDCT.
    bars = np.zeros((300, 400, 3), np.uint8)
    bars[:, np.arange(400) % 10 < 5, 0] = 255
    bars[:, np.arange(400) % 14 < 7, 2] = 200
    (tmp_path / "a").mkdir()
    Image.fromarray(bars).save(tmp_path / "a" / "image.jpg", quality=95, subsampling=2)
    options = {"resize": 300, "size": (224, 224)}
    gpu = batch(imagenet.val, str(tmp_path), 1, device="gpu", device_id=0, **options)[0]
    cpu = batch(imagenet.val, str(tmp_path), 1, **options)[0]
    assert (np.abs(gpu - cpu) * SCALE).mean() < 1
