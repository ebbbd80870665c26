"""CutMix(max_area=…): the published distribution, of which the large boxes are cut off."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix.mixing.api import draw_plans
from dali_cutmix.mixing.methods import cutmix
from dali_cutmix.mixing.methods.cutmix import exact_boxes
from dali_cutmix.mixing.plan import Size
from tests import reference
from tests.support import graphs

P_MIN = 1e-3


def drawn(
    method: dcm.CutMix, size: tuple[int, ...], count: int, *, known: bool = True, **options: Any
) -> Any:
    """lam and boxes of a batch."""
    cfg = dcm.MixConfig(num_classes=2, methods=(method,), **options)

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def pipe() -> Any:
        if len(size) == 3:
            params = draw_plans(cfg, Size.of_known(size), seed=4)
        else:
            shape = [*size, -1] if known else fn.constant(idata=[*size, 3], shape=[3])
            params = draw_plans(cfg, Size.of(shape), seed=4)
        return params.lam, params.box

    ((lam, box),) = graphs.run(pipe())
    return lam, box


@pytest.mark.parametrize("max_area", [0.3, 0.25, 1.0])
@pytest.mark.parametrize("size", [(8, 8), (6, 9)], ids=str)
def test_the_boxes_are_those_of_the_paper_where_lam_is_above_the_bound(
    size: tuple[int, int], max_area: float
) -> None:
    # The table against every centre and lam at the middle of 20,000 equal parts of [0, 1], of which
    # those with 1 - lam > max_area are left out.
    shares, axes = exact_boxes(size, max_area=max_area)
    exact: Counter[tuple[int, ...]] = Counter()
    for share, ys, xs in zip(shares, *axes, strict=True):
        for (_, y, _, h), (_, x, _, w) in itertools.product(ys.tolist(), xs.tolist()):
            exact[y, x, h, w] += share / (size[0] * size[1])
    asked: Counter[tuple[int, ...]] = Counter()
    lams = (np.arange(20_000) + 0.5) / 20_000
    left = lams[1 - lams <= max_area]
    sides = Counter(tuple(int(s * np.sqrt(1 - lam)) for s in size) for lam in left)
    lam_of = {tuple(int(s * np.sqrt(1 - lam)) for s in size): lam for lam in left}
    for key, count in sides.items():
        for centre in itertools.product(*map(range, size)):
            box = reference.paper_box(lam_of[key], centre, size)
            asked[box] += count / len(left) / (size[0] * size[1])
    assert exact.keys() == asked.keys()
    assert max(abs(exact[box] - asked[box]) for box in asked) < 2e-4


@pytest.mark.parametrize("box", ["paper", "timm"])
def test_drawn_boxes_follow_the_table(box: Any) -> None:
    # Chi-square over all possible boxes, n = 20,000, p > 1e-3.
    size, n = (6, 8), 20_000
    lam, found = drawn(dcm.CutMix(max_area=0.3, box=box), size, n)
    shares, axes = exact_boxes(size, odd=box == "timm", max_area=0.3)
    expected: Counter[tuple[int, ...]] = Counter()
    for share, ys, xs in zip(shares, *axes, strict=True):
        for (_, y, _, h), (_, x, _, w) in itertools.product(ys.tolist(), xs.tolist()):
            expected[y, x, h, w] += share / (size[0] * size[1])
    counts = Counter(map(tuple, found.tolist()))
    assert counts.keys() <= expected.keys()
    likely = [key for key, share in expected.items() if share * n >= 5]
    seen, asked = ([x[key] for key in likely] for x in (counts, expected))
    assert stats.chisquare(seen, np.array(asked) / sum(asked) * sum(seen)).pvalue > P_MIN
    areas = found[:, 2:].prod(1) / (size[0] * size[1])
    assert areas.max() <= 0.3
    assert np.array_equal(lam, (1 - areas).astype(np.float32))


@pytest.mark.parametrize("prob", [1.0, 0.4])
def test_the_same_boxes_are_drawn_without_the_size(prob: float) -> None:
    method = dcm.CutMix(max_area=0.2)
    known, unknown = (
        drawn(method, (24, 36), 2000, known=flag, prob=prob) for flag in (True, False)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutmix, "_LARGEST", 0)
        computed = drawn(method, (24, 36), 2000, prob=prob)
    for a, b, c in zip(known, unknown, computed, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


@pytest.mark.parametrize(
    "options",
    [{"mode": "batch"}, {"methods": 2}, {"box": "inside"}, {"correct_lam": False}],
    ids=str,
)
def test_the_bound_holds_in_tables_too(options: dict[str, Any]) -> None:
    # Kolmogorov-Smirnov of the area of boxes inside an image of 1000 x 1000, n = 3,000, p > 1e-3:
    # uniform in [0, 0.09], whose largest sides are 300 whole pixels.
    own = {name: options[name] for name in ("box", "correct_lam") if name in options}
    method = dcm.CutMix(max_area=0.09, **own)
    given = {"mode": options.get("mode", "elem")}
    count = 200 if "mode" in options else 3000
    cfg: dict[str, Any] = {"num_classes": 2, "methods": (method,), **given}
    if "methods" in options:
        cfg |= {"methods": (method, dcm.MixUp()), "weights": (1.0, 0.0)}

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def pipe() -> Any:
        params = draw_plans(dcm.MixConfig(**cfg), Size.of_known((1000, 1000)), seed=4)
        return params.lam, params.box

    outputs = graphs.run(pipe(), 300 if "mode" in options else 1)
    lam, box = (np.concatenate(x) for x in zip(*outputs, strict=True))
    if "mode" in options:
        lam, box = lam[::200], box[::200]
    assert box[:, 2:].max() <= 300
    assert (box[:, 2:].prod(1) / 1e6).max() <= 0.09
    if options.get("box") == "inside" or "correct_lam" in options:
        share = (1 - lam.astype(np.float64)) / 0.09
        if "correct_lam" not in options:
            # int() takes up to a pixel off each side.
            share = (np.sqrt(box[:, 2] * box[:, 3]) + 0.5) ** 2 / 9e4
        assert stats.kstest(share, "uniform").pvalue > P_MIN


def test_volumes_have_the_bound_of_their_sides() -> None:
    size = (30, 40, 50)
    lam, box = drawn(dcm.CutMix(max_area=0.25), size, 2000)
    assert (box[:, 3:] <= np.array(size) // 2).all()
    assert box[:, 3:].max() >= 22
    assert (1 - lam).max() <= 0.25**1.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_area": 0}, ValueError, "`max_area` must be above 0, got 0"),
        ({"max_area": 1.5}, ValueError, r"`max_area` must be in \[0, 1\], got 1.5"),
        ({"max_area": "x"}, TypeError, "`max_area` must be a number"),
        ({"max_area": 0.5, "alpha": 0.3}, ValueError, "`alpha` must be left out with `max_area`"),
        (
            {"max_area": 0.5, "minmax": (0.1, 0.5)},
            ValueError,
            "`minmax` must be left out with `max",
        ),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dcm.CutMix(**options)
