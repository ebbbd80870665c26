"""Loaders in the loops of trainers: iterators, attributes that are asked for, copies, memory."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import dali_cutmix as dcm
from dali_cutmix.loaders._run import Run
from dali_cutmix.loaders.loader import Loader
from tests.support import graphs

SMALL: dict[str, Any] = {"batch_size": 4, "size": 8, "device": "cpu", "num_threads": 1}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    return graphs.numbered_folder(tmp_path_factory.mktemp("numbered"), 26)


def train(root: str, **options: Any) -> Loader:
    return dcm.train_loader(root, **{**SMALL, "mix": None, **options})


def val(root: str, **options: Any) -> Loader:
    return dcm.val_loader(root, **{**SMALL, "resize": 8, **options})


@contextmanager
def limit(seconds: int = 60) -> Iterator[None]:
    """Ends what hangs."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_generator_that_is_left_closes_nothing(numbered: str) -> None:
    def batches(loader: Loader) -> Iterator[Any]:
        yield from loader

    for loader in (train(numbered), val(numbered)):
        for _ in range(3):
            generator = batches(loader)
            next(generator)
            generator.close()
        with limit():
            assert len(list(batches(loader))) == len(loader)


@pytest.mark.parametrize("make", [train, val])
def test_the_end_of_a_loop_is_final(numbered: str, make: Callable[[str], Loader]) -> None:
    loader = make(numbered)
    with limit():
        batches, chunks = iter(loader), 0
        while chunk := list(itertools.islice(batches, 4)):
            chunks += len(chunk)
        assert chunks == len(loader)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(batches)
        assert len(list(batches)) == 0
        assert len(list(loader)) == len(loader)
        assert len(list(itertools.islice(itertools.cycle(loader), 20))) == 20


@pytest.mark.parametrize("make", [train, val])
def test_two_loops_at_once_are_an_error(numbered: str, make: Callable[[str], Loader]) -> None:
    loader = make(numbered)
    message = "this loop over the loader cannot go on: another one was begun, or the loader was"
    with limit(), pytest.raises(RuntimeError, match=message):
        assert [len(list(loader)) for _ in loader] == []
    with pytest.raises(RuntimeError, match=message):
        list(zip(loader, loader, strict=True))
    for move in (lambda: loader.seek(0, 1), lambda: loader.load_state_dict(loader.state_dict())):
        batches = iter(loader)
        next(batches)
        move()
        with pytest.raises(RuntimeError, match=message):
            next(batches)


def test_a_loop_that_takes_no_batch_leaves_no_epoch_out(numbered: str) -> None:
    whole = train(numbered)
    expected = [[labels.tolist() for _, labels in whole] for _ in range(2)]
    loader = train(numbered)
    for epoch in range(2):
        iter(loader)  # as trainers do that look whether it can be iterated
        iter(loader)
        assert [labels.tolist() for _, labels in loader] == expected[epoch]


def test_an_iterator_follows_until_its_first_batch(numbered: str) -> None:
    # Lightning makes the iterator first, and then sets the epoch.
    whole = train(numbered)
    expected = [[labels.tolist() for _, labels in whole] for _ in range(4)]
    loader = train(numbered)
    loader.seek(3, 1)
    state = loader.state_dict()
    for move, epoch, batch in (
        (lambda: loader.set_epoch(2), 2, 0),
        (lambda: loader.seek(1, 3), 1, 3),
        (lambda: loader.load_state_dict(state), 3, 1),
    ):
        batches = iter(loader)
        move()
        loader.set_epoch(epoch)
        assert [labels.tolist() for _, labels in batches] == expected[epoch][batch:]


def test_wrappers_around_a_loader(numbered: str) -> None:
    class Wrapped(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __init__(self, loader: Loader) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[Any]:
            return iter(self.loader)

    expected = [labels.tolist() for _, labels in train(numbered)]
    wrapper = torch.utils.data.DataLoader(Wrapped(train(numbered)), batch_size=None)
    assert [labels.tolist() for _, labels in wrapper] == expected
    found: list[list[int]] = []
    loader = train(numbered)
    thread = threading.Thread(target=lambda: found.extend(y.tolist() for _, y in loader))
    thread.start()
    thread.join(60)
    assert found == expected


# What trainers ask for


def test_attributes_that_trainers_ask_for(numbered: str) -> None:
    loader = train(numbered, num_shards=2, shard_id=1, seed=3)
    assert len(loader.dataset) == loader.num_images == 26
    assert len(loader.sampler) == 13
    assert (loader.sampler.rank, loader.sampler.num_replicas) == (1, 2)
    assert (loader.batch_size, loader.drop_last, loader.num_workers) == (4, True, 1)
    assert loader.seed == loader.sampler.seed == 3
    assert loader.classes is not None
    assert loader.class_to_idx == {name: i for i, name in enumerate(loader.classes)}
    assert loader.dataset.class_to_idx == loader.class_to_idx
    assert loader.dataset.classes == loader.classes
    assert not hasattr(loader.dataset, "__getitem__")
    assert not val(numbered).drop_last
    assert repr(loader) == (
        "<Loader: 26 images, 26 classes, 3 batches of 4, shard 1 of 2, size (8, 8), device cpu, "
        "seed 3, at epoch 0>"
    )
    loader.sampler.set_epoch(2)
    assert loader.epoch == loader.sampler.epoch == 2
    loader.close()
    assert repr(loader).endswith("at epoch 2, closed>")


def test_mixing_can_be_read(numbered: str) -> None:
    assert not train(numbered).mixing
    assert not val(numbered).mixing
    mix = dcm.MixConfig()
    assert train(numbered, mix=mix, batch_size=16).mixing
    loader = train(numbered, mix=mix, batch_size=16, switchable=True)
    assert loader.mixing
    loader.mixing = False
    assert not loader.mixing


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_devices_by_their_names_in_torch(numbered: str, device: Any) -> None:
    images, _ = next(iter(train(numbered, device=device)))
    assert images.device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:1", torch.device("cuda", 1)])
def test_a_gpu_by_any_name_that_is_not_there_is_refused(numbered: str, device: Any) -> None:
    with pytest.raises(ValueError, match='`device` must be "cpu" on this machine, got "'):
        train(numbered, device=device)


@pytest.mark.parametrize(
    ("device", "error"), [("cuda:x", ValueError), ("mps", ValueError), (1, TypeError)]
)
def test_other_devices_are_refused(numbered: str, device: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`device` must be"):
        train(numbered, device=device)


# Validation like training


def test_validation_like_training(photos: str) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    training = dcm.train_loader(
        photos, batch_size=16, size=40, mean=mean, std=std, device="cpu", num_threads=1,
        interpolation="bicubic", dtype="float16", layout="NHWC",
    )  # fmt: skip
    like = dcm.val_loader(photos, like=training)
    said = dcm.val_loader(
        photos, batch_size=16, size=40, mean=mean, std=std, device="cpu", num_threads=1,
        interpolation="bicubic", dtype="float16", layout="NHWC", classes=training.classes,
    )  # fmt: skip
    for (images, labels), (expected, same) in zip(like, said, strict=True):
        assert images.shape[1:] == (3, 40, 40)
        assert torch.equal(images, expected)
        assert torch.equal(labels, same)
    # A recipe at its own size validates as it says, and what is given is used.
    r = dcm.recipes.get("torchvision-v2")
    training = dcm.train_loader(photos, batch_size=16, recipe=r, device="cpu")
    assert r.size != r.val_size
    options = dcm.val_loader(photos, like=training)._options
    assert (options["size"], options["resize"]) == ((r.val_size,) * 2, r.val_resize)
    options = dcm.val_loader(photos, like=training, size=48, batch_size=9)._options
    assert (options["size"], options["batch_size"]) == ((48, 48), 9)


def test_validation_like_something_else_is_refused(photos: str, numbered: str) -> None:
    with pytest.raises(TypeError, match="`like` must be what train_loader returned, got 'x'"):
        dcm.val_loader(photos, like="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`batch_size` must be given without `like`, got None"):
        dcm.val_loader(photos)
    with pytest.raises(ValueError, match="`classes` must name every class folder of"):
        dcm.val_loader(numbered, like=dcm.train_loader(photos, batch_size=16, device="cpu"))


def test_validation_like_training_reads_its_part_and_knows_its_classes(
    photos: str,
) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 16, "device": "cpu", "num_threads": 1}
    training = dcm.train_loader(photos, **options, shard_id=1, num_shards=2)
    assert dcm.val_loader(photos, like=training).sampler.rank == 1
    for half in ({"shard_id": 0}, {"num_shards": 4}):
        with pytest.raises(ValueError, match="`shard_id` and `num_shards` must be given together"):
            dcm.val_loader(photos, like=training, **half)
    alone = dcm.train_loader(photos, **options)
    assert dcm.val_loader(photos, like=alone)._alone
    files = sorted(Path(photos).rglob("*.jpg"))[:4]
    training = dcm.train_loader(photos, **options, num_classes=9, mix=None)
    for labels in ((0, 1, 2, 3), (0, 1, 2, 30)):
        source = dcm.find_source([(str(f), y) for f, y in zip(files, labels, strict=True)])
        if max(labels) < 9:
            assert dcm.val_loader(source, like=training, classes=None).num_classes == 9
        else:
            with pytest.raises(
                ValueError, match="must be at least the 31 classes of `source`, got 9"
            ):
                dcm.val_loader(source, like=training)


def test_an_interrupt_while_a_pipeline_is_replaced_is_not_lost(
    numbered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What DALI's __del__ does is dropped by Python; so the old pipeline is stopped before.
    loader = train(numbered)
    state = loader.state_dict()

    def stop(run: Run) -> None:
        closed(run)
        raise KeyboardInterrupt

    closed = Run.close
    moves: list[Callable[[], object]] = [
        lambda: loader.seek(1, 1),
        lambda: loader.load_state_dict(state),
    ]
    for move in moves:
        loader.seek(0, 2)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "close", stop)
            with pytest.raises(KeyboardInterrupt):
                move()
        batches = [labels.tolist() for _, labels in loader]  # and it is where it was to go
        assert len(batches) == len(loader) - (1 if move is moves[0] else 0)


@pytest.mark.parametrize("stop", range(1, 9))
def test_an_interrupt_in_the_last_batch_makes_no_loop_longer(numbered: str, stop: int) -> None:
    # KeyboardInterrupt at the n-th line of the last next().
    loader = train(numbered)
    batches = iter(loader)
    taken = [next(batches) for _ in range(len(loader) - 1)]
    lines = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:  # noqa: ARG001
        nonlocal lines
        if frame.f_code.co_filename.endswith(("_run.py", "loader.py")) and event == "line":
            lines += 1
            if lines == 4 * stop:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        taken.append(next(batches))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    with limit():
        taken += list(batches)
    assert len(taken) in (len(loader), len(loader) - 1)  # one at most is lost
    assert loader.epoch == 1
    assert len(list(loader)) == len(loader)
    assert loader.epoch == 2


# torch.distributed


def in_a_group(rank: int, root: str, store: str, results: Any) -> None:
    warnings.simplefilter("ignore")
    loader = train(root)
    own = train(root, shard_id=rank, num_shards=2)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    try:
        next(iter(loader))
    except RuntimeError as error:
        words = str(error)
    after = train(root)
    labels = [label for x in (own, after) for _, y in x for label in y.tolist()]
    results.put((rank, words, labels))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_loader_made_before_the_process_group_is_refused(numbered: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    store = f"file://{tmp_path}/store"
    processes = [
        context.Process(target=in_a_group, args=(rank, numbered, store, results), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = {rank: (words, labels) for rank, words, labels in (results.get(timeout=120), results.get(timeout=120))}  # fmt: skip # noqa: E501
    for words, labels in found.values():
        assert words.startswith("the loader was made before torch.distributed.init_process_group()")
        assert "each of the 2 processes would read all images" in words
        half = len(labels) // 2
        assert labels[:half] == labels[half:]
    assert not set(found[0][1]) & set(found[1][1])


# Copies and memory


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_loader_is_not_copied(
    numbered: str, copied: Callable[[Any], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    loader = train(numbered)
    with pytest.raises(TypeError, match="a Loader cannot be copied or sent to another process"):
        copied(loader)
    assert len(list(loader)) == len(loader)
    del loader
    gc.collect()
    assert capfd.readouterr().err == ""


def test_interrupted_and_run_again_one_loader_is_alive(numbered: str) -> None:
    # As cells of a notebook: the traceback of the last one holds what was there.
    def alive() -> int:
        return sum(type(x) is Loader and x._run.batches is not None for x in gc.get_objects())

    gc.collect()
    before = alive()
    threads = threading.active_count()
    gc.disable()
    last: BaseException | None = None
    try:
        space: dict[str, Any] = {"train": train, "root": numbered}
        for _ in range(10):
            try:
                exec(
                    "loader = train(root)\nfor batch in loader:\n    raise KeyboardInterrupt", space
                )
            except KeyboardInterrupt as error:
                last = error
            assert alive() - before <= 1
    finally:
        gc.enable()
    assert last is not None
    assert threading.active_count() <= threads + 1
