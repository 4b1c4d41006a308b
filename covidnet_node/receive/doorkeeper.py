"""Decides who may associate (PS3.8 7.1.1), and keeps the list of those who may not."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import structlog
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from covidnet_node.certificates import Identity
from covidnet_node.config import Config
from covidnet_node.receive.allow import AllowList
from covidnet_node.receive.bounded import BoundedSocket
from covidnet_node.receive.crowd import Crowd
from covidnet_node.receive.refusals import Refusals

log = structlog.get_logger()

CALLED_AE_NOT_RECOGNIZED = (0x01, 0x01, 0x07)
CALLING_AE_NOT_RECOGNIZED = (0x01, 0x01, 0x03)
LOCAL_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)
CONTEXT_NOT_SUPPORTED = (0x01, 0x01, 0x02)
NO_REASON_GIVEN = (0x02, 0x02, 0x01)
"""Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
DICOM_CONTEXT = "1.2.840.10008.3.1.1.1"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is not to be."""

    what: str
    """What does not fit, for log and journal."""
    detail: str
    answer: tuple[int, int, int]
    """What the client is told."""


LOCAL_LIMIT = Rejection("local_limit", "", LOCAL_LIMIT_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asks, and whom."""

    calling_ae: str
    called_ae: str
    peer: str
    certificate: str
    """Its subject, checked; empty without TLS."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Who was rejected, and why."""

    sender: Sender
    rejection: Rejection


def sender_of(assoc: Association) -> Sender:
    """Read it from the association request."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    identity = _identity(assoc)
    return Sender(
        calling_ae=str(primitive.calling_ae_title).strip(),
        called_ae=str(primitive.called_ae_title).strip(),
        peer=assoc.requestor.address,
        certificate="" if identity is None else str(identity),
    )


def _of_another_kind(assoc: Association) -> Rejection | None:
    """PS3.7 A.2.1: DICOM has one application context, and pynetdicom takes any."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    if primitive.application_context_name == DICOM_CONTEXT:
        return None
    return Rejection("application_context", "", CONTEXT_NOT_SUPPORTED)


def _identity(assoc: Association) -> Identity | None:
    wire = assoc.dul.socket
    return wire.identity if isinstance(wire, BoundedSocket) else None


class Doorkeeper:
    """Answers association requests that are not to be accepted. Raises BadConfig at the start."""

    def __init__(self, config: Config, crowd: Crowd, refusals: Refusals) -> None:
        self._config = config
        self._crowd = crowd
        self._refusals = refusals
        self.allowed = AllowList(config.receive)

    def at_the_door(
        self, request: bytes, peer: str, identity: Identity | None
    ) -> TurnedAway | None:
        """Judge an A-ASSOCIATE-RQ by its first bytes; returns who is to be rejected, or None.

        Before an association with its threads is made of it: so a flood of requests that will be
        rejected costs little. `on_requested` judges again what passes.
        """
        try:
            called, calling = (request[at : at + 16].decode("ascii").strip() for at in (10, 26))
        except UnicodeDecodeError:
            return None
        sender = Sender(calling, called, peer, "" if identity is None else str(identity))
        rejection = self._rejection(sender, identity)
        if rejection is None and not self._crowd.has_room(peer):
            rejection = LOCAL_LIMIT
        return None if rejection is None else TurnedAway(sender, rejection)

    def on_requested(self, event: Event) -> None:
        """Reject whom node.toml does not allow, and one association too many."""
        assoc = event.assoc
        try:
            sender = sender_of(assoc)
            rejection = _of_another_kind(assoc) or self._rejection(sender, _identity(assoc))
            if rejection is None and not self._crowd.seat(assoc, sender.peer):
                rejection = LOCAL_LIMIT
        except Exception as error:  # noqa: BLE001 - pynetdicom would go on and accept
            assoc.acse.send_reject(*NO_REASON_GIVEN)
            log.critical("cannot_judge_an_association", error=type(error).__name__, alert=True)
        else:
            if rejection is None:
                return
            assoc.acse.send_reject(*rejection.answer)
            self.note(TurnedAway(sender, rejection))
        assoc.kill()

    def note(self, turned_away: TurnedAway) -> None:
        """Log and count an association that was rejected."""
        rejection = turned_away.rejection
        self.rejected(turned_away.sender, rejection.what, rejection.detail)

    def _rejection(self, sender: Sender, identity: Identity | None) -> Rejection | None:
        """Why an association is not to be, for the journal and for the client.

        Whatever does not fit of a stranger, he is told the same (PS3.8 9.3.4).
        """
        config = self._config
        if config.receive.require_called_ae and sender.called_ae != config.node.ae_title:
            return Rejection("called_ae", sender.called_ae, CALLED_AE_NOT_RECOGNIZED)
        complaint = self.allowed.complaint(sender.calling_ae, sender.peer, identity)
        if complaint:
            shown = str(identity) if complaint == "certificate" and identity is not None else ""
            return Rejection(complaint, shown, CALLING_AE_NOT_RECOGNIZED)
        return None

    def on_accepted(self, event: Event) -> None:
        """Count the presentation contexts that were rejected."""
        kinds = [
            (
                "abstract_syntax" if context.result == 0x03 else "transfer_syntax",
                str(context.abstract_syntax),
            )
            for context in event.assoc.rejected_contexts
        ]
        if kinds:
            self._count(sender_of(event.assoc), "contexts_rejected", dict.fromkeys(kinds))

    def rejected(self, sender: Sender, what: str, detail: str) -> None:
        """Log and count an association, or an object, that was rejected."""
        self._count(sender, "rejected", [(what, detail)])

    def _count(self, sender: Sender, event: str, kinds: Collection[tuple[str, str]]) -> None:
        """Log first, then count: a journal that is down must not hide it."""
        told = [": ".join(filter(None, kind)) for kind in kinds]
        self._refusals.tell(event, calling_ae=sender.calling_ae, peer=sender.peer, what=told)
        self._refusals.count(sender.calling_ae, sender.peer, kinds)
