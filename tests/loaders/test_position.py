"""Where a loader stands: places are computed, and a state is of the run, not of the shard."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix import _dali
from dali_cutmix.cli import demo
from dali_cutmix.loaders._run import Run
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.pipelines import imagenet
from tests.data.test_sources import tar_samples, write_tar
from tests.support import graphs

SMALL: dict[str, Any] = {"batch_size": 16, "size": 24, "device": "cpu", "num_threads": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "cutmix": {"mix": dcm.MixConfig()},
    "rsb-a3": {"recipe": "rsb-a3"},
    "same class": {"mix": dcm.MixConfig(partner="same", prob=[0.5] * 5)},
    "deit": {"recipe": "deit"},  # repeats every image
    "torchvision-v2": {"recipe": "torchvision-v2", "switchable": True},
}
PLACES = [(0, 0), (0, 3), (1, 0), (2, 1), (3, 2)]


@pytest.fixture(scope="module")
def photos() -> Iterator[str]:
    """An ImageFolder of 5 classes with 40 real photographs each."""
    with demo.photo_folder(crops_a_class=40) as root:
        yield root


def train(root: Any, **options: Any) -> Loader:
    return dcm.train_loader(root, **{**SMALL, **options})


def digest(batch: Any) -> int:
    images, targets = batch
    return hash((images.numpy().tobytes(), targets.numpy().tobytes()))


def stream(loader: Loader, epochs: int) -> list[list[int]]:
    return [[digest(batch) for batch in loader] for _ in range(epochs)]


def listed(photos: str, path: Path) -> Path:
    os.symlink(photos, path.parent / "images")
    files = sorted((path.parent / "images").rglob("*.jpg"))
    names = [file.relative_to(path.parent) for file in files]
    path.write_text("".join(f"{name}\t{i % 5}\n" for i, name in enumerate(names)))
    return path


@pytest.fixture
def sources(photos: str, tmp_path: Path) -> dict[str, Any]:
    return {"folder": photos, "list": listed(photos, tmp_path / "list.txt")}


# Seek


@pytest.mark.slow
@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(("name", "kind"), [*((n, "folder") for n in RECIPES), ("cutmix", "list")])
def test_the_batches_after_seek_are_those_of_an_uninterrupted_run(
    sources: dict[str, Any], name: str, kind: str, shard: int
) -> None:
    options = {**RECIPES[name], "shard_id": shard, "num_shards": 2, "seed": 5}
    whole = stream(train(sources[kind], **options), 5)
    with train(sources[kind], **options) as loader, warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is read on
        for epoch, batch in reversed(PLACES):
            loader.seek(epoch, batch)
            assert (loader.epoch, loader.state_dict()["position"]) == (epoch, batch)
            assert [digest(b) for b in loader] == whole[epoch][batch:]
            assert [digest(b) for b in loader] == whole[epoch + 1]


@pytest.mark.parametrize(
    ("count", "batch_size", "shard", "shards"),
    [(200, 40, 0, 1), (200, 37, 0, 1), (200, 33, 0, 3), (200, 22, 1, 3), (200, 16, 5, 7)],
)
def test_a_computed_checkpoint_is_the_real_one(
    photos: str, count: int, batch_size: int, shard: int, shards: int
) -> None:
    options = {"batch_size": batch_size, "shard_id": shard, "num_shards": shards}
    mix = dcm.MixConfig(mixup_alpha=0.2)
    real, computed = (train(photos, mix=mix, seed=3, **options) for _ in range(2))
    assert real.num_images == count
    for epoch in range(4):
        for batch in range(len(real)):
            state = real.state_dict()
            assert (state["epoch"], state["position"]) == (epoch, batch)
            computed.seek(epoch, batch)
            assert computed.state_dict() == state
            next(real.rest())


def test_the_place_of_validation_is_computed_too(photos: str) -> None:
    with dcm.val_loader(photos, **SMALL, resize=24) as loader:
        (whole,) = stream(loader, 1)
        loader.seek(0, 7)
        assert [digest(batch) for batch in loader] == whole[7:]
        assert [digest(batch) for batch in loader] == whole


def test_an_epoch_far_away_costs_what_the_first_does(photos: str) -> None:
    # Nothing is read, so that it can be beyond any reading.
    with train(photos) as loader:
        loader.set_epoch(10**6)
        far = digest(next(iter(loader)))
        loader.set_epoch(10**6)
        assert digest(next(iter(loader))) == far
        assert loader.epoch == 10**6


def test_set_epoch_as_trainers_call_it(photos: str) -> None:
    whole = stream(train(photos), 4)
    loader = train(photos, start_epoch=1)
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        assert [digest(batch) for batch in loader] == whole[epoch]
    for epoch in (2, 2, 3):  # again, and after a break
        loader.set_epoch(epoch)
        assert digest(next(iter(loader))) == whole[epoch][0]
    loader.seek(1, 4)
    state = loader.state_dict()
    resumed = train(photos)
    resumed.load_state_dict(state)
    for there in (loader, resumed):
        there.set_epoch(1)  # which it is in: it stays there
        assert [digest(batch) for batch in there] == whole[1][4:]
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert [digest(batch) for batch in resumed] == whole[3]


def test_places_that_are_none_are_refused(photos: str) -> None:
    loader = train(photos)
    for call, message in (
        (lambda: loader.seek(0, 12), "`batch` must be at most 11, got 12"),
        (lambda: loader.seek(-1), "`epoch` must be at least 0, got -1"),
        (lambda: loader.set_epoch(-2), "`epoch` must be at least 0, got -2"),
        (lambda: train(photos, start_epoch=-1), "`start_epoch` must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"`epoch` must be an int, got 1\.5"):
        loader.set_epoch(1.5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match=r"`epoch` can only be read: call set_epoch\(3\)"):
        loader.epoch = 3
    assert loader.epoch == 0


def test_seek_opens_a_closed_loader(photos: str) -> None:
    (first, second) = stream(train(photos), 2)
    loader = train(photos)
    loader.close()
    loader.seek(1)
    assert [digest(batch) for batch in loader] == second
    loader.close()
    loader.seek(0)
    assert [digest(batch) for batch in loader] == first


def test_what_shuffles_within_a_window_is_read_on_with_a_word(tmp_path: Path, photos: str) -> None:
    files = [(file, i % 5) for i, file in enumerate(sorted(Path(photos).rglob("*.jpg")))]
    write_tar(tmp_path / "0.tar", tar_samples(files[:100]))
    write_tar(tmp_path / "1.tar", tar_samples(files[100:]))
    paths = [str(tmp_path / f"{k}.tar") for k in range(2)]
    options = {"num_classes": 5, "mix": dcm.MixConfig(), "num_shards": 2}
    whole = [stream(train(paths, **options, shard_id=k), 3) for k in range(2)]
    loader = train(paths, **options, shard_id=0)
    message = (
        "14 batches are read to reach batch 2 of epoch 2, whose place cannot be computed: its "
    )
    with pytest.warns(UserWarning, match=message + "reader shuffles within a window"):
        loader.seek(2, 2)
    assert [digest(batch) for batch in loader] == whole[0][2][2:]
    loader.load_state_dict({**train(paths, **options, shard_id=0).state_dict()})
    next(iter(loader))
    with pytest.warns(UserWarning, match="5 batches are read to reach batch 0 of epoch 1"):
        found = [digest(batch) for batch in loader]  # after a break the next epoch
    assert found == whole[0][1]
    loader.load_state_dict(state := train(paths, **options, shard_id=0).state_dict())
    next(iter(loader))
    assert [digest(batch) for batch in loader.rest()] == whole[0][0][1:]
    # From the state of another shard.
    loader.seek(0)
    next(iter(loader))
    state = loader.state_dict()
    other = train(paths, **options, shard_id=1)
    with pytest.warns(UserWarning, match="1 batches are read"):
        other.load_state_dict(state)
    assert [digest(batch) for batch in other] == whole[1][0][1:]


def test_pipelines_of_ones_own_that_cannot_be_computed_are_read_on(photos: str) -> None:
    @pipeline_def
    def shuffled(root: str) -> Any:
        encoded, labels = fn.readers.file(
            file_root=root, name="r", pad_last_batch=True, random_shuffle=True, seed=3
        )
        images = fn.resize(imagenet.decode(encoded, "cpu"), size=(8, 8))
        return images, labels

    @pipeline_def
    def two(root: str) -> Any:
        first, labels = fn.readers.file(file_root=root, name="r", pad_last_batch=True)
        second, _ = fn.readers.file(file_root=root, name="s", pad_last_batch=False)
        images = [fn.resize(imagenet.decode(x, "cpu"), size=(8, 8)) for x in (first, second)]
        return images[0] - images[1], labels

    for pipe, reason in (
        (shuffled, "shuffles within a window"),
        (two, "a reader without pad_last_batch"),
    ):
        options: dict[str, Any] = {
            "reader_name": "r", "root": photos, "batch_size": 9, "num_threads": 2,
            "device_id": None, "seed": 1,
        }  # fmt: skip
        whole = stream(Loader(pipe, **options), 2)
        loader = Loader(pipe, **options)
        with pytest.warns(UserWarning, match=reason):
            loader.seek(1, 2)
        assert [digest(batch) for batch in loader] == whole[1][2:]


def test_a_checkpoint_of_another_form_is_read_on(photos: str) -> None:
    whole = stream(train(photos), 2)
    for form in (b"", b"\x0a\x02", b"something else", b"\x0d1234"):
        loader = train(photos)
        loader._begin = form, loader._begin[1]
        with pytest.warns(UserWarning, match="DALI .* has other checkpoints"):
            loader.seek(1, 1)
        assert [digest(batch) for batch in loader] == whole[1][1:]


# States of other shards and other options


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_state_of_one_shard_restores_every_other(photos: str, name: str) -> None:
    options = {**RECIPES[name], "num_shards": 3, "seed": 2}
    whole = [stream(train(photos, **options, shard_id=k), 2) for k in range(3)]
    for taken in (0, 2):
        saver = train(photos, **options, shard_id=taken)
        for epoch, batch in ((0, 1), (1, 0), (1, 3))[taken // 2 :]:
            saver.seek(epoch, batch)
            state = json.loads(json.dumps(saver.state_dict()))
            for k in (1, 2 - taken):
                loader = train(photos, **options, shard_id=k)
                loader.load_state_dict(state)
                assert [digest(b) for b in loader] == whole[k][epoch][batch:], (taken, k)


def labels_of(loaders: list[Loader]) -> list[int]:
    return [label for loader in loaders for _, labels in loader for label in labels.tolist()]


def test_other_numbers_of_shards_go_on_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    root = graphs.numbered_folder(tmp_path, 24)
    four = [train(root, mix=None, batch_size=3, shard_id=k, num_shards=4) for k in range(4)]
    orders = [labels_of(four) for _ in range(2)]
    state = four[2].state_dict()
    assert state["epoch"] == 2
    third = labels_of(four)
    two = [train(root, mix=None, batch_size=6, shard_id=k, num_shards=2) for k in range(2)]
    with pytest.raises(ValueError, match="batch_size: 6 here, 3 in the state; num_shards: 2 here"):
        two[0].load_state_dict(state)
    for loader in two:
        loader.load_state_dict(state, allow={"num_shards", "batch_size"})
        assert loader.epoch == 2
    again = labels_of(two)
    assert sorted(again) == list(range(24))  # complete and disjoint
    assert again == third  # the order of the epoch, of which each shard takes its part
    assert again not in orders


def test_progressive_sizes(photos: str) -> None:
    # As in FFCV-ImageNet and EfficientNetV2: the order goes on, and so do the draws.
    plain = train(photos, mix=None, size=16)
    orders = [[labels.tolist() for _, labels in plain] for _ in range(3)]
    loader = train(photos, mix=None, size=16)
    found = []
    for epoch, size in enumerate((16, 24, 32)):
        if epoch:
            larger = train(photos, mix=None, size=size)
            larger.load_state_dict(loader.state_dict(), allow={"size"})
            fresh = train(photos, mix=None, size=size, start_epoch=epoch)
            assert fresh.state_dict() == larger.state_dict()
            loader = larger
        found.append([])
        for images, labels in loader:
            assert images.shape[-1] == size
            found[-1].append(labels.tolist())
    assert found == orders


def test_what_may_differ_is_said(photos: str) -> None:
    loader = train(photos, mix=dcm.MixConfig())
    next(iter(loader))
    middle = loader.state_dict()
    other = train(photos, mix=dcm.MixConfig(), size=32)
    message = "`state` must be of the end of an epoch where options differ, got one after 1 batches"
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(middle, allow={"size"})
    with pytest.raises(
        ValueError, match=r"`allow` must have names among .*batch_size.*, got 'sise'"
    ):
        other.load_state_dict(middle, allow={"sise"})
    for never in ("seed", "source", "images"):
        with pytest.raises(ValueError, match=f"`allow` must have names among .*, got '{never}'"):
            other.load_state_dict(middle, allow={never})
    for wrong in ("size", 5):
        with pytest.raises(TypeError, match="`allow` must be a set of names of options"):
            other.load_state_dict(middle, allow=wrong)  # type: ignore[arg-type]
    for _ in loader.rest():
        pass
    end = loader.state_dict()
    with pytest.raises(ValueError, match="seed: 1 here, 0 in the state"):
        train(photos, mix=dcm.MixConfig(), seed=1).load_state_dict(end, allow={"size"})
    unmixed = train(photos, mix=None)
    unmixed.load_state_dict(end, allow={"mix", "num_classes"})
    assert unmixed.epoch == 1
    loader.load_state_dict(middle, allow={"size"})  # nothing differs


def test_the_state_of_another_dali_is_refused(photos: str) -> None:
    loader = train(photos)
    state = {**loader.state_dict(), "dali": "2.1.0"}
    with pytest.raises(ValueError, match=rf"dali: {_dali.VERSION} here, 2.1.0 in the state"):
        loader.load_state_dict(state)
    loader.load_state_dict(state, allow={"dali"})
    next(iter(loader))
    state = {**loader.state_dict(), "dali": "2.1.0"}
    with pytest.raises(ValueError, match="`state` must be of the end of an epoch"):
        loader.load_state_dict(state, allow={"dali"})
    assert torch.utils.data.DataLoader  # the loader is as it was
    assert len(list(loader.rest())) == len(loader) - 1


# What a review found


def test_a_failure_on_the_way_leaves_the_loader_as_it_was(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(file, i) for i, file in enumerate(sorted(Path(photos).rglob("*.jpg")))]
    samples = tar_samples(files)
    write_tar(tmp_path / "0.tar", samples[:200])
    write_tar(tmp_path / "1.tar", samples[200:])
    paths = [str(tmp_path / f"{k}.tar") for k in range(2)]
    options = {"num_classes": 200, "mix": None, "num_shards": 2, "prefetch_queue_depth": 1}
    fifth = [labels.tolist() for _, labels in train(paths, **options, shard_id=0)][4]
    name, _ = samples[2 * fifth[0]]
    broken = [(n, bytes(len(x)) if n == name else x) for n, x in samples]
    write_tar(tmp_path / "0.tar", broken[:200])
    write_tar(tmp_path / "1.tar", broken[200:])
    good, bad = (train(paths, **options, shard_id=k) for k in (1, 0))
    good.seek(0)
    list(itertools.islice(good, 5))
    before = bad.state_dict()
    with (
        pytest.warns(UserWarning, match="5 batches are read"),
        pytest.raises(ValueError, match="`state` cannot be restored: 1 image"),
    ):
        bad.load_state_dict(good.state_dict())
    assert bad.state_dict() == before
    assert len(list(itertools.islice(bad, 1))) == 1
    # An interrupt on the way, and a warning that is an error.
    write_tar(tmp_path / "0.tar", samples[:200])
    write_tar(tmp_path / "1.tar", samples[200:])
    ((first, second, *_),) = stream(train(paths, **options, shard_id=1), 1)
    loader = train(paths, **options, shard_id=1)
    assert digest(next(iter(loader))) == first
    done = Run.next

    def interrupted(run: Run) -> Any:
        if run.position == 2:
            raise KeyboardInterrupt
        return done(run)

    for error, match in ((KeyboardInterrupt, ""), (UserWarning, "cannot be computed")):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            if error is KeyboardInterrupt:
                patch.setattr(Run, "next", interrupted)
            warnings.simplefilter("ignore" if error is KeyboardInterrupt else "error")
            with pytest.raises(error, match=match):
                loader.seek(1, 1)
        assert (loader.epoch, loader.state_dict()["position"]) == (0, 1)
    assert digest(next(loader.rest())) == second


def test_what_is_under_way_is_switched_alike_on_other_shards(tmp_path: Path, photos: str) -> None:
    files = [(file, i % 5) for i, file in enumerate(sorted(Path(photos).rglob("*.jpg")))]
    write_tar(tmp_path / "0.tar", tar_samples(files))
    shards = {"tar": str(tmp_path / "0.tar"), "folder": photos}
    for kind, root in shards.items():
        options: dict[str, Any] = {"num_classes": 5, "mix": dcm.MixConfig(), "num_shards": 2}
        options |= {"switchable": True}
        loaders = [train(root, **options, shard_id=k) for k in range(2)]
        for loader in loaders:
            list(itertools.islice(loader, 2))
            loader.mixing = False
        states = [loader.state_dict() for loader in loaders]
        rest = [[digest(batch) for batch in loader.rest()] for loader in loaders]
        for own in range(2):
            other = train(root, **options, shard_id=own)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other.load_state_dict(states[1 - own])
            assert [digest(batch) for batch in other] == rest[own], (kind, own)


def test_the_end_of_mixing_goes_with_other_options(photos: str) -> None:
    loader = train(photos, mix=dcm.MixConfig(), switchable=True)
    loader.mixing = False
    list(loader)
    larger = train(photos, mix=dcm.MixConfig(), switchable=True, size=32)
    larger.load_state_dict(loader.state_dict(), allow={"size"})
    assert not larger.mixing


def test_a_pipeline_without_a_seed(photos: str) -> None:
    @pipeline_def
    def noisy(root: str, shard_id: int = 0, num_shards: int = 1) -> Any:
        encoded, labels = fn.readers.file(
            file_root=root, name="r", pad_last_batch=True, shuffle_after_epoch=True,
            shard_id=shard_id, num_shards=num_shards,
        )  # fmt: skip
        images = fn.resize(imagenet.decode(encoded, "cpu"), size=(8, 8))
        return fn.noise.gaussian(images, stddev=20.0), labels

    options: dict[str, Any] = {"root": photos, "batch_size": 50, "num_threads": 2}
    options |= {"device_id": None}
    loader = Loader(noisy, **options)
    whole = stream(loader, 3)
    for epoch in (0, 2, 1):
        loader.seek(epoch)
        assert [digest(batch) for batch in loader] == whole[epoch]
    loader.seek(1, 1)
    other = Loader(noisy, **options)  # with other draws, until it is restored
    other.load_state_dict(loader.state_dict())
    assert digest(next(iter(other))) == whole[1][1]
    other.set_epoch(0)
    assert [digest(batch) for batch in other] == whole[0]
    shards = [Loader(noisy, shard_id=k, num_shards=2, **options) for k in range(2)]
    with pytest.raises(ValueError, match="without a `seed` only a state of the same loader can be"):
        shards[0].load_state_dict(shards[1].state_dict())


def test_states_of_shards_that_are_not_even(tmp_path: Path) -> None:
    root = graphs.numbered_folder(tmp_path, 9)
    options: dict[str, Any] = {**SMALL, "batch_size": 4, "resize": 24, "even": False}
    short, long = (dcm.val_loader(root, **options, shard_id=k, num_shards=2) for k in range(2))
    assert (len(short), len(long)) == (1, 2)
    next(iter(long))
    short.load_state_dict(long.state_dict())
    assert short.epoch == 1


def test_another_layout_is_allowed_by_its_name(photos: str) -> None:
    loader = train(photos, mix=None)
    list(loader)
    other = train(photos, mix=None, layout="NHWC")
    other.load_state_dict(loader.state_dict(), allow={"layout"})
    assert other.epoch == 1
