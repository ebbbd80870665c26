"""What only a GPU can tell: decoders, damaged files, pinned outputs, fn.multi_paste, MixUp's time.

    python benchmarks/first_gpu.py                       # everything, in some minutes; needs a GPU
    python benchmarks/first_gpu.py "MixUp, times" ...    # some parts; --list names them

    decoders        how far nvJPEG is from libjpeg-turbo, and its hardware from its kernels
    damaged, …      whether a file is named, decoded all the same, or ends the process; "unguarded"
                    is DALI's decoder without what the pipelines put before it
    pinned outputs  a CPU output that also goes to the GPU: what torch makes of it, and our loader
    multi_paste, …  whether fn.multi_paste pastes as on the CPU. DALI 2.4.0 does not for an empty
                    box and for inputs of different width, which the pipelines avoid
    MixUp, …        forms of it: values that are not those of NumPy, and the time of each

Each part has a process of its own: what reads outside of its memory ends a CUDA context. A part
that fails stops no other. The result is JSON, benchmarks/results/GPU/first.json, or, where parts
are named, only in `--out FILE`. Exit status 1 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

import dali_cutmix as dcm
from dali_cutmix._rules import dali_reason
from dali_cutmix.cli import demo
from dali_cutmix.cli.bench.mixing import Work, _cost_of_calls
from dali_cutmix.cli.bench.results import Row, environment, in_turn
from dali_cutmix.data.atomic import atomic_write
from dali_cutmix.mixing.followers.images import Images, mix_images
from dali_cutmix.mixing.plan import Rows, Size, plan_of
from dali_cutmix.pipelines import imagenet

RESULTS = Path(__file__).parent / "results"
PATIENCE = 180  # seconds for a part
THREADS = min(16, len(os.sched_getaffinity(0)))
Found = dict[str, Any]


def outputs(pipeline: Pipeline) -> list[list[np.ndarray[Any, Any]]]:
    """Returns the outputs of the first iteration, an array per sample."""
    return [[np.array(sample) for sample in output.as_cpu()] for output in pipeline.run()]


def fed(batch: Sequence[Any], layout: str | None = None) -> DataNode:
    samples = [np.array(sample) for sample in batch]
    return fn.external_source(source=lambda: samples, batch=True, layout=layout)


def difference(ours: Sequence[Any], theirs: Sequence[Any]) -> Found:
    """Returns how far the values of two batches of bytes are apart."""
    pairs = list(zip(ours, theirs, strict=True))
    apart = np.concatenate([np.abs(a.astype(np.int16) - b).ravel() for a, b in pairs])
    return {
        "mean": round(float(apart.mean()), 4),
        "p99": round(float(np.percentile(apart, 99)), 2),
        "max": int(apart.max()),
        "equal images": sum(np.array_equal(a, b) for a, b in pairs),
    }


# Decoders

LOADS = (0.0, 0.35, 0.65, 1.0)


def decoders() -> Found:
    with demo.photo_folder(crops_a_class=16) as root:
        files = sorted(str(file) for file in Path(root).rglob("*.jpg"))

        def decoded(device: str, load: float = 0.0, threads: int = THREADS) -> list[Any]:
            @pipeline_def(batch_size=len(files), num_threads=threads, device_id=0)
            def pipe() -> DataNode:
                return imagenet.decode(fn.readers.file(files=files)[0], device, load)

            return outputs(pipe())[0]

        cpu = decoded("cpu")
        by_load = {load: decoded("gpu", load) for load in LOADS}
        again = decoded("gpu", 0.65, threads=1)
    kernels = by_load[0.0]
    return {
        "images": len(files),
        "from libjpeg-turbo": {load: difference(out, cpu) for load, out in by_load.items()},
        "from load 0": {load: difference(out, kernels) for load, out in by_load.items() if load},
        "load 0.65 again, on one thread": difference(again, by_load[0.65]),
    }


# Damaged files

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"no image" * 99,
    "empty": lambda _: b"",
    "header cut": lambda whole: whole[:100],
    "truncated": lambda whole: whole[:2000],
    "half": lambda whole: whole[: len(whole) // 2],
    "noise": lambda whole: whole[:3000] + np.random.default_rng(0).bytes(4000) + whole[7000:],
}


@contextmanager
def folder_with_damage(kind: str, batch_size: int) -> Iterator[str]:
    """Makes a folder of one batch, in which 7.jpg and the last but two are damaged."""
    with demo.photo_folder(crops_a_class=1) as photos:
        whole = next(Path(photos).rglob("*.jpg")).read_bytes()
    with tempfile.TemporaryDirectory() as root:
        Path(root, "a").mkdir()
        for i in range(batch_size):
            content = DAMAGE[kind](whole) if i in (7, batch_size - 3) else whole
            Path(root, "a", f"{i}.jpg").write_bytes(content)
        yield root


def damaged(kind: str, batch_size: int) -> Found:
    with folder_with_damage(kind, batch_size) as root:
        try:
            with dcm.val_loader(root, batch_size=batch_size, size=64, device="gpu") as loader:
                next(iter(loader))
        except ValueError as error:
            named = [name for name in (7, batch_size - 3) if f"a/{name}.jpg" in str(error)]
            outcome = "named" if named else "an error without the name"
            return {"outcome": outcome, "words": str(error).replace(root, "ROOT")}
    return {"outcome": "decoded all the same"}


def unguarded() -> Found:
    with folder_with_damage("text", 256) as root:

        @pipeline_def(batch_size=256, num_threads=THREADS, device_id=0)
        def pipe() -> DataNode:
            return fn.decoders.image(fn.readers.file(file_root=root)[0], device="mixed")

        try:
            pipe().run()
        except RuntimeError:
            return {"outcome": "an error"}
    return {"outcome": "decoded all the same"}


# Pinned outputs


def pinned_outputs() -> Found:
    @pipeline_def(batch_size=4, num_threads=1, device_id=0)
    def pipe(files: Sequence[str]) -> tuple[DataNode, ...]:
        _, labels = fn.readers.file(files=files, pad_last_batch=True)
        return labels.gpu(), labels

    files = [__file__] * 4  # they are read, and not decoded
    tensor = pipe(files).run()[1].as_tensor()
    found: Found = {"type of device in DLPack": int(tensor.__dlpack_device__()[0])}
    try:
        found["torch.from_dlpack"] = str(torch.from_dlpack(tensor).device)
    except BufferError as error:
        found["torch.from_dlpack"] = f"BufferError: {error}"
    with dcm.Loader(pipe, files=files, batch_size=4) as loader:
        on_gpu, on_cpu = next(iter(loader))
    found["loader"] = {
        "on the CPU": not on_cpu.is_cuda,
        "pinned": on_cpu.is_pinned(),
        "equal": torch.equal(on_gpu.cpu(), on_cpu),
    }
    return found


# fn.multi_paste

PASTES = {  # of the second input: its sides, where the region begins, where it goes, and its sides
    "empty box at (0, 0)": ((16, 16), (0, 0), (0, 0), (0, 0)),
    "empty box at (H, W)": ((16, 16), (16, 16), (16, 16), (0, 0)),
    "inputs of different width": ((3, 4), (0, 0), (2, 3), (3, 4)),
}


def multi_paste(name: str) -> Found:
    sides, source, target, pasted = PASTES[name]
    image = np.arange(16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
    other = 5000 + np.arange(sides[0] * sides[1] * 3, dtype=np.float32).reshape(*sides, 3)
    regions = {
        "in_anchors": constant((0, 0), source),
        "out_anchors": constant((0, 0), target),
        "shapes": constant((16, 16), pasted),
    }

    @pipeline_def(batch_size=1, num_threads=1, device_id=0)
    def pipe() -> tuple[DataNode, ...]:
        on_cpu = fed([image], "HWC"), fed([other], "HWC")
        on_gpu = [node.gpu() for node in on_cpu]
        return tuple(
            fn.multi_paste(*nodes, output_size=[16, 16], **regions) for nodes in (on_cpu, on_gpu)
        )

    (cpu,), (gpu,) = outputs(pipe())
    return {"as on the CPU": np.array_equal(cpu, gpu)}


def constant(*rows: tuple[int, ...]) -> Any:
    return types.Constant(np.array(rows, np.int32))


# MixUp: functions of images on the GPU, and the partners' indices and lam on the CPU

SIZE = 224


def by_project(images: DataNode, partner: DataNode, lam: DataNode) -> DataNode:
    batch = Images(images, [SIZE, SIZE, 3], all_blended=True)
    plan = plan_of(Rows(lam), Size.of([SIZE, SIZE, 3]))
    return mix_images(batch, plan._replace(partner=partner))


def by_arithmetic(images: DataNode, partner: DataNode, lam: DataNode) -> DataNode:
    others = fn.multi_paste(images, in_ids=fn.reshape(partner, shape=[1]))
    lam = lam.gpu()
    return fn.cast(lam * images + (1.0 - lam) * others, dtype=types.UINT8)


def by_filter(images: DataNode, partner: DataNode, lam: DataNode) -> DataNode:
    others = fn.permute_batch(images, indices=partner)
    below = constant((0, 0), (SIZE, 0))
    stacked = fn.multi_paste(images, others, out_anchors=below, output_size=[2 * SIZE, SIZE])
    weights = fn.reshape(fn.stack(lam, 1.0 - lam), shape=[2, 1]).gpu()
    blended = fn.filter(fn.reshape(stacked, shape=[2, -1], layout="HW"), weights, mode="valid")
    return fn.reshape(blended, shape=[SIZE, SIZE, 3], layout="HWC")


def by_six_channels(images: DataNode, partner: DataNode, lam: DataNode) -> DataNode:
    others = fn.permute_batch(images, indices=partner)
    one, none = np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32)
    apart = types.Constant(np.hstack([one, -one]))
    matrix = types.Constant(np.hstack([none, one])) + lam * apart
    return fn.coord_transform(fn.cat(images, others, axis=2), M=matrix, dtype=types.UINT8)


FORMS = {
    "the project's": by_project,
    "arithmetic, six kernels": by_arithmetic,
    "fn.filter": by_filter,
    "a matrix for six channels": by_six_channels,
}
BESIDES = {
    "nothing": lambda images, *_: images,
    "fn.permute_batch": lambda images, partner, _: fn.permute_batch(images, indices=partner),
    "paste of CutMix": lambda images, partner, _: fn.multi_paste(
        images,
        in_ids=fn.stack(partner, partner),
        in_anchors=constant((0, 0), (50, 60)),
        out_anchors=constant((0, 0), (50, 60)),
        shapes=constant((SIZE, SIZE), (120, 100)),
    ),
}


def drawn(batch_size: int) -> tuple[Any, Any, Any]:
    """Returns images, partners and lam; 0, 1 and 0.5 among these."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, SIZE, SIZE, 3), dtype=np.uint8)
    lam = rng.random(batch_size, dtype=np.float32)
    lam[:3] = 0, 1, 0.5
    return images, rng.permutation(batch_size).astype(np.int32), lam


def mixup_bytes(batch_size: int = 64) -> Found:
    images, partner, lam = drawn(batch_size)
    weight = lam.astype(np.float64)[:, None, None, None]
    exact = weight * images + (1 - weight) * images[partner]
    found: Found = {"values": exact.size}
    for name, form in FORMS.items():

        @pipeline_def(batch_size=batch_size, num_threads=THREADS, device_id=0)
        def pipe(form: Callable[..., DataNode]) -> DataNode:
            return form(fed(images, "HWC").gpu(), fed(partner), fed(lam))

        blended = np.stack(outputs(pipe(form))[0])
        wrong = blended != np.rint(exact)
        found[name] = {
            "wrong": int(wrong.sum()),
            "at lam 0, 1, 0.5": [int(part.sum()) for part in wrong[:3]],
            "furthest from a half": round(float(np.abs(exact % 1 - 0.5)[wrong].max(initial=0)), 7),
            "furthest from right": int(np.abs(blended - np.rint(exact)).max()),
        }
    return found


def mixup_times(batch_size: int = 256, rounds: int = 5, batches: int = 20) -> Found:
    """Returns medians in ms per batch, measured in turn: by the clock, and of the GPU alone."""
    images, partner, lam = drawn(batch_size)
    on_gpu = [torch.from_numpy(image).cuda() for image in images]
    work = Work(batch_size, SIZE, 0, THREADS, "gpu")
    forms = BESIDES | FORMS
    rows = [Row("wall", name, "ms") for name in forms]
    gpu = {name: Row("GPU", name, "ms") for name in forms}

    @pipeline_def(batch_size=batch_size, num_threads=THREADS, device_id=0)
    def pipe(form: Callable[..., DataNode]) -> DataNode:
        pixels = fn.external_source(
            source=lambda: on_gpu, batch=True, layout="HWC", no_copy=True, device="gpu"
        )
        return form(pixels, fed(partner), fed(lam))

    def measure(row: Row) -> float:
        cost = _cost_of_calls(pipe(forms[row.name]).run, batches, work)
        gpu[row.name].values.append(cost.gpu or 0.0)
        return cost.wall

    in_turn(rows, rounds, measure)
    return {
        row.name: {"wall ms": row.median, "GPU ms": gpu[row.name].median, "note": row.note}
        for row in rows
    }


# Running

PARTS: dict[str, Callable[[], Found]] = {
    "decoders": decoders,
    **{
        f"damaged, {kind}, batch of {batch_size}": partial(damaged, kind, batch_size)
        for kind in DAMAGE
        for batch_size in (16, 256)
    },
    "damaged, text, batch of 256, unguarded": unguarded,
    "pinned outputs": pinned_outputs,
    **{f"multi_paste, {name}": partial(multi_paste, name) for name in PASTES},
    "MixUp, bytes": mixup_bytes,
    "MixUp, times": mixup_times,
}
ALONE = "MixUp, times"  # nothing else runs beside it


def run_here(name: str) -> Found:
    """Returns what a part has found, or why it failed."""
    try:
        return {"failed": "", "found": PARTS[name]()}
    except Exception as error:
        words = dali_reason(str(error) or "without words")
        return {"failed": f"{type(error).__name__}: {words}", "found": None}


def run_apart(name: str, script: str = __file__) -> Found:
    """Returns what `run_here` does in a process of its own, which may die or hang."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, script, "--here", name, "--out", file.name]
        start = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"failed": f"no answer within {PATIENCE} s", "found": None}
        seconds = round(time.perf_counter() - start, 1)
        if done.returncode == 0:
            return {**json.loads(Path(file.name).read_text()), "seconds": seconds}
    how = f"with status {done.returncode}"
    if done.returncode < 0:
        how = f"by {signal.Signals(-done.returncode).name}"
    last = [line[-300:] for line in done.stderr.strip().splitlines()[-1:]]
    failed = ": ".join([f"its process has ended {how}", *last])
    return {"failed": failed, "found": None, "seconds": seconds}


def run_all(names: Iterable[str]) -> Iterator[tuple[str, Found]]:
    """Yields names and results, in the order of the names; what is timed runs last."""
    beside = [name for name in names if name != ALONE]
    with ThreadPoolExecutor(min(4, THREADS)) as pool:
        yield from zip(beside, pool.map(run_apart, beside), strict=True)
    if ALONE in names:
        yield ALONE, run_apart(ALONE)


def lines(value: Any, indent: int = 4) -> Iterator[str]:
    """Yields what was found, a line each fact."""
    for name, inner in value.items():
        if isinstance(inner, dict) and any(isinstance(part, dict) for part in inner.values()):
            yield f"{' ' * indent}{name}"
            yield from lines(inner, indent + 4)
        elif isinstance(inner, dict):
            facts = ", ".join(f"{key} {fact}" for key, fact in inner.items() if fact != "")
            yield f"{' ' * indent}{name}: {facts}"
        else:
            yield f"{' ' * indent}{name}: {inner}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", metavar="PART", nargs="*", help="default: all")
    parser.add_argument("--list", action="store_true", help="name the parts and end")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the result as JSON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(PARTS))
        return 0
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"`PART` must be one that --list names, got {name!r}.")
    if not torch.cuda.is_available():
        print("needs a CUDA GPU: torch finds none on this machine", file=sys.stderr)
        return 1
    if args.here:
        args.out.write_text(json.dumps(run_here(args.parts[0])))
        return 0
    return report(args.parts, args.out)


def report(names: Sequence[str], out: Path | None) -> int:
    """Runs parts, all if none is named; prints what each finds at once, and writes it."""
    result: Found = {"environment": environment(), "parts": {}}
    if out is None and not names:
        words = result["environment"]["gpu"].lower().removeprefix("nvidia ").split()
        out = RESULTS / "-".join(words) / "first.json"
    for name, found in run_all(names or list(PARTS)):
        result["parts"][name] = found
        print(name if not found["failed"] else f"{name}: failed, {found['failed']}", flush=True)
        for line in lines(found["found"] or {}):
            print(line, flush=True)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(str(out), (json.dumps(result, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
