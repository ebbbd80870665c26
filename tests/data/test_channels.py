"""Deep and many-channelled files: their values arrive, or they are named; the process lives."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import main as cli
from dali_cutmix.data import damage
from dali_cutmix.data.decoding import OtherBands, decoded
from dali_cutmix.data.pixel_format import PixelFormat
from dali_cutmix.pipelines import imagenet
from tests.data.test_sources import write_tar, write_tfrecord
from tests.support import graphs
from tests.support.deep import Array, png, tiff

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZE = (24, 36)
CHANNELS = [1, 2, 3, 4, 5, 13]
TYPES: list[Any] = ["uint8", "uint16", "float32"]


def values(channels: int, kind: str, seed: int = 0, size: tuple[int, int] = SIZE) -> Array:
    """Noise over all of the type's range; floats also far outside of [0, 1]."""
    rng = np.random.default_rng(seed)
    if kind == "float32":
        return rng.normal(0, 1000, (*size, channels)).astype(kind)
    return rng.integers(0, np.iinfo(kind).max + 1, (*size, channels)).astype(kind)


def shown(pixels: Array) -> Array:
    """What arrives of a file: integers by the whole range of their type."""
    return pixels if pixels.dtype.kind == "f" else pixels / float(np.iinfo(pixels.dtype).max)


def as_file(pixels: Array, kind: str = "tif", **options: Any) -> bytes:
    if kind == "tif":
        return tiff(pixels, photometric=2 if pixels.shape[2] == 3 else 1, **options)
    return png(pixels)


def pillow(mode: str, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = values(len(Image.new(mode, (1, 1)).getbands()), "uint8")
    image = Image.frombytes(mode, SIZE[::-1], pixels.tobytes())
    image.save(buffer, form, **options)
    return buffer.getvalue()


def folder(path: Path, files: dict[str, bytes]) -> Path:
    """An ImageFolder of two classes, `a/…` and `b/…`."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def plain(channels: int) -> dict[str, Any]:
    """Options by which the values of the files are those of the images."""
    return {"channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}


def each(loader: dcm.Loader) -> list[Array]:
    with loader:
        return [image for images, _ in loader for image in images.cpu().numpy()]


# The values of the files


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_validation_yields_the_values_of_the_files(
    channels: int, kind: str, layout: Any, device: str, tmp_path: Path
) -> None:
    pixels = [values(channels, kind, seed) for seed in range(5)]
    files = {f"{'aaabb'[k]}/{k}.tif": as_file(p) for k, p in enumerate(pixels)}
    if kind != "float32" and channels in (1, 3, 4):
        pixels.append(values(channels, kind, 5))
        files["b/5.png"] = png(pixels[-1])
    read_as: Any = "uint8" if kind == "uint8" else "float32"
    images = each(
        dcm.val_loader(
            folder(tmp_path, files),
            batch_size=4,
            size=SIZE[0],
            resize=SIZE[0],  # the side that they have
            read_as=read_as,
            layout=layout,
            device=device,
            **plain(channels),
        )
    )
    assert len(images) == len(pixels)
    for image, wanted in zip(images, pixels, strict=True):
        expected = shown(wanted[:, 6:30]).transpose(2, 0, 1)  # the centre of 36 columns
        assert image.shape == expected.shape
        largest = np.abs(expected).max() if kind == "float32" else 1
        assert np.abs(image - expected).max() <= 2e-7 * largest


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_8_bits_are_the_same_by_both_ways(channels: int, tmp_path: Path) -> None:
    root = folder(tmp_path, {f"a/{k}.png": png(values(channels, "uint8", k)) for k in range(4)})
    options: dict[str, Any] = {"batch_size": 4, "size": 20, "resize": 22, "device": "cpu"}
    mean, std = [0.1 * k for k in range(channels)], [0.5 + k for k in range(channels)]
    options |= {"channels": channels, "mean": mean, "std": std}
    few, many = (each(dcm.val_loader(root, read_as=r, **options)) for r in ("uint8", "float32"))
    for a, b in zip(few, many, strict=True):
        step = (1 / 255 / np.array(std))[:, None, None]
        assert 0 < np.abs(a - b).max()  # the resize rounds to bytes
        assert (np.abs(a - b) <= 0.51 * step).all()


def test_colours_become_gray_and_gray_becomes_colours(tmp_path: Path) -> None:
    colours, gray = values(3, "uint8"), values(1, "uint8", 1)
    gray16 = values(1, "uint16", 2)
    files = {"a/0.png": png(colours), "a/1.png": png(gray), "a/2.png": png(gray16)}
    files["a/3.jpg"] = pillow("L", "JPEG", quality=95)
    root = folder(tmp_path, files)
    options: dict[str, Any] = {"batch_size": 4, "size": 24, "resize": 24, "device": "cpu"}
    options |= {"read_as": "float32"}
    ones = each(dcm.val_loader(root, **options, **plain(1)))
    threes = each(dcm.val_loader(root, **options, **plain(3)))
    luma = colours[:, 6:30] / 255 @ np.array([0.299, 0.587, 0.114])
    assert np.abs(ones[0][0] - luma).max() < 2 / 255
    for k, file in ((1, gray), (2, gray16)):
        assert np.abs(ones[k][0] - shown(file)[:, 6:30, 0]).max() < 1e-6
        assert (threes[k] == ones[k]).all()
    with Image.open(io.BytesIO(files["a/3.jpg"])) as image:
        assert np.abs(ones[3][0] - np.asarray(image)[:, 6:30] / 255).max() < 1e-6


def test_mean_and_std_are_those_of_each_channel(tmp_path: Path) -> None:
    pixels = values(5, "float32")
    root = folder(tmp_path, {"a/0.tif": as_file(pixels)})
    mean, std = [-100.0, 0.0, 5.0, 1e5, 1.0], [1e-3, 1.0, 1000.0, 7.0, 1e6]
    (image,) = each(
        dcm.val_loader(
            root,
            batch_size=1,
            size=24,
            resize=24,
            channels=5,
            read_as="float32",
            mean=mean,
            std=std,
            device="cpu",
        )
    )
    expected = ((pixels[:, 6:30].astype(np.float64) - mean) / std).transpose(2, 0, 1)
    assert np.allclose(image, expected, rtol=1e-4, atol=1e-5)


# Training


def constant(channels: int, kind: str, number: int) -> Array:
    """A file all of whose pixels are alike, and like those of no other number."""
    rng = np.random.default_rng(number)
    pixel = rng.normal(0, 100, channels) if kind == "float32" else rng.integers(0, 256, channels)
    if kind == "uint16":
        pixel = pixel * 256 + number
    return np.broadcast_to(pixel.astype(kind), (*SIZE, channels))


MIXES = {
    "cutmix": dcm.MixConfig(cutmix_alpha=1.0),
    "mixup": dcm.MixConfig(cutmix_alpha=0.0, mixup_alpha=1.0),
    "both": dcm.MixConfig(mixup_alpha=1.0, prob=0.8),
    "resizemix": dcm.MixConfig(methods=(dcm.ResizeMix(),)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [1, 2, 4, 13, 32])
def test_training_mixes_the_pixels_of_two_files_by_their_shares(
    channels: int, kind: str, mix: str, device: str, tmp_path: Path
) -> None:
    files = [constant(channels, kind, k) for k in range(16)]
    root = folder(tmp_path, {f"{k:02}/0.tif": as_file(p) for k, p in enumerate(files)})
    read_as: Any = "uint8" if kind == "uint8" else "float32"
    colors = np.stack([shown(pixels)[0, 0] for pixels in files])
    top = np.abs(colors).max()
    seen = 0
    with dcm.train_loader(
        root,
        batch_size=16,
        mix=MIXES[mix],
        size=(20, 36),
        read_as=read_as,
        with_params=True,
        device=device,
        **plain(channels),
    ) as loader:
        for images, (targets, *params) in loader:
            rows = zip(images, targets, *(p.tolist() for p in params), strict=True)
            for image, target, share, (y, x, h, w), a, b in rows:
                pixels = image.cpu().numpy().transpose(1, 2, 0)
                shares = np.zeros(16)
                shares[a] += share
                shares[b] += 1 - share
                assert np.abs(target.cpu().numpy() - shares).max() < 1e-6
                expected = np.broadcast_to(colors[a], pixels.shape).copy()
                if h * w:
                    expected[y : y + h, x : x + w] = colors[b]
                    assert share == pytest.approx(1 - h * w / (20 * 36), abs=1e-6)
                else:
                    expected[:] = share * colors[a] + (1 - share) * colors[b]
                bound = 0.51 / 255 if kind == "uint8" else 1e-6 * top
                assert np.abs(pixels - expected).max() < bound
                seen += a != b and 0 < share < 1
    assert seen > 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 4, 32])
def test_mosaic_shows_four_files_by_their_shares(
    channels: int, device: str, tmp_path: Path
) -> None:
    files = [constant(channels, "uint8", k) for k in range(16)]
    root = folder(tmp_path, {f"{k:02}/0.tif": as_file(p) for k, p in enumerate(files)})
    colors = np.stack([shown(pixels)[0, 0] for pixels in files])
    mix, seen = dcm.MixConfig(methods=(dcm.Mosaic(),)), 0
    with dcm.train_loader(
        root, batch_size=16, mix=mix, size=(20, 36), device=device, **plain(channels)
    ) as loader:
        for images, targets in loader:
            for image, target in zip(images.cpu().numpy(), targets.cpu().numpy(), strict=True):
                pixels = image.transpose(1, 2, 0).reshape(-1, 1, channels)
                nearest = np.abs(pixels - colors).max(2).argmin(1)
                assert np.abs(pixels[:, 0] - colors[nearest]).max() < 0.51 / 255
                shares = np.bincount(nearest, minlength=16) / len(pixels)
                assert np.abs(shares - target).max() < 1e-6
                seen += (shares > 0).sum() > 2
    assert seen > 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("after_mix", [True, False])
@pytest.mark.parametrize("mode", ["const", "color", "pixel"])
def test_erasing_takes_any_channels(
    mode: Any, after_mix: bool, device: str, tmp_path: Path
) -> None:
    pixels = np.full((*SIZE, 5), 1000, np.float32)
    root = folder(tmp_path, {f"a/{k}.tif": as_file(pixels) for k in range(16)})
    with dcm.train_loader(
        root,
        batch_size=16,
        mix=None,
        size=(20, 31),
        erase=dcm.RandomErasing(prob=1.0, mode=mode),
        erase_after_mix=after_mix,
        read_as="float32",
        device=device,
        **plain(5),
    ) as loader:
        images = np.concatenate([images.cpu().numpy() for images, _ in loader])
    erased = np.abs(images - 1000) > 1
    assert (erased.any(1) == erased.all(1)).all()  # in all channels alike
    found = 0
    for image, where in zip(images, erased.all(1), strict=True):
        inside = image[:, where]
        if not inside.size:
            continue
        found += 1
        assert np.abs(inside).max() < 10
        if mode == "const":
            assert (inside == 0).all()
        else:
            assert len(np.unique(inside)) == (5 if mode == "color" else inside.size)
    assert found > 8


def test_training_resumes_and_validation_is_like_it(tmp_path: Path) -> None:
    files = {f"{k % 2}/{k:02}.tif": as_file(values(4, "uint16", k)) for k in range(48)}
    root = folder(tmp_path, files)
    options: dict[str, Any] = {"batch_size": 16, "size": 12, "device": "cpu"}
    options |= {"channels": 4, "read_as": "float32"}
    statistics = {"mean": [0.1, 0.2, 0.3, 0.4], "std": [1.0, 2.0, 3.0, 4.0]}

    def make(**others: Any) -> dcm.Loader:
        return dcm.train_loader(root, **{**options, **statistics, **others})

    with make(mix=dcm.MixConfig()) as train, make(mix=dcm.MixConfig()) as again:
        next(iter(train))
        again.load_state_dict(train.state_dict())
        rest = [images for images, _ in train.rest()]
        assert all(map(torch.equal, rest, [images for images, _ in again]))
        with dcm.val_loader(root, like=train) as val:
            (images, _), *_ = val
            assert images.shape == (16, 4, 12, 12)
            for name, value in {**statistics, "channels": 4, "read_as": "float32"}.items():
                given = val._options[name]
                assert (list(given) if name in statistics else given) == value
        with pytest.raises(ValueError, match="`mean` and `std` must be given with `channels=5"):
            dcm.val_loader(root, like=train, channels=5)
        with make(read_as="uint8", mix=dcm.MixConfig()) as few:
            with pytest.raises(ValueError, match="read_as: 'float32' here, 'uint8' in"):
                train.load_state_dict(few.state_dict())


# By default nothing changes


def test_the_default_graph_and_state_know_nothing_of_it(photos: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 32, "device": "cpu", "seed": 3}
    with dcm.train_loader(photos, mix=dcm.MixConfig(), **options) as loader:
        state = loader.state_dict()
        assert not {"channels", "read_as"} & state["options"].keys()
        asked = dcm.train_loader(
            photos, mix=dcm.MixConfig(), channels=3, read_as="uint8", **options
        )
        with asked:
            assert asked.state_dict() == state
            for (a, _), (b, _) in zip(loader, asked, strict=True):
                assert torch.equal(a, b)


# What is wrong


def wrong_files() -> dict[str, bytes]:
    """Files that cannot be read with four channels, by what they are."""
    return {
        "three bands.tif": as_file(values(3, "uint8")),
        "five bands.tif": as_file(values(5, "uint8")),
        "planar.tif": as_file(values(4, "uint8"), planar=True),
        "gray.jpg": pillow("L", "JPEG"),
        "colours.jpg": pillow("RGB", "JPEG"),
        "cmyk.jpg": pillow("CMYK", "JPEG"),
        "named as a tiff.tif": pillow("L", "JPEG"),
        "alpha.png": png(values(2, "uint8")),
        "gray.png": png(values(1, "uint8")),
        "palette.png": pillow("P", "PNG"),
        "cut.tif": as_file(values(4, "uint8"))[:1000],
        "tags cut.tif": as_file(values(4, "uint8"))[:-60],
        "text.tif": b"no image at all",
        "empty.tif": b"",
        "two bytes.tif": b"II",
    }


PROBLEMS = {
    "planar.tif": "wrong type",
    "cut.tif": "truncated",
    "tags cut.tif": "truncated",
    "text.tif": "no image",
    "empty.tif": "empty",
    "two bytes.tif": "no image",
}


def good(count: int = 3) -> dict[str, bytes]:
    return {f"b/{k}.tif": as_file(values(4, "uint8", k)) for k in range(count)}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as Pillow says of tags that end
@pytest.mark.parametrize("make", [dcm.val_loader, dcm.train_loader])
@pytest.mark.parametrize("name", wrong_files())
def test_what_has_other_bands_is_named_by_the_loaders(
    make: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Five of another ending, so that the graph meets it, and not who looks at the first few.
    ending = name.rpartition(".")[2]
    root = folder(tmp_path / "data", {f"a/{name}": wrong_files()[name], **good()})
    hidden = folder(tmp_path / "late", {f"z/{name}": wrong_files()[name], **good(4)})
    options: dict[str, Any] = {"batch_size": 4, "size": 8, "device": "cpu", **plain(4)}
    for where in (root, hidden) if ending == "tif" else (root,):
        batch_size = sum(path.is_file() for path in where.rglob("*"))
        with pytest.raises(ValueError, match=rf"[az]/{name}"):
            make(where, **{**options, "batch_size": batch_size})
    with pytest.warns(UserWarning, match=rf"1 of 4 samples are left out: a/{name} \("):
        loader = make(root, **{**options, "batch_size": 3}, on_error="skip")
    with loader:
        assert loader.skipped == (f"a/{name} ({PROBLEMS.get(name, 'bands')})",)
        assert sum(len(images) for images, _ in loader) == 3


@pytest.mark.parametrize("device", DEVICES)
def test_the_rule_is_stated_where_the_graph_meets_other_bands(device: str, tmp_path: Path) -> None:
    files = {f"a/{k}.tif": as_file(values(4, "uint8", k)) for k in range(5)}
    for name, data in (("z.tif", as_file(values(5, "uint8"))), ("z.jpg", pillow("L", "JPEG"))):
        root = folder(tmp_path / name[-3:], {**files, f"b/{name}": data})
        with pytest.raises(ValueError, match="`channels` must be the number of bands") as caught:
            dcm.val_loader(root, batch_size=6, size=8, device=device, **plain(4))
        assert f"b/{name}" in str(caught.value)
        assert "a/" not in str(caught.value).partition("Convert")[0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_gray_jpeg_does_not_end_the_process_in_any_batch(device: str, tmp_path: Path) -> None:
    files = {f"a/{k:03}.jpg": pillow("L", "JPEG") for k in range(70)}
    root = folder(tmp_path, files)
    for batch_size in (1, 70):
        with pytest.raises(ValueError, match="JPEGs are read by no other"):
            dcm.val_loader(root, batch_size=batch_size, size=8, device=device, **plain(4))
        with pytest.raises(ValueError, match="JPEGs are read by no other"):
            dcm.train_loader(root, batch_size=batch_size, size=8, device=device, **plain(4))


def test_a_bare_pipeline_states_the_rule(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a/0.jpg": pillow("L", "JPEG")})
    pipe = imagenet.val(
        str(root), channels=2, mean=[0, 0], std=[1, 1], batch_size=1, num_threads=1, device_id=None
    )
    with pytest.raises(RuntimeError, match="`channels` must be the number of bands"):
        graphs.run(pipe)
    with pytest.raises(OtherBands):
        decoded(pillow("L", "JPEG"), PixelFormat(2))
    with pytest.raises(OtherBands):
        decoded(as_file(values(5, "uint8")), PixelFormat(2))
    assert decoded(as_file(values(2, "uint8")), PixelFormat(2)).shape == (*SIZE, 2)


@pytest.mark.parametrize("kind", ["webdataset", "tfrecord"])
def test_shards_hold_bands_too_and_name_what_has_others(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = [values(5, "uint16", k) for k in range(4)]

    def shard(name: str, files: list[bytes]) -> str:
        if kind == "tfrecord":
            records = [{"image/encoded": file, "image/class/label": 0} for file in files]
            write_tfrecord(tmp_path / f"{name}.tfrecord", records)
            return str(tmp_path / f"{name}.tfrecord")
        parts = [
            (f"{k}.{e}", d) for k, f in enumerate(files) for e, d in (("jpg", f), ("cls", b"0"))
        ]
        write_tar(tmp_path / f"{name}.tar", parts)
        return str(tmp_path / f"{name}.tar")

    files = [as_file(p) for p in pixels]
    options: dict[str, Any] = {"batch_size": 5, "size": 24, "resize": 24, "device": "cpu"}
    options |= {**plain(5), "num_classes": 1, "read_as": "float32"}
    for wrong in (as_file(values(4, "uint8")), pillow("L", "JPEG")):
        mixed = shard(f"mixed{len(wrong)}", [*files[:2], wrong, *files[2:]])
        with pytest.raises(ValueError, match=r"`channels` must .*mixed\d+\.\w+ \(.*: image\)"):
            dcm.val_loader(mixed, **options)
        with pytest.warns(UserWarning, match=r"1 of 5 samples are left out: .* \(bands\)"):
            loader = dcm.val_loader(mixed, **options, on_error="skip")
        for image, expected in zip(each(loader), pixels, strict=True):
            assert np.abs(image - shown(expected[:, 6:30]).transpose(2, 0, 1)).max() < 1e-6


# One file, judged by what it is decoded to

DEEP, EIGHT = "float32", "uint8"
JUDGED: list[tuple[str, bytes, tuple[int, Any], str | None]] = [
    ("16 bits", png(values(1, "uint16")), (1, DEEP), None),
    ("16 bits", png(values(1, "uint16")), (3, DEEP), None),
    ("16 bits", png(values(1, "uint16")), (1, EIGHT), None),
    ("12 bits in 16", png(values(1, "uint16") // 16), (1, EIGHT), "depth"),
    ("12 bits in 16", png(values(1, "uint16") // 16), (1, DEEP), None),
    ("12 bits in 16", png(values(1, "uint16") // 16), (3, DEEP), None),
    ("colours of 16 bits", png(values(3, "uint16")), (3, DEEP), None),
    ("colours of 16 bits", as_file(values(3, "uint16")), (3, DEEP), None),
    ("floats", as_file(values(1, "float32")), (1, DEEP), None),
    ("floats", as_file(values(1, "float32")), (3, DEEP), None),
    ("floats", as_file(values(1, "float32")), (1, EIGHT), "depth"),
    ("colours as floats", as_file(values(3, "float32")), (3, DEEP), None),
    ("colours as floats", as_file(values(3, "float32")), (1, DEEP), None),
    ("colours as floats", as_file(values(3, "float32")), (3, EIGHT), "wrong type"),
    ("not a number", as_file(np.full((4, 4, 1), np.nan, np.float32)), (1, DEEP), "not finite"),
    ("infinite", as_file(np.full((4, 4, 5), np.inf, np.float32)), (5, DEEP), "not finite"),
    ("four bands", as_file(values(4, "uint8")), (4, EIGHT), None),
    ("four bands", as_file(values(4, "uint8")), (4, DEEP), None),
    ("four bands", as_file(values(4, "uint8")), (1, EIGHT), "bands"),
    ("four bands", as_file(values(4, "uint8")), (5, EIGHT), "bands"),
    ("four bands", as_file(values(4, "uint8")), (3, DEEP), "bands"),
    ("RGBA", png(values(4, "uint8")), (4, EIGHT), None),
    ("RGBA", png(values(4, "uint8")), (3, EIGHT), None),
    ("RGBA", png(values(4, "uint16")), (4, DEEP), None),
    ("RGBA", tiff(values(4, "uint8"), photometric=2, extra=2), (4, EIGHT), None),
    ("RGBA", tiff(values(4, "uint16"), photometric=2, extra=2), (4, DEEP), None),
    ("RGB and a band", tiff(values(4, "uint8"), photometric=2), (4, EIGHT), None),
    ("RGB and two", tiff(values(5, "uint8"), photometric=2), (5, EIGHT), None),
    ("RGB and two", tiff(values(5, "uint8"), photometric=2), (3, DEEP), "bands"),
    ("RGB and two", tiff(values(5, "uint8"), photometric=2), (1, EIGHT), "bands"),
    ("gray and a band", as_file(values(2, "uint8")), (2, EIGHT), None),
    ("gray and a band", as_file(values(2, "uint8")), (1, EIGHT), "bands"),
    ("gray and alpha", tiff(values(2, "uint8"), extra=2), (1, EIGHT), None),
    ("gray and alpha", tiff(values(2, "uint8"), extra=2), (2, EIGHT), None),
    ("gray and alpha", png(values(2, "uint8")), (2, EIGHT), "wrong type"),
    ("gray and alpha", png(values(2, "uint8")), (1, EIGHT), None),
    ("five of 16 bits", as_file(values(5, "uint16")), (5, EIGHT), None),
    ("five of 12 bits", as_file(values(5, "uint16") // 16), (5, EIGHT), "depth"),
    ("five of 12 bits", as_file(values(5, "uint16") // 16), (5, DEEP), None),
    ("five as floats", as_file(values(5, "float32")), (5, DEEP), None),
    ("five as floats", as_file(values(5, "float32")), (5, EIGHT), "depth"),
    ("five, cut", as_file(values(5, "uint8"))[:-1], (5, EIGHT), "truncated"),
    ("CMYK", pillow("CMYK", "TIFF"), (4, EIGHT), "other pixels"),
    ("gray JPEG", pillow("L", "JPEG"), (4, EIGHT), "bands"),
    ("gray JPEG", pillow("L", "JPEG"), (1, EIGHT), None),
    ("gray JPEG", pillow("L", "JPEG"), (1, DEEP), None),
    ("WebP", pillow("RGBA", "WEBP", lossless=True, exact=True), (4, EIGHT), None),
    ("JPEG 2000", pillow("RGBA", "JPEG2000"), (4, EIGHT), None),
    ("33 bands", as_file(values(33, "uint8")), (32, EIGHT), "bands"),
    ("32 bands", as_file(values(32, "uint8")), (32, EIGHT), None),
]
PILLOW_READS_NOT = ("colours as", "four bands", "RGB and", "five", "32 bands", "gray and a band")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("case", JUDGED, ids=[f"{name} {to}" for name, _, to, _ in JUDGED])
def test_files_are_judged_by_what_they_are_decoded_to(case: Any) -> None:
    name, data, to, problem = case
    verdict = damage.verify_image(data, to=PixelFormat(*to))
    assert verdict.problem == problem, verdict
    if problem is None:
        assert decoded(data, PixelFormat(*to)).shape[2] == to[0]
        alone = "decoded by DALI alone" in verdict.notes
        of_16 = name.startswith("RGB") and to[0] == 4 and data[:2] == b"II"
        assert alone or not name.startswith(("colours as", "four bands", "five", "32"))
        assert not alone or name.startswith(PILLOW_READS_NOT) or of_16


def test_other_pixels_than_in_the_file_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [(png(values(4, "uint8")), (4, EIGHT)), (png(values(1, "uint16")), (1, DEEP))]
    cases += [(as_file(values(1, "float32")), (1, DEEP)), (png(values(3, "uint8")), (3, DEEP))]
    for data, to in cases:
        wrong = np.roll(decoded(data, PixelFormat(*to)), 1, axis=1)
        with monkeypatch.context() as patch:
            patch.setattr(damage, "decoded", lambda *_, wrong=wrong: wrong)
            verdict = damage.verify_image(data, to=PixelFormat(*to))
        assert verdict.problem == "other pixels"


@pytest.mark.parametrize("bands", [2, 4, 5])
def test_turned_files_of_many_bands_are_named(bands: int) -> None:
    # Which DALI 2.4.0 does not decode.
    data = as_file(values(bands, "uint8"), turn=6)
    assert damage.verify_image(data, to=PixelFormat(bands)).problem == "wrong type"


def test_large_ones_of_many_bands_are_too_large() -> None:
    data = as_file(values(5, "uint8"))
    assert damage.verify_image(data, max_pixels=24 * 36, to=PixelFormat(5)).problem is None
    assert damage.verify_image(data, max_pixels=24 * 36 - 1, to=PixelFormat(5)) == (
        *("too large", "36 x 24 pixels", ()),
    )


def test_pillow_is_not_asked_for_what_it_logs_an_error_of(caplog: pytest.LogCaptureFixture) -> None:
    for bands in (5, 13):
        assert damage.verify_image(as_file(values(bands, "uint8")), to=PixelFormat(5)).notes == (
            ("decoded by DALI alone",) if bands == 5 else ()
        )
    assert not caplog.records


def test_a_strip_beyond_the_end_is_missing() -> None:
    data = as_file(values(5, "uint8"))
    length = struct.pack("<HHII", 279, 4, 1, 24 * 36 * 5)
    assert length in data
    longer = data.replace(length, struct.pack("<HHII", 279, 4, 1, 2 * len(data)))
    verdict = damage.verify_image(longer, to=PixelFormat(5))
    assert verdict == ("truncated", f"{len(data)} bytes of {2 * len(data) + 8}", ())


# The command


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as Pillow says of tags that end
def test_check_judges_by_the_options_and_remembers_each_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {f"a/{name}": data for name, data in wrong_files().items()}
    deep = {"b/deep.png": png(values(4, "uint16")), "b/float.tif": as_file(values(4, "float32"))}
    root = folder(tmp_path / "data", {**files, **good(), **deep})

    def checked(*flags: str) -> tuple[int, dict[str, Any]]:
        status = cli.main(["check", str(root), "--json", *flags])
        return status, json.loads(capsys.readouterr().out)

    for _ in range(2):
        status, report = checked("--channels", "4", "--read-as", "float32")
        assert status == 3
        found = {problem["name"]: problem["kind"] for problem in report["problems"]}
        assert found == {f"a/{name}": PROBLEMS.get(name, "bands") for name in wrong_files()}
    assert report["looked_at"] == 0
    notes = [note["name"] for note in report["notes"] if note["kind"] == "decoded by DALI alone"]
    assert notes == ["b/0.tif", "b/1.tif", "b/2.tif", "b/float.tif"]
    _, report = checked("--channels", "4")
    assert {"name": "b/float.tif", "kind": "depth", "detail": "float values"} in report["problems"]
    _, report = checked()
    assert report["looked_at"] == len(files) + 5
    assert {p["name"] for p in report["problems"]} >= {f"b/{k}.tif" for k in range(3)}
    assert cli.main(["check", str(root), "--channels", "33"]) == 1
    assert "`channels` must be at most 32" in capsys.readouterr().err


# Options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"channels": 0}, "`channels` must be at least 1"),
        ({"channels": 33}, "`channels` must be at most 32"),
        ({"channels": True}, "`channels` must be an int"),
        ({"read_as": "uint16"}, '`read_as` must be one of "uint8", "float32"'),
        ({"channels": 4}, "`mean` and `std` must be given with `channels=4`"),
        ({"channels": 1}, "`mean` and `std` must be given with `channels=1`"),
        ({"channels": 4, "mean": [0.5] * 4}, "`mean` and `std` must be given"),
        ({"channels": 4, "mean": [0.5] * 3, "std": [1] * 4}, "`mean` must be 4 numbers"),
        ({"channels": 4, "mean": [0.5] * 4, "std": [1] * 3}, "`std` must be 4 numbers"),
        ({"channels": 2, "mean": [0, 2], "std": [1, 1]}, r"`mean` must be in \[0, 1\]"),
        ({"channels": 2, "mean": [0, 1], "std": [1, 0]}, r"`std` must be in \[0.0001, 10000\]"),
        ({"read_as": "float32", "std": [0, 1, 1]}, r"`std` must be in \[1e-09, 1e\+09\]"),
        ({"read_as": "float32", "mean": [0, 1, 1e10]}, r"`mean` must be in \[-1e\+09, 1e\+09\]"),
        ({"mean": [0.5] * 4}, "`mean` must be 3 numbers"),
    ],
)
def test_wrong_options_are_refused_at_once(
    options: dict[str, Any], match: str, photos: str
) -> None:
    for make in (dcm.train_loader, dcm.val_loader):
        with pytest.raises((TypeError, ValueError), match=match):
            make(photos, batch_size=4, size=8, device="cpu", **options)


def test_policies_are_of_8_bit_rgb(photos: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 8, "device": "cpu"}
    with pytest.raises(ValueError, match='`augment` must be None with `read_as="float32"`'):
        dcm.train_loader(photos, recipe="deit", read_as="float32", **options)
    with pytest.raises(ValueError, match="`augment` must be None with `channels=1`"):
        dcm.train_loader(photos, augment=dcm.ColorJitter(), **plain(1), **options)
    with dcm.train_loader(
        photos, recipe="deit", augment=None, repeats=1, read_as="float32", **options
    ) as loader:
        assert next(iter(loader))[0].isfinite().all()
