"""Where audit messages go: a file, or a syslog server over TLS or UDP (PS3.15 A.6, A.7)."""

import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol
from urllib.parse import urlsplit

from covidnet_node.audit.messages import Source
from covidnet_node.certificates import audit_files, client_context, farewell
from covidnet_node.config_oversight import Audit
from covidnet_node.errors import BadConfig

FACILITY = 10
"""Security and authorization messages (PS3.15 A.6.1)."""
NOTICE, WARNING = 5, 4
MESSAGE_ID = "DICOM+RFC3881"
BOM = b"\xef\xbb\xbf"

CONNECTING_S = 10.0
ANSWERING_S = 10.0
OBJECTION_S = 1.0
"""How long a server that does not know our certificate may take to say so: in TLS 1.3 it does
that after the handshake has succeeded on our side."""
_LOOK_S = 0.01


class Outlet(Protocol):
    """One way out."""

    name: str

    def form(self, message: bytes, now: datetime, *, warning: bool) -> bytes:
        """The message as it will leave, on one line."""

    def deliver(self, records: Sequence[bytes]) -> None:
        """Bring all of them out, or raise OSError, ValueError or BadConfig; then all come again."""

    def probe(self) -> str:
        """Say where it goes, after a look; raises OSError, ValueError or BadConfig."""

    def close(self) -> None:
        """Let go of what is open."""


class FileOutlet:
    """Appends to a file, one message a line; follows when the file is renamed or removed."""

    def __init__(self, path: Path) -> None:
        self.name = "file"
        self._path = path

    def form(self, message: bytes, _now: datetime, *, warning: bool) -> bytes:  # noqa: ARG002 - Outlet's
        """As it is."""
        return message

    def deliver(self, records: Sequence[bytes]) -> None:
        """Append and fsync; the file is made with mode 0600."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        # Opened anew each time, so that whoever rotates it need not tell us.
        descriptor = os.open(self._path, flags, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            whole = b"".join(record + b"\n" for record in records)
            if os.write(descriptor, whole) < len(whole):
                # All of it comes again: what is there of it would be half a line.
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def probe(self) -> str:
        """Whether the file can be written; it is not made."""
        place = self._path if self._path.exists() else self._path.parent
        if not os.access(place, os.W_OK):
            raise OSError(errno.EACCES, f"{place} cannot be written", str(place))
        return str(self._path)

    def close(self) -> None:
        """Nothing is open."""


class SyslogOutlet:
    """RFC 5424 messages over TLS (RFC 5425) or UDP (RFC 5426)."""

    def __init__(self, settings: Audit, source: Source) -> None:
        """Raises BadConfig when a certificate cannot be used."""
        parts = urlsplit(settings.syslog or "")
        self.name = "syslog"
        self._settings = settings
        self._source = source
        self._tls = parts.scheme == "tls"
        self._host = parts.hostname or ""
        self._port = parts.port or (6514 if self._tls else 514)
        self._wire: socket.socket | None = None
        if self._tls:
            client_context(audit_files(settings))

    def form(self, message: bytes, now: datetime, *, warning: bool) -> bytes:
        """Header of RFC 5424, then the message as UTF-8 with its mark."""
        priority = 8 * FACILITY + (WARNING if warning else NOTICE)
        moment = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        host = "".join(sign for sign in self._source.host if "!" <= sign <= "~")[:255] or "-"
        sender = f"covidnet-node {self._source.process} {MESSAGE_ID} -"
        return f"<{priority}>1 {moment} {host} {sender} ".encode() + BOM + message

    def deliver(self, records: Sequence[bytes]) -> None:
        """Send; over TLS also wait until the other machine has all of it."""
        try:
            if self._tls:
                self._send_stream(records)
            else:
                self._send_datagrams(records)
        except (OSError, ValueError, BadConfig):
            self.close()
            raise

    def probe(self) -> str:
        """Over TLS a handshake; UDP tells nothing."""
        if self._tls:
            self._connect().close()
            return f"{self._host}:{self._port} by TLS answers"
        return f"{self._host}:{self._port} by UDP; nobody can tell whether it arrives"

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            farewell(self._wire)
            self._wire.close()
            self._wire = None

    def _send_datagrams(self, records: Sequence[bytes]) -> None:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as wire:
            wire.settimeout(ANSWERING_S)
            for record in records:
                wire.sendto(record, address)

    def _send_stream(self, records: Sequence[bytes]) -> None:
        """Syslog has no answers: as arrived counts what the peer's machine has acknowledged."""
        if self._wire is not None and self._objects(self._wire, 0.0):
            self.close()  # closed since the last message: nothing new is lost
        wire = self._wire or self._connect()
        self._wire = wire
        for record in records:
            # RFC 5425 4.3.1: octet counting.
            wire.sendall(f"{len(record)} ".encode() + record)
        self._await_acknowledgment(wire)
        if self._objects(wire, 0.0):
            raise ConnectionResetError("the server hung up")

    def _connect(self) -> socket.socket:
        # Read anew each time, so that a renewed certificate needs no restart.
        context = client_context(audit_files(self._settings))
        wire: socket.socket = socket.create_connection((self._host, self._port), CONNECTING_S)
        try:
            wire = context.wrap_socket(wire, server_hostname=self._host)
            if self._objects(wire, OBJECTION_S):
                raise ConnectionResetError("the server hung up after the handshake")
        except (OSError, ValueError):
            wire.close()
            raise
        return wire

    def _objects(self, wire: socket.socket, wait_s: float) -> bool:
        """Whether the server has hung up; it has nothing else to say. Raises OSError."""
        wire.settimeout(wait_s)
        try:
            return not wire.recv(1)
        except (TimeoutError, ssl.SSLWantReadError, BlockingIOError):
            return False
        finally:
            wire.settimeout(ANSWERING_S)

    def _await_acknowledgment(self, wire: socket.socket) -> None:
        end = monotonic() + ANSWERING_S
        while _unacknowledged(wire):
            if monotonic() > end:
                raise TimeoutError("the server does not take what it is sent")
            sleep(_LOOK_S)


def _unacknowledged(wire: socket.socket) -> int:
    """Bytes that the peer's machine has not acknowledged (tcp(7), SIOCOUTQ)."""
    answer = fcntl.ioctl(wire.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])
