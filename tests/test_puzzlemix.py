"""examples/puzzlemix.py against the formulas of the paper and of the authors' code, in loops."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dali_cutmix.cli.bench.peers import import_torchvision

import_torchvision()
pytest.importorskip("timm", reason="the extra `peers` is not installed")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parent.parent / "examples" / "puzzlemix.py"
    spec = importlib.util.spec_from_file_location("puzzlemix", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["puzzlemix"] = module
    spec.loader.exec_module(module)
    return module


def cost_of(
    labels: NDArray[Any],
    keep: NDArray[Any],
    give: NDArray[Any],
    down: NDArray[Any],
    across: NDArray[Any],
    prior: NDArray[Any],
) -> float:
    """The energy of labels, 0 for the image to n - 1 for the partner, term by term."""
    total, last = 0.0, len(prior) - 1
    for y, x in np.ndindex(labels.shape):
        share = labels[y, x] / last
        total += (1 - share) * keep[y, x] + share * give[y, x] + prior[labels[y, x]]
        if y + 1 < len(labels):
            total += down[y, x] * ((labels[y, x] - labels[y + 1, x]) / last) ** 2
        if x + 1 < labels.shape[1]:
            total += across[y, x] * ((labels[y, x] - labels[y, x + 1]) / last) ** 2
    return total


@pytest.mark.parametrize(("side", "values"), [(2, 2), (2, 3), (2, 4), (3, 2)])
def test_no_mask_costs_less(example: Any, side: int, values: int) -> None:
    # 4 x 40 energies, each against all masks.
    rng = np.random.default_rng([side, values])
    for _ in range(40):
        parts = [rng.random(shape) for shape in ((side, side), (side, side))]
        weights = [rng.random(s) * rng.random() for s in ((side - 1, side), (side, side - 1))]
        prior = rng.random(values)
        mask = example.lowest(*parts, *weights, prior)
        labels = np.rint((1 - mask) * (values - 1)).astype(int)
        costs = [
            cost_of(np.reshape(one, (side, side)), *parts, *weights, prior)
            for one in itertools.product(range(values), repeat=side * side)
        ]
        assert cost_of(labels, *parts, *weights, prior) < min(costs) + 1e-2


def test_the_energy_is_that_of_the_authors_code(example: Any) -> None:
    rng, blocks, side = np.random.default_rng(0), 4, 8
    pixels = torch.from_numpy(rng.random((3, 3, blocks * side, blocks * side)))
    salient = torch.from_numpy(rng.random((3, blocks, blocks)))
    salient /= salient.sum(dim=(1, 2), keepdim=True)
    indices = torch.tensor([1, 2, 0])
    o = example.Options(gamma=0.9)
    found = example.energy(salient, pixels, indices, o)
    beta = o.beta / blocks / 16
    for k, j in enumerate(indices.tolist()):
        small = [pixels[i].reshape(3, 8, 4, 8, 4).mean((2, 4)).numpy() for i in (k, j)]
        keep, give = salient[j].numpy().copy(), salient[k].numpy().copy()
        for axis, weights in enumerate((found.down[k], found.across[k])):
            for y, x in np.ndindex(*weights.shape):
                other = (y + 1, x) if axis == 0 else (y, x + 1)
                # By who shows in the first and in the second: 0 the image, 1 the partner.
                c = np.zeros((2, 2))
                for a, b in np.ndindex(2, 2):
                    for step in range(2):
                        if axis == 0:
                            one = small[a][:, 2 * y + 1, 2 * x + step]
                            two = small[b][:, 2 * y + 2, 2 * x + step]
                        else:
                            one = small[a][:, 2 * y + step, 2 * x + 1]
                            two = small[b][:, 2 * y + step, 2 * x + 2]
                        c[a, b] += beta * o.gamma * np.abs(one - two).mean() / 2
                keep[y, x] += (c[0, 1] + c[0, 0]) / 2
                give[y, x] += (c[1, 0] + c[1, 1]) / 2
                keep[other] += (c[1, 0] + c[0, 0]) / 2
                give[other] += (c[0, 1] + c[1, 1]) / 2
                expected = max(0, beta + (c[1, 0] + c[0, 1] - c[1, 1] - c[0, 0]) / 2)
                assert weights[y, x].item() == pytest.approx(expected)
        assert np.allclose(found.keep[k], keep)
        assert np.allclose(found.give[k], give)


def test_the_prior_is_that_of_the_paper(example: Any) -> None:
    for lam in (0.2, 0.5, 0.9):
        two, three, four = (
            example.prior(lam, 4, example.Options(labels=n)) * -16 / 0.2 for n in (2, 3, 4)
        )
        assert np.exp(two) == pytest.approx([lam, 1 - lam], abs=1e-6)
        middle = 2 * lam * (1 - lam)
        assert np.exp(three) == pytest.approx([lam**2, middle, (1 - lam) ** 2], abs=1e-6)
        assert np.exp(four).sum() == pytest.approx(1, abs=1e-6)


def test_blocks_go_where_they_are_shown(example: Any) -> None:
    # As the authors' rounds have it, written for one image and in loops.
    generator = torch.Generator().manual_seed(0)
    salient = torch.rand(6, 4, 4, generator=generator)
    mask = (torch.rand(6, 4, 4, generator=generator) > 0.4).float()
    plans = example.places(salient, mask, 0.3)
    for plan, own, shown in zip(plans, salient.flatten(1), mask.flatten(1), strict=True):
        cost = np.zeros((16, 16))
        for i, j in np.ndindex(16, 16):
            far = ((i // 4 - j // 4) ** 2 + (i % 4 - j % 4) ** 2) / 9
            cost[i, j] = 0.3 * far - own[i].item() * shown[j].item()
        for _ in range(4):
            wants, wins = cost.argmin(axis=1), np.full(16, -1)
            for j in range(16):
                rivals = [i for i in range(16) if wants[i] == j and cost[i, j] < 0]
                if rivals:
                    wins[j] = min(rivals, key=lambda i: cost[i, j])
            for i in range(16):
                cost[i, wants[i]] += wins[wants[i]] != i
        expected = np.zeros((16, 16))
        for j, i in enumerate(wins):
            if i >= 0:
                expected[i, j] = 1
        # A block that costs nothing where it is stays there.
        idle = (plan.numpy() - expected)[:, expected.sum(axis=0) == 0]
        assert np.array_equal(
            plan.numpy()[:, expected.sum(axis=0) > 0], expected[:, expected.sum(axis=0) > 0]
        )
        assert (idle >= 0).all()
        assert plan.sum(0).max() <= 1
        assert plan.sum(1).max() <= 1


def test_images_change_places_by_whole_blocks(example: Any) -> None:
    images = torch.rand(2, 3, 16, 16)
    salient, mask = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    salient[:, 0, 0], mask[:, 0, 1] = 1, 1  # what is salient goes from the left to the right
    moved = example.transported(images, salient, mask, 0.1)
    assert torch.equal(moved[:, :, :8, 8:], images[:, :, :8, :8])
    still = example.transported(images, salient, torch.ones(2, 2, 2), 0.8)
    assert torch.equal(still[:, :, :8, :8], images[:, :, :8, :8])


def test_the_gradient_is_that_of_the_loss_and_no_weight_gets_any(example: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16, 5))
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([1, 4])
    found = example.saliency(model, images, labels)
    assert all(weight.grad is None for weight in model.parameters())
    share = model(images).softmax(dim=1) - torch.eye(5)[labels]
    gradient = (share @ model[1].weight).reshape(2, 3, 4, 4) / 2
    assert torch.allclose(found, gradient.square().mean(dim=1).sqrt(), atol=1e-6)


def test_what_is_mixed_is_as_the_masks_say(example: Any) -> None:
    # Without transport: each pixel is lam * image + (1 - lam) * partner, lam of three values, whose
    # mean is that of the label; and it is near the lam that is drawn.
    torch.manual_seed(0)
    mean, std = (torch.full((3, 1, 1), x) for x in (0.4, 0.3))
    images, salient = torch.rand(8, 3, 32, 32), torch.rand(8, 32, 32)
    for lam in (0.1, 0.5, 0.9):

        class Fixed:
            def beta(self, a: float, b: float, lam: float = lam) -> float:  # noqa: ARG002
                return lam

            def choice(self, options: Any) -> int:
                return int(options[1])

            def permutation(self, n: int) -> NDArray[Any]:
                return np.roll(np.arange(n), 1)

        o = example.Options(distance=1e6, eta=2.0)
        mixed, indices, share = example.puzzlemix(images, salient, mean, std, Fixed(), o)
        assert abs(share.mean() - lam) < 0.15
        difference = images - images[indices]
        at = ((mixed - images[indices]) * difference).sum(1) / difference.square().sum(1)
        assert (torch.minimum((at * 2).frac().abs(), 1 - (at * 2).frac().abs()) < 1e-3).all()
        assert torch.allclose(at.mean(dim=(1, 2)), share, atol=1e-4)


@pytest.mark.slow
def test_it_trains(digits: Path, example: Any, monkeypatch: Any, capsys: Any) -> None:
    # On the 360 digits of validation, three epochs of 5 batches.
    arguments = ["--train", digits / "val", "--val", digits / "val", "--model", "test_resnet"]
    arguments += ["--epochs", "3", "--batch-size", "64", "--size", "32", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["puzzlemix.py", *map(str, arguments)])
    monkeypatch.setattr(example.puzzlemix, "__defaults__", (example.Options(blocks=(2, 4)),))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        example.main()
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 3
    assert losses[2] < losses[0]
