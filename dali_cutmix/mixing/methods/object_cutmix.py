"""ObjectCutMix: what is cut is the box around an object in the partner's mask.

Rule      of the partner's mask a class is drawn, of those that are in it, and of that class an
          object, a connected region, each alike. The box around it is pasted where it lies. Where
          the partner's mask shows no object the image is not mixed
Peers     none of CutMix's kin; the operator is DALI's (fn.segmentation.random_object_bbox)
Defaults  every value of the mask but 0 is an object
Label     by the area, as CutMix's. Masks follow by `mix_masks`, whole boxes with what is around the
          object
Cost      the search for objects in every mask, on the CPU: for 64 masks of 224 x 224 five times as
          long as CutMix
When      small lesions, small objects: CutMix's box would show none of them, and its label would be
          wrong. Also of volumes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_int, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Beside, Found, Later, Method, Rows, Size

__all__ = ["ObjectCutMix"]

_LEAST = -(2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCutMix(Method):
    """CutMix of the box around an object of the partner's mask.

    `mix` needs the masks for it: ``mix(…, objects=masks)``.

    Args:
        classes: values in the masks that are objects; none given: all but the background. Name
            them where masks have a value for pixels to be ignored.
        background: the value of pixels without an object.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> ObjectCutMix(classes=[1, 2]).classes
    (1, 2)
    """

    classes: Sequence[int] = ()
    background: int = 0

    def __post_init__(self) -> None:
        set_checked(self, "background", checked_int("background", self.background, _LEAST))
        classes: Any = self.classes
        if not isinstance(classes, Sequence) or isinstance(classes, (str, bytes)):
            raise TypeError(f"`classes` must be a sequence of ints, got {classes!r}.")
        checked = tuple(checked_int("classes", value, _LEAST) for value in classes)
        if self.background in checked or len(set(checked)) < len(checked):
            raise ValueError(
                f"`classes` must be different, and without `background`, got {classes!r}."
            )
        set_checked(self, "classes", checked)

    def rows(self, size: Size, draw: Draw) -> Rows:  # noqa: ARG002
        """Returns plans whose boxes are yet to come: until then nothing is cut."""
        cut = fn.cast(draw.true(), dtype=types.INT32)
        unmixed = fn.cast(cut, dtype=types.FLOAT64)
        return Rows(unmixed, later=(Later(cut, 1, _of_object),))


def _of_object(row: DataNode, beside: Beside, size: Size) -> Found:
    """Returns the box around the partner's object, see `objects` and `plan.Later`."""
    assert beside.objects is not None
    _, box = beside.objects
    nowhere = size.nowhere()
    return Found(fn.reshape(nowhere + (box - nowhere) * row, shape=[1, 2 * size.axes]))
