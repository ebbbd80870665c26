"""detection_loader: boxes are where the pixels are, and all that loaders promise."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.data.boxes import ssd_crop
from dali_cutmix.pipelines import detection
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array
from tests.support.rectangles import Rectangles, write_rectangles

MIXES = {
    "none": None,
    "CutMix": dcm.MixConfig(),
    "half": dcm.MixConfig(prob=0.5, partner="derangement"),
    "MixUp": dcm.MixConfig(cutmix_alpha=0.0, mixup_alpha=1.0),
    "ResizeMix": dcm.MixConfig(methods=(dcm.ResizeMix(),)),
}
RAW: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "device": "cpu", "num_threads": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Rectangles:
    """67 images of 40 x 48."""
    return write_rectangles(tmp_path_factory.mktemp("rectangles"), 67)


def loader(data: Rectangles, **options: Any) -> dcm.Loader:
    options = {**RAW, "size": (40, 48), "batch_size": 16, **options}
    return dcm.detection_loader(data.folder, data.annotations, **options)


def pixels_of(images: torch.Tensor) -> Array:
    """(N, H, W, 3), as bytes."""
    return (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


def plain(batch: Any) -> tuple[Array, list[dict[str, list[Any]]]]:
    images, targets = batch
    return images.numpy(), [{k: v.tolist() for k, v in target.items()} for target in targets]


def equal(a: Any, b: Any) -> bool:
    (x, s), (y, t) = plain(a), plain(b)
    return np.array_equal(x, y) and s == t


# Boxes and pixels


@pytest.mark.parametrize("hflip", [0.0, 1.0])
@pytest.mark.parametrize("name", MIXES)
def test_batches_equal_the_reference(data: Rectangles, name: str, hflip: float) -> None:
    """From the files on: pixels byte for byte where they are copied, all boxes and labels."""
    mix, method = MIXES[name], "CutMix" if name == "half" else name
    seen, kept = 0, 0
    with loader(data, mix=mix, hflip=hflip, with_params=mix is not None) as train:
        for images, targets in itertools.chain(train, train):
            for pixels, target in zip(pixels_of(images), targets, strict=True):
                i = int(target["image_id"])
                own, boxes = flipped(data.images[i], data.boxes[i], hflip)
                labels = data.labels[i]
                if mix is not None:
                    j, cut = int(target["partner_id"]), tuple(target["cut"].tolist())
                    other, others = flipped(data.images[j], data.boxes[j], hflip)
                    stay, come, boxes = reference.shown_boxes(
                        boxes, others, cut, (40, 48), method=method
                    )
                    labels = np.concatenate([labels[stay], data.labels[j][come]])
                    own = pasted(own, other, cut)
                if method not in ("MixUp", "ResizeMix"):
                    assert np.array_equal(pixels, own)
                expected = boxes * np.array([48, 40] * 2, np.float32)
                assert target["boxes"].shape == expected.shape
                # A flip, and the step to pixels, are arithmetic of float32.
                assert np.abs(target["boxes"].numpy() - expected).max(initial=0) < 1e-5
                assert target["labels"].tolist() == labels.tolist()
                dtypes = [target[name].dtype for name in ("boxes", "labels", "image_id")]
                assert dtypes == [torch.float32, torch.int64, torch.int64]
                seen, kept = seen + 1, kept + len(labels)
    assert seen == 128
    assert kept > 64


def flipped(pixels: Array, boxes: Array, hflip: float) -> tuple[Array, Array]:
    if not hflip:
        return pixels, boxes
    left, top, right, bottom = boxes.T
    return pixels[:, ::-1], np.stack([1 - right, top, 1 - left, bottom], 1)


def pasted(own: Array, other: Array, cut: tuple[int, ...]) -> Array:
    y, x, h, w = cut
    out = own.copy()
    out[y : y + h, x : x + w] = other[y : y + h, x : x + w]
    return out


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "methods",
    [
        (dcm.Mosaic(),),
        (dcm.DetectionCutMix(),),
        (dcm.Mosaic(), dcm.CutMix(), dcm.DetectionCutMix()),
    ],
    ids=["Mosaic", "DetectionCutMix", "three"],
)
def test_boxes_of_detections_own_methods_are_filled_by_their_objects(
    data: Rectangles, methods: Any, device: str
) -> None:
    mix = dcm.MixConfig(methods=methods)
    sources, boxes = [], 0
    with loader(data, mix=mix, device=device, seed=2, switchable=True) as train:
        for images, targets in itertools.chain(train, train):
            for pixels, target in zip(pixels_of(images.cpu()), targets, strict=True):
                labels = target["labels"].tolist()
                for label, box in zip(labels, target["boxes"].tolist(), strict=True):
                    x0, y0, x1, y1 = (round(side) for side in box)
                    inside = pixels[y0:y1, x0:x1]
                    assert (inside == data.colors[label]).all(-1).mean() > (
                        0.99 if dcm.CutMix not in map(type, methods) else 0.45
                    )
                    boxes += 1
                sources.append(len({data.owner[label] for label in labels}))
        assert boxes > 100
        assert max(sources) == (2 if methods == (dcm.DetectionCutMix(),) else 4)
        train.mixing = False  # as Ultralytics closes its mosaic
        list(train)
        for _, targets in train:
            owners = [{data.owner[k] for k in one["labels"].tolist()} for one in targets]
            assert max(map(len, owners)) == 1


@pytest.mark.parametrize("size", [(40, 48), (90, 75), (160, 240)], ids=str)
@pytest.mark.parametrize("crop", ["resize", "ssd"])
@pytest.mark.parametrize("mix", [None, dcm.MixConfig()], ids=["none", "CutMix"])
def test_the_colour_of_a_box_is_where_the_box_says(
    data: Rectangles, crop: Any, size: tuple[int, int], mix: Any
) -> None:
    """After a random crop, flip, resize and CutMix: inside of the box, and not around it."""
    boxes = pixels = 0
    grown = max(size[0] / 40, size[1] / 48)  # how far a resize carries a colour
    options = {"mix": mix, "crop": crop, "size": size, "with_params": mix is not None}
    with loader(data, **options) as train:
        for images, targets in itertools.chain(train, train, train):
            for shown, target in zip(pixels_of(images).astype(int), targets, strict=True):
                in_cut = np.zeros(size, bool)
                if mix is not None:
                    y, x, h, w = target["cut"].tolist()
                    in_cut[y : y + h, x : x + w] = True
                    if target["partner_id"] == target["image_id"]:
                        continue  # mixed with itself: boxes come twice
                for box, label in zip(
                    target["boxes"].tolist(), target["labels"].tolist(), strict=True
                ):
                    is_own = data.owner[label] == int(target["image_id"])
                    assert is_own or data.owner[label] == int(target["partner_id"])
                    source = ~in_cut if is_own else in_cut
                    # A crop makes a source's pixel at most 1 / 0.3 times as large.
                    margin = grown * (1 / 0.3 if crop == "ssd" else 1) * 0.75
                    near = np.abs(shown - data.colors[label]).max(2) <= 3
                    inside = source & within(box, size, -margin)
                    outside = source & ~within(box, size, margin)
                    assert near[inside].all()
                    assert not near[outside].any()
                    boxes, pixels = boxes + 1, pixels + int(inside.sum())
    assert boxes > 150
    assert pixels > 100 * boxes / 10


def within(box: list[float], size: tuple[int, int], margin: float) -> Array:
    """Which pixels lie in a box that is grown by a margin."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    left, top, right, bottom = box
    return (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)


def test_crops_move_boxes_by_less_than_a_quarter_of_a_pixel(tmp_path: Path) -> None:
    """One rectangle an image, enlarged eight times: a crop that is rounded would be seen."""
    data = write_rectangles(tmp_path, 48, most=1, least=1, seed=3)
    worst, seen, cropped = 0.0, 0, 0
    options: dict[str, Any] = {"crop": "ssd", "size": (320, 384)}
    with loader(data, **options) as train:
        for images, targets in itertools.chain(train, train, train):
            for pixels, target in zip(pixels_of(images).astype(int), targets, strict=True):
                for box, label in zip(
                    target["boxes"].numpy(), target["labels"].tolist(), strict=True
                ):
                    color = data.colors[label]
                    ys, xs = np.nonzero((pixels * color).sum(2) > (color * color).sum() / 2)
                    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                    full = data.boxes[data.owner[label]][0]
                    sides = (full[2:] - full[:2]) * (48, 40)  # in pixels of the file
                    scale = (box[2:] - box[:2]) / sides
                    at_edge = (box[:2] <= 0) | (box[2:] >= (384, 320))
                    cropped += bool((scale > 8.5).any())
                    if at_edge.any():  # it is clipped: its scale is not known
                        scale = np.full(2, 8 / 0.3)
                    apart = np.abs(found - box).reshape(2, 2) / scale
                    worst, seen = max(worst, float(apart.max())), seen + 1
    assert seen > 80
    assert cropped > 30
    assert worst < 0.25


def test_crops_are_of_the_sizes_and_overlaps_that_ssd_has() -> None:
    size, one = (60, 200), np.array([[0.4, 0.3, 0.7, 0.8]], np.float32)
    file = io.BytesIO()
    Image.new("RGB", size[::-1]).save(file, "PNG")
    encoded = np.frombuffer(file.getvalue(), np.uint8)

    @pipeline_def(batch_size=500, num_threads=2, device_id=None)
    def pipe() -> Any:
        feeds = [graphs.feed([x] * 500) for x in (encoded, one, np.ones((1, 1), np.int32))]
        start, shape, boxes, _ = ssd_crop(*feeds, seed=1, shard_id=0)
        return start, shape, boxes.shape()[0]

    start, shape, kept = graphs.run(pipe())[0]
    whole = (shape == size).all(1)
    h, w = shape[~whole].T
    assert (start[~whole] + shape[~whole] <= size).all()
    # One of seven rules, and where an overlap of 0.9 is not found the next one is drawn.
    assert 0.14 < whole.mean() < 0.4
    # Rounded outwards, so that each side may be up to two pixels more.
    assert (w - 2 <= 2 * h).all()
    assert (w >= 0.5 * (h - 2)).all()
    assert (h >= 18).all()
    assert (w >= 60).all()
    assert min((w > 1.5 * h).mean(), (w < 1.3 * h).mean()) > 0.05
    assert kept.all()  # of an image with objects there is always one


def test_every_box_is_there_or_its_centre_is_not(data: Rectangles) -> None:
    """No box is lost: an image whose box is missing shows less than all of its colour."""
    lost = 0
    with loader(data, crop="ssd", size=(80, 96)) as train:
        for images, targets in itertools.chain(train, train):
            for pixels, target in zip(pixels_of(images).astype(int), targets, strict=True):
                for label in set(data.labels[int(target["image_id"])].tolist()):
                    near = np.abs(pixels - data.colors[label]).max(2) <= 3
                    if label in target["labels"].tolist():
                        continue
                    lost += 1
                    ys, xs = np.nonzero(near)
                    # What is left of it lies at an edge of what is shown.
                    if len(ys):
                        edges = ys.min() <= 4, xs.min() <= 4, ys.max() >= 75, xs.max() >= 91
                        assert any(edges)
    assert lost > 10


def test_a_whole_batch_without_boxes(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path, 20, most=0)
    for mix, crop in ((None, "resize"), (dcm.MixConfig(), "ssd")):
        with loader(data, mix=mix, crop=crop, batch_size=16) as train:
            _, targets = next(iter(train))
        assert [t["boxes"].shape for t in targets] == [(0, 4)] * 16
        assert [t["labels"].shape for t in targets] == [(0,)] * 16
    with loader(data, training=False, targets="padded") as val:
        sizes = [(t["boxes"].shape, t["counts"].tolist()) for _, t in val]
    assert sizes == [((16, 0, 4), [0] * 16), ((4, 0, 4), [0] * 4)]


def test_padded_targets_are_those_of_the_list(data: Rectangles) -> None:
    options: dict[str, Any] = {"mix": dcm.MixConfig(), "with_params": True, "crop": "ssd"}
    with loader(data, **options) as one, loader(data, targets="padded", **options) as two:
        for (images, targets), (same, batch) in zip(one, two, strict=True):
            assert torch.equal(images, same)
            most = max(len(t["boxes"]) for t in targets)
            assert batch["boxes"].shape == (16, most, 4)
            assert batch["labels"].shape == (16, most)
            for k, target in enumerate(targets):
                n = len(target["boxes"])
                assert batch["counts"][k] == n
                assert torch.equal(batch["boxes"][k, :n], target["boxes"])
                assert torch.equal(batch["labels"][k, :n], target["labels"])
                assert (batch["boxes"][k, n:] == -1).all()
                assert (batch["labels"][k, n:] == -1).all()
                for name in ("image_id", "lam", "cut", "partner_id"):
                    assert torch.equal(batch[name][k], target[name])


# Validation


def test_validation_is_every_image_once_in_order_and_unmixed(data: Rectangles) -> None:
    with loader(data, training=False, size=(80, 60)) as val:
        for _ in range(2):
            batches = list(val)
            assert [len(images) for images, _ in batches] == [16, 16, 16, 16, 3]
            targets = [target for _, targets in batches for target in targets]
            assert [int(t["image_id"]) for t in targets] == [*data.images]
            for target in targets:
                i = int(target["image_id"])
                assert target["original_size"].tolist() == [40, 48]
                height, width = target["original_size"].tolist()
                back = target["boxes"].numpy() * ([width / 60, height / 80] * 2)
                assert np.abs(back - data.boxes[i] * ([48, 40] * 2)).max(initial=0) < 1e-4
                assert target["labels"].tolist() == data.labels[i].tolist()
        assert not val.mixing


def test_the_original_size_is_that_of_each_file(tmp_path: Path) -> None:
    sizes = {"a": (30, 50), "b": (64, 20)}
    images = []
    for number, (name, size) in enumerate(sizes.items()):
        Image.new("RGB", size[::-1]).save(tmp_path / f"{name}.png")
        entry = {"id": number, "file_name": f"{name}.png", "height": size[0], "width": size[1]}
        images.append(entry)
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    options: dict[str, Any] = {"batch_size": 2, "size": 32, "training": False, **RAW}
    with dcm.detection_loader(tmp_path, tmp_path / "a.json", **options) as val:
        _, targets = next(iter(val))
    assert [tuple(t["original_size"].tolist()) for t in targets] == [*sizes.values()]


@pytest.mark.parametrize(
    "options",
    [
        {"mix": dcm.MixConfig()},
        {"crop": "ssd"},
        {"hflip": 0.0},
        {"keep": (0.1, 0.5)},
        {"shuffle": False},
        {"start_epoch": 2},
        {"with_params": True},
        {"switchable": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_validation_refuses_what_is_random(data: Rectangles, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must be left out with `training=False`"):
        loader(data, training=False, **options)


# What loaders promise

FULL: dict[str, Any] = {"mix": dcm.MixConfig(), "crop": "ssd", "size": (50, 60), "seed": 5}


def ids_of(batches: Iterator[Any]) -> list[int]:
    return [int(target["image_id"]) for _, targets in batches for target in targets]


def test_seek_and_states_are_exact_and_nothing_is_read_on(data: Rectangles) -> None:
    with loader(data, **FULL) as whole:
        epochs = [list(map(plain, whole)) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # reading on warns
        with loader(data, **FULL) as train:
            for epoch, batch in ((2, 1), (0, 3), (1, 0)):
                train.seek(epoch, batch)
                for expected, found in zip(epochs[epoch][batch:], map(plain, train), strict=True):
                    assert np.array_equal(expected[0], found[0])
                    assert expected[1] == found[1]
            train.seek(1)
            iterator = iter(train)
            next(iterator)
            state = json.loads(json.dumps(train.state_dict()))
        with loader(data, **FULL) as again:
            again.load_state_dict(state)
            rest = list(map(plain, again))
    assert len(rest) == 3
    for expected, found in zip(epochs[1][1:], rest, strict=True):
        assert np.array_equal(expected[0], found[0])
        assert expected[1] == found[1]
    flat = [[i for batch in epoch for i in batch_ids(batch)] for epoch in epochs]
    assert flat[0] != flat[1] != flat[2]


def batch_ids(batch: tuple[Array, list[dict[str, Any]]]) -> list[int]:
    return [target["image_id"] for target in batch[1]]


def test_shards_are_disjoint_and_complete_in_every_epoch(data: Rectangles) -> None:
    options: dict[str, Any] = {"batch_size": 2, "num_shards": 2, "crop": "ssd", "seed": 3}
    with loader(data, shard_id=0, **options) as a, loader(data, shard_id=1, **options) as b:
        orders = []
        for _ in range(3):
            one, two = ids_of(iter(a)), ids_of(iter(b))
            assert len({*one} | {*two}) == len(one) + len(two) >= 66 - 2
            orders.append((one, two))
        assert {*orders[0][0]} != {*orders[1][0]}
        a.seek(1, 3)
        b.load_state_dict(a.state_dict())
        assert ids_of(iter(b)) == orders[1][1][6:]
    options = {"batch_size": 8, "num_shards": 2, "training": False, "even": False}
    with loader(data, shard_id=0, **options) as a, loader(data, shard_id=1, **options) as b:
        assert ids_of(iter(a)) + ids_of(iter(b)) == [*data.images]


@pytest.mark.parametrize("batch_size", [8, 11])  # the shorter shard has 33 images
def test_every_shard_has_the_same_validation_batches(data: Rectangles, batch_size: int) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "num_shards": 2, "training": False}
    found: list[Any] = []
    for shard_id in (0, 1):
        with loader(data, shard_id=shard_id, **options) as shard:
            again = [plain(batch) for batch in shard]
            batches = [plain(batch) for batch in shard]
            assert len(shard) == len(batches) == len(again)
            found.append([target for _, targets in batches for target in targets])
        sizes = [len(targets) for _, targets in batches]
        assert sum(sizes) == 34
        assert [len(images) for images, _ in batches] == sizes
    ids = [target["image_id"] for shard in found for target in shard]
    assert [k for k in ids if k >= 0] == [*data.images]
    (twice,) = [target for target in found[0] if target["image_id"] == -1]
    assert found[0].index(twice) == 32
    assert (twice["boxes"], twice["labels"]) == ([], [])
    assert len(found[0][33]["labels"]) == len(data.labels[found[0][33]["image_id"]]) > 0
    with loader(data, shard_id=0, targets="padded", **options) as shard:
        _, target = list(shard)[32 // batch_size]
    k = 32 % batch_size
    assert target["counts"][k] == 0
    assert target["image_id"][k] == -1
    assert bool((target["boxes"][k] == -1).all())
    assert bool((target["labels"][k] == -1).all())


def test_seeds_and_shards_draw_apart(data: Rectangles) -> None:
    def boxes(**options: Any) -> list[Any]:
        with loader(data, batch_size=30, mix=dcm.MixConfig(), with_params=True, **options) as train:
            _, targets = next(iter(train))
        return [target["cut"].tolist() for target in targets]

    assert boxes() == boxes()
    assert boxes() != boxes(seed=1)
    with loader(data, seed=1) as one, loader(data, seed=2) as two:
        assert ids_of(iter(one)) != ids_of(iter(two))
    shard = {"num_shards": 2}
    assert boxes(shard_id=0, **shard) != boxes(shard_id=1, **shard)


def test_mixing_is_switched_off_and_on(data: Rectangles) -> None:
    options: dict[str, Any] = {"mix": dcm.MixConfig(), "hflip": 0.0, "batch_size": 16}
    with loader(data, switchable=True, with_params=True, **options) as train:

        def mixed() -> list[bool]:
            found = []
            for images, targets in train:
                lams = [float(t["lam"]) < 1 for t in targets]
                for pixels, target in zip(pixels_of(images), targets, strict=True):
                    if float(target["lam"]) == 1:
                        i = int(target["image_id"])
                        assert np.array_equal(pixels, data.images[i])
                        expected = data.boxes[i] * np.array([48, 40] * 2, np.float32)
                        assert np.abs(target["boxes"].numpy() - expected).max(initial=0) < 1e-5
                found.append(any(lams))
            return found

        assert mixed() == [True] * 4
        train.mixing = False
        assert mixed()[-1:] == [False]
        assert mixed() == [False] * 4
        train.mixing = True
        assert mixed()[-1:] == [True]


def test_the_state_of_other_annotations_is_refused(data: Rectangles, tmp_path: Path) -> None:
    with loader(data) as train:
        state = train.state_dict()
        content = json.loads(data.annotations.read_text())
        content["annotations"][0]["bbox"][2] -= 1
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        with loader(data._replace(annotations=other)) as moved:
            with pytest.raises(ValueError, match="source: list"):
                moved.load_state_dict(state)
        copy = tmp_path / "copy.json"
        copy.write_bytes(data.annotations.read_bytes())
        with loader(data._replace(annotations=copy)) as same:
            same.load_state_dict(state)


@pytest.mark.parametrize(
    "options", [{"keep": (0.1, 0.5)}, {"crop": "ssd"}, {"hflip": 0.1}], ids=str
)
def test_a_state_knows_its_options(data: Rectangles, options: dict[str, Any]) -> None:
    with loader(data, mix=dcm.MixConfig()) as one:
        state = one.state_dict()
    with loader(data, mix=dcm.MixConfig(), **options) as other:
        with pytest.raises(ValueError, match=f"{next(iter(options))}: "):
            other.load_state_dict(state)


def test_keep_is_passed_on(data: Rectangles) -> None:
    def count(keep: tuple[float, float]) -> int:
        with loader(data, mix=dcm.MixConfig(), keep=keep) as train:
            return sum(len(target["boxes"]) for _, targets in train for target in targets)

    assert count((1.0, 0.0)) > count((0.5, 0.5)) > count((0.0, 1.0))


def test_the_order_of_a_subset(data: Rectangles) -> None:
    subset = [5, 3, 3, 60, 0, 1]
    source = dcm.find_source(data.folder, annotations=data.annotations, subset=subset)
    options: dict[str, Any] = {**RAW, "size": 40, "batch_size": 2}
    with dcm.detection_loader(source, shuffle=False, **options) as train:
        expected = [[*data.images][i] for i in subset]
        assert ids_of(iter(train)) == expected
    with dcm.detection_loader(source, training=False, **options) as val:
        assert ids_of(iter(val)) == expected


def test_channels_last_and_half_precision(data: Rectangles) -> None:
    with loader(data, seed=1) as one, loader(data, seed=1, layout="NHWC", dtype="float16") as two:
        (images, targets), (same, others) = next(iter(one)), next(iter(two))
    assert same.dtype == torch.float16
    assert same.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images, same.float(), atol=1e-3)
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, others, strict=True))


def test_normalised_as_told(data: Rectangles) -> None:
    with loader(data) as raw, loader(data, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2)) as other:
        images, normalised = next(iter(raw))[0], next(iter(other))[0]
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in ((0.1, 0.2, 0.3), (0.5, 0.4, 0.2)))
    assert torch.allclose((images - mean) / std, normalised, atol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mix": "cutmix"}, TypeError, "`mix` must be a MixConfig or None, got 'cutmix'"),
        ({"mix": dcm.MixConfig(), "batch_size": 1}, ValueError, "`batch_size` must be at least 2"),
        ({"crop": "random"}, ValueError, '`crop` must be one of "resize", "ssd"'),
        ({"keep": 0.5}, TypeError, "`keep` must be 2 numbers, got 0.5"),
        ({"keep": (0.5, 2)}, ValueError, r"`keep` must be in \[0, 1\], got 2"),
        ({"hflip": 2}, ValueError, r"`hflip` must be in \[0, 1\]"),
        ({"size": (3, 4, 5)}, ValueError, r"`size` must be a side or \(H, W\)"),
        ({"size": 0}, ValueError, "`size` must be at least 1"),
        ({"targets": "dict"}, ValueError, '`targets` must be one of "list", "padded"'),
        ({"training": 1}, TypeError, "`training` must be a bool"),
        ({"shuffle": 1}, TypeError, "`shuffle` must be a bool"),
        ({"interpolation": "nearest"}, ValueError, "`interpolation` must be one of"),
        ({"mean": 0.5}, TypeError, "`mean` must be 3 numbers"),
        ({"switchable": True}, ValueError, "`switchable` must be False where `mix` is None"),
        ({"with_params": True}, ValueError, "`with_params` must be False where `mix` is None"),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be one of"),
        (
            {"num_shards": 100, "shard_id": 0},
            ValueError,
            "`num_shards` must be at most the 67 images",
        ),
        ({"classes": ["r1"]}, ValueError, "`classes` must name every category of"),
    ],
)
def test_wrong_arguments_are_refused(
    data: Rectangles, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loader(data, **options)


def test_wrong_sources_are_refused(data: Rectangles, photos: str) -> None:
    options: dict[str, Any] = {**RAW, "size": 40, "batch_size": 2}
    with pytest.raises(TypeError, match="`annotations` must be given with a folder"):
        dcm.detection_loader(data.folder, **options)
    with pytest.raises(ValueError, match="`images` must be what find_source"):
        dcm.detection_loader(dcm.find_source(photos), **options)
    source = dcm.find_source(data.folder, annotations=data.annotations)
    with pytest.raises(ValueError, match="`annotations` must be given to find_source"):
        dcm.detection_loader(source, data.annotations, **options)
    with pytest.raises(ValueError, match="`source` must have a label for each image, got one with"):
        dcm.train_loader(source, batch_size=2, size=32, device="cpu")


def test_a_small_batch_is_mixed_with_a_word(data: Rectangles) -> None:
    with pytest.warns(UserWarning, match="a batch of 4: pairing has little variety"):
        loader(data, mix=dcm.MixConfig(), batch_size=4).close()


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("crop", ["resize", "ssd"])
@pytest.mark.parametrize("name", MIXES)
def test_the_gpu_equals_the_cpu(data: Rectangles, name: str, crop: Any) -> None:
    source = dcm.find_source(data.folder, annotations=data.annotations)
    options: dict[str, Any] = {"mix": MIXES[name], "crop": crop, "size": (40, 48), "seed": 1}
    pipelines = [
        detection.train(
            source,
            device=device,
            device_id=0 if device == "gpu" else None,
            batch_size=16,
            num_threads=2,
            mean=[0.0] * 3,
            std=[1 / 255] * 3,
            with_params=MIXES[name] is not None,
            **options,
        )
        for device in ("cpu", "gpu")
    ]
    for (images, *targets), (others, *other_targets) in zip(
        *(graphs.run(pipeline, 3) for pipeline in pipelines), strict=True
    ):
        # PNGs are decoded alike; a resize, where there is one, rounds by itself.
        exact = crop == "resize" and name not in ("MixUp", "ResizeMix")
        assert np.abs(images - others).max() <= (0 if exact else 2)
        for a, b in zip(targets, other_targets, strict=True):
            assert np.array_equal(a, b)
