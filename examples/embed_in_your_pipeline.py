"""CutMix in a DALI pipeline of your own: three lines between the augmentations and normalisation.

    encoded JPEG ─ decode ─ your augmentations ─ mix ─ normalise ─ Loader -> (images, targets)

    python examples/embed_in_your_pipeline.py --data /data/imagenet/train --device gpu

The images that go into mix() must be uint8, HWC and of one size; the labels are as the reader
gives them, on the CPU. Everything else of the pipeline is yours.
"""

from __future__ import annotations

import argparse
import os

from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm
from dali_cutmix.pipelines.imagenet import decode


@pipeline_def
def my_pipeline(root, num_classes, device):
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    encoded, labels = fn.readers.file(
        file_root=root,
        shuffle_after_epoch=True,
        pad_last_batch=True,
        shard_id=rank,
        num_shards=ranks,
    )
    images = decode(encoded, device)
    images = fn.random_resized_crop(images, size=(160, 160), seed=10 * rank)
    brightness = fn.random.uniform(range=[0.8, 1.2], seed=10 * rank + 1)
    images = fn.brightness_contrast(images, brightness=brightness)

    cfg = dcm.MixConfig(num_classes=num_classes, cutmix_alpha=1.0, prob=0.5)
    # The size is not needed, but spares looking at it; every rank draws its own by itself.
    mixed = dcm.mix(images, labels, cfg, size=(160, 160))

    images = fn.crop_mirror_normalize(
        mixed.images, dtype=types.FLOAT, output_layout="CHW", mean=[128.0] * 3, std=[64.0] * 3
    )
    return images, mixed.targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="ROOT", help="ImageFolder")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="cpu")
    args = parser.parse_args()

    loader = dcm.Loader(
        my_pipeline,
        root=args.data,
        num_classes=args.num_classes,
        device=args.device,
        batch_size=args.batch_size,
        num_threads=4,
        device_id=0 if args.device == "gpu" else None,
        seed=0,
    )
    with loader:
        for images, targets in loader:
            print(
                f"images {tuple(images.shape)}, targets {tuple(targets.shape)} on {images.device}"
            )


if __name__ == "__main__":
    main()
