"""What a compressed frame says of itself, read from its first bytes without decoding it.

Compared with the DICOM header before any decoder spends memory on a frame that lies.
"""

import struct
from dataclasses import dataclass

_JPEG_START = b"\xff\xd8"
_SCAN = 0xDA
_HUFFMAN = 0xC4
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
    process: int = 0
    """SOF marker of a JPEG or JPEG-LS frame, which names its coding process; 0 for JPEG 2000."""


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
    """Walk the marker segments up to the first scan: a broken chain crashes some decoders."""
    position = 2
    frame = None
    while stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if not _sound_segment(marker, stream[position + 4 : position + 2 + length]):
            return None
        if marker in _FRAME_MARKERS:
            if frame is not None:
                return None
            frame = _frame(stream, position + 4, length, marker)
        if marker == _SCAN:
            in_scan = stream[position + 4]
            fits = frame is not None and in_scan <= frame.components and length == 6 + 2 * in_scan
            return frame if fits else None
        position += 2 + length
    return None


def _sound_segment(marker: int, content: bytes) -> bool:
    """What the decoders behind believe unchecked, and die of when it is broken."""
    if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
        return False
    if marker == _HUFFMAN:
        return _sound_tables(content)
    if marker == 0xE0 and content.startswith(b"JFIF\0"):
        return content[5:6] == b"\x01"
    return True


def _sound_tables(content: bytes) -> bool:
    """DHT segment, ITU-T T.81 B.2.4.2: tables whose codes fit their lengths."""
    while content:
        counts = content[1:17]
        room = 1
        for count in counts:
            room = 2 * room - count
            if room < 0:
                return False
        size = 17 + sum(counts)
        if len(counts) < 16 or size > min(len(content), 17 + 256):
            return False
        content = content[size:]
    return True


def _frame(stream: bytes, position: int, length: int, marker: int) -> FrameHeader | None:
    """SOF segment, ITU-T T.81 B.2.2."""
    precision, rows, columns, components = struct.unpack_from(">BHHB", stream, position)
    sampling = stream[position + 7 : position + 6 + 3 * components : 3]
    if length != 8 + 3 * components or not all(_sound_sampling(byte) for byte in sampling):
        return None
    return FrameHeader(rows, columns, components, precision, marker)


def _sound_sampling(byte: int) -> bool:
    return 1 <= byte >> 4 <= 4 and 1 <= byte & 15 <= 4


def _jpeg2000(stream: bytes) -> FrameHeader:
    """SIZ marker segment, ISO/IEC 15444-1 A.5.1."""
    right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
    (components,) = struct.unpack_from(">H", stream, 40)
    depth = stream[42]
    return FrameHeader(bottom - top, right - left, components, (depth & 0x7F) + 1)
