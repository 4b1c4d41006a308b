"""RLE Lossless (PS3.5 Annex G), decoded no further than the frame is large.

pydicom's own decoder unpacks a segment to its end before it looks at the length: two bytes become
128, so that a file of 200 MB asks for 12 GB. This one stops when it has what it needs.
"""

import struct
from itertools import pairwise

from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import RLELossless

DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {RLELossless: ()}
"""Asked for by pydicom's plugin interface."""


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame to little endian samples, plane after plane.

    Raises ValueError if the segments are not those of the frame, or too short.
    """
    depth = runner.bits_allocated // 8
    pixels, planes = runner.rows * runner.columns, runner.samples_per_pixel
    if len(source) < 64:
        raise ValueError("no RLE header")
    count, *offsets = struct.unpack("<16L", source[:64])
    if runner.bits_allocated % 8 or count != planes * depth:
        raise ValueError("not one RLE segment for each byte of a pixel")
    starts = [*offsets[:count], len(source)]
    frame = bytearray(pixels * planes * depth)
    for index, (start, end) in enumerate(pairwise(starts)):
        plane, most_significant = divmod(index, depth)
        first, behind = plane * pixels * depth, (plane + 1) * pixels * depth
        place = slice(first + depth - 1 - most_significant, behind, depth)
        frame[place] = _unpack(source[start:end], pixels)
    runner.set_option("planar_configuration", 1)
    return frame


def _unpack(segment: bytes, wanted: int) -> bytearray:
    """PS3.5 G.3.2: runs of one byte and literal bytes, up to `wanted` of them."""
    unpacked = bytearray()
    position = 0
    while len(unpacked) < wanted and position < len(segment):
        control = segment[position]
        position += 1
        if control > 128:
            unpacked += segment[position : position + 1] * (257 - control)
            position += 1
        elif control < 128:
            unpacked += segment[position : position + control + 1]
            position += control + 1
    if len(unpacked) < wanted:
        raise ValueError("an RLE segment is too short")
    del unpacked[wanted:]
    return unpacked
