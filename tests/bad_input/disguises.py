"""Other objects under a radiograph's name: reports, documents, movies, color."""

import random

from tests.bad_input.build import (
    EXPLICIT,
    PIXELS,
    Cases,
    Element,
    item,
    short,
    spoiled,
    text,
)

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def cases(seed: int) -> Cases:
    """What says CR or DX and is something else."""
    rng = random.Random(seed)
    document = Element(0x00420011, "OB", b"%PDF-1.7\n" + rng.randbytes(500) + b"%%EOF")
    yield spoiled(rng, "pdf", document, text(0x00420012, "LO", "application/pdf"),
                  without=(PIXELS, 0x00280010, 0x00280011))  # fmt: skip
    yield spoiled(rng, "pdf_with_pixels", document)
    content = Element(0x0040A730, "SQ", item(text(0x0040A040, "CS", "CONTAINER").encoded(EXPLICIT)))
    yield spoiled(rng, "report", content, text(0x00080060, "CS", "SR"), without=(PIXELS,))
    yield spoiled(rng, "report_with_pixels", content)
    for modality in ("MR", "SR", "OT", "", "CR\\DX", "dx", "\0\0", "A" * 80):
        yield spoiled(rng, f"modality_{modality}", text(0x00080060, "CS", modality))
    frames = Element(PIXELS, "OW", bytes(2 * 64 * 64 * 3))
    yield spoiled(rng, "three_frames", text(0x00280008, "IS", "3"), frames)
    yield spoiled(rng, "three_frames_said_one", text(0x00280008, "IS", "1"), frames)
    functional = Element(0x52009230, "SQ", item(b"") * 500)
    yield spoiled(rng, "enhanced", text(0x00280008, "IS", "500"), functional)
    overlay = (
        short(0x60000010, 65535), short(0x60000011, 65535), text(0x60000040, "CS", "G"),
        short(0x60000100, 16), Element(0x60003000, "OW", bytes(16)),
    )  # fmt: skip
    yield spoiled(rng, "overlay", *overlay)
    icon = item(short(0x00280010, 60_000).encoded(EXPLICIT)
                + Element(PIXELS, "OW", bytes(64)).encoded(EXPLICIT))  # fmt: skip
    yield spoiled(rng, "icon", Element(0x00880200, "SQ", icon))
    for orientation in ("A\\F", "L\\F\\H", "\\", "LF", "X\\Y", "", "P\\H", "\u00e4\\F"):
        yield spoiled(rng, f"orientation_{orientation}", text(0x00200020, "CS", orientation))
    for view in ("LL", "LATERAL", "PA\\LL", "", "?", "AP" * 40):
        yield spoiled(rng, f"view_{view}", text(0x00185101, "CS", view))
    yield spoiled(rng, "no_human", text(0x00102201, "LO", "Canis lupus familiaris"))
    yield spoiled(rng, "for_processing", text(0x00080068, "CS", "FOR PROCESSING"))
    yield spoiled(
        rng, "our_own", text(0x00080070, "LO", "CovidNet"), text(0x00081090, "LO", "CovidNet Node")
    )
