"""The training examples on handwritten digits: they train, survive SIGKILL, and resume exactly."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.forked import Script, finished

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
STEPS = 44  # two epochs of 1437 // 64


def command(script: str, digits: Path, out: Path, *options: str) -> list[str]:
    shared = ["--device", "cpu", "--batch-size", "64", "--size", "24", "--epochs", "2"]
    data = ["--train", str(digits / "train"), "--val", str(digits / "val"), "--out", str(out)]
    return [f"examples/{script}.py", *data, *shared, "--model", "test_resnet", *options]


def by_torchrun(command: list[str]) -> str:
    """Returns what two ranks write, started as the examples say."""
    script = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*script, "-m", "tests.support.run_example", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def equal(a: Any, b: Any) -> bool:
    """Whether two nested states are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


TRAIN = ["--recipe", "deit", "--amp", "off", "--ema", "0.99", "--threads", "2"]
TRAIN += ["--last-epochs-unmixed", "1", "--save-every", "3"]


def killed(arguments: list[str], out: Path, wait: float, ranks: int = 0) -> dict[str, Any]:
    """Kills a run `wait` seconds after the first state that it writes; returns the last state."""
    state = out / "last.pt"
    before = state.stat().st_mtime_ns if state.exists() else 0
    script = Script(arguments, ranks)
    deadline = time.monotonic() + 120
    while not state.exists() or state.stat().st_mtime_ns == before:
        assert script.runs, script.errors()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(wait)
    script.kill()
    return dict(torch.load(state, weights_only=True))


@pytest.fixture(scope="module")
def uninterrupted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("run")
    text = finished(command("train_imagenet", digits, out, *TRAIN))
    assert text.startswith("deit: test_resnet, 2 epochs of 22 steps, 1 x 64 images, lr 6.25e-05\n")
    assert re.search(r"epoch 1: 22/22, loss [\d.]+, [\d,]+ images/s, top-1 of model", text)
    return dict(torch.load(out / "last.pt", weights_only=True))


def test_a_killed_run_ends_with_the_same_weights(
    digits: Path, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    moments = random.Random(0)
    arguments = command("train_imagenet", digits, tmp_path, *TRAIN)
    for _ in range(2):
        halfway = killed(arguments, tmp_path, wait=moments.uniform(0, 0.3))
        assert 0 < halfway["step"] < STEPS
        assert not equal(halfway["model"], uninterrupted["model"])
    assert "goes on from step" in finished(arguments)
    resumed = torch.load(tmp_path / "last.pt", weights_only=True)
    assert resumed["step"] == uninterrupted["step"] == STEPS
    for part in ("model", "EMA", "optimiser", "ranks"):
        assert equal(resumed[part], uninterrupted[part]), part
    other = Script([*arguments, "--lr", "0.5"])
    assert other.wait() == [1]
    assert "last.pt is of a run with lr 6.25e-05, not 0.5" in other.errors()


def test_two_ranks_resume_together(digits: Path, tmp_path: Path) -> None:
    def arguments(name: str) -> list[str]:
        return command("train_imagenet", digits, tmp_path / name, *TRAIN)

    by_torchrun(arguments("whole"))
    whole = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    halfway = killed(arguments("killed"), tmp_path / "killed", wait=0.1, ranks=2)
    assert len(halfway["ranks"]) == 2
    assert 0 < halfway["step"] < STEPS // 2
    finished(arguments("killed"), ranks=2)
    resumed = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert resumed["step"] == whole["step"] == STEPS // 2
    for part in ("model", "EMA", "optimiser", "ranks"):
        assert equal(resumed[part], whole[part]), part


def test_lightning_resumes_exactly(digits: Path, tmp_path: Path) -> None:
    options = ["--recipe", "rsb-a3", "--num-classes", "10", "--save-every", "10"]
    whole, one, middle, end = (tmp_path / name for name in ("whole", "one", "middle", "end"))
    finished(command("lightning_module", digits, whole, *options))
    finished(command("lightning_module", digits, one, *options, "--stop-after", "1"))
    found = torch.load(whole / "final.ckpt", weights_only=False)
    for out, checkpoint in (
        (middle, whole / "step=30.ckpt"),  # in the second epoch
        (end, one / "final.ckpt"),  # between the two
    ):
        before = torch.load(checkpoint, weights_only=False)
        assert not equal(before["state_dict"], found["state_dict"])
        finished(command("lightning_module", digits, out, *options, "--resume", str(checkpoint)))
        resumed = torch.load(out / "final.ckpt", weights_only=False)
        assert resumed["global_step"] == found["global_step"] == STEPS
        assert equal(resumed["state_dict"], found["state_dict"])


def test_lightning_resumes_two_ranks_from_the_state_of_the_first(
    digits: Path, tmp_path: Path
) -> None:
    def arguments(out: Path, *options: str) -> list[str]:
        return command("lightning_module", digits, out, *shared, *options)

    def run(out: Path, *options: str) -> None:
        finished(arguments(out, *options), ranks=2)

    shared = ["--recipe", "rsb-a3", "--num-classes", "10", "--save-every", "5", "--devices", "2"]
    whole, one, middle, end = (tmp_path / name for name in ("whole", "one", "middle", "end"))
    by_torchrun(arguments(whole))
    run(one, "--stop-after", "1")
    run(middle, "--resume", str(whole / "step=5.ckpt"))
    run(end, "--resume", str(one / "final.ckpt"))
    found = [torch.load(out / "final.ckpt", weights_only=False) for out in (whole, middle, end)]
    assert [state["global_step"] for state in found] == 3 * [STEPS // 2]
    assert all(equal(state["state_dict"], found[0]["state_dict"]) for state in found)


def test_progressive_sizes_go_on_exactly(digits: Path, tmp_path: Path) -> None:
    def run(name: str, *options: str) -> str:
        arguments = ["--train", str(digits / "train"), "--val", str(digits / "val")]
        arguments += ["--out", str(tmp_path / name), "--device", "cpu", "--model", "test_resnet"]
        arguments += ["--batch-size", "256", "--smaller", "8", "--epochs", "3", *options]
        return finished(["examples/progressive_sizes.py", *arguments])

    text = run("whole")  # three phases of 5, 7 and 11 batches
    for epoch, side in enumerate((128, 160, 192)):
        assert f"epoch {epoch}: {side} pixels, top-1 " in text
    whole = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    assert whole["step"] == 5 + 7 + 11
    assert whole["loader"]["epoch"] == 3
    run("rest", "--save-every", "1", "--stop-after", "8")  # in the second
    run("rest")
    rest = torch.load(tmp_path / "rest" / "last.pt", weights_only=True)
    assert rest["step"] == whole["step"]
    for part in ("model", "optimiser", "loader"):
        assert equal(rest[part], whole[part]), part


def test_detection_goes_on_exactly(shape_folder: str, tmp_path: Path) -> None:
    def run(name: str, *options: str) -> str:
        data = [shape_folder, f"{shape_folder}/annotations.json"]
        arguments = ["--train", *data, "--val", *data, "--out", str(tmp_path / name)]
        arguments += ["--size", "64", "--epochs", "3", *options]
        return finished(["examples/train_detection.py", *arguments])

    text = run("whole")  # three epochs of 3 batches, the last two not mixed
    assert re.findall(r"epoch (\d): loss [\d.]+, mAP at an IoU of 0.5: [\d.]+", text) == [*"012"]
    assert run("rest", "--stop-after", "4") == text.splitlines(keepends=True)[0]
    assert run("rest").startswith("goes on from step 4\nepoch 1: ")
    whole, rest = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "rest")
    )
    assert rest["step"] == whole["step"] == 9
    for part in ("model", "optimiser", "schedule", "loader"):
        assert equal(rest[part], whole[part]), part


def test_the_trainer_of_hugging_face_resumes_exactly(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    from safetensors.torch import load_file

    options = ["--recipe", "cutmix-paper", "--save-every", "30"]
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    text = finished(command("hf_trainer", digits, whole, *options))
    assert "eval_top-1" in text
    rest.mkdir()
    (whole / "checkpoint-30").rename(rest / "checkpoint-30")
    finished(command("hf_trainer", digits, rest, *options))
    ends = [load_file(out / "final" / "model.safetensors") for out in (whole, rest)]
    halfway = load_file(rest / "checkpoint-30" / "model.safetensors")
    assert equal(*ends)
    assert not equal(halfway, ends[0])


def test_a_killed_run_on_volumes_ends_with_the_same_weights(tmp_path: Path) -> None:
    def arguments(name: str) -> list[str]:
        small = ["--size", "8", "16", "16", "--width", "2", "--epochs", "4", "--threads", "1"]
        options = ["--synthetic", "--device", "cpu", "--save-every", "2", *small]
        return ["examples/train_volumes.py", *options, "--out", str(tmp_path / name)]

    text = finished(arguments("whole"))
    assert "6 steps per epoch, from epoch 0" in text
    assert re.search(r"epoch 3: loss [\d.]+, [\d.]+ s, Dice of each class [\d.]+ [\d.]+", text)
    whole = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    halfway = killed(arguments("killed"), tmp_path / "killed", wait=0.2)
    assert 0 < halfway["schedule"]["last_epoch"] < 24
    finished(arguments("killed"))
    resumed = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert resumed["schedule"]["last_epoch"] == 24
    for part in ("model", "optimiser", "schedule", "loader"):
        assert equal(resumed[part], whole[part]), part
