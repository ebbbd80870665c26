"""The tables of the README, made from the results in benchmarks/results.

    python benchmarks/tables.py          # writes them into the README
    python benchmarks/tables.py --check  # exit status 1 where the README has others

A table stands between two comments, `<!-- bench HARDWARE KIND GROUP -->` and `<!-- end -->`: the
rows of that group in benchmarks/results/HARDWARE/bench-KIND.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from dali_cutmix.bench import report

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PLACE = re.compile(r"(<!-- bench (\S+) (\S+) (\S.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """Returns the text with each table as its result has it."""

    def table(match: re.Match[str]) -> str:
        head, hardware, kind, group, _, end = match.groups()
        path = ROOT / "benchmarks" / "results" / hardware / f"bench-{kind}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = report.markdown(result, only=group)
        if not rows:
            raise SystemExit(f"{path} has no group {group!r}")
        return f"{head}\n{rows}\n\n{end}"

    return PLACE.sub(table, text)


def main() -> int:
    text = README.read_text(encoding="utf-8")
    made = filled(text)
    if sys.argv[1:] == ["--check"]:
        return int(made != text)
    README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
