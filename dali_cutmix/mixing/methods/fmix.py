"""FMix: each pixel is that of the image where a random smooth field is high, else the partner's.

Rule      field = inverse Fourier transform of complex Gaussian noise / max(f, 1 / max(H, W)) **
          decay at frequency f; lam ~ Beta(alpha, alpha), and the image shows at the lam * H * W
          pixels where the field is highest, rounded up or down, either as likely; lam is then their
          share
Paper     Harris et al. 2020, "FMix: Enhancing Mixed Sample Data Augmentation", and the authors'
          code, ecs-vlc/FMix
Defaults  alpha 1, decay 3, as there
Bank      a field takes a Fourier transform and a sort. So `fields` of them are made when the graph
          is built, as ranks, and one is drawn for each sample, rolled by a uniform shift along both
          axes: the noise is the same in distribution everywhere on the torus, so each of the
          fields * H * W is an exact draw. Two samples of one batch may have one field, shifted
Deviation lam is counted; the paper's is that which was drawn, less than a pixel away. The authors'
          code (after March 2020) takes complex noise for real, which makes every field symmetric
          about a point; openmixup takes a row of it for all. Here it is as the paper has it. No
          soft edges, which are off there by default
Gain      ImageNet, ResNet-50, 300 epochs: 77.35 to 78.51 (openmixup's model zoo; CutMix 78.69)
Cost      a comparison with the field and three bitwise operations on the batch. The bank takes 2
          bytes a pixel of each field, 4 above 65,535 pixels, on the device
When      shapes that vary more than a box's; a little below CutMix on ImageNet, the paper reports
          more than CutMix for smaller data sets. Not with boxes of objects, which cannot follow.
          The images' size must be known (`mix(size=…)`, or a loader)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_alpha, checked_int, checked_number, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Part, Rows, Size

__all__ = ["FMix", "field_ranks"]

_MOST_DECAY = 10.0
_MOST_FIELDS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FMix(Method):
    """FMix (Harris et al. 2020).

    Args:
        alpha: lam ~ Beta(alpha, alpha).
        decay: power of the frequency by which the field decays, in [0, 10]: the higher, the larger
            its parts.
        fields: in the bank, at most 1024.
        seed: of the bank. What is drawn from it follows the seed of the mix.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> FMix().decay
    3.0
    """

    alpha: float = 1.0
    decay: float = 3.0
    fields: int = 16
    seed: int = 0
    shows: ClassVar[Literal["mask"]] = "mask"

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))
        decay = checked_number("decay", self.decay)
        if not 0 <= decay <= _MOST_DECAY:
            raise ValueError(f"`decay` must be in [0, 10], got {self.decay}.")
        set_checked(self, "decay", decay)
        set_checked(self, "fields", checked_int("fields", self.fields, 1, _MOST_FIELDS))
        set_checked(self, "seed", checked_int("seed", self.seed, 0, 2**63 - 1))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns field, shifts and the number of pixels that show, and lam as they have it."""
        lam = draw.beta("fmix lam", self.alpha)
        height, width = (size.node[k : k + 1] for k in range(2))
        area = fn.cast(height, dtype=types.FLOAT64) * width
        exact = lam * area
        count = dmath.floor(exact)
        count = count + (draw.coin("fmix up", 0.5) & (count < exact))
        place = draw.uniform("fmix place", 3)
        field = dmath.floor(place[:, :1] * float(self.fields))
        shifts = dmath.floor(place[:, 1:] * size.node)
        drawn = (field, shifts[:, :1], shifts[:, 1:], count)
        numbers = tuple(fn.cast(x, dtype=types.INT32) for x in drawn)
        return Rows(count / area, numbers=numbers)

    def mask(self, part: Part) -> DataNode:
        """Returns where the field, rolled, is among the highest."""
        size = part.size.known
        if size is None:
            raise ValueError(
                "`size` must be given to mix() with FMix, (height, width) of the images, got None: "
                "its fields are made for it."
            )
        ranks = field_ranks(size, self.decay, self.fields, self.seed)
        kind = types.UINT16 if ranks.dtype == np.uint16 else types.INT32
        field = fn.slice(
            part.constant(ranks, part.device),
            start=part.numbers[:3],
            shape=[1, *size],
            axes=[0, 1, 2],
            out_of_bounds_policy="wrap",
        )
        count = fn.cast(part.numbers[3], dtype=kind)
        if part.device == "gpu":
            count = count.gpu()
        return fn.reshape(field < count, shape=list(size))


@lru_cache(maxsize=8)
def field_ranks(size: tuple[int, int], decay: float, fields: int, seed: int) -> NDArray[Any]:
    """Returns the rank of each pixel of random fields, 0 the highest: (fields, H, W).

    uint16 where that is enough, else int32.
    """
    height, width = size
    rng = np.random.default_rng([seed, height, width])
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    scale = np.maximum(np.hypot(down, across), 1 / max(size)) ** -decay
    ranks = np.empty((fields, height * width), np.int32)
    for rank in ranks:
        noise = rng.standard_normal((2, *scale.shape))
        field = np.fft.irfft2((noise[0] + 1j * noise[1]) * scale, s=size)
        rank[np.argsort(-field, axis=None, kind="stable")] = np.arange(rank.size)
    kind = np.uint16 if ranks[0].size < 2**16 else np.int32
    found = ranks.reshape(fields, height, width).astype(kind)
    found.setflags(write=False)
    return found
