"""examples/dynamic_mode.py: CutMix by DALI's dynamic mode gives what a pipeline gives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def

import dali_cutmix as dcm
from tests import reference
from tests.support import graphs

ROOT = Path(__file__).parent.parent
SIZE = (33, 40)
ndd = pytest.importorskip("nvidia.dali.experimental.dynamic")


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("dynamic", ROOT / "examples" / "dynamic_mode.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("options", [{}, {"partner": "derangement", "minmax": (0.2, 0.9)}], ids=str)
def test_it_is_what_a_pipeline_gives(example: Any, options: dict[str, Any]) -> None:
    # The same plans in both, 3 batches of 32; and the pixels and rows of the reference.
    images = graphs.distinct_images(np.random.default_rng(0), 32, SIZE)
    labels, cfg = np.arange(32) % 5, dcm.MixConfig(num_classes=5, **options)

    @pipeline_def(batch_size=32, num_threads=1, device_id=None, seed=4)
    def pipe() -> Any:
        mixed = dcm.mix(graphs.feed(images, "HWC"), graphs.feed(labels), cfg, size=SIZE)
        return mixed.images, mixed.targets

    batch = ndd.as_batch(list(images), layout="HWC")
    plans = example.plans(cfg, SIZE, 32, seed=4)
    for (expected, rows), (box, partner) in zip(graphs.run(pipe(), 3), plans, strict=False):
        mixed, targets = example.cutmix(batch, labels, box, partner, 5)
        for k, (j, out) in enumerate(zip(partner, mixed.torch().numpy(), strict=True)):
            assert np.array_equal(out, expected[k])
            assert np.array_equal(
                out, reference.pasted(images[k], images[j], tuple(box[k].tolist()))
            )
        assert np.abs(targets - rows).max() < 1e-6
        assert np.abs(targets.sum(1) - 1).max() < 1e-6


@pytest.mark.slow
def test_the_command(photos: str) -> None:
    done = subprocess.run(
        [sys.executable, "examples/dynamic_mode.py", "--data", photos],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("16 images (160, 160, 3); the target of the first: ")
