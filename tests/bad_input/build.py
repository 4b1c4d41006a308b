"""Data sets written by hand, element by element: what no library would write."""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.raw_client import BIG, CR, DEFLATED, EXPLICIT, IMPLICIT

UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
PIXELS = 0x7FE00010
SIDE = 64


@dataclass(frozen=True, slots=True)
class Bad:
    """One data set as a hostile or broken sender would send it."""

    name: str
    data: bytes
    syntax: str = EXPLICIT
    sop_class: str = CR
    instance: str = "1.2.3.4.5.6"
    """What the C-STORE command says."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element with its value already encoded, and a length that may lie."""

    tag: int
    vr: str
    value: bytes
    length: int | None = None

    def encoded(self, syntax: str) -> bytes:
        """As it travels; the value is written as it is."""
        order = ">" if syntax == BIG else "<"
        size = len(self.value) if self.length is None else self.length
        tag = struct.pack(order + "HH", self.tag >> 16, self.tag & 0xFFFF)
        if syntax == IMPLICIT:
            return tag + struct.pack(order + "L", size) + self.value
        vr = self.vr.encode("latin-1")
        if self.vr in LONG_VRS:
            return tag + vr + b"\0\0" + struct.pack(order + "L", size) + self.value
        return tag + vr + struct.pack(order + "H", size & 0xFFFF) + self.value


Elements = dict[int, Element]


def text(tag: int, vr: str, value: str | bytes, codec: str = "utf-8") -> Element:
    """Text of even length."""
    raw = value if isinstance(value, bytes) else value.encode(codec)
    padding = b"\0" if vr == "UI" else b" "
    return Element(tag, vr, raw + padding * (len(raw) % 2))


def short(tag: int, *values: int, vr: str = "US", order: str = "<") -> Element:
    """16-bit numbers."""
    return Element(tag, vr, b"".join(struct.pack(order + "H", value & 0xFFFF) for value in values))


def item(content: bytes, length: int | None = None) -> bytes:
    """An item, or what says that it is one."""
    size = len(content) if length is None else length
    return struct.pack("<HHL", 0xFFFE, 0xE000, size) + content


DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)


def radiograph(rng: random.Random, *, syntax: str = EXPLICIT, side: int = SIDE) -> Elements:
    """A small adult's chest radiograph, as elements that can be spoiled one by one."""
    order = ">" if syntax == BIG else "<"
    study = f"1.2.826.0.1.{rng.randrange(1, 10**9)}"
    pixels = struct.pack(
        f"{order}{side * side}H", *(rng.randrange(4096) for _ in range(side * side))
    )
    found = [
        text(0x00080005, "CS", "ISO_IR 100"),
        text(0x00080008, "CS", "ORIGINAL\\PRIMARY"),
        text(0x00080016, "UI", CR),
        text(0x00080018, "UI", Bad("", b"").instance),
        text(0x00080020, "DA", "20260101"),
        text(0x00080030, "TM", "101500"),
        text(0x00080050, "SH", "A1"),
        text(0x00080060, "CS", "CR"),
        text(0x00080090, "PN", "Ref^Erring"),
        text(0x00081030, "LO", "Chest PA"),
        text(0x00100010, "PN", "Phantom^Bad"),
        text(0x00100020, "LO", "BAD-1"),
        text(0x00100030, "DA", "19700101"),
        text(0x00100040, "CS", "F"),
        text(0x00101010, "AS", "056Y"),
        text(0x00180015, "CS", "CHEST"),
        text(0x00185101, "CS", "PA"),
        text(0x0020000D, "UI", study),
        text(0x0020000E, "UI", study + ".1"),
        text(0x00200010, "SH", "7"),
        text(0x00200013, "IS", "1"),
        text(0x00200020, "CS", "L\\F"),
        short(0x00280002, 1, order=order),
        text(0x00280004, "CS", "MONOCHROME2"),
        short(0x00280010, side, order=order),
        short(0x00280011, side, order=order),
        short(0x00280100, 16, order=order),
        short(0x00280101, 12, order=order),
        short(0x00280102, 11, order=order),
        short(0x00280103, 0, order=order),
        text(0x00281050, "DS", "2048"),
        text(0x00281051, "DS", "4096"),
        Element(PIXELS, "OW", pixels),
    ]
    return {each.tag: each for each in found}


def join(elements: Elements, syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes; deflated where the syntax says so."""
    inner = EXPLICIT if syntax == DEFLATED else syntax
    whole = b"".join(elements[tag].encoded(inner) for tag in sorted(elements))
    if syntax != DEFLATED:
        return whole
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(whole) + packer.flush()


def spoiled(
    rng: random.Random,
    name: str,
    *changes: Element,
    without: tuple[int, ...] = (),
    syntax: str = EXPLICIT,
) -> Bad:
    """A radiograph with some elements replaced, added or taken away."""
    elements = radiograph(rng, syntax=syntax)
    for tag in without:
        elements.pop(tag, None)
    for each in changes:
        elements[each.tag] = each
    return Bad(name, join(elements, syntax), syntax, instance=instance_of(elements))


def instance_of(elements: Elements) -> str:
    """What an honest command would name; hostile UIDs are named as they stand."""
    raw = elements[0x00080018].value if 0x00080018 in elements else b"1.2.3"
    return raw.decode("latin-1").rstrip("\0 ")


def encapsulated(*fragments: bytes, offsets: bytes = b"", end: bytes = DELIMITER) -> Element:
    """Pixel data in fragments (PS3.5 A.4); every part may be wrong."""
    value = item(offsets) + b"".join(item(each) for each in fragments) + end
    return Element(PIXELS, "OB", value, UNDEFINED)


Cases = Iterator[Bad]
