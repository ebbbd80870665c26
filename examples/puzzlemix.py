"""PuzzleMix (Kim et al. 2020), which needs the network that is trained, on a loader without mixing.

    python examples/puzzlemix.py --train TRAIN --val VAL --device gpu

    loader, mix=None  ->  gradient of the loss by the images  ->  masks and transport  ->  step
                          (a pass through the network)            (scipy, torch)

Which part of which image is shown is chosen by where the network's loss is sensitive: by its
gradient on the batch before it is mixed. A graph of DALI runs ahead of the training step and knows
nothing of the network, so this cannot be in the graph; the loader decodes, crops and flips, and
what is mixed is mixed here, on the device. The same holds for
 - Co-Mixup (Kim et al. 2021): the same gradients, of all images of a batch at once;
 - SnapMix and AttentiveMix by the network in training; `dali-cutmix saliency` stores maps of one
   trained before, by which `dcm.SnapMix` and `dcm.AttentiveMix` are in the graph;
 - TransMix (Chen et al. 2022): the images are CutMix's, in the graph; lam comes from the attention
   in the forward pass, `dcm.losses.attention_lam`;
 - Manifold Mixup (Verma et al. 2019): features are mixed in the middle of the network;
 - AutoMix and SAMix (Liu et al. 2022): the masks come from a network that is trained beside.

It follows the authors' code (snu-mllab/PuzzleMix), with what it has for CIFAR as defaults, but for
 - the graph cut: theirs is an alpha-beta swap (gco), which finds a low energy; here it is the
   lowest, as a minimum cut (Ishikawa 2003) by scipy. Where local statistics make a weight between
   two neighbours negative, which no cut can have, it is 0;
 - the size of what is transported: that of the blocks of the mask, the code's own default;
 - no adversarial noise, and no loss on the images before they are mixed: off there too.

Needs scipy. A mask of 4 x 4 blocks takes some 2 ms an image on one core, one of 16 x 16 some 60: a
pool of processes, as the authors have one, divides that.
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np
import timm
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

import dali_cutmix as dcm


class Options(NamedTuple):
    """alpha: of lam ~ Beta; labels: values of the mask, from 0 to 1; beta: smoothness of the mask;
    gamma: share of local statistics in it; eta: weight of lam; distance: cost of transport;
    neighbours: pixels whose colours are compared; blocks: of a mask along each axis, one is drawn.
    """

    alpha: float = 1.0
    labels: int = 3
    beta: float = 1.2
    gamma: float = 0.5
    eta: float = 0.2
    distance: float = 0.8
    neighbours: int = 4
    blocks: tuple[int, ...] = (2, 4, 8, 16)


PUBLISHED = Options()

# The network: where it looks


def saliency(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the size of the loss's gradient at each pixel, (N, H, W). Weights get none of it.

    In training, so that norms of batches see the images twice, as in the authors' code.
    """
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient.square().mean(dim=1).sqrt()


def of_blocks(salient: torch.Tensor, blocks: int) -> torch.Tensor:
    """Returns the saliency of each block, (N, blocks, blocks), which sum to 1."""
    pooled = F.avg_pool2d(salient[:, None], salient.shape[-1] // blocks)[:, 0]
    return pooled / pooled.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)


# The mask: what is shown of whom


class Energy(NamedTuple):
    """What a mask costs: keep (N, b, b) where the image is shown, give where the partner is, and
    down (N, b - 1, b), across (N, b, b - 1) times the squared difference between neighbours.
    """

    keep: torch.Tensor
    give: torch.Tensor
    down: torch.Tensor
    across: torch.Tensor


def energy(
    salient: torch.Tensor, pixels: torch.Tensor, indices: torch.Tensor, o: Options
) -> Energy:
    """Returns what masks cost for each image and its partner.

    Args:
        salient: of the blocks, (N, b, b).
        pixels: (N, C, H, W), in [0, 1].
        indices: of the partners.
    """
    blocks = salient.shape[-1]
    beta = o.beta / blocks / 16
    side = pixels.shape[-1] // blocks
    neighbours = min(o.neighbours, side)
    small = F.avg_pool2d(pixels, neighbours)
    both, step = (small, small[indices]), side // neighbours

    # By whether the first, and the second, of two neighbours is the image (0) or the partner (1).
    down = [[_differences(a, b, step) for b in both] for a in both]
    across = [[_differences(a.mT, b.mT, step).mT for b in both] for a in both]
    weights = []
    give, keep = salient.clone(), salient[indices].clone()
    for pairs, first, second in (
        (down, np.s_[:, :-1, :], np.s_[:, 1:, :]),
        (across, np.s_[:, :, :-1], np.s_[:, :, 1:]),
    ):
        cost = [[beta * o.gamma * pair for pair in row] for row in pairs]
        keep[first] += (cost[0][1] + cost[0][0]) / 2
        give[first] += (cost[1][0] + cost[1][1]) / 2
        keep[second] += (cost[1][0] + cost[0][0]) / 2
        give[second] += (cost[0][1] + cost[1][1]) / 2
        mixed = (cost[0][1] + cost[1][0] - cost[0][0] - cost[1][1]) / 2
        weights.append((mixed + beta).clamp(min=0))
    return Energy(keep, give, *weights)


def _differences(first: torch.Tensor, second: torch.Tensor, step: int) -> torch.Tensor:
    """Returns how much colours differ on the edge between two blocks, one above the other."""
    edge = (first[:, :, :-1] - second[:, :, 1:])[:, :, step - 1 :: step].abs().mean(dim=1)
    return F.avg_pool2d(edge[:, None], (1, step))[:, 0]


def prior(lam: float, blocks: int, o: Options) -> np.ndarray:
    """Returns what each value of the mask, from 1 to 0, costs in a block: -log of a binomial."""
    n = o.labels - 1
    ways = np.array([math.comb(n, k) for k in range(o.labels)])
    share = ways * lam ** np.arange(n, -1, -1) * (1 - lam) ** np.arange(o.labels)
    return -o.eta * np.log(share + 1e-8) / blocks**2


def lowest(
    keep: np.ndarray, give: np.ndarray, down: np.ndarray, across: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """Returns the mask of least cost of one image, (b, b) float32, exact but for rounding.

    Each block is a chain of nodes from the source to the sink, of which an edge is cut for each
    value of the mask; edges between the chains of neighbours cost the square of how many steps the
    cuts are apart (Ishikawa 2003).
    """
    values, n = len(prior), keep.size
    scale = 1000 * n  # the authors'
    node = np.arange(n * (values - 1)).reshape(*keep.shape, values - 1)
    source, sink = node.size, node.size + 1
    edges: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(start: object, end: object, cost: np.ndarray | float) -> None:
        start, end, cost = np.broadcast_arrays(start, end, cost)
        edges.append((start.ravel(), end.ravel(), cost.ravel()))

    shares = np.arange(values) / (values - 1)
    costs = (1 - shares) * keep[..., None] + shares * give[..., None] + prior
    costs = costs - costs.min(axis=-1, keepdims=True)  # no cut is cheaper for it
    chain = np.concatenate(
        [np.full((*keep.shape, 1), source), node, np.full((*keep.shape, 1), sink)], -1
    )
    add(chain[..., :-1], chain[..., 1:], costs)
    add(node[..., 1:], node[..., :-1], 4.0 * values)  # a chain is cut once
    for weight, first, second in ((down, node[:-1], node[1:]), (across, node[:, :-1], node[:, 1:])):
        for i in range(values - 1):
            for j in range(i + 1):
                steps = np.square(np.arange(i - j - 1, i - j + 2) / (values - 1))
                bend = steps[2] - 2 * steps[1] + steps[0] if i > j else steps[2]
                for a, b in ((first, second), (second, first)):
                    add(a[..., i], b[..., j], weight * bend)

    start, end, cost = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    capacity = np.rint(scale * cost).astype(np.int64).clip(0, 2**30)
    size = node.size + 2
    graph = csr_matrix(coo_matrix((capacity, (start, end)), shape=(size, size)), dtype=np.int32)
    left = graph - maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = np.zeros(size, bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return (1 - reached[node].sum(axis=-1) / (values - 1)).astype(np.float32)


# The transport: salient blocks go where they are shown


def transported(
    images: torch.Tensor, salient: torch.Tensor, mask: torch.Tensor, distance: float
) -> torch.Tensor:
    """Returns images whose blocks have changed places, so that the salient are where mask is not 0.

    Args:
        salient, mask: (N, b, b).
    """
    n, blocks = len(images), mask.shape[-1]
    plan = places(salient, mask, distance)
    side = images.shape[-1] // blocks
    parts = F.unfold(images, side, stride=side)  # (N, values of a block, blocks)
    moved = parts @ plan.reshape(n, blocks**2, blocks**2).to(parts)
    return F.fold(moved, images.shape[-2:], side, stride=side)


def places(salient: torch.Tensor, mask: torch.Tensor, distance: float) -> torch.Tensor:
    """Returns where each block goes, (N, b * b, b * b), one 1 in each row and column at most.

    As the authors' code has it: each takes its best place, of several the best keeps it, and the
    others find it dearer in the next round.
    """
    blocks = mask.shape[-1]
    at = torch.stack(
        torch.meshgrid(*(torch.arange(blocks, device=mask.device),) * 2, indexing="ij"), dim=-1
    ).reshape(-1, 2)
    far = (at[:, None] - at[None]).square().sum(dim=-1) / (blocks - 1) ** 2
    shown = (mask > 0).flatten(1).to(salient)
    cost = distance * far - salient.flatten(1)[:, :, None] * shown[:, None]
    for _ in range(blocks):
        wanted = torch.zeros_like(cost).scatter_(-1, cost.argmin(-1, keepdim=True), 1)
        best = torch.zeros_like(cost).scatter_(-2, (wanted * cost).argmin(-2, keepdim=True), 1)
        kept = best * wanted
        cost = cost + (1 - kept) * wanted
    return kept


# All of it


def puzzlemix(
    images: torch.Tensor,
    salient: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    rng: np.random.Generator,
    o: Options = PUBLISHED,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the mixed images, the indices of their partners, and lam, (N,).

    Args:
        images: normalised, (N, C, S, S), S a multiple of all `Options.blocks`.
        salient: (N, S, S), of `saliency`.
        mean, std: by which they were normalised, (C, 1, 1).
    """
    blocks, lam = int(rng.choice(o.blocks)), float(rng.beta(o.alpha, o.alpha))
    indices = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    of_own = of_blocks(salient, blocks)
    costs = energy(of_own, images * std + mean, indices, o)
    each = zip(*(part.double().cpu().numpy() for part in costs), strict=True)
    found = np.stack([lowest(*one, prior(lam, blocks, o)) for one in each])
    mask = torch.from_numpy(found).to(images)
    own = transported(images, of_own, mask, o.distance)
    partner = transported(images[indices], of_own[indices], 1 - mask, o.distance)
    large = F.interpolate(mask[:, None], size=images.shape[-2:])
    return large * own + (1 - large) * partner, indices, mask.mean(dim=(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, metavar="SOURCE")
    parser.add_argument("--val", required=True, metavar="SOURCE")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="a multiple of 16")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    args = parser.parse_args()

    options = {"batch_size": args.batch_size, "size": args.size, "device": args.device}
    train = dcm.train_loader(args.train, mix=None, **options)
    val = dcm.val_loader(args.val, like=train)
    device = torch.device("cpu" if args.device == "cpu" else "cuda")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = timm.create_model(args.model, num_classes=train.num_classes).to(device)
    optimiser = torch.optim.SGD(
        model.parameters(), args.learning_rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.epochs * len(train))
    mean, std = (
        torch.tensor(x, device=device).view(3, 1, 1) for x in (train.recipe.mean, train.recipe.std)
    )
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for images, labels in train:
            mixed, indices, lam = puzzlemix(images, saliency(model, images, labels), mean, std, rng)
            loss = dcm.losses.cross_entropy(model(mixed), (labels, labels[indices], lam))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        model.eval()
        right = seen = 0
        with torch.no_grad():
            for images, labels in val:
                right += int((model(images).argmax(dim=1) == labels).sum())
                seen += len(labels)
        loss = total / len(train)
        print(f"epoch {epoch}: loss {loss:.3f}, top-1 {right / seen:.4f}", flush=True)


if __name__ == "__main__":
    main()
