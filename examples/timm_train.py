"""Runs timm's own train.py, unchanged and with its own options, on these loaders.

    python examples/timm_train.py train.py /data/imagenet --model resnet50 --num-classes 1000 \
        --aa rand-m7-mstd0.5-inc1 --mixup 0.1 --cutmix 1.0 --aug-repeats 3 --bce-loss …
    torchrun --nproc-per-node=8 examples/timm_train.py train.py …

    train.py ─ create_dataset ─ create_loader, exchanged here ─ train_loader, val_loader

train.py is the file of timm's repository (1.0). Only ``timm.data.create_loader`` is exchanged
before it runs. The data are an ImageFolder with train/ and validation/, with the files and labels
that timm finds there. What is asked for and is not here is an error, not left out. Decoding,
augmentation and mixing run in DALI, in timm's order: mix, normalise, erase.
"""

from __future__ import annotations

import math
import os
import runpy
import sys
import tempfile

import timm.data
import torch
import torch.distributed as dist

import dali_cutmix as dcm

DTYPES = {torch.float32: "float32", torch.float16: "float16"}
ERASE_MODES = {"const": "const", "rand": "color", "pixel": "pixel"}
# What create_loader may be asked for only with these values, or not at all: it is not here.
ONLY = {"train_crop_mode": "rrc", "crop_mode": "center", "re_count": 1}
ONLY |= dict.fromkeys(("no_aug", "re_split", "tf_preprocessing", "num_batches", "num_aug_splits"))
ONLY |= dict.fromkeys(("vflip", "grayscale_prob", "gaussian_blur_prob", "color_jitter_prob"))
ONLY |= dict.fromkeys(("crop_border_pixels", "input_size_choices"))


class Exchanged:
    """A loader with the attributes that train.py asks of timm's."""

    sampler = batch_sampler = None

    def __init__(self, loader: dcm.Loader) -> None:
        self.loader = loader
        self.dataset = self  # for set_epoch

    def __iter__(self):
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:  # also where train.py resumes
        self.loader.set_epoch(epoch)

    @property
    def mixup_enabled(self) -> bool:
        return self.loader.mixing

    @mixup_enabled.setter
    def mixup_enabled(self, on: bool) -> None:
        self.loader.mixing = on


def no_naflex_loader(*_, **__):
    sys.exit("--naflex-loader is not supported on these loaders")


def create_loader(dataset, input_size, batch_size, is_training=False, **asked):
    """Returns a loader for what timm.data.create_loader was asked for."""
    for name, value in ONLY.items():
        if asked.get(name) and asked[name] != value:
            sys.exit(f"{name}={asked[name]} is not supported on these loaders")
    reader = getattr(dataset, "reader", None)
    if type(reader).__name__ != "ReaderImageFolder":
        sys.exit(f"an ImageFolder is needed, got {type(reader or dataset).__name__}")
    source = timm_samples(reader)
    dtype = asked.get("img_dtype", torch.float32)
    if dtype not in DTYPES:
        sys.exit(f"images of {dtype} are not supported on these loaders")
    options = {
        "batch_size": batch_size,
        "size": tuple(input_size[-2:]),
        "interpolation": asked.get("interpolation", "bilinear"),
        "mean": asked["mean"],
        "std": asked["std"],
        "dtype": DTYPES[dtype],
        "device": "gpu" if torch.device(asked["device"]).type == "cuda" else "cpu",
    }
    if not is_training:
        resize = math.floor(min(input_size[-2:]) / (asked.get("crop_pct") or 0.875))
        # Every rank has the same batches: train.py waits for all of them at each.
        return Exchanged(dcm.val_loader(source, resize=resize, **options))
    mix = mix_config(asked.get("collate_fn"))
    erase = None
    if asked.get("re_prob"):
        erase = dcm.RandomErasing(prob=asked["re_prob"], mode=ERASE_MODES[asked["re_mode"]])
    options |= {
        "mix": mix,
        "switchable": mix is not None,  # for --mixup-off-epoch
        "augment": policies(asked),
        "erase": erase,
        "erase_after_mix": True,
        "repeats": whole_number("--aug-repeats", asked.get("num_aug_repeats") or 1),
        "area": asked.get("scale") or (0.08, 1.0),
        "ratio": asked.get("ratio") or (3 / 4, 4 / 3),
        "hflip": asked.get("hflip", 0.5),
    }
    rank = dist.get_rank() if dist.is_initialized() else 0
    seed = (torch.initial_seed() - rank) % 2**31  # train.py's --seed; it adds the rank
    return Exchanged(dcm.train_loader(source, seed=seed, **options))


def whole_number(name: str, value: float) -> int:
    if value < 1 or value != int(value):
        sys.exit(f"{name} {value} is not supported on these loaders: a whole number is needed")
    return int(value)


def timm_samples(reader) -> dcm.Source:
    """Returns timm's own files and labels: its order of classes, --class-map and nested folders."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "samples.txt")
        with open(path, "w", encoding="utf-8") as file:
            for name, label in reader.samples:
                file.write(f"{os.path.relpath(name, reader.root)}\t{label}\n")
        return dcm.find_source(path, file_root=reader.root)


def mix_config(collate) -> dcm.MixConfig | None:
    """Returns what timm's FastCollateMixup would do, or None without."""
    if not isinstance(collate, timm.data.FastCollateMixup):
        return None
    return dcm.MixConfig.from_timm(
        mixup_alpha=collate.mixup_alpha,
        cutmix_alpha=collate.cutmix_alpha,
        cutmix_minmax=collate.cutmix_minmax,
        prob=collate.mix_prob,
        switch_prob=collate.switch_prob,
        mode=collate.mode,
        correct_lam=collate.correct_lam,
        label_smoothing=collate.label_smoothing,
        num_classes=collate.num_classes,
    )


def policies(asked: dict) -> tuple:
    """Returns the policies for timm's --aa and --color-jitter, which it leaves out with --aa."""
    auto_augment, color_jitter = asked.get("auto_augment"), asked.get("color_jitter")
    if auto_augment and auto_augment.startswith("rand"):
        interpolation = asked.get("interpolation", "bilinear")
        return (dcm.RandAugment.from_timm(auto_augment, interpolation=interpolation),)
    if auto_augment not in (None, "", "3a"):
        sys.exit(f"--aa {auto_augment} is not supported on these loaders")
    strengths = color_jitter if isinstance(color_jitter, (tuple, list)) else [color_jitter or 0] * 3
    names = ("brightness", "contrast", "saturation")
    jitter = dcm.ColorJitter(**dict(zip(names, strengths, strict=True)))
    return (*((dcm.ThreeAugment(),) if auto_augment == "3a" else ()), jitter)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    timm.data.create_loader = create_loader
    timm.data.create_naflex_loader = no_naflex_loader
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
