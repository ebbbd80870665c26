"""Random options for the loaders of boxes, masks and volumes, see `tests.test_options`."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dali_cutmix as dcm
from dali_cutmix.cli.shapes import CLASSES, write_shapes, write_solids
from tests.test_options import (
    COLORS,
    LOADED,
    MIXES,
    SHARDS,
    SHARE,
    SIZE,
    STDS,
    Options,
    attempt,
    checked_images,
    of_shard,
    options,
    sets,
)

COUNT, SOLIDS = 20, 8
COMMON = {name: value for name, value in LOADED.items() if name not in ("channels", "read_as")}
OF_IMAGES = COMMON | {
    "mean": COLORS,
    "std": STDS,
    "interpolation": st.sampled_from(["bilinear", "bicubic"]),
    "hflip": SHARE,
}
OF_TRAINING = {
    "mix": st.one_of(st.none(), MIXES),
    "shuffle": st.booleans(),
    "switchable": st.booleans(),
    "start_epoch": st.integers(0, 3),
}
VALIDATION = {"even": st.booleans()}
TRAINING_ALONE = "must be left out with `training=False`|must be None with `training=False`"
CLASH = f"{SHARDS}|{TRAINING_ALONE}|must be False where `mix` is None|must be at least 2 for mixing"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small images with boxes and masks, and volumes with masks."""
    root = tmp_path_factory.mktemp("options")
    annotations = write_shapes(root / "i", masks=root / "m", images=COUNT, size=(24, 32))
    volumes, masks = write_solids(root, volumes=SOLIDS, shape=(16, 18, 20))
    return {
        "images": str(root / "i"),
        "annotations": annotations,
        "masks": str(root / "m"),
        "volumes": volumes,
        "solids": masks,
    }


def draw(drawn: st.DataObject, required: Any, validation: Any, optional: Any) -> Options:
    """Returns options for training or for validation, or both at once where they are spoiled."""
    training = drawn.draw(st.booleans())
    chosen = optional if training else validation
    required = {**required, "device": st.just("cpu"), "training": st.just(training)}
    return drawn.draw(options(required, chosen, but=("device", "images", "masks", "annotations")))


def count_of(given_: Options, loader: dcm.Loader, count: int) -> list[int]:
    """The sizes of the batches, as they should be."""
    own, batch = of_shard(given_, count), int(given_["batch_size"])
    if given_.get("training", True):
        return [batch] * (own // batch)
    if given_.get("even", True):  # of several shards, where a wrong value was a right one
        own = -(-count // (given_.get("num_shards") or 1))
    assert len(loader) == math.ceil(own / batch)
    return [batch] * (own // batch) + [own % batch] * (own % batch > 0)


@pytest.mark.slow
@sets(40)
@given(drawn=st.data())
def test_detection_loader(data: dict[str, str], drawn: st.DataObject) -> None:
    required = {
        "images": st.just(data["images"]),
        "annotations": st.just(data["annotations"]),
        "batch_size": st.integers(2, 9),
        "size": SIZE,
    }
    both = {k: v for k, v in OF_IMAGES.items() if k != "hflip"}
    both |= {"targets": st.sampled_from(["list", "padded"]), "classes": st.just([*CLASSES])}
    training = OF_TRAINING | {
        "hflip": SHARE,
        "crop": st.sampled_from(["resize", "ssd"]),
        "keep": st.tuples(SHARE, SHARE),
        "with_params": st.booleans(),
    }
    given_ = draw(drawn, required, both | VALIDATION, both | training)
    loader = attempt(dcm.detection_loader, given_, CLASH, also="mix")
    if loader is None:
        return
    with loader:
        sizes = []
        height, width = loader._options["size"]
        for images, targets in loader:
            sizes.append(len(images))
            checked_images(images, len(images), given_, (height, width))
            if given_.get("targets") != "padded":
                assert len(targets) == len(images)
                boxes = torch.cat([target["boxes"] for target in targets])
                labels = torch.cat([target["labels"] for target in targets])
            else:
                there = targets["labels"] >= 0
                assert there.sum(1).tolist() == targets["counts"].tolist()
                boxes, labels = targets["boxes"][there], targets["labels"][there]
            assert len(boxes) == len(labels)
            assert {*labels.tolist()} <= {1, 2, 3}
            assert bool((boxes[:, :2] <= boxes[:, 2:]).all())
            limit = torch.tensor([width, height]) + 1e-3
            assert bool((boxes[:, :2] >= -1e-3).all())
            assert bool((boxes[:, 2:] <= limit).all())
        assert sizes == count_of(given_, loader, COUNT)


@pytest.mark.slow
@sets(40)
@given(drawn=st.data())
def test_segmentation_loader(data: dict[str, str], drawn: st.DataObject) -> None:
    required = {
        "images": st.just(data["images"]),
        "masks": st.just(data["masks"]),
        "batch_size": st.integers(2, 9),
        "size": SIZE,
    }
    both = {k: v for k, v in OF_IMAGES.items() if k != "hflip"}
    both |= {"num_classes": st.sampled_from([4, 5, 200]), "ignore_index": st.integers(0, 65535)}
    both |= {"classes": st.just(["none", *CLASSES])}
    training = OF_TRAINING | {
        "hflip": SHARE,
        "blend": st.sampled_from(["refuse", "heavier"]),
        "area": st.sampled_from([(0.08, 1.0), (1.0, 1.0), [0.1, 0.2]]),
        "ratio": st.sampled_from([(3 / 4, 4 / 3), (1, 1)]),
    }
    validation = both | VALIDATION | {"resize": st.integers(1, 40)}
    given_ = draw(drawn, required, validation, both | training)
    clash = f"{CLASH}|`blend` must be|`resize` must be at least|`num_classes` must be that of"
    loader = attempt(dcm.segmentation_loader, given_, clash, also="mix classes")
    if loader is None:
        return
    with loader:
        sizes = []
        for images, masks in loader:
            sizes.append(len(images))
            checked_images(images, len(images), given_, loader._options["size"])
            assert masks.shape == (len(images), *loader._options["size"])
            assert masks.dtype == torch.int64
            assert {*masks.unique().tolist()} <= {0, 1, 2, 3, int(given_.get("ignore_index", 255))}
        assert sizes == count_of(given_, loader, COUNT)


@pytest.mark.slow
@sets(40)
@given(drawn=st.data())
def test_volume_loader(data: dict[str, str], drawn: st.DataObject) -> None:
    required = {
        "images": st.just(data["volumes"]),
        "masks": st.just(data["solids"]),
        "batch_size": st.integers(2, 5),
        "size": st.tuples(*[st.integers(1, 24)] * 3),
    }
    both = {k: v for k, v in COMMON.items() if k not in ("layout", "antialias", "hw_decoder_load")}
    both |= {
        "num_classes": st.sampled_from([3, 4]),
        "layout": st.just("DHW"),
        "subset": st.just(range(SOLIDS)),
        "mean": st.floats(-100, 100),
        "std": st.floats(1e-2, 100),
        "window": st.just((-200, 300)),
        "fill": st.integers(-1000, 1000),
    }
    training = OF_TRAINING | {"foreground": SHARE, "flip": st.tuples(SHARE, SHARE, SHARE)}
    given_ = draw(drawn, required, both | VALIDATION, both | training)
    clash = f"{CLASH}|`mix` must paste and not blend|`window` must be left out with"
    loader = attempt(dcm.volume_loader, given_, clash, also="mix")
    if loader is None:
        return
    with loader:
        sizes = []
        for volumes, masks in loader:
            sizes.append(len(volumes))
            if given_.get("size") is not None:
                assert volumes.shape[2:] == tuple(given_["size"])
            assert volumes.shape == (len(volumes), 1, *masks.shape[1:])
            assert volumes.dtype == getattr(torch, given_.get("dtype", "float32"))
            assert masks.dtype == torch.int64
            assert {*masks.unique().tolist()} <= {0, 1, 2, int(given_.get("ignore_index", -100))}
            assert bool(volumes.isfinite().all())
        assert sizes == count_of(given_, loader, SOLIDS)


@pytest.mark.parametrize(
    ("mix", "message", "reads"),
    [
        (dcm.MixConfig(methods=(dcm.DetectionCutMix(),)), "DetectionCutMix, which", "detection"),
        (dcm.MixConfig(methods=(dcm.ObjectCutMix(),)), "ObjectCutMix, which", "masks"),
        (dcm.MixConfig(methods=(dcm.SnapMix(),)), "SnapMix, which", "train"),
        (dcm.MixConfig(partner="same"), '`partner="same"`, which goes by the class', "train"),
        (dcm.MixConfig(prob=[0.5] * 4), "a `prob` for each class, which goes by", "train"),
    ],
)
def test_a_mix_that_needs_what_a_loader_does_not_read_is_refused(
    data: dict[str, str], mix: dcm.MixConfig, message: str, reads: str
) -> None:
    common: dict[str, Any] = {"mix": mix, "batch_size": 4, "size": 16, "device": "cpu"}
    images, masks = data["images"], data["masks"]
    solids, solid_masks = data["volumes"], data["solids"]
    rows = {name: [0.5, 1, 0, 0] for name in os.listdir(images) if "json" not in name}
    makes: dict[str, Any] = {
        "train": lambda: dcm.train_loader(images, targets=rows, **common),
        "detection": lambda: dcm.detection_loader(images, data["annotations"], **common),
        "masks": lambda: dcm.segmentation_loader(images, masks, **common),
        "volumes": lambda: dcm.volume_loader(solids, solid_masks, **common | {"size": (8, 8, 8)}),
    }
    for name, make in makes.items():
        if name != reads and (name, reads) != ("volumes", "masks"):
            with pytest.raises(ValueError, match=f"`mix` must not have {message}"):
                make()


def test_classes_of_images_with_targets_are_not_gone_by(data: dict[str, str]) -> None:
    rows = {name: [0.5, 1, 0, 0] for name in os.listdir(data["images"]) if "json" not in name}
    options: dict[str, Any] = {"targets": rows, "batch_size": 4, "size": 16, "device": "cpu"}
    for mix in (dcm.MixConfig(partner="other"), dcm.MixConfig(prob=[0.5] * 4)):
        with pytest.raises(ValueError, match="here it has none, or several"):
            dcm.train_loader(data["images"], mix=mix, **options)
