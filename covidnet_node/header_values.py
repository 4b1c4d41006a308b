"""Values of a header of which nothing can be trusted: what cannot be read counts as absent."""

import re
import struct
from collections.abc import MutableSequence
from typing import Literal, cast

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

PROCEDURE = (
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription"),
    *("ScheduledProcedureStepDescription", "ProtocolName"),
)
PROCEDURE_CODES = (
    *("ProcedureCodeSequence", "RequestedProcedureCodeSequence"),
    *("PerformedProtocolCodeSequence", "ScheduledProtocolCodeSequence"),
)

_BROKEN = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError),
    *(BytesLengthException, EOFError, OSError, struct.error),
)
"""What pydicom raises on sequences that are damaged, or nested without end."""


class Header:
    """Small typed readers over one header, or an item in it.

    Raw elements are read as bytes, past pydicom's conversion: that raises or warns (with
    the value, which may be patient data) on wrong VRs, lengths and character sets.
    """

    def __init__(self, dataset: Dataset, encodings: tuple[str, ...] = ()) -> None:
        self.dataset = dataset
        self._encodings: tuple[str, ...] = ()
        # PS3.3 C.12.1.1.2; an item of a sequence inherits from the data set around it.
        terms = self.texts("SpecificCharacterSet")
        self._encodings = (
            tuple(codec for term in terms if (codec := python_encoding.get(term)) is not None)
            or encodings
        )

    def first(self, keyword: str) -> str:
        """First value that is not empty."""
        return next(iter(self.texts(keyword)), "")

    def texts(self, *keywords: str) -> tuple[str, ...]:
        """Values that are not empty, runs of white space collapsed."""
        parts = (part for key in keywords for part in self._plain(key).split("\\"))
        tidy = (" ".join(part.replace("\0", " ").split()) for part in parts)
        return tuple(part for part in tidy if part)

    def number(self, keyword: str) -> int:
        """First value as a whole number; 0 if absent, negative or unreadable."""
        match = re.match(r"[0-9]{1,9}", self.first(keyword))
        return int(match[0]) if match else 0

    def items(self, keyword: str) -> "tuple[Header, ...]":
        """Items of a sequence."""
        try:
            value = self.dataset[keyword].value if keyword in self.dataset else ()
            items = [item for item in value or () if isinstance(item, Dataset)]
            return tuple(Header(item, self._encodings) for item in items)
        except _BROKEN:
            return ()

    def meanings(self, *keywords: str) -> tuple[str, ...]:
        """Code meanings of code sequences."""
        codes = (item for keyword in keywords for item in self.items(keyword))
        return tuple(text for item in codes for text in item.texts("CodeMeaning"))

    def procedure(self) -> tuple[str, ...]:
        """Procedure as requested and as performed, in words and code meanings."""
        levels = (self, *self.items("RequestAttributesSequence"))
        return tuple(
            text
            for level in levels
            for text in (*level.texts(*PROCEDURE), *level.meanings(*PROCEDURE_CODES))
        )

    def _plain(self, keyword: str) -> str:
        """Value as text; several values stay joined by backslashes."""
        try:
            element = cast("DataElement | RawDataElement | None", self.dataset.get_item(keyword))
            value = None if element is None else element.value
            if isinstance(element, RawDataElement) and isinstance(value, bytes):
                return self._from_raw(element, value)
            if isinstance(value, MutableSequence):
                return "\\".join(str(part) for part in value if not isinstance(part, Dataset))
            return "" if value is None else str(value)
        except _BROKEN:
            return ""

    def _from_raw(self, element: RawDataElement, value: bytes) -> str:
        """Read encoded bytes by their VR, or the dictionary's; Latin-1 if nothing else fits."""
        vr = element.VR or dictionary_VR(element.tag)
        if vr in {"US", "UL"}:
            size = 2 if vr == "US" else 4
            order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
            return str(int.from_bytes(value[:size], order)) if len(value) >= size else ""
        for codec in () if vr == "SQ" else self._encodings:
            try:
                return value.decode(codec)
            except (UnicodeError, LookupError):
                continue
        return "" if vr == "SQ" else value.decode("latin-1")
