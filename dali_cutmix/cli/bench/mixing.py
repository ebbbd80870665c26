"""What mixing alone costs, on batches that are already there, in the graph and in torch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali import backend, fn, pipeline_def
from nvidia.dali.data_node import DataNode

from dali_cutmix.cli.bench import formulas
from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.cli.bench.results import Result, Row, in_turn
from dali_cutmix.mixing.api import Batch, draw_plans, mix, mix_batch
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers.boxes import mix_boxes
from dali_cutmix.mixing.followers.labels import mix_labels
from dali_cutmix.mixing.followers.masks import mix_masks
from dali_cutmix.mixing.methods import Cutout, FMix, GridMix, Mosaic, ResizeMix, SmoothMix
from dali_cutmix.mixing.pairing import pair
from dali_cutmix.mixing.plan import MixParams, Size

__all__ = ["Work", "row_names", "run"]

CONFIGS: dict[str, dict[str, Any]] = {
    "CutMix, elem": {},
    "CutMix, batch": {"mode": "batch"},
    "CutMix, pair": {"mode": "pair", "partner": "flip"},
    "MixUp, elem": {"cutmix_alpha": 0.0, "mixup_alpha": 0.8},
    "MixUp, batch": {"cutmix_alpha": 0.0, "mixup_alpha": 0.8, "mode": "batch"},
    "both, elem": {"mixup_alpha": 0.8},
    "both, batch": {"mixup_alpha": 0.8, "mode": "batch"},
    "ResizeMix, elem": {"methods": (ResizeMix(),)},
    "GridMix, elem": {"methods": (GridMix(),)},
    "FMix, elem": {"methods": (FMix(),)},
    "SmoothMix, elem": {"methods": (SmoothMix(),)},
    "Cutout, elem": {"methods": (Cutout(length=112),)},
    "Mosaic, elem": {"methods": (Mosaic(),)},
}
BY_MIX: dict[str, Callable[[tuple[int, int]], dict[str, Any]]] = {
    "CutMix, elem, by mix(size=), keep_order=False": lambda size: {
        "size": size,
        "keep_order": False,
    },
    "CutMix, elem, by mix(size=)": lambda size: {"size": size},
    "CutMix, elem, by mix()": lambda _: {},
}
PARTS = ("draws and boxes", "soft labels")
MASKS, BOXES = "masks, uint8, besides the images", "boxes and classes, besides the images"


class Work(NamedTuple):
    """The batch that is mixed."""

    batch_size: int
    size: int
    num_classes: int
    threads: int
    device: str


class Cost(NamedTuple):
    """Of a batch, in ms: by the clock, of all threads, and of the GPU, where there is one.

    Fields:
        memory: of the GPU, in MB, for a graph.
    """

    wall: float
    cpu: float
    gpu: float | None
    memory: float | None = None


def row_names() -> list[str]:
    """Returns who is measured, the installed and the absent."""
    return [*PARTS, *CONFIGS, *BY_MIX, MASKS, BOXES, *(peer.name for peer in TORCH_PEERS)]


def run(
    work: Work, *, rounds: int, batches: int, result: Result, advance: Callable[[], None]
) -> None:
    """Measures the cost of mixing into `result`, a group each of the fields of `Cost`.

    In the graph it is the difference to the same graph without mixing, measured next to each
    other; the graph is that of the loaders, but for some rows. The first two rows are parts of the
    next, likewise. Of masks and boxes it is what they take besides images that are mixed anyway. In
    torch it is the call.

    Args:
        batches: of each measurement.
    """
    torch.set_num_threads(work.threads)
    walls = [Row("time", name, "ms") for name in row_names()]
    cpus = {row.name: Row("CPU time", row.name, "ms") for row in walls}
    gpus = {row.name: Row("GPU time", row.name, "ms") for row in walls}
    peers = {peer.name: peer for peer in TORCH_PEERS}
    memory = {row.name: Row("GPU memory", row.name, "MB") for row in walls if row.name not in peers}
    on_gpu = [*gpus.values(), *memory.values()] if work.device == "gpu" else []
    result.rows += [*walls, *cpus.values(), *on_gpu]
    for row in walls:
        needs = peers[row.name].needs if row.name in peers else ()
        if absent := [name for name in needs if find_spec(name) is None]:
            row.note = f"absent: needs {', '.join(absent)}"

    def measure(row: Row) -> float:
        if row.name in peers:
            cost = _cost_of_calls(peers[row.name].make(work), batches, work)
        else:
            cost = _cost_in_a_graph(row.name, work, batches)
        cpus[row.name].values.append(cost.cpu)
        if cost.gpu is not None:
            gpus[row.name].values.append(cost.gpu)
        if cost.memory is not None:
            memory[row.name].values.append(cost.memory)
        return cost.wall

    try:
        in_turn(walls, rounds, measure, advance)
    finally:
        for row in walls:
            cpus[row.name].note = gpus[row.name].note = row.note
        for name, row in memory.items():
            row.note = gpus[name].note


def _cost_in_a_graph(name: str, work: Work, batches: int) -> Cost:
    graph = _part if name in PARTS else _following if name in (MASKS, BOXES) else _mixing
    costs, memory = [], []
    for measured in (True, False):
        free = _free_gpu_memory(work)
        pipeline = graph(
            work,
            name,
            measured,
            batch_size=work.batch_size,
            num_threads=work.threads,
            device_id=0 if work.device == "gpu" else None,
            seed=1,
        )
        pipeline.build()
        costs.append(_cost_of_calls(pipeline.run, batches, work))
        memory.append(free - _free_gpu_memory(work))
        del pipeline
    with_it, without = costs
    wall, cpu = with_it.wall - without.wall, with_it.cpu - without.cpu
    if with_it.gpu is None or without.gpu is None:
        return Cost(wall, cpu, None)
    return Cost(wall, cpu, with_it.gpu - without.gpu, memory[0] - memory[1])


def _free_gpu_memory(work: Work) -> float:
    """Returns the GPU's free memory in MB, without what DALI and torch keep for later."""
    if work.device != "gpu":
        return 0.0
    gc.collect()  # a pipeline that went before
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    backend.ReleaseUnusedMemory()
    return float(torch.cuda.mem_get_info()[0]) / 1e6


@pipeline_def
def _mixing(work: Work, name: str, measured: bool) -> Any:
    """Images and labels, mixed if measured."""
    images, labels = _fed_images(work, _images(work)), _fed_labels(work)
    if not measured:
        return images, labels
    cfg = MixConfig(num_classes=work.num_classes, **CONFIGS.get(name, {}))
    size = (work.size, work.size)
    if name in BY_MIX:
        mixed = mix(images, labels, cfg, **BY_MIX[name](size))
    else:
        mixed = mix_batch(Batch(images, labels, [*size, -1]), cfg, seed=1, keep_order=False)
    return mixed.images, mixed.targets


@pipeline_def
def _part(work: Work, name: str, measured: bool) -> Any:
    """What a part of CutMix is made from, and the part if measured; there are no images."""
    cfg = MixConfig(num_classes=work.num_classes)
    labels = _fed_labels(work)
    if name == "draws and boxes":
        if not measured:
            return labels
        size = Size.of([work.size, work.size, -1])
        params = draw_plans(cfg, size, seed=1, keep_order=False)
        assert params.regions is not None
        return labels, params.weights, params.partner, params.original, *params.regions[:2]
    pairs = pair(cfg.partner, work.batch_size, 1, keep_order=False)
    lam = fn.random.uniform(range=[0.0, 1.0], shape=[1], seed=2)
    params = MixParams(
        lam=lam,
        partner=pairs.partner,
        original=pairs.original,
        weights=fn.transforms.scale(scale=lam, center=[1.0]),
    )
    if not measured:
        return labels, params.original, params.partner, params.weights
    target = mix_labels(labels, params, num_classes=work.num_classes, device=work.device)
    return labels, params.original, params.partner, params.weights, target


@pipeline_def
def _following(work: Work, name: str, measured: bool) -> Any:
    """Images that are mixed, and masks or boxes, which follow if measured."""
    pixels, size = _images(work), (work.size, work.size)
    images = _fed_images(work, pixels)
    mixed = mix(images, None, MixConfig(), size=size, keep_order=False, seed=1)
    if name == MASKS:
        masks = _fed_images(work, np.ascontiguousarray(pixels[..., :1]))
        return mixed.images, mix_masks(masks, mixed.params) if measured else masks
    rng = np.random.default_rng(2)
    corners = [np.sort(rng.random((n, 2, 2)), axis=1) for n in rng.integers(0, 30, len(pixels))]
    rows = [part.reshape(-1, 4).astype(np.float32) for part in corners]
    numbers = [np.arange(len(part), dtype=np.int32) for part in rows]
    boxes, classes = _fed(rows), _fed(numbers)
    followed = mix_boxes(boxes, classes, mixed.params) if measured else (boxes, classes)
    return mixed.images, *followed


def _fed_images(work: Work, images: np.ndarray[Any, Any]) -> DataNode:
    samples = list(images)
    if work.device == "gpu":
        on_gpu = [torch.from_numpy(image).cuda() for image in samples]
        fed: DataNode = fn.external_source(
            source=lambda: on_gpu, batch=True, layout="HWC", no_copy=True, device="gpu"
        )
    else:
        fed = fn.external_source(
            source=lambda: samples, batch=True, layout="HWC", no_copy=True, device="cpu"
        )
    return fed


def _fed_labels(work: Work) -> DataNode:
    return _fed([np.array([label], np.int32) for label in _labels(work)])


def _fed(samples: list[np.ndarray[Any, Any]]) -> DataNode:
    fed: DataNode = fn.external_source(source=lambda: samples, batch=True, no_copy=True)
    return fed


def _images(work: Work) -> np.ndarray[Any, Any]:
    shape = (work.batch_size, work.size, work.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _labels(work: Work) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, work.num_classes, work.batch_size)


class TorchPeer(NamedTuple):
    """Mixing in torch: `make` returns a call that mixes one batch, on the device."""

    name: str
    needs: tuple[str, ...]
    make: Callable[[Work], Callable[[], Any]]


def _torch_batch(work: Work, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    device = "cuda" if work.device == "gpu" else "cpu"
    pixels = torch.from_numpy(_images(work)).permute(0, 3, 1, 2).contiguous().to(device, dtype)
    return pixels, torch.from_numpy(_labels(work)).to(device)


def _timm(dtype: torch.dtype, **options: Any) -> Callable[[Work], Callable[[], Any]]:
    def make(work: Work) -> Callable[[], Any]:
        mixup = _imported("timm.data").Mixup(
            **options, label_smoothing=0.0, num_classes=work.num_classes
        )
        images, labels = _torch_batch(work, dtype)
        return lambda: mixup(images, labels)  # in place: what was mixed is mixed again

    return make


def _torchvision(name: str, dtype: torch.dtype) -> Callable[[Work], Callable[[], Any]]:
    def make(work: Work) -> Callable[[], Any]:
        transform = getattr(_imported("torchvision.transforms.v2"), name)
        mixed = transform(num_classes=work.num_classes)
        images, labels = _torch_batch(work, dtype)
        return lambda: mixed(images, labels)

    return make


def _imported(name: str) -> Any:
    """Returns a module that may import torchvision."""
    if find_spec("torchvision") is not None:
        import_torchvision()
    return import_module(name)


def _formula(mix_one: Callable[[torch.Tensor, torch.Tensor], Any]) -> Any:
    def make(work: Work) -> Callable[[], Any]:
        images, labels = _torch_batch(work, torch.float32)
        return lambda: mix_one(images, labels)

    return make


def _kornia(work: Work) -> Callable[[], Any]:
    mixed = _imported("kornia.augmentation").RandomCutMixV2(data_keys=["input", "class"], p=1.0)
    images, labels = _torch_batch(work, torch.float32)
    return lambda: mixed(images / 255, labels)


TORCH_PEERS = (
    TorchPeer(
        "timm Mixup, CutMix, elem, uint8",
        ("timm",),
        _timm(torch.uint8, mixup_alpha=0.0, cutmix_alpha=1.0, mode="elem"),
    ),
    TorchPeer(
        "timm Mixup, CutMix, batch, uint8",
        ("timm",),
        _timm(torch.uint8, mixup_alpha=0.0, cutmix_alpha=1.0, mode="batch"),
    ),
    TorchPeer(
        "timm Mixup, MixUp, elem, float32",
        ("timm",),
        _timm(torch.float32, mixup_alpha=0.8, cutmix_alpha=0.0, mode="elem"),
    ),
    TorchPeer(
        "timm Mixup, MixUp, batch, float32",
        ("timm",),
        _timm(torch.float32, mixup_alpha=0.8, cutmix_alpha=0.0, mode="batch"),
    ),
    TorchPeer(
        "torchvision v2.CutMix, batch, uint8", ("torchvision",), _torchvision("CutMix", torch.uint8)
    ),
    TorchPeer(
        "torchvision v2.MixUp, batch, float32",
        ("torchvision",),
        _torchvision("MixUp", torch.float32),
    ),
    TorchPeer("kornia RandomCutMixV2, elem, float32", ("kornia",), _kornia),
    TorchPeer("openmixup's resizemix, batch, float32", (), _formula(formulas.resizemix)),
    TorchPeer("GridMixup's formula, batch, float32", (), _formula(formulas.gridmix)),
    TorchPeer("FMix's formula, batch, float32", (), _formula(formulas.fmix)),
    TorchPeer("openmixup's smoothmix, batch, float32", (), _formula(formulas.smoothmix)),
    TorchPeer("Cutout's formula, elem, float32", (), _formula(formulas.cutout)),
)


def _cost_of_calls(call: Callable[[], Any], batches: int, work: Work) -> Cost:
    """Returns the cost of one call, the mean of `batches` of them after three of warm-up."""
    for _ in range(3):
        call()
    with _watched(work) as gpu_ms:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(batches):
            call()
        if work.device == "gpu":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = 1000 / batches
    return Cost(wall * each, cpu * each, gpu_ms[0] / batches if gpu_ms else None)


@contextmanager
def _watched(work: Work) -> Iterator[list[float]]:
    """Yields a list that afterwards holds the ms that the GPU has worked, in all streams."""
    found: list[float] = []
    if work.device != "gpu":
        yield found
        return
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        yield found
    found.append(sum(e.device_time_total for e in profiler.key_averages()) / 1000)
