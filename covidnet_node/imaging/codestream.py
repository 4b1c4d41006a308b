"""What a compressed frame says of itself, read from its first bytes without decoding it.

Compared with the DICOM header before any decoder spends memory on a frame that lies.
"""

import struct

from covidnet_node.imaging.frame_header import FrameHeader
from covidnet_node.imaging.jpeg2000 import jpeg2000_header

_JPEG_START = b"\xff\xd8"
_SCAN = 0xDA
_HUFFMAN = 0xC4
_SCAN_START = b"\xff\xda"
_MOST_SCANS = 16
"""Each one makes the decoder go over the whole frame again; an image has one, or one a color."""
_LS_PRESETS = 0xF8
_END = b"\xff\xd9"
_TAIL = 64
"""Encoders pad the last fragment; the end marker must stand within this many bytes."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81 table B.1), and SOF55 of JPEG-LS."""


def frame_header(stream: bytes) -> FrameHeader | None:
    """Geometry from a JPEG, JPEG-LS or JPEG 2000 codestream, None if it cannot be found."""
    try:
        if stream.startswith(_JPEG_START):
            return _jpeg(stream)
        return jpeg2000_header(stream)
    except (struct.error, IndexError):
        return None


def is_complete(stream: bytes) -> bool:
    """Whether the codestream reaches its end marker (EOI of JPEG, EOC of JPEG 2000)."""
    return _END in stream[-_TAIL:]


def _jpeg(stream: bytes) -> FrameHeader | None:
    """Walk the marker segments up to the first scan: a broken chain crashes some decoders."""
    if stream.count(_SCAN_START) > _MOST_SCANS:
        return None
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
    if marker == _LS_PRESETS:
        return content[:1] in {b"\x01", b"\x02", b"\x03"}  # 4 would state another size
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
