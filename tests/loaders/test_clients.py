"""Programs of other trainers: interrupted they end at the weights of uninterrupted ones."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import graphs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NEEDS = {
    "fabric": "lightning_fabric",
    "accelerate": "accelerate",
    "ignite": "ignite",
    "torch.distributed.checkpoint": "torch",
}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    return graphs.numbered_folder(tmp_path_factory.mktemp("numbered"), 26)


@pytest.fixture(scope="module", params=[1, 2], ids="{} process(es)".format)
def results(
    request: pytest.FixtureRequest, numbered: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """What all of them wrote, and how many processes they were."""
    out, processes = tmp_path_factory.mktemp("results"), request.param
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--standalone", "-m", "tests.support.client_worker", numbered, str(out)]
    names = [name for name, needed in NEEDS.items() if find_spec(needed) is not None]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *names], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out, processes


@pytest.mark.parametrize("name", NEEDS)
def test_a_trainer_goes_on_exactly(results: tuple[Path, int], name: str) -> None:
    if find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    out, processes = results
    for rank in range(processes):
        ends = {part: (out / f"{name} {part} {rank}").read_text() for part in ("whole", "rest")}
        assert ends["rest"] == ends["whole"]
    assert (out / f"{name} first 0").read_text() != (out / f"{name} whole 0").read_text()
