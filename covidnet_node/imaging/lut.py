"""Lookup tables as headers carry them (Modality LUT, VOI LUT).

PS3.3 C.11.1.1 and C.11.2.1.1: a descriptor of three values (entries, first value mapped, bits)
and the data, in a value representation that depends on the encoding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from covidnet_node.imaging.header import BROKEN_HEADER, quiet, reals


@dataclass(frozen=True, slots=True)
class Lut:
    """A table over whole input values."""

    first: int
    """Input value of the first entry."""
    bits: int
    """Bits of each entry, as stated: the full output range is 0 to 2**bits - 1."""
    entries: NDArray[np.float64]

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Look values up; those below or above the table take its first or last entry."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        looked_up: NDArray[np.float64] = self.entries[index.astype(np.intp)]
        return looked_up


def read_lut(item: Dataset) -> Lut | None:
    """The table of one sequence item, None if it is missing or contradicts itself."""
    descriptor = reals(item, "LUTDescriptor")
    try:
        count, first, bits = (int(value) for value in descriptor)
        # 65536 entries do not fit 16 bits and are written as 0.
        count = (count & 0xFFFF) or 65536
        with quiet():
            entries = _entries(item, count)
    except BROKEN_HEADER:
        return None
    if len(entries) < count or not 0 < bits <= 16:
        return None
    return Lut(first, bits, entries[:count])


def _entries(item: Dataset, count: int) -> NDArray[np.float64]:
    element = item["LUTData"]
    value = element.value
    if not isinstance(value, bytes | bytearray):
        numbers = [value] if isinstance(value, int) else list(value)
        return np.array(numbers, dtype=np.int64).astype(np.uint16).astype(np.float64)
    if len(value) < 2 * count:
        # Some writers pack 8-bit entries into bytes.
        return np.frombuffer(value, np.uint8).astype(np.float64)
    _, little = item.original_encoding
    order = "<u2" if little in (True, None) else ">u2"
    return np.frombuffer(value[: 2 * count], order).astype(np.float64)
