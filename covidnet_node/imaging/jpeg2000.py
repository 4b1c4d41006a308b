"""The header of a JPEG 2000 codestream (ISO/IEC 15444-1 Annex A), bare or in a JP2 file.

A decoder allocates for every precinct and code block that the header asks for, before it looks for
their data: 122 bytes can cost it 12 GB. So what is asked for is counted first.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from covidnet_node.imaging.frame_header import FrameHeader

_START = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAIN, _TILE_PART, _BETWEEN = "main header", "header of a tile-part", "behind a tile-part's data"
_PLACES = frozenset({(_MAIN, _SOT), (_TILE_PART, _SOD), (_BETWEEN, _SOT), (_BETWEEN, _EOC)})
"""Where these markers may stand (A.3)."""
_HARMLESS = frozenset(
    {
        *(0xFF55, 0xFF57, 0xFF58),  # TLM, PLM, PLT
        *(0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F),  # QCD, QCC, RGN, POC
        *(0xFF60, 0xFF61, 0xFF63, 0xFF64),  # PPM, PPT, CRG, COM
        _SOT,
    }
)
"""Markers of Part 1 (table A.2) that ask for no more than they hold. No others: a decoder looks
into what it does not know for what it knows, and Part 2 can ask for matrices a tile."""
_MOST_PARTS = 400_000
"""Precincts and code blocks of a frame: 50 million samples in blocks of 16 x 16 have half of it."""
_MOST_STEPS = 20_000_000
"""Layers times the most precincts of a resolution: a decoder notes for each what it has read."""
_MOST_TILES = 16_384
_MOST_SEGMENTS = 100_000
_DEFAULT_PRECINCT = 15
"""Exponent of its side (table A.21)."""
_WIDE_NUMBERS = 257
"""From so many components on, the number of one takes two bytes (A.6.2)."""
_PRECINCTS = 1
"""Bit of Scod: precinct sizes follow (table A.13)."""


@dataclass(frozen=True, slots=True)
class _Canvas:
    """What the frame is divided into."""

    frame: FrameHeader
    tiles: int
    tile_width: int
    tile_height: int


@dataclass(slots=True)
class _Asked:
    """The most that any coding style has asked for so far."""

    layers: int = 1
    resolutions: int = 1
    precincts: int = 1
    """Of one resolution of one component of a tile."""


def jpeg2000_header(stream: bytes) -> FrameHeader | None:
    """Geometry of the frame; None if it is none, or has absurdly many parts.

    Raises struct.error or IndexError where it is cut off.
    """
    start = _codestream(stream)
    if start is None or not stream.startswith(_START, start):
        return None
    canvas = _canvas(stream, start)
    if canvas is None:
        return None
    segments = _segments(stream, start + 2)
    asked = _Asked()
    for number, (marker, content) in enumerate(islice(segments, _MOST_SEGMENTS)):
        first = number == 0 and marker == _SIZ
        if not (first or marker in _HARMLESS or _sound_style(marker, content, canvas, asked)):
            return None
    steps = (asked.layers + 1) * asked.resolutions * asked.precincts * canvas.frame.components
    return canvas.frame if steps <= _MOST_STEPS and next(segments, None) is None else None


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
    """Marker segments of the main header and of all tile-part headers, each behind the last.

    Raises struct.error for what stands where it may not: a decoder passes over that and reads on.
    """
    tile_part = end = 0
    where = _MAIN
    while position < len(stream):
        (marker,) = struct.unpack_from(">H", stream, position)
        if (marker in (_EOC, _SOD, _SOT) or where == _BETWEEN) and (where, marker) not in _PLACES:
            raise struct.error("a marker where it may not be")
        if marker == _EOC:
            return
        if marker == _SOD:
            if end <= tile_part:
                return  # the last tile-part, which reaches to the end of the codestream
            if end < position + 2:
                raise struct.error("a tile-part ends before its data begin")
            position, where = end, _BETWEEN
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker == _SOT:
            (size,) = struct.unpack_from(">L", stream, position + 6)
            tile_part, end, where = position, position + size, _TILE_PART
        yield marker, stream[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)


def _sound_style(marker: int, content: bytes, canvas: _Canvas, asked: _Asked) -> bool:
    """Whether it is a coding style, and asks for a sensible number of parts (A.6.1, A.6.2).

    That of one component is judged alone.
    """
    if marker == _COD:
        asked.layers = max(asked.layers, int.from_bytes(content[2:4]))
        flags, style, components = content[0], content[5:], canvas.frame.components
    elif marker == _COC:
        wide = canvas.frame.components >= _WIDE_NUMBERS
        flags, style, components = content[1 + wide], content[2 + wide :], 1
    else:
        return False
    levels, block = style[0], (style[1] + 2, style[2] + 2)
    if levels > 32:
        return False
    asked.resolutions = max(asked.resolutions, levels + 1)
    parts = 0
    for level in range(levels + 1):
        size = style[5 + level] if flags & _PRECINCTS else _DEFAULT_PRECINCT * 0x11
        precinct = (size & 15, size >> 4)
        if level and 0 in precinct:
            return False  # only of the lowest resolution (A.6.1)
        shrink = levels - level
        sides = [-(-side >> shrink) for side in (canvas.tile_width, canvas.tile_height)]
        precincts, blocks = _parts(sides, precinct, block, half=level > 0)
        parts += precincts + blocks
        asked.precincts = max(asked.precincts, precincts)
    return parts * canvas.tiles * components <= _MOST_PARTS


def _parts(
    sides: Sequence[int], precinct: Sequence[int], block: Sequence[int], *, half: bool
) -> tuple[int, int]:
    """Precincts and code blocks of one resolution of a tile (B.6, B.7), about.

    All but the lowest resolution are held by three bands of half its sides.
    """
    precincts = blocks = 1
    for side, exponent, own in zip(sides, precinct, block, strict=True):
        precincts *= -(-side >> exponent)
        within = min(own, exponent - half)
        blocks *= -(-side >> (within + half))
    return precincts, blocks * (3 if half else 1)


def _canvas(stream: bytes, start: int) -> _Canvas | None:
    """SIZ marker segment, A.5.1."""
    right, bottom, left, top, *tile = struct.unpack_from(">8L", stream, start + 8)
    (components,) = struct.unpack_from(">H", stream, start + 40)
    if 0 in tile[:2]:
        return None
    tiles = -(-right // tile[0]) * -(-bottom // tile[1])
    if tiles > _MOST_TILES:
        return None
    depth = stream[start + 42]
    frame = FrameHeader(bottom - top, right - left, components, (depth & 0x7F) + 1)
    return _Canvas(frame, tiles, min(tile[0], right), min(tile[1], bottom))
