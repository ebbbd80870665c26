"""Augmentations of timm, torchvision and DeiT III as graphs of native DALI operators.

    uint8 images -> augment(policies) -> mix -> normalise -> erase

`augment` draws first and applies second. `draws` says for each sample which operations it gets,
one after the other, each with one number in Pillow's units; `operations` does them, and states how
far the pixels are from Pillow's. `lighting` and `erasing` stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvidia.dali import types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._seeds import op_seed
from dali_cutmix.augment.draws import OpPolicy, draw_ops
from dali_cutmix.augment.lighting import apply_lighting, draw_lighting
from dali_cutmix.augment.nodes import check_images, check_shape
from dali_cutmix.augment.operations import apply_ops
from dali_cutmix.augment.policies import Lighting, Policy

__all__ = ["augment"]

IMAGENET_FILL = (124, 116, 104)  # round(255 * mean), as timm fills


@graph_function
def augment(
    images: DataNode,
    policies: Sequence[Policy],
    *,
    size: tuple[int, int],
    seed: int,
    shard_id: int = 0,
    fill: Sequence[float] = IMAGENET_FILL,
) -> DataNode:
    """Returns the images after each of the policies in turn.

    For use inside a ``@pipeline_def``, before mixing.

    Args:
        images: uint8 HWC RGB, all of `size`, CPU or GPU.
        policies: of `dali_cutmix.augment.policies`, except RandomErasing (see `erasing`).
        size: (H, W) of the images, at least 3.
        seed: seed of all draws; each random operator derives its own from it, from the index of
            the policy and from the shard.
        shard_id: the shard, so that each has draws of its own.
        fill: RGB in [0, 255] for what RandAugment moves in from outside the image; timm's is the
            mean of the data. TrivialAugment fills with black, as torchvision does by default.

    Returns:
        uint8 HWC on the device of `images`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Follows timm 1.0.31 (RandAugment), torchvision 0.28 (TrivialAugmentWide, ColorJitter),
    facebookresearch/deit (ThreeAugment) and clovaai/CutMix-PyTorch (Lighting). Deviations: bicubic
    interpolation has the coefficient -0.75 on the CPU and -0.5 on a GPU where Pillow has -1.0
    (`operations` says how far the pixels are apart); Lighting rounds to uint8 and clips, where the
    original adds to floats; posterizing to 0 bits gives black, as timm says, where Pillow 13 raises
    an error.

    >>> from nvidia.dali import fn, pipeline_def
    >>> from dali_cutmix.augment.policies import ColorJitter, RandAugment
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    ... def pipe(root):
    ...     encoded, _ = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     policies = [RandAugment.from_timm("rand-m9-mstd0.5-inc1"), ColorJitter(contrast=0.4)]
    ...     return augment(images, policies, size=(32, 48), seed=1)
    >>> (images,) = pipe(root=photo_folder).run()
    >>> images.dtype.name, images.shape()[0]
    ('UINT8', (32, 48, 3))
    """
    check_images(images, size)
    images = check_shape(images, size, types.UINT8)
    for index, policy in enumerate(policies):
        own_seed = op_seed(seed, "augment", index)
        if isinstance(policy, Lighting):
            shift = draw_lighting(policy, seed=own_seed, shard_id=shard_id)
            images = apply_lighting(images, shift)
        elif isinstance(policy, OpPolicy):
            draw = draw_ops(policy, size=size, seed=own_seed, shard_id=shard_id)
            images = apply_ops(images, draw, policy, size=size, fill=fill)
        else:
            raise TypeError(
                "`policies` must hold RandAugment, TrivialAugmentWide, ThreeAugment, ColorJitter "
                f"or Lighting, got {policy!r}: RandomErasing belongs to erasing.erase(), after "
                "normalisation."
            )
    return images
