"""Say something to a listener, hear it out, and see whether it is still well."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic

from structlog.testing import capture_logs

from tests.bad_input.wire import element, us
from tests.raw_client import ASSOCIATE_AC, IMPLICIT, P_DATA, VERIFICATION, RawClient, padded

PATIENCE_S = 60.0
OURS = ("connection_failed", "store_failed")
"""What the receiver logs when something happens that it has no answer for."""


@dataclass(slots=True)
class Watch:
    """What went wrong out of sight: in threads and in the log."""

    lines: list[str] = field(default_factory=list)

    def emit(self, what: str) -> None:
        self.lines.append(what)


@contextmanager
def watched() -> Iterator[Watch]:
    """Notice exceptions that end a thread, and those that the receiver had no answer for."""
    watch = Watch()
    hook = threading.excepthook
    threading.excepthook = lambda told: watch.emit(f"thread: {told.exc_type} {told.exc_value}")
    try:
        with capture_logs() as logs:
            yield watch
            watch.lines += [str(line) for line in logs if line["event"] in OURS]
    finally:
        threading.excepthook = hook


def say(address: tuple[str, int], data: bytes) -> int:
    """Send everything, then nothing more; the number of bytes that came back."""
    heard = 0
    with socket.create_connection(address, timeout=PATIENCE_S) as client, suppress(OSError):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            heard += len(piece)
    return heard


def echo(address: tuple[str, int]) -> float:
    """A whole C-ECHO; the seconds it took."""
    started = monotonic()
    with RawClient(address, PATIENCE_S) as client:
        assert client.associate((VERIFICATION, (IMPLICIT,))) == ASSOCIATE_AC
        asked = element(0x0002, padded(VERIFICATION)) + element(0x0100, us(0x30))
        client.fragment(asked + element(0x0110, us(1)) + element(0x0800, us(0x101)), 3)
        kind, _ = client.receive()
        assert kind == P_DATA
        client.release()
    return monotonic() - started


def associations() -> int:
    """Threads that serve somebody."""
    return sum(
        "Association" in type(thread).__name__ or "process_request_thread" in thread.name
        for thread in threading.enumerate()
    )
