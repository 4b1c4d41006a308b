"""Send results to a PACS: one association for all that is due, one C-STORE after the other.

Says of each result what became of it and remembers nothing. What to do about a failure is the
delivery loop's to decide. An association belongs to the one thread that made it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from covidnet_node.case import Result
from covidnet_node.config import Destination

log = structlog.get_logger()

# Sending from a path, pynetdicom would decode and encode the data set anew. With this switch it
# sends the file's own bytes, a fragment at a time: what the gate has seen is what leaves.
_config.STORE_SEND_CHUNKED_DATASET = True

STORED_WITH_WARNING = frozenset({0xB000, 0xB006, 0xB007})
"""Coercion of elements, elements discarded, data set does not match SOP class: stored all the
same (PS3.4 B.2.3)."""

MEANINGS = {
    0x0110: "processing failure",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
}


class Verdict(StrEnum):
    """What became of one result."""

    STORED = "stored"
    FAILED = "failed"
    """The peer, or our own check of the file, said no to this result."""
    NOT_TRIED = "not_tried"
    """The peer could not be asked, or fell silent: nothing is known of the result."""


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to call."""

    ae_title: str
    host: str
    port: int
    connect_timeout_s: float
    response_timeout_s: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one result, and the words for journal and log."""

    sop_instance_uid: str
    verdict: Verdict
    detail: str
    status: int | None = None
    """The DICOM status, if the peer gave one."""

    @property
    def stored(self) -> bool:
        """The peer has it."""
        return self.verdict is Verdict.STORED

    @property
    def tried(self) -> bool:
        """The peer, or our own check, answered for this very result."""
        return self.verdict is not Verdict.NOT_TRIED


def target_of(destination: Destination, sender_ae: str, peer: str) -> Target:
    """The peer a destination means for an image that came from `sender_ae` at address `peer`."""
    back = destination.back_to_sender
    return Target(
        ae_title=sender_ae if back else destination.ae_title or "",
        host=peer if back else destination.host or "",
        port=destination.port,
        connect_timeout_s=destination.connect_timeout_s,
        response_timeout_s=destination.response_timeout_s,
    )


def send(target: Target, results: Sequence[Result], calling_ae: str) -> Iterator[Sent]:
    """Send `results` in order and say after each what became of it.

    Every result is answered exactly once, unless the caller stops asking. A file that is missing
    or has changed since it was journaled is not sent. Only the contexts that the results need are
    proposed: picky PACS reject an association for one too many.
    """
    ae = _calling(target, calling_ae)
    for sop_class, syntax in dict.fromkeys(
        (result.sop_class_uid, result.transfer_syntax_uid) for result in results
    ):
        ae.add_requested_context(sop_class, syntax)
    with _association(ae, target) as association:
        for number, result in enumerate(results):
            yield _send_one(association, result, number % 65535 + 1)


def echo(target: Target, calling_ae: str) -> str | None:
    """C-ECHO: None when the peer answered, else a sentence that says why not."""
    ae = _calling(target, calling_ae)
    ae.add_requested_context(Verification)
    with _association(ae, target) as association:
        if not association.open.is_established:
            return association.why_not
        try:
            status = association.open.send_c_echo()
        except ValueError:
            return "does not accept Verification"
        if "Status" not in status:
            return "did not answer C-ECHO in time"
        code = int(status.Status)
        return None if code == 0 else f"answered C-ECHO with {_words(code)}"


@dataclass(slots=True)
class _Open:
    """An association that was asked for, and what kept it from being established."""

    open: Association
    why_not: str


def _calling(target: Target, calling_ae: str) -> AE:
    ae = AE(calling_ae)
    ae.connection_timeout = target.connect_timeout_s
    ae.acse_timeout = target.connect_timeout_s
    ae.dimse_timeout = target.response_timeout_s
    ae.network_timeout = target.response_timeout_s
    return ae


@contextmanager
def _association(ae: AE, target: Target) -> Iterator[_Open]:
    """Call the peer; release in the end, abort if the block is left by an error."""
    connected: list[bool] = []

    def on_connected(_event: evt.Event) -> None:
        connected.append(True)

    association = ae.associate(
        target.host,
        target.port,
        ae_title=target.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, on_connected)],
    )
    finished = False
    try:
        yield _Open(association, _why_not(association, target, connected=bool(connected)))
        finished = True
    finally:
        if association.is_established:
            if finished:
                association.release()
            else:
                association.abort()


def _why_not(association: Association, target: Target, *, connected: bool) -> str:
    """Why there is no association, in an administrator's words."""
    peer = f"{target.ae_title} at {target.host}:{target.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = getattr(answer, "reason_str", "") if answer else ""
        return f"{peer} rejected the association: {reason or 'no reason given'}"
    if not connected:
        return f"{peer} cannot be reached"
    if association.is_aborted:
        return f"{peer} aborted the association or did not answer the request for it"
    return f"{peer} accepted none of the proposed presentation contexts"


def _send_one(association: _Open, result: Result, message_id: int) -> Sent:
    uid = result.sop_instance_uid
    damage = _damage(result.path, result.sha256)
    if damage:
        return Sent(uid, Verdict.FAILED, damage)
    if not association.open.is_established:
        return Sent(uid, Verdict.NOT_TRIED, association.why_not)
    accepted = {
        (context.abstract_syntax, context.transfer_syntax[0])
        for context in association.open.accepted_contexts
    }
    if (result.sop_class_uid, result.transfer_syntax_uid) not in accepted:
        words = f"presentation context rejected for SOP class {result.sop_class_uid}"
        return Sent(uid, Verdict.FAILED, words)
    try:
        answer = association.open.send_c_store(result.path, msg_id=message_id)
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        # The association broke under us, or the file did: pynetdicom says it in these ways.
        association.why_not = f"association lost ({type(error).__name__})"
        return Sent(uid, Verdict.NOT_TRIED, association.why_not)
    return _judge(association, uid, answer)


def _judge(association: _Open, uid: str, answer: Dataset) -> Sent:
    """Turn the C-STORE response's status into a verdict (PS3.4 B.2.3, PS3.7 C)."""
    if "Status" not in answer:
        association.why_not = "no answer to C-STORE: silent beyond the timeout, or aborted"
        if association.open.is_established:
            association.open.abort()
        return Sent(uid, Verdict.NOT_TRIED, association.why_not)
    code = int(answer.Status)
    if code == 0 or code in STORED_WITH_WARNING:
        return Sent(uid, Verdict.STORED, _words(code), code)
    return Sent(uid, Verdict.FAILED, _words(code), code)


def _words(code: int) -> str:
    """A status as `A700 (out of resources)`."""
    meaning = MEANINGS.get(code)
    if meaning is None:
        if code == 0:
            meaning = "success"
        elif code in STORED_WITH_WARNING:
            meaning = "stored with a warning"
        elif 0xA700 <= code <= 0xA7FF:
            meaning = "out of resources"
        elif 0xA900 <= code <= 0xA9FF:
            meaning = "data set does not match SOP class"
        elif 0xC000 <= code <= 0xCFFF:
            meaning = "cannot understand"
        else:
            meaning = "failure"
    return f"{code:04X} ({meaning})"


def _damage(path: Path, sha256: str) -> str | None:
    """What is wrong with a result's file, or None."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"its file cannot be read ({error.strerror})"
    return None if found == sha256 else "its file has changed since it was journaled; not sent"
