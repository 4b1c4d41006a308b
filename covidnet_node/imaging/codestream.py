"""What a compressed frame says of itself, read from its first bytes without decoding it.

Compared with the DICOM header before any decoder spends memory on a frame that lies.
"""

import struct
from dataclasses import dataclass

_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\x00\x00\x00\x0cjP  "
_END = b"\xff\xd9"
_TAIL = 64
"""Encoders pad the last fragment; the end marker must stand within this many bytes."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81 table B.1), and SOF55 of JPEG-LS."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Geometry of a compressed frame."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits per sample."""


def frame_header(stream: bytes) -> FrameHeader | None:
    """Geometry from a JPEG, JPEG-LS or JPEG 2000 codestream, None if it cannot be found."""
    try:
        if stream.startswith(_JPEG_START):
            return _jpeg(stream)
        if stream.startswith(_JP2_BOX):
            start = stream.find(_J2K_START)
            return _jpeg2000(stream[start : start + 64]) if start > 0 else None
        if stream.startswith(_J2K_START):
            return _jpeg2000(stream)
    except (struct.error, IndexError):
        return None
    return None


def is_complete(stream: bytes) -> bool:
    """Whether the codestream reaches its end marker (EOI of JPEG, EOC of JPEG 2000)."""
    return _END in stream[-_TAIL:]


def _jpeg(stream: bytes) -> FrameHeader | None:
    position = 2
    while stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, position + 4)
            return FrameHeader(rows, columns, components, precision)
        (length,) = struct.unpack_from(">H", stream, position + 2)
        position += 2 + length
    return None


def _jpeg2000(stream: bytes) -> FrameHeader:
    """SIZ marker segment, ISO/IEC 15444-1 A.5.1."""
    right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
    (components,) = struct.unpack_from(">H", stream, 40)
    depth = stream[42]
    return FrameHeader(bottom - top, right - left, components, (depth & 0x7F) + 1)
