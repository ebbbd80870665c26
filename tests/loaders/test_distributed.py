"""Several processes: each has its part of the data, and mixes within it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import graphs
from tests.support.forked import Script, finished

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMAGES, BATCH = 69, 8  # every image is a class of its own, so that a label tells the image


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    root, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("out")
    graphs.numbered_folder(root, IMAGES, (24, 24))
    finished(["tests/support/distributed_worker.py", str(root), str(out)], ranks=2)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def images_of(epoch: list[list[Any]]) -> list[int]:
    return [label for batch in epoch for label in batch]


def test_every_rank_has_the_same_number_of_full_batches(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for epoch in rank["plain"] + rank["mixed"]:
            assert [len(batch) for batch in epoch] == [BATCH] * (IMAGES // 2 // BATCH)


def test_shards_are_disjoint_and_complete(ranks: list[dict[str, Any]]) -> None:
    for epoch in range(2):
        seen = Counter(images_of(ranks[0]["plain"][epoch]) + images_of(ranks[1]["plain"][epoch]))
        assert set(seen.values()) == {1}
        assert len(seen) == IMAGES // 2 // BATCH * BATCH * 2
    assert len(ranks[0]["val"]) == len(ranks[1]["val"])
    counted = [label for rank in ranks for label in rank["val"] if label >= 0]
    assert sorted(counted) == list(range(IMAGES))


def test_images_are_mixed_within_the_rank_only(ranks: list[dict[str, Any]]) -> None:
    # The order of the data does not depend on mixing, so each batch has its unmixed twin.
    pairs = 0
    for rank in ranks:
        for plain, mixed in zip(rank["plain"], rank["mixed"], strict=True):
            for labels, batch in zip(plain, mixed, strict=True):
                for row in batch:
                    assert {int(k) for k in row} <= set(labels)
                    assert abs(sum(row.values()) - 1) < 1e-5
                    pairs += len(row) == 2
    assert pairs > 80  # of 128


def test_every_rank_draws_its_own(ranks: list[dict[str, Any]]) -> None:
    shares = [
        [round(max(row.values()), 6) for epoch in rank["mixed"] for batch in epoch for row in batch]
        for rank in ranks
    ]
    # Of 64 pairs; shares are of whole pixels, so that one or two may be equal by chance.
    assert sum(a == b for a, b in zip(*shares, strict=True) if max(a, b) < 1) <= 2
    orders = [images_of(rank["plain"][0]) for rank in ranks]
    assert orders[0] != orders[1]


def test_two_nodes_under_torchrun(tmp_path: Path) -> None:
    # Two agents on one machine: four processes in all, each with a quarter of the data.
    root, out = tmp_path / "images", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    graphs.numbered_folder(root, IMAGES, (24, 24))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    nodes = []
    for node in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        command += ["--nnodes=2", f"--node-rank={node}", f"--master-port={port}"]
        command += ["--master-addr=127.0.0.1", "-m", "tests.support.distributed_worker"]
        nodes.append(subprocess.Popen([*command, str(root), str(out)], cwd=ROOT, env=environment))
    try:
        assert [node.wait(timeout=240) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    found = [json.loads((out / f"{rank}.json").read_text()) for rank in range(4)]
    for epoch in range(2):
        seen = Counter(label for rank in found for label in images_of(rank["plain"][epoch]))
        assert set(seen.values()) == {1}
        assert len(seen) == IMAGES // 4 // BATCH * BATCH * 4
    assert len({len(rank["val"]) for rank in found}) == 1
    counted = [label for rank in found for label in rank["val"] if label >= 0]
    assert sorted(counted) == list(range(IMAGES))


def test_a_collective_in_every_validation_batch(tmp_path: Path) -> None:
    roots = []
    for images in (17, 101):
        (tmp_path / str(images)).mkdir()
        roots.append(graphs.numbered_folder(tmp_path / str(images), images))
    script = Script(["tests/support/validation_worker.py", *roots], ranks=3)
    assert script.wait() == [0, 0, 0], script.errors()
    expected = [f"{images} images in batches of {n}" for images in (17, 101) for n in (4, 16)]
    for rank in range(3):
        assert script.output(rank).splitlines() == expected
