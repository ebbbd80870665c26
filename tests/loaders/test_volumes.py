"""volume_loader against NumPy: what is in a batch is from the same volume and place in its mask."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dali_cutmix as dcm
from dali_cutmix.data.volumes import MaskType, VolumeLayout
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
COUNT = 13
CODES = 1000  # more than there are voxels in a volume
SIZE = (5, 6, 4)
CUTMIX = dcm.MixConfig(partner="derangement")
OBJECTS = dcm.MixConfig(methods=(dcm.ObjectCutMix(),))


def shape_of(number: int) -> tuple[int, int, int]:
    """Returns odd and even shapes, larger than SIZE in every axis, of at most 990 voxels."""
    return 6 + number % 4, 7 + number % 5, 8 + number % 3


def code_of(number: int, shape: tuple[int, ...]) -> Array:
    """Returns a mask whose values tell volume and voxel; 0 is none."""
    return number * CODES + 1 + np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def voxels_of(codes: Array, dtype: str, channel: int = 0) -> Array:
    """Returns the voxels that belong to the codes, in the values of a type, as float32."""
    values = (codes * 37 + codes // 91 * 11 + channel * 7) % 251
    return (values - (0 if dtype == "uint8" else 100)).astype(np.float32)


def volume_of(codes: Array, dtype: str, layout: str, channels: int) -> Array:
    parts = [voxels_of(codes, dtype, channel).astype(dtype) for channel in range(channels)]
    return parts[0] if layout == "DHW" else np.stack(parts, 0 if layout == "CDHW" else -1)


def write(
    root: Path,
    dtype: str = "int16",
    mask_dtype: str = "int32",
    layout: str = "DHW",
    channels: int = 1,
    shapes: Any = shape_of,
    count: int = COUNT,
) -> Path:
    """Writes volumes, in three folders, and masks: codes, or where these are too many 0 and 1."""
    for k in range(count):
        name = f"{'abc'[k % 3]}/case {k:02}.npy"
        for part in ("images", "masks"):
            (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        codes = code_of(k, shapes(k))
        np.save(root / "images" / name, volume_of(codes, dtype, layout, channels))
        mask = codes if mask_dtype.endswith(("32", "64")) else codes % 2
        np.save(root / "masks" / name, mask.astype(mask_dtype))
    return root


def in_order(count: int = COUNT) -> list[int]:
    """Returns the numbers of the volumes as their names are sorted."""
    return sorted(range(count), key=lambda k: (k % 3, k))


def load(root: Path, **options: Any) -> dcm.Loader:
    given = {"batch_size": 4, "size": SIZE, "device": "cpu", "seed": 1, **options}
    return dcm.volume_loader(root / "images", root / "masks", **given)


def copied(loader: Any) -> list[tuple[Array, Array]]:
    """Returns what is left of an epoch."""
    return [(images.cpu().numpy().copy(), masks.cpu().numpy().copy()) for images, masks in loader]


def assert_same(a: list[tuple[Array, Array]], b: list[tuple[Array, Array]]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("coded"))


class Region:
    """The voxels of one volume in a mask of codes, which must be a crop of it, mirrored or not."""

    def __init__(self, codes: Array, number: int, shape: tuple[int, ...]) -> None:
        self.where = (codes > 0) & ((codes - 1) // CODES == number)
        at = np.argwhere(self.where)
        low, high = at.min(0), at.max(0) + 1
        self.is_box = bool(self.where[tuple(map(slice, low, high))].all())
        found = np.stack(np.unravel_index((codes[self.where] - 1) % CODES, shape), 1)
        self.signs: list[int] = []
        self.start: list[int] = []
        for axis in range(3):
            for sign in (1, -1):
                offset = found[:, axis] - sign * at[:, axis]
                if (offset == offset[0]).all():
                    back = 0 if sign == 1 else codes.shape[axis] - 1
                    self.signs.append(sign)
                    self.start.append(int(offset[0]) - back)
                    break
        assert len(self.signs) == 3, "not one crop"


def regions(codes: Array, shapes: Any = shape_of) -> dict[int, Region]:
    numbers = np.unique((codes[codes > 0] - 1) // CODES)
    return {int(k): Region(codes, int(k), shapes(int(k))) for k in numbers}


# Training


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("layout", "channels"), [("DHW", 1), ("DHWC", 3), ("CDHW", 2)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("mix", [None, CUTMIX], ids=["plain", "cutmix"])
def test_voxels_and_classes_are_of_one_volume_and_place(
    mix: Any, dtype: str, layout: VolumeLayout, channels: int, device: str, tmp_path: Path
) -> None:
    write(tmp_path, dtype, "int64", layout, channels)
    seen: list[int] = []
    mixed = 0
    with load(tmp_path, layout=layout, mix=mix, device=device, foreground=0.3) as loader:
        assert len(loader) == 3
        for images, masks in loader:
            assert images.shape == (4, channels, *SIZE)
            assert images.dtype == torch.float32
            assert masks.dtype == torch.int64
            for image, codes in zip(images.cpu().numpy(), masks.cpu().numpy(), strict=True):
                for channel in range(channels):
                    assert np.array_equal(image[channel], voxels_of(codes, dtype, channel))
                found = regions(codes)
                assert len(found) <= (1 if mix is None else 2)
                assert any(region.is_box for region in found.values())
                assert sum(int(region.where.sum()) for region in found.values()) == codes.size
                mixed += len(found) - 1
                for number, region in found.items():
                    spare = np.subtract(shape_of(number), SIZE)
                    assert (np.array(region.start) >= 0).all()
                    assert (region.start <= spare).all()
                seen += found.keys()
    if mix is None:
        assert len(set(seen)) == 12  # each once
    else:
        assert mixed > 4


def test_every_place_and_mirror_comes(tmp_path: Path) -> None:
    # 600 crops in all places, 2 x 3 x 4, uniformly; axis by axis mirrored as often as asked for;
    # and no two of the draws hang together: 5 standard deviations each.
    write(tmp_path, count=2, shapes=lambda _: (6, 8, 7))
    draws = []
    with load(tmp_path, batch_size=2, flip=(0.0, 0.25, 0.75)) as loader:
        for _ in range(300):
            for _, masks in loader:
                for codes in masks.numpy():
                    ((_, region),) = regions(codes, lambda _: (6, 8, 7)).items()
                    draws.append([*region.start, *region.signs])
    found = np.array(draws)
    assert len(found) == 600
    for axis, places in enumerate((2, 3, 4)):
        counts = np.bincount(found[:, axis], minlength=places)
        assert len(counts) == places
        chance = 1 / places
        assert np.abs(counts / 600 - chance).max() < 5 * np.sqrt(chance * (1 - chance) / 600)
    shares = (found[:, 3:] == -1).mean(0)
    assert shares[0] == 0
    assert np.abs(shares[1:] - [0.25, 0.75]).max() < 5 * np.sqrt(0.1875 / 600)
    correlation = np.corrcoef(np.delete(found, 3, axis=1).T)
    assert np.abs(correlation - np.eye(5)).max() < 5 / np.sqrt(600)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
def test_smaller_volumes_lie_in_the_middle(training: bool, device: str, tmp_path: Path) -> None:
    def shapes(k: int) -> tuple[int, int, int]:
        return 3 + k % 4, 4 + k % 4, 2 + k % 4  # SIZE is (5, 6, 4)

    write(tmp_path, shapes=shapes)
    options: Any = {"fill": -77, "flip": (0, 0, 0), "batch_size": 1, "device": device}
    with load(tmp_path, training=training, **options) as loader:
        for images, masks in loader:
            codes, image = masks[0].cpu().numpy(), images[0, 0].cpu().numpy()
            ((number, region),) = regions(codes, shapes).items()
            for start, have, want in zip(region.start, shapes(number), SIZE, strict=True):
                if have < want or not training:
                    assert start == (have - want) // 2
                else:
                    assert 0 <= start <= have - want
            assert np.array_equal(image, np.where(codes > 0, voxels_of(codes, "int16"), -77))
            assert (codes > 0).sum() == np.minimum(shapes(number), SIZE).prod()
            assert (codes[codes <= 0] == 0).all()


def test_what_is_around_a_small_volume_becomes_0(tmp_path: Path) -> None:
    write(tmp_path, "float32", layout="DHWC", channels=2, shapes=lambda _: (3, 3, 3))
    given: Any = {"training": False, "layout": "DHWC", "batch_size": 1}
    for scaling in ({"mean": [3.25, -1.5], "std": [2, 4]}, {"window": (-50.5, 9)}, {}):
        with load(tmp_path, **given, **scaling) as loader:
            for images, masks in loader:
                around = masks[0] == 0
                assert around.sum() == np.prod(SIZE) - 27
                assert (images[0][:, around] == 0).all()
                assert (images[0][:, ~around] != 0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_foreground_is_in_the_crop(device: str, tmp_path: Path) -> None:
    # A single voxel of 24 x 24 x 24 is in few crops of 8 x 8 x 8; around it, in all, in a corner
    # too. A mask without any is cropped anywhere.
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for k in range(8):
            volume = np.zeros((24, 24, 24), np.uint8)
            if k:
                volume[(0, 0, 23) if k == 1 else (23, 9, k)] = 1
            np.save(tmp_path / part / f"{k}.npy", volume)
    shares = []
    for foreground in (0.0, 0.5, 1.0):
        shown, options = 0, {"size": (8, 8, 8), "batch_size": 8, "device": device}
        with load(tmp_path, foreground=foreground, **options) as loader:
            for _ in range(30):
                for images, masks in loader:
                    assert torch.equal(images[:, 0], masks.float())
                    shown += int(masks.amax(dim=(1, 2, 3)).sum())
        shares.append(shown / 210)
    assert shares[0] < 0.1
    assert 0.4 < shares[1] < 0.7
    assert shares[2] == 1


# Validation


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "scaling", [{}, {"mean": 11.5, "std": 7}, {"window": (-20, 60)}], ids=["none", "mean", "window"]
)
def test_validation_equals_numpy(scaling: Any, dtype: Any, device: str, coded: Path) -> None:
    size = (4, 9, 6)  # in height some volumes are smaller
    options: Any = {"size": size, "batch_size": 5, "dtype": dtype, "device": device}
    with load(coded, training=False, **options, **scaling) as loader:
        epochs = [copied(loader) for _ in range(2)]
    assert_same(*epochs)
    assert [len(masks) for _, masks in epochs[0]] == [5, 5, 3]
    images, masks = (np.concatenate(parts) for parts in zip(*epochs[0], strict=True))
    assert images.dtype == dtype
    for k, image, mask in zip(in_order(), images, masks, strict=True):
        start = [9 + (have - want) // 2 for have, want in zip(shape_of(k), size, strict=True)]
        crop = tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))
        codes = np.pad(code_of(k, shape_of(k)), 9)[crop]
        assert np.array_equal(mask, codes)
        wanted, around = voxels_of(codes, "int16"), 0.0
        if "mean" in scaling:
            wanted, around = (wanted - 11.5) / 7, (12 - 11.5) / 7  # of integers the nearest one
        elif "window" in scaling:
            wanted = np.clip((wanted + 20) / 80, 0, 1)
        wanted = np.where(codes > 0, wanted, around)
        tolerance = 1e-6 if dtype == "float32" else 1e-3
        assert np.allclose(image[0], wanted, rtol=tolerance, atol=tolerance)


def test_whole_volumes(coded: Path) -> None:
    with load(coded, training=False, size=None, batch_size=1) as loader:
        for k, (images, masks) in zip(in_order(), loader, strict=True):
            codes = code_of(k, shape_of(k))
            assert np.array_equal(masks[0], codes)
            assert np.array_equal(images[0, 0], voxels_of(codes, "int16"))


@pytest.mark.parametrize(("layout", "channels"), [("DHWC", 3), ("CDHW", 2)])
def test_statistics_of_each_channel(layout: VolumeLayout, channels: int, tmp_path: Path) -> None:
    write(tmp_path, "float32", layout=layout, channels=channels)
    mean, std = [1.5, -2.0, 30.0][:channels], [2.0, 8.0, 0.5][:channels]
    given: Any = {"size": None, "batch_size": 1, "layout": layout}
    with load(tmp_path, training=False, mean=np.array(mean), std=std, **given) as loader:
        for k, (images, _) in zip(in_order(), loader, strict=True):
            codes = code_of(k, shape_of(k))
            for channel in range(channels):
                wanted = (voxels_of(codes, "float32", channel) - mean[channel]) / std[channel]
                assert np.array_equal(images[0, channel], wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "mask_dtype",
    [
        *("bool", "uint8", "int8", "uint16", "int16"),
        *("uint32", "int32", "uint64", "int64"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_masks_of_every_type(
    training: bool, mask_dtype: MaskType, device: str, tmp_path: Path
) -> None:
    write(tmp_path, "int16", mask_dtype, shapes=lambda _: (7, 5, 9))
    options: Any = {"mix": CUTMIX, "foreground": 0.5} if training else {}
    with load(tmp_path, training=training, num_classes=14_000, device=device, **options) as loader:
        for images, masks in loader:
            assert masks.dtype == torch.int64
            codes = masks.cpu().numpy()
            if mask_dtype.endswith(("32", "64")):
                inside = codes > 0
                wanted = np.where(inside, voxels_of(codes, "int16"), 0)
                assert np.array_equal(images[:, 0].cpu().numpy(), wanted)
            else:
                assert set(np.unique(codes)) == {0, 1}


@pytest.mark.gpu
@pytest.mark.parametrize("mix", [None, CUTMIX, OBJECTS], ids=["plain", "cutmix", "objects"])
def test_devices_give_the_same(mix: Any, coded: Path) -> None:
    given: Any = {"mix": mix, "foreground": 0.5, "window": (-50, 90)}
    runs = []
    for device in ("cpu", "gpu"):
        with load(coded, device=device, **given) as loader:
            runs.append([batch for _ in range(2) for batch in copied(loader)])
    for one, other in zip(*runs, strict=True):
        assert np.array_equal(one[1], other[1])
        assert np.abs(one[0] - other[0]).max() < 1e-6


# What all loaders promise


@pytest.mark.parametrize("mix", [CUTMIX, OBJECTS], ids=["CutMix", "ObjectCutMix"])
def test_places_are_computed(mix: Any, coded: Path) -> None:
    given: Any = {"mix": mix, "foreground": 0.5}
    with load(coded, **given) as loader:
        epochs = [copied(loader) for _ in range(3)]
    assert not np.array_equal(epochs[0][0][1], epochs[1][0][1])
    with load(coded, **given) as loader, warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is read on
        for epoch, batch in ((2, 1), (0, 2), (1, 0)):
            loader.seek(epoch, batch)
            assert_same(copied(loader), epochs[epoch][batch:])
        loader.set_epoch(2)
        assert_same(copied(loader), epochs[2])
    with load(coded, start_epoch=1, **given) as loader:
        assert_same(copied(loader), epochs[1])


def test_a_state_goes_on_and_knows_its_data(coded: Path, tmp_path: Path) -> None:
    with load(coded, mix=CUTMIX) as loader:
        next(iter(loader))
        state = loader.state_dict()
        rest = copied(loader.rest())
    with load(coded, mix=CUTMIX) as loader:
        loader.load_state_dict(state)
        assert_same(copied(loader), rest)
    with load(write(tmp_path), mix=CUTMIX) as loader:  # wherever they lie
        loader.load_state_dict(state)
        assert_same(copied(loader), rest)
    changes: dict[str, Any] = {
        "mix": {"mix": None},
        "flip": {"flip": (0, 0, 0)},
        "scaling": {"window": (0, 1)},
        "fill": {"fill": 3},
        "shuffle": {"shuffle": False},
        "size": {"size": (4, 4, 4)},
        "foreground": {"foreground": 0.2},
        "num_classes": {"num_classes": 14_000},
        "source": {"subset": range(1, COUNT)},
    }
    for name, options in changes.items():
        with load(coded, **{"mix": CUTMIX, **options}) as loader:
            with pytest.raises(ValueError, match=rf"(got|;) {name}: "):
                loader.load_state_dict(state)
    for part in ("images", "masks"):
        (tmp_path / part / "a/case 00.npy").rename(tmp_path / part / "a/case 01.npy")
    with load(tmp_path, mix=CUTMIX) as loader:
        with pytest.raises(ValueError, match="got source: volumes"):
            loader.load_state_dict(state)


def test_shards_part_the_volumes(coded: Path) -> None:
    for training in (True, False):
        seen: list[int] = []
        for shard in range(3):
            options: Any = {"batch_size": 2, "shard_id": shard, "num_shards": 3, "even": False}
            with load(coded, training=training, **options) as loader:
                seen += [int(m.max() - 1) // CODES for _, masks in loader for m in masks]
        assert len(seen) == len(set(seen)) == (12 if training else COUNT)
    with pytest.raises(ValueError, match="`num_shards` must be at most the 13 volumes, got 14"):
        load(coded, shard_id=0, num_shards=14)


def test_every_shard_has_the_same_validation_batches(coded: Path) -> None:
    for size, batch_size in ((SIZE, 2), (None, 1)):
        sizes, seen = [], []
        for shard in range(3):  # of 4, 4 and 5 volumes
            options: Any = {"batch_size": batch_size, "shard_id": shard, "num_shards": 3}
            with load(coded, training=False, size=size, ignore_index=-7, **options) as loader:
                masks = [masks for _, masks in loader]
                assert len(loader) == len(masks)
            sizes.append([len(batch) for batch in masks])
            seen.append(
                [
                    -1 if bool((m == -7).all()) else int(m.max() - 1) // CODES
                    for batch in masks
                    for m in batch
                ]
            )
        assert sizes == [sizes[0]] * 3
        assert sum(sizes[0]) == 5
        assert [one.count(-1) for one in seen] == [1, 1, 0]
        assert [k for one in seen for k in one if k >= 0] == in_order()
        assert seen[0][3] == -1


def test_a_subset(coded: Path) -> None:
    folds = [[k for k in range(COUNT) if k % 5 == fold] for fold in range(5)]
    for indices in folds:
        with load(coded, training=False, subset=indices) as loader:
            numbers = [int(m.max() - 1) // CODES for _, masks in loader for m in masks]
        assert numbers == [in_order()[k] for k in indices]
    with pytest.raises(ValueError, match="`subset` must be at most 12, got 13"):
        load(coded, subset=[13])
    with pytest.raises(TypeError, match="`subset` must be a sequence of indices, got True"):
        load(coded, subset=True)


def test_an_order_of_ones_own(coded: Path) -> None:
    order = [12, 3, 3, 7]
    with load(coded, subset=order, shuffle=False, batch_size=2) as loader:
        for _ in range(2):
            numbers = [int(m.max() - 1) // CODES for _, masks in loader for m in masks]
            assert numbers == [in_order()[k] for k in order]


def test_mixing_is_switched(coded: Path) -> None:
    def mixed(loader: dcm.Loader) -> int:
        return sum(len(regions(codes)) == 2 for _, masks in loader for codes in masks.numpy())

    with load(coded, mix=CUTMIX, switchable=True) as loader:
        assert mixed(loader) >= 5
        loader.mixing = False
        mixed(loader)
        assert mixed(loader) == 0
        loader.mixing = True
        mixed(loader)
        assert mixed(loader) >= 5
        assert (loader.batch_size, loader.num_images, loader.num_classes) == (4, COUNT, None)


def test_names_may_differ_at_their_ends(tmp_path: Path) -> None:
    write(tmp_path)
    for path in [*(tmp_path / "images").rglob("*.npy")]:
        path.rename(path.with_name(path.stem + "_0000.npy"))
    with load(tmp_path, mask_names=("_0000.npy", ".npy")) as loader:
        assert loader.num_images == COUNT
    both = tmp_path / "both"
    both.mkdir()
    for path in [*(tmp_path / "images").rglob("*.npy")]:
        path.rename(both / path.name)
    for path in [*(tmp_path / "masks").rglob("*.npy")]:
        path.rename(both / f"{path.stem}_seg.npy")
    (both / ".hidden_0000.npy").write_bytes(b"")
    options: Any = {"mask_names": ("_0000.npy", "_seg.npy"), "device": "cpu"}
    with dcm.volume_loader(both, both, batch_size=4, size=SIZE, **options) as loader:
        for images, masks in loader:
            assert np.array_equal(images[:, 0], voxels_of(masks.numpy(), "int16"))


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": None}, ValueError, r"`size` must be \(depth, height, width\) for training"),
        ({"size": (4, 5)}, TypeError, r"`size` must be \(depth, height, width\), got \(4, 5\)"),
        ({"size": None, "training": False}, ValueError, "`batch_size` must be 1 for whole vol"),
        ({"training": 1}, TypeError, "`training` must be a bool"),
        ({"mix": "cutmix"}, TypeError, "`mix` must be a MixConfig or None"),
        ({"mix": CUTMIX, "training": False}, ValueError, "`mix` must be None with `training="),
        ({"mix": CUTMIX, "batch_size": 1}, ValueError, "`batch_size` must be at least 2"),
        (
            {"mix": dcm.MixConfig(mixup_alpha=0.2)},
            ValueError,
            "`mix` must paste and not blend, got MixUp",
        ),
        ({"switchable": True}, ValueError, "`switchable` must be False where `mix` is None"),
        ({"flip": 0.5}, TypeError, "`flip` must be 3 numbers, got 0.5"),
        ({"flip": (0, 0, 2)}, ValueError, r"`flip` must be in \[0, 1\], got 2"),
        ({"foreground": -1}, ValueError, r"`foreground` must be in \[0, 1\], got -1"),
        ({"mean": [1, 2]}, TypeError, r"`mean` must be 1 numbers, got \[1, 2\]"),
        ({"std": 0}, ValueError, "`std` must be above 0, got 0"),
        ({"window": (0, 1), "std": 2}, ValueError, "`window` must be left out with `mean`"),
        ({"window": (1, 1)}, ValueError, r"`window` must be \(low, high\), low below high"),
        ({"fill": 0.5}, ValueError, "`fill` must be a value of the volumes, int16, got 0.5"),
        ({"fill": 40_000}, ValueError, "`fill` must be a value of the volumes, int16"),
        ({"layout": "HWD"}, ValueError, '`layout` must be one of "DHW", "DHWC", "CDHW"'),
        ({"layout": "DHWC"}, ValueError, r"must be DHWC \(`layout`\), got shape \(6, 7, 8\)"),
        ({"mask_names": ".npy"}, ValueError, "`mask_names` must be how the names of volumes and"),
        ({"mask_names": ("x", ".npy")}, ValueError, "`mask_names` must be how the names of volu"),
        ({"mask_names": ("_0.npy", ".npy")}, ValueError, "`mask_names` must end every volume"),
        ({"mask_names": (".npy", "_0.npy")}, FileNotFoundError, "`masks` must have a mask for e"),
        ({"shuffle": 0}, TypeError, "`shuffle` must be a bool"),
        ({"subset": []}, ValueError, "`subset` must have an index"),
        ({"num_classes": 0}, ValueError, "`num_classes` must be at least 1, got 0"),
        ({"on_error": "ignore"}, ValueError, '`on_error` must be one of "raise", "skip"'),
        ({"dtype": "int16"}, ValueError, '`dtype` must be one of "float32", "float16"'),
        ({"batch_size": 14}, ValueError, "`batch_size` must be at most the 13"),
    ],
)
def test_wrong_options_are_refused(
    options: Any, error: type[Exception], message: str, coded: Path
) -> None:
    with pytest.raises(error, match=message):
        load(coded, **options)


def test_wrong_folders_are_refused(coded: Path, tmp_path: Path) -> None:
    given: Any = {"batch_size": 4, "size": SIZE, "device": "cpu"}
    images = coded / "images"
    with pytest.raises(FileNotFoundError, match=r"`masks` must be a folder of .npy files"):
        dcm.volume_loader(images, tmp_path / "none", **given)
    with pytest.raises(TypeError, match=r"`images` must be a folder of .npy files, got 3"):
        dcm.volume_loader(3, images, **given)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"`images` must hold .npy files"):
        dcm.volume_loader(tmp_path, images, **given)
    with pytest.raises(ValueError, match="`mask_names` must be two different ends where"):
        dcm.volume_loader(images, images, **given)


DAMAGES: list[tuple[str, Any, str]] = [  # of volume 12, int16 and int32 (6, 9, 8)
    ("masks", np.zeros((6, 8, 9), np.int32), r"must be of the shape of its volume, \(6, 9, 8\)"),
    ("masks", np.zeros((6, 9, 8), np.uint8), "must be int32, as the first mask, got uint8"),
    ("masks", np.zeros((6, 9, 8), np.float32), "must be a mask of class indices, integers, got fl"),
    ("images", np.zeros((6, 9, 8), np.float32), "must be int16 with 1 channel.*got float32 with 1"),
    ("images", np.zeros((6, 9, 8), np.float64), "must be uint8, int16, float32, got float64"),
    ("images", np.zeros((6, 9), np.int16), r"must be DHW \(`layout`\), got shape \(6, 9\)"),
    ("images", np.zeros((6, 0, 8), np.int16), r"must be DHW \(`layout`\), got shape \(6, 0, 8\)"),
    ("images", np.zeros((8, 9, 6), np.int16).T, "is in Fortran order: write it anew"),
    ("images", np.zeros((6, 9, 8), ">i2"), "must hold little-endian numbers, got >i2"),
    ("images", b"text", "is no .npy file that np.save writes"),
    ("images", 200, r"must have 992 bytes by its header, got 200"),
]


@pytest.mark.parametrize(("part", "content", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_what_does_not_fit_is_named_or_skipped(
    part: str, content: Any, message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    path = tmp_path / part / "a" / "case 12.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        os.truncate(path, content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=f"1 of 13 do not: .*case 12.npy' {message}"):
        load(tmp_path)
    with pytest.warns(UserWarning, match="1 of 13 volumes are left out: a/case 12.npy"):
        loader = load(tmp_path, on_error="skip", training=False)
    with loader:
        assert loader.num_images == COUNT - 1
        assert loader.skipped[0].startswith("a/case 12.npy (")
        left = [int(m.max() - 1) // CODES for _, masks in loader for m in masks]
        assert left == [k for k in in_order() if k != 12]


def test_missing_and_unused_masks_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "masks/b/case 04.npy").rename(tmp_path / "masks/b/other.npy")
    with pytest.raises(FileNotFoundError, match="`masks` must be a folder of"):
        dcm.volume_loader(tmp_path / "images", "", batch_size=2, size=SIZE, device="cpu")
    with pytest.raises(FileNotFoundError, match=r"of the 13 volumes, .* lacks 1: 'b/case 04.npy'"):
        load(tmp_path)
    (tmp_path / "images/b/case 04.npy").unlink()
    with pytest.warns(UserWarning, match=r"1 mask\(s\) of .* belong to no volume: 'b/other.npy'"):
        load(tmp_path).close()


@pytest.mark.parametrize("value", [-1, 2])
@pytest.mark.parametrize("device", DEVICES)
def test_classes_out_of_range_are_named(device: str, value: int, tmp_path: Path) -> None:
    write(tmp_path, mask_dtype="int8", shapes=lambda _: SIZE)
    mask = np.zeros(SIZE, np.int8)
    mask[2, 3, 1] = value
    np.save(tmp_path / "masks/c/case 05.npy", mask)
    with load(tmp_path, training=False, device=device) as loader:  # that a loss ignores, say
        assert any((masks == value).any() for _, masks in loader)
    message = rf"c/case 05.npy' must hold class indices in \[0, 2\), got .*{value}"
    with pytest.raises(ValueError, match=message):
        copied(load(tmp_path, training=False, num_classes=2, device=device))
    with pytest.warns(UserWarning, match=r"left out: c/case 05.npy \(classes\)"):
        load(tmp_path, num_classes=2, on_error="skip", device=device).close()


def test_values_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, "float32")
    volume = np.load(tmp_path / "images/b/case 07.npy")
    volume[1, 2, 3] = np.nan
    np.save(tmp_path / "images/b/case 07.npy", volume)
    with pytest.warns(UserWarning, match=r"left out: b/case 07.npy \(values\)"):
        load(tmp_path, on_error="skip").close()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("images", None, "case 00.npy' is not there"),
        ("masks", None, "case 00.npy' is not there"),
        ("images", 300, "case 00.npy' must have 800 bytes by its header, got 300"),
        ("masks", 300, "case 00.npy' must have 1,472 bytes by its header, got 300"),
        ("images", np.zeros((6, 7, 8), np.uint8), "case 00.npy' must be int16 with 1"),
        ("images", np.zeros((6, 7, 9), np.int16), r"case 00.npy' must be of the shape"),
        ("masks", np.zeros((6, 7, 9), np.int32), r"case 00.npy' must be of the shape"),
    ],
    ids=range(7),
)
def test_files_that_change_later_are_named(
    part: str, change: Any, message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with load(tmp_path, training=False) as loader:
        path = tmp_path / part / "a" / "case 00.npy"
        if change is None:
            path.unlink()
        elif isinstance(change, int):
            os.truncate(path, change)
        else:
            np.save(path, change)
        with pytest.raises(ValueError, match=message):
            [copied(loader) for _ in range(3)]
