"""The same as Ultralytics' CutMix and Mosaic (8.4.190) themselves, given the same draws.

Ultralytics is no extra of this package (AGPL): where it is installed, it is compared with.
"""

from __future__ import annotations

import random
import tempfile
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.mixing.avoidance import resolved
from dali_cutmix.mixing.plan import Size
from tests import reference
from tests.mixing.test_boxes import classes_of, run_boxes
from tests.mixing.test_detection_cutmix import few_boxes
from tests.support import graphs
from tests.support.graphs import Array, FedDraws

import_torchvision()

with pytest.MonkeyPatch.context() as environment:
    environment.setenv(
        "YOLO_CONFIG_DIR", tempfile.gettempdir()
    )  # which it writes to when it is imported
    environment.setenv("YOLO_OFFLINE", "1")
    augment = pytest.importorskip("ultralytics.data.augment", reason="needs ultralytics")
    Instances = pytest.importorskip("ultralytics.utils.instance").Instances


def labels_of(image: Array, boxes: Array, classes: Array, normalised: bool = True) -> Any:
    """One sample as Ultralytics has it; boxes in pixels where they are not `normalised`."""
    size = image.shape[:2]
    rows = boxes.copy()
    if not normalised:
        rows *= np.array([size[1], size[0]] * 2, np.float32)
    instances = Instances(
        rows, np.zeros((0, 1000, 2), np.float32), bbox_format="xyxy", normalized=normalised
    )
    sample: dict[str, Any] = {"im_file": "", "ori_shape": size, "resized_shape": size}
    return {**sample, "img": image.copy(), "instances": instances, "cls": classes[:, None]}


class AreaDraws(FedDraws):
    """lam of each area."""

    def beta(self, name: str, alpha: float) -> Any:  # noqa: ARG002
        return graphs.feed(self._draws[name].reshape(-1, 1, 1))


@pytest.mark.parametrize("size", [(24, 40), (33, 31)], ids=str)
def test_detection_cutmix_is_that_of_ultralytics(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2 x 1,024 samples: from lam, centre and the choice to pixels, boxes and classes.
    count, rng = 1024, np.random.default_rng(list(size))
    images, boxes = graphs.distinct_images(rng, count, size), few_boxes(rng, count)
    boxes = [rows[(rows[:, 2:] > rows[:, :2]).all(1)] for rows in boxes]
    classes = classes_of(rng, boxes)
    partner = rng.integers(0, count, count, dtype=np.int32)
    centres = rng.integers(0, size, (count, 3, 2))
    position = (centres + 0.5) / size
    lams = rng.choice([0.0, 1.0, *rng.random(50)], (count, 3))
    order = np.argsort(rng.random((count, 3)), axis=1)
    draws = {f"detection lam/{k}": lams[:, k] for k in range(3)}
    draws |= {"detection position": position.reshape(count, 6), "detection order": order / 3}

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def chosen() -> Any:
        known, fed = Size.of_known(size), graphs.feed(boxes)
        given: Any = AreaDraws(draws)
        row = dcm.DetectionCutMix().rows(known, given).candidates[0]
        params = dcm.MixParams(
            lam=graphs.feed(np.ones(count, np.float32)),
            box=known.nowhere(),
            avoids=graphs.feed(np.ones(count, bool)),
            size=known,
        )
        other = graphs.feed([boxes[j] for j in partner])
        areas, numbers = fn.reshape(row[:12], shape=[3, 4]), fn.reshape(row[12:], shape=[3, 1])
        params = resolved(params, areas, numbers, (fed, other))
        params = params._replace(partner=graphs.feed(partner), size=known)
        return (params.box, *dcm.mix_boxes(fed, graphs.feed(classes), params))

    box, found, labels = ([np.array(x) for x in out] for out in chosen().run())
    theirs, mixed = augment.CutMix(SimpleNamespace(), p=1.0), 0
    for k, j in enumerate(partner):
        script = [value for k_ in range(3) for value in (centres[k, k_, 1], centres[k, k_, 0])]
        rest = lams[k].tolist()
        monkeypatch.setattr(np.random, "beta", lambda *_, rest=rest: rest.pop(0))
        monkeypatch.setattr(np.random, "randint", lambda *_, script=script: script.pop(0))
        monkeypatch.setattr(
            np.random, "choice", lambda free, k=k: max(free, key=lambda i: order[k, i])
        )
        sample = labels_of(images[k], boxes[k], classes[k], normalised=False)
        another = labels_of(images[j], boxes[j], classes[j], normalised=False)
        monkeypatch.setattr(theirs, "get_indexes", lambda: 0)
        monkeypatch.setattr(
            theirs.dataset, "get_image_and_label", lambda _, x=another: x, raising=False
        )
        expected = theirs(sample)
        pasted = reference.pasted(images[k], images[j], tuple(box[k].tolist()))
        assert np.array_equal(pasted, expected["img"]), k
        pixels = found[k] * np.array([size[1], size[0]] * 2)
        assert np.array_equal(labels[k], expected["cls"][:, 0])
        assert np.abs(pixels - expected["instances"].bboxes).max(initial=0) < 1e-4
        mixed += len(found[k]) > len(boxes[k])
    assert 100 < mixed < 900


def test_mosaic_is_that_of_ultralytics_without_perspective(monkeypatch: pytest.MonkeyPatch) -> None:
    # 400 samples of 64 x 64: the middle of theirs is, to the bit, what is made here, with every
    # centre; boxes with keep[1] 0.1. Theirs drops those of at most 2 pixels, too.
    side, count, rng = 64, 400, np.random.default_rng(1)
    images = graphs.distinct_images(rng, count, (side, side))
    boxes = []
    for _ in range(count):
        start = rng.random((int(rng.integers(0, 6)), 2)) * 0.8
        end = np.minimum(start + 0.05 + 0.4 * rng.random(start.shape), 1)
        boxes.append(np.concatenate([start, end], axis=1).astype(np.float32))
    classes = classes_of(rng, boxes)
    ids = rng.integers(0, count, (count, 4), dtype=np.int32)
    ids[:, 0] = rng.permutation(count)
    centre = rng.integers(0, side, (count, 2))
    draws = {
        "lam": np.zeros(count, np.float32),
        "box": np.concatenate([centre, side - centre], axis=1).astype(np.int32),
        "original": ids[:, 0],
        "partner": ids[:, 1],
        "others": ids[:, 2:],
        "tiled": np.ones(count, bool),
    }
    monkeypatch.setattr("tests.mixing.test_boxes.SIZE", (side, side))
    found, labels = run_boxes(boxes, (classes,), draws, keep=(0.5, 0.1))
    theirs = augment.Mosaic(SimpleNamespace(cache="ram"), imgsz=side, p=1.0)
    options = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "size": (side, side)}
    crop, small = augment.RandomPerspective(**options), 0
    for k, (y, x) in enumerate(centre):
        script = [0.0, side / 2 + y + 0.5, side / 2 + x + 0.5]
        of_four = [labels_of(images[i], boxes[i], classes[i]) for i in ids[k]]
        with monkeypatch.context() as patch:
            patch.setattr(random, "uniform", lambda *_, script=script: script.pop(0))
            patch.setattr(theirs, "get_indexes", lambda: [1, 2, 3])
            patch.setattr(theirs.dataset, "get_image_and_label", of_four.__getitem__, raising=False)
            expected = theirs(of_four[0])
        expected = crop(expected)
        assert np.array_equal(
            reference.mosaic([images[i] for i in ids[k]], (y, x)), expected["img"]
        )
        pixels = found[k] * side
        large = (pixels[:, 2:] - pixels[:, :2] > 2).all(1)
        small += (~large).sum()
        assert np.array_equal(labels[k][large], expected["cls"][:, 0])
        assert np.abs(pixels[large] - expected["instances"].bboxes).max(initial=0) < 1e-4
    assert 0 < small < 100
