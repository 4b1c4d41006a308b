"""Identifiers that are no UIDs, or that would be a path, a query or a second instance."""

import random
from dataclasses import replace

from tests.bad_input.build import Bad, Cases, Element, instance_of, join, radiograph, text
from tests.raw_client import SC

HOSTILE = (
    "../../etc/passwd", "/etc/passwd", "1.2.3/../../x", "1." + "2" * 63, "1." + "2" * 62 + "3",
    "", " ", "1", ".", "..", "1..2", "1.2.", ".1.2", "1.02.3", "0.0.0", "1.2.3\0.4", "\0",
    "1.2.3\0\0\0",
    "1.2.3 ", " 1.2.3", "1.2.3\\1.2.4", "1.2.\u0663", "1.2.3\n", "1.2.3;rm -rf", "1.2.3' OR 1=1",
    "-1.2", "1.2.+3", "1e9", "NaN", "CON", "1.2.3%00", "2.25." + "9" * 39, "2.25." + "9" * 60,
    "1.2.840.10008.1.1",
)  # fmt: skip
UIDS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)


def cases(seed: int) -> Cases:
    """Every one in every place, alone and everywhere at once."""
    rng = random.Random(seed)
    for number, value in enumerate(HOSTILE):
        for tag in UIDS:
            yield _with(rng, f"uid_{number}_{tag:x}", {tag: value})
        yield _with(rng, f"uid_{number}_everywhere", dict.fromkeys(UIDS[1:], value))
    for tag in UIDS:
        elements = radiograph(rng)
        elements[tag] = Element(tag, "UI", rng.randbytes(32))
        yield Bad(f"uid_noise_{tag:x}", join(elements), instance=instance_of(elements))
    yield _with(rng, "all_the_same", dict.fromkeys(UIDS[1:], "1.2.3.4"))
    other = _with(rng, "class_of_the_command", {})
    yield replace(other, sop_class=SC)
    yield replace(other, name="instance_of_the_command", instance="1.2.3")


def _with(rng: random.Random, name: str, values: dict[int, str]) -> Bad:
    elements = radiograph(rng)
    for tag, value in values.items():
        elements[tag] = text(tag, "UI", value)
    return Bad(name, join(elements), instance=instance_of(elements))
