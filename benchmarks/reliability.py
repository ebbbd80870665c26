"""What loaders survive: SIGKILL, 20,000 batches, many at once, and every way for a process to end.

    python benchmarks/reliability.py kill      # 50 runs killed at random, each resumed to its end
    python benchmarks/reliability.py interrupt # Ctrl-C while a batch is made; saved, and carried on
    python benchmarks/reliability.py soak      # memory, files, threads and label sums over time
    python benchmarks/reliability.py load      # 8 loaders in a process, then 4 processes at once
    python benchmarks/reliability.py shutdown  # signals, exceptions, exits and forks

Each prints a table, and with `--json FILE` updates its own part of the result there. Exit status 1
where something did not hold. The images are tiny, for what is tested is not the decoding. Runs on
the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix.cli.bench.results import environment

SIZE, BATCH = 16, 16
# Growth that counts as none: half of the smaller tensor of a batch, its targets. (The images have
# 49 kB.) A pipeline with a decoder leaks 2 kB in nvImageCodec 0.9, and what still waits for
# Python's collector comes on top, so of loaders it is 50 kB.
BYTES_A_BATCH, BYTES_A_LOADER = 200, 50_000
A_CLASS = (10, 30, 50, 70, 90, 76)  # images of each class: 20 batches of 16, and 6 to drop
BOTH = {"mixup_alpha": 0.8, "num_classes": len(A_CLASS)}
Row = dict[str, Any]

# The streams: what is mixed, what is read, and, where it is switched, when mixing goes off and on.
KINDS: dict[str, dict[str, Any]] = {
    "folder": {"mix": BOTH},
    "folder, switched": {"mix": BOTH, "switchable": True},
    "folder, pairs, 2 shards": {
        "mix": {**BOTH, "mode": "pair", "partner": "flip", "targets": "pair"},
        "shard_id": 1,
        "num_shards": 2,
    },
    "folder, recipe rsb-a2": {"recipe": "rsb-a2", "repeats": 1},
    "webdataset, switched": {"data": "data.tar", "mix": BOTH, "switchable": True},
}


def make_data(root: str) -> str:
    """Makes an ImageFolder of tiny random images in `root`, and the same as a tar."""
    rng = np.random.default_rng(0)
    with tarfile.open(os.path.join(root, "data.tar"), "w") as tar:
        for label, count in enumerate(A_CLASS):
            folder = Path(root, "images", f"{label}")
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (24, 28, 3), dtype=np.uint8)
                path = folder / f"{i:03d}.jpg"
                Image.fromarray(pixels).save(path)
                for end, data in (("jpg", path.read_bytes()), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{label}{i:03d}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return root


def make_loader(root: str, data: str = "images", **options: Any) -> dcm.Loader:
    if isinstance(options.get("mix"), dict):
        options["mix"] = dcm.MixConfig(**options["mix"])
    options = {"num_threads": 1, "num_classes": len(A_CLASS), **options}
    path = os.path.join(root, data)
    return dcm.train_loader(path, batch_size=BATCH, size=SIZE, device="cpu", **options)


def batches(loader: dcm.Loader, start: int = 0, switched: bool = False) -> Iterator[Any]:
    """Yields the batches from number `start` on, without end, switching mixing by their number."""
    for number in itertools.count(start):
        if switched and number % 16 in (5, 12):
            loader.mixing = number % 16 == 12
        yield next(loader.rest())  # at the end of an epoch it is the next one


def digest(batch: Any) -> str:
    images, targets = batch
    parts = [images, *(targets if isinstance(targets, (tuple, list)) else [targets])]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def alone(root: str, options: dict[str, Any], count: int) -> list[str]:
    """Returns the digests of the first batches of a loader that nothing disturbs."""
    with make_loader(root, **options) as loader:
        stream = batches(loader, switched=options.get("switchable", False))
        return [digest(batch) for batch in itertools.islice(stream, count)]


# --- kill


def write_state(loader: dcm.Loader, path: str) -> None:
    """Writes the state so that at any moment the file is whole, the last one or this one."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(loader.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def worker(root: str, options: dict[str, Any], count: int, state: str, every: int) -> None:
    """Prints number and digest of each batch up to `count`; resumes from the file `state`."""
    loader = make_loader(root, **options)
    start = 0
    if state and os.path.exists(state):
        with open(state, encoding="utf-8") as file:
            saved = json.load(file)
        loader.load_state_dict(saved)
        start = saved["epoch"] * len(loader) + saved["position"]
    stream = batches(loader, start, options.get("switchable", False))
    for number in range(start, count):
        print(number, digest(next(stream)), time.monotonic(), flush=True)
        if state and (number + 1) % every == 0:
            write_state(loader, state)


def start_worker(
    root: str, options: dict[str, Any], count: int, state: str = "", every: int = 0
) -> subprocess.Popen[str]:
    job = json.dumps([root, options, count, state, every])
    return subprocess.Popen(
        [sys.executable, __file__, "worker", job], stdout=subprocess.PIPE, text=True
    )


def lines(text: str) -> list[tuple[int, str]]:
    """Returns number and digest of the whole lines a worker has printed."""
    whole = text[: text.rfind("\n") + 1]
    return [(int(line.split()[0]), line.split()[1]) for line in whole.splitlines()]


def kill_once(root: str, kind: str, expected: list[str], every: int, number: int, seed: int) -> Row:
    """Kills a run once it has delivered a random number of batches, and resumes it.

    The signal comes up to 10 ms after the batch: on one core that is about one batch and one
    write of the state. Where the random number is 0, it comes while the process starts.
    """
    rng = random.Random(f"{seed} {number}")
    after, count = rng.randrange(len(expected)), len(expected)
    with tempfile.TemporaryDirectory() as folder:
        state = os.path.join(folder, "state.json")
        job = (root, KINDS[kind], count, state, every)
        with start_worker(*job) as run:
            assert run.stdout is not None
            first = "".join(run.stdout.readline() for _ in range(after))
            time.sleep(rng.uniform(0, 0.01 if after else 2))
            run.kill()
            got = lines(first + run.stdout.read())
        in_write = os.path.exists(state + ".new")
        with start_worker(*job) as run:
            rest = lines(run.communicate()[0])
    begin = rest[0][0] if rest else count
    return {
        "kind": kind,
        "delivered": len(got),
        "resumed_at": begin,
        "while_writing": in_write,
        "killed": len(got) < count,
        "before_alike": got == list(enumerate(expected))[: len(got)],
        "rest_alike": run.returncode == 0 and rest == list(enumerate(expected))[begin:],
        "nothing_lost": len(got) - every <= begin <= len(got) + 1,
    }


def kill(root: str, runs: int, count: int, every: int, jobs: int, seed: int) -> Row:
    kinds = list(itertools.islice(itertools.cycle(KINDS), runs))
    expected = {kind: alone(root, KINDS[kind], count) for kind in dict.fromkeys(kinds)}
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(kill_once, root, kind, expected[kind], every, number, seed)
            for number, kind in enumerate(kinds)
        ]
        found = [future.result() for future in futures]
    rows = []
    for kind in expected:
        own = [row for row in found if row["kind"] == kind]
        good = [r for r in own if r["before_alike"] and r["rest_alike"] and r["nothing_lost"]]
        rows.append(
            {
                "stream": kind,
                "kills": sum(row["killed"] for row in own),
                "bit-identical": len(good),
                "while writing": sum(row["while_writing"] for row in own),
                "mid-epoch": sum(row["resumed_at"] % 20 != 0 for row in own),
                "done again, mean": round(
                    float(np.mean([row["delivered"] - row["resumed_at"] for row in own])), 1
                ),
                "different batches": len(set(expected[kind])),
            }
        )
    ok = all(row["bit-identical"] == kinds.count(row["stream"]) for row in rows)
    ok &= all(row["different batches"] == count for row in rows)
    ok &= sum(row["kills"] for row in rows) >= 0.9 * runs  # a run may end before the signal
    return {"batches": count, "state_every": every, "rows": rows, "runs": found, "ok": ok}


# --- interrupt


def interrupt_once(loader: dcm.Loader, seconds: float) -> int:
    """Iterates until an exception comes out of a signal, anywhere; returns the batches delivered.

    As after Ctrl-C, but of a timer. Nothing is done with a batch, so most signals find the loader
    at work.
    """

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    delivered, before = 0, signal.signal(signal.SIGALRM, handler)
    try:
        # Again where the first is ignored: it cannot raise within a destructor.
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
        while True:
            for _ in loader:
                delivered += 1
    except KeyboardInterrupt:
        return delivered
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt(root: str, runs: int, ahead: int, seed: int) -> Row:
    """What follows an interrupted batch, in the same loader and from its state in another one."""
    rng, rows = random.Random(seed), []
    for kind in ("folder", "folder, switched"):
        with make_loader(root, **KINDS[kind]) as loader:  # mixing stays on
            stream = batches(loader)
            expected = [digest(batch) for batch in itertools.islice(stream, 120 + ahead)]
        resumed = went_on = 0
        for _ in range(runs):
            with make_loader(root, **KINDS[kind]) as loader:
                done = interrupt_once(loader, rng.uniform(0.005, 0.06))
                assert done <= 120
                state = json.loads(json.dumps(loader.state_dict()))
                want = expected[done : done + ahead]
                with make_loader(root, **KINDS[kind]) as other:
                    other.load_state_dict(state)
                    resumed += follows(other, want)
                went_on += follows(loader, want)
        rows.append(
            {"stream": kind, "interrupts": runs, "resumed alike": resumed, "went on alike": went_on}
        )
    ok = all(row["resumed alike"] == row["went on alike"] == runs for row in rows)
    return {"rows": rows, "ok": ok}


def follows(loader: dcm.Loader, expected: list[str]) -> bool:
    try:
        return expected == [digest(b) for b in itertools.islice(batches(loader), len(expected))]
    except (AssertionError, RuntimeError):
        return False


# --- soak


def resident() -> int:
    """Returns the bytes of memory that the process has resident, without those of files."""
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident_, shared, *_ = map(int, file.read().split())
    return (resident_ - shared) * os.sysconf("SC_PAGE_SIZE")


def process() -> tuple[int, int, int]:
    """Returns resident bytes, open file descriptors and threads.

    Without the image that the reader has open at the moment.
    """
    files = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            files.append(os.readlink(f"/proc/self/fd/{name}"))
    lasting = sum(not name.endswith(".jpg") for name in files)
    return resident(), lasting, len(os.listdir("/proc/self/task"))


def written(*shape: int) -> np.ndarray:
    """Returns zeros whose memory is resident: np.zeros is given its pages as it is filled."""
    return np.full(shape, 0.0)


def slope(values: Sequence[float], blocks: int = 20) -> tuple[float, float]:
    """Returns the slope of a line through values, a sample, and half of its 95 % interval.

    Neighbouring samples of memory are alike, which would make the interval too narrow: the line
    goes through the means of blocks.
    """
    blocks = min(blocks, len(values))
    means = [float(block.mean()) for block in np.array_split(np.asarray(values, float), blocks)]
    line = stats.linregress(np.arange(len(means)) * len(values) / len(means), means)
    return float(line.slope), float(line.stderr * stats.t.ppf(0.975, len(means) - 2))


def mean_lam(size: int) -> float:
    """Returns the mean of lam of square images: half CutMix with alpha 1, half MixUp, whose is 0.5.

    CutMix's side is k with probability ((k + 1)² - k²) / size², its centre uniform, and the box
    clipped, each axis for itself.
    """
    left = 0.0
    for k in range(size):
        ends = [(max(0, c - k // 2), min(size, c + k // 2)) for c in range(size)]
        length = np.mean([end - start for start, end in ends])
        left += (2 * k + 1) / size**2 * length**2 / size**2
    return (1 - left) / 2 + 0.25


def standard_errors(values: np.ndarray, expected: float) -> float:
    """Returns by how many standard errors the mean of independent values is off."""
    return float((values.mean() - expected) / (values.std(ddof=1) / len(values) ** 0.5))


def trend(values: np.ndarray) -> float:
    """Returns by how many standard errors the slope of independent values differs from 0."""
    line = stats.linregress(np.arange(len(values)), values)
    return float(line.slope / line.stderr)


def flatness(samples: np.ndarray, step: float, limit: float, unit: str) -> Row:
    """Returns whether the last 80 % of the samples (resident bytes, files, threads) are flat.

    Flat: files and threads are all equal, and the resident memory grows by less than `limit`
    bytes a batch, or a loader, at the upper end of the 95 % interval. A sample is `step` of them.
    """
    late = samples[len(samples) // 5 :]
    grows, half = (value / step for value in slope(late[:, 0]))
    return {
        f"bytes a {unit}": round(grows, 2),
        "95 % half": round(half, 2),
        "limit": limit,
        "MB at 20 %": round(late[0, 0] / 1e6, 1),
        "MB at the end": round(late[-1, 0] / 1e6, 1),
        "files": sorted({int(value) for value in late[:, 1]}),
        "threads": sorted({int(value) for value in late[:, 2]}),
        "flat": bool(grows + half < limit and np.ptp(late[:, 1]) == 0 and np.ptp(late[:, 2]) == 0),
    }


def soak_one(root: str, count: int) -> Row:
    """One loader: memory, and the sums of labels, which do not drift.

    The order of an epoch and what is mixed are drawn anew, so the epochs are independent; what
    their sums must be on average is known.
    """
    with make_loader(root, **KINDS["folder"], with_params=True) as loader:
        epoch, classes = len(loader), len(A_CLASS)
        samples, sums = written(count // epoch, 3), written(count // epoch, classes + 2)
        worst = 0.0
        start = time.monotonic()
        for e in range(count // epoch):
            for images, (targets, lam, *_) in loader:
                worst = max(worst, float((targets.double().sum(1) - 1).abs().max()))
                total = targets.double().sum(0).tolist()
                sums[e] += [*total, float(lam.double().mean()) / epoch, float(images.mean())]
            samples[e] = process()
            if e == count // epoch // 5:
                objects = tracked()
        seconds, more = time.monotonic() - start, tracked() - objects
    kept = epoch * BATCH / sum(A_CLASS)
    off = [standard_errors(sums[:, k], n * kept) for k, n in enumerate(A_CLASS)]
    off.append(standard_errors(sums[:, classes], mean_lam(SIZE)))
    trends = [trend(column) for column in sums.T]
    labels = {
        "rows off 1, max": worst,
        "sums of classes and lam off, standard errors, max": round(max(map(abs, off)), 2),
        "trends, standard errors, max": round(max(map(abs, trends)), 2),
        "lam, mean": round(float(sums[:, classes].mean()), 5),
        "lam, expected": round(mean_lam(SIZE), 5),
    }
    flat = flatness(samples, epoch, BYTES_A_BATCH, "batch")
    ok = flat["flat"] and worst < 1e-5 and max(map(abs, off)) < 4 and max(map(abs, trends)) < 4
    return {
        "what": "one loader",
        "count": count // epoch * epoch,
        "seconds": round(seconds, 1),
        "Python objects more": more,
        **flat,
        "labels": labels,
        "ok": bool(ok and more < 100),
    }


def tracked() -> int:
    """Returns the number of objects that Python's collector knows of."""
    gc.collect()
    return len(gc.get_objects())


def soak_two(root: str, count: int) -> Row:
    """Two loaders in turn, batch by batch, states and switches among them."""
    names = ("folder, switched", "webdataset, switched")
    loaders = [make_loader(root, **KINDS[name]) for name in names]
    streams = [batches(loader, switched=True) for loader in loaders]
    samples = written(count // 20, 3)
    start = time.monotonic()
    rows_of_one = True
    for e in range(count // 20):
        for _ in range(10):
            for stream in streams:
                _, targets = next(stream)
                rows_of_one &= bool((targets.sum(1) - 1).abs().max() < 1e-5)
        for loader in loaders:
            json.dumps(loader.state_dict())
        samples[e] = process()
    seconds = time.monotonic() - start
    for loader in loaders:
        loader.close()
    flat = flatness(samples, 20, BYTES_A_BATCH, "batch")
    ok = flat["flat"] and rows_of_one
    what = "two loaders in turn, switched, saved"
    return {"what": what, "count": count, "seconds": round(seconds, 1), **flat, "ok": ok}


def churn(root: str, count: int) -> Row:
    """Loaders made, read and closed, or in every fourth case only forgotten."""
    samples = written(count, 3)
    start = time.monotonic()
    for i, options in zip(range(count), itertools.cycle(KINDS.values()), strict=False):
        loader = make_loader(root, **options)
        for _ in itertools.islice(loader, 3):
            pass
        if i % 4:
            loader.close()
        del loader
        samples[i] = process()
        if i == count // 5:
            objects = tracked()
    more = tracked() - objects
    flat = flatness(samples, 1, BYTES_A_LOADER, "loader")
    return {
        "what": "loaders made and closed",
        "count": count,
        "seconds": round(time.monotonic() - start, 1),
        "Python objects more": more,
        **flat,
        "ok": flat["flat"] and more < 100,
    }


def soak(root: str, count: int, loaders: int) -> Row:
    rows = [soak_one(root, count), soak_two(root, count // 4), churn(root, loaders)]
    return {"rows": rows, "ok": all(row["ok"] for row in rows)}


# --- load


def compared(what: str, got: list[str], expected: list[str], times: Sequence[float]) -> Row:
    seconds = max(times[-1] - times[0], 1e-9)
    return {
        "what": what,
        "batches": len(got),
        "bit-identical": got == expected,
        "batches / s": round((len(times) - 1) / seconds),
        "longest wait, s": round(float(np.diff([*times, times[-1]]).max()), 3),
    }


def load_threads(root: str, count: int, loaders: int) -> list[Row]:
    """Loaders of one process, each in a thread of its own, against what each yields alone."""
    kinds = list(itertools.islice(itertools.cycle(KINDS), loaders))
    options = [{**KINDS[kind], "seed": i} for i, kind in enumerate(kinds)]
    expected = [alone(root, own, count) for own in options]
    opened = [make_loader(root, **own) for own in options]

    results = [([], [time.monotonic()]) for _ in options]

    def run(number: int) -> None:
        got, times = results[number]
        stream = batches(opened[number], switched=options[number].get("switchable", False))
        for batch in itertools.islice(stream, count):
            got.append(digest(batch))
            times.append(time.monotonic())

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(loaders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)  # one that hangs has fewer batches than the others
    return [
        compared(f"thread {i}: {kind}", got, want, times)
        for i, (kind, (got, times), want) in enumerate(zip(kinds, results, expected, strict=True))
    ]


def load_processes(root: str, count: int, processes: int) -> list[Row]:
    """Processes at once, each with its shard, against what each shard is alone."""
    options = [
        {**KINDS["folder"], "shard_id": i, "num_shards": processes} for i in range(processes)
    ]
    expected = [alone(root, own, count) for own in options]
    runs = [start_worker(root, own, count) for own in options]
    rows = []
    for i, (run, want) in enumerate(zip(runs, expected, strict=True)):
        parts = [line.split() for line in run.communicate()[0].splitlines()]
        times = [float(part[2]) for part in parts]
        rows.append(compared(f"process {i}: its shard", [part[1] for part in parts], want, times))
    return rows


def load(root: str, count: int, loaders: int, processes: int) -> Row:
    rows = load_threads(root, count, loaders) + load_processes(root, count, processes)
    return {"rows": rows, "ok": all(row["bit-identical"] for row in rows)}


# --- shutdown

BEFORE = """
import os, signal, sys, time
from benchmarks import reliability

def make(kind="folder"):
    return reliability.make_loader(root, **reliability.KINDS[kind])

def loop(*loaders):
    print("ready", flush=True)
    while True:
        for loader in loaders:
            next(loader.rest())

def child(job):
    pid = os.fork()
    if not pid:
        job()
        sys.exit(0)
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    sys.exit("the child hangs")

root = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where it was started with "&"
"""


class Case:
    """A script that ends in some way, and how it must end."""

    def __init__(self, code: str, status: int = 0, last: str = "", sent: int = 0) -> None:
        self.code = code
        self.status = status  # negative: of a signal
        self.last = last  # line of stderr, after at most one traceback; "" for none at all
        self.sent = sent  # signal sent after it has printed "ready"


LOOP = "loop(make())"
CASES = {
    "Ctrl-C": Case(LOOP, -signal.SIGINT, "KeyboardInterrupt", signal.SIGINT),
    "Ctrl-C, mixing switchable": Case(
        "loop(make('folder, switched'))", -signal.SIGINT, "KeyboardInterrupt", signal.SIGINT
    ),
    "Ctrl-C, handled": Case(
        "try:\n    loop(make())\nexcept KeyboardInterrupt:\n    sys.exit(130)",
        130,
        sent=signal.SIGINT,
    ),
    "Ctrl-C in a `with`": Case(
        "with make() as loader:\n    loop(loader)",
        -signal.SIGINT,
        "KeyboardInterrupt",
        signal.SIGINT,
    ),
    "SIGTERM": Case(LOOP, -signal.SIGTERM, sent=signal.SIGTERM),
    "SIGTERM, handled by sys.exit": Case(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n" + LOOP,
        143,
        sent=signal.SIGTERM,
    ),
    "SIGHUP": Case(LOOP, -signal.SIGHUP, sent=signal.SIGHUP),
    "exception in the training loop": Case(
        "for batch in make():\n    raise ValueError('of the loop')", 1, "ValueError: of the loop"
    ),
    "exception in a `with`": Case(
        "with make() as loader:\n    for batch in loader:\n        raise ValueError('of the loop')",
        1,
        "ValueError: of the loop",
    ),
    "sys.exit in the loop": Case("for batch in make():\n    sys.exit(3)", 3),
    "the end, while batches are prepared": Case("loader = make(); next(iter(loader))"),
    "the end, switchable": Case("loader = make('folder, switched'); next(iter(loader))"),
    "the end, no batch taken": Case("loader = make()"),
    "the end, two loaders and a cycle": Case(
        "loaders = [make(), make('webdataset, switched')]; loaders[0].self = loaders"
    ),
    "del, then threads are gone": Case(
        "before = reliability.process()[1:]\nloader = make(); next(iter(loader)); del loader\n"
        "after = reliability.process()[1:]\nsys.exit(before != after and f'{before} {after}')"
    ),
    "close twice, then next": Case(
        "loader = make(); loader.close(); loader.close(); next(iter(loader))",
        1,
        "RuntimeError: the loader is closed",
    ),
    "workers of a torch DataLoader": Case(
        "import torch\nloader = make()\n"
        "other = torch.utils.data.DataLoader(range(64), batch_size=8, num_workers=2)\n"
        "sys.exit(sum(1 for _ in zip(loader, other)) - 8)"
    ),
    "multiprocessing after the loader": Case(
        "import multiprocessing\nloader = make(); next(iter(loader))\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    sys.exit(sum(pool.map(abs, range(3))) - 3)"
    ),
    "fork, a loader of its own": Case("loader = make(); child(lambda: next(iter(make())))"),
    "fork, the child ends": Case("loader = make(); child(lambda: None); next(iter(loader))"),
    "fork, the child closes": Case("loader = make(); child(loader.close); next(iter(loader))"),
}


def end(root: str, name: str, seed: int = 0, limit: float = 60) -> Row:
    """Runs a case in a session of its own, and says whether it ended as it must."""
    case = CASES[name]
    folder = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", BEFORE + case.code, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        if case.sent:
            run.stdout.readline()
            time.sleep(random.Random(f"{seed} {name}").uniform(0.1, 0.3))
            run.send_signal(case.sent)
        start = time.monotonic()
        try:
            said = run.communicate(timeout=limit)[1]
            seconds = time.monotonic() - start
        except subprocess.TimeoutExpired:
            seconds = limit
            os.killpg(run.pid, signal.SIGKILL)
            said = "hangs\n" + run.communicate()[1]
        left = group_lives(run.pid)
    return {
        "case": name,
        "status": run.returncode,
        "lines of stderr": len(said.splitlines()),
        "last line": (said.splitlines() or [""])[-1],
        "seconds": round(seconds, 2) if case.sent else None,
        "left": left,
        "ok": run.returncode == case.status and quiet(said, case.last) and not left,
    }


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def quiet(said: str, last: str) -> bool:
    """Returns whether stderr is empty, or is one traceback that ends in the line `last`."""
    if not last:
        return said == ""
    found = said.splitlines()
    heads = [line for line in found if line and not line.startswith(" ")]
    return heads == ["Traceback (most recent call last):", last]


def shutdown(root: str, jobs: int) -> Row:
    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(lambda name: end(root, name), CASES))
    return {"rows": rows, "ok": all(row["ok"] for row in rows)}


# --- the command


def show(title: str, result: Row) -> None:
    console, columns = Console(width=150), {}
    for row in result["rows"]:
        columns |= {name: None for name, value in row.items() if not isinstance(value, dict)}
    table = Table(title=title)
    for name in columns:
        table.add_column(name)
    for row in result["rows"]:
        table.add_row(*(str(row.get(name, "")).strip() for name in columns))
    console.print(table)
    for row in result["rows"]:
        for name, value in row.get("labels", {}).items():
            console.print(f"{row['what']}, {name}: {value}")
    console.print("held" if result["ok"] else "DID NOT HOLD")


def update(path: str, part: str, options: dict[str, int], result: Row) -> None:
    """Writes the result into its part of the file, with what it was measured on, and how."""
    found: Row = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    given = " ".join(f"--{name} {value}" for name, value in options.items())
    command = f"python benchmarks/reliability.py {part} {given}"
    found[part] = {"command": command, "environment": environment(), **result}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=2)
        file.write("\n")


def main() -> None:
    if sys.argv[1:2] == ["worker"]:  # what `kill` and `load` start
        worker(*json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    options: dict[str, dict[str, int]] = {
        "kill": {"runs": 50, "count": 120, "every": 7, "jobs": 2, "seed": 0},
        "interrupt": {"runs": 50, "ahead": 45, "seed": 0},
        "soak": {"count": 20_000, "loaders": 200},
        "load": {"count": 400, "loaders": 8, "processes": 4},
        "shutdown": {"jobs": 2},
    }
    for part, defaults in options.items():
        sub = parts.add_parser(part, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for name, value in defaults.items():
            sub.add_argument(f"--{name}", type=int, default=value, help=" ")
        sub.add_argument("--json", metavar="FILE")
    args = vars(parser.parse_args())
    part, path = args.pop("part"), args.pop("json")
    functions: dict[str, Callable[..., Row]] = {
        "kill": kill,
        "interrupt": interrupt,
        "soak": soak,
        "load": load,
        "shutdown": shutdown,
    }
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        result = functions[part](make_data(root), **args)
    show(part, result)
    if path:
        update(path, part, args, result)
    sys.exit(not result["ok"])


if __name__ == "__main__":
    main()
