"""A PACS process that does what it is told, and writes down every object that reached it.

Plain sockets, so that it can misbehave at any byte, and cheap, so that the node gets the machine.
Commands come on standard input, one a line:

    store ACT [TIMES]      what the next C-STOREs meet: one of STORE_ACTS
    associate ACT          what the next association request meets: one of ASSOCIATE_ACTS
    down SECONDS           nothing listens, what is open is cut
    peace                  forget all of that

One JSON line an object goes to the file that is named at the start, before the answer is sent.
"""

import hashlib
import json
import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context

STORE_ACTS = ("a700", "c000", "b000", "hang", "abort", "close", "reset", "slow", "deaf")
ASSOCIATE_ACTS = ("reject", "no_contexts", "reset", "silent")
STATUS = {"a700": 0xA700, "c000": 0xC000, "b000": 0xB000}
HANG_S = 6.0
"""Longer than the node waits for an answer."""
SLOW_S = 1.0


class Cut(Exception):
    """The connection is at its end."""


class Pacs:
    """Listens until the process ends."""

    def __init__(self, port: int, journal: Path) -> None:
        self._address = ("127.0.0.1", port)
        self._journal = journal.open("a", buffering=1)
        self._lock = threading.Lock()
        self._store_acts: deque[str] = deque()
        self._associate_acts: deque[str] = deque()
        self._open: set[socket.socket] = set()
        self._peace = threading.Event()
        self._listener = self._listen()

    def obey(self, line: str) -> None:
        """Carry out one line of standard input."""
        word, *rest = line.split()
        if word == "store":
            self._store_acts.extend([rest[0]] * int(rest[1] if rest[1:] else 1))
        elif word == "associate":
            self._associate_acts.append(rest[0])
        elif word == "down":
            self._go_down(float(rest[0]))
        elif word == "peace":
            self._store_acts.clear()
            self._associate_acts.clear()
            self._peace.set()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(self._address, backlog=64)
        self._address = listener.getsockname()[:2]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._address[1]

    def _go_down(self, seconds: float) -> None:
        # Without the shutdown, accept() would keep the port until its next client.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self._listener = self._listen()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        try:
            self._associate(connection)
            self._converse(connection)
        except (OSError, Cut):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _associate(self, connection: socket.socket) -> None:
        kind, body = _read_pdu(connection)
        if kind != 1:
            raise Cut
        act = self._associate_acts.popleft() if self._associate_acts else ""
        if act == "reject":
            connection.sendall(bytes((3, 0, 0, 0, 0, 4, 0, 2, 1, 2)))
            raise Cut
        if act == "reset":
            _reset(connection)
            raise Cut
        if act == "silent":
            self._peace.wait(HANG_S)
            raise Cut
        connection.sendall(_acceptance(body, accept=act != "no_contexts"))

    def _converse(self, connection: socket.socket) -> None:
        """Messages until release, abort or the end of the connection."""
        command, data = b"", bytearray()
        while True:
            kind, body = _read_pdu(connection)
            if kind == 5:
                connection.sendall(struct.pack(">BBLL", 6, 0, 4, 0))
                raise Cut
            if kind != 4:
                raise Cut
            for context, control, fragment in _fragments(body):
                if control & 1:
                    command, data = fragment, bytearray()
                    elements = _command(command)
                    if elements[0x0100] == b"\x30\x00":
                        connection.sendall(_answer(context, elements, 0))
                    elif self._store_acts and self._store_acts[0] == "deaf":
                        self._store_acts.popleft()
                        self._peace.wait(HANG_S)
                        raise Cut
                else:
                    data += fragment
                    if control & 2:
                        self._store(connection, context, _command(command), bytes(data))

    def _store(
        self, connection: socket.socket, context: int, command: dict[int, bytes], data: bytes
    ) -> None:
        with self._lock:
            act = self._store_acts.popleft() if self._store_acts else ""
        status = STATUS.get(act, 0)
        stored = act in ("", "b000", "slow")
        self._note(command, data, act or "0000", stored=stored)
        if act == "hang":
            self._peace.wait(HANG_S)
            raise Cut
        if act == "abort":
            connection.sendall(bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
            raise Cut
        if act == "close":
            raise Cut
        if act == "reset":
            _reset(connection)
            raise Cut
        if act == "slow":
            time.sleep(SLOW_S)
        connection.sendall(_answer(context, command, status))

    def _note(self, command: dict[int, bytes], data: bytes, met: str, *, stored: bool) -> None:
        tags = ["StudyInstanceUID", "SOPInstanceUID"]
        header = dcmread(BytesIO(data), force=True, specific_tags=tags)
        line = {
            "at": time.time(),
            "uid": _text(command[0x1000]),
            "class": _text(command[0x0002]),
            "study": str(header.StudyInstanceUID),
            "same_uid": str(header.SOPInstanceUID) == _text(command[0x1000]),
            "digest": hashlib.sha256(data).hexdigest(),
            "met": met,
            "stored": stored,
        }
        with self._lock:
            self._journal.write(json.dumps(line) + "\n")


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    header = _exactly(connection, 6)
    return header[0], _exactly(connection, struct.unpack(">L", header[2:])[0])


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces, missing = [], count
    while missing:
        piece = connection.recv(min(missing, 1 << 20))
        if not piece:
            raise Cut
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _fragments(body: bytes) -> list[tuple[int, int, bytes]]:
    found, at = [], 0
    while at < len(body):
        length, context, control = struct.unpack_from(">LBB", body, at)
        found.append((context, control, body[at + 6 : at + 4 + length]))
        at += 4 + length
    return found


def _command(data: bytes) -> dict[int, bytes]:
    """Elements of a command set, always Implicit VR Little Endian (PS3.7 6.3.1)."""
    found, at = {}, 0
    while at < len(data):
        _, element, length = struct.unpack_from("<HHL", data, at)
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _answer(context: int, request: dict[int, bytes], status: int) -> bytes:
    """A C-STORE-RSP or C-ECHO-RSP."""
    field = struct.unpack("<H", request[0x0100])[0] | 0x8000
    us = struct.Struct("<H").pack
    elements = [(0x0002, request[0x0002]), (0x0100, us(field)), (0x0120, request[0x0110])]
    elements += [(0x0800, us(0x0101)), (0x0900, us(status))]
    if 0x1000 in request:
        elements.append((0x1000, request[0x1000]))
    body = b"".join(struct.pack("<HHL", 0, tag, len(raw)) + raw for tag, raw in elements)
    body = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    item = struct.pack(">LBB", len(body) + 2, context, 3) + body
    return struct.pack(">BBL", 4, 0, len(item)) + item


def _acceptance(request_body: bytes, *, accept: bool) -> bytes:
    """An A-ASSOCIATE-AC that takes every context with its first transfer syntax, or none."""
    request = A_ASSOCIATE_RQ()
    request.decode(struct.pack(">BBL", 1, 0, len(request_body)) + request_body)
    asked: Any = request.to_primitive()
    answer = A_ASSOCIATE()
    answer.application_context_name = asked.application_context_name
    answer.calling_ae_title = asked.calling_ae_title
    answer.called_ae_title = asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    results = []
    for each in asked.presentation_context_definition_list:
        context = build_context(each.abstract_syntax, each.transfer_syntax[:1])
        context.context_id, context.result = each.context_id, 0 if accept else 3
        results.append(context)
    answer.presentation_context_definition_results_list = results
    answer.user_information = asked.user_information[:2]
    return A_ASSOCIATE_AC(answer).encode()


def _reset(connection: socket.socket) -> None:
    """RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0 ").decode("ascii")


def main() -> None:
    """`python -m torture.pacs PORT JOURNAL`; says its port, then obeys."""
    pacs = Pacs(int(sys.argv[1]), Path(sys.argv[2]))
    print(pacs.port, flush=True)  # noqa: T201 - the driver reads it
    for line in sys.stdin:
        pacs.obey(line)


if __name__ == "__main__":
    main()
