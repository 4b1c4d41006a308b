"""Single values of a header that may hold anything.

A real header breaks its own rules. These readers answer None where a value is absent or
unreadable and never raise, so that each caller can decide what that means for it.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

BROKEN_HEADER = (
    # What pydicom raises while it reads or converts elements; BytesLengthException,
    # UnicodeError and struct.error's cousins arrive as ValueError.
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's remarks on odd files: what matters comes back as verdict or note."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def real(dataset: Dataset, keyword: str) -> float | None:
    """First value of an attribute as a finite number, None if absent, empty or unreadable."""
    first = next(iter(reals(dataset, keyword)), None)
    return first if first is not None and math.isfinite(first) else None


def reals(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of a numeric attribute, none if absent, empty or unreadable."""
    try:
        with quiet():
            value = dataset.get(keyword)
            if value is None or isinstance(value, bytes | bytearray):
                return ()
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                value = (value,)
            return tuple(float(item) for item in value)
    except BROKEN_HEADER:
        return ()


def integer(dataset: Dataset, keyword: str) -> int | None:
    """First value of an attribute as a whole number, None if it is anything else."""
    value = real(dataset, keyword)
    return int(value) if value is not None and value.is_integer() else None


def text(dataset: Dataset, keyword: str) -> str:
    """First value of an attribute as upper-case text without padding, empty if unreadable."""
    try:
        with quiet():
            value = dataset.get(keyword)
            if value is None:
                return ""
            if not isinstance(value, str) and hasattr(value, "__iter__"):
                value = next(iter(value), "")
            return str(value).strip(" \0").upper()
    except BROKEN_HEADER:
        return ""


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Items of a sequence attribute, none if absent or unreadable."""
    try:
        with quiet():
            value = dataset.get(keyword)
            return tuple(item for item in value or () if isinstance(item, Dataset))
    except BROKEN_HEADER:
        return ()
