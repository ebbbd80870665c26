"""A result as a person reads it: tables, a picture, and the line of code it comes to.

All of it is made from the JSON alone, so that a kept file gives the same tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

__all__ = ["Lines", "groups", "line_of_code", "markdown", "plot", "summary", "tables"]

TITLES = {
    "stages": "stages, switched on one after the other",
    "num_threads": "threads",
    "prefetch_queue_depth": "batches prepared ahead",
    "hw_decoder_load": "share of the JPEG hardware",
    "batch_size": "batch size",
    "dtype": "type",
    "layout": "layout",
    "device": "device",
    "recommended": "recommended settings",
    "time": "mixing alone",
    "CPU time": "mixing alone, time of all CPU threads",
    "GPU time": "mixing alone, time of the GPU",
    "GPU memory": "mixing alone, memory of the GPU",
    "loader": "whole loaders",
    "train": "training steps",
    "detection": "loaders of images with boxes",
    "segmentation": "loaders of images with masks",
    "volumes": "loaders of volumes with masks",
}
_PEERS = ("timm", "torchvision", "kornia", "openmixup", "GridMixup's", "FMix's", "Cutout's")
_FAR = 50  # times the smallest: from there on short bars are hard to read


class Lines(NamedTuple):
    """A group of rows as text.

    Fields:
        title: of the group.
        columns: their names.
        cells: of each row.
        notes: why rows have no value, ``"(1) name: the reason"``; their cells name the number.
    """

    title: str
    columns: tuple[str, ...]
    cells: list[tuple[str, ...]]
    notes: list[str]


def groups(result: dict[str, Any], only: str | None = None) -> Iterator[Lines]:
    """Yields the groups of a result, or one, as tables of text, the rows in their order."""
    for group in dict.fromkeys(row["group"] for row in result["rows"]):
        if only not in (None, group):
            continue
        rows = [row for row in result["rows"] if row["group"] == group]
        first = next((row["median"] for row in rows if row["median"]), None)
        unit = rows[0]["unit"]
        columns: tuple[str, ...]
        cells: list[tuple[str, ...]]
        notes: list[str] = []
        if group == "stages":
            costs = {cost["stage"]: cost for cost in result["findings"].get("stages", [])}
            columns = ("stage", "ms per batch", "quartiles", "adds ms", "share")
            cells = [(*_cells(row, notes), *_cost(costs.get(row["name"]))) for row in rows]
        elif unit in ("ms", "MB"):
            columns = ("", "ms per batch" if unit == "ms" else unit, "quartiles")
            cells = [_cells(row, notes) for row in rows]
        else:
            columns = ("", unit, "quartiles", "of the first")
            cells = [(*_cells(row, notes), _ratio(row["median"], first)) for row in rows]
        yield Lines(TITLES.get(group, group), columns, cells, notes)


def _cells(row: dict[str, Any], notes: list[str]) -> tuple[str, str, str]:
    """Returns name, median and quartiles; of a row without them the reason goes to the notes."""
    if row["median"] is None:
        kind, _, reason = (row["note"] or "not measured").partition(": ")
        if reason:
            notes.append(f"({len(notes) + 1}) {row['name']}: {reason.split('. ')[0]}")
            kind += f" ({len(notes)})"
        return row["name"], kind, ""
    low, high = row["quartiles"]
    note = f" ({row['note']})" if row["note"] else ""
    return row["name"] + note, _number(row["median"]), f"{_number(low)} to {_number(high)}"


def _cost(cost: dict[str, Any] | None) -> tuple[str, str]:
    return ("", "") if cost is None else (_number(cost["ms"]), f"{cost['share']:.0%}")


def _ratio(value: float | None, first: float | None) -> str:
    return "" if value is None or not first else f"{value / first:.2f}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Yields a table for the terminal for each group."""
    for group in groups(result):
        table = Table(title=group.title, title_justify="left")
        for i, column in enumerate(group.columns):
            table.add_column(column, justify="right" if i else "left", overflow="fold")
        for cells in group.cells:
            table.add_row(*cells)
        table.caption, table.caption_justify = "\n".join(map(escape, group.notes)) or None, "left"
        yield table


def markdown(result: dict[str, Any], only: str | None = None) -> str:
    """Returns the tables in Markdown, or that of one group."""
    parts = []
    for group in groups(result, only):
        head = (group.columns[0] or group.title, *group.columns[1:])
        align = ("---", *("---:" for _ in head[1:]))
        rows = [head, align, *group.cells]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in rows))
        parts += ["  \n".join(group.notes)] if group.notes else []
    return "\n\n".join(parts)


def summary(result: dict[str, Any]) -> list[str]:
    """Returns what a result comes to, in sentences; of a quick look no advice."""
    said = _advice(result["findings"])
    if result["settings"]["quick"]:
        said = ["--quick: a look in seconds, too short for figures and advice"]
    if not result["complete"]:
        said.append("interrupted: what is here was measured, the rest was not")
    return said


def _advice(findings: dict[str, Any]) -> list[str]:
    said = []
    if "bottleneck" in findings:
        worst = max(findings["stages"], key=lambda stage: stage["ms"])
        said.append(
            f"bottleneck: {worst['stage']}, {worst['ms']:.1f} ms per batch, {worst['share']:.0%} "
            "of the time"
        )
        mixing = [stage for stage in findings["stages"] if stage["stage"] == "mix"]
        if mixing:
            said.append(f"mixing: {mixing[0]['ms']:.1f} ms per batch, {mixing[0]['share']:.0%}")
    if findings.get("changed"):
        changed = ", ".join(f"{name}={value!r}" for name, value in findings["changed"].items())
        said.append(f"recommended: {changed}: {findings['gain']:.2f} times as fast")
    elif "changed" in findings:
        said.append("recommended: the settings are good as they are")
    if "recommended" in findings:
        said.append(line_of_code(findings["recommended"]))
    return said


def line_of_code(options: dict[str, Any]) -> str:
    """Returns the call of train_loader with these options."""
    given = dict(options)
    source = given.pop("source")
    mix = given.pop("mix", None)
    given = {name: value for name, value in given.items() if value is not None}
    parts = [repr(source)] + [f"{name}={value!r}" for name, value in given.items()]
    if mix is not None:
        parts.append(f"mix=dcm.MixConfig(num_classes={mix['num_classes']})")
    return f"dcm.train_loader({', '.join(parts)})"


def check_plot(path: str) -> None:
    """Fails where `plot` could not write a picture there."""
    if os.path.splitext(path)[1].lower() not in {".png", ".svg", ".pdf", ".jpg", ".webp"}:
        raise ValueError(f"`--plot` must end in .png, .svg, .pdf, .jpg or .webp, got {path!r}.")
    if find_spec("matplotlib") is None:
        raise ValueError(
            f"`--plot` must be left out without matplotlib, got {path!r}: "
            "pip install 'dali-cutmix[bench]'."
        )


def plot(result: dict[str, Any], path: str) -> None:
    """Draws a picture of every group: medians as bars, quartiles as whiskers.

    Where they lie far apart the axis is logarithmic. Rows of this package are green.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    names = dict.fromkeys(row["group"] for row in result["rows"])
    drawn = {g: [r for r in result["rows"] if r["group"] == g and r["median"]] for g in names}
    drawn = {group: rows for group, rows in drawn.items() if rows}
    heights = [0.5 + 0.28 * len(rows) for rows in drawn.values()] or [1.0]
    figure, axes = pyplot.subplots(
        len(heights),
        1,
        figsize=(9, sum(heights) + 0.55 * len(heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
        squeeze=False,
    )
    for axis, (group, rows) in zip(axes[:, 0], drawn.items(), strict=False):
        medians = [row["median"] for row in rows]
        spread = [
            [max(0.0, m - r["quartiles"][0]) for m, r in zip(medians, rows, strict=True)],
            [max(0.0, r["quartiles"][1] - m) for m, r in zip(medians, rows, strict=True)],
        ]
        colors = ["#76b900" if _is_own(result["kind"], row["name"]) else "#8a9ba8" for row in rows]
        if 0 < min(medians) < max(medians) / _FAR:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.barh(range(len(rows)), medians, xerr=spread, color=colors, height=0.7, capsize=2)
        axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
        axis.invert_yaxis()
        axis.set_title(f"{TITLES.get(group, group)}, {rows[0]['unit']}", fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_where(result), fontsize=8, x=0.01, ha="left")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _is_own(kind: str, name: str) -> bool:
    """Returns whether a row is of this package, and not of a peer."""
    if kind in ("mix", "profile"):
        return not name.startswith(_PEERS)
    return name.startswith("dali_cutmix")


def _where(result: dict[str, Any]) -> str:
    environment = result["environment"]
    gpu = f"{environment['gpu']}, " if environment["gpu"] else ""
    versions = environment["versions"]
    dali = next(text for name, text in versions.items() if name.startswith("nvidia-dali-"))
    return (
        f"{gpu}{environment['cpu']}, {environment['cores']} cores, DALI {dali}, "
        f"torch {versions['torch']}"
    )
