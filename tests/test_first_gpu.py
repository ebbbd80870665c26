"""benchmarks/first_gpu.py without a GPU: how it runs its parts, and what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn
from nvidia.dali.data_node import DataNode

from benchmarks import first_gpu
from dali_cutmix.cli.bench.mixing import Cost

# What a part's process does, in place of the script: it is called with --here PART --out FILE.
PROCESSES = {
    "finds": 'open(sys.argv[4], \'w\').write(\'{"failed": "", "found": {"a": 1}}\')',
    "dies": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exits": "sys.exit('no such thing')",
    "hangs": "time.sleep(60)",
}


@pytest.fixture
def script(tmp_path: Path) -> str:
    cases = "\n".join(f"if sys.argv[2] == {name!r}: {code}" for name, code in PROCESSES.items())
    path = tmp_path / "script.py"
    path.write_text(f"import os, signal, sys, time\n{cases}\n")
    return str(path)


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["first_gpu.py", *argv])
    return first_gpu.main()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU by name, and parts that find something, fail and die."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200 NVL")
    monkeypatch.setattr(first_gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(first_gpu, "PARTS", {"one": dict, "two": dict, first_gpu.ALONE: dict})
    answers = {
        "one": {"failed": "", "found": {"loads": {"0.0": {"mean": 1.5, "max": 3}}}, "seconds": 0.1},
        "two": {"failed": "its process has ended by SIGSEGV", "found": None, "seconds": 0.1},
        first_gpu.ALONE: {"failed": "", "found": {"outcome": "named"}, "seconds": 0.1},
    }
    monkeypatch.setattr(first_gpu, "run_apart", lambda name: answers[name])


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch) == 1
    printed = capsys.readouterr()
    assert printed.err == "needs a CUDA GPU: torch finds none on this machine\n"
    assert printed.out == ""


def test_an_unknown_part_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "nothing")
    assert "`PART` must be one that --list names, got 'nothing'." in capsys.readouterr().err
    assert run(monkeypatch, "--list") == 0
    assert capsys.readouterr().out.splitlines() == list(first_gpu.PARTS)


@pytest.mark.usefixtures("gpu")
def test_all_parts_are_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    result = json.loads((tmp_path / "results" / "h200-nvl" / "first.json").read_text())
    assert result["environment"]["gpu"] == "NVIDIA H200 NVL"
    assert list(result["parts"]) == ["one", "two", "MixUp, times"]
    for part in result["parts"].values():
        assert part.keys() == {"failed", "found", "seconds"}
        assert (part["found"] is None) == bool(part["failed"])
    assert capsys.readouterr().out.splitlines() == [
        "one",
        "    loads",
        "        0.0: mean 1.5, max 3",
        "two: failed, its process has ended by SIGSEGV",
        "MixUp, times",
        "    outcome: named",
    ]


@pytest.mark.usefixtures("gpu")
def test_some_parts_are_written_only_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, "two") == 0
    assert not (tmp_path / "results").exists()
    out = tmp_path / "some" / "out.json"
    assert run(monkeypatch, "two", "--out", str(out)) == 0
    assert list(json.loads(out.read_text())["parts"]) == ["two"]


def test_a_part_that_fails_or_dies_stops_no_other(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: first_gpu.run_apart(name, script) for name in ("finds", "dies", "exits")}
    for part in found.values():
        assert part.pop("seconds") >= 0
    assert found == {
        "finds": {"failed": "", "found": {"a": 1}},
        "dies": {"failed": "its process has ended by SIGSEGV", "found": None},
        "exits": {
            "failed": "its process has ended with status 1: no such thing",
            "found": None,
        },
    }
    monkeypatch.setattr(first_gpu, "PATIENCE", 0.3)
    hangs = first_gpu.run_apart("hangs", script)
    assert (hangs["failed"], hangs["found"]) == ("no answer within 0.3 s", None)


def test_a_part_gives_what_it_found_or_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(first_gpu.PARTS, "finds", lambda: {"a": 1})
    monkeypatch.setitem(first_gpu.PARTS, "fails", lambda: 1 / 0)  # type: ignore[dict-item]
    assert first_gpu.run_here("finds") == {"failed": "", "found": {"a": 1}}
    failed = first_gpu.run_here("fails")
    assert failed == {"failed": "ZeroDivisionError: division by zero", "found": None}


# The parts themselves, with the CPU in the GPU's place


@pytest.fixture
def cpu_for_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataNode, "gpu", lambda self: self)
    pipelines = first_gpu.pipeline_def

    def without_device(**options: Any) -> Any:
        return pipelines(**{**options, "device_id": None})

    monkeypatch.setattr(first_gpu, "pipeline_def", without_device)


@pytest.mark.usefixtures("cpu_for_gpu")
@pytest.mark.parametrize("name", first_gpu.PASTES)
def test_pastes_are_those_of_the_cpu(name: str) -> None:
    assert first_gpu.multi_paste(name) == {"as on the CPU": True}


@pytest.mark.usefixtures("cpu_for_gpu")
def test_every_form_of_mixup_blends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_gpu, "SIZE", 32)
    found = first_gpu.mixup_bytes(16)
    assert found.pop("values") == 16 * 32 * 32 * 3
    assert list(found) == list(first_gpu.FORMS)
    for form in found.values():  # rounding of halves apart, in which the devices differ
        assert form["furthest from right"] <= 1
        assert form["furthest from a half"] < 1e-3
        assert form["at lam 0, 1, 0.5"][:2] == [0, 0]


def test_every_form_is_timed_and_what_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    # The graphs are those for a GPU; they are made, and not run.
    calls: list[Any] = []

    def cost(call: Any, batches: int, work: Any) -> Cost:
        assert work.device == "gpu"
        calls.append(call.__self__)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return Cost(wall=float(batches), cpu=0.0, gpu=0.5)

    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(first_gpu, "_cost_of_calls", cost)
    found = first_gpu.mixup_times(batch_size=4, rounds=2, batches=3)
    assert list(found) == [*first_gpu.BESIDES, *first_gpu.FORMS]
    failed = found.pop("fn.permute_batch")
    assert failed == {"wall ms": None, "GPU ms": None, "note": "failed: out of memory"}
    for times in found.values():
        assert times == {"wall ms": 3.0, "GPU ms": 0.5, "note": ""}
    assert len(calls) == 1 + 2 * len(found)


def test_differences_are_those_of_the_values() -> None:
    ours = [np.zeros((2, 3), np.uint8), np.full((4,), 250, np.uint8)]
    theirs = [np.zeros((2, 3), np.uint8), np.array([250, 250, 255, 0], np.uint8)]
    found = first_gpu.difference(ours, theirs)
    assert found == {"mean": 25.5, "p99": 227.95, "max": 250, "equal images": 1}


@pytest.mark.parametrize("kind", first_gpu.DAMAGE)
def test_two_files_of_a_batch_are_damaged(kind: str) -> None:
    with first_gpu.folder_with_damage(kind, 16) as root:
        contents = {path.name: path.read_bytes() for path in Path(root, "a").iterdir()}
    assert len(contents) == 16
    bad = contents["7.jpg"]
    assert {name for name, content in contents.items() if content == bad} == {"7.jpg", "13.jpg"}
    assert len(set(contents.values())) == 2


@pytest.mark.parametrize("name", [*first_gpu.FORMS, *first_gpu.BESIDES])
def test_the_forms_of_mixup_are_graphs_for_a_gpu(name: str) -> None:
    # Made, not built, so it needs no GPU: each names operators and functions that are there.
    form = {**first_gpu.FORMS, **first_gpu.BESIDES}[name]
    with Pipeline(batch_size=4, num_threads=1, device_id=0):
        images, partner, lam = (first_gpu.fed(values) for values in first_gpu.drawn(4))
        assert form(fn.reshape(images.gpu(), layout="HWC"), partner, lam).device == "gpu"
