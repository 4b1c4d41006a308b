"""Data sets whose structure lies: nesting, lengths, encodings, and headers without end."""

import random
import struct
import zlib
from dataclasses import replace

from tests.bad_input.build import (
    DELIMITER,
    ITEM_END,
    PIXELS,
    UNDEFINED,
    Bad,
    Cases,
    Element,
    instance_of,
    item,
    join,
    radiograph,
    short,
    spoiled,
    text,
)
from tests.raw_client import BIG, DEFLATED, EXPLICIT, IMPLICIT

PRIVATE, REQUESTS, VOI, PROCEDURE = 0x00091001, 0x00400275, 0x00283010, 0x00081032
CREATOR = text(0x00090010, "LO", "HOSTILE")


def cases(seed: int) -> Cases:
    """Small ones; those that only mean something when large are `bombs`."""
    rng = random.Random(seed)
    yield from _sequences(rng)
    yield from _encodings(rng)
    yield from _order(rng)
    yield from _noise(rng)


def bombs(seed: int, size: int = 3_000_000) -> Cases:
    """Headers of about `size` bytes that cost a parser far more than their bytes."""
    rng = random.Random(seed)
    empty = size // 8
    items = item(b"") * empty
    yield spoiled(rng, "a_million_empty_items", Element(REQUESTS, "SQ", items))
    yield spoiled(
        rng, "a_million_items_undefined", Element(REQUESTS, "SQ", items + DELIMITER, UNDEFINED)
    )
    yield spoiled(
        rng, "private_items", CREATOR, Element(PRIVATE, "UN", items + DELIMITER, UNDEFINED)
    )
    for tag, name in ((VOI, "voi_items"), (PROCEDURE, "code_items"), (0x00102297, "unasked_items")):
        yield spoiled(rng, name, Element(tag, "SQ", items))
    depth = size // 20
    opened = struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, UNDEFINED)
    nested = (item(b"", UNDEFINED) + opened) * depth
    yield spoiled(rng, "nested_without_end", Element(REQUESTS, "SQ", nested, UNDEFINED))
    whole = nested + (DELIMITER + ITEM_END) * depth + DELIMITER
    yield spoiled(rng, "nested_and_closed", Element(REQUESTS, "SQ", whole, UNDEFINED))
    many = b"".join(struct.pack("<HH2sH", 0x0011, each, b"LO", 0) for each in range(1, 60_000))
    yield spoiled(rng, "many_elements", Element(0x00110010, "UT", many))
    flat = b"".join(
        struct.pack("<HH2sH", 0x0011 + 2 * (each // 60_000), each % 60_000, b"LO", 0)
        for each in range(empty)
    )
    elements = radiograph(rng)
    parts = join({tag: each for tag, each in elements.items() if tag < 0x00110000})
    rest = join({tag: each for tag, each in elements.items() if tag >= 0x00180000})
    yield Bad("a_million_elements", parts + flat + rest, instance=instance_of(elements))
    yield spoiled(rng, "elements_in_one_item", Element(REQUESTS, "SQ", item(flat)))
    huge = bytes(size)
    yield spoiled(rng, "private_huge", CREATOR, Element(PRIVATE, "OB", huge))
    yield spoiled(rng, "text_huge", Element(0x00204000, "UT", b"A" * size))
    yield spoiled(rng, "huge_in_an_item", Element(REQUESTS, "SQ", item(
        Element(0x00400007, "UT", b"A" * size).encoded(EXPLICIT)), UNDEFINED))  # fmt: skip
    yield spoiled(rng, "name_huge", Element(0x00100010, "PN", b"A^" * (size // 2)), syntax=IMPLICIT)
    yield deflated_bomb(rng)


def deflated_bomb(rng: random.Random, mebibytes: int = 600) -> Bad:
    """Half a megabyte that becomes six hundred: an honest header, then zeros as pixels."""
    elements = radiograph(rng)
    size = mebibytes << 20
    elements[PIXELS] = Element(PIXELS, "OW", b"", size)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = [packer.compress(join(elements))]
    packed += [packer.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    whole = b"".join([*packed, packer.flush()])
    return Bad("deflated_bomb", whole, DEFLATED, instance=instance_of(elements))


def _sequences(rng: random.Random) -> Cases:
    inner = text(0x00400007, "LO", "Chest").encoded(EXPLICIT)
    values = {
        "no_items": (b"", None),
        "undefined_without_end": (item(inner), UNDEFINED),
        "item_too_long": (item(inner, 0x7FFFFFFF), UNDEFINED),
        "item_too_long_in_defined": (item(inner, 4000), None),
        "item_shorter": (item(inner, 4), None),
        "no_item_tag": (inner, None),
        "no_item_tag_undefined": (inner + DELIMITER, UNDEFINED),
        "item_end_first": (ITEM_END + item(inner), None),
        "only_delimiters": (DELIMITER * 50, UNDEFINED),
        "length_beyond": (item(inner), 0x7FFFFFFE),
        "length_odd": (item(inner) + b"\0", None),
        "text_as_sequence": (b"CHEST PA", None),
        "noise": (rng.randbytes(64), None),
        "noise_undefined": (rng.randbytes(64), UNDEFINED),
    }
    for tag in (REQUESTS, VOI, 0x00282000, PROCEDURE, 0x00282010, PRIVATE):
        for name, (value, length) in values.items():
            yield spoiled(rng, f"{name}_{tag:08x}", CREATOR, Element(tag, "SQ", value, length))
    for depth in (3, 40, 400, 3000):
        nested = b""
        for _ in range(depth):
            nested = Element(REQUESTS, "SQ", item(nested)).encoded(EXPLICIT)
        yield spoiled(rng, f"nested_{depth}", Element(REQUESTS, "SQ", item(nested)))
    for vr in ("OB", "UN", "LO", "OW", "UT", "??"):
        yield spoiled(rng, f"sequence_as_{vr}", Element(REQUESTS, vr, item(inner)))
    undefined_blob = Element(PRIVATE, "OB", rng.randbytes(300), UNDEFINED)
    yield spoiled(rng, "undefined_blob", CREATOR, undefined_blob)
    yield spoiled(rng, "undefined_text", replace(undefined_blob, tag=0x00104000, vr="UT"))


def _encodings(rng: random.Random) -> Cases:
    forms = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big": BIG, "deflated": DEFLATED}
    for said, stated in forms.items():
        for real, syntax in forms.items():
            if said != real:
                whole = join(radiograph(rng, syntax=syntax), syntax)
                yield Bad(f"{real}_said_to_be_{said}", whole, stated)
    elements = radiograph(rng)
    tags = sorted(elements)
    for at in (3, 12, 25):
        head = join({tag: elements[tag] for tag in tags[:at]})
        tail = join({tag: elements[tag] for tag in tags[at:]}, IMPLICIT)
        yield Bad(f"implicit_from_{at}", head + tail)
    for vr in ("XX", "\0\0", "  ", "lo", "US", "SQ", "UN", "OB", "\xff\xff"):
        for tag in (0x00100010, 0x00280010, 0x0020000D, 0x00080005, PIXELS):
            changed = replace(radiograph(rng)[tag], vr=vr)
            yield spoiled(rng, f"vr_{vr!r}_{tag:08x}", changed)


def _order(rng: random.Random) -> Cases:
    elements = radiograph(rng)
    backwards = [elements[tag].encoded(EXPLICIT) for tag in sorted(elements, reverse=True)]
    yield Bad("backwards", b"".join(backwards))
    yield Bad("twice", join(elements)[:-200] + join(elements))
    whole = join(elements)
    meta = text(0x00020010, "UI", DEFLATED).encoded(EXPLICIT)
    yield Bad("file_meta_in_front", meta + whole)
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, 0xFFFFFFF0)
    yield Bad("file_meta_with_length", length + meta + whole)
    yield Bad("command_in_front", short(0x00000100, 1).encoded(EXPLICIT) + whole)
    yield Bad("whole_file", bytes(128) + b"DICM" + meta + whole)
    yield Bad("group_length", struct.pack("<HH2sHL", 8, 0, b"UL", 4, 0x7FFFFFFF) + whole)
    yield Bad("item_in_front", item(b"") + whole)
    yield Bad("delimiter_in_front", DELIMITER + whole)
    yield Bad("item_end_inside", whole[:200] + ITEM_END + whole[200:])
    behind = spoiled(rng, "x", Element(0x7FE10010, "LO", b"BEHIND"), text(0xFFFCFFFC, "OB", "pad"))
    yield replace(behind, name="elements_behind_pixels")


def _noise(rng: random.Random) -> Cases:
    for number in range(40):
        whole = bytearray(join(radiograph(rng)))
        for _ in range(rng.randrange(1, 12)):
            whole[rng.randrange(700)] = rng.randrange(256)
        yield Bad(f"noise_{number}", bytes(whole))
    for size in (0, 1, 7, 8, 131, 132, 5000):
        yield Bad(f"only_noise_{size}", rng.randbytes(size))
    yield Bad("zeros", bytes(5000))
    yield Bad("ones", b"\xff" * 5000)
