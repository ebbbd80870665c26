"""Loaders: what they yield, for how long, in which order, and how they resume and refuse."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn, pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix import recipes
from dali_cutmix.loaders._iterator import to_torch
from dali_cutmix.pipelines import imagenet
from tests.support import graphs

SMALL: dict[str, Any] = {"batch_size": 16, "size": (24, 32), "device": "cpu", "num_threads": 2}
MIX = dcm.MixConfig()


def train(root: str, mix: dcm.MixConfig | None = MIX, **options: Any) -> dcm.Loader:
    return dcm.train_loader(root, mix=mix, **{**SMALL, **options})


def val(root: str, **options: Any) -> dcm.Loader:
    return dcm.val_loader(root, **{**SMALL, "resize": 40, **options})


def digests(loader: Iterable[Any]) -> list[int]:
    """One number for each batch of the rest of the epoch."""
    return [
        hash((images.numpy().tobytes(), targets.numpy().tobytes())) for images, targets in loader
    ]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    return graphs.numbered_folder(tmp_path_factory.mktemp("numbered"), 25)


# What is yielded


def test_training_batches(photos: str) -> None:
    with train(photos) as loader:
        assert len(loader) == 80 // 16
        assert loader.classes == ("astronaut", "cat", "coffee", "galaxies", "rocket")
        for epoch in range(3):
            assert loader.epoch == epoch
            batches = list(loader)
            assert len(batches) == len(loader)
            for images, targets in batches:
                assert images.shape == (16, 3, 24, 32)
                assert images.dtype == torch.float32
                assert targets.shape == (16, 5)
                assert torch.allclose(targets.sum(1), torch.ones(16), atol=1e-6)
                assert images.abs().max() < 3
                assert images.std() > 0.3


def test_pair_targets(photos: str) -> None:
    for images, targets in train(photos, dcm.MixConfig(targets="pair")):
        label_a, label_b, lam = targets
        assert label_a.shape == label_b.shape == lam.shape == (len(images),)
        assert label_a.dtype == label_b.dtype == torch.int64
        assert lam.dtype == torch.float32
        loss = torch.nn.functional.cross_entropy(torch.zeros(len(images), 5), label_a)
        assert loss.item() == pytest.approx(np.log(5))


def test_without_mix_the_labels_are_integers(photos: str) -> None:
    for images, labels in train(photos, None, batch_size=1):
        assert images.shape == (1, 3, 24, 32)
        assert labels.dtype == torch.int64
        assert labels.shape == (1,)


def test_nhwc_is_channels_last_without_a_copy(photos: str) -> None:
    images, _ = next(iter(train(photos, layout="NHWC", dtype="float16")))
    assert images.shape == (16, 3, 24, 32)
    assert images.dtype == torch.float16
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images._base is not None  # a view of what DALI made
    planar, _ = next(iter(train(photos, layout="NCHW", dtype="float16")))
    assert torch.equal(planar, images)


def test_validation_is_complete_in_order_and_trimmed(numbered: str) -> None:
    loader = val(numbered, batch_size=10)
    for _ in range(2):
        batches = list(loader)
        assert [len(images) for images, _ in batches] == [10, 10, 5]
        assert len(loader) == 3
        labels = torch.cat([labels for _, labels in batches])
        assert labels.dtype == torch.int64
        assert labels.tolist() == list(range(25))


def test_validation_is_resize_and_centre_crop(photos: str) -> None:
    # Against Pillow on a real photograph: bilinear, antialiased; mean difference below 1 of 255.
    images, _ = next(iter(val(photos, size=(64, 64), resize=72)))
    path = sorted((Path(photos) / "astronaut").iterdir())[0]
    with Image.open(path) as photo:
        scale = 72 / min(photo.size)
        sides = [round(side * scale) for side in photo.size]
        small = photo.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
        left, top = (sides[0] - 64) // 2, (sides[1] - 64) // 2
        expected = np.asarray(small.crop((left, top, left + 64, top + 64)), float)
    mean, std = np.array(imagenet.IMAGENET_MEAN), np.array(imagenet.IMAGENET_STD)
    pixels = 255 * (images[0].permute(1, 2, 0).numpy() * std + mean)
    assert np.abs(pixels - expected).mean() < 1


def test_a_loop_after_a_break_is_the_next_epoch(numbered: str) -> None:
    loader, whole = (train(numbered, None, batch_size=5) for _ in range(2))
    expected = [[labels.tolist() for _, labels in whole] for _ in range(3)]
    for epoch, stop in enumerate((2, 5, 1)):  # 5: all, but left before the end is told
        taken = [labels.tolist() for _, labels in itertools.islice(loader, stop)]
        assert taken == expected[epoch][:stop]


def test_rest_goes_on_after_a_break(numbered: str) -> None:
    loader, whole = (train(numbered, None, batch_size=5) for _ in range(2))
    expected = [labels.tolist() for _ in range(2) for _, labels in whole]
    taken = [labels.tolist() for _, labels in itertools.islice(loader, 2)]
    taken += [labels.tolist() for _, labels in itertools.islice(loader.rest(), 1)]
    taken += [labels.tolist() for _, labels in loader.rest()]
    assert loader.epoch == 1
    taken += [labels.tolist() for _, labels in loader.rest()]  # of an epoch not begun, all of it
    assert taken == expected


def test_a_loop_over_validation_data_begins_with_the_first_batch(numbered: str) -> None:
    loader = val(numbered, batch_size=10)
    everything = list(range(25))
    for _ in range(2):  # as Lightning's sanity check does, which looks at a few batches
        for _, labels in loader:
            assert labels.tolist() == everything[:10]
            break
    state = loader.state_dict()
    assert [label for _, labels in loader for label in labels.tolist()] == everything
    assert [label for _, labels in loader for label in labels.tolist()] == everything
    assert loader.epoch == 2
    loader.load_state_dict(state)  # resumes, once
    assert [label for _, labels in loader for label in labels.tolist()] == everything[10:]
    assert [label for _, labels in loader for label in labels.tolist()] == everything


CHANGED: dict[str, Any] = {
    "area": (0.5, 1.0),
    "ratio": (1.0, 1.0),
    "interpolation": "bicubic",
    "antialias": False,
    "hflip": 0.0,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "size": (32, 24),
    "resize": 48,
    "dtype": "float16",
    "seed": 9,
    "shard_id": 1,
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_argument_has_an_effect(photos: str, name: str) -> None:
    options = {"shard_id": 0, "num_shards": 2}
    for make in (train, val):
        if name in inspect.signature(getattr(dcm, f"{make.__name__}_loader")).parameters:
            plain = make(photos, **options)
            changed = make(photos, **{**options, name: CHANGED[name]})
            assert digests(plain)[:1] != digests(changed)[:1]


@pytest.mark.parametrize("name", ["num_threads", "prefetch_queue_depth", "hw_decoder_load"])
def test_what_is_for_speed_does_not_change_the_stream(photos: str, name: str) -> None:
    assert digests(train(photos)) == digests(train(photos, **{name: 1}))


@pytest.mark.parametrize("make", [train, val])
def test_an_epoch_can_be_taken_by_count(numbered: str, make: Any) -> None:
    def loader() -> dcm.Loader:
        return make(numbered, None, batch_size=5) if make is train else make(numbered, batch_size=5)

    one = loader()
    assert [len(list(itertools.islice(one, 5))) for _ in range(3)] == [5, 5, 5]
    two, counts = loader(), []
    for _ in range(3):
        for i, _ in enumerate(two, 1):
            if i == len(two):
                break
        counts.append(i)
    assert counts == [5, 5, 5]
    three, four = loader(), loader()
    assert [len(list(zip(three, four, strict=False))) for _ in range(3)] == [5, 5, 5]
    assert three.epoch == four.epoch == 3


def test_the_same_batches_however_they_are_taken(numbered: str) -> None:
    whole = train(numbered, None, batch_size=4)
    expected = [label for _ in range(3) for _, labels in whole for label in labels.tolist()]
    pieces, got = train(numbered, None, batch_size=4), []
    while pieces.epoch < 3:
        for _, labels in itertools.islice(pieces.rest(), 2):
            got += labels.tolist()
    assert got == expected


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_no_decoder_runs_before_the_headers_are_read(device: str) -> None:
    # One that meets a file that is no image can crash the process.
    with Pipeline(batch_size=4, num_threads=1, device_id=None if device == "cpu" else 0):
        images = imagenet.decode(fn.readers.file(files=["never read"])[0], device)
        names = [operator._op.schema_name for operator in graphs.operators([images])]
    assert names[0] == ("decoders__Image" if device == "gpu" else "decoders__ImageSlice")
    assert "PeekImageShape" in names


# Mixing off and on


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mixing_is_switched_within_the_prefetch_depth(photos: str, depth: int) -> None:
    options: dict[str, Any] = {"switchable": True, "with_params": True}
    options["prefetch_queue_depth"] = depth
    loader, plain = train(photos, **options), train(photos)
    lams, k = [], 0
    for _ in range(4):
        for (images, targets), (same, row) in zip(loader, plain, strict=True):
            if k == 4:
                loader.mixing = False
            if k == 12:
                loader.mixing = True
            mixed = bool((targets[1] < 1).any())
            lams.append(mixed)
            if mixed:  # neither the data order nor the draws have moved
                assert torch.equal(images, same)
                assert torch.equal(targets[0], row)
            else:
                assert torch.equal(targets[0], torch.eye(5)[targets[3]])
            k += 1
    off = [i for i, mixed in enumerate(lams) if not mixed]
    assert off == list(range(4 + 1 + depth, 12 + 1 + depth))


@pytest.mark.slow
def test_a_switched_loader_resumes_bit_for_bit(photos: str) -> None:
    def run(loader: dcm.Loader, start: int, stop: int, states: dict[int, Any]) -> list[int]:
        out = []
        for k in range(start, stop):
            states[k] = json.loads(json.dumps(loader.state_dict()))
            if k in (3, 8):
                loader.mixing = k == 8
            out += digests(itertools.islice(loader.rest(), 1))
        return out

    states: dict[int, Any] = {}
    whole = run(train(photos, switchable=True), 0, 14, states)
    for k in (0, 3, 4, 5, 6, 8, 9, 10):
        loader = train(photos, switchable=True)
        loader.load_state_dict(states[k])
        assert json.loads(json.dumps(loader.state_dict())) == states[k]
        assert run(loader, k, 14, {}) == whole[k:], k


def test_a_loader_that_is_not_switchable_says_so(photos: str) -> None:
    with pytest.raises(ValueError, match="`switchable` must be True where mixing is to be swi"):
        train(photos).mixing = False
    with train(photos, switchable=True) as loader:
        pass
    with pytest.raises(RuntimeError, match="the loader is closed"):
        loader.mixing = False
    with pytest.raises(ValueError, match="`switchable` must be False where `mix` is None"):
        train(photos, None, switchable=True)


# Seeds, shards, epochs


def test_the_seed_decides_the_stream(photos: str) -> None:
    one, again, other = (digests(train(photos, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert not set(one) & set(other)


def test_another_output_does_not_change_the_draws(photos: str) -> None:
    options = {"batch_size": 16, "num_threads": 2, "device_id": None, "seed": 1, "size": (24, 32)}
    mix = dcm.MixConfig(num_classes=5)
    few = graphs.run(imagenet.train(photos, mix, **options), 3)
    more = graphs.run(imagenet.train(photos, mix, with_params=True, **options), 3)
    for (images, targets), (same_images, same_targets, *_) in zip(few, more, strict=True):
        assert np.array_equal(images, same_images)
        assert np.array_equal(targets, same_targets)


def test_shards_are_disjoint_and_complete_in_every_epoch(numbered: str) -> None:
    shards = [train(numbered, None, batch_size=4, shard_id=i, num_shards=2) for i in range(2)]
    assert [len(shard) for shard in shards] == [3, 3]  # equal, though one has 13 images
    for _ in range(4):
        seen = [[label for _, labels in shard for label in labels.tolist()] for shard in shards]
        assert [len(labels) for labels in seen] == [12, 12]
        assert len(set(seen[0] + seen[1])) == 24  # the 25th is in a dropped batch


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 25])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 16])
def test_validation_is_even_and_counts_every_image_once(
    numbered: str, batch_size: int, shards: int
) -> None:
    parts = [
        val(numbered, batch_size=batch_size, shard_id=i, num_shards=shards) for i in range(shards)
    ]
    for _ in range(2):
        labels = [[labels for _, labels in part] for part in parts]
        sizes = [[len(batch) for batch in part] for part in labels]
        assert all(other == sizes[0] for other in sizes)
        assert all(len(part) == len(found) for part, found in zip(parts, labels, strict=True))
        assert sum(sizes[0]) == -(-25 // shards)  # nothing more than the longest shard has
        # No mean over nothing, but where a batch is one sample.
        assert batch_size == 1 or all((batch >= 0).any() for part in labels for batch in part)
        found = torch.cat([torch.cat(part) for part in labels])
        assert found[found >= 0].tolist() == list(range(25))
        assert set(found[found < 0].tolist()) <= {-100}
    loss = torch.nn.functional.cross_entropy(torch.zeros(len(found), 25), found)
    assert loss.item() == pytest.approx(np.log(25))


def test_a_shard_without_a_last_batch_yields_no_empty_one(numbered: str) -> None:
    # 25 images in 2 shards of 12 and 13 with batches of 4: the first has no fourth batch.
    for shard_id, sizes in ((0, [4, 4, 4]), (1, [4, 4, 4, 1])):
        part = val(numbered, batch_size=4, shard_id=shard_id, num_shards=2, even=False)
        for _ in range(2):
            assert [len(labels) for _, labels in part] == sizes
            assert len(part) == len(sizes)


def test_only_integer_labels_can_be_marked(numbered: str) -> None:
    @pipeline_def
    def pipe(root: str, shard_id: int, num_shards: int) -> Any:
        encoded, labels = fn.readers.file(
            file_root=root, pad_last_batch=True, stick_to_shard=True,
            shard_id=shard_id, num_shards=num_shards,
        )  # fmt: skip
        return fn.resize(fn.decoders.image(encoded), size=(8, 8)), fn.one_hot(
            labels, num_classes=25
        )

    options: dict[str, Any] = {"batch_size": 4, "num_threads": 1, "device_id": None}
    options |= {"root": numbered, "shard_id": 0, "num_shards": 2, "last_batch": "partial"}
    with pytest.raises(ValueError, match=r"`even` must be False where targets are no integers"):
        list(dcm.Loader(pipe, even=True, **options))
    assert len(list(dcm.Loader(pipe, even=False, **options))) == 3

    def without_label(outputs: list[torch.Tensor], index: int) -> list[torch.Tensor]:
        images, rows = outputs
        keep = torch.arange(len(rows)) != index
        return [images, rows * keep[:, None]]

    rows = torch.cat(
        [rows for _, rows in dcm.Loader(pipe, even=True, mark=without_label, **options)]
    )
    assert rows.sum(1).tolist() == [1] * 11 + [0, 1]  # of 12 images
    for name in ("mark", "collate"):
        with pytest.raises(TypeError, match=f"`{name}` must be a function or None, got 3"):
            dcm.Loader(pipe, **{**options, name: 3})
    with pytest.raises(ValueError, match="`even` must be False for a pipeline with exec_dynamic"):
        dcm.Loader(pipe, even=True, exec_dynamic=False, **options)
    with pytest.raises(ValueError, match='`even` must be False with `last_batch="drop"`'):
        dcm.Loader(pipe, even=True, **{**options, "last_batch": "drop"})


def test_shards_draw_differently(photos: str) -> None:
    boxes = []
    for shard_id in range(2):
        pipeline = imagenet.train(
            photos, dcm.MixConfig(num_classes=5), batch_size=16, num_threads=1, device_id=None,
            seed=1, shard_id=shard_id, num_shards=2, with_params=True,
        )  # fmt: skip
        ((_, _, _, box, *_),) = graphs.run(pipeline)
        boxes.append({tuple(row) for row in box.tolist() if row[2] * row[3]})
    assert min(map(len, boxes)) > 10
    assert not boxes[0] & boxes[1]


def test_epochs_differ_in_order_and_pairing(numbered: str) -> None:
    loader = train(numbered, None, batch_size=25)
    orders = [next(iter(loader))[1].tolist() for _ in range(5)]
    assert all(sorted(order) == list(range(25)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    # No neighbourhood survives: of 24 neighbours about 2 stay, whatever the order of the folder.
    for a, b in itertools.pairwise(orders):
        pairs = {frozenset(p) for p in itertools.pairwise(a)}
        assert len(pairs & {frozenset(p) for p in itertools.pairwise(b)}) < 9

    mixed = train(numbered, dcm.MixConfig(targets="pair", partner="derangement"), batch_size=25)
    pairings = []
    for _ in range(3):
        ((_, (label_a, label_b, _)),) = list(mixed)
        pairings.append(set(zip(label_a.tolist(), label_b.tolist(), strict=True)))
    assert len(pairings[0] & pairings[1]) < 9
    assert len(pairings[1] & pairings[2]) < 9


def test_shards_come_from_torchrun_or_torch_distributed(
    numbered: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(next(iter(val(numbered, batch_size=25)))[1]) == 25
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.warns(UserWarning, match="only part 1 of 5 of the data is read, because RANK and"):
        loader = val(numbered)
    assert next(iter(loader))[1].tolist() == [5, 6, 7, 8, 9]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "by torchrun")
    assert next(iter(val(numbered)))[1].tolist() == [5, 6, 7, 8, 9]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        assert len(next(iter(val(numbered, batch_size=25)))[1]) == 25
    finally:
        torch.distributed.destroy_process_group()


# Resume

RESUME = """
import hashlib, json, sys
import dali_cutmix as dcm
options, state_file, epochs = json.load(sys.stdin)
loader = dcm.train_loader(mix=dcm.MixConfig(), **options)
if state_file:
    with open(state_file) as file:
        loader.load_state_dict(json.load(file))
while loader.epoch < epochs:
    for images, targets in loader:
        digest = hashlib.sha256(images.numpy().tobytes() + targets.numpy().tobytes())
        print(loader.epoch, digest.hexdigest())
"""


def stream_in_new_process(
    root: str, state: dict[str, Any] | None, tmp_path: Path, epochs: int
) -> list[str]:
    path = ""
    if state is not None:
        path = str(tmp_path / "state.json")
        Path(path).write_text(json.dumps(state))
    options = {"source": root, "seed": 4, **SMALL}
    done = subprocess.run(
        [sys.executable, "-c", RESUME],
        input=json.dumps([options, path, epochs]),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 1, 3, 5, 7])
def test_a_new_process_goes_on_bit_for_bit(photos: str, k: int, tmp_path: Path) -> None:
    # 5 batches an epoch: k = 5 is the end of the first epoch, 7 is in the second.
    whole = stream_in_new_process(photos, None, tmp_path, epochs=3)
    assert len(whole) == len(set(whole)) == 15
    loader = train(photos, seed=4)
    left = k
    while left:
        for _ in loader:
            left -= 1
            if not left:
                break
    state = loader.state_dict()
    assert len(json.dumps(state)) < 10_000
    assert stream_in_new_process(photos, state, tmp_path, epochs=3) == whole[k:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (train, {"batch_size": 20}),  # divides the 80 images
        (train, {"batch_size": 16}),
        (val, {"batch_size": 20}),
        (val, {"batch_size": 16}),
        (train, {"batch_size": 26, "shard_id": 1, "num_shards": 3}),  # other shards are longer
        (val, {"batch_size": 13, "shard_id": 0, "num_shards": 3}),  # ends in mere padding
    ],
)
def test_a_state_of_any_moment_restores_epoch_and_rest(
    photos: str, make: Any, options: dict[str, Any]
) -> None:
    reference = make(photos, **options)
    stream = [(epoch, d) for epoch in range(3) for d in digests(reference)]
    loader, states = make(photos, **options), []
    states.append((0, loader.state_dict()))
    count = 0
    for _ in range(2):
        for _ in loader:
            count += 1
            states.append((count, loader.state_dict()))
        states.append((count, loader.state_dict()))
    for count, state in states:
        resumed = make(photos, **options)
        next(iter(resumed))  # a loader that has run is set back, too
        resumed.load_state_dict(state)
        assert resumed.epoch == state["epoch"]
        rest = []
        while resumed.epoch < 3:
            epoch = resumed.epoch
            rest += [(epoch, d) for d in digests(resumed)]
        assert rest == stream[count:]


def test_a_state_of_another_stream_is_refused(photos: str) -> None:
    state = train(photos, seed=1).state_dict()
    with pytest.raises(ValueError, match="seed: 2 here, 1 in the state"):
        train(photos, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match=r"mix: .*prob=0.5.* here, .*prob=1.0.* in the state"):
        train(photos, dcm.MixConfig(prob=0.5), seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="switchable: True here, False in the state"):
        train(photos, seed=1, switchable=True).load_state_dict(state)
    with pytest.raises(ValueError, match="must be of version 4, got version 99: it was"):
        train(photos, seed=1).load_state_dict({**state, "version": 99})
    # What does not change the stream may differ.
    fast = {"num_threads": 1, "prefetch_queue_depth": 3, "hw_decoder_load": 0.3}
    train(photos, seed=1, **fast).load_state_dict(state)


# Of the second batch with seed 7: lam, and the mean of the left half of the image.
STREAMS: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "boxes drawn from their law": (
        {},
        [0.5625, 0.6354, 0.4375, 0.8359, 0.8568, 0.9089, 0.5417, 0.7188],
        [-1.642, -0.993, -0.686, -0.52, -0.589, -1.54, -0.153, 0.223],
    ),
    "two methods": (
        {"mix": dcm.MixConfig(mixup_alpha=0.8, prob=0.7)},
        [1.0, 1.0, 1.0, 0.9089, 1.0, 0.6719, 0.8477, 1.0],
        [-0.651, -0.053, 0.223, -0.527, -0.515, -0.303, -1.077, 0.016],
    ),
    "one box a batch": (
        {"mix": dcm.MixConfig(mixup_alpha=0.8, mode="batch", partner="flip")},
        [0.8477] * 8,
        [-0.651, -0.053, 0.223, -0.527, -0.515, -1.688, -1.077, 0.016],
    ),
    "augmentations": (
        {
            "mix": dcm.MixConfig(box="inside"),
            "augment": (dcm.RandAugment(),),
            "erase": dcm.RandomErasing(prob=0.5),
        },
        [0.4909, 0.8854, 0.9688, 0.8854, 0.6536, 0.2969, 0.8177, 0.2344],
        [1.103, 0.47, -0.527, -0.528, -0.311, 0.007, -0.452, -0.84],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_seed_gives_the_batches_that_it_gave(photos: str, name: str) -> None:
    """Where this fails for a good reason, raise `_STATE_VERSION`: old states must be refused."""
    options, shares, means = STREAMS[name]
    with train(photos, seed=7, with_params=True, **options) as loader:
        batches = iter(loader)
        next(batches)
        images, (_, lam, *_) = next(batches)
    assert np.abs(lam[:8].numpy() - shares).max() < 1e-3
    left = images[:8, :, :, :16].mean(dim=(1, 2, 3))
    assert np.abs(left.numpy() - means).max() < 0.02  # decoders differ less than that


@pytest.mark.parametrize("fill", [7.0, (124, 116, 104)])
def test_cutout_fills_alike_where_images_are_normalised_before_they_are_mixed(
    photos: str, fill: Any
) -> None:
    cfg = dcm.MixConfig(methods=(dcm.Cutout(length=16, fill=fill),))
    options = {"mix": cfg, "erase": dcm.RandomErasing(prob=0), "size": 32, "with_params": True}
    shown = []
    for after in (True, False):
        with train(photos, seed=7, erase_after_mix=after, **options) as loader:
            shown.append(next(iter(loader))[0])
    white = np.array([255.0 * x for x in recipes.IMAGENET_STD])
    expected = (np.array(fill) - 255 * np.array(recipes.IMAGENET_MEAN)) / white
    filled = (shown[0] - torch.tensor(expected[:, None, None])).abs().amax(dim=1) < 1e-5
    assert (filled.sum(dim=(1, 2)) >= 8 * 8).all()
    assert (shown[0] - shown[1]).abs().max() < 1e-5


def test_a_state_of_other_data_is_refused(photos: str, tmp_path: Path) -> None:
    state = train(photos).state_dict()
    shutil.copytree(photos, tmp_path / "less")
    (tmp_path / "less" / "cat" / "000.jpg").unlink()
    with pytest.raises(ValueError, match="images: 79 here, 80 in the state"):
        train(str(tmp_path / "less")).load_state_dict(state)
    shutil.copytree(photos, tmp_path / "moved")
    train(str(tmp_path / "moved")).load_state_dict(state)
    (tmp_path / "moved" / "cat").rename(tmp_path / "moved" / "dog")
    with pytest.raises(ValueError, match=r"classes: .*'dog'.* here, .*'cat'.* in the state"):
        train(str(tmp_path / "moved")).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (None, TypeError),
        ({}, TypeError),
        ({"checkpoint": "0:zz"}, ValueError),
        ({"checkpoint": "0:"}, ValueError),
        ({"checkpoint": "00ff"}, ValueError),
        ({"checkpoint": "0:00ff"}, ValueError),
        ({"checkpoint": ""}, ValueError),
        ({"checkpoint": 5}, ValueError),
        ({"position": 5}, ValueError),
        ({"position": "x"}, ValueError),
        ({"epoch": -1}, ValueError),
        ({"options": None}, TypeError),
        ({"data": ["x"]}, TypeError),
        ({"mixing": {"on": True, "given": ["a"]}}, ValueError),
    ],
)
def test_a_damaged_state_leaves_the_loader_as_it_was(
    photos: str, change: Any, error: type[Exception]
) -> None:
    loader, other = train(photos, switchable=True), train(photos, switchable=True)
    next(iter(loader))
    next(iter(other))
    state = {**loader.state_dict(), **change} if change else change
    with pytest.raises(error, match="`state`"):
        loader.load_state_dict(state)
    assert digests(loader.rest()) == digests(other.rest())


def test_a_closed_loader_says_so(photos: str) -> None:
    with train(photos) as loader:
        batches = iter(loader)
        next(batches)
    for closed in (batches, loader):
        with pytest.raises(RuntimeError, match="the loader is closed"):
            next(iter(closed))
    with pytest.raises(RuntimeError, match="the loader is closed"):
        loader.state_dict()


class Pinned:
    """What a CPU output of DALI looks like where it also goes to the GPU."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __dlpack_device__(self) -> tuple[int, int]:
        return 3, 0  # kDLCUDAHost

    def __dlpack__(self) -> Any:
        raise BufferError("torch takes no such capsule")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values, dtype, copy=copy)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
def test_pinned_outputs_are_copied(dtype: Any) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = to_torch(Pinned(values))  # type: ignore[arg-type]
    assert torch.equal(tensor, torch.from_numpy(values))
    assert not np.shares_memory(tensor.numpy(), values)


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        ({"batch_size": 2**31}, ValueError, "`batch_size` must be at most 1048576"),
        ({"size": "16"}, TypeError, "`size` must be an int, got '16'"),
        ({"size": 2**31}, ValueError, "`size` must be at most 32768"),
        ({"area": 0.5}, TypeError, "`area` must be 2 numbers, got 0.5"),
        ({"mean": (float("nan"), 0, 0)}, ValueError, "`mean` must be finite, got nan"),
        ({"antialias": "no"}, TypeError, "`antialias` must be a bool, got 'no'"),
        ({"hflip": "x"}, TypeError, "`hflip` must be a number, got 'x'"),
        ({"seed": 2**63}, ValueError, "`seed` must be at most"),
        ({"shard_id": 0.0, "num_shards": 1}, TypeError, "`shard_id` must be an int, got 0.0"),
        ({"shard_id": 0, "num_shards": 99}, ValueError, "`num_shards` must be at most the number"),
        ({"batch_size": 2.0}, TypeError, "`batch_size` must be an int, got 2.0"),
        ({"batch_size": 81}, ValueError, "`batch_size` must be at most the 80 images of a shard"),
        ({"batch_size": 1}, ValueError, "at least 2 for mixing, got 1: .* `mix=None` to train"),
        ({"size": 0}, ValueError, "`size` must be at least 1, got 0"),
        ({"size": (1, 2, 3)}, ValueError, r"`size` must be an int or \(H, W\)"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"num_threads": 0}, ValueError, "`num_threads` must be at least 1, got 0"),
        ({"prefetch_queue_depth": 0}, ValueError, "`prefetch_queue_depth` must be at least 1"),
        (
            {"device": "tpu"},
            ValueError,
            '`device` must be "gpu", "cuda", "cuda:0" or "cpu", got \'tpu\'',
        ),
        ({"dtype": "bfloat16"}, ValueError, '`dtype` must be one of "float32", "float16"'),
        ({"layout": "CHW"}, ValueError, '`layout` must be one of "NCHW", "NHWC", got'),
        ({"interpolation": "area"}, ValueError, '`interpolation` must be one of "bilinear"'),
        ({"area": (0.0, 1.0)}, ValueError, r"`area` must be \(low, high\) with 0 < low <= high"),
        ({"area": (0.5, 1.5)}, ValueError, r"`area` must be within \(0, 1\], got"),
        ({"ratio": (2.0, 1.0)}, ValueError, r"`ratio` must be \(low, high\) with 0 < low"),
        ({"hflip": 1.5}, ValueError, r"`hflip` must be in \[0, 1\], got 1.5"),
        ({"std": (1.0, 0.0, 1.0)}, ValueError, r"`std` must be in \[1e-4, 1e4\], got"),
        ({"hw_decoder_load": 2}, ValueError, r"`hw_decoder_load` must be in \[0, 1\], got 2"),
        ({"shard_id": 0}, ValueError, "`shard_id` and `num_shards` must be given together"),
        ({"shard_id": 2, "num_shards": 2}, ValueError, r"`shard_id` must be in \[0, num_shards\)"),
        ({"mix": 0.5}, TypeError, "`mix` must be a MixConfig or None, got 0.5"),
        (
            {"mix": dcm.MixConfig(num_classes=4)},
            ValueError,
            "`num_classes` must be at least the 5 class folders of `source`, got 4",
        ),
        (
            {"mix": dcm.MixConfig(labels="float")},
            ValueError,
            '`labels` must be "int" for a loader without',
        ),
    ],
)
def test_wrong_arguments_are_refused(
    photos: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(photos, **options)


def test_a_crop_larger_than_the_resize_is_refused(photos: str) -> None:
    with pytest.raises(ValueError, match="`resize` must be at least `size`, got resize=40"):
        val(photos, size=64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(photos: str) -> None:
    for make in (train, val):
        with pytest.raises(ValueError, match='`device` must be "cpu" on this machine, got "gpu"'):
            make(photos, device="gpu")


@pytest.mark.parametrize("make", [train, val])
def test_wrong_roots_are_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`source` must name files that exist, got '/no/w"):
        make("/no/where")
    with pytest.raises(FileNotFoundError, match="`source` must"):
        make(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match="1 of 1 empty: 'a'"):
        make(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'notes.txt\', line 1: .* a line is "path label"'):
        make(tmp_path / "a" / "notes.txt")


@pytest.fixture
def damaged(photos: str, tmp_path: Path) -> Path:
    shutil.copytree(photos, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("make", [train, val])
@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "cut in the header", "gone", "gif", "cut png"]
)
def test_a_file_that_cannot_be_decoded_is_named(make: Any, damage: str, damaged: Path) -> None:
    victim = damaged / "coffee" / "003.jpg"
    whole = victim.read_bytes()
    content: dict[str, Any] = {
        "truncated": whole[:2000],
        "empty": b"",
        "text": b"no image" * 99,
        "gone": None,
    }
    content["cut in the header"] = whole[:100]
    for kind in ("gif", "png"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(whole)).save(buffer, kind)
        content[kind] = buffer.getvalue()
    content["cut png"] = content["png"][: len(content["png"]) // 2]
    os.remove(victim)
    if damage == "gone":
        os.symlink(damaged / "nothing.jpg", victim)
    else:
        victim.write_bytes(content[damage] or b"")
    message = r"1 image\(s\) cannot be read: .*coffee/003.jpg.* replace or remove"
    with pytest.raises(ValueError, match=message):
        make(str(damaged), batch_size=80)


def test_a_damaged_file_of_a_list_is_named(photos: str, tmp_path: Path) -> None:
    files = sorted(str(p) for p in Path(photos).rglob("*.jpg"))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image" * 99)
    options = {"batch_size": 80, "num_threads": 2, "device_id": None, "seed": 1}
    with pytest.raises(ValueError, match=r"1 image\(s\) cannot be read: .*bad.jpg"):
        dcm.Loader(
            user_pipeline(80), files=[*files[:-1], str(bad)], labels=list(range(80)), **options
        )


def test_the_classes_of_validation_are_those_of_training(photos: str, tmp_path: Path) -> None:
    classes = train(photos).classes
    val(photos, classes=classes)
    shutil.copytree(photos, tmp_path / "val")
    shutil.rmtree(tmp_path / "val" / "cat")
    found = {int(y) for _, labels in val(str(tmp_path / "val"), classes=classes) for y in labels}
    assert found == {0, 2, 3, 4}  # those of training
    with pytest.raises(
        ValueError, match=r"`classes` must be the 4 classes of .* differ in 'cat': find it with"
    ):
        val(dcm.find_source(tmp_path / "val"), classes=classes)
    for wrong in (5, range(5), "astronaut"):
        with pytest.raises(TypeError, match="`classes` must be a list of class names, got"):
            val(photos, classes=wrong)


@pytest.mark.parametrize(("rank", "world"), [("3", None), ("", "2"), ("0", "abc"), (None, "2")])
def test_a_broken_environment_is_named(
    photos: str, rank: str | None, world: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RANK and WORLD_SIZE of the environment must be numbers"):
        train(photos)


def test_a_loader_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="`pipeline` must be a @pipeline_def function, got 3"):
        dcm.Loader(3, batch_size=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`batch_size` must be given"):
        dcm.Loader(user_pipeline(3))

    @pipeline_def
    def lonely(files: list[str]) -> Any:
        return fn.readers.file(files=files, pad_last_batch=True)[0]

    with pytest.raises(ValueError, match="`pipeline` must return images and targets, got one"):
        dcm.Loader(lonely, files=[__file__], batch_size=1, num_threads=1, device_id=None)


def test_the_reader_of_several_is_named(numbered: str) -> None:
    @pipeline_def
    def pipe(root: str) -> Any:
        reads = [
            fn.readers.file(name=name, file_root=root, pad_last_batch=True) for name in ("a", "b")
        ]
        (images, labels), partners = [
            (fn.resize(imagenet.decode(encoded, "cpu"), size=(8, 8)), index)
            for encoded, index in reads
        ]
        cfg = dcm.MixConfig(num_classes=25)
        mixed = dcm.mix(images, labels, cfg, partners=partners, seed=1)
        return mixed.images, mixed.targets

    options: dict[str, Any] = {"root": numbered, "num_threads": 1, "device_id": None}
    loader = dcm.Loader(pipe, reader_name="a", batch_size=1, **options)
    for _ in range(2):
        assert len([targets for _, targets in loader if targets.sum() == 1]) == 25
    message = r"`reader_name` must be one of the readers of `pipeline`, \['a', 'b'\], got None"
    with pytest.raises(ValueError, match=message):
        dcm.Loader(pipe, batch_size=1, **options)


def test_partial_batches_need_shards_that_stay(numbered: str) -> None:
    @pipeline_def
    def pipe(root: str) -> Any:
        encoded, labels = fn.readers.file(
            file_root=root, pad_last_batch=True, num_shards=2, shard_id=0
        )
        return fn.resize(fn.decoders.image(encoded), size=(8, 8)), labels

    options: dict[str, Any] = {"batch_size": 4, "num_threads": 1, "device_id": None}
    with pytest.raises(ValueError, match="`pipeline` must read with stick_to_shard=True"):
        dcm.Loader(pipe, last_batch="partial", root=numbered, **options)


def user_pipeline(num_classes: int, *, resize: bool = True, pad: bool = True) -> Any:
    @pipeline_def
    def pipe(files: list[str], labels: list[int]) -> Any:
        encoded, index = fn.readers.file(files=files, labels=labels, pad_last_batch=pad)
        images = imagenet.decode(encoded, "cpu")
        if resize:
            images = fn.resize(images, size=(24, 32))
        mixed = dcm.mix(images, index, dcm.MixConfig(num_classes=num_classes))
        return mixed.images, mixed.targets

    return pipe


def test_a_pipeline_of_ones_own(photos: str) -> None:
    files = sorted(str(p) for p in Path(photos).rglob("*.jpg"))
    options = {"files": files, "batch_size": 16, "num_threads": 2, "device_id": None, "seed": 1}
    loader = dcm.Loader(user_pipeline(80), labels=list(range(80)), **options)
    taken = list(loader)
    assert len(taken) == len(loader) == 5
    assert taken[0][0].dtype == torch.uint8
    # The label 80 is out of range, in the second batch only.
    wrong = [*range(20), 80, *range(21, 80)]
    loader = dcm.Loader(user_pipeline(80), labels=wrong, **options)
    batches = iter(loader)
    next(batches)
    with pytest.raises(ValueError, match=r"`labels` must be int32 or int64 scalars in \[0, num_cl"):
        next(batches)
    with pytest.raises(ValueError, match="`images` must be uint8, HWC and of one size"):
        dcm.Loader(user_pipeline(80, resize=False), labels=list(range(80)), **options)
    with pytest.raises(ValueError, match="must read with pad_last_batch=True"):
        dcm.Loader(user_pipeline(80, pad=False), labels=list(range(80)), **options)
    with pytest.raises(ValueError, match='`last_batch` must be "drop" for a pipeline that mixes'):
        dcm.Loader(user_pipeline(80), last_batch="partial", labels=list(range(80)), **options)
    with pytest.raises(ValueError, match='`last_batch` must be one of "drop", "partial"'):
        dcm.Loader(user_pipeline(80), last_batch="fill", labels=wrong, **options)  # type: ignore[arg-type]
