"""What DALI raises, in words that name the rule, or the file, and say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dali_cutmix._rules import dali_reason, explain
from dali_cutmix.data.images import BANDS, CMYK
from dali_cutmix.data.masks import MASK_KIND, MASK_SIZE, MASK_VALUES
from dali_cutmix.data.pixel_format import RGB8, PixelFormat
from dali_cutmix.data.readers import LABEL
from dali_cutmix.data.sources import Source, damaged, find_source
from dali_cutmix.data.volumes import Volumes, damaged_volumes

__all__ = ["in_own_words"]

_TOO_MANY_SHARDS = "requested number of shards"
_READS = re.compile(r"fn\.(decoders|readers|io)\.|fn\.peek_image_shape")  # what can meet a bad file
_READS_ARRAYS = re.compile(r"fn\.readers\.numpy|fn\.io\.file\.read")
_FILE = re.compile(r"(?:Failed to decode sample #\d+ ?: |File mapping failed: )(.+)")


def in_own_words(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """Returns words for an error of a pipeline, None where it is no failure of its data.

    Args:
        options: the arguments of the pipeline: ``num_shards``, where its images are, as
            ``source``, ``root`` or ``files``, and of ``source`` what they are decoded to, as
            ``channels`` and ``read_as``.
    """
    text = str(error)
    if _TOO_MANY_SHARDS in text:
        shards = options.get("num_shards")
        return f"`num_shards` must be at most the number of images, got {shards}."
    rule = explain(error)
    if isinstance(options.get("source"), Volumes):
        return _of_volumes(text, rule, options)
    of_files = (BANDS, CMYK, MASK_KIND, MASK_SIZE, MASK_VALUES)
    if rule is not None and not rule.startswith((LABEL, *of_files)):
        return rule
    if rule is None and not _READS.search(text):
        return None
    if rule is None and "encountered:" not in text and "fn.readers" not in text:
        return None  # of the graph, not of what a decoder met
    files = _files(text, options)
    reason = f"DALI: {dali_reason(text)}"
    for broken in of_files:
        if rule is not None and rule.startswith(broken):
            return f"{broken[:-1]}{_listed(files)}. Convert or remove, then start again. {reason}"
    # A TFRecord without its label fails in the reader.
    if rule is not None or (files and all(file.endswith(": label)") for file in files)):
        return f"{LABEL[:-1]}{_listed(files)}. Mend it, then start again. {reason}"
    what = f"{len(files)} image(s)" if files else "an image"
    return (
        f"{what} cannot be read{_listed(files)}. Damaged, or of a format that DALI does not "
        f"decode: replace or remove, then start again. {reason}"
    )


def _of_volumes(text: str, rule: str | None, options: Mapping[str, Any]) -> str | None:
    """Returns words for what a pipeline of volumes met, with what is wrong in which files."""
    if rule is None and not _READS_ARRAYS.search(text):
        return None
    faults = damaged_volumes(options["source"], options.get("num_classes"))
    if rule is not None and not faults:
        return rule
    if faults:
        listed = "; ".join(map(str, faults))
        return (
            f"{len(faults)} volume(s) or mask(s) cannot be used: {listed}. Mend or remove, then "
            f"start again. DALI: {dali_reason(text)}"
        )
    return f"a volume or a mask cannot be read. DALI: {dali_reason(text)}"


def _files(text: str, options: Mapping[str, Any]) -> list[str]:
    """Returns the damaged files. DALI names the file of some failures only."""
    named = _FILE.search(text)
    try:
        if named:
            return [named[1].strip()]
        if "files" in options:
            from dali_cutmix.data.damage import unreadable_files  # its decoders come with it

            return unreadable_files(options["files"])
        source: Any = options.get("source", options.get("root"))
        to = RGB8
        if "source" in options:
            to = PixelFormat(options.get("channels", 3), options.get("read_as", "uint8"))
        return damaged(source if isinstance(source, Source) else find_source(source), to=to)
    except (OSError, TypeError, ValueError):
        return []


def _listed(files: list[str]) -> str:
    return ": " + ", ".join(files[:5]) + (", …" if len(files) > 5 else "") if files else ""
