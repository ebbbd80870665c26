"""Programs of other trainers: interrupted they end at the weights of uninterrupted ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import graphs
from tests.support.forked import finished

pytestmark = pytest.mark.slow

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
    names = [name for name, needed in NEEDS.items() if find_spec(needed) is not None]
    finished(["tests/support/client_worker.py", numbered, str(out), *names], ranks=processes)
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
