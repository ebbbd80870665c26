"""Damaged files before the first batch: kinds that are not read, and samples to be left out."""

from __future__ import annotations

from dali_cutmix._rules import warn
from dali_cutmix.data.formats.paths import INDEXED
from dali_cutmix.data.pixel_format import RGB8, PixelFormat
from dali_cutmix.data.sources import Source, unusual_files
from dali_cutmix.loaders._arguments import progress_bar

__all__ = ["look_at_a_few", "without_damaged"]


def look_at_a_few(source: Source, to: PixelFormat = RGB8) -> None:
    """Refuses kinds of files that DALI would decode to other pixels, or not at all.

    Of each ending, but for JPEGs, the first few files are looked at; `verify` looks at all.
    """
    files = unusual_files(source)
    if not files:
        return
    from dali_cutmix.data.damage import KINDS, PROBLEMS, verify_image

    for path in files:
        try:
            with open(path, "rb") as file:
                verdict = verify_image(file.read(), to=to)
        except OSError:  # DALI says so
            continue
        if verdict.problem in KINDS:
            other = ", or read them by other `channels` or `read_as`"
            raise ValueError(
                f"{path!r} {PROBLEMS[verdict.problem]}: {verdict.detail}. Convert such files"
                f"{other if verdict.problem in ('bands', 'depth') else ''}; "
                f'`dali-cutmix check{to.flags}` names them all, and `on_error="skip"` leaves them '
                "out."
            )


def without_damaged(
    source: Source, num_classes: int | None = None, to: PixelFormat = RGB8
) -> tuple[Source, tuple[str, ...]]:
    """Returns the source without the samples that have a problem, and their names; warns."""
    from dali_cutmix.data.verification import drop_damaged, verify

    with progress_bar("looking for damage") as report:
        found = verify(source, num_classes=num_classes, progress=report, **to._asdict())
    # An image may have several.
    names = tuple(dict.fromkeys(f"{one.name} ({one.problem})" for one in found.problems))
    if names:
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        of_shards = sum(map(len, found.bad.values()))
        count = of_shards if source.kind in INDEXED else found.samples - len(found.good)
        warn(f"{count} of {found.samples} samples are left out: {listed}")
    return drop_damaged(source, found), names
