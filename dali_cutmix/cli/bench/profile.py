"""Where an input pipeline loses its time: what its stages cost, and what its settings change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import torch
from nvidia.dali import Pipeline

from dali_cutmix.cli.bench.results import Result, Row, in_turn, rate
from dali_cutmix.loaders.classification import train_loader
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.pipelines import imagenet
from dali_cutmix.pipelines.imagenet import Stage

__all__ = ["as_plain", "run", "stage_names", "steps"]

HAND_OVER = "hand over"  # of DALI's tensors to torch
_TUNED = ("num_threads", "prefetch_queue_depth", "hw_decoder_load")  # change no draw
_WORTH = 1.03  # a setting is recommended from this ratio on


def run(
    options: dict[str, Any],
    sweep: Mapping[str, Sequence[Any]],
    *,
    rounds: int,
    seconds: float,
    result: Result,
    advance: Callable[[], None],
) -> None:
    """Profiles `train_loader` into `result`.

    Args:
        options: arguments of `train_loader`, the base of all that is compared.
        sweep: values to try, by argument; each is changed alone.
        rounds: measurements of each, in turn.
        seconds: of each measurement.
        advance: called after each measurement, `steps` times.
    """

    def measure(row: Row) -> float:
        return _loader_rate({**options, **row.options}, seconds)

    _stages(options, rounds, seconds, result, advance)
    for name, values in sweep.items():
        rows = [Row(name, str(value), "images/s", options={name: value}) for value in values]
        result.rows += rows
        in_turn(rows, rounds, measure, advance)
    best = _best(options, result)
    rows = [
        Row("recommended", "as it was", "images/s"),
        Row("recommended", "recommended", "images/s", options=best),
    ]
    result.rows += rows
    in_turn(rows, rounds, measure, advance)
    gain = rows[1].relative_to(rows[0])
    if gain is not None and gain < 1:  # what was gained alone was chance
        best = {}
    result.findings["recommended"] = {**result.settings["base"], **best}
    result.findings["changed"] = best
    result.findings["gain"] = None if gain is None else round(gain if best else 1.0, 3)


def steps(sweep: Mapping[str, Sequence[Any]], stages: int, rounds: int) -> int:
    """Returns how many measurements `run` makes."""
    return rounds * (stages + sum(map(len, sweep.values())) + 2)


def as_plain(options: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments of `train_loader` as JSON has them."""
    return {
        name: dataclasses.asdict(value) if isinstance(value, MixConfig) else value
        for name, value in options.items()
    }


def stage_names(options: dict[str, Any]) -> list[str]:
    """Returns the stages of a training pipeline, in the order in which they are switched on."""
    mixes = _pipeline_options(options).get("mix") is not None
    return [*get_args(Stage), "normalise", *(["mix"] if mixes else []), HAND_OVER]


def _stages(
    options: dict[str, Any],
    rounds: int,
    seconds: float,
    result: Result,
    advance: Callable[[], None],
) -> None:
    """Measures the pipeline with more and more of its stages: what one adds is what it costs.

    Mixing is the last to be switched on, though it stands before normalisation.
    """
    names = stage_names(options)
    rows = [Row("stages", name, "ms") for name in names]
    result.rows += rows
    used = _pipeline_options(options)

    def milliseconds(row: Row) -> float:
        if row.name == HAND_OVER:
            reached = _loader_rate(options, seconds)
        else:
            changed: dict[str, Any] = {} if row.name == "mix" else {"mix": None}
            if row.name in get_args(Stage):
                changed = {"until": row.name}
            pipeline = imagenet.train(**{**used, **changed})
            pipeline.build()
            reached = _rate(_runs(pipeline), options["batch_size"], seconds, _ahead(options))
        return 1000 * float(options["batch_size"]) / reached

    in_turn(rows, rounds, milliseconds, advance)
    result.findings["stages"] = _costs(rows)
    worst = max(result.findings["stages"], key=lambda stage: stage["ms"], default=None)
    if worst is not None:
        result.findings["bottleneck"] = worst["stage"]


def _costs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns what each stage adds to a batch, in ms and as a share of the whole."""
    measured = [(row.name, row.median) for row in rows]
    before = 0.0
    costs: list[dict[str, Any]] = []
    for name, median in measured:
        if median is not None:
            costs.append({"stage": name, "ms": round(max(0.0, median - before), 3)})
            before = max(before, median)
    for cost in costs:
        cost["share"] = round(cost["ms"] / before, 4) if before else 0.0
    return costs


def _best(options: dict[str, Any], result: Result) -> dict[str, Any]:
    """Returns the settings that are faster than the base beyond chance and change no batch."""
    best = {}
    for name in _TUNED:
        rows = [row for row in result.group(name) if row.values]
        base = next((row for row in rows if row.options[name] == options.get(name)), None)
        if base is None:
            continue
        fastest = max(rows, key=lambda row: row.median or 0.0)
        ratio = fastest.relative_to(base)
        quartiles, of_base = fastest.quartiles, base.quartiles
        clear = quartiles is not None and of_base is not None and quartiles[0] > of_base[1]
        if ratio is not None and ratio >= _WORTH and clear:
            best[name] = fastest.options[name]
    return best


def _loader_rate(options: dict[str, Any], seconds: float) -> float:
    with train_loader(**options) as loader:
        batches = iter(_endless(loader))
        return _rate(batches, options["batch_size"], seconds, _ahead(options))


def _pipeline_options(options: dict[str, Any]) -> dict[str, Any]:
    with train_loader(**options) as loader:
        return dict(loader._options)


def _endless(loader: Loader) -> Iterator[Any]:
    while True:
        yield from loader


def _runs(pipeline: Pipeline) -> Iterator[Any]:
    while True:
        yield pipeline.run()


def _ahead(options: dict[str, Any]) -> int:
    """Returns the batches to let pass first: those that are ready, and some of warm-up."""
    return int(options["prefetch_queue_depth"]) + 2


def _rate(batches: Iterator[Any], batch_size: int, seconds: float, ahead: int) -> float:
    for _ in range(ahead):
        next(batches)

    def step() -> int:
        next(batches)
        return batch_size

    return rate(step, seconds, gpu=torch.cuda.is_available())
