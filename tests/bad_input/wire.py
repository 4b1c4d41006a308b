"""Bytes on the wire that are no proper conversation (PS3.8, PS3.7).

Each case is all that a client sends, from its first byte on. A case that needs an association
begins with a sound request for one: the node reads on while it answers.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.raw_client import (
    ABORT,
    COMMAND,
    CR,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_RQ,
    VERIFICATION,
    padded,
    request_pdu,
)

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP = 1, 2, 3, 6
APPLICATION = "1.2.840.10008.3.1.1.1"
REQUEST = request_pdu([(CR, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,))])
RELEASE = struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0)


@dataclass(frozen=True, slots=True)
class Talk:
    """Everything that one client says."""

    name: str
    data: bytes


Talks = Iterator[Talk]


def pdu(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A PDU whose length may lie."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def pdv(context: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """A presentation data value item (PS3.8 E.1)."""
    size = len(data) + 2 if length is None else length
    return struct.pack(">LBB", size, context, control) + data


def fragment(data: bytes, control: int, context: int = 1) -> bytes:
    """A P-DATA-TF with one item."""
    return pdu(P_DATA, pdv(context, control, data))


def element(number: int, value: bytes, length: int | None = None) -> bytes:
    """An element of a command set, Implicit VR Little Endian (PS3.7 6.3.1)."""
    size = len(value) if length is None else length
    return struct.pack("<HHL", 0, number, size) + value


def us(value: int) -> bytes:
    return struct.pack("<H", value & 0xFFFF)


def store(**changes: bytes | None) -> bytes:
    """A C-STORE-RQ command set with some elements replaced or left out."""
    elements: dict[str, tuple[int, bytes | None]] = {
        "sop_class": (0x0002, padded(CR)),
        "field": (0x0100, us(1)),
        "message_id": (0x0110, us(7)),
        "priority": (0x0700, us(0)),
        "data_set": (0x0800, us(1)),
        "instance": (0x1000, padded("1.2.3.4")),
    }
    for name, value in changes.items():
        elements[name] = (elements[name][0], value)
    return b"".join(element(tag, value) for tag, value in elements.values() if value is not None)


def sent(command: bytes, *rest: bytes, context: int = 1) -> bytes:
    """On an association: a command, and what follows it."""
    return REQUEST + fragment(command, COMMAND | LAST, context) + b"".join(rest)


DATA = fragment(b"\x08\0\x16\0UI\x02\x001\0", LAST)


def cases(seed: int) -> Talks:
    """Everything below the data set."""
    rng = random.Random(seed)
    yield from _pdus(rng)
    yield from _requests(rng)
    yield from _items(rng)
    yield from _commands(rng)
    yield from _noise(rng)


def _pdus(rng: random.Random) -> Talks:
    for kind in (0, 2, 3, 4, 5, 6, 7, 8, 0x10, 0xFF):
        yield Talk(f"first_{kind}", pdu(kind, bytes(8)))
        yield Talk(f"later_{kind}", REQUEST + pdu(kind, bytes(8)))
        yield Talk(f"later_empty_{kind}", REQUEST + pdu(kind))
    for kind in (8, 0x61, 0xFF):  # of unknown type, with a body that looks like a header
        hidden = struct.pack(">BBL", P_DATA, 0, 0xFFFFFFF0)
        yield Talk(f"hidden_{kind}", REQUEST + pdu(kind, hidden) + hidden * 5)
        yield Talk(f"hidden_odd_{kind}", REQUEST + pdu(kind, hidden[:5]) + hidden * 5)
    yield Talk("request_twice", REQUEST + REQUEST)
    yield Talk("release_twice", REQUEST + RELEASE + RELEASE)
    yield Talk("data_after_release", REQUEST + RELEASE + DATA)
    yield Talk("abort_at_once", REQUEST + pdu(ABORT, bytes(4)))
    yield Talk("abort_twice", REQUEST + pdu(ABORT, bytes(4)) * 2)
    yield Talk("data_before_request", DATA + REQUEST)
    for length in (0, 1, 3, 7, 0xFFFF, 0x10000, 0x100000, 0x100001, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Talk(f"request_length_{length:x}", pdu(ASSOCIATE_RQ, REQUEST[6:], length))
        yield Talk(f"data_length_{length:x}", REQUEST + pdu(P_DATA, bytes(20), length))
        yield Talk(f"release_length_{length:x}", REQUEST + pdu(RELEASE_RQ, bytes(4), length))
    for cut in (1, 5, 6, 7, 30, 74, 80, len(REQUEST) - 1):
        yield Talk(f"request_cut_{cut}", REQUEST[:cut])
    whole = sent(store(), DATA)
    for _ in range(10):
        cut = rng.randrange(len(REQUEST), len(whole))
        yield Talk(f"cut_{cut}", whole[:cut])


def _requests(rng: random.Random) -> Talks:
    many = [(f"1.2.840.10008.5.1.4.1.1.{each}", (EXPLICIT, IMPLICIT)) for each in range(1, 129)]
    yield Talk("contexts_128", request_pdu(many) + RELEASE)
    head = REQUEST[6:74]

    def asked(*items: bytes) -> bytes:
        return pdu(ASSOCIATE_RQ, head + b"".join(items))

    application = item(0x10, APPLICATION.encode())
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    context = proposal(1, CR, EXPLICIT)
    yield Talk("no_items", asked())
    yield Talk("no_application", asked(context, user))
    yield Talk("no_contexts", asked(application, user))
    yield Talk("no_user", asked(application, context))
    yield Talk("items_twice", asked(application, application, context, user, user))
    yield Talk("context_1000", asked(application, *([context] * 1000), user))
    yield Talk("context_even", asked(application, proposal(2, CR, EXPLICIT), user))
    yield Talk("context_zero", asked(application, proposal(0, CR, EXPLICIT), user))
    yield Talk("context_no_syntax", asked(application, proposal(1, CR), user))
    yield Talk(
        "context_many_syntaxes", asked(application, proposal(1, CR, *[EXPLICIT] * 900), user)
    )
    yield Talk("context_bad_uids", asked(application, proposal(1, "../..", "\xff\xfe"), user))
    yield Talk("context_long_uid", asked(application, proposal(1, "1." * 500, EXPLICIT), user))
    for kind in (0x11, 0x30, 0x40, 0x51, 0x60, 0xFF):
        yield Talk(f"item_{kind:x}", asked(application, context, item(kind, bytes(30)), user))
    for kind in (0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x99):
        for content in (b"", b"\0", b"\xff" * 9, rng.randbytes(40), b"1" * 5000):
            inner = item(0x50, item(kind, content))
            yield Talk(f"user_{kind:x}_{len(content)}", asked(application, context, inner))
    for size in (0, 1, 0x7FFF, 0xFFFF):
        lying = struct.pack(">BBH", 0x50, 0, size) + bytes(20)
        yield Talk(f"item_length_{size:x}", asked(application, context, lying))
    for most in (0, 1, 6, 7, 0xFFFFFFFF):
        inner = item(0x50, item(0x51, struct.pack(">L", most)))
        echo = element(0x0002, padded(VERIFICATION)) + element(0x0100, us(0x30))
        echo += element(0x0110, us(1)) + element(0x0800, us(0x101))
        contexts = proposal(1, VERIFICATION, IMPLICIT)
        yield Talk(f"maximum_{most:x}", asked(application, contexts, inner) + fragment(echo, 3))
    for title in (
        b"\0" * 16,
        b" " * 16,
        b"\xff" * 16,
        b"A\\B\r\n" + bytes(11),
        b"../../../../etc/",
    ):
        for at in (10, 26):
            whole = bytearray(REQUEST)
            whole[at : at + 16] = title
            yield Talk(f"title_{at}_{title[:3].hex()}", bytes(whole))
    yield Talk("title_64k", pdu(ASSOCIATE_RQ, REQUEST[6:10] + b"A" * 65_000))
    yield Talk("version", pdu(ASSOCIATE_RQ, b"\0\2" + REQUEST[8:]))
    wrong = item(0x10, b"1.2.3.4")
    yield Talk("application_other", asked(wrong, context, user) + RELEASE)


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def proposal(number: int, abstract: str, *syntaxes: str) -> bytes:
    names = item(0x30, abstract.encode("latin-1"))
    names += b"".join(item(0x40, each.encode("latin-1")) for each in syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + names)


def _items(rng: random.Random) -> Talks:
    command = store()
    for context in (0, 2, 5, 99, 255):
        yield Talk(f"context_{context}", sent(command, context=context))
    for length in (0, 1, 2, 0x10, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Talk(f"pdv_length_{length:x}", REQUEST + pdu(P_DATA, pdv(1, 3, command, length)))
    for control in (0, 1, 2, 3, 4, 0x80, 0xFF):
        yield Talk(f"control_{control:x}", REQUEST + fragment(command, control) + DATA)
    yield Talk("empty_items", REQUEST + fragment(b"", 3) * 50)
    yield Talk("empty_fragments", REQUEST + fragment(b"", 1) * 2000 + fragment(command, 3) + DATA)
    yield Talk("empty_data", sent(command, fragment(b"", 0) * 2000, DATA))
    yield Talk("no_item", REQUEST + pdu(P_DATA) * 20)
    single = b"".join(fragment(bytes([each]), 1) for each in command)
    yield Talk("byte_by_byte", REQUEST + single + fragment(b"", 3) + DATA)
    yield Talk("data_first", REQUEST + DATA + fragment(command, 3))
    yield Talk("data_twice", sent(command, DATA, DATA))
    yield Talk("command_in_data", sent(command, fragment(command, 3), DATA))
    yield Talk(
        "interleaved", REQUEST + fragment(command[:30], 1) + DATA + fragment(command[30:], 3)
    )
    yield Talk("contexts_mixed", sent(command, fragment(b"\x08\0", 0), fragment(b"\x08\0", 2, 3)))
    yield Talk("never_ends", sent(command, *(fragment(bytes(9000), 0) for _ in range(20))))
    both = pdv(1, 3, command) + pdv(1, 2, b"\x08\0\x16\0UI\x02\x001\0")
    yield Talk("both_in_one", REQUEST + pdu(P_DATA, both) + RELEASE)
    yield Talk("many_in_one", REQUEST + pdu(P_DATA, both * 30))
    yield Talk("long_command", REQUEST + fragment(rng.randbytes(9000), 1) * 20)
    yield Talk("ahead", REQUEST + (fragment(command, 3) + DATA) * 40)


def _commands(rng: random.Random) -> Talks:
    for name in ("sop_class", "field", "message_id", "priority", "data_set", "instance"):
        yield Talk(f"without_{name}", sent(store(**{name: None}), DATA, RELEASE))
        for value in (b"", b"\xff", b"\0\0", rng.randbytes(64), b"1." + b"2" * 3000):
            whole = sent(store(**{name: value}), DATA, RELEASE)
            yield Talk(f"{name}_{len(value)}", whole)
    for field in (0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150,
                  0x0FFF, 0x8001, 0x8030, 0x8100, 0xFFFF, 0):  # fmt: skip
        for data_set in (0x0101, 1):
            whole = sent(store(field=us(field), data_set=us(data_set)), DATA, RELEASE)
            yield Talk(f"field_{field:x}_{data_set}", whole)
    for size in (0, 4, 0x7FFFFFFF, 0xFFFFFFFF):
        group = element(0x0000, struct.pack("<L", size))
        yield Talk(f"group_length_{size:x}", sent(group + store(), DATA, RELEASE))
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 1):
        lying = element(0x0002, padded(CR), size)
        yield Talk(f"element_length_{size:x}", sent(lying + store(sop_class=None), DATA))
    for instance in ("", "1", "1.2..3", "../../x", "1.2.3\0.4", "1." + "2" * 62, "1." + "2" * 80):
        command = store(instance=instance.encode() + b"\0" * (len(instance) % 2))
        yield Talk(f"instance_{instance}", sent(command, DATA, RELEASE))
    for sop_class in (CT, VERIFICATION, "", "1.2.3", "x" * 64):
        yield Talk(f"class_{sop_class}", sent(store(sop_class=padded(sop_class)), DATA, RELEASE))
    foreign = struct.pack("<HHL", 0x0008, 0x0018, 4) + b"1.2\0"
    yield Talk("not_only_group_0", sent(store() + foreign, DATA, RELEASE))
    sequence = struct.pack("<HHL", 0, 0x0001, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    yield Talk("sequence_in_command", sent(sequence * 400 + store(), DATA))
    backwards = element(0x1000, padded("1.2.3")) + store(instance=None)
    yield Talk("backwards", sent(backwards, DATA, RELEASE))
    yield Talk("twice", sent(store() + store(), DATA, RELEASE))
    yield Talk("explicit", sent(b"\0\0\2\0UI\x1a\0" + padded(CR), DATA))


def _noise(rng: random.Random) -> Talks:
    yield Talk("nothing", b"")
    yield Talk("http", b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
    yield Talk("tls", bytes.fromhex("1603010200010001fc0303") + rng.randbytes(500))
    yield Talk("zeros", bytes(3000))
    whole = sent(store(), DATA, RELEASE)
    for number in range(60):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        yield Talk(f"noise_{number}", bytes(broken))
    for number in range(60):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            broken[rng.randrange(len(REQUEST), len(broken))] = rng.randrange(256)
        yield Talk(f"noise_later_{number}", bytes(broken))
