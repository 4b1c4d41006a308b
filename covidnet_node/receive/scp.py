"""The receiver: C-STORE → spool → admit → journal → status.

Success is answered only when the file is fsynced and the journal's row committed. Never
decodes pixels, never waits for the analysis, and never logs what a data set holds.
"""

import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import cast

import structlog
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from covidnet_node.admit import RESULT_CLASSES, SECONDARY_CAPTURE, admit, is_own_heatmap
from covidnet_node.audit.events import Peer, Record, Subject, Transfer, unrecorded
from covidnet_node.audit.subject import subject_of
from covidnet_node.case import Admission, Case, Reason, Received
from covidnet_node.certificates import Renewing
from covidnet_node.config import Config
from covidnet_node.errors import BadConfig, Refuse, RetryLater
from covidnet_node.intended_use import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.mailbox import serve_in_turn
from covidnet_node.receive.bounded import Limits
from covidnet_node.receive.commitment import Reports
from covidnet_node.receive.contexts import supported_contexts
from covidnet_node.receive.crowd import Crowd
from covidnet_node.receive.doorkeeper import Doorkeeper, Sender, sender_of
from covidnet_node.receive.inbox import Inbox, Incoming
from covidnet_node.receive.listen import House, Listener, see_off
from covidnet_node.receive.read_header import (
    CANNOT_UNDERSTAND,
    Header,
    check_command,
    is_uid,
    read_header,
)
from covidnet_node.receive.refusals import Refusals

log = structlog.get_logger()

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
REFUSED_STATUS = {
    "success": SUCCESS,
    "cannot_understand": CANNOT_UNDERSTAND,
    "out_of_resources": OUT_OF_RESOURCES,
}
MIB = 1024 * 1024
STOP_S = 10.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Receiver:
    """The C-ECHO and C-STORE SCP of the node."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        spool: Spool,
        clock: Callable[[], datetime] = _utc_now,
        admitted: Callable[[], None] = lambda: None,
        record: Record = unrecorded,
        reports: Reports | None = None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._admitted = admitted
        self._reports = reports
        receive = config.receive
        self._crowd = Crowd(receive.max_associations, receive.max_connections_per_peer)
        self._record = record
        self._refusals = Refusals(journal, clock, record=record)
        self._doorkeeper = Doorkeeper(config, self._crowd, self._refusals)
        self._listeners: dict[str, Listener] = {}
        """By the key of the port in node.toml."""

    def start(self) -> None:
        """Bind the ports and answer from now on.

        Raises BadConfig if a port cannot be bound or a certificate cannot be used.
        """
        receive = self._config.receive
        limits = Limits(
            max_pdu_bytes=receive.max_pdu_bytes,
            request_timeout_s=receive.request_timeout_s,
            network_timeout_s=receive.network_timeout_s,
        )
        house = House(
            entity=self._entity(),
            contexts=supported_contexts(receive, reports=self._reports is not None),
            handlers=self._handlers(),
            limits=limits,
            make_inbox=self._make_inbox,
            crowd=self._crowd,
            doorkeeper=self._doorkeeper,
            refusals=self._refusals,
        )
        listeners = dict(self._bound(house))
        for key, listener in listeners.items():
            listener.start()
            host, port = listener.server_address[:2]
            log.info(
                "listening", key=key, address=str(host), port=port, ae_title=house.entity.ae_title
            )
        self._listeners = listeners

    def _bound(self, house: House) -> Iterator[tuple[str, Listener]]:
        receive = self._config.receive
        # The certificate first: a fault in it must not leave a port half open.
        renewing = None if receive.tls is None else Renewing(receive.tls)
        if receive.open_plain:
            yield "receive.port", _bind(house, "receive.port", receive.address, receive.port)
        if receive.tls is not None and renewing is not None:
            key, port = "receive.tls.port", receive.tls.port
            yield key, _bind(house, key, receive.address, port, renewing.context)

    @property
    def listening(self) -> bool:
        """Whether clients are answered, at every port."""
        listeners = self._listeners.values()
        return bool(listeners) and all(each.listening for each in listeners)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are really bound: the plain ones, if there are any."""
        return self._address(
            "receive.port" if self._config.receive.open_plain else "receive.tls.port"
        )

    @property
    def tls_address(self) -> tuple[str, int]:
        """Host and port that are really bound for TLS."""
        return self._address("receive.tls.port")

    def _address(self, key: str) -> tuple[str, int]:
        if key not in self._listeners:
            raise RuntimeError(f"{key} has not been opened")
        host, port = self._listeners[key].server_address[:2]
        return str(host), int(port)

    def stop(self, patience_s: float = STOP_S) -> None:
        """Close the ports, let associations finish for so long, then abort them."""
        if not any(each.listening for each in self._listeners.values()):
            return
        for listener in self._listeners.values():
            listener.close()
        see_off(self._crowd, patience_s)
        self._refusals.close()
        log.info("stopped_listening")

    def _entity(self) -> ApplicationEntity:
        receive = self._config.receive
        entity = ApplicationEntity(self._config.node.ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_UID)
        entity.implementation_version_name = IMPLEMENTATION_NAME
        # Who may come, and how many, is decided in `Doorkeeper`, before pynetdicom's own rules.
        entity.require_called_aet = False
        entity.require_calling_aet = []
        entity.maximum_associations = 10 * receive.max_associations
        entity.maximum_pdu_size = receive.max_pdu_bytes
        entity.acse_timeout = receive.request_timeout_s
        entity.dimse_timeout = receive.network_timeout_s
        entity.network_timeout = receive.network_timeout_s
        return entity

    def _handlers(self) -> list[evt.EventHandlerType]:
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._doorkeeper.on_requested),
            (evt.EVT_ACCEPTED, self._doorkeeper.on_accepted),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
        ]
        if self._reports is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._reports.on_new_association))
        return handlers

    def _on_echo(self, _event: Event) -> int:
        return SUCCESS

    # C-STORE

    def _make_inbox(self, assoc: Association) -> Inbox:
        """Stream data sets of this association; far beyond the limit it is aborted."""
        serve_in_turn(assoc)
        most = self._config.receive.max_object_mib * MIB
        return Inbox(assoc, partial(self._open, most), 2 * most)

    def _open(self, most: int, sop_class: str, instance: str, syntax: str) -> Incoming:
        """Begin to receive; by the command alone decide whether anything is to be kept."""
        incoming = Incoming(most)
        if sop_class in RESULT_CLASSES:
            return incoming
        if not is_uid(sop_class) or not is_uid(instance):
            detail = "the command names no valid SOP class and instance"
            incoming.refuse(Refuse(Reason.BAD_UID, detail, status=CANNOT_UNDERSTAND))
            return incoming
        try:
            self._check_space()
            path, file = self._spool.incoming()
        except RetryLater as verdict:
            incoming.refuse(Refuse(verdict.reason, verdict.detail, status=OUT_OF_RESOURCES))
        else:
            incoming.open(path, file, sop_class, instance, syntax)
        return incoming

    def _check_space(self) -> None:
        low = self._config.receive.low_disk_mib
        if self._spool.free_bytes() < low * MIB:
            raise RetryLater(Reason.NO_SPACE, f"less than {low} MiB free (receive.low_disk_mib)")

    def _on_store(self, event: Event) -> int:
        """Answer a C-STORE, once it stands in the audit trail."""
        request = cast(C_STORE, event.request)
        sender = sender_of(event.assoc)
        status = self._answer(request, sender, event)
        self._record(arrival(request, sender, status))
        return status

    def _answer(self, request: C_STORE, sender: Sender, event: Event) -> int:
        """Turn whatever comes of a C-STORE into a status; nothing is acknowledged and lost."""
        incoming = request.DataSet
        try:
            return self._store(request, sender, str(event.context.transfer_syntax))
        except Refuse as verdict:
            self._doorkeeper.rejected(sender, verdict.reason.value, verdict.detail)
            return verdict.status
        except RetryLater as verdict:
            reason, detail = verdict.reason, verdict.detail
            log.warning("cannot_store", calling_ae=sender.calling_ae, reason=reason, detail=detail)
            return OUT_OF_RESOURCES
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender must keep the image
            # The message of an unknown error may quote the data set; its place does not.
            trace = "".join(traceback.format_tb(error.__traceback__))
            name = type(error).__name__
            log.critical("store_failed", calling_ae=sender.calling_ae, error=name, trace=trace)
            return OUT_OF_RESOURCES
        finally:
            if isinstance(incoming, Incoming):
                incoming.discard()

    def _store(self, request: C_STORE, sender: Sender, transfer_syntax: str) -> int:
        """Decide about one object; raises Refuse and RetryLater."""
        incoming = request.DataSet
        if not isinstance(incoming, Incoming):
            raise Refuse(Reason.NOT_DICOM, "no data set", status=CANNOT_UNDERSTAND)
        path, sha256 = incoming.finish()
        sop_class = str(request.AffectedSOPClassUID)
        if path is None:
            incoming.held = True
            return self._ignore(sop_class)
        header = read_header(path, incoming.offset, transfer_syntax)
        incoming.subject = subject_of(header.dataset)
        check_command(header, sop_class, str(request.AffectedSOPInstanceUID))
        if sop_class == SECONDARY_CAPTURE and is_own_heatmap(header.dataset):
            incoming.held = True
            return self._ignore(sop_class)
        received = Received(
            key=header.key,
            sop_class_uid=sop_class,
            transfer_syntax_uid=transfer_syntax,
            calling_ae=sender.calling_ae,
            called_ae=sender.called_ae,
            peer=sender.peer,
            received_at=self._clock(),
            sha256=sha256,
            size=path.stat().st_size,
        )
        admission = self._judge(header, received)
        if not admission.admitted:
            return self._refuse(received, admission)
        incoming.held = not self._keep(path, received, admission)
        return SUCCESS

    def _refuse(self, received: Received, admission: Admission) -> int:
        """Not our kind of image: the row stays, the pixels go."""
        case_id = new_case_id(received.received_at)
        self._journal.refuse(case_id, received, admission, self._clock())
        caller, reason, detail = received.calling_ae, admission.reason, admission.detail
        log.info("refused", case_id=case_id, calling_ae=caller, reason=reason, detail=detail)
        return REFUSED_STATUS[self._config.receive.refused_status]

    def _ignore(self, sop_class: str) -> int:
        """Our own results, coming back by auto-routing: nothing is stored, nothing analyzed."""
        self._journal.count("own_results_ignored", self._clock())
        log.info("own_result_ignored", sop_class=sop_class)
        return SUCCESS

    def _judge(self, header: Header, received: Received) -> Admission:
        if not header.has_pixels:
            return Admission(admitted=False, reason=Reason.NO_PIXELS, detail="no pixel data")
        rules, today = self._config.admit, received.received_at.date()
        return admit(header.dataset, received.sop_class_uid, received.calling_ae, rules, today)

    def _keep(self, path: Path, received: Received, admission: Admission) -> bool:
        """File in its place, then the journal's row, then Success: in this order.

        Tells whether it is new. If the row cannot be written the file stays: a commit may have
        succeeded although it reported failure. The spool is swept of what no row knows.
        """
        log_ = log.bind(calling_ae=received.calling_ae)
        for known in self._journal.versions(received.key):
            if known.received.sha256 == received.sha256:
                return self._mend(path, known)
        case_id = new_case_id(received.received_at)
        self._spool.keep(path, case_id)
        case = self._journal.admit(case_id, received, admission, self._clock())
        if case.id != case_id:
            # Another association brought the same bytes at the same time.
            self._spool.drop(case_id)
            log_.info("duplicate", case_id=case.id)
            return False
        log_.info("admitted", case_id=case_id, reason=admission.reason)
        self._admitted()
        return True

    def _mend(self, path: Path, known: Case) -> bool:
        """Put a known image in the place of its damaged file; tells whether there was need."""
        damaged = self._journal.pause(known.id).park_reason is Reason.FILE_DAMAGED
        if damaged:
            self._spool.keep(path, known.id)
        # Another association may have been first.
        if not damaged or not self._journal.mend(known.id, self._clock()):
            log.info("duplicate", case_id=known.id)
            return False
        log.info("mended", case_id=known.id)
        self._admitted()
        return True


def arrival(request: C_STORE, sender: Sender, status: int) -> Transfer:
    """What the audit trail is to know of one C-STORE."""
    incoming = request.DataSet
    subject = incoming.subject if isinstance(incoming, Incoming) else None
    return Transfer(
        inbound=True,
        peer=Peer(sender.calling_ae, sender.peer, sender.certificate),
        subject=subject
        or Subject(
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
        ),
        failure="" if status == SUCCESS else f"answered with status {status:04X}",
        held=isinstance(incoming, Incoming) and incoming.held,
    )


def _bind(
    house: House,
    key: str,
    address: str,
    port: int,
    tls: Callable[[], SSLContext] | None = None,
) -> Listener:
    try:
        return Listener(house, (address, port), tls)
    except OSError as error:
        remedy = f"cannot listen on {address}:{port}: {error.strerror}"
        raise BadConfig("node.toml", key, remedy) from error
