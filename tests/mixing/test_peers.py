"""The same as timm.data.Mixup (1.0.31) and torchvision v2.CutMix and MixUp (0.28) themselves.

Given the same draws the images are equal, byte for byte for CutMix and within the rounding of one
unit for MixUp, and the targets within 1e-6. Left to draw, the distributions are the same.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix.cli.bench.peers import import_torchvision
from tests.support import graphs
from tests.support.graphs import Array

import_torchvision()

v2 = pytest.importorskip("torchvision.transforms.v2", reason="the extra `peers` is missing")
timm_mixup = pytest.importorskip("timm.data.mixup", reason="the extra `peers` is missing")

N, K, SIZE = 8, 7, (13, 20)
P_MIN = 1e-3
DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]


class Script:
    """Random numbers that were written down before, in the place of NumPy's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uniform: list[float] = []
        self.rands: list[Any] = []
        self.lam: Any = None
        monkeypatch.setattr(np.random, "beta", lambda *_, **__: self.lam)
        monkeypatch.setattr(np.random, "rand", lambda *_: self.rands.pop(0))
        monkeypatch.setattr(np.random, "randint", self.randint)

    def randint(self, low: int, high: int, size: Any = None) -> int:
        assert size is None
        return low + int(self.uniform.pop(0) * (high - low))


def data(rng: np.random.Generator) -> tuple[Array, Array]:
    return graphs.distinct_images(rng, N, SIZE), rng.integers(0, K, N)


def as_tensor(images: Array) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def assert_same(out: Array, theirs: torch.Tensor, blended: Array) -> None:
    expected = theirs.permute(0, 2, 3, 1).numpy()
    for mine, other, is_blend in zip(out, expected, blended, strict=True):
        if is_blend:
            assert np.abs(mine - other).max() <= 0.5 + 1e-4
        else:
            assert np.array_equal(mine, other)


METHODS: dict[str, dict[str, Any]] = {
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "cutmix uncorrected": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False},
    "minmax": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
    "mixup": {"mixup_alpha": 0.4, "cutmix_alpha": 0.0},
    "both": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
    "both with minmax": {"mixup_alpha": 0.4, "cutmix_minmax": (0.3, 0.9)},
}


@pytest.mark.parametrize(
    "args",
    [
        {"mixup": 0.2, "cutmix": 1.0, "cutmix_minmax": None, "mixup_mode": "batch"},
        {"mixup": 0.0, "cutmix": 0.5, "cutmix_minmax": None, "mixup_mode": "pair"},
        {"mixup": 0.8, "cutmix": 0.0, "cutmix_minmax": None, "mixup_mode": "elem"},
        {"mixup": 0.0, "cutmix": 0.0, "cutmix_minmax": [0.25, 0.75], "mixup_mode": "batch"},
    ],
    ids=repr,
)
def test_args_yaml_of_timms_train_py_is_its_mixup(args: dict[str, Any]) -> None:
    args |= {"mixup_prob": 0.9, "mixup_switch_prob": 0.3, "smoothing": 0.05, "num_classes": K}
    theirs = timm_mixup.Mixup(  # as train.py has it
        mixup_alpha=args["mixup"],
        cutmix_alpha=args["cutmix"],
        cutmix_minmax=args["cutmix_minmax"],
        prob=args["mixup_prob"],
        switch_prob=args["mixup_switch_prob"],
        mode=args["mixup_mode"],
        label_smoothing=args["smoothing"],
        num_classes=args["num_classes"],
    )
    others = {"model": "resnet50", "lr": 0.5, "workers": 4}
    assert dcm.MixConfig.from_yaml(yaml.safe_dump({**others, **args})) == dcm.MixConfig.from_timm(
        mixup_alpha=theirs.mixup_alpha,
        cutmix_alpha=theirs.cutmix_alpha,
        cutmix_minmax=theirs.cutmix_minmax,
        prob=theirs.mix_prob,
        switch_prob=theirs.switch_prob,
        mode=theirs.mode,
        correct_lam=theirs.correct_lam,
        label_smoothing=theirs.label_smoothing,
        num_classes=theirs.num_classes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("method", METHODS)
def test_timm_with_the_same_draws(
    method: str, mode: Any, smoothing: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**METHODS[method], "mode": mode, "label_smoothing": smoothing, "num_classes": K}
    cfg = dcm.MixConfig.from_timm(**options)
    both = cfg.mixup_alpha > 0 and cfg.cutmix_alpha > 0
    script = Script(monkeypatch)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        images, labels = data(rng)
        draws = {"batch": 1, "pair": N // 2, "elem": N}[mode]
        lam = rng.random(draws).astype(np.float32).astype(np.float64)
        lam[0] = 1.0 if seed == 5 and mode != "batch" else lam[0]  # not mixed
        cut = rng.random(draws) < 0.5 if both else np.full(draws, cfg.mixup_alpha == 0)
        position, sides = rng.random((draws, 2)), rng.random((draws, 2))

        # what timm asks for, in its order
        script.lam = lam if mode != "batch" else float(lam[0])
        decided = np.where(cut, 0.0, 1.0)  # below switch_prob or not
        if mode == "batch":
            script.rands = [0.0, decided[0]]
        else:
            script.rands = ([decided] if both else []) + [np.zeros(draws)]
        script.uniform = [
            u
            for i in range(draws)
            if cut[i] and lam[i] != 1
            for u in ([*sides[i]] if cfg.minmax else []) + [*position[i]]
        ]
        theirs = timm_mixup.Mixup(**options)
        expected, row = theirs(as_tensor(images), torch.from_numpy(labels))

        share = {
            "batch": np.zeros(N, int),
            "pair": np.minimum(np.arange(N), N - 1 - np.arange(N)),
            "elem": np.arange(N),
        }[mode]
        blended = (~cut & (lam < 1))[share]
        given: dict[str, Array] = {
            "lam": lam[share],
            "partner": np.arange(N, dtype=np.int32)[::-1].copy(),
            "position": position[share],
        }
        if cfg.mixup_alpha:
            given["blended"] = blended
        if cfg.minmax is not None:
            given["lam"] = np.where(cut & (lam < 1), 0.0, lam)[share]
            given["sides"] = sides[share]
        pipe = graphs.mix_pipeline(images, labels, cfg, draws=given, device=device)
        ((out, _, _, _, target),) = graphs.run(pipe)
        assert_same(out, expected, blended)
        assert np.abs(target - row.numpy()).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [False, True], ids=["int", "float"])
@pytest.mark.parametrize("method", ["cutmix", "mixup"])
def test_torchvision_with_the_same_draws(
    method: str, rows: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = method == "cutmix"
    cfg = dcm.MixConfig(
        num_classes=K,
        mode="batch",
        cutmix_alpha=float(cuts),
        mixup_alpha=float(not cuts),
        box="torchvision",
        partner="roll",
        labels="float" if rows else "int",
    )
    for seed in range(12):
        rng = np.random.default_rng(seed)
        images, labels = data(rng)
        if rows:
            labels = rng.random((N, K)).astype(np.float32)
        lam, position = float(np.float32(rng.random())), rng.random(2)
        theirs = (v2.CutMix if cuts else v2.MixUp)(num_classes=K)
        theirs._dist = type("Drawn", (), {"sample": lambda *_, value=lam: value})()
        drawn = iter([int(position[1] * SIZE[1]), int(position[0] * SIZE[0])])  # x, then y
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_, d=drawn, **__: torch.tensor([next(d)]))
            expected, row = theirs(as_tensor(images), torch.from_numpy(labels))
        given: dict[str, Array] = {
            "lam": np.full(N, lam),
            "partner": np.roll(np.arange(N, dtype=np.int32), 1),
            "position": np.tile(position, (N, 1)),
        }
        pipe = graphs.mix_pipeline(images, labels, cfg, draws=given, device=device)
        ((out, _, _, _, target),) = graphs.run(pipe)
        assert_same(out, expected, np.full(N, not cuts))
        assert np.abs(target - row.numpy()).max() < 1e-6


# Distributions: 20,000 draws each, two-sample tests, p > 1e-3


def ours(cfg: dcm.MixConfig, size: tuple[int, int]) -> dict[str, Array]:
    count, batches = 1000, 20
    images = np.zeros((count, *size, 1), np.uint8)
    labels = np.arange(count, dtype=np.int32) % K
    pipe = graphs.mix_pipeline(images, labels, cfg, seed=5, with_blended=True)
    lam, box, target, blended = (
        np.concatenate(x)
        for x in zip(
            *[(b[1], b[2], b[4], b[5].ravel() > 0) for b in graphs.run(pipe, batches)], strict=True
        )
    )
    # as for timm, a lam that is 1 in float32 is no mixing
    return {"lam": lam, "box": box, "blended": blended & (lam < 1), "maxima": target.max(axis=1)}


def assert_same_distribution(mine: dict[str, Array], theirs: dict[str, Array]) -> None:
    cut, their_cut = (d["box"][:, 2] * d["box"][:, 3] > 0 for d in (mine, theirs))
    compared = {
        "lam": (mine["lam"], theirs["lam"]),
        "row maxima": (mine["maxima"], theirs["maxima"]),
    }
    for name, column in {"y": 0, "x": 1, "h": 2, "w": 3}.items():
        compared[name] = mine["box"][cut, column], theirs["box"][their_cut, column]
    compared["area"] = tuple(
        d["box"][c, 2] * d["box"][c, 3] for d, c in ((mine, cut), (theirs, their_cut))
    )
    for name, (a, b) in compared.items():
        if len(a) or len(b):
            assert stats.ks_2samp(a, b).pvalue > P_MIN, name
    methods = np.array(
        [[d["blended"].sum(), c.sum()] for d, c in ((mine, cut), (theirs, their_cut))]
    )
    rest = 20_000 - methods.sum(axis=1, keepdims=True)
    table = np.hstack([methods, rest])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] > 1:
        assert stats.chi2_contingency(table).pvalue > P_MIN


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "prob": 0.7},
        {"mixup_alpha": 0.0, "cutmix_alpha": 0.3, "correct_lam": False},
        {"mixup_alpha": 0.2, "cutmix_alpha": 0.0},
        {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "switch_prob": 0.3, "prob": 0.8},
        {"mixup_alpha": 0.2, "cutmix_minmax": (0.2, 0.9)},
    ],
    ids=str,
)
def test_timm_draws_alike(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    size, count = (24, 17), 1000
    options = {**options, "mode": "elem", "label_smoothing": 0.1, "num_classes": K}
    np.random.seed(1)
    boxes: list[Any] = []
    flags: list[Any] = []
    bbox, params = timm_mixup.cutmix_bbox_and_lam, timm_mixup.Mixup._params_per_elem

    def record_box(*args: Any, **kwargs: Any) -> Any:
        (y0, y1, x0, x1), lam = bbox(*args, **kwargs)
        boxes[-1].append((y0, x0, y1 - y0, x1 - x0))
        return (y0, y1, x0, x1), lam

    def record_params(self: Any, batch_size: int) -> Any:
        lam, use_cutmix = params(self, batch_size)
        flags.append((lam.copy(), use_cutmix.copy()))
        boxes.append([])
        return lam, use_cutmix

    monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", record_box)
    monkeypatch.setattr(timm_mixup.Mixup, "_params_per_elem", record_params)
    monkeypatch.setattr(timm_mixup, "mixup_target", _keep_lam(timm_mixup.mixup_target))
    theirs = timm_mixup.Mixup(**options)
    lam, box, blended, maxima = [], [], [], []
    for _ in range(20):
        _, (row, final) = theirs(torch.zeros(count, 1, *size), torch.arange(count) % K)
        drawn, use_cutmix = flags[-1]
        cut = use_cutmix & (drawn != 1)
        places = np.tile([*size, 0, 0], (count, 1))
        places[cut] = np.array(boxes[-1]).reshape(-1, 4)
        lam.append(final.ravel().numpy())
        box.append(places)
        blended.append(~use_cutmix & (drawn != 1))
        maxima.append(row.numpy().max(axis=1))
    assert_same_distribution(
        ours(dcm.MixConfig.from_timm(**options), size),
        {
            "lam": np.concatenate(lam),
            "box": np.concatenate(box),
            "blended": np.concatenate(blended),
            "maxima": np.concatenate(maxima),
        },
    )


def _keep_lam(mixup_target: Any) -> Any:
    def with_lam(target: Any, num_classes: int, lam: Any, *rest: Any) -> Any:
        return mixup_target(target, num_classes, lam, *rest), lam

    return with_lam


@pytest.mark.slow
def test_torchvision_draws_alike() -> None:
    torch.manual_seed(1)
    size, theirs = (24, 17), v2.CutMix(num_classes=K, alpha=1.0)
    image = [torch.zeros(1, *size)]
    params = [theirs.make_params(image) for _ in range(20_000)]
    box = np.array([(y0, x0, y1 - y0, x1 - x0) for x0, y0, x1, y1 in (p["box"] for p in params)])
    lam = np.array([p["lam_adjusted"] for p in params], np.float32)  # as in the labels
    pairs = np.arange(20_000) % 1000 % K
    equal = pairs == np.roll(pairs.reshape(20, 1000), 1, axis=1).ravel()
    mine = ours(dcm.MixConfig(num_classes=K, box="torchvision", partner="roll"), size)
    maxima = np.where(equal, 1.0, np.maximum(lam, 1 - lam))
    none = np.zeros(20_000, bool)
    assert_same_distribution(mine, {"lam": lam, "box": box, "blended": none, "maxima": maxima})


@pytest.mark.slow
def test_torchvision_mixup_draws_alike() -> None:
    torch.manual_seed(2)
    theirs = v2.MixUp(num_classes=K, alpha=0.3)
    lam = np.array([theirs.make_params([])["lam"] for _ in range(20_000)], np.float32)
    mine = dcm.MixConfig(num_classes=K, cutmix_alpha=0.0, mixup_alpha=0.3, partner="roll")
    assert stats.ks_2samp(ours(mine, (4, 5))["lam"], lam).pvalue > P_MIN


# The traps of the peers, which must not exist here


def test_trap_uint8_lam_is_not_truncated() -> None:
    # timm casts lam to the images' dtype: with uint8 images it becomes 0 or 1.
    images = np.zeros((N, *SIZE, 3), np.uint8)
    theirs = timm_mixup.Mixup(mixup_alpha=1.0, mode="elem", label_smoothing=0.0, num_classes=N)
    np.random.seed(0)
    _, wrong = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(N))
    assert set(wrong.unique().tolist()) <= {0.0, 1.0}
    cfg = dcm.MixConfig(num_classes=N, cutmix_alpha=0.0, mixup_alpha=1.0, partner="flip")
    ((_, lam, *_, target),) = graphs.run(graphs.mix_pipeline(images, np.arange(N), cfg))
    assert len(set(lam.tolist())) == N
    assert np.abs(target.max(axis=1) - np.maximum(lam, 1 - lam)).max() < 1e-6


def test_trap_odd_batches_work() -> None:
    images, labels = graphs.distinct_images(np.random.default_rng(0), 7, SIZE), np.arange(7)
    theirs = timm_mixup.Mixup(cutmix_alpha=1.0, num_classes=7)
    with pytest.raises(AssertionError, match="Batch size should be even"):
        theirs(as_tensor(images), torch.from_numpy(labels))
    for mode, partner in itertools.product(("elem", "batch", "pair"), ("flip", "roll")):
        if mode == "pair" and partner == "roll":
            continue
        cfg = dcm.MixConfig(num_classes=7, mode=mode, partner=partner)  # type: ignore[arg-type]
        ((_, lam, _, other, target),) = graphs.run(graphs.mix_pipeline(images, labels, cfg))
        assert np.abs(target.sum(axis=1) - 1).max() < 1e-6
        for i, j in enumerate(other):
            assert abs(target[i, i] - (1 if i == j else lam[i])) < 1e-6


def test_trap_no_hidden_smoothing() -> None:
    _, row = timm_mixup.Mixup(prob=0.0, num_classes=K)(
        torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    )
    assert row.min() > 0  # timm smooths, mixed or not
    cfg = dcm.MixConfig(num_classes=K, prob=0.0)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    ((*_, target),) = graphs.run(graphs.mix_pipeline(images, np.array([0, 1]), cfg))
    assert np.array_equal(target, np.eye(K, dtype=np.float32)[:2])
