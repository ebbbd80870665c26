"""Methods as their authors, or openmixup, write them in torch: what the graph is compared with.

Each mixes a batch of images, float32 (N, C, H, W), and returns it with both labels and lam. One
draw serves the whole batch, as there, but for Cutout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["cutout", "fmix", "gridmix", "resizemix", "smoothmix"]

Mask = NDArray[np.float64]
_HALF = 56  # of Cutout's side: half of an image of 224


def resizemix(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    """As openmixup's resizemix (commit b4b826a), by nearest pixels, also where H and W differ."""
    height, width = images.shape[2:]
    scale, order = np.random.uniform(0.1, 0.8), torch.randperm(len(images))
    (top, bottom), (left, right) = (
        _around(size, int(size * scale) // 2) for size in (height, width)
    )
    small = torch.nn.functional.interpolate(images[order], (bottom - top, right - left))
    images[:, :, top:bottom, left:right] = small
    return images, labels, labels[order], 1 - (bottom - top) * (right - left) / height / width


def gridmix(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    """As GridMixupLoss of IlyaDobrynin/GridMixup (commit 0723f9c), by default."""
    height, width = images.shape[2:]
    patch = -(-width // 20)
    side = int(patch * np.sqrt(1 - np.random.uniform(0.1, 0.9)))
    side = min(max(side, 1), patch - 1)
    mask = np.ones((height, width))
    for x in range(0, width, patch):
        for y in range(0, height, patch):
            mask[y : y + side, x : x + side] = 0
    return _by_mask(images, labels, mask, mask.mean())


def fmix(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    """As sample_and_apply of ecs-vlc/FMix (commit 247adc5), alpha 1, decay 3, of complex noise."""
    size = height, width = images.shape[2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    noise = np.random.randn(2, *frequency.shape) / np.maximum(frequency, 1 / max(size)) ** 3
    field = np.fft.irfft2(noise[0] + 1j * noise[1], s=size).ravel()
    lam, mask = np.random.beta(1, 1), np.zeros(height * width)
    mask[field.argsort()[::-1][: round(lam * len(mask))]] = 1
    return _by_mask(images, labels, mask.reshape(size), lam)


def smoothmix(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    """As openmixup's smoothmix (commit a0c5840), but that lam is the image's share."""
    height, width = images.shape[2:]
    sigma = (np.random.rand() / 4 + 0.25) * height
    y = np.arange(height)[:, None] - np.random.randint(height)
    x = np.arange(width) - np.random.randint(width)
    mask = 1 - np.exp(-(y**2 + x**2) / (2 * sigma**2))
    return _by_mask(images, labels, mask, mask.mean())


def cutout(images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, ...]:
    """As Cutout of uoguelph-mlrg/Cutout, an image after another."""
    for image in images:
        (top, bottom), (left, right) = (_around(size, _HALF) for size in image.shape[1:])
        mask = np.ones(image.shape[1:], np.float32)
        mask[top:bottom, left:right] = 0
        image *= torch.from_numpy(mask).to(image)
    return images, labels, labels, 1.0


def _around(size: int, half: int) -> tuple[int, int]:
    """Returns where an axis is cut: a uniform centre and `half` to both sides, clipped."""
    centre = np.random.randint(size)
    return max(centre - half, 0), min(centre + half, size)


def _by_mask(images: torch.Tensor, labels: torch.Tensor, mask: Mask, lam: float) -> tuple[Any, ...]:
    """Returns a batch mixed by one mask, (H, W), the image's share of each pixel."""
    shares = torch.from_numpy(mask).to(images)
    order = torch.randperm(len(images), device=images.device)
    return images * shares + images[order] * (1 - shares), labels, labels[order], lam
