"""Losses on pairs equal torch's (and timm's rules) on the dense rows, gradients too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dali_cutmix import losses

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def batch(n: int, k: int, device: str) -> tuple[torch.Tensor, Any]:
    """Logits and pairs, with equal labels and shares of 0 and 1 among them."""
    generator = torch.Generator().manual_seed(n * k)
    logits = torch.randn(n, k, generator=generator)
    label_a, label_b = (torch.randint(k, (n,), generator=generator) for _ in range(2))
    lam = torch.rand(n, generator=generator)
    label_b[: n // 4] = label_a[: n // 4]
    lam[n // 8 : n // 4 + 2] = torch.tensor([0.0, 1.0]).repeat(n)[: n // 4 + 2 - n // 8]
    return logits.to(device), tuple(x.to(device) for x in (label_a, label_b, lam))


def rows(pair: Any, k: int, smoothing: float) -> torch.Tensor:
    label_a, label_b, lam = pair
    off = smoothing / k
    one_hot = [F.one_hot(x, k) * (1 - smoothing) + off for x in (label_a, label_b)]
    return lam[:, None] * one_hot[0] + (1 - lam[:, None]) * one_hot[1]


def value_and_gradient(function: Any, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    value = function(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def assert_equal(mine: Any, dense: Any, logits: torch.Tensor) -> None:
    (value, gradient), (expected, expected_gradient) = (
        value_and_gradient(f, logits) for f in (mine, dense)
    )
    assert value.shape == ()
    assert abs(value - expected) < 1e-6 * max(1, abs(expected))
    assert (gradient - expected_gradient).abs().max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("n", "k"), [(64, 2), (32, 1000), (16, 21841)])
def test_cross_entropy_of_pairs_equals_that_of_rows(
    n: int, k: int, smoothing: float, device: str
) -> None:
    logits, pair = batch(n, k, device)
    dense = rows(pair, k, smoothing)
    assert_equal(
        lambda x: losses.cross_entropy(x, pair, label_smoothing=smoothing),
        lambda x: F.cross_entropy(x, dense),
        logits,
    )
    assert_equal(
        lambda x: losses.cross_entropy(x, dense), lambda x: F.cross_entropy(x, dense), logits
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("n", "k"), [(64, 2), (32, 1000)])
def test_binary_cross_entropy_of_pairs_equals_that_of_rows(
    n: int, k: int, smoothing: float, threshold: float | None, device: str
) -> None:
    logits, pair = batch(n, k, device)
    dense = rows(pair, k, smoothing)
    target = dense if threshold is None else (dense > threshold).to(dense.dtype)

    def expected(x: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(x, target)

    assert_equal(
        lambda x: losses.binary_cross_entropy(
            x, pair, label_smoothing=smoothing, target_threshold=threshold
        ),
        expected,
        logits,
    )
    assert_equal(
        lambda x: losses.binary_cross_entropy(x, dense, target_threshold=threshold),
        expected,
        logits,
    )


def test_accuracy_credits_by_share() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]])
    pair = (
        torch.tensor([0, 0, 0, 0]),
        torch.tensor([1, 1, 1, 0]),
        torch.tensor([0.75, 0.75, 0.75, 0.75]),
    )
    # predicted: the original, the partner, neither, both the same class
    expected = (0.75 + 0.25 + 0 + 1) / 4
    assert losses.mixed_accuracy(logits, pair).item() == pytest.approx(expected)
    assert losses.mixed_accuracy(logits, rows(pair, 3, 0.0)).item() == pytest.approx(expected)


def test_accuracy_without_mixing_is_top_1() -> None:
    logits, (label_a, _, _) = batch(64, 10, "cpu")
    top_1 = (logits.argmax(1) == label_a).float().mean()
    one_hot = F.one_hot(label_a, 10).float()
    assert torch.equal(losses.mixed_accuracy(logits, one_hot), top_1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_indices_are_rows_that_are_not_mixed(smoothing: float) -> None:
    logits, (labels, _, _) = batch(64, 10, "cpu")
    dense = rows((labels, labels, torch.ones(64)), 10, smoothing)
    assert_equal(
        lambda x: losses.cross_entropy(x, labels, label_smoothing=smoothing),
        lambda x: F.cross_entropy(x, labels, label_smoothing=smoothing),
        logits,
    )
    assert_equal(
        lambda x: losses.binary_cross_entropy(x, labels, label_smoothing=smoothing),
        lambda x: F.binary_cross_entropy_with_logits(x, dense),
        logits,
    )
    top_1 = (logits.argmax(1) == labels).float().mean()
    assert losses.mixed_accuracy(logits, labels) == top_1


@pytest.mark.parametrize(
    "function", [losses.cross_entropy, losses.binary_cross_entropy, losses.mixed_accuracy]
)
def test_wrong_targets_are_refused(function: Any) -> None:
    logits = torch.zeros(4, 3)
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"`targets` must be float rows of shape \(4, 3\), class"):
        function(logits, labels.int())
    with pytest.raises(ValueError, match=r"three tensors of shape \(4,\), got one of shape \(3,\)"):
        function(logits, labels[:3])
    with pytest.raises(ValueError, match=r"`targets` must be float rows .* got torch.int64"):
        function(logits, torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"`targets` must be rows or \(label_a, label_b, lam\)"):
        function(logits, (labels, labels))
    with pytest.raises(TypeError, match=r"`targets` must be rows or \(label_a, label_b, lam\)"):
        function(logits, (labels, labels, 0.5))
    with pytest.raises(TypeError, match=r"must be \(int64, int64, float\), got \(torch.float32, "):
        function(logits, (labels.float(), labels, labels))
    with pytest.raises(TypeError, match=r"must be \(int64, int64, float\), got \(torch.int64, "):
        function(logits, (labels, labels, labels))
    with pytest.raises(ValueError, match=r"three tensors of shape \(4,\), got one of shape \(3,\)"):
        function(logits, (labels, labels, torch.zeros(3)))


def test_wrong_options_are_refused() -> None:
    logits, pair = batch(4, 3, "cpu")
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\], got 2"):
        losses.cross_entropy(logits, pair, label_smoothing=2)
    with pytest.raises(ValueError, match=r"`target_threshold` must be in \[0, 1\], got -1"):
        losses.binary_cross_entropy(logits, pair, target_threshold=-1)
    with pytest.raises(ValueError, match="`label_smoothing` must be 0 for rows of targets"):
        losses.binary_cross_entropy(logits, rows(pair, 3, 0.0), label_smoothing=0.1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_do_not_overflow(dtype: torch.dtype, device: str) -> None:
    logits, pair = batch(16, 21841, device)
    half = (3 * logits + 6).to(dtype)
    exact = half.float()
    for function in (losses.cross_entropy, losses.binary_cross_entropy):
        assert abs(function(half, pair) - function(exact, pair)) < 1e-4
        assert function(half, pair, label_smoothing=0.1).isfinite()


def transmix_lam(attention: torch.Tensor, box: list[int], size: tuple[int, int]) -> float:
    """The share of the original by the authors' code, of one sample of as many rows as columns."""
    y, x, h, w = box
    mask = torch.zeros(size)
    mask[y : y + h, x : x + w] = 1
    side = int(attention.shape[0] ** 0.5)
    small = torch.nn.Upsample(size=side)(mask[None, None]).int().view(-1)
    own, partner = ((1 - small) * attention).sum(), (small * attention).sum()
    lam0 = h * w / (size[0] * size[1])
    return 1 - float(lam0 + partner / (own + partner)) / 2


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (33, 50)])
def test_attention_lam_is_that_of_the_authors_code(size: tuple[int, int]) -> None:
    # 3 x 200 boxes, empty and whole ones too.
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(200, 196, generator=generator)
    ends = torch.rand(200, 2, 2, generator=generator).sort(dim=1).values
    ends = (ends * torch.tensor([s + 1 for s in size])).int()
    box = torch.cat([ends[:, 0], ends[:, 1] - ends[:, 0]], dim=1)
    box[0], box[1] = torch.tensor([*size, 0, 0]), torch.tensor([0, 0, *size])
    lam = losses.attention_lam(attention, box, size)
    for found, one, own in zip(lam, box.tolist(), attention, strict=True):
        assert abs(float(found) - transmix_lam(own, one, size)) < 1e-5
    assert (lam[0], lam[1]) == (1, 0)


def test_attention_lam_of_other_grids_and_ratios() -> None:
    attention = torch.tensor([[1.0, 2, 3, 4, 5, 6]], requires_grad=True)
    box = torch.tensor([[0, 20, 20, 20]])  # right of two rows of three: the last two columns
    lam = losses.attention_lam(attention, box, (20, 40), grid=(2, 3))
    assert not lam.requires_grad
    assert lam.item() == pytest.approx(1 - (0.5 * 0.5 + 0.5 * 9 / 21))
    only_area = losses.attention_lam(attention, box, (20, 40), grid=(2, 3), ratio=1)
    assert only_area.item() == 0.5
    half = losses.attention_lam(attention.half(), box, (20, 40), grid=(2, 3), ratio=0)
    assert half.item() == pytest.approx(1 - 9 / 21)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attention": torch.ones(2, 3, 4)}, ValueError, "`attention` must be float"),
        ({"attention": torch.ones(2, 4).int()}, ValueError, "`attention` must be float"),
        ({"attention": [1.0]}, TypeError, "`attention` must be a tensor"),
        ({"attention": torch.ones(2, 5)}, ValueError, "`grid` must be rows and columns of the 5"),
        ({"grid": (1, 3)}, ValueError, "`grid` must be"),
        ({"box": torch.ones(3, 4).int()}, ValueError, "`box` must be integers"),
        ({"box": torch.ones(2, 4)}, ValueError, "`box` must be integers"),
        ({"size": 32}, TypeError, "`size` must be"),
        ({"ratio": 1.5}, ValueError, "`ratio` must be in"),
    ],
)
def test_attention_lam_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    given: dict[str, Any] = {
        "attention": torch.ones(2, 4),
        "box": torch.ones(2, 4).int(),
        "size": (32, 32),
    }
    with pytest.raises(error, match=message):
        losses.attention_lam(**(given | arguments))
