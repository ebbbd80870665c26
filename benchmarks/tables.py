"""The tables and plots of README and docs/, made from the results in benchmarks/results.

    python benchmarks/tables.py          # writes them
    python benchmarks/tables.py --check  # exit status 1 where a page has other tables

A table stands between two comments. The first says what it is, the second is `<!-- end -->`:

    <!-- bench HARDWARE KIND GROUP -->   the rows of that group of bench-KIND.json
    <!-- bench GPUs -->                  those of every GPU that there are results of
    <!-- startup HARDWARE -->            startup.json
    <!-- accuracy HARDWARE -->           accuracy.json

Below each table stands a link to its result.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dali_cutmix.cli.bench import report

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- (bench|startup|accuracy) (\S.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ON_A_GPU = {"mix": ("GPU time", "GPU memory"), "loader": ("loader",), "train": ("train",)}


def filled(text: str, up: str = "", results: Path = RESULTS) -> str:
    """Returns the text with each table as its result has it; `up` leads to the checkout's top."""

    def table(match: re.Match[str]) -> str:
        head, kind, what, _, end = match.groups()
        if what == "GPUs":
            parts = [part for path in sorted(results.iterdir()) for part in _on_a_gpu(path, up)]
            parts = parts or ["Nothing has been measured on a GPU yet; `make bench` does it all."]
            return "\n\n".join([head.rstrip("\n"), *parts, end])
        hardware, *rest = what.split(" ", 2)
        name = f"bench-{rest[0]}" if kind == "bench" else kind
        result = _read(results / hardware / f"{name}.json")
        rows = _of_bench(result, rest[1]) if kind == "bench" else OTHERS[kind](result)
        if not rows:
            raise SystemExit(f"{name}.json has no group {rest[1]!r}")
        return f"{head}\n{rows}\n\n[result]({up}benchmarks/results/{hardware}/{name}.json)\n\n{end}"

    return PLACE.sub(table, text)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _of_bench(result: dict[str, Any], group: str) -> str:
    return report.markdown(result, only=group)


def _of_accuracy(result: dict[str, Any]) -> str:
    rows = []
    for row in result["results"]:
        fewer = ""
        if "fewer_than_none" in row:
            fewer = (
                f"{row['fewer_than_none']:+.2f}, in {row['better_seeds']} of {len(row['values'])}"
            )
        rows.append((row["name"], f"{row['mean']:.2f} %", f"{row['deviation']:.2f}", fewer))
    return _table(("method", "errors", "deviation", "fewer than none"), rows)


def _of_startup(result: dict[str, Any]) -> str:
    found = {(row["files"], row["name"]): row for row in result["results"]}
    head = ("files", "ready", "memory", "first `state_dict`", "memory more", "next one")
    rows = []
    for files in sorted({files for files, _ in found}):
        ours, other = found[files, "dali_cutmix"], found[files, "torchvision"]
        rows.append(
            (
                f"{files:,}",
                f"{ours['ready']['median']:.2g} s",
                f"{ours['memory']['median']:.0f} MB",
                f"{ours['state']['median']:.2g} s",
                f"{ours['state memory']['median']:.0f} MB",
                f"{1000 * ours['second state']['median']:.1g} ms",
                f"{other['ready']['median']:.2g} s",
            )
        )
    return _table((*head, "torchvision ready"), rows, left=0)


OTHERS = {"startup": _of_startup, "accuracy": _of_accuracy}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns a table whose columns are right-aligned but for the first `left`."""
    align = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, align, *rows))


def _on_a_gpu(folder: Path, up: str) -> list[str]:
    """Returns the tables of a folder of results, if they are of a GPU, below its name."""
    parts = []
    for kind, groups in ON_A_GPU.items():
        path = folder / f"bench-{kind}.json"
        if not path.is_file():
            continue
        result = _read(path)
        gpu, settings = result["environment"]["gpu"], result["settings"]
        if gpu is None:
            continue
        if not parts:
            parts.append(f"On one {gpu}, {result['environment']['cores']} cores:")
        parts += [rows for group in groups if (rows := report.markdown(result, only=group))]
        link = f"{up}benchmarks/results/{folder.name}/{path.name}"
        parts.append(f"Batches of {settings['batch_size']}, [result]({link}).")
    return parts


def up_from(page: Path) -> str:
    """Returns the relative way from the folder of a page to the top of the checkout."""
    return "../" * (len(page.relative_to(ROOT).parts) - 1)


def draw_plots() -> None:
    """Draws the results that are rates and times, beside their JSON."""
    for path in sorted(RESULTS.rglob("bench-*.json")):
        if path.stem not in ("bench-loader-pair", "bench-mix-64"):
            report.plot(_read(path), str(path.with_suffix(".png")))


def main() -> int:
    made = {page: filled(page.read_text(encoding="utf-8"), up_from(page)) for page in PAGES}
    changed = {page: text for page, text in made.items() if page.read_text("utf-8") != text}
    if sys.argv[1:] == ["--check"]:
        return int(bool(changed))
    for page, text in changed.items():
        page.write_text(text, encoding="utf-8")
    draw_plots()
    return 0


if __name__ == "__main__":
    sys.exit(main())
