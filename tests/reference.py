"""The specification: CutMix and MixUp in plain NumPy, written from the papers.

Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
Features", with the box of the authors' code; Zhang et al. 2018, "mixup: Beyond Empirical Risk
Minimization". Nothing here is fast, and nothing imports the package.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


def paper_box(lam: float, centre: tuple[int, int], size: tuple[int, int]) -> Box:
    """(y, x, h, w), clipped; (H, W, 0, 0) where nothing is cut."""
    cut = math.sqrt(1 - lam)
    starts, sides = [], []
    for position, length in zip(centre, size, strict=True):
        side = int(length * cut)
        start = min(max(position - side // 2, 0), length)
        end = min(max(position + side // 2, 0), length)
        starts.append(start)
        sides.append(end - start)
    if sides[0] * sides[1] == 0:
        return size[0], size[1], 0, 0
    return starts[0], starts[1], sides[0], sides[1]


def timm_box(lam: float, centre: tuple[int, int], size: tuple[int, int]) -> Box:
    """As `paper_box`, but an odd side keeps its last pixel (timm 1.0.31)."""
    starts, sides = [], []
    for position, length in zip(centre, size, strict=True):
        side = int(length * math.sqrt(1 - lam))
        start = min(max(position - side // 2, 0), length)
        end = min(max(position + (side + 1) // 2, 0), length)
        starts.append(start)
        sides.append(end - start)
    if sides[0] * sides[1] == 0:
        return size[0], size[1], 0, 0
    return starts[0], starts[1], sides[0], sides[1]


def inside_box(lam: float, position: tuple[float, float], size: tuple[int, int]) -> Box:
    """side = int(S * sqrt(1 - lam)), at the position among the S - side + 1 places inside."""
    sides = [int(length * math.sqrt(1 - lam)) for length in size]
    return placed_box(sides, position, size)


def minmax_box(
    draws: tuple[float, float],
    position: tuple[float, float],
    minmax: tuple[float, float],
    size: tuple[int, int],
) -> Box:
    """side uniform in [int(lo * S), int(hi * S)), placed as `inside_box` (timm 1.0.31)."""
    sides = []
    for draw, length in zip(draws, size, strict=True):
        low, high = int(length * minmax[0]), int(length * minmax[1])
        sides.append(low + math.floor(draw * (high - low)))
    return placed_box(sides, position, size)


def placed_box(sides: list[int], position: tuple[float, float], size: tuple[int, int]) -> Box:
    if sides[0] * sides[1] == 0:
        return size[0], size[1], 0, 0
    y, x = (
        math.floor(u * (length - side + 1))
        for u, length, side in zip(position, size, sides, strict=True)
    )
    return y, x, sides[0], sides[1]


def resizemix_box(scale: float, position: tuple[float, float], size: tuple[int, int]) -> Box:
    """side = int(S * scale), at the position among the S - side + 1 places inside (ResizeMix)."""
    return placed_box([math.floor(length * scale) for length in size], position, size)


def resized_into(
    image: NDArray[np.uint8], partner: NDArray[np.uint8], box: Box
) -> NDArray[np.uint8]:
    """The image with the whole partner in a box of it: pixel y of h is floor(y * H / h)."""
    out = image.copy()
    y0, x0, h, w = box
    for y in range(h):
        for x in range(w):
            out[y0 + y, x0 + x] = partner[y * image.shape[0] // h, x * image.shape[1] // w]
    return out


def gridmix_holes(lam: float, holes: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the partner shows (GridMix): hole by hole, as IlyaDobrynin/GridMixup has it."""
    height, width = size
    patch = math.ceil(width / holes)
    side = min(max(int(patch * math.sqrt(1 - lam)), 1), patch - 1)
    mask = np.zeros(size, bool)
    for y in range(0, height, patch):
        for x in range(0, width, patch):
            mask[y : y + side, x : x + side] = True
    return mask


def fmix_field(
    noise: NDArray[np.float64], decay: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """The random field of FMix, as a sum over frequencies: complex noise / f ** decay.

    Args:
        noise: (2, H, W // 2 + 1), real and imaginary; the negative frequencies are its conjugate.
    """
    height, width = size
    y, x = np.arange(height), np.arange(width)
    field = np.zeros(size)
    for k in range(height):
        for m in range(width // 2 + 1):
            frequency = math.hypot(min(k, height - k) / height, m / width)
            amplitude = complex(*noise[:, k, m]) * max(frequency, 1 / max(size)) ** -decay
            wave = np.exp(2j * np.pi * (k * y[:, None] / height + m * x / width))
            twice = 1 if 2 * m in (0, width) else 2
            field += twice * (amplitude * wave).real / (height * width)
    return field


def smoothmix_weights(
    centre: tuple[int, int], sigma: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """The partner's weight of each pixel: a Gaussian of the distance to the centre (SmoothMix)."""
    y, x = np.indices(size)
    return np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma**2))


def averaged(
    image: NDArray[np.generic], partner: NDArray[np.generic], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(1 - weight) * image + weight * partner, before it is rounded."""
    own = 1 - weights[..., None]
    return own * image.astype(np.float64) + weights[..., None] * partner.astype(np.float64)


def cutout_box(centre: tuple[int, int], length: int, size: tuple[int, int]) -> Box:
    """[c - length // 2, c + length // 2) in each axis, clipped (Cutout)."""
    starts = [max(c - length // 2, 0) for c in centre]
    ends = [min(c + length // 2, s) for c, s in zip(centre, size, strict=True)]
    return starts[0], starts[1], ends[0] - starts[0], ends[1] - starts[1]


def blended(image: NDArray[np.uint8], partner: NDArray[np.uint8], lam: float) -> NDArray[np.uint8]:
    """lam * image + (1 - lam) * partner, rounded to nearest, halves to even.

    The two weights are float32, as in the label; their sum over the pixels is exact.
    """
    return np.rint(weighted_sum(image, partner, lam)).astype(np.uint8)


def weighted_sum(
    image: NDArray[np.generic], partner: NDArray[np.generic], lam: float
) -> NDArray[np.float64]:
    share = np.float32(lam)
    rest = np.float32(1) - share
    return np.float64(share) * image.astype(np.float64) + np.float64(rest) * partner


def pasted(image: NDArray[np.uint8], partner: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    out = np.empty_like(image)
    y0, x0, h, w = box
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            inside = y0 <= y < y0 + h and x0 <= x < x0 + w
            out[y, x] = partner[y, x] if inside else image[y, x]
    return out


def original_pixels(box: Box, size: tuple[int, int]) -> int:
    """Number of pixels of the original that show, by counting."""
    y0, x0, h, w = box
    return sum(
        not (y0 <= y < y0 + h and x0 <= x < x0 + w) for y in range(size[0]) for x in range(size[1])
    )


def one_hot(label: int, num_classes: int, smoothing: float = 0.0) -> NDArray[np.float64]:
    row = np.full(num_classes, smoothing / num_classes)
    row[label] += 1 - smoothing
    return row


def mixed_row(
    row_a: NDArray[np.floating], row_b: NDArray[np.floating], lam: float
) -> NDArray[np.float64]:
    return lam * row_a.astype(np.float64) + (1 - lam) * row_b.astype(np.float64)


# Masks, boxes, volumes


def shown_boxes(
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    box: Box,
    size: tuple[int, int],
    keep: tuple[float, float] = (0.5, 0.5),
    *,
    method: str = "CutMix",
) -> tuple[list[int], list[int], NDArray[np.float32]]:
    """Which boxes of the image and which of its partner are shown, and where, (k, 4), ltrb.

    A box of the image stays where less than keep[0] of it is covered, or nothing; one of the
    partner comes where more than keep[1] of it is inside what is pasted, or all.
    """
    height, width = size
    y, x, h, w = (float(number) for number in box)
    at: list[list[float]] = []
    stay, come = [], []
    for i, row in enumerate(own.astype(np.float64).tolist()):
        area, covered = areas([row[k] * (width, height)[k % 2] for k in range(4)], (x, y, w, h))
        if method == "MixUp" or covered == 0 or covered < keep[0] * area:
            stay.append(i)
            at.append(row)
    for i, row in enumerate(other.astype(np.float64).tolist()):
        if method == "MixUp":
            come.append(i)
            at.append(row)
            continue
        scale, shift = ((w, h), (x, y)) if method == "ResizeMix" else ((width, height), (0.0, 0.0))
        pixels = [row[k] * scale[k % 2] + shift[k % 2] for k in range(4)]
        area, inside = areas(pixels, (x, y, w, h))
        if inside == area or inside > keep[1] * area:
            come.append(i)
            clipped = [min(max(pixels[k], (x, y)[k % 2]), (x + w, y + h)[k % 2]) for k in range(4)]
            at.append([clipped[k] / (width, height)[k % 2] for k in range(4)])
    return stay, come, np.array(at, np.float64).reshape(-1, 4).astype(np.float32)


def areas(ltrb: list[float], pasted_box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Area of a box, and of what of it is in (x, y, w, h).

    A side of no length has length 1, all of it covered where it lies in there or on the edge.
    """
    x, y, w, h = pasted_box
    area = covered = 1.0
    for start, end, low, side in ((ltrb[0], ltrb[2], x, w), (ltrb[1], ltrb[3], y, h)):
        if end > start:
            area *= end - start
            covered *= max(min(end, low + side) - max(start, low), 0.0)
        else:
            covered *= float(side > 0 and low <= start <= low + side)
    return area, covered


def volume_box(lam: float, centre: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """As `paper_box`, in any number of axes; (D, H, W, 0, 0, 0) where nothing is cut."""
    starts, sides = [], []
    for position, length in zip(centre, size, strict=True):
        side = int(length * math.sqrt(1 - lam))
        start = max(position - side // 2, 0)
        starts.append(start)
        sides.append(min(position + side // 2, length) - start)
    if min(sides) == 0:
        return (*size, *[0] * len(size))
    return (*starts, *sides)


def pasted_volume(
    volume: NDArray[np.generic],
    partner: NDArray[np.generic],
    box: tuple[int, ...],
    channels_first: bool = False,
) -> NDArray[np.generic]:
    """(D, H, W[, C]) or (C, D, H, W), voxel by voxel."""
    if channels_first:
        layers = [pasted_volume(a, b, box) for a, b in zip(volume, partner, strict=True)]
        return np.stack(layers)
    out = volume.copy()
    z0, y0, x0, d, h, w = box
    for z in range(z0, z0 + d):
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                out[z, y, x] = partner[z, y, x]
    return out


# Mosaic


def mosaic_centre(
    draws: tuple[float, float], scope: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int]:
    """(y, x) where four images meet, uniform in [int(lo * S), int(hi * S)) along each axis."""
    y, x = (
        int(scope[0] * length) + math.floor(u * (int(scope[1] * length) - int(scope[0] * length)))
        for u, length in zip(draws, size, strict=True)
    )
    return y, x


def mosaic(images: list[NDArray[np.generic]], centre: tuple[int, int]) -> NDArray[np.generic]:
    """A window, as large as an image, of four beside each other, in which they meet at (y, x)."""
    top_left, top_right, bottom_left, bottom_right = images
    top = np.concatenate([top_left, top_right], axis=1)
    bottom = np.concatenate([bottom_left, bottom_right], axis=1)
    height, width = top_left.shape[:2]
    y, x = height - centre[0], width - centre[1]
    return np.concatenate([top, bottom])[y : y + height, x : x + width]


def mosaic_shares(centre: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """Of four images the share of the pixels that each has, by counting."""
    shown = mosaic([np.full(size, k) for k in range(4)], centre)
    return np.array([(shown == k).mean() for k in range(4)])


def mosaic_boxes(
    boxes: list[NDArray[np.float32]],
    centre: tuple[int, int],
    size: tuple[int, int],
    keep: float,
) -> tuple[list[list[int]], NDArray[np.float32]]:
    """Which boxes of each of four images are shown, and where, (k, 4), ltrb.

    One is where more than `keep` of it is in the part that its image shows, or all.
    """
    (height, width), (yc, xc) = size, centre
    found: list[list[int]] = [[], [], [], []]
    at: list[list[float]] = []
    for k, rows in enumerate(boxes):
        bottom, right = divmod(k, 2)
        shift_y, shift_x = yc - (not bottom) * height, xc - (not right) * width
        part = (right * xc, bottom * yc, width - xc if right else xc, height - yc if bottom else yc)
        x, y, w, h = (float(number) for number in part)
        if not w * h:
            continue
        for i, row in enumerate(rows.astype(np.float64).tolist()):
            pixels = [row[j] * (width, height)[j % 2] + (shift_x, shift_y)[j % 2] for j in range(4)]
            area, inside = areas(pixels, (x, y, w, h))
            if inside == area or inside > keep * area:
                found[k].append(i)
                clipped = [
                    min(max(pixels[j], (x, y)[j % 2]), (x + w, y + h)[j % 2]) for j in range(4)
                ]
                at.append([clipped[j] / (width, height)[j % 2] for j in range(4)])
    return found, np.array(at, np.float64).reshape(-1, 4).astype(np.float32)


# Ultralytics' CutMix (8.4.190), in float32 as there


def inside_fractions(
    areas: NDArray[np.int32], objects: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Which part of each box, ltrb in [0, 1], is in each area, (y, x, h, w): (K, n)."""
    pixels = objects * np.array([size[1], size[0]] * 2, np.float32)
    y, x, h, w = (areas[:, k, None].astype(np.float32) for k in range(4))
    zero = np.float32(0)
    left, top, right, bottom = pixels.T
    across = np.maximum(np.minimum(x + w, right) - np.maximum(x, left), zero)
    down = np.maximum(np.minimum(y + h, bottom) - np.maximum(y, top), zero)
    return across * down / ((right - left) * (bottom - top) + np.float32(1e-7))


def avoiding_area(
    areas: NDArray[np.int32],
    order: NDArray[np.integer],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    size: tuple[int, int],
) -> tuple[Box, list[int]]:
    """The area that is cut, and which boxes of the partner come along.

    Of the areas that touch no box of the image the last with the largest number. An empty one, and
    no box, where there is none or no box of the partner comes along.
    """
    nothing: tuple[Box, list[int]] = (size[0], size[1], 0, 0), []
    free = np.flatnonzero(inside_fractions(areas, own, size).sum(axis=1) <= 0)
    if not len(free):
        return nothing
    area = areas[max(free, key=lambda k: (order[k], k))]
    coming = np.flatnonzero(inside_fractions(area[None], other, size)[0] >= np.float32(0.1))
    if not len(coming):
        return nothing
    y, x, h, w = area.tolist()
    return (y, x, h, w), coming.tolist()


# Saliency


def salient_pixel(saliency: NDArray[np.generic], size: tuple[int, int]) -> tuple[int, int]:
    """The middle pixel of the largest cell, of several the first in rows; or that of a point."""
    if saliency.ndim == 1:
        y, x = (
            min(math.floor(float(p) * length), length - 1)
            for p, length in zip(saliency, size, strict=True)
        )
        return y, x
    cell = np.unravel_index(int(np.argmax(saliency)), saliency.shape)
    y, x = (
        (2 * int(i) + 1) * length // (2 * count)
        for i, length, count in zip(cell, size, saliency.shape, strict=True)
    )
    return y, x


def attended_cells(saliency: NDArray[np.generic], cells: int, most: int) -> list[int]:
    """Of K x K cells those with the largest sums of a map, of equal ones the first in rows.

    A cell of the map counts by the part of it that lies in one of the K x K.
    """
    weights = []
    for count in saliency.shape:
        ends, at = np.arange(count + 1)[None] * cells, np.arange(cells + 1)[:, None] * count
        inside = np.minimum(ends[:, 1:], at[1:]) - np.maximum(ends[:, :-1], at[:-1])
        weights.append(np.maximum(inside, 0))
    sums = (weights[0] @ saliency.astype(np.float64) @ weights[1].T).ravel()
    return np.argsort(-sums, kind="stable")[:most].tolist()


def cells_pasted(
    image: NDArray[np.generic], partner: NDArray[np.generic], chosen: list[int], cells: int
) -> NDArray[np.generic]:
    out, (height, width) = image.copy(), image.shape[:2]
    for cell in chosen:
        y, x = divmod(cell, cells)
        rows = slice(y * height // cells, (y + 1) * height // cells)
        columns = slice(x * width // cells, (x + 1) * width // cells)
        out[rows, columns] = partner[rows, columns]
    return out


def mass_in(saliency: NDArray[np.generic], box: Box, size: tuple[int, int]) -> float | None:
    """Which part of a map is in a box, each cell by the part of it that is; None without any."""
    mass = saliency.astype(np.float64) - float(saliency.min())
    if not mass.any():
        return None
    weights = []
    for start, side, length, count in zip(box[:2], box[2:], size, saliency.shape, strict=True):
        ends = np.arange(count + 1) * length / count
        inside = np.minimum(ends[1:], start + side) - np.maximum(ends[:-1], start)
        weights.append(np.maximum(inside, 0) * count / length)
    return float((weights[0][:, None] * mass * weights[1][None]).sum() / mass.sum())


def part_resized_into(
    image: NDArray[np.generic], partner: NDArray[np.generic], box: Box, source: Box
) -> NDArray[np.float64]:
    """The image with a part of the partner in a box of it, linear, corner pixels on corner pixels.

    Not rounded; torch's interpolate with align_corners.
    """
    out = image.astype(np.float64)
    y0, x0, h, w = box
    ys, xs = (
        start + np.arange(side) * (count - 1) / max(side - 1, 1)
        for start, count, side in zip(source[:2], source[2:], (h, w), strict=True)
    )
    low_y, low_x = np.floor(ys).astype(int), np.floor(xs).astype(int)
    up_y, up_x = (
        np.minimum(low + 1, length - 1)
        for low, length in zip((low_y, low_x), image.shape[:2], strict=True)
    )
    part_y, part_x = (ys - low_y)[:, None, None], (xs - low_x)[None, :, None]
    values = partner.astype(np.float64)
    above = values[low_y][:, low_x] * (1 - part_x) + values[low_y][:, up_x] * part_x
    below = values[up_y][:, low_x] * (1 - part_x) + values[up_y][:, up_x] * part_x
    out[y0 : y0 + h, x0 : x0 + w] = above * (1 - part_y) + below * part_y
    return out


def snapmix_weights(
    own: NDArray[np.generic],
    other: NDArray[np.generic],
    box: Box,
    source: Box,
    size: tuple[int, int],
    equal: bool,
) -> tuple[float, float]:
    """Weights of both labels, as the authors' code has them."""
    by_area = box[2] * box[3] / (size[0] * size[1])
    covered, shown = mass_in(own, box, size), mass_in(other, source, size)
    lam_a = 1 - (by_area if covered is None else covered)
    lam_b = by_area if shown is None else shown
    return (lam_a + lam_b, lam_a + lam_b) if equal else (lam_a, lam_b)


def native_saliency(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """56 x 56: by how much each place is brighter, or darker, than 7 x 7 and 3 x 3 around it."""
    at = (np.floor((np.arange(56) + 0.5) * length / 56).astype(int) for length in image.shape[:2])
    gray = image[np.ix_(*at)].astype(np.float64).mean(axis=2)
    around, differences = gray, []
    for side in (7, 3):
        around = resampled(around, (side, side))
        differences.append(gray - resampled(around, (56, 56)))
    brighter = sum(np.maximum(d, 0) for d in differences)
    darker = sum(np.maximum(-d, 0) for d in differences)
    both: NDArray[np.float64] = np.maximum(brighter * darker.max(), darker * brighter.max())
    return both


def resampled(image: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Linear, and where it is made smaller filtered by a triangle two of its pixels wide."""
    for axis, side in enumerate(size):
        count = image.shape[axis]
        at = (np.arange(side) + 0.5) * count / side - 0.5
        radius = max(count / side, 1.0)
        near = np.arange(-count, 2 * count)  # beyond an edge it is repeated
        all_weights = np.maximum(1 - np.abs(at[:, None] - near[None]) / radius, 0)
        all_weights /= all_weights.sum(axis=1, keepdims=True)
        weights = np.zeros((side, count))
        np.add.at(weights.T, np.clip(near, 0, count - 1), all_weights.T)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return image
