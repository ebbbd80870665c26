"""Cross entropy on pair targets against the dense one: forward and backward, in turn, in one run.

    python benchmarks/losses.py                 # prints a table
    python benchmarks/losses.py --json FILE     # also writes the result

Dense targets are made beforehand: what is compared is the loss alone. Medians and interquartile
ranges of `--repeats` calls after ten of warm-up; a GPU is synchronised inside the timed region.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from dali_cutmix import losses
from dali_cutmix.cli.bench.results import environment

SHAPES = ((256, 1000), (256, 21841))


def milliseconds(function: Callable[[], torch.Tensor], logits: torch.Tensor) -> float:
    logits.grad = None
    start = time.perf_counter()
    function().backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def measure(n: int, k: int, device: str, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    logits = torch.randn(n, k, device=device, requires_grad=True)
    label_a, label_b = (torch.randint(k, (n,), device=device) for _ in range(2))
    lam = torch.rand(n, device=device)
    rows = lam[:, None] * F.one_hot(label_a, k) + (1 - lam[:, None]) * F.one_hot(label_b, k)
    contestants = {
        "dense": lambda: F.cross_entropy(logits, rows),
        "pair": lambda: losses.cross_entropy(logits, (label_a, label_b, lam)),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(repeats + 10):
        for name, function in contestants.items():
            spent = milliseconds(function, logits)
            if i >= 10:
                times[name].append(spent)
    result: dict[str, object] = {"n": n, "classes": k}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        result[name] = {"median_ms": round(median, 4), "iqr_ms": round(high - low, 4)}
    ratios = [p / d for p, d in zip(times["pair"], times["dense"], strict=True)]
    result["pair_over_dense"] = round(statistics.median(ratios), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = [measure(n, k, device, args.repeats) for n, k in SHAPES]
    print("(N, K)           dense ms    pair ms   pair/dense")
    for r in results:
        dense, pair = r["dense"]["median_ms"], r["pair"]["median_ms"]
        print(
            f"({r['n']}, {r['classes']:5d}) {dense:12.3f} {pair:10.3f} {r['pair_over_dense']:12.2f}"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"environment": environment(), "results": results}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
