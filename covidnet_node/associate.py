"""Calls a peer: one association, and what the peer said about it, which pynetdicom only logs.

What C-STORE, C-ECHO and storage commitment share. Every wait has its own limit.
"""

import select
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import cast

import structlog
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from covidnet_node.certificates import Files, client_context, destination_files, farewell, words_of
from covidnet_node.config import Destination
from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from covidnet_node.mailbox import Mailbox, serve_in_turn

log = structlog.get_logger()

SMALLEST_PDU = 64
"""Bytes; a peer that announces less (and not 0, no limit) cannot take a command."""

LARGEST_PDU = 256 * 1024
"""Bytes of a PDU that are believed of a peer; we announce to take less."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How to call over TLS."""

    files: Files
    check_server_name: bool
    server_name: str
    """What the peer's certificate must be for."""


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to call, and how long to wait for it."""

    ae_title: str
    host: str
    port: int
    connect_timeout_s: float
    """For the TCP connection, for the TLS handshake, for the answer to the association request."""
    response_timeout_s: float
    """For an answer, on top of the time the bytes take at `SLOWEST_LINE`."""
    max_pdu: int = 16_384
    """Largest PDU we announce to take, bytes; what we send is cut to the peer's."""
    tls: Tls | None = None


def target_of(destination: Destination, *, sender_ae: str, peer: str) -> Target:
    """Say whom to call; sender and peer matter only where results go back to the sender."""
    own, tls = destination.back_to_sender, destination.tls
    host = peer if own else destination.host or ""
    return Target(
        ae_title=sender_ae if own else destination.ae_title or "",
        host=host,
        port=destination.port or 0,
        connect_timeout_s=destination.connect_timeout_s,
        response_timeout_s=destination.response_timeout_s,
        tls=None
        if tls is None
        else Tls(
            destination_files(destination.name, tls),
            tls.check_server_name,
            tls.server_name or host,
        ),
    )


class _Wire(AssociationSocket):
    """A connection made within its deadline, over TLS where asked; remembers why it failed.

    pynetdicom waits for ever for a peer that does not read, believes any length of a PDU, and
    forgets a socket that never connected. Read and written by one thread only.
    """

    def __init__(
        self,
        assoc: Association,
        address: AddressInformation,
        target: Target,
        context: ssl.SSLContext | None,
    ) -> None:
        self.target = target
        self.context = context
        self.reached = False
        """Whether there was a TCP connection."""
        self.failure: Exception | None = None
        super().__init__(assoc, address=address)

    def connect(self, primitive: T_CONNECT) -> None:
        """TCP, then the TLS handshake; tells pynetdicom's state machine what came of it."""
        try:
            self._connect(primitive.address_info.as_tuple)
        except (OSError, ValueError) as error:
            self.failure = error
            if self.socket is not None:
                self.socket.close()
            self.socket = None
            primitive.result = "Evt17"
        else:
            address = cast(socket.socket, self.socket).getsockname()
            self.assoc.requestor.address_info = AddressInformation.from_tuple(address)
            self._is_connected = True
            evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})
            primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()

    def _connect(self, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
        wire, tls = cast(socket.socket, self.socket), self.target.tls
        wire.settimeout(self.target.connect_timeout_s)
        wire.connect(address)
        self.reached = True
        # Command and data set are two writes; Nagle would hold back the second for 40 ms.
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None and self.context is not None:
            safe = self.context.wrap_socket(
                wire, server_hostname=tls.server_name, do_handshake_on_connect=False
            )
            self.socket = wire = safe
            safe.settimeout(self.target.connect_timeout_s)
            safe.do_handshake()
        wire.settimeout(self.target.response_timeout_s)

    @property
    def ready(self) -> bool:
        """Whether there is something to read.

        By poll: select, which pynetdicom uses, fails on file descriptors above 1023.
        """
        wire = self.socket
        if wire is None or not self._is_connected:
            return False
        if isinstance(wire, ssl.SSLSocket) and wire.pending():
            return True
        poller = select.poll()
        try:
            poller.register(wire, select.POLLIN)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # PS3.8 9.2: transport connection closed
            return False
        return bool(poller.poll(0))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, none too many, and in time."""
        wire, deadline = self.socket, monotonic() + self.target.response_timeout_s
        whole = bytearray()
        if wire is None or nr_bytes > LARGEST_PDU:
            return whole
        try:
            while len(whole) < nr_bytes:
                wire.settimeout(max(deadline - monotonic(), 0.001))
                piece = wire.recv(nr_bytes - len(whole))
                if not piece:
                    break
                whole += piece
        except OSError as error:
            self.failure = error
            raise
        wire.settimeout(self.target.response_timeout_s)
        return whole

    def cut(self) -> None:
        """End the connection; pynetdicom's thread finds it ended."""
        if self.socket is not None:
            with suppress(OSError):
                # Past TLS, whose own ending is not safe beside a thread that writes.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def _shutdown_socket(self) -> None:
        farewell(self.socket)
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()  # which pynetdicom forgets when the peer has gone already


class _Caller(AE):
    """An application entity that calls over a `_Wire`."""

    wire: _Wire | None = None

    def __init__(self, title: str, target: Target) -> None:
        super().__init__(title)
        self._target = target
        tls = target.tls
        self._context = (
            None
            if tls is None
            else client_context(tls.files, check_server_name=tls.check_server_name)
        )

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        _tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        self.wire = _Wire(assoc, address, self._target, self._context)
        return self.wire


class Call:
    """One association, and what the peer said about it, which pynetdicom itself only logs."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.association: Association | None = None
        self.refused_for_good = False
        self.ended = "the association is closed"
        """Why nothing more can be sent on it."""
        self.mailbox: Mailbox | None = None
        self._caller: _Caller | None = None
        self._said: object = None

    def open(
        self,
        calling_ae: str,
        contexts: list[PresentationContext],
        handlers: Sequence[evt.EventHandlerType] = (),
    ) -> str | None:
        """Associate: None, or why not. A peer that rejects every context counts as open.

        `handlers` answer what the peer asks of us on this association.
        """
        try:
            association = self._request(calling_ae, contexts, handlers)
        except OSError as error:
            return f"no connection to {self.where}: {error.strerror or error}"
        except (BadConfig, ValueError) as error:
            self.refused_for_good = True
            return f"cannot call {self.where}: {error}"
        for context in association.rejected_contexts:
            log.warning(
                "context rejected",
                peer=self.target.ae_title,
                abstract_syntax=UID(context.abstract_syntax or "").name,
                why=context.status,
            )
        if not association.is_established and not association.rejected_contexts:
            return self._refusal()
        largest = association.acceptor.maximum_length or 0
        if 0 < largest < SMALLEST_PDU:
            association.abort()
            return f"{self.where} takes only {largest} bytes a PDU"
        self.association = association
        return None

    def close(self) -> None:
        """Release the association if it still stands; nothing is answered on it after that."""
        if self.mailbox is not None:
            self.mailbox.close()
        if self.association is not None and self.association.is_established:
            self.association.release()

    @property
    def where(self) -> str:
        """Whom it calls, for a person."""
        return f"{self.target.ae_title} at {self.target.host}:{self.target.port}"

    @property
    def peer(self) -> str:
        """IP address that was reached; empty without an open association."""
        wire = self.association and self.association.dul.socket
        try:
            return str(wire.socket.getpeername()[0]) if wire and wire.socket else ""
        except OSError:
            return ""

    def _request(
        self,
        calling_ae: str,
        contexts: list[PresentationContext],
        handlers: Sequence[evt.EventHandlerType],
    ) -> Association:
        # Of a sender anything may be known, or nothing; pynetdicom takes "" for this host.
        if not self.target.host:
            raise ValueError("its address is not known")
        if not 1 <= len(self.target.ae_title.strip()) <= 16:
            raise ValueError("an AE title has 1 to 16 characters")
        ae = self._caller = _Caller(calling_ae, self.target)
        ae.implementation_class_uid = UID(IMPLEMENTATION_UID)
        ae.implementation_version_name = IMPLEMENTATION_NAME
        ae.connection_timeout = self.target.connect_timeout_s
        ae.acse_timeout = self.target.connect_timeout_s
        ae.dimse_timeout = self.target.response_timeout_s
        # The caller may take its time between two results; every wait has its own limit.
        ae.network_timeout = None
        return ae.associate(
            self.target.host,
            self.target.port,
            contexts,
            self.target.ae_title,
            self.target.max_pdu,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._on_open),
                (evt.EVT_ACSE_RECV, self._on_acse),
                *handlers,
            ],
        )

    def _on_open(self, event: evt.Event) -> None:
        """Before the peer can have said anything."""
        event.assoc.dimse = self.mailbox = Mailbox(event.assoc, self._hang_up)
        serve_in_turn(event.assoc)

    def _hang_up(self) -> None:
        if self._caller is not None and self._caller.wire is not None:
            self._caller.wire.cut()

    def _on_acse(self, event: evt.Event) -> None:
        self._said = event.primitive  # type: ignore[attr-defined] # of this kind of event

    def _refusal(self) -> str:
        """Why there is no association."""
        patience = self.target.connect_timeout_s
        wire = self._caller.wire if self._caller is not None else None
        failure = wire.failure if wire is not None else None
        if wire is None or not wire.reached:
            slow = isinstance(failure, TimeoutError)
            why = f"nothing within {patience:g} s" if slow else "refused, or no way there"
            return f"no connection to {self.where}: {why}"
        if self.target.tls is not None and failure is not None:
            self.refused_for_good = isinstance(failure, ssl.SSLCertVerificationError)
            return f"no connection to {self.where}: {_tls_words(failure, patience)}"
        if isinstance(self._said, A_ASSOCIATE):
            said = self._said
            self.refused_for_good = said.result == 1
            return f"{self.where} rejected the association: {said.result_str}, {said.reason_str}"
        if isinstance(self._said, A_ABORT | A_P_ABORT):
            return f"{self.where} broke off the association request"
        return f"{self.where} did not answer the association request within {patience:g} s"

    def silence(self, association: Association, patience: float) -> str:
        """Why a request had no answer."""
        # What the peer said arrives in the association's own thread, which ends with it.
        association.join(self.target.response_timeout_s)
        if self.mailbox is not None and self.mailbox.overflowed:
            return f"{self.where} answers without end"
        if isinstance(self._said, A_ABORT):
            return f"{self.where} aborted the association"
        if isinstance(self._said, A_P_ABORT):
            return f"the connection to {self.where} was lost"
        return f"no valid answer from {self.where} within {patience:.3g} s"


def _tls_words(failure: Exception, patience: float) -> str:
    if isinstance(failure, TimeoutError):
        return f"TLS failed: nothing within {patience:g} s; is it a port for TLS?"
    if isinstance(failure, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "TLS failed: it hung up; is it a port for TLS, and does it know our certificate?"
    return words_of(failure) if isinstance(failure, OSError) else f"TLS failed: {failure}"
