"""CutMix in DALI's dynamic mode (experimental there): operators are called, no graph is built.

    python examples/dynamic_mode.py --data FOLDER

    decoded images ─ resize ─┐
    plans of MixConfig ──────┴─ multi_paste ─ images, targets

The plans are drawn as the package draws them, by a pipeline without images, so that all of
MixConfig's rules of boxes and pairing apply; `cutmix` is what then follows them. An example and no
interface: DALI may change its dynamic mode from release to release.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import nvidia.dali.experimental.dynamic as ndd
from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm


def cutmix(images, labels, box, partner, num_classes):
    """Returns images with the box of their partner, and soft targets, float32 (N, num_classes).

    Args:
        images: ndd.Batch of uint8 HWC, of one size.
        labels: int (N,).
        box: int32 (N, 4), (y, x, h, w).
        partner: int32 (N,), indices in the batch.
    """
    count, (height, width, _) = len(labels), images.shape[0]
    whole = np.tile(np.array([[height, width]], np.int32), (count, 1))
    anchors = np.stack([whole * 0, box[:, :2]], axis=1)
    shapes = np.stack([whole, box[:, 2:]], axis=1)
    ids = np.stack([np.arange(count, dtype=np.int32), partner], axis=1)
    anchors, shapes, ids = (ndd.as_batch(list(x)) for x in (anchors, shapes, ids))
    mixed = ndd.multi_paste(
        images, in_ids=ids, in_anchors=anchors, out_anchors=anchors, shapes=shapes
    )
    lam = 1 - box[:, 2] * box[:, 3] / (height * width)
    one_hot = np.eye(num_classes)[labels]
    targets = lam[:, None] * one_hot + (1 - lam)[:, None] * one_hot[partner]
    return mixed, targets.astype(np.float32)


def plans(cfg: dcm.MixConfig, size: tuple[int, int], batch_size: int, seed: int = 0) -> Iterator:
    """Yields the box and the partner of every sample, batch after batch: (N, 4) and (N,)."""

    @pipeline_def(batch_size=batch_size, num_threads=1, device_id=None, seed=seed)
    def pipeline():
        images = fn.zeros(shape=[*size, 1], dtype=types.UINT8)
        params = dcm.mix(fn.reshape(images, layout="HWC"), None, cfg, size=size).params
        return params.box, params.partner

    drawn = pipeline()
    while True:
        box, partner = drawn.run()
        yield box.as_array(), partner.as_array()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="of images in class folders"
    )
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    classes = sorted(path.name for path in Path(args.data).iterdir() if path.is_dir())
    files = sorted(Path(args.data).glob("*/*.*"))[: args.batch_size]
    labels = np.array([classes.index(path.parent.name) for path in files])
    encoded = ndd.as_batch([np.frombuffer(path.read_bytes(), np.uint8) for path in files])
    images = ndd.resize(ndd.decoders.image(encoded, device="cpu"), size=(160, 160))
    box, partner = next(plans(dcm.MixConfig(), (160, 160), len(files)))
    mixed, targets = cutmix(images, labels, box, partner, len(classes))
    shares = ", ".join(f"{s:.2f} of {classes[k]}" for k, s in enumerate(targets[0]) if s > 0)
    print(f"{len(files)} images {tuple(mixed.shape[0])}; the target of the first: {shares}")


if __name__ == "__main__":
    main()
