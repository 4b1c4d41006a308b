"""Sends results to a PACS by C-STORE, and asks by C-ECHO whether it is there.

Never changes a byte of a result, never decides when to try again, and never logs what the peer
says in words: an error comment may hold a patient's name.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import _config, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from covidnet_node.associate import Call, Target
from covidnet_node.case import Result

# Files are sent as they lie, in the syntax they are in, never decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

STORED_WITH_WARNING = frozenset({0xB000, 0xB006, 0xB007, 0x0111})
"""Coerced, elements discarded, does not match its class: the peer keeps it (PS3.4 B.2.3).

0111, duplicate SOP instance (PS3.7 C.5.12): it has it already. Same UID means same bytes here, and
a node killed between a store and its journal sends again.
"""

CLASS_NOT_SUPPORTED = frozenset({0x0122, 0xC122})
"""PS3.7 C.5.14; and the Failure Reason of STOW-RS (PS3.18 I.2.2)."""

MOST_CONTEXTS = 128
"""Presentation context ids are the odd numbers up to 255 (PS3.8 9.3.2.2)."""

SLOWEST_LINE = 128 * 1024
"""Bytes per second below which a line counts as hung."""


class Fate(StrEnum):
    """What became of one result."""

    STORED = "stored"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one result, for the journal."""

    sop_instance_uid: str
    fate: Fate
    status: int | None
    """Status of the C-STORE response (PS3.4 B.2.3); None without an answer."""
    detail: str
    """Words for journal and log; no patient data."""
    permanent: bool = False
    """A hint: the same attempt will end the same until a person changes something."""
    not_taken: bool = False
    """The peer does not take this SOP class, so another form of the result may fare better."""

    @property
    def stored(self) -> bool:
        """Whether the peer has it."""
        return self.fate is Fate.STORED

    @property
    def tried(self) -> bool:
        """Whether this result itself was put to the peer; if not, the peer was out of reach."""
        return self.fate is not Fate.NOT_TRIED


def send(target: Target, results: Sequence[Result], calling_ae: str) -> Iterator[Sent]:
    """Send results over one association, yielding the fate of each before the next is sent.

    Every result gets exactly one fate, in order. The association is released when all are
    sent or the caller stops asking, and aborted on error. Holds one result in memory at a time.
    Raises nothing: what goes wrong is a fate. PS3.4 B, PS3.7 9.1.1.
    """
    if not results:
        return
    line = _Line(target)
    refusal = line.open(calling_ae, _contexts(results))
    if refusal is not None:
        for result in results:
            uid = result.sop_instance_uid
            yield Sent(uid, Fate.NOT_TRIED, None, refusal, permanent=line.refused_for_good)
        return
    try:
        for number, result in enumerate(results):
            yield line.store(result, number % 0xFFFF + 1)
    finally:
        line.close()


def echo(target: Target, calling_ae: str) -> str | None:
    """Ask by C-ECHO whether the peer is there: None if it answered, else a sentence why not."""
    line = _Line(target)
    refusal = line.open(calling_ae, [build_context(Verification, ImplicitVRLittleEndian)])
    if refusal is not None:
        return refusal
    try:
        return line.echo()
    finally:
        line.close()


class _Line(Call):
    """An association that carries results."""

    def store(self, result: Result, message_id: int) -> Sent:
        """C-STORE of one result, if the file is sound and the peer took its context."""
        uid = result.sop_instance_uid
        damage = flaw(result)
        refusal = damage or self._unfit(result)
        if refusal is not None:
            not_taken = damage is None
            return Sent(uid, Fate.FAILED, None, refusal, permanent=True, not_taken=not_taken)
        association = self.association
        if association is None or not association.is_established:
            return Sent(uid, Fate.NOT_TRIED, None, self.ended)
        try:
            on_the_wire_s = result.path.stat().st_size / SLOWEST_LINE
            patience = self.target.response_timeout_s + on_the_wire_s
            association.dimse_timeout = patience
            answer = association.send_c_store(result.path, message_id)
        except (OSError, RuntimeError, ValueError) as error:
            association.abort()
            self.ended = f"sending broke off: {type(error).__name__}"
            return Sent(uid, Fate.FAILED, None, self.ended)
        if "Status" not in answer:
            self.ended = self.silence(association, patience)
            return Sent(uid, Fate.FAILED, None, self.ended)
        return judged(uid, int(answer.Status))

    def echo(self) -> str | None:
        """C-ECHO: None, or why there was no good answer."""
        association = self.association
        if association is None or not association.is_established:
            return f"{self.where} does not accept C-ECHO"
        answer = association.send_c_echo()
        if "Status" not in answer:
            return self.silence(association, self.target.response_timeout_s)
        status = int(answer.Status)
        return None if status == 0 else f"{self.where} answered C-ECHO with {_words(status)}"

    def _unfit(self, result: Result) -> str | None:
        """Why the peer cannot be sent this kind of object."""
        association = self.association
        wanted = (result.sop_class_uid, result.transfer_syntax_uid)
        if association is None or wanted in map(_pair, association.accepted_contexts):
            return None
        rejected = {_pair(each): each.status for each in association.rejected_contexts}
        sop_class, syntax = (UID(each).name for each in wanted)
        why = rejected.get(wanted, "not proposed")
        return f"{self.where} does not take {sop_class} in {syntax}: {why}"


def _contexts(results: Iterable[Result]) -> list[PresentationContext]:
    """One context per SOP class and transfer syntax: picky peers reject what they do not need."""
    pairs = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in results)
    return [build_context(*pair) for pair in list(pairs)[:MOST_CONTEXTS]]


def _pair(context: PresentationContext) -> tuple[str, str]:
    return str(context.abstract_syntax), str(context.transfer_syntax[0])


def flaw(result: Result) -> str | None:
    """Say what is wrong with the file in the spool; None if it is what was journaled."""
    try:
        with result.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != result.sha256:
            return "the file in the spool is damaged: other bytes than were journaled"
        meta = read_file_meta_info(result.path)
    except OSError as error:
        return f"the file in the spool cannot be read: {error.strerror}"
    except InvalidDicomError:
        return "the file in the spool is no DICOM file"
    found = tuple(
        str(meta.get(keyword, ""))
        for keyword in (
            "MediaStorageSOPClassUID",
            "MediaStorageSOPInstanceUID",
            "TransferSyntaxUID",
        )
    )
    journaled = (result.sop_class_uid, result.sop_instance_uid, result.transfer_syntax_uid)
    return None if found == journaled else "the file in the spool is another object"


def judged(uid: str, status: int) -> Sent:
    """Judge a status of the Storage service class (PS3.4 B.2.3, PS3.7 Annex C)."""
    stored = status == 0 or status in STORED_WITH_WARNING
    # A9xx and Cxxx blame the object; all else (A7xx, PS3.7 Annex C) may pass.
    permanent = status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000
    fate = Fate.STORED if stored else Fate.FAILED
    return Sent(uid, fate, status, _words(status), permanent, status in CLASS_NOT_SUPPORTED)


def _words(status: int) -> str:
    """A DICOM status as text, e.g. `A700 Refused: Out of Resources`."""
    meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("", ""))[1]
    return f"{status:04X} {meaning or ('Success' if status == 0 else 'unknown status')}"
