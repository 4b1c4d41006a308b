"""Asks a PACS to commit to what it has stored (PS3.4 Annex J), or looks whether it is there.

The answer to a request is a report: on the same association, or later on one that the PACS opens
to the listener. This file reads both kinds. It never decides what follows from an answer.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.status import GENERAL_STATUS

from covidnet_node.associate import Call, Target

SOP_CLASS = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Well-known; the only one there is (PS3.4 J.3.5)."""
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SYNTAXES = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

REQUEST = 1
"""Action type (PS3.4 J.3.2)."""
COMPLETE, WITH_FAILURES = 1, 2
"""Event types (PS3.4 J.3.3)."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
NO_SUCH_ARGUMENT = 0x0114

CLASS_NOT_COMMITTED = 0x0122
DUPLICATE_TRANSACTION = 0x0131
FAILURE_REASONS: Mapping[int, str] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    0x0119: "class / instance conflict",
    CLASS_NOT_COMMITTED: "referenced SOP class not supported",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""PS3.3 C.14.1.1."""

MOST_MATCHES = 100
"""Of a query for one instance; a peer that sends more does not regard the keys."""
_PENDING = frozenset({0xFF00, 0xFF01})
_TICK_S = 0.2
"""How often a wait looks whether the node stops, or the association has ended."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One stored result."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Request:
    """One transaction: its UID is new, and never used for another."""

    transaction_uid: str
    instances: tuple[Instance, ...]


class Take(StrEnum):
    """What became of a request. A report says later what became of its instances."""

    TAKEN = "taken"
    REFUSED = "refused"
    """By a status, or there was no answer."""
    NOT_OFFERED = "not_offered"
    """The peer takes no requests of this kind; none was put, and none noted."""
    NOT_REACHED = "not_reached"
    """There was no association, or no longer; none was put, and none noted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How far a request came."""

    take: Take
    detail: str = ""
    """Words for journal and log; no patient data."""


class Look(StrEnum):
    """What a query says of an instance."""

    THERE = "there"
    MISSING = "missing"
    UNKNOWN = "unknown"
    """It was not answered, or not well."""
    NOT_REACHED = "not_reached"


@dataclass(frozen=True, slots=True)
class Found:
    """One instance, and whether it was found."""

    sop_instance_uid: str
    look: Look
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer says of a transaction, by SOP instance UIDs."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]
    """With the Failure Reason."""


class BadReport(Exception):
    """A report that cannot be understood; `status` is the answer to it (PS3.7 10.1.1.1.8)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


Note = Callable[[Request, str], None]
"""Is told of each request, and of the IP address it goes to, before it goes out."""
Hear = Callable[[evt.Event], tuple[int, None]]
"""Answers a report with a status, at once."""


def find(target: Target, instances: Sequence[Instance], calling_ae: str) -> Iterator[Found]:
    """Ask by C-FIND for each instance whether the peer has it (PS3.4 C.6.2, level IMAGE)."""
    call = Call(target)
    refusal = call.open(calling_ae, [build_context(STUDY_ROOT_FIND, list(SYNTAXES))])
    if refusal is not None:
        for each in instances:
            yield Found(each.sop_instance_uid, Look.NOT_REACHED, refusal)
        return
    try:
        for number, each in enumerate(instances):
            yield _look(call, each, number % 0xFFFF + 1)
    finally:
        call.close()


def offered(target: Target, sop_classes: Sequence[str], calling_ae: str) -> frozenset[str] | str:
    """Ask which of the classes the peer would take; a sentence if there is no association."""
    call = Call(target)
    refusal = call.open(calling_ae, [build_context(each, list(SYNTAXES)) for each in sop_classes])
    if refusal is not None or call.association is None:
        return refusal or call.ended
    call.close()
    return frozenset(str(each.abstract_syntax) for each in call.association.accepted_contexts)


def read_report(event: evt.Event) -> Report:
    """Read an N-EVENT-REPORT of the Storage Commitment class; raises BadReport."""
    asked = event.request
    if not isinstance(asked, N_EVENT_REPORT):
        raise BadReport(PROCESSING_FAILURE, "no N-EVENT-REPORT")
    if asked.AffectedSOPClassUID != SOP_CLASS or asked.AffectedSOPInstanceUID != SOP_INSTANCE:
        raise BadReport(NO_SUCH_INSTANCE, "a report about another SOP instance")
    if asked.EventTypeID not in (COMPLETE, WITH_FAILURES):
        raise BadReport(NO_SUCH_EVENT, "an event type other than 1 and 2")
    try:
        said = event.event_information
        transaction_uid = str(said.get("TransactionUID", None) or "")
        committed = frozenset(_uid(item) for item in _items(said, "ReferencedSOPSequence"))
        failed = {
            _uid(item): int(item.get("FailureReason", None) or PROCESSING_FAILURE)
            for item in _items(said, "FailedSOPSequence")
        }
    # What pydicom raises on bytes that are no data set, or not the one they should be.
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, OSError,
            NotImplementedError, RecursionError) as error:  # fmt: skip
        detail = f"an event information that cannot be read: {type(error).__name__}"
        raise BadReport(PROCESSING_FAILURE, detail) from error
    if not transaction_uid or len(transaction_uid) > 64:
        raise BadReport(NO_SUCH_ARGUMENT, "a report without a transaction UID")
    return Report(transaction_uid, committed, failed)


def told(failure_reason: int) -> str:
    """A Failure Reason as text, e.g. `0112 no such object instance`."""
    return f"{failure_reason:04X} {FAILURE_REASONS.get(failure_reason, 'unknown reason')}"


class Asking(Call):
    """An association for one request, and for its report if that comes soon.

    One only: a peer that reports at once, and waits for the answer, would get the next request.
    """

    def __init__(self, target: Target, hear: Hear) -> None:
        super().__init__(target)
        self._hear = hear
        self._heard = threading.Event()

    def put(self, each: Request, calling_ae: str, note: Note) -> Asked:
        """N-ACTION of the request. Raises what `note` raises; all else is told."""
        context = build_context(SOP_CLASS, list(SYNTAXES))
        handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        refusal = self.open(calling_ae, [context], handlers)
        association = self.association
        if refusal is not None or association is None:
            return Asked(Take.NOT_REACHED, refusal or "")
        if not association.is_established:
            return Asked(Take.NOT_OFFERED, f"{self.where} does not offer storage commitment")
        note(each, self.peer)
        try:
            answer, _ = association.send_n_action(
                _action_information(each), REQUEST, SOP_CLASS, SOP_INSTANCE
            )
        except (OSError, RuntimeError, ValueError) as error:
            association.abort()
            return Asked(Take.REFUSED, f"asking broke off: {type(error).__name__}")
        if "Status" not in answer:
            silence = self.silence(association, self.target.response_timeout_s)
            return Asked(Take.REFUSED, silence)
        status = int(answer.Status)
        if status == SUCCESS:
            return Asked(Take.TAKEN)
        return Asked(Take.REFUSED, f"{self.where} answered the request with {_words(status)}")

    def wait(self, wait_s: float, enough: Callable[[], bool]) -> None:
        """Stay for the report until it has been answered, `wait_s` is over, or it is `enough`."""
        association, mailbox, until = self.association, self.mailbox, monotonic() + wait_s
        if association is None or mailbox is None:
            return
        while association.is_established and not enough():
            left = until - monotonic()
            if left <= 0 or mailbox.answered.wait(min(left, _TICK_S)):
                break
        if self._heard.is_set():
            mailbox.answered.wait(self.target.response_timeout_s)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self._heard.set()
        return self._hear(event)


def _action_information(each: Request) -> Dataset:
    """PS3.4 table J.3-1."""
    data = Dataset()
    data.TransactionUID = each.transaction_uid
    data.ReferencedSOPSequence = Items()
    for instance in each.instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_instance_uid
        data.ReferencedSOPSequence.append(item)
    return data


def _look(call: Call, each: Instance, message_id: int) -> Found:
    association, uid = call.association, each.sop_instance_uid
    if association is None or not association.is_established:
        if association is not None and association.rejected_contexts:
            return Found(uid, Look.UNKNOWN, f"{call.where} does not offer queries")
        return Found(uid, Look.NOT_REACHED, call.ended)
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = each.study_uid
    keys.SeriesInstanceUID = each.series_uid
    keys.SOPInstanceUID = uid
    there, matches = False, 0
    try:
        for answer, match in association.send_c_find(keys, UID(STUDY_ROOT_FIND), message_id):
            if "Status" not in answer:
                call.ended = call.silence(association, call.target.response_timeout_s)
                return Found(uid, Look.UNKNOWN, call.ended)
            status = int(answer.Status)
            if status not in _PENDING:
                if status == SUCCESS:
                    return Found(uid, Look.THERE if there else Look.MISSING)
                words = f"{call.where} answered the query with {_words(status)}"
                return Found(uid, Look.UNKNOWN, words)
            there = there or (match is not None and match.get("SOPInstanceUID") == uid)
            matches += 1
            if matches > MOST_MATCHES:
                break
    except (OSError, RuntimeError, ValueError) as error:
        call.ended = f"asking broke off: {type(error).__name__}"
    else:
        call.ended = f"{call.where} answers queries without regard to their keys"
    association.abort()
    return Found(uid, Look.UNKNOWN, call.ended)


def _items(said: Dataset, keyword: str) -> Sequence[Dataset]:
    return said.get(keyword, None) or ()


def _uid(item: Dataset) -> str:
    return str(item.ReferencedSOPInstanceUID)


def _words(status: int) -> str:
    meaning = GENERAL_STATUS.get(status, ("", ""))[1]
    return f"{status:04X} {meaning}".rstrip()
