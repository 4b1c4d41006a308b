"""Read the elements of a data set without spending more than a header is worth.

A hostile header costs far more than its bytes: a million empty items, 8 bytes each, become a
million objects. Whatever a parser makes of a file, each element and each item costs it at least
one read. So the file counts, and after so many bytes or so many reads there is no more.
"""

from collections.abc import Callable
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

MOST_BYTES = 4 * 1024 * 1024
"""Of values that are kept, and of sequences of undefined length, which cannot be passed over."""
MOST_READS = 60_000
"""About 20,000 elements and items; a radiograph's header has some hundred."""

At = Callable[[BaseTag, str | None, int], bool]
"""Whether to stop at an element of this tag, VR (None if implicit) and length."""


class HeaderTooLarge(ValueError):
    """The header has more bytes, elements or items than are read."""


class BoundedFile:
    """A file that is read only so far; what is passed over by seeking is free."""

    def __init__(self, file: BinaryIO, most_bytes: int, most_reads: int) -> None:
        self._file = file
        self._bytes = most_bytes
        self._reads = most_reads

    @property
    def spent(self) -> bool:
        """Whether more was asked for than there is to give."""
        return self._bytes < 0 or self._reads < 0

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes; raises HeaderTooLarge when that would be too much in all."""
        self._reads -= 1
        # One byte more than may be read tells a file that is too large from one that just fits.
        data = self._file.read(min(size, self._bytes + 1) if size >= 0 else self._bytes + 1)
        self._bytes -= len(data)
        if self.spent:
            raise HeaderTooLarge
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Say at which position the next read begins."""
        return self._file.tell()


def read_elements(
    source: BinaryIO,
    *,
    implicit: bool,
    little: bool,
    stop: At,
    defer_size: int,
    wanted: list[BaseTag | int] | None = None,
) -> Dataset:
    """Read a data set's elements up to where `stop` says so.

    Values longer than `defer_size` bytes are passed over; `wanted` limits it to these tags.
    Raises HeaderTooLarge, or whatever pydicom raises on bytes that are no data set.
    """
    bounded = BoundedFile(source, MOST_BYTES, MOST_READS)
    try:
        return read_dataset(
            cast(BinaryIO, bounded),
            implicit,
            little,
            stop_when=stop,
            defer_size=defer_size,
            specific_tags=wanted,
        )
    except (OSError, RecursionError) as error:
        # pydicom turns whatever happens inside a sequence into OSError.
        if bounded.spent or isinstance(error, RecursionError):
            raise HeaderTooLarge from error
        raise
