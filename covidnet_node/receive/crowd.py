"""How many may come: waiting at the door and in association, in total and of one address.

Who is silent makes room. A client that has not asked for an association yet may be cut off for a
newcomer, and so may an association on which nothing moves, of an address that has more of them than
the newcomer's. Who speaks is never cut off but may be rejected with a reason. So no number of
silent clients keeps out one that speaks, even if they come from the same address.
"""

import ipaddress
import socket
import threading
from collections import Counter
from contextlib import suppress
from typing import Protocol

import structlog
from pynetdicom.association import Association

log = structlog.get_logger()

IDLE_S = 20.0
"""Nothing has moved for so long: such an association may have to make room."""
THREADS_PER_ASSOCIATION = 4
"""Beyond this many connections, those included that are about to end, newcomers are cut off."""


class Visitor:
    """A connected client, from accept to the end of its thread."""

    def __init__(self, wire: socket.socket, host: str) -> None:
        self.wire = wire
        self.host = host
        self.cut = False

    def cut_off(self) -> None:
        """End the connection; a read in its own thread returns at once."""
        self.cut = True
        cut(self.wire)


class Line(Protocol):
    """The connection of an association."""

    @property
    def idle_s(self) -> float:
        """Seconds since anything was read or written; 0 while it waits for us."""

    def shut(self) -> None:
        """Cut it; a read in another thread returns at once."""


class Crowd:
    """Everybody who is connected, over all ports together."""

    def __init__(self, most: int, most_per_peer: int) -> None:
        self._most = most
        self._most_per_peer = most_per_peer
        self._waiting: dict[Visitor, None] = {}
        """Who has not asked for an association yet, in order of arrival."""
        self._seated: dict[Association, str] = {}
        self._present: dict[Association, Line] = {}
        self._connections = 0
        self._changed = threading.Condition()

    def arrive(self, wire: socket.socket, address: str) -> Visitor | None:
        """Let a client wait; None if there is no room for one more thread.

        Too many waiting, of one address or in all: the one that has waited longest is cut off;
        in all, of the address that has most.
        """
        visitor = Visitor(wire, host_of(address))
        with self._changed:
            if self._connections >= THREADS_PER_ASSOCIATION * self._most:
                return None
            silent = self._too_many(visitor.host)
            if silent is not None:
                del self._waiting[silent]
            self._waiting[visitor] = None
            self._connections += 1
        if silent is not None:
            silent.cut_off()
        return visitor

    def _too_many(self, host: str) -> Visitor | None:
        waiting = Counter(each.host for each in self._waiting)
        if waiting[host] < self._most_per_peer:
            if len(self._waiting) < self._most:
                return None
            host = waiting.most_common(1)[0][0]
        return next(each for each in self._waiting if each.host == host)

    def hold(self, visitor: Visitor, wire: socket.socket) -> None:
        """Note that the visitor's socket has been replaced (by one that speaks TLS)."""
        visitor.wire = wire
        if visitor.cut:
            visitor.cut_off()

    def asked(self, visitor: Visitor) -> bool:
        """Note that it has asked for an association; false if it was cut off before."""
        with self._changed:
            self._waiting.pop(visitor, None)
            return not visitor.cut

    def leave(self, visitor: Visitor) -> None:
        """Note that its thread ends."""
        with self._changed:
            self._waiting.pop(visitor, None)
            self._connections -= 1
            self._changed.notify_all()

    # Associations

    def enter(self, assoc: Association, line: Line) -> None:
        """Note an association that begins, accepted or not."""
        with self._changed:
            self._present[assoc] = line

    def seat(self, assoc: Association, address: str) -> bool:
        """Give an association a place; false if all are taken, or all that its address may have.

        If all are taken, an idle one of the address that has most makes room.
        """
        host = host_of(address)
        with self._changed:
            line = None
            if not self._has_room(host):
                idle = self._longest_idle(host)
                if idle is None:
                    return False
                line = self._present[idle]
                log.warning("idle_association_cut", peer=self._seated.pop(idle))
            self._seated[assoc] = host
        if line is not None:
            line.shut()
        return True

    def has_room(self, address: str) -> bool:
        """Whether an association from there would get a place now."""
        with self._changed:
            host = host_of(address)
            return self._has_room(host) or self._longest_idle(host) is not None

    def _has_room(self, host: str) -> bool:
        seats = self._seats()
        return seats.total() < self._most and seats[host] < self._most_per_peer

    def _seats(self) -> Counter[str]:
        """Places taken, by address."""
        return Counter(self._living().values())

    def _living(self) -> dict[Association, str]:
        """Who has a place and has not come to an end."""
        return {
            each: there
            for each, there in self._seated.items()
            if not (each.is_released or each.is_aborted or each.is_rejected)
        }

    def _longest_idle(self, host: str) -> Association | None:
        """Who makes room for a newcomer from there: of the address that has most places.

        Of one that has more than the newcomer's, that is, and where there is an idle one.
        """
        seats = self._seats()
        if seats[host] >= self._most_per_peer:
            return None
        idle = {
            each: (seats[there], self._present[each].idle_s)
            for each, there in self._living().items()
            if seats[there] > seats[host] and self._present[each].idle_s >= IDLE_S
        }
        return max(idle, key=lambda each: idle[each], default=None)

    def exit(self, assoc: Association) -> None:
        """Note an association that has ended."""
        with self._changed:
            self._present.pop(assoc, None)
            self._seated.pop(assoc, None)
            self._changed.notify_all()

    def present(self) -> list[Association]:
        """Associations that have not ended."""
        with self._changed:
            return list(self._present)

    def send_away(self) -> None:
        """Cut off everybody who has not asked for an association."""
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
        for visitor in waiting:
            visitor.cut_off()

    def wait_until_empty(self, patience_s: float) -> bool:
        """Whether all associations, and the threads of all others, end in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._present and not self._connections, patience_s
            )


def cut(wire: socket.socket) -> None:
    """End a connection that another thread may be waiting on."""
    with suppress(OSError):
        # Past TLS, whose own ending is not safe beside the thread that reads.
        socket.socket.shutdown(wire, socket.SHUT_RDWR)


def host_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, also in IPv6 form, or a /64 of IPv6."""
    found = plain_address(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as a number; an IPv4 address in IPv6 form (RFC 4291 2.5.5.2) as IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if found.version == 6 and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
