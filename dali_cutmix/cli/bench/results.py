"""What a benchmark has found: timings, where they were made, and the JSON that holds both."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from dali_cutmix._version import __version__
from dali_cutmix.data.atomic import atomic_write

__all__ = ["Result", "Row", "environment", "in_turn", "rate"]

SCHEMA_VERSION = 1
_PACKAGES = (
    *("nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    *("torch", "numpy", "pillow", "simplejpeg"),
    *("torchvision", "timm", "kornia", "ffcv", "spdl-core", "spdl-io", "webdataset"),
    *("ultralytics", "monai"),
)


@dataclass
class Row:
    """The timings of one contestant.

    Fields:
        group: what it is compared with: the rows of its group.
        name: its name, unique in the group.
        unit: ``"images/s"``, ``"volumes/s"``, ``"ms"`` a batch, or ``"MB"``.
        values: one a round, in the order of the rounds.
        note: what to know about it, for instance ``"absent: needs timm"``, or why it failed.
        options: what was set for it.
    """

    group: str
    name: str
    unit: Literal["images/s", "volumes/s", "ms", "MB"]
    values: list[float] = field(default_factory=list)
    note: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The first and the third quartile, of single values the value itself."""
        if len(self.values) < 2:
            return (self.values[0], self.values[0]) if self.values else None
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def relative_to(self, other: Row) -> float | None:
        """Returns the median, over the rounds, of the ratio of this to the other's values."""
        pairs = list(zip(self.values, other.values, strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None


@dataclass
class Result:
    """A benchmark as it goes on; what is there when it is interrupted is right, if not complete."""

    kind: str  # one of `command.KINDS`
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    findings: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    def group(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.group == name]

    def as_json(self) -> dict[str, Any]:
        """Returns the content of the JSON file, as ``schema.json`` describes it."""
        return {
            "schema": SCHEMA_VERSION,
            "kind": self.kind,
            "complete": self.complete,
            "environment": environment(),
            "settings": self.settings,
            "rows": [_row_as_json(row) for row in self.rows],
            "findings": self.findings,
        }

    def write(self, path: str) -> None:
        """Writes the JSON file, complete or not at all."""
        atomic_write(path, (json.dumps(self.as_json(), indent=1) + "\n").encode())


def _row_as_json(row: Row) -> dict[str, Any]:
    quartiles = row.quartiles
    return {
        "group": row.group,
        "name": row.name,
        "unit": row.unit,
        "median": None if row.median is None else _short(row.median),
        "quartiles": None if quartiles is None else [_short(value) for value in quartiles],
        "values": [_short(value) for value in row.values],
        "options": row.options,
        "note": row.note,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def in_turn(
    rows: Sequence[Row],
    rounds: int,
    measure: Callable[[Row], float],
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Measures each row once a round, beginning with another one in every round.

    A row whose measurement raises ValueError or RuntimeError gets the reason as its note, and is
    left out from then on.
    """
    for round_ in range(rounds):
        shift = round_ % max(1, len(rows))
        for row in (*rows[shift:], *rows[:shift]):
            if not row.note:
                try:
                    row.values.append(measure(row))
                except (ValueError, RuntimeError, OSError) as error:
                    row.note = f"failed: {str(error).strip().splitlines()[-1][:200]}"
            advance()


def rate(step: Callable[[], int], seconds: float, *, turn: int = 1, gpu: bool) -> float:
    """Returns images per second, of at least so many seconds, two batches and whole turns.

    Args:
        step: does a batch, and returns how many images it had.
        turn: the clock stops only after a multiple of so many batches.
        gpu: the GPU is synchronised inside the timed region.
    """
    images = batches = 0
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    while batches < 2 or batches % turn or time.perf_counter() - start < seconds:
        images += step()
        batches += 1
    if gpu:
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def environment() -> dict[str, Any]:
    """Returns what the timings depend on, apart from the settings."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "versions": {"dali-cutmix": __version__, **versions},
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """Returns the commit of the checkout this runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.machine()
