"""The listener: bounded in connections, in the size of a PDU and in the time one may take.

pynetdicom believes any length that a PDU header claims and reads without a deadline. A
connection gets a thread of its own before anything is read from it, so that nothing a client
does, or fails to do, holds up the accept loop.
"""

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socketserver import BaseServer
from typing import cast

import structlog
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from covidnet_node.receive.inbox import TRANSFER_STATES, Inbox
from covidnet_node.receive.pacing import Checkpoint, Doorbell, RingingQueue, readable

log = structlog.get_logger()

MAX_REQUEST_PDU = 64 * 1024
"""An A-ASSOCIATE-RQ with all 128 presentation contexts fits well within."""
_ASSOCIATE_RQ = 1
_PIECE = 1024 * 1024


Request = socket.socket | tuple[bytes, socket.socket]
Address = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take."""

    max_pdu_bytes: int
    request_timeout_s: float
    """For the association request of a client that has connected."""
    network_timeout_s: float
    """For each PDU afterwards, and for the pause between two."""
    max_connections: int
    """Associations and clients that have not asked for one yet, together."""


def read_exactly(client: socket.socket, count: int, deadline: float) -> bytearray:
    """Read so many bytes in large pieces; empty if the client is gone or the deadline passes.

    `deadline` is of the monotonic clock.
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
    return whole


def length_of(header: bytearray) -> int:
    """Length that a PDU header claims for the body (PS3.8 9.3.1)."""
    length: int = struct.unpack(">L", header[2:6])[0]
    return length


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs, none larger and none slower than allowed; otherwise hangs up."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, limits: Limits, request: bytearray
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limits = limits
        self._request = request
        """The association request, which has been read already."""
        self._in_body = False
        self._deadline = 0.0
        self._doorbell = Doorbell()
        assoc.dul.to_provider_queue = RingingQueue(self._doorbell.ring)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; sleeps a little if there is nothing else to do."""
        if self._request:
            return True
        client, dul = self.socket, self.assoc.dul
        if client is None:
            return False
        working = not dul.event_queue.empty() or not dul.to_provider_queue.empty()
        if not working and self._is_accepted():
            self._doorbell.wait_for(client)
        try:
            return readable([client])
        except (OSError, ValueError):
            dul.event_queue.put("Evt17")  # PS3.8 9.2: transport connection closed
            return False

    def _is_accepted(self) -> bool:
        return self.assoc.dul.state_machine.current_state in TRANSFER_STATES

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU header of 6 bytes or, after one, its body.

        Empty if the client is gone, too slow, or claims too large a PDU; pynetdicom then ends
        the association.
        """
        if self._request:
            taken, self._request = self._request[:nr_bytes], self._request[nr_bytes:]
            return taken
        if self._in_body:
            self._in_body = False
            return self._read(nr_bytes)
        self._deadline = time.monotonic() + self._limits.network_timeout_s
        header = self._read(nr_bytes)
        if not header:
            return header
        largest = self._limits.max_pdu_bytes if self._is_accepted() else MAX_REQUEST_PDU
        if length_of(header) > largest:
            peer, length = self.assoc.requestor.address, length_of(header)
            log.warning("pdu_refused", peer=peer, length=length, largest=largest)
            self.shut()
            return bytearray()
        self._in_body = length_of(header) > 0
        return header

    def _read(self, count: int) -> bytearray:
        client = self.socket
        if client is None:
            return bytearray()
        data = read_exactly(client, count, self._deadline)
        if not data:
            self.shut()
            return data
        with suppress(OSError):
            # Bounds how long an answer may wait for the client to take it.
            client.settimeout(self._limits.network_timeout_s)
        return data

    def free(self) -> None:
        """Give back what the association needed; it has ended."""
        self._doorbell.close()

    def shut(self) -> None:
        """Cut the connection; a read in another thread returns at once."""
        client = self.socket
        if client is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


class Connection(RequestHandler):
    """One client, in a thread of its own, from accept to the end of its association."""

    server: "Listener"

    def handle(self) -> None:
        """Run the association to its end.

        The request is read before pynetdicom knows of the client: port checks and silent
        clients cost one waiting thread and hold no association.
        """
        self._request = self._read_request()
        if not self._request:
            self.server.shutdown_request(self.request)
            return
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assoc = self._create_association()
        sock = BoundedSocket(assoc, self.request, self.server.limits, self._request)
        assoc.dul.socket = sock
        inbox = self.server.make_inbox(assoc)
        assoc.dimse = inbox
        _let_sleep(assoc)
        self.server.enter(assoc)
        try:
            assoc.start()
            assoc.join()
        finally:
            inbox.close()
            sock.free()
            self.server.leave(assoc)

    def _read_request(self) -> bytearray:
        """Read the A-ASSOCIATE-RQ; empty if none comes in time, or something else."""
        deadline = time.monotonic() + self.server.limits.request_timeout_s
        peer = self.client_address[0]
        header = read_exactly(self.request, 6, deadline)
        if not header:
            log.debug("no_request", peer=peer)
            return header
        if header[0] != _ASSOCIATE_RQ or not 0 < length_of(header) <= MAX_REQUEST_PDU:
            log.warning("pdu_refused", peer=peer, kind=header[0], length=length_of(header))
            return bytearray()
        body = read_exactly(self.request, length_of(header), deadline)
        return header + body if body else body

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        for event in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT):
            # pynetdicom's own log lines; ours say what matters, without what was sent.
            bound = cast("list[tuple[Callable[..., None], object]]", assoc.get_handlers(event))
            for handler, _ in list(bound):
                assoc.unbind(event, handler)
        # Its socket has announced itself; ours will take its place and does so again.
        assoc.dul.event_queue.get_nowait()
        return assoc


def _let_sleep(assoc: Association) -> None:
    """Ring the association's thread for messages, releases and aborts, in place of its polling."""
    dul, dimse = assoc.dul, assoc.dimse
    checkpoint = Checkpoint(lambda: not (dul.to_user_queue.empty() and dimse.msg_queue.empty()))
    dul.to_user_queue = RingingQueue(checkpoint.ring)
    dimse.msg_queue = RingingQueue(checkpoint.ring)
    assoc._reactor_checkpoint = checkpoint


class Listener(ThreadedAssociationServer):
    """Accepts connections until stopped. Raises OSError if it cannot bind."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        handlers: list[evt.EventHandlerType],
        limits: Limits,
        make_inbox: Callable[[Association], Inbox],
    ) -> None:
        self.limits = limits
        self.make_inbox = make_inbox
        self._present: set[Association] = set()
        self._connections = 0
        self._changed = threading.Condition()
        super().__init__(ae, address, ae.ae_title, contexts, None, handlers, Connection)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="receive", daemon=True
        )

    def start(self) -> None:
        """Begin to accept. The port is bound already: no client is turned away meanwhile."""
        self._thread.start()

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._thread.is_alive()

    @property
    def established(self) -> int:
        """Associations in use."""
        with self._changed:
            return sum(assoc.is_established for assoc in self._present)

    def verify_request(self, _request: object, client_address: object) -> bool:
        """Hang up at once on one client too many; never wait for it."""
        with self._changed:
            full = self._connections >= self.limits.max_connections
            self._connections += not full
        if full:
            log.warning("connection_refused", peer=str(client_address), reason="too many")
        return not full

    def process_request(self, request: Request, client_address: Address) -> None:
        """Start the thread of one client."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread left
            with self._changed:
                self._connections -= 1
            raise

    def process_request_thread(self, request: Request, client_address: Address) -> None:
        """Serve one client in a thread of its own."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._connections -= 1

    def enter(self, assoc: Association) -> None:
        """Note an association that begins."""
        with self._changed:
            self._present.add(assoc)

    def leave(self, assoc: Association) -> None:
        """Note an association that has ended."""
        with self._changed:
            self._present.discard(assoc)
            self._changed.notify_all()

    def handle_error(self, _request: object, client_address: object) -> None:
        """Log what went wrong with one connection; the others go on."""
        log.error("connection_failed", peer=str(client_address), exc_info=sys.exc_info())

    def service_actions(self) -> None:
        """Leave garbage to Python's collector; the library's own stops every thread."""

    def _bind_defaults(self) -> None:
        """Bind the defaults for questions, not the handlers that write logs."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def stop(self, patience_s: float) -> None:
        """Close the port, let associations finish, cut off those that do not in time."""
        if self._thread.is_alive():
            BaseServer.shutdown(self)
            self._thread.join()
        self.server_close()
        if self._wait_until_empty(patience_s):
            return
        for assoc in self._all():
            if assoc.is_established:
                assoc.abort(block=False)
        # An A-ABORT is on its way within moments, unless the client has stopped reading.
        if not self._wait_until_empty(1.0):
            for assoc in self._all():
                log.warning("association_cut", peer=assoc.requestor.address)
                if isinstance(assoc.dul.socket, BoundedSocket):
                    assoc.dul.socket.shut()
            self._wait_until_empty(5.0)

    def _all(self) -> list[Association]:
        with self._changed:
            return list(self._present)

    def _wait_until_empty(self, patience_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._present, patience_s)
