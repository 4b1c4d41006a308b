"""Names in many character sets, rightly declared, wrongly declared, and not text at all."""

import random

from tests.bad_input.build import Bad, Cases, Element, item, join, radiograph, spoiled, text

CHARSETS = ("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 144", "ISO_IR 127", "ISO_IR 126", "ISO_IR 138",
            "ISO_IR 148", "ISO_IR 166", "ISO_IR 13", "ISO_IR 192", "GB18030", "GBK",
            "\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 149",
            "\\ISO 2022 IR 58", "ISO 2022 IR 6\\ISO 2022 IR 159", "iso_ir 192", "ISO-IR 100",
            "UTF-8", "NOT A SET", "ISO_IR 192\\ISO 2022 IR 87", "GB18030\\ISO 2022 IR 58",
            "\\\\\\", "ISO 2022 GBK", "ISO_IR 100\\ISO_IR 100", "utf_16", "zlib", "unicode_escape",
            "idna", "\0\0", "ISO_IR 999")  # fmt: skip
NAMES = {
    "japanese": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
    b"=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    "korean": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
    "gb18030": "Wang^XiaoDong=王^小东=".encode("gb18030"),
    "utf8": "Wang^XiaoDong=王^小东=".encode(),
    "latin1": "Äneas^Rüdiger".encode("latin-1"),
    "cyrillic": "Люкceмбypг".encode("iso8859_5"),
    "greek": "Διονυσιος".encode("iso8859_7"),
    "thai": "นามสกุล".encode("tis-620"),
    "bad_utf8": b"\xff\xfe\xc0\xaf^\xed\xa0\x80",
    "bad_escape": b"Name\x1b$^\x1b(Z\x1b\x1b^\x1b",
    "cut_escape": b"Yamada=\x1b$B;",
    "never_back": b"Yamada=\x1b$B;3ED",
    "controls": b"A\0B\rC\nD\x08E^\x07",
    "delimiters": b"====^^^^\\\\\\\\",
    "long": b"N" * 5000,
    "format": b"%s%n{0}{patient}\\x00",
    "markup": b"<script>alert(1)</script>^'; DROP TABLE case;--",
    "log_line": b'"}\n{"event":"admitted"}',
}
TAGS = ((0x00100010, "PN"), (0x00081030, "LO"), (0x00100020, "LO"), (0x00080090, "PN"))


def cases(seed: int) -> Cases:
    """Every name under every declaration."""
    rng = random.Random(seed)
    for number, declared in enumerate(CHARSETS):
        for name, value in NAMES.items():
            changed = [text(tag, vr, value) for tag, vr in TAGS]
            yield spoiled(rng, f"{name}_{number}", text(0x00080005, "CS", declared), *changed)
    for name, value in NAMES.items():
        yield spoiled(rng, f"{name}_undeclared", text(0x00100010, "PN", value),
                      without=(0x00080005,))  # fmt: skip
    yield spoiled(rng, "charset_noise", Element(0x00080005, "CS", rng.randbytes(40)))
    yield spoiled(rng, "charset_long", Element(0x00080005, "CS", b"ISO_IR 100\\" * 3000))
    yield spoiled(rng, "charset_as_number", Element(0x00080005, "US", b"\1\0"))
    inner = text(0x00080005, "CS", "ISO_IR 192").encoded("") + text(
        0x00400007, "LO", NAMES["bad_utf8"]
    ).encoded("")
    yield spoiled(rng, "charset_in_item", Element(0x00400275, "SQ", item(inner)))
    odd = Element(0x00080005, "US", b"\1\0\2")
    yield spoiled(rng, "charset_as_odd_number", odd)
    for tag in (0x00400275, 0x00081032, 0x00101002, 0x00283010):
        sequence = Element(tag, "SQ", item(odd.encoded("")))
        yield spoiled(rng, f"charset_as_odd_number_in_{tag:x}", sequence)
    for number in range(20):
        elements = radiograph(rng)
        declared = b"\\".join(rng.choice(CHARSETS).encode() for _ in range(rng.randrange(1, 4)))
        elements[0x00080005] = text(0x00080005, "CS", declared)
        for tag, vr in TAGS:
            elements[tag] = text(tag, vr, rng.choice(list(NAMES.values())) + rng.randbytes(6))
        yield Bad(f"mixed_{number}", join(elements))
