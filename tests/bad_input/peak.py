"""The most memory that one object takes, in a process of its own: `python -m ... FOLDER NAME`."""

import random
import resource
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from covidnet_node.errors import NotAnalyzed, Refuse
from covidnet_node.imaging.decode import read_source
from covidnet_node.imaging.digest import identity_digest
from covidnet_node.receive.read_header import read_header
from tests.bad_input.build import PIXELS, Bad, Element, join, radiograph, short
from tests.bad_input.rooms import looked_at, written

SEED = 1
SIDE = 7071
"""Squared, just within the limit of samples."""


def largest() -> Bad:
    """The costliest image that is decoded: every sample a 32-bit floating-point number."""
    elements = radiograph(random.Random(SEED), side=2)
    del elements[PIXELS]
    pixels = bytes(range(256)) * (4 * SIDE * SIDE // 256 + 1)
    floats = Element(0x7FE00008, "OF", pixels[: 4 * SIDE * SIDE])
    for each in (short(0x00280010, SIDE), short(0x00280011, SIDE), short(0x00280100, 32), floats):
        elements[each.tag] = each
    return Bad("largest", join(elements))


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(*bads: Bad, folder: Path) -> int:
    """MiB that reading these, one after the other, adds to a process that has all its code."""
    told = []
    for number, bad in enumerate(bads):
        place = folder / str(number)
        place.mkdir(exist_ok=True)
        path, offset = written(bad, place)
        told += [str(path), str(offset), bad.syntax]
    command = [sys.executable, "-m", "tests.bad_input.peak", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout)


def read(path: Path, offset: int, syntax: str) -> None:
    """As receiver and worker do; the worker also what the receiver would not have let through."""
    with suppress(Refuse):
        read_header(path, offset, syntax)
    looked_at(path)
    with suppress(NotAnalyzed):
        identity_digest(read_source(path))


def main() -> None:
    warnings.simplefilter("ignore")
    before = peak_mib()
    told = iter(sys.argv[1:])
    for path in told:
        read(Path(path), int(next(told)), next(told))
    sys.stdout.write(f"{peak_mib() - before}\n")


if __name__ == "__main__":
    main()
