"""`dali-cutmix bench` of boxes, masks and volumes: everyone yields the batches that were asked for.

The data tell their pixels: a label is a colour, so that a target of another image is seen.
"""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dali_cutmix.cli import main as cli
from dali_cutmix.cli.bench import loaders
from dali_cutmix.cli.bench.contests import CONTESTS
from dali_cutmix.cli.bench.peers import MEAN, STD, Job, Peer
from tests.support.rectangles import Rectangles, write_rectangles

SIDE, COUNT = 32, 12
QUICK = ["--quick", "--device", "cpu", "--threads", "1"]


def installed(kind: str) -> list[Peer]:
    return [peer for peer in CONTESTS[kind].peers if all(map(find_spec, peer.needs))]


def write_masks(root: Path) -> tuple[str, str]:
    """Image k and its mask have the value 20 k, all over."""
    for k in range(COUNT):
        for part, mode in (("images", "RGB"), ("masks", "L")):
            (root / part).mkdir(parents=True, exist_ok=True)
            value = (20 * k,) * len(mode)
            Image.new(mode, (40, 36), value).save(root / part / f"{k:02}.png")
    return f"{root}/images", f"{root}/masks"


def write_volumes(root: Path) -> tuple[str, str]:
    """Volume k and its mask have the value 20 k, all over; the first is smaller than the crop."""
    for k in range(COUNT):
        for part, dtype in (("images", np.int16), ("masks", np.uint8)):
            (root / part).mkdir(parents=True, exist_ok=True)
            volume = np.full((SIDE + k - 1, SIDE, SIDE + 3), 20 * k, dtype)
            np.save(root / part / f"{k:02}.npy", volume)
    return f"{root}/images", f"{root}/masks"


def check_masks(batches: list[Any]) -> float:
    """Returns the share of samples that are of two images."""
    scale = 255 * torch.tensor([MEAN, STD])[:, :, None, None]
    mixed = []
    for images, masks in batches:
        assert images.shape == (4, 3, SIDE, SIDE)
        assert (images.dtype, masks.dtype) == (torch.float32, torch.int64)
        values = images * scale[1] + scale[0]
        assert (values - masks[:, None]).abs().max() < 1, "masks of other images"
        mixed += [len(mask.unique()) > 1 for mask in masks]
    return float(np.mean(mixed))


def check_volumes(batches: list[Any]) -> float:
    mixed = []
    for volumes, masks in batches:
        assert volumes.shape == (4, 1, SIDE, SIDE, SIDE)
        assert (volumes.dtype, masks.dtype) == (torch.float32, torch.int64)
        values = volumes[:, 0] * 500 - 200
        inside = values > -100  # around a small volume is the lowest value of the window
        assert (values - masks)[inside].abs().max() < 1, "masks of other volumes"
        mixed += [len(mask.unique()) > 1 for mask in masks]
    return float(np.mean(mixed))


def check_boxes(batches: list[Any], data: Rectangles, name: str) -> float:
    """Returns the share of images with objects of two; a label has a colour."""
    ours = not name.startswith("Ultralytics")
    scale = torch.tensor([MEAN, STD] if ours else [[0.0] * 3, [1.0] * 3])[:, :, None, None]
    right, mixed = [], []
    for images, targets in batches:
        assert images.shape == (4, 3, SIDE, SIDE)
        assert images.dtype == torch.float32
        pixels = (images * scale[1] + scale[0]) * 255
        if not ours:
            targets = [_of_ultralytics(targets, k) for k in range(4)]
        assert len(targets) == 4
        for image, target in zip(pixels, targets, strict=True):
            owners = {data.owner[label] for label in target["labels"].tolist()}
            mixed.append(len(owners) > 1)
            for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
                assert -1e-3 <= min(box)
                assert max(box) <= SIDE + 1e-3
                x, y = (int((a + b) / 2) for a, b in zip(box[:2], box[2:], strict=True))
                found = image[:, min(y, SIDE - 1), min(x, SIDE - 1)].numpy()
                right.append(np.abs(found - data.colors[label]).max() < 40)
    assert len(right) > 20
    # The middle of what is kept may lie under what was pasted, and small ones are blurred.
    assert np.mean(right) > 0.75, "boxes of other images"
    return float(np.mean(mixed))


def _of_ultralytics(batch: dict[str, Any], k: int) -> dict[str, Any]:
    own = batch["batch_idx"] == k
    centres, spans = batch["bboxes"][own].split(2, 1)
    boxes = torch.cat([centres - spans / 2, centres + spans / 2], 1) * SIDE
    return {"boxes": boxes, "labels": batch["cls"][own].flatten().long() + 1}


def shares_of_mixed(root: str) -> dict[str, dict[str, Any]]:
    """What each installed peer mixes, or its error; run in a process of its own."""
    os.environ["XDG_CACHE_HOME"] = root
    set_start_method(get_all_start_methods()[0], force=True)  # not that of this process
    folder = Path(root)
    data = write_rectangles(folder / "boxes", COUNT, size=(64, 64), least=1)
    places = {
        "detection": (str(data.folder), str(data.annotations)),
        "segmentation": write_masks(folder / "masks"),
        "volumes": write_volumes(folder / "volumes"),
    }
    found: dict[str, dict[str, Any]] = {}
    for kind, (images, beside) in places.items():
        job = Job(images, 4, SIDE, workers=1, device="cpu", num_classes=1, beside=beside)
        for peer in installed(kind):
            loaders.seeded(job)
            try:
                with peer.open(job) as endless:
                    batches = list(itertools.islice(endless, 8))  # an epoch has 3
                if kind == "detection":
                    share = check_boxes(batches, data, peer.name)
                else:
                    share = (check_masks if kind == "segmentation" else check_volumes)(batches)
                found.setdefault(kind, {})[peer.name] = share
            except Exception as error:
                found.setdefault(kind, {})[peer.name] = f"{type(error).__name__}: {error}"
    return found


@pytest.mark.slow
def test_every_installed_peer_yields_right_batches(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(shares_of_mixed, str(tmp_path)).result()
    assert list(found) == [*CONTESTS]
    for kind, shares in found.items():
        assert list(shares) == [peer.name for peer in installed(kind)]
        for name, share in shares.items():
            assert isinstance(share, float), (kind, name, share)
            # Some have one box for the whole batch, and Ultralytics' needs room without objects.
            assert (share > 0.05) != ("without" in name), (kind, name, share)
            assert share == 0 or "without" not in name, (kind, name, share)


@pytest.mark.parametrize("kind", [*CONTESTS])
def test_the_command_measures_generated_data(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def run(job: Job, *, result: Any, peers: Any, group: str, unit: str, **_: Any) -> None:
        asked.append(job)
        rows = [loaders.Row(group, peer.name, unit, [3.0]) for peer in peers]  # type: ignore[arg-type]
        result.rows += rows

    monkeypatch.setattr(loaders, "run", run)
    out = tmp_path / "out.json"
    command = ["bench", kind, *QUICK, "--size", "32", "--images", "9", "--out", str(out)]
    assert cli.main(command) == 0
    found = json.loads(out.read_text())
    assert found["kind"] == kind
    assert found["settings"]["data"] == f"9 generated {CONTESTS[kind].unit[:-2]}"
    assert [row["name"] for row in found["rows"]] == [peer.name for peer in CONTESTS[kind].peers]
    assert {row["unit"] for row in found["rows"]} == {CONTESTS[kind].unit}
    assert CONTESTS[kind].unit in capsys.readouterr().out
    job = asked.pop()
    own = ["--data", job.root, f"--{CONTESTS[kind].beside}", job.beside]
    assert cli.main([*command, *own]) == 0
    assert json.loads(out.read_text())["settings"]["data"] == "given"
    assert asked == [job]
    for argv, words in (
        (own[:2], f"`--data` and `--{CONTESTS[kind].beside}` must be given together"),
        ([*own[:2], own[2], "/nowhere"], "nowhere"),
        (["--only", "nobody"], "`--only` must be among dali_cutmix, "),
    ):
        assert cli.main([*command, *argv]) == 1
        assert words in capsys.readouterr().err
    assert len(asked) == 1
