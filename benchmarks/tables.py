"""The tables of the README, made from the results in benchmarks/results.

    python benchmarks/tables.py          # writes them into the README
    python benchmarks/tables.py --check  # exit status 1 where the README has others

A table stands between two comments, `<!-- bench HARDWARE KIND GROUP -->` and `<!-- end -->`: the
rows of that group in benchmarks/results/HARDWARE/bench-KIND.json. Between `<!-- bench GPUs -->` and
`<!-- end -->` stand those of every GPU that there are results of.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from dali_cutmix.cli.bench import report

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- bench (\S+) (\S+) (\S.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
GPUS = re.compile(r"(<!-- bench GPUs -->\n)(.*?)(<!-- end -->)", re.DOTALL)
ON_A_GPU = {"mix": ("GPU time", "GPU memory"), "loader": ("loader",), "train": ("train",)}


def filled(text: str, results: Path = RESULTS) -> str:
    """Returns the text with each table as its result has it."""

    def table(match: re.Match[str]) -> str:
        head, hardware, kind, group, _, end = match.groups()
        path = results / hardware / f"bench-{kind}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = report.markdown(result, only=group)
        if not rows:
            raise SystemExit(f"{path} has no group {group!r}")
        return f"{head}\n{rows}\n\n{end}"

    def gpus(match: re.Match[str]) -> str:
        parts = [part for path in sorted(results.iterdir()) for part in _on_a_gpu(path)]
        parts = parts or ["Nothing has been measured on a GPU yet; `make bench` does it all."]
        return "\n\n".join([match[1].rstrip("\n"), *parts, match[3]])

    return GPUS.sub(gpus, PLACE.sub(table, text))


def _on_a_gpu(folder: Path) -> list[str]:
    """Returns the tables of a folder of results, if they are of a GPU, below its name."""
    parts = []
    for kind, groups in ON_A_GPU.items():
        path = folder / f"bench-{kind}.json"
        if not path.is_file():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        gpu, settings = result["environment"]["gpu"], result["settings"]
        if gpu is None:
            continue
        if not parts:
            parts.append(f"On one {gpu}, {result['environment']['cores']} cores:")
        parts += [rows for group in groups if (rows := report.markdown(result, only=group))]
        link = f"benchmarks/results/{folder.name}/{path.name}"
        parts.append(f"Batches of {settings['batch_size']}, [result]({link}).")
    return parts


def main() -> int:
    text = README.read_text(encoding="utf-8")
    made = filled(text)
    if sys.argv[1:] == ["--check"]:
        return int(made != text)
    README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
