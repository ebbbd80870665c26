"""Verifies every sample of a data set: `verify` finds the damaged ones, `drop_damaged` leaves them
out.

What was found is cached, by name, size and time of change of each file, so that a second run reads
only what changed, and one that was interrupted, however hard, goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import PIL
import simplejpeg

from dali_cutmix._dali import VERSION
from dali_cutmix._validation import checked_int
from dali_cutmix.data import damage
from dali_cutmix.data.atomic import atomic_write
from dali_cutmix.data.cache import Cache, cached_file, open_cache
from dali_cutmix.data.folders import class_folders, folder_entries
from dali_cutmix.data.formats import indexes
from dali_cutmix.data.formats.listed import class_line, class_names_of, read_lines
from dali_cutmix.data.formats.paths import INDEXED, is_remote
from dali_cutmix.data.masks import Masks, fault_of, mask_path
from dali_cutmix.data.pixel_format import PixelFormat, ReadAs, checked_format
from dali_cutmix.data.sources import Source

__all__ = [
    "PROBLEMS",
    "Finding",
    "Verification",
    "drop_damaged",
    "report",
    "verify",
    "write_list",
    "write_report",
]

Progress = Callable[[int, int], object]

PROBLEMS = {
    **damage.PROBLEMS,
    "missing": "is not there",
    "entry": "is a wrong line of a list",
    "label": "has no label, or one out of range",
    "box": "has a box that reaches out of it or has no area",
    "size": "has another size than its annotations say",
    "empty class": "is a class folder without images",
    "shard": "is a shard that cannot be read to its end",
    "index": "is an index that does not fit its shard",
    "mask": "has a mask that cannot be used",
}


class Finding(NamedTuple):
    """A problem, or a note, about one sample, file, class or shard.

    Fields:
        name: of the sample, file, class or shard.
        problem: a key of `PROBLEMS`; of a note, what is unusual.
        detail: the words of the decoder, or what was expected.
    """

    name: str
    problem: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        source: the data set.
        samples: images in it.
        scanned: images read now; the others had not changed since they were read before.
        problems, notes: findings, in the order of the data set. A sample with a problem is not
            trained on by a loader with ``on_error="skip"``; notes say what is unusual.
        good: of a folder or a list, (path within the root, label) of all samples without a
            problem.
        bad: of shards, the numbers from 0 of the samples with a problem, by shard.
        seconds: how long it took.
    """

    source: Source
    samples: int
    scanned: int
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    good: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    bad: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by problem, most first."""
        return dict(Counter(finding.problem for finding in self.problems).most_common())


def verify(
    source: Source,
    *,
    num_classes: int | None = None,
    channels: int = 3,
    read_as: ReadAs = "uint8",
    max_pixels: int = damage.MAX_PIXELS,
    threads: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Returns what was found in a data set: every image is decoded, strictly.

    Args:
        source: what `find_source` found, on this machine; or, to hear of all faults of a list or a
            folder rather than of the first one, `unchecked_source`.
        num_classes: labels from this on are a problem; by default no label is too large.
        channels, read_as: what the loaders decode to, see `train_loader`: what of a file does not
            fit into that is a problem.
        max_pixels: images with more pixels are a problem.
        threads: by default the cores this process may use.
        fresh: ignore what is cached.
        progress: called with (done, in all), files or, of shards, bytes.

    Raises:
        TypeError, ValueError: an argument is wrong, or the source is remote.
    """
    if source.remote or is_remote(source.file_root or ""):
        raise ValueError(f"`source` must be on this machine, got {source.paths[0]!r}.")
    checked_int("max_pixels", max_pixels, 1, 2**63 - 1)
    threads = checked_int("threads", threads or len(os.sched_getaffinity(0)), 1, 4096)
    start = time.monotonic()
    if source.targets is not None or source.masks is not None:
        num_classes = None  # labels are numbers of rows, which are right
    checker = _Checker(
        max_pixels, num_classes, source.label_offset, checked_format(channels, read_as)
    )
    path = os.path.abspath(source.file_root or source.paths[0])
    caches = open_cache(f"{source.kind} {path}", checker.fingerprint(source), fresh=fresh)
    with caches as cache, ThreadPoolExecutor(threads) as pool:
        try:
            verify_all = _verify_shards if source.kind in INDEXED else _verify_files
            report_to = progress or (lambda *_: None)
            found = verify_all(source, checker, cache, pool, 4 * threads, report_to)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return dataclasses.replace(found, seconds=time.monotonic() - start)


def drop_damaged(source: Source, found: Verification) -> Source:
    """Returns the source without the samples that have a problem.

    A folder becomes a list with the folder's classes. Shards get other indexes, in a folder of the
    user's cache, which DALI reads in place of theirs.

    Raises:
        ValueError: no sample is left, or a shard cannot be read at all.
    """
    if source.kind not in INDEXED:
        if not found.good:
            raise ValueError(f"{source.paths[0]!r} must hold a good image, has none.")
        if not found.problems:
            return source
        files, labels = zip(*found.good, strict=True)
        root = source.file_root or os.path.abspath(source.paths[0])
        return dataclasses.replace(
            source, kind="list", file_root=root, files=files, labels=labels, size=len(files)
        )
    broken = [f for f in found.problems if f.problem in ("shard", "index")]
    if broken:
        raise ValueError(
            f"{broken[0].name!r} must be a complete shard with its index: {broken[0].detail}."
        )
    index_paths = []
    for shard, index_path in zip(source.paths, source.index_paths, strict=True):
        bad = found.bad.get(shard, ())
        if bad:
            text = indexes.without(source.kind, index_path, bad)
            content = text.encode("utf-8", "surrogateescape")
            name = hashlib.sha256(content).hexdigest()[:16]
            index_path = cached_file(f"{os.path.basename(shard)}.{name}.idx", content)
        index_paths.append(index_path)
    size = found.samples - sum(map(len, found.bad.values()))
    if size == 0:
        raise ValueError(f"{source.paths[0]!r} must hold a good sample, has none.")
    return dataclasses.replace(source, index_paths=tuple(index_paths), size=size)


def report(found: Verification) -> dict[str, Any]:
    """Returns the findings as plain values, for JSON."""
    return {
        "version": 1,
        "source": list(found.source.paths),
        "kind": found.source.kind,
        "samples": found.samples,
        "looked_at": found.scanned,
        "seconds": round(found.seconds, 3),
        "counts": found.counts,
        "problems": [_plain(finding) for finding in found.problems],
        "notes": [_plain(finding) for finding in found.notes],
    }


def _plain(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "kind": finding.problem, "detail": finding.detail}


def write_report(found: Verification, path: str) -> None:
    """Writes `report` as JSON; the file appears complete or not at all."""
    atomic_write(path, (json.dumps(report(found), indent=1) + "\n").encode())


def write_list(found: Verification, path: str) -> None:
    """Writes the good images as a list, see `formats.listed`; the file appears at once.

    With the names of the classes, where there are any.

    Raises:
        ValueError: there are none, or a name cannot stand in a list.
    """
    if not found.good:
        raise ValueError(f"{found.source.paths[0]!r} must hold a good image, has none.")
    for name, _ in found.good:
        if name != name.strip() or not name.isprintable():
            raise ValueError(f"a list cannot hold the name {name!r}: rename the file.")
    lines = [f"{name}\t{label}" for name, label in found.good]
    source = found.source
    names = source.classes
    if names is None and source.kind == "folder":
        names = tuple(class_folders(source.paths[0]))
    elif names is None and source.kind == "list" and os.path.isfile(source.paths[0]):
        names = class_names_of(source.paths[0])
    if names is not None:
        lines.insert(0, class_line(names))
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode())


# --- folders and lists


class _Checker(NamedTuple):
    """What is asked of a sample; cached findings of another checker are not used."""

    max_pixels: int
    num_classes: int | None
    label_offset: int
    to: PixelFormat

    def check(self, data: bytes) -> damage.Verdict:
        return damage.verify_image(data, max_pixels=self.max_pixels, to=self.to)

    def check_file(self, path: str, size: tuple[int, int] | None = None) -> damage.Verdict:
        """Returns what is wrong with a file; `size` is what its (height, width) should be."""
        try:
            with open(path, "rb") as file:
                data = file.read()
            verdict = self.check(data)
            if verdict.problem is None and size is not None:
                own = damage.size_of(data, self.to)
                if own != size:
                    verdict = damage.Verdict("size", f"{own} where {size} is said", verdict.notes)
            return verdict
        except FileNotFoundError:
            return damage.Verdict("missing")
        except OSError as error:
            return damage.Verdict("unreadable", error.strerror or str(error))

    def check_with_mask(self, path: str, mask: str, masks: Masks) -> damage.Verdict:
        verdict = self.check_file(path)
        if verdict.problem is None and (fault := fault_of(path, mask, masks)) is not None:
            return damage.Verdict("mask", f"{mask!r} {fault}", verdict.notes)
        return verdict

    def fingerprint(self, source: Source) -> str:
        """Returns what the findings depend on, but for the data."""
        decoders = f"pillow {PIL.__version__}, simplejpeg {simplejpeg.__version__}"
        fingerprint = f"3; {decoders}, DALI {VERSION}; {self.max_pixels} pixels; {self.to}"
        if source.masks is not None:
            fingerprint += f"; {source.masks}"
        if source.annotations is not None:
            fingerprint += f"; {source.annotations.digest}"
        if source.kind in INDEXED:
            fingerprint += f"; {self.num_classes} classes, {self.label_offset}, {source.fields}"
        return fingerprint

    def label_fault(self, label: int) -> str | None:
        if label < 0 or (self.num_classes is not None and label >= self.num_classes):
            return (
                f"{label}, not in [0, {'2^31' if self.num_classes is None else self.num_classes})"
            )
        return None


def _verify_files(
    source: Source,
    checker: _Checker,
    cache: Cache,
    pool: ThreadPoolExecutor,
    window: int,
    progress: Progress,
) -> Verification:
    root = source.file_root or source.paths[0]
    entries = list(_entries(source))
    problems: list[Finding] = []
    notes: list[Finding] = []
    good = []
    scanned = 0
    faults, sizes = _faults_of_annotations(source), {}
    if source.annotations is not None:
        problems += faults.pop(source.annotations.path, [])
        sizes = source.annotations.sizes
        notes += [Finding(name, "no boxes", "") for name in sorted(source.annotations.empty)]

    def jobs() -> Iterator[tuple[Any, Callable[[], damage.Verdict] | damage.Verdict]]:
        for name, label, finding in entries:
            if finding is not None:
                (notes if finding.problem == "not read" else problems).append(finding)
                continue
            path = os.path.join(root, name)
            if source.masks is None:
                state = cache.state(path)
                check = partial(checker.check_file, path, sizes.get(name))
            else:
                mask = mask_path(source.masks, name, label)
                state = cache.state(path, mask)
                check = partial(checker.check_with_mask, path, mask, source.masks)
            known = cache.get(name, state)
            if known is not None:
                known = damage.Verdict(known[0], known[1], tuple(known[2]))
            yield (name, label, state), known or check

    total = sum(finding is None for _, _, finding in entries)
    results = _run_ahead(jobs(), pool, window)
    for done, ((name, label, state), verdict, is_new) in enumerate(results, 1):
        if is_new:
            scanned += 1
            if verdict.problem not in ("missing", "unreadable"):
                cache.put(name, state, verdict)
        verdict = _add_label_fault(verdict, checker.label_fault(label))
        found = faults.get(name, [])
        if verdict.problem is not None:
            found = [Finding(name, verdict.problem, verdict.detail), *found]
        if found:
            problems += found
        else:
            good.append((name, label))
        notes += [Finding(name, note, "") for note in verdict.notes]
        progress(done, total)
    return Verification(
        source=source,
        samples=total,
        scanned=scanned,
        problems=tuple(problems),
        notes=tuple(notes),
        good=tuple(good),
    )


def _faults_of_annotations(source: Source) -> dict[str, list[Finding]]:
    """Returns what is wrong by the annotations alone, by image; that one is missing is seen."""
    found: dict[str, list[Finding]] = {}
    if source.annotations is not None:
        for fault in source.annotations.faults:
            if fault.problem != "missing":
                found.setdefault(fault.file, []).append(Finding(*fault))
    return found


def _entries(source: Source) -> Iterator[tuple[str, int, Finding | None]]:
    """Yields (path within the root, label, finding where there is nothing to read)."""
    if source.files:
        for file, label in zip(source.files, source.labels, strict=True):
            yield file, label, None
    elif source.kind == "list":
        path = source.paths[0]
        for line in read_lines(path, source.file_root or "", source.label_offset):
            finding = None
            if line.fault is not None:
                problem = "missing" if line.missing else "entry"
                finding = Finding(f"{path}, line {line.number}", problem, line.fault)
            yield line.file, line.label, finding
    else:
        root = source.paths[0]
        for label, name in enumerate(class_folders(root)):
            inside = list(folder_entries(os.path.join(root, name)))
            if not any(entry.is_image for entry in inside):
                yield name, label, Finding(name, "empty class", "")
            for entry in inside:
                path = os.path.relpath(entry.path, root)
                finding = None
                if not entry.is_image:
                    finding = Finding(path, "not read", "no image by its name")
                yield path, label, finding


def _add_label_fault(verdict: damage.Verdict, fault: str | None) -> damage.Verdict:
    """Returns the verdict, or that of the label where only that is wrong."""
    if verdict.problem is not None or fault is None:
        return verdict
    return damage.Verdict("label", fault, verdict.notes)


def _run_ahead(
    jobs: Iterable[tuple[Any, Callable[[], damage.Verdict] | damage.Verdict]],
    pool: ThreadPoolExecutor,
    window: int,
) -> Iterator[tuple[Any, damage.Verdict, bool]]:
    """Yields (what it is, verdict, whether it is new) in order; `window` jobs run ahead."""
    ahead: deque[tuple[Any, Future[damage.Verdict] | damage.Verdict]] = deque()

    def first() -> tuple[Any, damage.Verdict, bool]:
        what, result = ahead.popleft()
        if isinstance(result, Future):
            return what, result.result(), True
        return what, result, False

    for what, job in jobs:
        ahead.append((what, job if isinstance(job, damage.Verdict) else pool.submit(job)))
        if len(ahead) > window:
            yield first()
    while ahead:
        yield first()


# --- shards


def _verify_shards(
    source: Source,
    checker: _Checker,
    cache: Cache,
    pool: ThreadPoolExecutor,
    window: int,
    progress: Progress,
) -> Verification:
    problems: list[Finding] = []
    notes: list[Finding] = []
    bad: dict[str, tuple[int, ...]] = {}
    samples = scanned = done = 0
    total = sum(os.path.getsize(path) for path in source.paths)
    for shard, index_path in zip(source.paths, source.index_paths, strict=True):
        state = cache.state(shard, index_path)
        found = cache.get(shard, state)
        if found is None:
            found = _verify_shard(
                source, shard, index_path, checker, pool, window, done, total, progress
            )
            cache.put(shard, state, found)
            scanned += found["samples"]
        samples += found["samples"]
        problems += [Finding(*finding) for finding in found["problems"]]
        notes += [Finding(*finding) for finding in found["notes"]]
        bad[shard] = tuple(found["bad"])
        done += os.path.getsize(shard)
        progress(done, total)
    return Verification(
        source=source,
        samples=samples,
        scanned=scanned,
        problems=tuple(problems),
        notes=tuple(notes),
        bad={shard: numbers for shard, numbers in bad.items() if numbers},
    )


def _verify_shard(
    source: Source,
    shard: str,
    index_path: str,
    checker: _Checker,
    pool: ThreadPoolExecutor,
    window: int,
    before: int,
    total: int,
    progress: Progress,
) -> dict[str, Any]:
    """Returns the number of samples, those with a problem, and the findings, of one shard."""
    found: dict[str, Any] = {"samples": 0, "bad": [], "problems": [], "notes": []}
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-") as folder:
        fresh = os.path.join(folder, "index")
        try:
            indexes.make_index(shard, fresh)
            fault = indexes.difference(source.kind, index_path, fresh) if index_path else None
            if fault is not None:
                found["problems"].append(Finding(shard, "index", f"{index_path}: {fault}"))
            indexes.checked_size(source.kind, [shard], [fresh], source.fields)
        except (OSError, ValueError) as error:
            found["problems"].append(Finding(shard, "shard", str(error)))
            return found
        read = before

        def jobs() -> Iterator[tuple[Any, Callable[[], damage.Verdict]]]:
            nonlocal read
            for where, image, label in indexes.samples(source.kind, shard, fresh, source.fields):
                read += len(image)
                yield (where, label), partial(checker.check, image)

        for number, ((where, label), verdict, _) in enumerate(_run_ahead(jobs(), pool, window)):
            fault = "none" if label is None else checker.label_fault(label + checker.label_offset)
            verdict = _add_label_fault(verdict, fault)
            name = f"{shard} ({where})"
            if verdict.problem is not None:
                found["bad"].append(number)
                found["problems"].append(Finding(name, verdict.problem, verdict.detail))
            found["notes"] += [Finding(name, note, "") for note in verdict.notes]
            found["samples"] = number + 1
            progress(read, total)
    return found
