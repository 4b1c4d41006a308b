"""What is fuzzed: bytes in, a verdict or an answer out; whatever else leaves here is a find.

A target needs no fuzzer: the tests replay with it what was found.
"""

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from covidnet_node.case import Admission
from covidnet_node.errors import NotAnalyzed, Refuse
from covidnet_node.receive.read_header import read_header
from tests.bad_input import frames, rooms, texts, wire
from tests.bad_input.build import PIXELS, Bad, Elements, encapsulated, join, radiograph
from tests.bad_input.corpus import everything
from tests.bad_input.frames import BASELINE, EXTENDED, J2K, JPEG_LS, LOSSLESS, RLE
from tests.bad_input.talk import Watch, echo, say
from tests.raw_client import BIG, DEFLATED, EXPLICIT, IMPLICIT

Target = Callable[[bytes], None]
NATIVE = (EXPLICIT, IMPLICIT, BIG, DEFLATED)
CODECS = (LOSSLESS, BASELINE, JPEG_LS, J2K, RLE, EXTENDED)
LARGEST_SEED = 12_000
_OFFSET_TABLE = b"\xfe\xff\x00\xe0\0\0\0\0"


@cache
def folder() -> Path:
    """Where files are written; in memory where the system has such a place."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own below it
    where = memory if os.access(memory, os.W_OK) else None
    made = Path(tempfile.mkdtemp(prefix="covidnet-fuzz-", dir=where))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def fuzz_header(data: bytes) -> None:
    """Receive and admit; the first byte chooses the transfer syntax."""
    bad, path = object_of(data), folder() / "header"
    path.write_bytes(bad.data)
    try:
        header = read_header(path, 0, bad.syntax)
    except Refuse:
        return
    rooms.admitted(bad, header)


def fuzz_look(data: bytes) -> None:
    """Read and decode a file, as the worker does with what was admitted."""
    rooms.looked_at(filed(object_of(data))[0])


def fuzz_frame(data: bytes) -> None:
    """Decode a compressed frame under a sound header; the first byte chooses the codec."""
    syntax = CODECS[data[0] % len(CODECS)] if data else JPEG_LS
    described = LOSSLESS if syntax == EXTENDED else syntax
    elements = sound_header() | frames.frame(described)[1] | {PIXELS: encapsulated(data[1:])}
    rooms.looked_at(filed(Bad("fuzz", join(elements), syntax))[0])


def fuzz_report(data: bytes) -> None:
    """From a header to a report that passes the gate; the first byte chooses the profile too."""
    bad = object_of(data)
    try:
        path, offset = filed(bad)
        header = read_header(path, offset, bad.syntax)
    except Refuse:
        return
    seen = rooms.looked_at(path)
    verdict = seen if isinstance(seen, NotAnalyzed) else rooms.no_answer()
    profile = rooms.PROFILES[data[0] // 4 % 2]
    ours = Admission(admitted=True, reason=None)
    if not list(rooms.reported(path, header, ours, verdict, (profile,))):
        raise Silence


class Silence(Exception):
    """An image was admitted and not answered."""


class Broken(Exception):
    """Something in the listener was not prepared for what it was sent."""


class Wire:
    """Everything that a client says to a real listener, which must still answer afterwards."""

    EVERY = 25
    """Conversations between two echoes."""

    def __init__(self, address: tuple[str, int], watch: Watch) -> None:
        self._address = address
        self._watch = watch
        self._count = 0

    def __call__(self, data: bytes) -> None:
        """Say it, and see whether anything broke."""
        say(self._address, data)
        self._count += 1
        if self._count % self.EVERY == 0:
            echo(self._address)
        if self._watch.lines:
            raise Broken(*self._watch.lines)


def filed(bad: Bad) -> tuple[Path, int]:
    """A file as the receiver writes it; and where in it the data set begins."""
    head, path = file_meta(bad.syntax), folder() / "file.dcm"
    path.write_bytes(head + bad.data)
    return path, len(head)


@cache
def file_meta(syntax: str) -> bytes:
    """Preamble and file meta; they are ours, and the same for all."""
    path, offset = rooms.written(Bad("", b"", syntax), folder())
    return path.read_bytes()[:offset]


def object_of(data: bytes) -> Bad:
    """A data set; the first byte names the transfer syntax."""
    return Bad("fuzz", data[1:], NATIVE[data[0] % 4] if data else EXPLICIT)


@cache
def sound_header() -> Elements:
    """Drawn once: a frame is all that changes."""
    return radiograph(random.Random(1), side=2)


TARGETS: dict[str, Target] = {
    "header": fuzz_header,
    "look": fuzz_look,
    "frame": fuzz_frame,
    "report": fuzz_report,
}
"""Those that need nothing running; `wire` needs a listener."""


def seeds(target: str, seed: int) -> Iterator[bytes]:
    """Where the fuzzer starts: the corpus, made small."""
    match target:
        case "wire":
            yield from (talk.data for talk in wire.cases(seed) if len(talk.data) < 5000)
        case "frame":
            yield from _frames(seed)
        case "report":
            for number, bad in enumerate(texts.cases(seed)):
                if number % 5 == 0:
                    yield bytes([number % 8]) + shrunk(bad)
        case _:
            for bad in everything(seed):
                if bad.syntax in NATIVE and len(small := shrunk(bad)) < LARGEST_SEED:
                    yield bytes([NATIVE.index(bad.syntax)]) + small


def _frames(seed: int) -> Iterator[bytes]:
    for number, syntax in enumerate(CODECS[:-1]):
        yield bytes([number]) + frames.frame(syntax)[0]
    for bad in frames.cases(seed):
        _, table, stream = bad.data.partition(_OFFSET_TABLE)
        if bad.syntax in CODECS and table and len(bad.data) < 20_000:
            yield bytes([CODECS.index(bad.syntax)]) + stream[8:]


def shrunk(bad: Bad) -> bytes:
    """Without most of its pixels, where they can be told."""
    at = bad.data.rfind(b"\xe0\x7f\x10\x00OW\x00\x00")
    return bad.data if at < 0 else bad.data[: at + 12 + 64]
