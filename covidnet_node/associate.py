"""Calls a peer: one association, and what the peer said about it, which pynetdicom only logs.

What C-STORE, C-ECHO and storage commitment share. Every wait has its own limit.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import structlog
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT
from pynetdicom.presentation import PresentationContext

from covidnet_node.config import Destination
from covidnet_node.intended_use import IMPLEMENTATION_NAME, IMPLEMENTATION_UID

log = structlog.get_logger()

SMALLEST_PDU = 64
"""Bytes; a peer that announces less (and not 0, no limit) cannot take a command."""


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to call, and how long to wait for it."""

    ae_title: str
    host: str
    port: int
    connect_timeout_s: float
    """For the TCP connection, and again for the answer to the association request."""
    response_timeout_s: float
    """For an answer, on top of the time the bytes take at `SLOWEST_LINE`."""
    max_pdu: int = 16_384
    """Largest PDU we announce to take, bytes; what we send is cut to the peer's."""


def target_of(destination: Destination, *, sender_ae: str, peer: str) -> Target:
    """Say whom to call; sender and peer matter only where results go back to the sender."""
    own = destination.back_to_sender
    return Target(
        ae_title=sender_ae if own else destination.ae_title or "",
        host=peer if own else destination.host or "",
        port=destination.port or 0,
        connect_timeout_s=destination.connect_timeout_s,
        response_timeout_s=destination.response_timeout_s,
    )


class Call:
    """One association, and what the peer said about it, which pynetdicom itself only logs."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.association: Association | None = None
        self.refused_for_good = False
        self.ended = "the association is closed"
        """Why nothing more can be sent on it."""
        self._wire: socket.socket | None = None
        self._connected = False
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
        started = monotonic()
        try:
            association = self._request(calling_ae, contexts, handlers)
        except OSError as error:
            return f"no connection to {self.where}: {error.strerror or error}"
        except ValueError as error:
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
            return self._refusal(monotonic() - started)
        largest = association.acceptor.maximum_length or 0
        if 0 < largest < SMALLEST_PDU:
            association.abort()
            return f"{self.where} takes only {largest} bytes a PDU"
        self.association = association
        return None

    def close(self) -> None:
        """Release the association if it still stands."""
        if self.association is not None and self.association.is_established:
            self.association.release()

    @property
    def where(self) -> str:
        """Whom it calls, for a person."""
        return f"{self.target.ae_title} at {self.target.host}:{self.target.port}"

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
        ae = AE(calling_ae)
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
                (evt.EVT_ACSE_SENT, self._on_request),
                (evt.EVT_CONN_OPEN, self._on_open),
                (evt.EVT_ACSE_RECV, self._on_acse),
                *handlers,
            ],
        )

    def _on_request(self, event: evt.Event) -> None:
        wire = event.assoc.dul.socket
        if self._wire is None and wire is not None:
            self._wire = wire.socket

    def _on_open(self, _: evt.Event) -> None:
        self._connected = True
        if self._wire is not None:
            # pynetdicom waits forever for a peer that does not read, and in abort() as well.
            self._wire.settimeout(self.target.response_timeout_s)
            # Command and data set are two writes; Nagle would hold back the second for 40 ms.
            self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_acse(self, event: evt.Event) -> None:
        self._said = event.primitive  # type: ignore[attr-defined] # of this kind of event

    def _refusal(self, waited_s: float) -> str:
        """Why there is no association."""
        patience = self.target.connect_timeout_s
        if not self._connected:
            if self._wire is not None:
                self._wire.close()  # pynetdicom forgets a socket that never connected
            slow = waited_s >= patience
            why = f"nothing within {patience:g} s" if slow else "refused, or no way there"
            return f"no connection to {self.where}: {why}"
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
        if isinstance(self._said, A_ABORT):
            return f"{self.where} aborted the association"
        if isinstance(self._said, A_P_ABORT):
            return f"the connection to {self.where} was lost"
        return f"no valid answer from {self.where} within {patience:.3g} s"
