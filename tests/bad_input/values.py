"""Values of the wrong kind, and display attributes that cannot be meant."""

import random
import struct

from tests.bad_input.build import (
    EXPLICIT,
    Cases,
    Element,
    item,
    radiograph,
    short,
    spoiled,
    text,
)

NUMBERS = ("0", "-1", "nan", "inf", "-inf", "1e400", "1,5", "1.5mm", "", " ", "\\", "1\\",
           "\\1",
           "1e-320", "--1", "0x10", "9" * 200, "1" + "0" * 17, "\u0661",
           "1_0")  # fmt: skip
DATES = ("2026-01-01", "20261301", "20260230", "00000000", "99999999", "1.1.1970", "", "today",
         "2026", "20260101120000", "19700101\\19710101", "-9700101", "1970.01.01",
         "\0\0\0\0")  # fmt: skip
AGES = ("056", "56", "0560Y", "-56Y", "056X", "999Y", "000Y", "Y056", "5 6Y", "", "018M",
        "017Y\\018Y")  # fmt: skip
NUMERIC = {
    "center": 0x00281050,
    "width": 0x00281051,
    "intercept": 0x00281052,
    "slope": 0x00281053,
    "spacing": 0x00280030,
    "imager_spacing": 0x00181164,
    "weight": 0x00101030,
}


def cases(seed: int) -> Cases:
    """Numbers, dates, ages, missing attributes, windows and lookup tables."""
    rng = random.Random(seed)
    for name, tag in NUMERIC.items():
        for number, value in enumerate(NUMBERS):
            yield spoiled(rng, f"{name}_{number}", text(tag, "DS", value))
    for tag in (0x00200013, 0x00200011, 0x00280008):
        for value in ("one", "1.5", "99999999999", "1,2", "-0", "+1"):
            yield spoiled(rng, f"whole_{tag:x}_{value}", text(tag, "IS", value))
    for value in DATES:
        for tag in (0x00100030, 0x00080020):
            yield spoiled(rng, f"date_{tag:x}_{value}", text(tag, "DA", value))
    for value in AGES:
        yield spoiled(rng, f"age_{value}", text(0x00101010, "AS", value))
    for value in ("246060", "10:15", "-1", "ten", "", "101500.1234567"):
        yield spoiled(rng, f"time_{value}", text(0x00080030, "TM", value))
    for value in ("+9999", "+0160", "Z", "", "-1500", "+01:00"):
        yield spoiled(rng, f"zone_{value}", text(0x00080201, "SH", value))
    yield from _missing(rng)
    yield from _windows(rng)
    yield from _tables(rng)


def _missing(rng: random.Random) -> Cases:
    for tag, element in radiograph(rng).items():
        yield spoiled(rng, f"without_{tag:08x}", without=(tag,))
        yield spoiled(rng, f"empty_{tag:08x}", Element(tag, element.vr, b""))
        if element.vr not in {"UI", "OW"}:
            noise = rng.randbytes(2 * rng.randrange(1, 40))
            yield spoiled(rng, f"noise_{tag:08x}", Element(tag, element.vr, noise))
        long = Element(tag, element.vr, (element.value or b"\0") * 900)
        if len(long.value) < 65_000 and element.vr != "OW":
            yield spoiled(rng, f"long_{tag:08x}", long)


def _windows(rng: random.Random) -> Cases:
    pairs = (("2048", "0"), ("nan", "nan"), ("0", "-4096"), ("1e300", "1e300"),
             ("40\\50", "0\\400"),
             ("2048", ""), ("", "4096"), ("2048\\2048\\2048", "1"), ("-inf", "inf"))  # fmt: skip
    for center, width in pairs:
        for function in ("", "SIGMOID", "LINEAR_EXACT", "WRONG"):
            yield spoiled(
                rng,
                f"window_{center}_{width}_{function}",
                text(0x00281050, "DS", center),
                text(0x00281051, "DS", width),
                text(0x00281056, "CS", function),
            )
    for first, last in ((0, 65535), (4095, 0), (65535, 65535)):
        padding = short(0x00280120, first), short(0x00280121, last)
        yield spoiled(rng, f"padding_{first}_{last}", *padding)
    for shape in ("INVERSE", "IDENTITY", "LIN OD", "inverse", ""):
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            yield spoiled(rng, f"shape_{shape}_{photometric}", text(0x20500020, "CS", shape),
                          text(0x00280004, "CS", photometric))  # fmt: skip


def _tables(rng: random.Random) -> Cases:
    full = struct.pack("<4096H", *range(4096))
    tables = {
        "inverted": ((4096, 0, 12), struct.pack("<4096H", *reversed(range(4096)))),
        "short": ((4096, 0, 12), full[:100]),
        "empty": ((4096, 0, 12), b""),
        "zero_entries": ((0, 0, 16), full),
        "no_bits": ((4096, 0, 0), full),
        "many_bits": ((4096, 0, 65535), full),
        "first_beyond": ((4096, 65535, 12), full),
        "all_zero": ((4096, 0, 12), bytes(8192)),
        "one_entry": ((1, 0, 8), b"\xff\xff"),
        "in_bytes": ((256, 0, 8), bytes(range(256))),
        "two_descriptors": ((4096, 0), full),
        "six_descriptors": ((1, 2, 3, 4, 5, 6), full),
        "no_descriptor": ((), full),
    }
    for name, (descriptor, data) in tables.items():
        for vr in ("OW", "US", "SS", "UN"):
            inner = short(0x00283002, *descriptor).encoded(EXPLICIT)
            inner += Element(0x00283006, vr, data).encoded(EXPLICIT)
            for tag in (0x00283000, 0x00283010):
                sequence = Element(tag, "SQ", item(inner))
                yield spoiled(rng, f"table_{name}_{vr}_{tag:x}", sequence)
    palette = text(0x00280004, "CS", "PALETTE COLOR")
    for name, (descriptor, data) in tables.items():
        described = [short(0x00281101 + each, *descriptor) for each in range(3)]
        filled = [Element(0x00281201 + each, "OW", data) for each in range(3)]
        yield spoiled(rng, f"palette_{name}", palette, *described, *filled)
    yield spoiled(rng, "palette_missing", palette)
    segmented = [Element(0x00281221 + each, "OW", rng.randbytes(64)) for each in range(3)]
    yield spoiled(rng, "palette_segmented", palette, *segmented)
