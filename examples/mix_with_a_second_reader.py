"""Mix every sample with one of a second, independent batch: for batches too small to pair within.

    reader A ─ decode ─ crop ─┐
                              ├─ mix(partners=...) ─ normalise ─ images, targets
    reader B ─ decode ─ crop ─┘

    python examples/mix_with_a_second_reader.py --data /data/imagenet/train --batch-size 1

Sample i of the first batch is mixed with sample i of the second one, down to a batch size of 1.
The second reader shuffles with a seed of its own, so partners change from epoch to epoch.
"""

from __future__ import annotations

import argparse
import itertools

from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm
from dali_cutmix.pipelines.imagenet import decode


def read(name, root, device, seed):
    encoded, labels = fn.readers.file(
        name=name,
        file_root=root,
        shuffle_after_epoch=True,
        shuffle_after_epoch_seed=seed,
        pad_last_batch=True,
    )
    images = decode(encoded, device)
    return fn.random_resized_crop(images, size=(160, 160), seed=seed), labels


@pipeline_def
def pipeline(root, num_classes, device):
    images, labels = read("images", root, device, seed=1)
    partners = read("partners", root, device, seed=2)
    cfg = dcm.MixConfig(num_classes=num_classes, cutmix_alpha=1.0, mixup_alpha=0.2)
    mixed = dcm.mix(images, labels, cfg, partners=partners)
    images = fn.crop_mirror_normalize(
        mixed.images, dtype=types.FLOAT, output_layout="CHW", mean=[128.0] * 3, std=[64.0] * 3
    )
    return images, mixed.targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="ROOT", help="ImageFolder")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="cpu")
    args = parser.parse_args()

    loader = dcm.Loader(
        pipeline,
        reader_name="images",  # its epochs count
        root=args.data,
        num_classes=args.num_classes,
        device=args.device,
        batch_size=args.batch_size,
        num_threads=4,
        device_id=0 if args.device == "gpu" else None,
        seed=0,
    )
    with loader:
        for images, targets in itertools.islice(loader, args.batches):
            shares = ", ".join(f"{s:.2f} of class {k}" for k, s in enumerate(targets[0]) if s > 0)
            print(f"images {tuple(images.shape)}; the target of the first: {shares}")


if __name__ == "__main__":
    main()
