"""The header of a JPEG 2000 codestream (ISO/IEC 15444-1 Annex A), bare or in a JP2 file.

A decoder allocates for every precinct and code block that the header asks for, before it looks for
their data: 122 bytes can cost it 12 GB. So what is asked for is counted first.
"""

import struct
from collections.abc import Iterator

from covidnet_node.imaging.frame_header import FrameHeader

_START = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_LEAST_BLOCK = 8
"""Exponents of a code block's sides, together: 16 x 16, where 64 x 64 is usual."""
_LEAST_PRECINCT = 5
"""Exponent of a precinct's side: 32, where 32768 is the default."""
_MOST_TILES = 16_384
_PRECINCTS = 1
"""Bit of Scod: precinct sizes follow (table A.13)."""


def jpeg2000_header(stream: bytes) -> FrameHeader | None:
    """Geometry of the frame; None if it is none, or has absurdly many parts.

    Raises struct.error or IndexError where it is cut off.
    """
    start = _codestream(stream)
    if start is None or not stream.startswith(_START, start):
        return None
    if not all(_sound(marker, content) for marker, content in _segments(stream, start + 2)):
        return None
    return _size(stream, start)


def _codestream(stream: bytes) -> int | None:
    """Where the codestream begins: at once, or in the first box of its kind (I.5.4)."""
    if not stream.startswith(_JP2):
        return 0
    position = 0
    while position < len(stream):
        length, kind = struct.unpack_from(">L4s", stream, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, position + 8)
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:
            return None
        position += length
    return None


def _segments(stream: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Marker segments of the main header and of all tile-part headers, each behind the last."""
    tile_part = end = 0
    while position < len(stream):
        (marker,) = struct.unpack_from(">H", stream, position)
        if marker == _EOC:
            return
        if marker == _SOD:
            if end <= tile_part:
                return  # the last tile-part, which reaches to the end of the codestream
            if end < position + 2:
                raise struct.error("a tile-part ends before its data begin")
            position = end
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker == _SOT:
            (size,) = struct.unpack_from(">L", stream, position + 6)
            tile_part, end = position, position + size
        yield marker, stream[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)


def _sound(marker: int, content: bytes) -> bool:
    """Whether the coding style asks for parts of a sensible size (A.6.1, A.6.2)."""
    if marker == _COD:
        return _sound_style(content[0], content[5:])
    if marker == _COC:  # of one of at most 256 components
        return _sound_style(content[1], content[2:])
    return True


def _sound_style(flags: int, style: bytes) -> bool:
    """SPcod or SPcoc: levels, code block, transformation, precincts if there are any stated."""
    levels, width, height = style[0], style[1] + 2, style[2] + 2
    if levels > 32 or width + height < _LEAST_BLOCK:
        return False
    if not flags & _PRECINCTS:
        return True
    sizes = style[5 : 6 + levels]
    return all(min(size & 15, size >> 4) >= _LEAST_PRECINCT for size in sizes)


def _size(stream: bytes, start: int) -> FrameHeader | None:
    """SIZ marker segment, A.5.1."""
    right, bottom, left, top, *tile = struct.unpack_from(">8L", stream, start + 8)
    (components,) = struct.unpack_from(">H", stream, start + 40)
    if 0 in tile[:2] or -(-right // tile[0]) * -(-bottom // tile[1]) > _MOST_TILES:
        return None
    depth = stream[start + 42]
    return FrameHeader(bottom - top, right - left, components, (depth & 0x7F) + 1)
