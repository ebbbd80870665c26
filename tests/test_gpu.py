"""What only a GPU can show. The reference tests of test_mixing.py run on GPU images as well."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm
from benchmarks import first_gpu
from dali_cutmix.cli import main as cli
from dali_cutmix.pipelines import imagenet
from tests.support import graphs

pytestmark = pytest.mark.gpu

CONFIGS = [
    dcm.MixConfig(num_classes=37),
    dcm.MixConfig(num_classes=37, mode="batch", partner="derangement"),
    dcm.MixConfig(num_classes=37, prob=0.5, label_smoothing=0.1, correct_lam=False),
    dcm.MixConfig(num_classes=37, targets="pair", cutmix_alpha=0.2),
]

LOADERS = [dcm.train_loader, dcm.val_loader]


@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("cfg", CONFIGS, ids=range(len(CONFIGS)))
def test_the_whole_mix_graph_equals_the_cpu_at_one_seed(
    cfg: dcm.MixConfig, keep_order: bool
) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 37, (45, 64))
    labels = np.arange(37, dtype=np.int32)[:, None]
    outs = {
        device: graphs.run(
            graphs.mix_pipeline(images, labels, cfg, device=device, keep_order=keep_order), 5
        )
        for device in ("cpu", "gpu")
    }
    for cpu, gpu in zip(outs["cpu"], outs["gpu"], strict=True):
        for a, b in zip(cpu[:-1], gpu[:-1], strict=True):
            assert np.array_equal(a, b)
        assert np.abs(cpu[-1] - gpu[-1]).max() < 1e-6


@pytest.mark.parametrize("size", [(40, 40), (45, 64)], ids=str)
@pytest.mark.parametrize("prob", [1.0, 0.5])
def test_boxes_drawn_from_their_law_are_pasted_as_on_the_cpu(
    size: tuple[int, int], prob: float
) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 64, size)
    labels, cfg = np.arange(64, dtype=np.int32)[:, None], dcm.MixConfig(num_classes=64, prob=prob)
    cpu, gpu = (
        graphs.run(
            graphs.mix_pipeline(images, labels, cfg, device=device, known=True, keep_order=False), 5
        )
        for device in ("cpu", "gpu")
    )
    for ours, theirs in zip(cpu, gpu, strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            assert np.array_equal(a, b)
        assert np.abs(ours[-1] - theirs[-1]).max() < 1e-6


@pytest.mark.parametrize("kind", ["profile", "mix", "loader", "train"])
def test_every_benchmark_runs(kind: str, photos: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    argv = ["bench", kind, "--quick", "--device", "gpu", "--out", str(out)]
    argv += [] if kind == "mix" else ["--data", photos]
    argv += ["--only", "dali_cutmix", "torchvision"] if kind in ("loader", "train") else []
    argv += ["--model", "tiny"] if kind == "train" else []
    assert cli.main(argv) == 0
    found = json.loads(out.read_text())
    assert found["complete"]
    assert found["environment"]["gpu"]
    failed = [row for row in found["rows"] if row["note"].startswith("failed")]
    assert not failed, failed
    if kind == "mix":
        times = [row for row in found["rows"] if row["group"] == "GPU time"]
        assert any(row["values"] and row["values"][0] > 0 for row in times)
        memory = {row["name"]: row["values"] for row in found["rows"] if row["unit"] == "MB"}
        assert memory["CutMix, elem"][0] > 0


def test_unmixed_batches_are_the_originals_bit_for_bit() -> None:
    # prob=0: every box is empty.
    images = graphs.distinct_images(np.random.default_rng(1), 64, (31, 50))
    cfg = dcm.MixConfig(num_classes=64, prob=0.0)
    ((out, lam, *_),) = graphs.run(graphs.mix_pipeline(images, np.arange(64), cfg, device="gpu"))
    assert np.array_equal(out, images)
    assert (lam == 1).all()


def test_nvjpeg_decodes_like_the_cpu(photos: str) -> None:
    # The two decoders differ in the inverse DCT and in chroma upsampling.
    files = sorted(str(p) for p in Path(photos).rglob("*.jpg"))

    @pipeline_def(batch_size=16, num_threads=2, device_id=0)
    def pipe() -> Any:
        encoded, _ = fn.readers.file(files=files)
        gpu = fn.decoders.image(encoded, device="mixed")
        cpu = fn.decoders.image(encoded)
        return fn.crop(gpu, crop=(200, 200)), fn.crop(cpu, crop=(200, 200))

    for gpu, cpu in graphs.run(pipe(), 5):
        difference = np.abs(gpu.astype(int) - cpu.astype(int))
        assert difference.mean() < 2
        assert np.percentile(difference, 99) <= 16


@pytest.mark.parametrize("mix", [None, dcm.MixConfig(num_classes=5)], ids=["plain", "mixed"])
def test_the_training_pipeline_agrees_with_the_cpu(photos: str, mix: Any) -> None:
    # The same files, crops, flips, boxes and partners; pixels within the decoders' difference.
    options: dict[str, Any] = {"batch_size": 16, "num_threads": 2, "seed": 1, "size": (64, 96)}
    options["with_params"] = mix is not None
    cpu = graphs.run(imagenet.train(photos, mix, device="cpu", device_id=None, **options), 3)
    gpu = graphs.run(imagenet.train(photos, mix, device="gpu", device_id=0, **options), 3)
    for (cpu_images, *cpu_rest), (gpu_images, *gpu_rest) in zip(cpu, gpu, strict=True):
        for a, b in zip(cpu_rest, gpu_rest, strict=True):
            assert np.abs(a.astype(float) - b).max() < 1e-6
        assert np.abs(cpu_images - gpu_images).mean() < 0.05  # of a standard deviation of 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_loaders_yield_cuda_tensors(photos: str, dtype: Any, layout: Any) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 64, "dtype": dtype, "layout": layout}
    with dcm.train_loader(photos, mix=dcm.MixConfig(), **options) as loader:
        for _ in range(2):
            for images, targets in loader:
                assert images.is_cuda
                assert targets.is_cuda
                assert images.shape == (16, 3, 64, 64)
                assert images.dtype == getattr(torch, dtype)
                if layout == "NHWC":
                    assert images.is_contiguous(memory_format=torch.channels_last)
                assert torch.allclose(targets.sum(1), torch.ones(16).cuda(), atol=1e-6)
    with dcm.val_loader(photos, resize=72, **options) as loader:
        labels = torch.cat([labels for _, labels in loader])
        assert labels.is_cuda
        assert labels.tolist() == sorted(labels.tolist())
        assert len(labels) == 80


def test_pair_targets_arrive_on_the_gpu(photos: str) -> None:
    mix = dcm.MixConfig(targets="pair")
    with dcm.train_loader(photos, batch_size=16, size=64, mix=mix) as loader:
        _, targets = next(iter(loader))
        assert all(t.is_cuda and t.shape == (16,) for t in targets)


def test_cpu_outputs_arrive_as_cpu_tensors(photos: str) -> None:
    # Those that also go to the GPU are in pinned memory, which torch.from_dlpack refuses.
    @pipeline_def
    def pipe(root: str) -> Any:
        encoded, labels = fn.readers.file(file_root=root, pad_last_batch=True)
        images = fn.resize(imagenet.decode(encoded, "gpu"), size=(24, 32))
        cfg = dcm.MixConfig(num_classes=5, mixup_alpha=0.8)
        mixed = dcm.mix(images, labels, cfg, seed=1)
        both = [(node, node.gpu()) for node in (mixed.params.lam, mixed.params.box, labels)]
        half = fn.cast(mixed.params.lam, dtype=types.FLOAT16)
        return mixed.images, *both[0], *both[1], *both[2], half, half.gpu(), mixed.params.partner

    options: dict[str, Any] = {"batch_size": 16, "num_threads": 2, "device_id": 0, "seed": 1}
    with dcm.Loader(pipe, root=photos, **options) as loader:
        epochs = [list(loader) for _ in range(2)]
    assert len(torch.cat([outputs[0] for _, outputs in epochs[0]]).unique()) > 40
    for images, outputs in epochs[0] + epochs[1]:  # all are still what they were
        assert images.is_cuda
        *pairs, partner = outputs
        assert not partner.is_cuda
        assert sorted(partner.tolist()) == list(range(16))
        for on_cpu, on_gpu in zip(pairs[::2], pairs[1::2], strict=True):
            assert on_gpu.is_cuda
            assert not on_cpu.is_cuda
            assert not on_cpu.is_pinned()
            assert torch.equal(on_cpu, on_gpu.cpu())


def test_parameters_arrive_on_the_cpu(photos: str) -> None:
    mix = dcm.MixConfig(mixup_alpha=0.8)
    options: dict[str, Any] = {"batch_size": 16, "size": 64, "mix": mix, "with_params": True}
    with dcm.train_loader(photos, **options) as loader:
        for _, (targets, *params) in loader:
            assert targets.is_cuda
            assert [(p.dtype, p.is_cuda, tuple(p.shape)) for p in params] == [
                (torch.float32, False, (16,)),
                (torch.int32, False, (16, 4)),
                (torch.int64, False, (16,)),
                (torch.int64, False, (16,)),
            ]


def test_resume_on_the_gpu_is_bit_for_bit(photos: str) -> None:
    def make() -> dcm.Loader:
        return dcm.train_loader(photos, batch_size=16, size=64, mix=dcm.MixConfig(), seed=3)

    with make() as loader:
        for _ in itertools.islice(loader, 2):
            pass
        state = loader.state_dict()
        rest = [(images.clone(), targets.clone()) for images, targets in loader.rest()]
    with make() as resumed:
        resumed.load_state_dict(state)
        again = list(resumed)
    assert len(rest) == len(again) == 3
    for (images, targets), (same_images, same_targets) in zip(rest, again, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(targets, same_targets)


def test_the_share_of_the_jpeg_hardware_belongs_to_the_state(photos: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 64}
    for make in LOADERS:
        with make(photos, **options) as loader, make(photos, **options) as same:
            state = loader.state_dict()
            same.load_state_dict(state)
        with make(photos, **options, hw_decoder_load=0.3) as other:
            with pytest.raises(ValueError, match=r"hw_decoder_load: 0.3 here, 0.65 in the state"):
                other.load_state_dict(state)


# In large batches a file that is no image crashed the process: the decoder must not see it.
@pytest.mark.parametrize("make", LOADERS)
@pytest.mark.parametrize("batch_size", [16, 256])
@pytest.mark.parametrize("kind", ["text", "empty", "header cut", "truncated"])
def test_a_damaged_file_is_named(kind: str, batch_size: int, make: Any) -> None:
    named = rf"image\(s\) cannot be read: .*a/(7|{batch_size - 3}).jpg"
    with first_gpu.folder_with_damage(kind, batch_size) as root:
        with pytest.raises(ValueError, match=named):
            make(root, batch_size=batch_size, size=64, device="gpu")


@pytest.mark.parametrize("make", LOADERS)
@pytest.mark.parametrize("batch_size", [16, 256])
@pytest.mark.parametrize("kind", ["half", "noise"])
def test_damage_that_a_decoder_may_pass_is_named_or_decoded(
    kind: str, batch_size: int, make: Any
) -> None:
    images, words = None, ""
    with first_gpu.folder_with_damage(kind, batch_size) as root:
        try:
            with make(root, batch_size=batch_size, size=64, device="gpu") as loader:
                images, _ = next(iter(loader))
        except ValueError as error:
            words = str(error)
    if images is None:
        assert re.search(rf"cannot be read: .*a/(7|{batch_size - 3}).jpg", words)
    else:
        assert images.shape == (batch_size, 3, 64, 64)
        assert images.isfinite().all()
