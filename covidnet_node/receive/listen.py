"""The listener: bounded in connections, in the size of a PDU and in the time one may take.

pynetdicom believes any length that a PDU header claims, reads without a deadline and shakes hands
for TLS in its accept loop. Here a connection gets a thread of its own before anything is read from
it, so that nothing a client does, or fails to do, holds up the others.
"""

import errno
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from typing import cast

import structlog
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from covidnet_node.certificates import Identity, farewell, identity_of, words_of
from covidnet_node.receive.bounded import (
    HEADER,
    MAX_REQUEST_PDU,
    BoundedSocket,
    Limits,
    Machine,
    length_of,
    read_exactly,
)
from covidnet_node.receive.crowd import Crowd, Visitor
from covidnet_node.receive.doorkeeper import Doorkeeper
from covidnet_node.receive.inbox import Inbox
from covidnet_node.receive.pacing import Checkpoint, RingingQueue
from covidnet_node.receive.refusals import Refusals

log = structlog.get_logger()

_ASSOCIATE_RQ, _ASSOCIATE_RJ = 1, 3
_SHORTEST_REQUEST = 68
"""Bytes of an association request before its items (PS3.8 9.3.2)."""

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
NO_ROOM_PAUSE_S = 0.5

Request = socket.socket | tuple[bytes, socket.socket]
Address = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class House:
    """What all ports of the receiver have in common."""

    entity: ApplicationEntity
    contexts: list[PresentationContext]
    handlers: list[evt.EventHandlerType]
    limits: Limits
    make_inbox: Callable[[Association], Inbox]
    crowd: Crowd
    doorkeeper: Doorkeeper
    refusals: Refusals


class Connection(RequestHandler):
    """One client, in a thread of its own, from accept to the end of its association."""

    server: "Listener"

    def __init__(self, visitor: Visitor, client_address: Address, server: "Listener") -> None:
        self.visitor = visitor
        self._deadline = time.monotonic() + server.house.limits.request_timeout_s
        self._identity: Identity | None = None
        super().__init__(visitor.wire, client_address, server)

    def handle(self) -> None:
        """Run the association to its end.

        Handshake and request come before pynetdicom knows of the client: port checks and silent
        clients cost one waiting thread and hold no association.
        """
        house = self.server.house
        request = self._read_request() if self._shake_hands() else None
        if not request or not house.crowd.asked(self.visitor):
            self._hang_up()
            return
        peer = str(self.client_address[0])
        turned_away = house.doorkeeper.at_the_door(bytes(request), peer, self._identity)
        if turned_away is not None:
            answer = turned_away.rejection.answer
            with suppress(OSError):
                self.request.sendall(struct.pack(">BBLBBBB", _ASSOCIATE_RJ, 0, 4, 0, *answer))
            self._hang_up()
            # Only now: the journal may be slow, and the client need not wait for it.
            house.doorkeeper.note(turned_away)
            return
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(house.limits.network_timeout_s)
        assoc = self._create_association()
        sock = BoundedSocket(
            assoc, self.request, house.limits, house.refusals, request, self._identity
        )
        assoc.dul.socket = sock
        assoc.dul.state_machine = Machine(assoc.dul)
        inbox = house.make_inbox(assoc)
        assoc.dimse = inbox
        sock.answering = inbox.answering
        _let_sleep(assoc)
        assoc.run = partial(_run, assoc, assoc.run)  # type: ignore[method-assign]  # see there
        house.crowd.enter(assoc, sock)
        try:
            assoc.start()
            assoc.join()
        finally:
            inbox.close()
            sock.free()
            house.crowd.exit(assoc)

    def _hang_up(self) -> None:
        farewell(self.request)
        self.server.shutdown_request(self.request)

    def _shake_hands(self) -> bool:
        """Turn to TLS, if this port speaks it, in the time left; learn who the client is."""
        if self.server.tls is None:
            return True
        wire = cast(socket.socket, self.request)
        try:
            context = self.server.tls()
            wire = context.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
            self.request = wire
            self.server.house.crowd.hold(self.visitor, wire)
            wire.settimeout(max(self._deadline - time.monotonic(), 0.001))
            wire.do_handshake()
            self._identity = identity_of(wire)
        except (OSError, ValueError) as error:
            self._note_failure(error)
            return False
        return True

    def _note_failure(self, error: OSError | ValueError) -> None:
        """Tell a stranger from a client that has merely gone or said nothing."""
        peer, refusals = self.client_address[0], self.server.house.refusals
        gone = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        if gone or not isinstance(error, ssl.SSLError):
            log.debug("no_handshake", peer=peer, error=type(error).__name__)
            return
        why = words_of(error)
        refusals.tell("tls_refused", peer=peer, why=why)
        refusals.count("", peer, [("tls", why)])

    def _read_request(self) -> bytearray:
        """Read the A-ASSOCIATE-RQ; empty if none comes in time, or something else."""
        peer = self.client_address[0]
        header = read_exactly(self.request, HEADER, self._deadline)
        if not header:
            log.debug("no_request", peer=peer)
            return header
        length = length_of(header)
        if header[0] != _ASSOCIATE_RQ or not _SHORTEST_REQUEST <= length <= MAX_REQUEST_PDU:
            self.server.house.refusals.tell("pdu_refused", peer=peer, kind=header[0], length=length)
            return bytearray()
        body = read_exactly(self.request, length, self._deadline)
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


def _run(assoc: Association, run: Callable[[], None]) -> None:
    """Run an association; what breaks it, e.g. a context without a transfer syntax, ends it only.

    Of an exception pynetdicom's thread would die, and its other thread live on.
    """
    try:
        run()
    except Exception as error:  # noqa: BLE001 - what a client sent must end its association only
        peer, what = assoc.requestor.address, type(error).__name__
        log.warning("association_failed", peer=peer, state="negotiation", error=what)
        if isinstance(assoc.dul.socket, BoundedSocket):
            assoc.dul.socket.shut()
        assoc.is_established = False
        assoc.dul.kill_dul()


def _let_sleep(assoc: Association) -> None:
    """Ring the association's thread for messages, releases and aborts, in place of its polling."""
    dul, dimse = assoc.dul, assoc.dimse
    checkpoint = Checkpoint(lambda: not (dul.to_user_queue.empty() and dimse.msg_queue.empty()))
    dul.to_user_queue = RingingQueue(checkpoint.ring)
    dimse.msg_queue = RingingQueue(checkpoint.ring)
    assoc._reactor_checkpoint = checkpoint


class Listener(ThreadedAssociationServer):
    """Accepts connections on one port until closed. Raises OSError if it cannot bind."""

    request_queue_size = 128

    def __init__(
        self,
        house: House,
        address: tuple[str, int],
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.house = house
        self.tls = tls
        """The context for a new connection; None: a plain port."""
        entity = house.entity
        super().__init__(
            entity, address, entity.ae_title, house.contexts, None, house.handlers, Connection
        )
        self._closing = threading.Event()
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

    def process_request(self, request: Request, client_address: Address) -> None:
        """Start the thread of one client; a stranger by address is cut off unheard."""
        wire, peer, house = cast(socket.socket, request), str(client_address[0]), self.house
        visitor = None
        if not house.doorkeeper.allowed.knows_address(peer):
            house.refusals.tell("connection_refused", peer=peer, reason="address not allowed")
            house.refusals.count("", peer, [("address", "")], at_once=False)
        else:
            visitor = house.crowd.arrive(wire, peer)
            if visitor is None:
                house.refusals.tell("connection_refused", peer=peer, reason="too many")
        if visitor is None:
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self._serve, args=(visitor, client_address), name="connection", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            house.crowd.leave(visitor)
            raise

    def _serve(self, visitor: Visitor, client_address: Address) -> None:
        try:
            Connection(visitor, client_address, self)
        except Exception:  # noqa: BLE001 - whatever it is, it ends this connection only
            self.handle_error(visitor.wire, client_address)
            self.shutdown_request(visitor.wire)
        finally:
            self.house.crowd.leave(visitor)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept; without a file descriptor left, wait a little instead of trying all the time."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in NO_ROOM:
                why = error.strerror
                self.house.refusals.tell("cannot_accept", reason=why, alert=True)
                self._closing.wait(NO_ROOM_PAUSE_S)
            raise

    def handle_error(self, _request: object, client_address: object) -> None:
        """Log what went wrong with one connection; the others go on."""
        log.error("connection_failed", peer=str(client_address), exc_info=sys.exc_info())

    def service_actions(self) -> None:
        """Leave garbage to Python's collector; the library's own stops every thread."""

    def _bind_defaults(self) -> None:
        """Bind the defaults for questions, not the handlers that write logs."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def close(self) -> None:
        """Close the port; associations go on."""
        self._closing.set()
        if self._thread.is_alive():
            BaseServer.shutdown(self)
            self._thread.join()
        self.server_close()


def see_off(crowd: Crowd, patience_s: float) -> None:
    """Let associations finish, cut off those that do not in time. The ports are closed."""
    crowd.send_away()
    if crowd.wait_until_empty(patience_s):
        return
    for assoc in crowd.present():
        if assoc.is_established:
            assoc.abort(block=False)
    # An A-ABORT is on its way within moments, unless the client has stopped reading.
    if not crowd.wait_until_empty(1.0):
        for assoc in crowd.present():
            log.warning("association_cut", peer=assoc.requestor.address)
            if isinstance(assoc.dul.socket, BoundedSocket):
                assoc.dul.socket.shut()
        crowd.wait_until_empty(5.0)
