"""Encapsulated pixel data: broken fragments, lying codestreams, decompression bombs."""

import random
import struct
from functools import cache
from tempfile import TemporaryDirectory

import gdcm
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.tag import Tag

from covidnet_node.phantom.film import phantom_dataset
from tests.bad_input.build import (
    DELIMITER,
    PIXELS,
    UNDEFINED,
    Bad,
    Cases,
    Element,
    Elements,
    encapsulated,
    item,
    join,
    radiograph,
    short,
    text,
)

LOSSLESS, BASELINE = str(uid.JPEGLosslessSV1), str(uid.JPEGBaseline8Bit)
JPEG_LS, J2K, RLE = str(uid.JPEGLSLossless), str(uid.JPEG2000Lossless), str(uid.RLELossless)
J2K_LOSSY, EXTENDED = str(uid.JPEG2000), str(uid.JPEGExtended12Bit)
SYNTAXES = (LOSSLESS, BASELINE, JPEG_LS, J2K, RLE)
SIDE = 48


def cases(seed: int) -> Cases:
    """Fragments, codestreams and bombs."""
    rng = random.Random(seed)
    for syntax in SYNTAXES:
        yield from _fragments(rng, syntax)
        yield from _damaged(rng, syntax)
        yield from _lying_sizes(rng, syntax)
    yield from _wrong_codec(rng)
    yield from bombs(seed)


@cache
def frame(syntax: str) -> tuple[bytes, Elements]:
    """A sound frame of SIDE x SIDE, and the elements that describe it."""
    made = _drawn(syntax)
    stream = get_frame(made.PixelData, 0, number_of_frames=1)
    numbers = [short(int(Tag(word)), int(made[word].value)) for word in _DESCRIPTION]
    found = [*numbers, text(0x00280004, "CS", made.PhotometricInterpretation)]
    return stream, {each.tag: each for each in found}


_DESCRIPTION = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
                "PixelRepresentation")  # fmt: skip


def _drawn(syntax: str) -> Dataset:
    if syntax != LOSSLESS:
        bits = 8 if syntax == BASELINE else 12
        return phantom_dataset(3, rows=SIDE, columns=SIDE, bits=bits, transfer_syntax=syntax)
    # Only gdcm writes this one, and only from file to file.
    with TemporaryDirectory() as folder:
        source, target = f"{folder}/source.dcm", f"{folder}/target.dcm"
        phantom_dataset(3, rows=SIDE, columns=SIDE).save_as(source, enforce_file_format=True)
        reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(source)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return dcmread(target)


def wrapped(rng: random.Random, name: str, syntax: str, pixels: Element, *changes: Element) -> Bad:
    """A radiograph around such pixels."""
    elements = radiograph(rng) | frame(syntax)[1]
    elements |= {each.tag: each for each in changes} | {PIXELS: pixels}
    return Bad(f"{name}_{syntax[-3:]}", join(elements), syntax)


def _fragments(rng: random.Random, syntax: str) -> Cases:
    stream, _ = frame(syntax)
    half = len(stream) // 4 * 2
    pieces = {
        "no_fragment": encapsulated(),
        "empty_fragment": encapsulated(b""),
        "in_two": encapsulated(stream[:half], stream[half:]),
        "missing_half": encapsulated(stream[:half]),
        "missing_beginning": encapsulated(stream[half:]),
        "in_a_thousand": encapsulated(*(b"" for _ in range(1000)), stream),
        "absurdly_many": encapsulated(*(b"" for _ in range(20_000)), stream),
        "offsets_beyond": encapsulated(stream, offsets=struct.pack("<LL", 0, 0xFFFFFFF0)),
        "offsets_wrong": encapsulated(stream, offsets=struct.pack("<3L", 77, 5, 5)),
        "offsets_odd": encapsulated(stream, offsets=b"\0\0\0"),
        "many_offsets": encapsulated(stream, offsets=bytes(4 * 5000)),
        "no_delimiter": encapsulated(stream, end=b""),
        "endless_delimiters": encapsulated(stream, end=DELIMITER * 5000),
        "no_offset_table": Element(PIXELS, "OB", item(stream) + DELIMITER, UNDEFINED),
        "defined_length": Element(PIXELS, "OB", item(b"") + item(stream) + DELIMITER),
        "odd_length": Element(
            PIXELS, "OB", item(b"") + item(stream + b"\0", len(stream) + 1) + DELIMITER, UNDEFINED
        ),
        "fragment_too_long": Element(PIXELS, "OB", item(b"") + item(stream, 0x7FFFFFFE), UNDEFINED),
        "fragment_undefined": Element(PIXELS, "OB", item(b"") + item(stream, UNDEFINED), UNDEFINED),
        "native_inside": Element(PIXELS, "OW", rng.randbytes(2 * SIDE * SIDE)),
        "not_items": Element(PIXELS, "OB", rng.randbytes(400) + DELIMITER, UNDEFINED),
    }
    for name, pixels in pieces.items():
        yield wrapped(rng, name, syntax, pixels)


def _damaged(rng: random.Random, syntax: str) -> Cases:
    stream, _ = frame(syntax)
    for number in range(12):
        broken = bytearray(stream)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        yield wrapped(rng, f"damaged_{number}", syntax, encapsulated(bytes(broken)))
    for number in range(6):
        broken = bytearray(stream)
        broken[rng.randrange(min(120, len(broken)))] = rng.randrange(256)
        yield wrapped(rng, f"damaged_head_{number}", syntax, encapsulated(bytes(broken)))
    for share in (0.05, 0.5, 0.95):
        cut = stream[: int(len(stream) * share) // 2 * 2]
        yield wrapped(rng, f"cut_{share}", syntax, encapsulated(cut))


def _lying_sizes(rng: random.Random, syntax: str) -> Cases:
    stream, _ = frame(syntax)
    for rows, columns in ((60_000, 60_000), (SIDE, SIDE + 1), (1, 1), (7000, 7000)):
        size = short(0x00280010, rows), short(0x00280011, columns)
        yield wrapped(rng, f"header_says_{rows}", syntax, encapsulated(stream), *size)
    for tag, value in ((0x00280100, 8), (0x00280100, 16), (0x00280002, 3), (0x00280101, 1)):
        name = f"header_says_{tag:x}_{value}"
        yield wrapped(rng, name, syntax, encapsulated(stream), short(tag, value))


def _wrong_codec(rng: random.Random) -> Cases:
    for stated in (*SYNTAXES, J2K_LOSSY, EXTENDED, "1.2.840.10008.1.2.4.81"):
        for real in SYNTAXES:
            if stated != real:
                stream, described = frame(real)
                elements = radiograph(rng) | described | {PIXELS: encapsulated(stream)}
                yield Bad(f"{real[-3:]}_said_to_be_{stated[-3:]}", join(elements), stated)


# Bombs


def bombs(seed: int) -> Cases:
    """Few bytes that ask for much memory: the frame and the header agree on 7000 x 7000."""
    rng = random.Random(seed)
    side = 7000
    size = (short(0x00280010, side), short(0x00280011, side))
    eight = (*size, short(0x00280100, 8), short(0x00280101, 8), short(0x00280102, 7))
    for name, stream in (
        ("plain", jpeg2000(side)),
        ("small_precincts", jpeg2000(side, precincts=[0x00] + [0x11] * 5)),
        ("small_precincts_of_one_level", jpeg2000(side, precincts=[0x00], levels=0)),
        ("small_precincts_in_a_component", jpeg2000(side, component=[0x00] + [0x11] * 5)),
        ("small_precincts_in_a_tile", jpeg2000(side, tile=[0x00] + [0x11] * 5)),
        ("small_code_blocks", jpeg2000(side, blocks=(0, 0))),
        ("many_tiles", jpeg2000(side, tile_side=7)),
        ("many_layers", jpeg2000(side, layers=65535)),
        ("many_layers_of_many_precincts", jpeg2000(side, layers=32000, precincts=[0x55] * 6)),
        ("hidden_style", jpeg2000(side, hidden=[0x11] * 6)),
        ("style_behind_an_end", jpeg2000(side, stray=b"\xff\xd9", precincts=[0x11] * 6)),
        ("style_behind_data", jpeg2000(side, stray=b"\xff\x93", precincts=[0x11] * 6)),
        ("matrices", jpeg2000(100, tile_side=1, matrix=65_000)),
        ("decoy_in_a_box", jp2(jpeg2000(60_000), decoy=jpeg2000(side))),
    ):
        yield wrapped(rng, f"bomb_{name}", J2K, encapsulated(even(stream)), *eight)
    for rows, syntax in ((side, LOSSLESS), (side, BASELINE), (side, JPEG_LS)):
        stream = headed(frame(syntax)[0], rows, rows)
        yield wrapped(rng, "bomb_header_only", syntax, encapsulated(even(stream)), *size)
    run = b"\x81\0" * 200_000
    segments = struct.pack("<16L", 2, 64, 64 + len(run), *(0 for _ in range(13))) + 2 * run
    yield wrapped(rng, "bomb_runs", RLE, encapsulated(segments))
    yield wrapped(rng, "bomb_runs_large", RLE, encapsulated(segments), *size)
    scans = frame(BASELINE)[0]
    scan = scans[scans.index(b"\xff\xda") : -2]
    many = scans[:-2] + scan[:14] * 2000 + b"\xff\xd9"
    yield wrapped(rng, "bomb_scans", BASELINE, encapsulated(even(many)))


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) % 2)


def headed(stream: bytes, rows: int, columns: int) -> bytes:
    """A JPEG or JPEG-LS frame that says another size."""
    starts = [stream.find(b"\xff" + bytes([marker])) for marker in (0xC0, 0xC1, 0xC3, 0xF7)]
    start = min(each for each in starts if each > 0)
    return stream[: start + 5] + struct.pack(">HH", rows, columns) + stream[start + 9 :]


def jpeg2000(
    side: int,
    *,
    precincts: list[int] | None = None,
    component: list[int] | None = None,
    tile: list[int] | None = None,
    levels: int = 5,
    blocks: tuple[int, int] = (4, 4),
    layers: int = 1,
    tile_side: int | None = None,
    hidden: list[int] | None = None,
    matrix: int = 0,
    stray: bytes = b"",
) -> bytes:
    """A codestream that is nearly all header (ISO/IEC 15444-1 Annex A)."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">HH", marker, len(content) + 2) + content

    def style(sizes: list[int] | None) -> bytes:
        return bytes([levels, *blocks, 0, 1, *(sizes or [])])

    side_of_tile = tile_side or side
    size = struct.pack(">H8LH", 0, side, side, 0, 0, side_of_tile, side_of_tile, 0, 0, 1)
    main = segment(0xFF51, size + bytes([7, 1, 1]))
    main += stray
    main += segment(0xFF52, struct.pack(">BBHB", bool(precincts), 0, layers, 0) + style(precincts))
    if hidden:  # in a segment that a reader may pass over
        main += segment(
            0xFF70, segment(0xFF52, struct.pack(">BBHB", 1, 0, layers, 0) + style(hidden))
        )
    if matrix:
        main += segment(0xFF74, struct.pack(">HHH", 0, 0x0101, 0) + bytes(matrix))
    if component:
        main += segment(0xFF53, bytes([0, 1]) + style(component))
    main += segment(0xFF5C, bytes([0x40, *([64] * (3 * levels + 1))]))
    inner = b""
    if tile:
        inner = segment(0xFF52, struct.pack(">BBHB", 1, 0, layers, 0) + style(tile))
    length = 12 + len(inner) + 2 + 20
    part = struct.pack(">HHHLBB", 0xFF90, 10, 0, length, 0, 1) + inner + b"\xff\x93" + bytes(20)
    return b"\xff\x4f" + main + part + b"\xff\xd9"


def jp2(stream: bytes, decoy: bytes) -> bytes:
    """A JP2 file with another codestream in a box that nobody reads."""
    boxes = [(b"jP  ", b"\r\n\x87\n"), (b"ftyp", b"jp2 \0\0\0\0jp2 "), (b"uuid", bytes(16) + decoy)]
    header = struct.pack(">LLHBBBB", 60_000, 60_000, 1, 7, 7, 0, 0)
    color = struct.pack(">BBBL", 1, 0, 0, 17)
    inner = box(b"ihdr", header) + box(b"colr", color)
    return b"".join(box(*each) for each in (*boxes, (b"jp2h", inner), (b"jp2c", stream)))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L4s", len(content) + 8, kind) + content
