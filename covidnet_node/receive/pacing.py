"""Lets pynetdicom's threads sleep while nothing happens.

Both threads of an association look for work a thousand times a second. Fifty idle associations
so keep one core busy, and every other sender waits. Here they are rung when there is work.
"""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Queue
from typing import TypeVar

_Item = TypeVar("_Item")

NAP_S = 0.25
"""Longest sleep: how late a timeout or a stop may be noticed."""


def readable(sockets: list[socket.socket], wait_s: float = 0) -> bool:
    """Tell whether one of them has something to read, or has been closed by its other end.

    By poll: select, which pynetdicom uses, fails on file descriptors above 1023. Raises
    ValueError if one of them is closed.
    """
    poller = select.poll()
    for sock in sockets:
        poller.register(sock, select.POLLIN)
    return bool(poller.poll(wait_s * 1000))


class RingingQueue(Queue[_Item]):
    """A queue that rings a bell at each item."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def put(self, item: _Item, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - Queue's signature
        """Add an item, then ring."""
        super().put(item, block, timeout)
        self._ring()


class Checkpoint(threading.Event):
    """The event that an association's thread waits for in each round.

    Set, it lets the thread pass, as soon as there is work or after a nap.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        super().__init__()
        self._busy = busy
        self._bell = threading.Event()
        self.set()

    def ring(self) -> None:
        """Say that there is work."""
        self._bell.set()

    def set(self) -> None:
        """Open the checkpoint, and say so."""
        super().set()
        self._bell.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Pass when open and there may be work."""
        if not self._busy():
            self._bell.wait(NAP_S)
        # Cleared before the thread looks at its queues: what comes later rings again.
        self._bell.clear()
        return super().wait(timeout)


class Doorbell:
    """Wakes a thread that waits for its client and for other threads at the same time."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        for end in (self._inside, self._outside):
            end.settimeout(0)

    def ring(self) -> None:
        """Wake the thread."""
        with suppress(OSError):  # full: it has been rung already; closed: nobody waits
            self._outside.send(b"\0")

    def wait_for(self, client: socket.socket) -> None:
        """Return when the client has sent something, when rung, or after a nap."""
        with suppress(OSError, ValueError):  # closed meanwhile: the caller will notice
            readable([client, self._inside], NAP_S)
            self._inside.recv(4096)

    def close(self) -> None:
        """Free both ends."""
        self._inside.close()
        self._outside.close()
