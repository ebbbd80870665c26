"""What the reader of a pipeline says: whether a loader can use it, and how long an epoch is."""

from __future__ import annotations

from typing import Any

from nvidia.dali import Pipeline

from dali_cutmix import _dali

__all__ = ["batches_per_epoch", "checked_reader"]


def checked_reader(pipeline: Pipeline, reader_name: str | None, last_batch: str) -> dict[str, Any]:
    """Returns name and metadata of the pipeline's reader; refuses what would lose samples."""
    if pipeline.num_outputs < 2:
        raise ValueError("`pipeline` must return images and targets, got one output.")
    readers = pipeline.reader_meta()
    if reader_name is None and len(readers) == 1:
        (reader_name,) = readers
    if reader_name not in readers:
        raise ValueError(
            f"`reader_name` must be one of the readers of `pipeline`, {sorted(readers)}, "
            f"got {reader_name!r}."
        )
    name, meta = reader_name, readers[reader_name]
    if not meta["pad_last_batch"]:
        raise ValueError(
            f"`pipeline` must read with pad_last_batch=True, got reader {name!r} without: "
            "batches would run over the end of an epoch."
        )
    if last_batch == "partial":
        if _dali.pairs_samples(pipeline):
            raise ValueError(
                '`last_batch` must be "drop" for a pipeline that mixes, got "partial": '
                "samples of the last batch would be mixed with padding."
            )
        if meta["number_of_shards"] > 1 and not meta["stick_to_shard"]:
            raise ValueError(
                '`pipeline` must read with stick_to_shard=True for `last_batch="partial"`, '
                f"got reader {name!r} without: shards of different length would change places."
            )
    return {"name": name, **meta}


def batches_per_epoch(meta: dict[str, Any], batch_size: int, last_batch: str) -> int:
    """Returns the number of batches; when dropping, it is the same on every shard."""
    total, shards, shard = meta["epoch_size"], meta["number_of_shards"], meta["shard_id"]
    if last_batch == "partial":
        own = total * (shard + 1) // shards - total * shard // shards
        return int(-(-own // batch_size))
    length = int(total // shards // batch_size)
    if length == 0:
        raise ValueError(
            f"`batch_size` must be at most the {total // shards} images of a shard "
            f"({total} images, {shards} shard(s)), got {batch_size}: no batch would be full."
        )
    return length
