"""Loaders under SIGKILL, interrupts, long runs, load, and every way for a process to end.

The functions are those of benchmarks/reliability.py, here at small sizes.
"""

from __future__ import annotations

import enum
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reliability

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reliability.make_data(str(tmp_path_factory.mktemp("reliability")))


# Kill


def test_a_killed_run_resumes_bit_for_bit(root: str) -> None:
    # Random moments of 60 batches, one in each of 3 streams: 3 epochs, or 6 of a shard of 2.
    result = reliability.kill(root, runs=3, count=60, every=7, jobs=2, seed=1)
    assert result["ok"], result
    assert len({run["resumed_at"] for run in result["runs"]}) > 1


def test_a_stream_that_differs_is_seen(root: str) -> None:
    expected = reliability.alone(root, reliability.KINDS["folder"], 20)
    assert len(set(expected)) == 20
    expected[-1] = "another"
    row = reliability.kill_once(root, "folder", expected, every=7, number=3, seed=1)
    assert row["before_alike"]
    assert not row["rest_alike"]


def test_the_state_in_the_file_is_always_whole(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    with reliability.make_loader(root, **reliability.KINDS["folder"]) as loader:
        reliability.write_state(loader, str(path))
        before = path.read_text()

        def torn(_: Any, file: Any) -> None:
            file.write('{"version"')
            raise KeyboardInterrupt

        monkeypatch.setattr(reliability.json, "dump", torn)
        with pytest.raises(KeyboardInterrupt):
            reliability.write_state(loader, str(path))
    assert path.read_text() == before


# Interrupts


def test_an_interrupted_batch_is_not_lost(root: str) -> None:
    # 5 alarms in each of two loaders: most of them find the loader waiting for DALI.
    result = reliability.interrupt(root, runs=5, ahead=22, seed=0)
    assert result["ok"], result


# Soak


def test_memory_files_threads_and_labels_stay_as_they_are(root: str) -> None:
    # 600 batches are too few for the limit of 20,000: 5 kB a batch is a tenth of its images.
    gc.collect()  # loaders of other tests, whose threads would go meanwhile
    one, two = reliability.soak_one(root, 600), reliability.soak_two(root, 300)
    for row in (one, two):
        assert row["bytes a batch"] < 5000, row
        assert len(row["files"]) == len(row["threads"]) == 1, row
    assert one["Python objects more"] < 100
    assert one["labels"]["rows off 1, max"] < 1e-5
    # The worst of 8 values at 30 epochs each; below 5 but for one seed in 5000.
    assert one["labels"]["sums of classes and lam off, standard errors, max"] < 5
    assert one["labels"]["trends, standard errors, max"] < 5


def test_loaders_made_and_closed_leave_nothing(root: str) -> None:
    gc.collect()
    row = reliability.churn(root, 30)
    assert len(row["files"]) == len(row["threads"]) == 1, row
    assert row["Python objects more"] < 100, row


def test_flat_is_flat_and_a_leak_is_not() -> None:
    # 1000 samples of an epoch of 20 batches, with noise of 0.2 MB: the limit is 200 bytes a batch.
    rng = np.random.default_rng(0)
    noise = 4e8 + 2e5 * rng.standard_normal(1000)
    samples = np.stack([noise, np.full(1000, 6.0), np.full(1000, 6.0)], 1)
    flat = reliability.flatness(samples, 20, reliability.BYTES_A_BATCH, "batch")
    assert flat["flat"], flat
    leak = samples.copy()
    leak[:, 0] += 384 * 20 * np.arange(1000)  # the targets of each batch
    assert not reliability.flatness(leak, 20, reliability.BYTES_A_BATCH, "batch")["flat"]
    for column in (1, 2):
        one_more = samples.copy()
        one_more[700:, column] += 1
        assert not reliability.flatness(one_more, 20, 1e9, "batch")["flat"]


def test_the_mean_of_lam_is_the_one_that_is_drawn() -> None:
    rng = np.random.default_rng(0)
    n, size = 400_000, 16
    side = (size * np.sqrt(1 - rng.random(n))).astype(int)
    area = np.ones(n)
    for _ in range(2):
        centre = rng.integers(size, size=n)
        start, end = np.maximum(centre - side // 2, 0), np.minimum(centre + side // 2, size)
        area *= (end - start) / size
    drawn = np.concatenate([1 - area, rng.beta(0.8, 0.8, n)])
    assert abs(reliability.standard_errors(drawn, reliability.mean_lam(size))) < 4
    assert abs(reliability.standard_errors(drawn, reliability.mean_lam(size) + 0.01)) > 10


def test_a_trend_is_seen() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    assert abs(reliability.trend(values)) < 4
    assert reliability.trend(values + np.linspace(0, 1, 1000)) > 5


# Load


def test_many_loaders_at_once_yield_what_each_yields_alone(root: str) -> None:
    result = reliability.load(root, count=40, loaders=8, processes=2)
    assert [row["batches"] for row in result["rows"]] == [40] * 10
    assert result["ok"], result


# Shutdown


# Those with signals depend on the moment: they are for `python benchmarks/reliability.py shutdown`.
UNSIGNALLED = [name for name, case in reliability.CASES.items() if not case.sent]


@pytest.fixture(scope="module")
def ends(root: str) -> Iterator[dict[str, Any]]:
    """How each case ends; they run two at a time, beginning with the first that is asked for."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(reliability.end, root, name) for name in UNSIGNALLED}


@pytest.mark.parametrize("name", UNSIGNALLED)
def test_a_process_ends_at_once_and_quietly(ends: dict[str, Any], name: str) -> None:
    row = ends[name].result()
    assert row["ok"], row


def test_noise_is_seen() -> None:
    trace = "Traceback (most recent call last):\n  File …\n"
    assert reliability.quiet("", "")
    assert reliability.quiet(trace + "ValueError: x\n", "ValueError: x")
    assert not reliability.quiet("warning\n", "")
    assert not reliability.quiet(trace + "ValueError: x\nterminate called\n", "ValueError: x")
    assert not reliability.quiet(2 * (trace + "ValueError: x\n"), "ValueError: x")


@pytest.mark.skipif(
    not hasattr(enum.EnumMeta, "__getattr__"), reason="since Python 3.12 it is not Python code"
)
def test_no_signal_can_be_lost_where_tensors_are_handed_over(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There pybind11 drops the KeyboardInterrupt of Ctrl-C: see `_iterator.Batches`.
    with reliability.make_loader(root, **reliability.KINDS["folder"]) as loader:
        asked = []

        def noted(kind: Any, name: str) -> Any:
            asked.append((kind, name))
            raise AttributeError(name)

        monkeypatch.setattr(enum.EnumMeta, "__getattr__", noted)
        next(iter(loader))
    assert asked == []


def test_a_closed_loader_leaves_no_graph_to_the_collector(root: str) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with reliability.make_loader(root, **reliability.KINDS["folder"]) as loader:
                next(iter(loader))
            del loader
        assert gc.collect() < 3 * 250  # of the 700 objects that DALI has for each
    finally:
        gc.enable()
