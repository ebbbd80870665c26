"""What the reader of a pipeline says: whether a loader can use it, and how long an epoch is."""

from __future__ import annotations

from typing import Any, NamedTuple

from nvidia.dali import Pipeline

from dali_cutmix import _dali

__all__ = ["Counts", "checked_reader"]


def checked_reader(
    pipeline: Pipeline, reader_name: str | None, last_batch: str
) -> tuple[str, dict[str, Any]]:
    """Returns name and metadata of the pipeline's reader; refuses what would lose samples."""
    if pipeline.num_outputs < 2:
        raise ValueError("`pipeline` must return images and targets, got one output.")
    readers = {
        name: meta for name, meta in pipeline.reader_meta().items() if name != _dali.BY_NUMBER
    }
    if reader_name is None and len(readers) == 1:
        (reader_name,) = readers
    if not readers:
        raise ValueError(
            "`pipeline` must read by one of DALI's readers (fn.readers…), which tell how long an "
            "epoch is and where it stands, got none. DALI's own iterator takes a pipeline that is "
            "fed by fn.external_source alone."
        )
    if reader_name not in readers:
        raise ValueError(
            f"`reader_name` must be one of the readers of `pipeline`, {sorted(readers)}, "
            f"got {reader_name!r}."
        )
    name, meta = str(reader_name), dict(readers[reader_name])
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
    return name, meta


class Counts(NamedTuple):
    """How many images, batches and runs there are.

    Fields:
        images: of all shards.
        own: of this shard; those of two shards differ by at most one.
        longest: of the longest shard, to which the reader pads the others.
        batches: that the loader yields in an epoch.
        runs: of the pipeline in an epoch, the same on every shard.
        even: every shard yields what the longest does.
    """

    images: int
    own: int
    longest: int
    batch_size: int
    batches: int
    runs: int
    shard: int
    shards: int
    drop: bool
    even: bool

    @classmethod
    def of(cls, meta: dict[str, Any], batch_size: int, last_batch: str, even: bool) -> Counts:
        """Returns the counts of a reader of this metadata."""
        images, shards, shard = meta["epoch_size"], meta["number_of_shards"], meta["shard_id"]
        own = images * (shard + 1) // shards - images * shard // shards
        longest = -(-images // shards)
        drop = last_batch == "drop"
        if drop:
            batches = images // shards // batch_size
            if batches == 0:
                raise ValueError(
                    f"`batch_size` must be at most the {images // shards} images of a shard "
                    f"({images} images, {shards} shard(s)), got {batch_size}: no batch would be "
                    "full."
                )
        else:
            batches = -(-(longest if even else own) // batch_size)
        runs = -(-longest // batch_size)
        return cls(
            images, own, longest, batch_size, batches, runs, shard, shards, drop=drop, even=even
        )

    def runs_before(self, epoch: int, position: int) -> int:
        """Returns the runs of the pipeline before a batch; the padding after an epoch's last batch
        is read with the first batch of the next.
        """
        if epoch and not position:
            return (epoch - 1) * self.runs + self.batches
        return epoch * self.runs + position

    def in_batch(self, position: int) -> tuple[int, int | None]:
        """Returns the samples that the loader yields in a batch, and which is there once more.

        That is the last image of a shard that is shorter than others, before its repetition: so a
        batch of nothing but padding has a label all the same, and no mean over nothing is taken.
        """
        if self.drop:
            return self.batch_size, None
        before = position * self.batch_size
        longest = self.longest if self.even else self.own
        twice = self.own - 1 - before
        marked = self.even and self.own < self.longest and 0 <= twice < self.batch_size
        return min(self.batch_size, longest - before), twice if marked else None
