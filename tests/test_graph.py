"""Small parts of graphs that readers and mixing have in common."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

import dali_cutmix
from dali_cutmix._graph import paste

PACKAGE = Path(dali_cutmix.__file__).parent


# Of RGB rows, 87 end 5 values after 256, 176 end 16 after 512, and 8 and 10 are all too short.
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("width", [8, 10, 11, 32, 86, 87, 96, 176, 182])
def test_images_are_pasted_whatever_the_end_of_their_rows(
    width: int, known: bool, device: str
) -> None:
    rng = np.random.default_rng(width)
    for count in (1, 2, 5):
        images = rng.integers(0, 256, (count, 9, width, 3), np.uint8)
        order = rng.permutation(count).astype(np.int32)
        batch, indices = list(images), [np.array([i]) for i in order]

        @pipeline_def(batch_size=count, num_threads=1, device_id=0 if device == "gpu" else None)
        def pipe(batch: Any = batch, indices: Any = indices) -> Any:
            nodes = fn.external_source(source=lambda: batch, layout="HWC")
            nodes = nodes.gpu() if device == "gpu" else nodes
            ids = fn.external_source(source=lambda: indices)
            shape = [9, width, 3] if known else nodes.shape(dtype=types.INT32)
            return paste(nodes, shape=shape, in_ids=ids)

        (out,) = pipe().run()
        assert np.array_equal(np.array(out.as_cpu().as_array()), images[order])


def test_images_are_pasted_by_paste_alone() -> None:
    """fn.multi_paste itself reads behind its list, of some widths, on a GPU."""
    callers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "multi_paste"
    }
    # Labels and groups are pasted on the CPU.
    assert callers == {"_graph.py", "mixing/followers/labels.py", "mixing/groups.py"}
