"""Read as much of a received file's header as admission needs; never its pixels."""

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag

from covidnet_node.admit import HEADER_KEYWORDS, text_of
from covidnet_node.audit.subject import KEYWORDS as AUDITED_KEYWORDS
from covidnet_node.bounded_reading import HeaderTooLarge, read_elements
from covidnet_node.case import InstanceKey, Reason
from covidnet_node.errors import Refuse
from covidnet_node.receive.contexts import DEFLATED

CANNOT_UNDERSTAND = 0xC000
DATA_SET_MISMATCH = 0xA900

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_WANTED = [
    tag
    for keyword in (*_IDENTITY, *HEADER_KEYWORDS, *AUDITED_KEYWORDS)
    if (tag := tag_for_keyword(keyword))
]
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data; a group length or an Extended Offset Table
(PS3.5 7.2, PS3.3 C.7.6.3.1.8) may come before them in their group."""

LONGEST_VALUE = 64 * 1024
"""Longer values are passed over: no attribute that admission reads is so long."""
MOST_INFLATED = 8 * 1024 * 1024
"""A deflated header is inflated in memory, so far and no further."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_UNREADABLE = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError),
    *(BytesLengthException, EOFError, NotImplementedError, OSError, struct.error, zlib.error),
)
"""What pydicom and zlib raise on bytes that are no data set; pydicom has an OSError of its own,
without a number, for a sequence that is cut off."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a received file says about itself."""

    dataset: Dataset
    """Only what admission and the audit trail read, not converted from its encoding."""
    key: InstanceKey
    sop_class_uid: str
    has_pixels: bool


def is_uid(text: str) -> bool:
    """Whether this is a UID (PS3.5 9.1): at most 64 digits and dots.

    Components with leading zeros are against 9.1 and yet come from real devices: refusing their
    images would help nobody.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_header(path: Path, offset: int, transfer_syntax: str) -> Header:
    """Read the data set that begins at `offset`; raises Refuse (C000) if there is none to read.

    Raises OSError when the system cannot read the file.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            source = _inflated(file) if transfer_syntax == DEFLATED else file
            dataset, has_pixels = _parse(source, transfer_syntax)
    except HeaderTooLarge as error:
        detail = "the header has more elements, or more bytes, than are read"
        raise Refuse(Reason.TOO_LARGE, detail, status=CANNOT_UNDERSTAND) from error
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's trouble, not the data set's
        detail = f"the data set cannot be parsed ({type(error).__name__})"
        raise Refuse(Reason.NOT_DICOM, detail, status=CANNOT_UNDERSTAND) from error
    uids = {keyword: text_of(dataset, keyword) for keyword in _IDENTITY}
    for keyword, uid in uids.items():
        if not is_uid(uid):
            detail = f"{keyword} is {'not a UID' if uid else 'missing'}"
            raise Refuse(Reason.BAD_UID, detail, status=CANNOT_UNDERSTAND)
    key = InstanceKey(uids["StudyInstanceUID"], uids["SeriesInstanceUID"], uids["SOPInstanceUID"])
    return Header(dataset, key, uids["SOPClassUID"], has_pixels)


def check_command(header: Header, sop_class: str, instance: str) -> None:
    """Compare with the C-STORE command; raises Refuse (A900, PS3.4 B.2.3)."""
    if header.sop_class_uid != sop_class:
        detail = "SOP class of data set and command differ"
        raise Refuse(Reason.UID_MISMATCH, detail, status=DATA_SET_MISMATCH)
    if header.key.sop_uid != instance:
        detail = "SOP instance of data set and command differ"
        raise Refuse(Reason.UID_MISMATCH, detail, status=DATA_SET_MISMATCH)


def _parse(source: BinaryIO, transfer_syntax: str) -> tuple[Dataset, bool]:
    """Read the wanted elements, and whether pixel data follows them."""
    implicit = transfer_syntax == "1.2.840.10008.1.2"
    little = transfer_syntax != "1.2.840.10008.1.2.2"
    seen = False

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        nonlocal seen
        seen = seen or (tag in _PIXELS and length > 0)
        return int(tag) >= min(_PIXELS)

    dataset = read_elements(
        source,
        implicit=implicit,
        little=little,
        stop=at_pixels,
        defer_size=LONGEST_VALUE,
        wanted=[BaseTag(tag) for tag in _WANTED],
    )
    return dataset, seen


def _inflated(file: BinaryIO) -> BytesIO:
    """Inflate the beginning of a deflated data set (PS3.5 A.5); a bomb stops at the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    whole = BytesIO()
    while whole.tell() < MOST_INFLATED and not inflater.eof:
        piece = inflater.unconsumed_tail or file.read(65536)
        if not piece:
            break
        whole.write(inflater.decompress(piece, 1024 * 1024))
    whole.seek(0)
    return whole
