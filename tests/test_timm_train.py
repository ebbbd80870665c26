"""examples/timm_train.py: what timm's train.py asks of create_loader is done, or refused."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli.bench.peers import import_torchvision

import_torchvision()
pytest.importorskip("timm", reason="the extra `peers` is not installed")
import timm.data  # noqa: E402

# What train.py of timm 1.0.31 passes, without options of the user.
ASKED: dict[str, Any] = {
    **{"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "pin_memory": False},
    **{"img_dtype": torch.float32, "device": torch.device("cpu"), "distributed": False},
    **{"use_prefetcher": True, "no_aug": False, "re_prob": 0.0, "re_mode": "pixel"},
    **{"re_count": 1, "re_split": False, "train_crop_mode": None, "scale": [0.08, 1.0]},
    **{"ratio": [0.75, 4 / 3], "hflip": 0.5, "vflip": 0.0, "color_jitter": 0.4},
    **{"color_jitter_prob": None, "grayscale_prob": None, "gaussian_blur_prob": None},
    **{"auto_augment": None, "num_aug_repeats": 0, "num_aug_splits": 0},
    **{"interpolation": "random", "num_workers": 4, "worker_seeding": "all"},
    **{"input_size_choices": None, "batch_size_choices": None, "batch_choice_weights": None},
    **{"num_batches": None, "collate_fn": None, "use_multi_epochs_loader": False},
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parent.parent / "examples" / "timm_train.py"
    spec = importlib.util.spec_from_file_location("timm_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jitter(brightness: float, contrast: float, saturation: float) -> dcm.ColorJitter:
    return dcm.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation)


def dataset(digits: Path) -> Any:
    return timm.data.create_dataset("", root=str(digits), split="train", is_training=True)


def loader(script: ModuleType, digits: Path, **options: Any) -> Any:
    asked = {**ASKED, **options}
    return script.create_loader(dataset(digits), (3, 24, 24), 64, is_training=True, **asked)


def test_what_train_py_asks_for_is_done(script: ModuleType, digits: Path) -> None:
    collate = timm.data.FastCollateMixup(
        mixup_alpha=0.1,
        cutmix_alpha=1.0,
        prob=0.9,
        switch_prob=0.3,
        mode="elem",
        label_smoothing=0.2,
        num_classes=10,
    )
    asked = {"auto_augment": "rand-m7-mstd0.5-inc1", "re_prob": 0.25, "num_aug_repeats": 3.0}
    got = loader(script, digits, collate_fn=collate, **asked).loader._options
    expected = {
        "mix": dcm.MixConfig.from_timm(
            mixup_alpha=0.1,
            cutmix_alpha=1.0,
            prob=0.9,
            switch_prob=0.3,
            mode="elem",
            label_smoothing=0.2,
            num_classes=10,
        ),
        "augment": (dcm.RandAugment(magnitude=7),),
        "erase": dcm.RandomErasing(prob=0.25),
        "erase_after_mix": True,
        "repeats": 3,
        "size": (24, 24),
        "area": (0.08, 1.0),
        "ratio": (0.75, 4 / 3),
        "interpolation": "random",
        "hflip": 0.5,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "dtype": "float32",
        "batch_size": 64,
    }
    assert {name: got[name] for name in expected} == expected


def test_epochs_and_the_end_of_mixing(script: ModuleType, digits: Path) -> None:
    collate = timm.data.FastCollateMixup(cutmix_alpha=1.0, label_smoothing=0.0, num_classes=10)
    made = loader(script, digits, collate_fn=collate)
    made.dataset.set_epoch(0)
    images, targets = next(iter(made))
    assert images.shape == (64, 3, 24, 24)
    assert len(made) == 22
    assert ((targets > 0).sum(dim=1) == 2).sum() > 20
    made.dataset.set_epoch(5)  # as after --resume: another order than that of epoch 0
    assert made.mixup_enabled
    assert not torch.equal(next(iter(made))[0], images)
    made.dataset.set_epoch(0)
    assert torch.equal(next(iter(made))[0], images)
    made.dataset.set_epoch(5)
    made.mixup_enabled = False
    *_, (_, targets) = made
    assert ((targets > 0).sum(dim=1) == 1).all()
    made.dataset.set_epoch(6)
    assert not made.mixup_enabled


def test_validation(script: ModuleType, digits: Path) -> None:
    val = timm.data.create_dataset("", root=str(digits), split="val", is_training=False)
    asked = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "device": "cpu", "crop_pct": 0.875}
    made = script.create_loader(val, (3, 21, 21), 64, interpolation="bicubic", **asked)
    assert sum(len(labels) for _, labels in made) == 360
    assert made.loader._options["resize"] == 24
    assert made.loader._options["interpolation"] == "bicubic"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (jitter(0.4, 0.4, 0.4),)),
        ({"color_jitter": None}, (dcm.ColorJitter(),)),
        ({"color_jitter": (0.1, 0.2, 0.3)}, (jitter(0.1, 0.2, 0.3),)),
        (
            {"auto_augment": "3a", "color_jitter": 0.3},
            (dcm.ThreeAugment(), jitter(0.3, 0.3, 0.3)),
        ),
    ],
    ids=str,
)
def test_color_jitter(script: ModuleType, digits: Path, asked: Any, expected: Any) -> None:
    assert loader(script, digits, **asked).loader._options["augment"] == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"vflip": 0.5}, "vflip=0.5 is not supported"),
        ({"re_count": 2}, "re_count=2 is not supported"),
        ({"train_crop_mode": "rkrc"}, "train_crop_mode=rkrc is not supported"),
        ({"no_aug": True}, "no_aug=True is not supported"),
        ({"num_aug_splits": 2}, "num_aug_splits=2 is not supported"),
        ({"auto_augment": "augmix-m3"}, "--aa augmix-m3 is not supported"),
        ({"num_aug_repeats": 2.5}, "--aug-repeats 2.5 is not supported on these loaders: a whole"),
        ({"img_dtype": torch.bfloat16}, "images of torch.bfloat16 are not supported"),
    ],
    ids=str,
)
def test_what_is_not_here_is_refused(
    script: ModuleType, digits: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        loader(script, digits, **asked)
    with pytest.raises(SystemExit, match="--naflex-loader is not supported on these loaders"):
        script.no_naflex_loader(object(), is_training=True)
    with pytest.raises(SystemExit, match="an ImageFolder is needed, got object"):
        script.create_loader(object(), (3, 24, 24), 64, **ASKED)


def test_files_and_labels_are_those_of_timm(
    script: ModuleType, digits: Path, tmp_path: Path
) -> None:
    # timm sorts folders by their numbers, and takes a class map.
    for split in ("train", "val"):
        for i, name in enumerate(("1", "2", "10")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for k, image in enumerate(sorted((digits / "val" / str(i)).iterdir())[:7]):
                shutil.copy(image, folder / f"{k}.jpg")
    (tmp_path / "map.txt").write_text("10\n2\n1\n")
    for class_map in ("", str(tmp_path / "map.txt")):
        val = timm.data.create_dataset(
            "", root=str(tmp_path), split="val", is_training=False, class_map=class_map
        )
        asked = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "device": "cpu", "crop_pct": 1.0}
        made = script.create_loader(val, (3, 32, 32), 8, interpolation="bilinear", **asked)
        expected = {}
        for name, label in val.reader.samples:
            with Image.open(name) as image:
                pixels = np.asarray(image.convert("RGB"), np.float32) / 255
            expected[(pixels[::8, ::8, 0].round(1) + 0.0).tobytes()] = label
        right = 0
        for images, labels in made:
            pixels = (images * 0.25 + 0.5).permute(0, 2, 3, 1).numpy()
            for image, label in zip(pixels, labels.tolist(), strict=True):
                key = (image[::8, ::8, 0].round(1) + 0.0).tobytes()
                right += expected.get(key) == label
        assert right >= 20  # of 21: rounding


def test_other_data_sets_and_seeds(script: ModuleType, digits: Path) -> None:
    class ReaderWds:
        root = "/data"

    class Other:
        reader = ReaderWds()

    with pytest.raises(SystemExit, match="an ImageFolder is needed, got ReaderWds"):
        script.create_loader(Other(), (3, 24, 24), 64, **ASKED)
    torch.manual_seed(7)
    assert loader(script, digits).loader.seed == 7
