"""The loaders' benchmark: everyone yields right batches, and no one disturbs the others."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path

import pytest
import torch

from dali_cutmix.cli.bench import loaders, results, training
from dali_cutmix.cli.bench.peers import PEERS, Batches, Job, Peer
from dali_cutmix.cli.bench.results import Result

INSTALLED = [peer.name for peer in PEERS if all(map(find_spec, peer.needs))]
JOB = Job("", batch_size=4, size=32, workers=2, device="cpu", num_classes=7)


def problems(root: str, cache: str) -> dict[str, str]:
    """What is wrong with the batches of each installed peer; run in a process of its own."""
    os.environ["XDG_CACHE_HOME"] = cache
    set_start_method(get_all_start_methods()[0], force=True)  # not that of this process
    job = replace(JOB, root=root, batch_size=16, num_classes=9)
    found = {}
    for peer in PEERS:
        if peer.name in INSTALLED:
            try:
                found[peer.name] = problem(peer, job)
            except Exception as error:
                found[peer.name] = f"{type(error).__name__}: {error}"
    return found


def problem(peer: Peer, job: Job) -> str:
    epochs = {}
    with peer.open(job) as batches:
        for images, targets in itertools.islice(batches, 11):  # an epoch has 5
            assert images.shape == (16, 3, 32, 32)
            assert images.dtype == torch.float32
            assert images.isfinite().all()
            assert -2.2 < images.min() < -1, "not normalised"
            assert 1 < images.max() < 2.7, "not normalised"
            epochs[images.sum().item()] = targets
    assert len(epochs) == 11, "the same batch twice"
    targets = torch.cat(list(epochs.values()))
    if peer.name == "dali_cutmix without mixing":
        assert targets.dtype == torch.int64
        assert sorted(targets.unique().tolist()) == [0, 1, 2, 3, 4]
        return ""
    assert targets.shape == (176, 9)
    assert targets.dtype == torch.float32
    assert targets.min() >= 0
    assert (targets.sum(1) - 1).abs().max() < 1e-5
    assert (targets > 0).sum(1).max() == 2, "not mixed, or of more than two"
    assert (targets > 0).any(0).tolist() == [True] * 5 + [False] * 4
    return ""


@pytest.mark.slow
def test_every_installed_peer_yields_right_batches(photos: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(problems, photos, str(tmp_path)).result()
    assert list(found) == INSTALLED
    assert len(found) >= 3
    if "image extension" in found.get("torchvision.io", ""):  # of a torchvision for CUDA
        del found["torchvision.io"]
    if "libspdl" in found.get("SPDL", ""):  # without FFmpeg
        del found["SPDL"]
    assert not any(found.values()), found


# Peers for the tests of the machinery. Their processes import this module.


def sleeps(job: Job) -> Batches:
    images = torch.zeros(job.batch_size, 3, job.size, job.size)
    while True:
        time.sleep(0.02)
        yield images, torch.zeros(job.batch_size, job.num_classes)


def raises_at_once(job: Job) -> Batches:
    raise ValueError(f"first line\nno {job.size} today")
    yield


def raises_later(job: Job) -> Batches:
    yield from itertools.islice(sleeps(job), 4)
    raise KeyError("gone")


def dies(job: Job) -> Batches:
    yield from itertools.islice(sleeps(job), 4)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(_: Job) -> Batches:
    time.sleep(3600)
    yield


def leaves_a_worker(job: Job) -> Batches:
    worker = subprocess.Popen(["sleep", "3600"])
    yield from sleeps(job)
    worker.wait()


def peer(name: str, batches=sleeps, needs: tuple[str, ...] = ()) -> Peer:
    return Peer(name, "", needs, "threads", batches)


def run(peers: list[Peer], rounds: int = 2, advance=int) -> Result:
    result = Result("loader", {})
    run.result = result
    options = {"rounds": rounds, "seconds": 0.1, "names": None, "advance": advance}
    loaders.run(JOB, peers=peers, result=result, **options)
    return result


def members(field: int, wanted: set[int]) -> list[str]:
    """The processes whose group (field 2) or session (3) is one of these."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if stat[0] != "Z" and int(stat[field]) in wanted:
            found.append(folder.name)
    return found


def wait_until_gone(field: int, wanted: set[int]) -> list[str]:
    """Returns who is there after some seconds."""
    until = time.monotonic() + 10
    while members(field, wanted) and time.monotonic() < until:
        time.sleep(0.05)
    return members(field, wanted)


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The groups of the children; at the end no process is left in one."""
    found: set[int] = set()
    start = loaders._Child.__init__

    def noting(self, entry) -> None:
        start(self, entry)
        found.add(self.process.pid)

    monkeypatch.setattr(loaders._Child, "__init__", noting)
    yield found
    assert not wait_until_gone(2, found)


@pytest.mark.slow
def test_those_that_fail_do_not_stop_the_others() -> None:
    advances = []
    peers = [
        peer("raises at once", raises_at_once),
        peer("leaves a worker", leaves_a_worker),
        peer("absent", needs=("os", "not_installed_anywhere")),
        peer("raises later", raises_later),
        peer("dies", dies),
    ]
    result = run(peers, rounds=3, advance=lambda: advances.append(0))
    assert [row.name for row in result.rows] == [peer.name for peer in peers]
    assert {row.name: row.note for row in result.rows} == {
        "raises at once": "failed: no 32 today",
        "leaves a worker": "",
        "absent": "absent: needs not_installed_anywhere",
        "raises later": "failed: KeyError: 'gone'",
        "dies": "failed: its process has ended, by SIGKILL",
    }
    works = result.rows[1]
    assert (works.group, works.unit, works.options) == ("loader", "images/s", {"threads": 2})
    assert len(works.values) == 3
    assert all(0 < value <= 4 / 0.02 for value in works.values)  # it sleeps that long a batch
    assert not any(row.values for row in result.rows if row is not works)
    assert len(advances) == 15


def test_who_does_not_become_ready_in_time_has_failed(
    monkeypatch: pytest.MonkeyPatch, groups: set[int]
) -> None:
    monkeypatch.setattr(loaders, "_PATIENCE", 0.5)
    (row,) = run([peer("hangs", hangs)]).rows
    assert row.note.startswith("failed: no answer within")
    assert len(groups) == 1


@pytest.mark.slow
def test_an_interrupt_keeps_what_there_is_and_leaves_no_process(groups: set[int]) -> None:
    there = []

    def interrupt() -> None:
        there.extend(members(2, groups))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([peer("a", leaves_a_worker)], advance=interrupt)
    assert len(there) == 2
    assert not members(2, groups)  # at once
    (row,) = run.result.rows
    assert (len(row.values), row.note) == (1, "")


def test_a_killed_benchmark_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        ""
        "from tests.cli import test_bench_loaders as t\n"
        "def main():\n"
        "    peers = (t.peer('a', t.leaves_a_worker), t.peer('b', t.leaves_a_worker))\n"
        "    t.loaders.run(t.JOB, peers=peers, rounds=9**9, seconds=0.1, names=None,\n"
        "        result=t.Result('loader', {}), advance=lambda: print('.', flush=True))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == ".\n"
        session = {process.pid}
        assert len(members(3, session)) >= 5  # it, two children, one of them stopped, two workers
        process.kill()
        process.wait()
        assert not wait_until_gone(3, session)


def test_the_clock_stops_after_whole_turns_and_at_least_two_batches() -> None:
    steps = itertools.count()

    def step() -> int:
        next(steps)
        return 4

    assert results.rate(step, 0.0, turn=3, gpu=False) > 0
    assert next(steps) == 3
    assert results.rate(step, 0.0, gpu=False) > 0
    assert next(steps) == 3 + 1 + 2


def test_training_measures_the_ceiling_and_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(training, "compete", lambda *arguments: asked.append(arguments))
    refused(names=["dali_cutmix without mixing", "dali_cutmix"])
    refused()
    ((group, entries, *_), (_, by_default, *_)) = asked
    assert group == "train"
    ours = [training.CEILING, "dali_cutmix", "dali_cutmix without mixing"]
    assert [entry.name for entry in entries] == ours
    assert [entry.name for entry in by_default] == [*ours, "torchvision", "timm"]
    assert [entry.name for entry in pickle.loads(pickle.dumps(entries))] == ours


def test_training_takes_soft_labels_and_integers() -> None:
    for labels in (torch.full((4, 7), 1 / 7), torch.arange(4)):
        batch = (torch.zeros(4, 3, 32, 32), labels)
        endless = Peer("", "", (), "threads", lambda _, batch=batch: (b for b in [batch] * 2))
        with training._training(endless, JOB, "tiny") as step:
            assert (step(), step()) == (4, 4)


def test_a_step_of_training_changes_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    network = training._network
    monkeypatch.setattr(training, "_network", lambda *a: made.append(network(*a)) or made[0])
    with training._training(None, JOB, "tiny") as step:
        before = [parameter.clone() for parameter in made[0].parameters()]
        assert step() == JOB.batch_size
    changed = [not torch.equal(a, b) for a, b in zip(before, made[0].parameters(), strict=True)]
    assert all(changed)


def refused(job: Job = JOB, names: list[str] | None = None, model: str = "tiny") -> Result:
    result = Result("train", {})
    training.run(job, model=model, rounds=1, seconds=0.1, names=names, result=result, advance=int)
    return result


def test_what_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"`names` must be among 'dali_cutmix', .*got 'no one'"):
        refused(names=["no one"])
    with pytest.raises(ValueError, match="`model` must be"):
        refused(model="huge")
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        refused(replace(JOB, workers=0))
    with pytest.raises(ValueError, match="`device` must be"):
        refused(replace(JOB, device="tpu"))  # type: ignore[arg-type]
    monkeypatch.setattr(training, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"`model` must be .*torchvision nor timm.* got 'resnet50'"
    ):
        refused(model="resnet50")
