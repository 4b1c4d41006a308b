"""Reads PDUs from a client: none larger and none slower than allowed, over TLS as well.

pynetdicom believes any length that a PDU header claims, and reads without a deadline.
"""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.transport import AssociationSocket

from covidnet_node.certificates import Identity, farewell
from covidnet_node.receive.crowd import cut
from covidnet_node.receive.inbox import TRANSFER_STATES
from covidnet_node.receive.pacing import Doorbell, RingingQueue, readable
from covidnet_node.receive.refusals import Refusals

log = structlog.get_logger()

MAX_REQUEST_PDU = 64 * 1024
"""An A-ASSOCIATE-RQ with all 128 presentation contexts fits well within."""
HEADER = 6
"""Bytes before the body of a PDU (PS3.8 9.3.1): type, reserved, length."""
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take."""

    max_pdu_bytes: int
    request_timeout_s: float
    """For TLS handshake and association request together, of a client that has connected."""
    network_timeout_s: float
    """For each PDU afterwards, and for the pause between two."""


def read_exactly(
    client: socket.socket, count: int, deadline: float, moved: Callable[[], None] = lambda: None
) -> bytearray:
    """Read so many bytes in large pieces; empty if the client is gone or the deadline passes.

    `deadline` is of the monotonic clock; `moved` is called for each piece.
    """
    whole = bytearray(count)
    view = memoryview(whole)
    done = 0
    while done < count:
        left = deadline - time.monotonic()
        try:
            client.settimeout(max(left, 0.001))
            read = client.recv_into(view[done : done + _PIECE])
        except OSError:
            read = 0
        if read == 0:
            return bytearray()
        done += read
        moved()
    return whole


def length_of(header: bytearray) -> int:
    """Length that a PDU header claims for the body (PS3.8 9.3.1)."""
    length: int = struct.unpack(">L", header[2:6])[0]
    return length


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs, none larger and none slower than allowed; otherwise hangs up."""

    def __init__(
        self,
        assoc: Association,
        client_socket: socket.socket,
        limits: Limits,
        refusals: Refusals,
        request: bytearray,
        identity: Identity | None,
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.identity = identity
        """By the client's certificate, if it has shown one."""
        self._limits = limits
        self._refusals = refusals
        self._waiting = request
        """What has been read already: first of all the association request."""
        self._body = 0
        """Bytes of the body that belongs to the header read last."""
        self._deadline = 0.0
        self._moved_at = time.monotonic()
        self.answering: Callable[[], bool] = lambda: False
        """Whether a request of the client's is in hand."""
        self._doorbell = Doorbell()
        assoc.dul.to_provider_queue = RingingQueue(self._doorbell.ring)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; sleeps a little if there is nothing else to do."""
        if self._waiting:
            return True
        client, dul = self.socket, self.assoc.dul
        if client is None:
            return False
        working = not dul.event_queue.empty() or not dul.to_provider_queue.empty()
        if not working and self._is_accepted():
            self._doorbell.wait_for(client)
        try:
            return self._peek(client) if isinstance(client, ssl.SSLSocket) else readable([client])
        except (OSError, ValueError):
            dul.event_queue.put("Evt17")  # PS3.8 9.2: transport connection closed
            return False

    def _peek(self, client: ssl.SSLSocket) -> bool:
        """Whether TLS has anything for us.

        What lies in the socket may be none of ours, or part of a record; what was decrypted does
        not lie in the socket any more.
        """
        if not client.pending() and not readable([client]):
            return False
        client.settimeout(0)
        try:
            self._waiting = bytearray(client.recv(HEADER))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        finally:
            client.settimeout(self._limits.network_timeout_s)
        # Nothing at all: the client has gone, which is for `recv` to find.
        return True

    def _is_accepted(self) -> bool:
        return self.assoc.dul.state_machine.current_state in TRANSFER_STATES

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU header of 6 bytes or, after one, its body.

        Empty if the client is gone, too slow, or claims too large a PDU; pynetdicom then ends
        the association.
        """
        body, self._body = self._body, 0
        if nr_bytes == body:
            return self._read(nr_bytes)
        if nr_bytes != HEADER:
            # pynetdicom passes over the body of a PDU of unknown type, and takes for a header what
            # is none: its length has not been looked at.
            self.shut()
            return bytearray()
        self._deadline = time.monotonic() + self._limits.network_timeout_s
        header = self._read(nr_bytes)
        if not header:
            return header
        largest = self._limits.max_pdu_bytes if self._is_accepted() else MAX_REQUEST_PDU
        if length_of(header) > largest:
            peer, length = self.assoc.requestor.address, length_of(header)
            self._refusals.tell("pdu_refused", peer=peer, length=length, largest=largest)
            self.shut()
            return bytearray()
        self._body = length_of(header)
        return header

    @property
    def idle_s(self) -> float:
        """Seconds since anything was read or written; 0 while the client waits for an answer."""
        return 0.0 if self.answering() else time.monotonic() - self._moved_at

    def send(self, bytestream: bytes) -> None:
        """Write, and note that something moved."""
        super().send(bytestream)
        self._moved()

    def _moved(self) -> None:
        self._moved_at = time.monotonic()

    def _read(self, count: int) -> bytearray:
        self._moved()
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        client = self.socket
        if client is None or len(taken) == count:
            return taken
        rest = read_exactly(client, count - len(taken), self._deadline, self._moved)
        if not rest:
            self.shut()
            return rest
        with suppress(OSError):
            # Bounds how long an answer may wait for the client to take it.
            client.settimeout(self._limits.network_timeout_s)
        return taken + rest

    def free(self) -> None:
        """Give back what the association needed; it has ended."""
        self._doorbell.close()

    def shut(self) -> None:
        """Cut the connection; a read in another thread returns at once."""
        if self.socket is not None:
            cut(self.socket)

    def _shutdown_socket(self) -> None:
        """Called by pynetdicom, in the thread that reads and writes."""
        farewell(self.socket)
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()  # which pynetdicom forgets when the client has gone already


class Machine(StateMachine):
    """Hangs up at an event that has no place in a state (PS3.8 9.2.3), and at what breaks it.

    E.g. an abort of ours just after the client has released, or a presentation context with an even
    number. pynetdicom would let the thread die of it, and leave the connection as it is.
    """

    def do_action(self, event: str) -> None:
        """Do what the state asks for at an event, or hang up."""
        if (event, self.current_state) not in TRANSITION_TABLE:
            log.debug("event_out_of_place", dul_event=event, state=self.current_state)
            self._hang_up()
            return
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001 - what a client sent must end its association only
            peer, what = self.dul.assoc.requestor.address, type(error).__name__
            log.warning("association_failed", peer=peer, state=self.current_state, error=what)
            self._hang_up()

    def _hang_up(self) -> None:
        if isinstance(self.dul.socket, BoundedSocket):
            self.dul.socket.shut()
        self.current_state = "Sta1"
        self.dul.kill_dul()
        # In place of the request that the association may be waiting for.
        self.dul.to_user_queue.put(None)
