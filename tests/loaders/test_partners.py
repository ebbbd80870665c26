"""Partners from a second reader (CMO): how often, whose pixels, and where the stream stands."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix import recipes
from dali_cutmix.data.sources import filled, tail_heavy

SIZES = {"a": 40, "b": 21, "c": 10, "d": 3}  # images of each class
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 10]])
SEEN = {"batch_size": 7, "size": 16, "device": "cpu", "num_threads": 1, "seed": 3}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def tail(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A long tail: an ImageFolder in which a class is a colour, as PNG."""
    root = tmp_path_factory.mktemp("tail")
    for colour, (name, count) in zip(COLOURS, SIZES.items(), strict=True):
        (root / name).mkdir()
        for i in range(count):
            pixels = np.broadcast_to(colour.astype(np.uint8), (20, 24, 3))
            Image.fromarray(np.ascontiguousarray(pixels)).save(root / name / f"{i:02d}.png")
    return str(root)


def loader_of(root: str, **options: Any) -> dcm.Loader:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        return dcm.train_loader(
            root, **{"partners": "tail", "mix": dcm.MixConfig()} | SEEN | options
        )


def digest(batch: Any) -> str:
    images, targets = batch
    parts = [images, *(targets if isinstance(targets, (tuple, list)) else [targets])]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p.numpy()) for p in parts)).hexdigest()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_class_is_pasted_as_often_as_the_weights_say(tail: str, alpha: float) -> None:
    # Over an epoch of the second reader, each image as often as 1 / n ** alpha says, and what fills
    # up the last batch: one a class at most. (74 images in batches of 37: none is dropped, with
    # which partners would go.)
    sizes = np.array([*SIZES.values()])
    totals = np.rint(sizes * (40 / sizes) ** alpha)
    batches, counts = int(-(-totals.sum() // 37)), np.zeros(4)
    with loader_of(tail, with_params=True, tail_alpha=alpha, batch_size=37) as loader:
        found = [other for _ in range(3) for _, (*_, other) in loader]
    for other in found[:batches]:
        counts += np.bincount(other, minlength=4)
    assert np.abs(counts - totals * batches * 37 / totals.sum()).max() <= 1


def test_the_weights_of_each_image(tail: str) -> None:
    source = tail_heavy(dcm.find_source(tail), 1.0)
    counts = np.unique(source.files, return_counts=True)[1]
    labels = np.repeat(np.arange(4), [*SIZES.values()])
    assert np.bincount(labels, weights=counts).tolist() == [40] * 4
    for k in range(4):  # within a class none comes twice more than another
        assert np.ptp(counts[labels == k]) <= 1
    assert source.size == 160
    full = filled(source, 7 * 2)
    assert full.size == 168
    extra = np.bincount(full.labels, minlength=4) - 40
    assert extra.sum() == 8
    assert np.ptp(extra) <= 1


@pytest.mark.parametrize("targets", ["soft", "pair"])
@pytest.mark.parametrize("erase", [None, dcm.RandomErasing(prob=0.0)])
def test_the_patch_is_of_the_second_reader_and_the_background_of_the_first(
    tail: str, targets: Any, erase: Any
) -> None:
    mix = dcm.MixConfig(targets=targets, prob=0.7)
    options = {"with_params": True, **PLAIN, "erase": erase}
    with (
        loader_of(tail, mix=mix, **options) as loader,
        loader_of(tail, mix=None, partners=None, **PLAIN) as unmixed,
    ):
        for (images, found), (originals, labels) in zip(loader, unmixed, strict=True):
            lam, box, own, other = found[-4:]
            assert torch.equal(own, labels)
            for k in range(7):
                y, x, h, w = box[k].tolist()
                expected = originals[k].numpy().copy()
                colour = COLOURS[other[k]] / 255
                expected[:, y : y + h, x : x + w] = colour[:, None, None]
                assert np.abs(images[k].numpy() - expected).max() < 1e-5
                assert lam[k] == np.float32(1 - h * w / 256)
            if targets == "soft":
                row = torch.zeros(7, 4)
                row[range(7), own] += lam
                row[range(7), other] += 1 - lam
                assert (found[0] - row).abs().max() < 1e-6
            else:
                assert torch.equal(found[0], own)
                assert torch.equal(found[1], other)


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("options", [{}, {"mix": dcm.MixConfig(mode="batch", prob=0.5)}], ids=str)
def test_every_place_is_computed(tail: str, shard: int, options: dict[str, Any]) -> None:
    # 5 epochs of 5 batches; the second reader's are of 12. No warning: nothing is read on.
    shards = {"shard_id": shard, "num_shards": 2}
    with loader_of(tail, **options, **shards) as loader:
        whole = [[digest(batch) for batch in loader] for _ in range(5)]
        assert len({one for epoch in whole for one in epoch}) == 25
        for epoch, batch in ((0, 0), (3, 2), (1, 0), (4, 4), (2, 1)):
            loader.seek(epoch, batch)
            assert [digest(one) for one in loader] == whole[epoch][batch:]
        loader.seek(2)
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
    with loader_of(tail, **options, **shards) as again:
        again.load_state_dict(state)
        assert [digest(one) for one in again] == whole[2][1:]
        assert [digest(one) for one in again] == whole[3]
    other = {"shard_id": 1 - shard, "num_shards": 2}
    with loader_of(tail, **options, **other) as theirs:
        fresh = [[digest(one) for one in theirs] for _ in range(3)]
        theirs.load_state_dict(state)
        assert [digest(one) for one in theirs] == fresh[2][1:]
        assert not {*fresh[0]} & {*whole[0]}


def test_a_state_of_other_partners_is_refused(tail: str) -> None:
    with loader_of(tail) as loader:
        state = loader.state_dict()
    with loader_of(tail, tail_alpha=0.5) as other, pytest.raises(ValueError, match="source: "):
        other.load_state_dict(state)


def test_mixing_is_switched_off_and_on_and_the_readers_go_on(tail: str) -> None:
    options = {"switchable": True, "prefetch_queue_depth": 1, **PLAIN}
    with (
        loader_of(tail, **options) as loader,
        loader_of(tail, **options) as switched,
        loader_of(tail, mix=None, partners=None, **PLAIN) as unmixed,
    ):
        for epoch in range(4):
            switched.mixing = epoch not in (0, 3)
            switched.seek(epoch)
            for batch, both, plain in zip(switched, loader, unmixed, strict=True):
                if switched.mixing:
                    assert digest(batch) == digest(both)
                else:
                    assert torch.equal(batch[0], plain[0])
                    assert torch.equal(batch[1].argmax(1), plain[1])


def test_a_source_of_ones_own(tail: str, tmp_path: Path) -> None:
    chosen = dcm.find_source(tail, subset=range(70, 74), weights=[1, 1, 1, 3])
    with loader_of(tail, partners=chosen, with_params=True) as loader:
        others = torch.cat([found[-1] for _, found in loader])
    assert set(others.tolist()) == set(chosen.labels) == {2, 3}
    (tmp_path / "e").mkdir()
    for file in (tmp_path / "e" / "1.png", tmp_path / "e" / "2.png"):
        Image.new("RGB", (9, 9)).save(file)
    with pytest.raises(ValueError, match="`partners` must have the classes of `source`"):
        loader_of(tail, partners=dcm.find_source(str(tmp_path)))


def test_batches_of_one_can_be_mixed(tail: str) -> None:
    with loader_of(tail, batch_size=1) as loader:
        targets = torch.cat([targets for _, targets in loader])
    assert ((targets > 0).sum(1) == 2).any()


def test_the_recipe_of_the_paper(tail: str) -> None:
    recipe = recipes.get("cmo-imagenet-lt")
    options = {name: value for name, value in SEEN.items() if name != "seed"}
    with dcm.train_loader(tail, recipe=recipe, with_params=True, seed=5, **options) as loader:
        assert isinstance(loader._options["partners"], dcm.Source)
        images, (targets, lam, box, _, _) = next(iter(loader))
    assert images.shape == (7, 3, 16, 16)
    assert (lam == lam[0]).all()  # one box for a batch
    assert (box == box[0]).all()
    assert targets.shape == (7, 4)
    with dcm.train_loader(tail, recipe=recipe, mix=None, **options) as loader:
        assert "partners" not in loader._options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"partners": "head"}, ValueError, '`partners` must be one of "tail"'),
        ({"tail_alpha": 5}, ValueError, r"`tail_alpha` must be in \[0, 4\], got 5"),
        ({"tail_alpha": "1"}, TypeError, "`tail_alpha` must be a number"),
        ({"partners": None, "tail_alpha": 1}, ValueError, "`tail_alpha` must be left out without"),
        ({"mix": None}, ValueError, '`partners` must be None where `mix` is None, got "tail"'),
        (
            {"mix": dcm.MixConfig(partner="same")},
            ValueError,
            '`mix` must be one for `partners`: `partner` must not be "same"',
        ),
        (
            {"mix": dcm.MixConfig(mode="pair", partner="flip")},
            ValueError,
            "`mix` must be one for `partners`: `mode` must be",
        ),
        ({"targets": {}}, ValueError, "`targets`|must have a value for each"),
    ],
)
def test_wrong_options_are_refused(
    tail: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loader_of(tail, **options)


def test_partners_have_one_class(tail: str) -> None:
    rows = {f"{name}/{i:02d}.png": [0.5, 1.0] for name, n in SIZES.items() for i in range(n)}
    with pytest.raises(ValueError, match="`partners` must be None with `targets`"):
        loader_of(tail, targets=rows, mix=dcm.MixConfig(labels="float"))
