"""Native pixel data that are cut off, or that contradict the header about them."""

import random
import struct
from dataclasses import replace

from tests.bad_input.build import (
    PIXELS,
    SIDE,
    UNDEFINED,
    Bad,
    Cases,
    Element,
    join,
    radiograph,
    short,
    spoiled,
    text,
)
from tests.raw_client import BIG, DEFLATED, EXPLICIT, IMPLICIT


def cases(seed: int) -> Cases:
    """Lengths, sizes, bits, signs and kinds that are not what the header says."""
    rng = random.Random(seed)
    yield from _lengths(rng)
    yield from _sizes(rng)
    yield from _bits(rng)
    yield from _kinds(rng)
    yield from _cut_off(rng)


def _lengths(rng: random.Random) -> Cases:
    whole = 2 * SIDE * SIDE
    for stated in (0, 1, whole - 1, whole + 2, 0x7FFFFFFE, 0xFFFFFFFE, UNDEFINED):
        real = radiograph(rng)[PIXELS]
        yield spoiled(rng, f"pixel_length_{stated:x}", replace(real, length=stated))
    for part in (0, 1, whole // 2, whole - 1):
        yield spoiled(rng, f"pixel_bytes_{part}", Element(PIXELS, "OW", bytes(part)))
    yield spoiled(rng, "pixels_twice_as_long", Element(PIXELS, "OW", bytes(2 * whole)))


def _sizes(rng: random.Random) -> Cases:
    for rows, columns in ((0, SIDE), (SIDE, 0), (1, 1), (SIDE, 63), (65535, 65535), (7, 1)):
        yield spoiled(
            rng, f"size_{rows}x{columns}", short(0x00280010, rows), short(0x00280011, columns)
        )
    for samples in (0, 2, 3, 4, 65535):
        yield spoiled(rng, f"samples_{samples}", short(0x00280002, samples))
    for frames in ("0", "-1", "2", "1000000000000", "one", "", "1\\2", "1.0"):
        yield spoiled(rng, f"frames_{frames}", text(0x00280008, "IS", frames))
    yield spoiled(rng, "rows_as_text", text(0x00280010, "LO", "sixty-four"))
    yield spoiled(rng, "rows_of_many", short(0x00280010, 64, 64, 64))
    yield spoiled(rng, "rows_empty", Element(0x00280010, "US", b""))
    yield spoiled(rng, "rows_of_one_byte", Element(0x00280010, "US", b"\x40"))
    yield spoiled(rng, "rows_of_four_bytes", Element(0x00280010, "UL", b"\x40\0\0\0"))


def _bits(rng: random.Random) -> Cases:
    for allocated in (0, 1, 7, 8, 12, 24, 32, 64, 65535):
        yield spoiled(rng, f"allocated_{allocated}", short(0x00280100, allocated))
    for stored, high in ((0, 0), (0, 65535), (17, 16), (12, 15), (12, 5), (1, 0), (16, 15)):
        yield spoiled(
            rng, f"stored_{stored}_high_{high}", short(0x00280101, stored), short(0x00280102, high)
        )
    for sign in (1, 2, 65535):
        yield spoiled(rng, f"representation_{sign}", short(0x00280103, sign))


_PHOTOMETRIC = ("MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "CMYK", "HSV",
                "monochrome2", "", "MONOCHROME2\\RGB", "YBR_PARTIAL_420")  # fmt: skip


def _kinds(rng: random.Random) -> Cases:
    for photometric in _PHOTOMETRIC:
        for samples in (1, 3):
            yield spoiled(
                rng,
                f"photometric_{photometric}_{samples}",
                text(0x00280004, "CS", photometric),
                short(0x00280002, samples),
                short(0x00280006, samples - 1),
            )
    rgb = (short(0x00280002, 3), text(0x00280004, "CS", "RGB"), short(0x00280100, 8),
           short(0x00280101, 8), short(0x00280102, 7))  # fmt: skip
    for planar in (0, 1, 2, 65535):
        pixels = Element(PIXELS, "OB", rng.randbytes(3 * SIDE * SIDE))
        yield spoiled(rng, f"planar_{planar}", *rgb, short(0x00280006, planar), pixels)
    yield spoiled(rng, "one_bit", short(0x00280100, 1), short(0x00280101, 1),
                  short(0x00280102, 0), Element(PIXELS, "OB", bytes(SIDE * SIDE // 8)))  # fmt: skip
    for tag, vr, size in ((0x7FE00008, "OF", 4), (0x7FE00009, "OD", 8)):
        numbers = [float("nan"), float("inf"), -1e308 if size == 8 else -1e38, 1e-300, 0.0, 1.0]
        form = "f" if size == 4 else "d"
        values = struct.pack(
            f"<{SIDE * SIDE}{form}", *(rng.choice(numbers) for _ in range(SIDE**2))
        )
        width = short(0x00280100, 8 * size)
        yield spoiled(rng, f"floating_{vr}", width, Element(tag, vr, values), without=(PIXELS,))
        yield spoiled(rng, f"floating_{vr}_short", Element(tag, vr, values[:99]), without=(PIXELS,))
    yield spoiled(rng, "two_kinds_of_pixels", Element(0x7FE00008, "OF", bytes(4 * SIDE * SIDE)))
    yield spoiled(rng, "every_pixel_the_same", Element(PIXELS, "OW", bytes(2 * SIDE * SIDE)))
    yield spoiled(rng, "no_pixels", without=(PIXELS,))


def _cut_off(rng: random.Random) -> Cases:
    for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED):
        whole = join(radiograph(rng, syntax=syntax), syntax)
        for share in (0.01, 0.3, 0.9, 0.999):
            yield Bad(f"cut_{syntax[-4:]}_{share}", whole[: int(len(whole) * share)], syntax)
        yield Bad(f"trailing_{syntax[-4:]}", whole + rng.randbytes(333), syntax)
    whole = join(radiograph(rng, syntax=DEFLATED), DEFLATED)
    middle = len(whole) // 2
    yield Bad("deflated_damaged", whole[:middle] + rng.randbytes(64) + whole[middle:], DEFLATED)
