"""What this package takes from DALI beyond its documented interface, a test for each name.

Where a test fails with a new DALI, its docstring says what depends on the name.
"""

from __future__ import annotations

import gc
import importlib.metadata
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from dali_cutmix import _dali
from dali_cutmix._rules import dali_reason, explain, states
from dali_cutmix.loaders._iterator import Batches, to_torch

OPTIONS: dict[str, Any] = {"batch_size": 4, "num_threads": 1, "device_id": None, "seed": 1}


def outputs(graph: Callable[[], Any], **options: Any) -> list[Any]:
    """Returns the outputs of one run of a graph."""
    pipeline = pipeline_def(graph)(**{**OPTIONS, **options})
    return [np.stack([np.array(x) for x in output]) for output in pipeline.run()]


def fed(values: Any) -> Any:
    return fn.external_source(source=lambda: values, batch=True)


@pipeline_def
def read(root: str, shard_id: int = 0, num_shards: int = 1) -> Any:
    encoded, labels = fn.readers.file(
        file_root=root, pad_last_batch=True, shard_id=shard_id, num_shards=num_shards, name="r"
    )
    return fn.decoders.image(encoded)[:8, :8], labels


# dali_cutmix._dali: a graph


def test_do_not_convert_keeps_a_function_as_it_is_written() -> None:
    """mix() and all that a pipeline with ``enable_conditionals=True`` calls."""

    @_dali.graph_function
    def strict() -> Any:
        pairs = zip([1, 2], [3, 4], strict=True)
        return types.Constant([a * b for a, b in pairs])

    (values,) = outputs(lambda: (strict(),), enable_conditionals=True)
    assert values.tolist() == [[3, 8]] * 4


def test_conditional_split_and_merge_take_a_batch_apart_and_together() -> None:
    """What is drawn for one sample and dealt out, MixUp, random erasing, RandAugment."""
    flags = np.array([False, True, True, False])

    def graph() -> Any:
        x, flag = fed(np.arange(4, dtype=np.int32)), fed(flags)
        where_true, where_false = _dali.split(x, flag)
        return _dali.merge(where_true * 10, where_false - 1, flag)

    (values,) = outputs(graph)
    assert values.tolist() == [-1, 10, 20, 2]


def test_a_node_knows_the_operators_behind_it(photos: str) -> None:
    """Node.source, .id and .inputs: `operators`, by which tests count, and `shard_of`."""
    with Pipeline(**OPTIONS):
        encoded, labels = fn.readers.file(file_root=photos)
        images = fn.flip(fn.decoders.image(encoded), horizontal=fn.random.coin_flip())
        assert len(_dali.operators([images, labels])) == 4
        assert _dali.operators([labels]) == _dali.operators([encoded]) == [labels.source]


@pytest.mark.parametrize("shard", [0, 3])
def test_the_op_of_an_operator_has_its_init_args(photos: str, shard: int) -> None:
    """``operator._op._init_args``: two ranks with one seed draw apart by their shard."""
    with Pipeline(**OPTIONS):
        encoded, labels = fn.readers.file(file_root=photos, shard_id=shard, num_shards=4)
        assert _dali.shard_of([fn.decoders.image(encoded), labels]) == shard
        assert _dali.shard_of([fn.decoders.image(encoded)]) == shard


# dali_cutmix._dali: a pipeline


def test_is_pipeline_def_marks_a_decorated_function() -> None:
    """``_is_pipeline_def``: a Loader says that its first argument is none."""
    assert _dali.is_pipeline_def(read)
    assert not _dali.is_pipeline_def(outputs)


def test_serialize_has_the_names_of_the_operators(photos: str) -> None:
    """``serialize``: ``last_batch="partial"`` is refused where a pipeline mixes."""

    @pipeline_def
    def mixing() -> Any:
        encoded, labels = fn.readers.file(file_root=photos)
        return fn.permute_batch(labels, indices=fn.batch_permutation()), encoded

    assert _dali.pairs_samples(mixing(**OPTIONS))
    assert not _dali.pairs_samples(read(root=photos, **OPTIONS))


def test_ops_inputs_and_outputs_are_the_graph_of_a_pipeline(photos: str) -> None:
    """``_ops``, ``_inputs``, ``_outputs``: a closed pipeline is freed without the collector."""
    pipeline = read(root=photos, **OPTIONS)
    pipeline.build()
    operators = list(pipeline._ops)
    assert all(isinstance(operator._outputs, list) for operator in operators)
    assert any(operator._inputs for operator in operators)
    gc.collect()
    _dali.uncycle(pipeline)
    assert pipeline._ops == operators
    assert not any(operator._inputs or operator._outputs for operator in operators)
    assert len(pipeline.run()) == 2
    gc.collect()
    gc.disable()
    try:
        del pipeline, operators
        assert gc.collect() < 100  # 250 without
    finally:
        gc.enable()


def test_shutdown_frees_the_pipe(photos: str) -> None:
    """``_shutdown``: ``Loader.close`` stops the threads of a pipeline at once."""
    pipeline = read(root=photos, **OPTIONS)
    pipeline.run()
    assert type(pipeline._pipe).__module__.startswith("nvidia.dali")
    _dali.shut_down(pipeline)
    assert pipeline._pipe is None


@pytest.mark.slow
@pytest.mark.slow
def test_an_abandoned_pipe_is_not_destroyed(photos: str) -> None:
    """``_pipe``: a process that was forked off a loader's ends, and does not wait for threads."""
    script = f"""
import os
from dali_cutmix import _dali
from tests.test_dali import OPTIONS, read
pipeline = read(root={photos!r}, **OPTIONS)
pipeline.run()
if os.fork() == 0:
    _dali.abandon(pipeline)
    assert pipeline._pipe is None
    raise SystemExit(7)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ran = subprocess.run([sys.executable, "-Wignore", "-c", script], timeout=60, cwd=_root())
    assert ran.returncode == 7


def _root() -> Path:
    return Path(__file__).parent.parent


def test_the_warning_of_a_checkpoint_is_known() -> None:
    """CHECKPOINT_WARNING: a switchable loader would warn of a state that it keeps itself."""

    @pipeline_def
    def switchable() -> Any:
        return fed(np.zeros(4, np.int32))

    with pytest.warns(UserWarning, match=f"^{re.escape(_dali.CHECKPOINT_WARNING)}"):
        switchable(enable_checkpointing=True, **OPTIONS).build()


# dali_cutmix.loaders._iterator


@pytest.mark.parametrize("exec_dynamic", [True, False])
def test_batches_gives_what_the_iterator_of_dali_does(digits: Path, exec_dynamic: bool) -> None:
    """DALIGenericIterator with ``_pipes``, ``_get_outputs``, ``_schedule_runs``, ``exec_dynamic``,
    and ``_advance_and_check_drop_last``: all that a loader yields, and here the padding, too.
    """
    mode = {} if exec_dynamic else {"exec_dynamic": False}
    one, other = (
        read(root=str(digits / "val"), num_shards=9, **{**OPTIONS, "batch_size": 16, **mode})
        for _ in range(2)
    )
    batches = Batches(one, "r")
    assert one.exec_dynamic == exec_dynamic
    theirs = DALIGenericIterator(
        other,
        ["images", "labels"],
        reader_name="r",
        auto_reset=True,
        last_batch_policy=LastBatchPolicy.PARTIAL,
    )
    for _ in range(2):  # epochs of 40 samples
        for theirs_now in theirs:
            images, labels = batches.outputs()
            count = len(theirs_now[0]["labels"])
            assert torch.equal(images[:count], theirs_now[0]["images"])
            assert torch.equal(labels[:count], theirs_now[0]["labels"])
        assert count == 8
        with pytest.raises(StopIteration):
            batches.outputs()
    batches.close()
    assert [pipeline._pipe for pipeline in batches._pipes] == [None]


def test_ever_consumed_says_that_a_checkpoint_is_not_the_first(digits: Path) -> None:
    """``_ever_consumed``: a loader saves where it stands, not where it began."""
    options = {**OPTIONS, "enable_checkpointing": True}
    batches = Batches(read(root=str(digits / "val"), **options), "r")
    batches.outputs()
    (checkpoint,) = batches.checkpoints()
    following, _ = batches.outputs()
    again = Batches(read(root=str(digits / "val"), checkpoint=checkpoint, **options), "r")
    assert torch.equal(again.outputs()[0], following)


def test_a_checkpoint_has_the_form_from_which_places_are_computed(digits: Path) -> None:
    """``checkpoint_at``: of a reader that shuffles by its epoch, and of draws of every kind."""

    @pipeline_def
    def pipe(root: str) -> Any:
        encoded, labels = fn.readers.file(
            file_root=root, name="r", pad_last_batch=True, shuffle_after_epoch=True
        )
        draws = [
            fn.random.uniform(range=[0.0, 1.0]),
            fn.random.normal(shape=[3]),
            fn.random.coin_flip(),
            fn.random.beta(),
            fn.random.choice(7, shape=[2]),
            fn.batch_permutation(),
            fn.decoders.image_random_crop(encoded).shape(),
        ]
        return labels, *draws

    options = {**OPTIONS, "root": str(digits / "val"), "enable_checkpointing": True, "seed": 3}
    checkpoints, following = [], []
    batches = Batches(pipe(**options), "r")
    for _ in range(2):
        for _ in range(90):  # of 4, an epoch
            checkpoints += batches.checkpoints()
            following.append(batches.outputs())
        with pytest.raises(StopIteration):
            batches.outputs()
    counts: dict[str, Any] = {"batch_size": 4, "epoch_size": 360, "others": {}}
    for runs in (1, 7, 91, 150):
        place = {"runs": runs, "epoch": runs // 90, "samples": runs % 90 * 4}
        computed = _dali.checkpoint_at(*checkpoints[:2], **place, **counts)
        assert computed == checkpoints[runs]
        again = Batches(pipe(checkpoint=computed, **options), "r").outputs()
        assert all(torch.equal(a, b) for a, b in zip(again, following[runs], strict=True))
    with pytest.raises(ValueError, match="the first run moves it otherwise"):
        _dali.checkpoint_at(*checkpoints[0::2][:2], runs=5, epoch=0, samples=20, **counts)
    for other in (b"", checkpoints[1][:40], checkpoints[1] + b"\x1a\x00", b"\x09" + bytes(8)):
        with pytest.raises(ValueError, match=r"."):
            _dali.checkpoint_at(checkpoints[0], other, runs=5, epoch=0, samples=20, **counts)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"random_shuffle": True}, "its reader shuffles within a window"),
        ({"fed": True}, "the pipeline has an external source"),
        ({"second": True}, None),
        ({"second": True, "pad": False}, "the pipeline has a reader without pad_last_batch"),
    ],
)
def test_the_arguments_of_an_operator_can_be_read(
    digits: Path, options: dict[str, Any], reason: str | None
) -> None:
    """``_ops``, ``_op``, ``_init_args`` and ``_display_name``, by ``not_computable``."""

    @pipeline_def
    def pipe(
        root: str,
        random_shuffle: bool = False,
        fed: bool = False,
        second: bool = False,
        pad: bool = True,
    ) -> Any:
        read = fn.readers.file(
            file_root=root, name="r", pad_last_batch=True, random_shuffle=random_shuffle
        )
        more = [fn.external_source(source=lambda: [np.array(1)] * 4)] if fed else []
        if second:
            more += fn.readers.file(file_root=root, name="s", pad_last_batch=pad)
        return *read, *more

    pipeline = pipe(root=str(digits / "val"), **OPTIONS, **options)
    pipeline.build()
    assert _dali.not_computable(pipeline, fed=False) == reason
    assert _dali.other_readers(pipeline, "r") == ({"s": 360} if "second" in options else {})
    if "fed" in options:
        assert _dali.not_computable(pipeline, fed=True) is None


def test_dali_tells_its_version() -> None:
    """``nvidia.dali.__version__``, which a state records."""
    installed = {
        found.version
        for found in importlib.metadata.distributions()
        if found.name in ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
    }
    assert installed == {_dali.VERSION}


def test_a_tensor_of_dali_tells_its_device_by_dlpack() -> None:
    """to_torch, which must know pinned memory, that DALI would use again."""
    (output,) = pipeline_def(lambda: types.Constant([1, 2]))(**OPTIONS).run()
    tensor = output.as_tensor()
    assert int(tensor.__dlpack_device__()[0]) == 1  # kDLCPU
    assert to_torch(tensor).tolist() == [[1, 2]] * 4


def test_reader_meta_has_the_facts_of_a_reader(photos: str) -> None:
    """The length of a loader, and what it refuses."""
    meta = read(root=photos, shard_id=1, num_shards=2, **OPTIONS).reader_meta("r")
    facts = ("epoch_size", "number_of_shards", "shard_id", "pad_last_batch", "stick_to_shard")
    assert [int(meta[name]) for name in facts] == [80, 2, 1, 1, 0]


# Words of DALI, for dali_cutmix._rules and dali_cutmix.loaders.errors


def test_a_failure_names_the_functions_that_the_operator_stands_in() -> None:
    """``states``: users read the rule that their data break."""

    @states("`x` must be 3 numbers.")
    def three(x: Any) -> Any:
        return fn.reshape(x, shape=[3])

    with pytest.raises(RuntimeError) as error:
        outputs(lambda: three(fed(np.zeros((4, 2), np.float32))))
    words = explain(error.value)
    assert words is not None
    assert re.match("`x` must be 3 numbers. DALI: .*[Cc]annot reshape|.*volume", words)
    assert dali_reason(str(error.value)) != str(error.value).splitlines()[0]


def test_too_many_shards_are_told(photos: str) -> None:
    """loaders.errors, in words of `num_shards`."""
    with pytest.raises(RuntimeError, match="requested number of shards"):
        read(root=photos, num_shards=81, **OPTIONS).run()


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut"])
def test_a_failure_names_the_reader_or_decoder(tmp_path: Path, content: bytes) -> None:
    """loaders.errors, which then looks for the damaged file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"fn\.(decoders|readers)\."):
        read(root=str(tmp_path), **{**OPTIONS, "batch_size": 1}).run()


def test_an_unknown_argument_is_an_assertion(photos: str) -> None:
    """Loader, which names the arguments that its pipeline was given."""
    with pytest.raises(AssertionError):
        read(root=photos, colour="red", **OPTIONS)


# Random streams, by which the same seed gives the same boxes whether they are computed or looked up

SEED = 2**40 + 7


def test_choice_takes_one_word_by_the_cumulative_weights_of_uniform() -> None:
    """``Draw.weight_drawn``: `fn.random.choice` with `p` is the inverse of float64 `uniform`."""
    weights = [0.125, 0.25, 0.5, 0.125]

    def graph() -> Any:
        drawn = fn.random.uniform(range=[0.0, 1.0], dtype=types.FLOAT64, seed=SEED)
        return fn.random.choice(4, p=weights, seed=SEED), drawn

    chosen, drawn = outputs(graph, batch_size=1000)
    assert np.array_equal(chosen, np.searchsorted(np.cumsum(weights), drawn, side="right"))


@pytest.mark.parametrize("count", [32, 224, 640])
def test_choice_of_equals_is_the_word_times_their_number(count: int) -> None:
    """``Draw.words``: choices of all numbers of entries come from one word."""
    most = 2**31 - 1

    def graph() -> Any:
        return fn.random.choice(count, seed=SEED), fn.random.choice(most, seed=SEED)

    chosen, word = outputs(graph, batch_size=1000)
    assert np.array_equal(chosen, np.floor(word / (most + 1) * count))


def test_choice_of_two_takes_a_word_each_and_a_float64_two() -> None:
    """``Draw.words_of_entries``: the centre of a box in a square image."""

    def graph() -> Any:
        rows = types.Constant(np.arange(224, dtype=np.int32)[:, None])
        return (
            fn.random.choice(rows, shape=[2], seed=SEED),
            fn.random.choice(2**31 - 1, seed=SEED),
            fn.random.uniform(range=[0.0, 1.0], dtype=types.FLOAT64, seed=SEED),
        )

    rows, first, second = outputs(graph, batch_size=1000)
    assert np.array_equal(rows[:, 0, 0], np.floor(first / 2**31 * 224))
    assert np.array_equal(rows[:, 1, 0], np.floor(second * 224))


def test_no_warning_comes_with_dali() -> None:
    """Unexpected warnings are errors here: a new DALI's are seen."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outputs(lambda: types.Constant([1]))[0].shape == (4, 1)


def test_a_file_is_read_by_its_path_and_an_image_knows_its_name(photos: str) -> None:
    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def pipe() -> Any:
        encoded, _ = fn.readers.file(file_root=photos)
        name = fn.get_property(encoded, key="source_info")
        root = np.frombuffer(f"{photos}/".encode(), np.uint8)
        return encoded, _dali.read_file(fn.cat(types.Constant(root), name)), name

    encoded, again, names = pipe().run()
    for i in range(4):
        content = bytes(np.array(encoded[i]))
        assert bytes(np.array(again[i])) == content
        assert (Path(photos) / bytes(np.array(names[i])).decode()).read_bytes() == content
