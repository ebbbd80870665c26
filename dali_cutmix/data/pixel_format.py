"""PixelFormat: how many channels of which type the pixels of a file are decoded to."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from dali_cutmix._validation import checked_choice, checked_int, checked_numbers

__all__ = ["MAX_CHANNELS", "RGB8", "PixelFormat", "ReadAs", "checked_format"]

ReadAs = Literal["uint8", "float32"]
MAX_CHANNELS = 32  # that DALI 2.4.0 decodes


class PixelFormat(NamedTuple):
    """What the images of a data set are decoded to.

    Fields:
        channels: 1 is gray, to which colours are converted; 3 is RGB, to which gray is converted;
            any other number is that of the bands of every file, which arrive as they are.
        read_as: ``"uint8"``: of 16 bits the upper 8. ``"float32"``: the whole range of an integer
            type is [0, 1], and floats arrive as they are.
    """

    channels: int = 3
    read_as: ReadAs = "uint8"

    @property
    def as_in_file(self) -> bool:
        """Whether the channels are the bands of the file, not converted."""
        return self.channels not in (1, 3)

    @property
    def white(self) -> int:
        """What the largest value of an integer type becomes."""
        return 255 if self.read_as == "uint8" else 1

    @property
    def words(self) -> str:
        """The arguments that differ from the defaults, as one writes them."""
        given = [f"channels={self.channels}"] if self.channels != RGB8.channels else []
        given += [f'read_as="{self.read_as}"'] if self.read_as != RGB8.read_as else []
        return ", ".join(given)

    @property
    def flags(self) -> str:
        """The same as options of `dali-cutmix check`, each after a space."""
        given = f" --channels {self.channels}" if self.channels != RGB8.channels else ""
        return given + (f" --read-as {self.read_as}" if self.read_as != RGB8.read_as else "")

    def checked_mean_and_std(
        self, mean: Any, std: Any
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and std of each channel.

        Raises:
            TypeError: they are not a number for each channel.
            ValueError: a number is beyond what images of this format can have.
        """
        mean = checked_numbers("mean", mean, self.channels)
        std = checked_numbers("std", std, self.channels)
        if self.read_as == "uint8":
            low, high, least, most, rule = 0.0, 1.0, 1e-4, 1e4, ": it is of images in [0, 1]"
        else:  # floats are in units of their own
            low, high, least, most, rule = -1e9, 1e9, 1e-9, 1e9, ""
        if not low <= min(mean) <= max(mean) <= high:
            raise ValueError(f"`mean` must be in [{low:g}, {high:g}], got {mean}{rule}.")
        if not least <= min(std) <= max(std) <= most:
            raise ValueError(f"`std` must be in [{least:g}, {most:g}], got {std}{rule}.")
        return mean, std


RGB8 = PixelFormat()


def checked_format(channels: Any, read_as: Any) -> PixelFormat:
    """Returns the format of two arguments; TypeError or ValueError where one is wrong."""
    channels = checked_int("channels", channels, 1, MAX_CHANNELS)
    checked_choice("read_as", read_as, get_args(ReadAs))
    return PixelFormat(channels, read_as)
