"""Incoming DIMSE messages: the data set of a C-STORE goes to disk while it arrives.

pynetdicom gathers a data set in memory, or by a module-wide switch in a temporary file of its
own. Here each C-STORE request gets an `Incoming` as its data set, which writes, hashes and counts.
Whatever a client sends, no more than the allowed bytes are kept of it, in memory or on disk.
"""

import errno
import hashlib
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from queue import Empty
from typing import BinaryIO, Protocol, cast

import structlog
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider, _QueueItem
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import DimsePrimitiveType
from pynetdicom.dsutils import create_file_meta
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from covidnet_node.audit.events import Subject
from covidnet_node.case import Reason
from covidnet_node.errors import Refuse

log = structlog.get_logger()

MAX_MESSAGE = 64 * 1024
"""Bytes of a command set, and of every message that is not a C-STORE."""
MAX_WAITING = 8
"""Requests sent ahead of their answers. One is the rule (PS3.7 D.3.3.3); more is tolerated."""
TRANSFER_STATES = frozenset({"Sta6", "Sta7", "Sta8"})
"""PS3.8 9.2: the states of an accepted association."""
_OUT_OF_RESOURCES = 0xA700
_MISMATCH = 0xA900

_MALFORMED = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError),
    *(EOFError, struct.error),
)
"""What pynetdicom raises on a command set that is none."""


class Incoming(BytesIO):
    """The data set of one C-STORE on its way to disk, behind a preamble and file meta.

    Never raises while data arrives: it remembers why it cannot be kept and discards the
    rest, so that the sender gets a status and not an abort.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.path: Path | None = None
        self.offset = 0
        """Where the data set begins in the file."""
        self.received = 0
        """Bytes of the data set so far, kept or not."""
        self.subject: Subject | None = None
        """For the audit trail: whose it is, once the header has been read."""
        self.held = False
        """For the audit trail: whether it was known already."""
        self._limit = limit
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._refusal: Refuse | None = None

    def open(self, path: Path, file: BinaryIO, sop_class: str, instance: str, syntax: str) -> None:
        """Begin the file (PS3.10 7.1)."""
        self.path, self._file = path, file
        meta = create_file_meta(
            sop_class_uid=UID(sop_class),
            sop_instance_uid=UID(instance),
            transfer_syntax=UID(syntax),
        )
        try:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(cast(DicomIO, file), meta)
            self.offset = file.tell()
        except OSError as error:
            self.refuse(_cannot_write(error))

    def refuse(self, verdict: Refuse) -> None:
        """Keep nothing of it; the first verdict is the answer."""
        self._refusal = self._refusal or verdict
        self.discard()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # pynetdicom writes bytes
        """Take the next bytes of the data set."""
        self.received += len(data)
        if self.received > self._limit:
            self.refuse(
                Refuse(
                    Reason.TOO_LARGE,
                    f"more than {self._limit} bytes (receive.max_object_mib)",
                    status=_OUT_OF_RESOURCES,
                )
            )
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:
                self.refuse(_cannot_write(error))
            self._digest.update(data)
        return len(data)

    def finish(self) -> tuple[Path | None, str]:
        """Close the file; return it (None: none was wanted) and the SHA-256 of the data set.

        Raises Refuse if it could not be kept.
        """
        if self._refusal is None and self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self.refuse(_cannot_write(error))
        if self._refusal is not None:
            raise self._refusal
        return self.path, self._digest.hexdigest()

    def discard(self) -> None:
        """Close and delete the file, if it is still ours."""
        file, path = self._file, self.path
        self._file = self.path = None
        if file is not None and path is not None:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _cannot_write(error: OSError) -> Refuse:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = Reason.NO_SPACE if full else Reason.CANNOT_STORE
    return Refuse(reason, f"spool: {error.strerror}", status=_OUT_OF_RESOURCES)


class Opener(Protocol):
    """Decides, by the command alone, where the data set of a C-STORE goes."""

    def __call__(self, sop_class: str, instance: str, syntax: str) -> Incoming:
        """Never raises: what cannot be kept is an `Incoming` that refuses."""


class Inbox(DIMSEServiceProvider):
    """Puts P-DATA together to messages, bounded; C-STORE data sets into `Incoming`s."""

    def __init__(self, assoc: Association, opener: Opener, most: int) -> None:
        super().__init__(assoc)
        self._opener = opener
        self._most = most
        """Bytes of one data set at which the association is aborted."""
        self._plain = 0
        self._incoming: list[Incoming] = []
        self._broken = False
        self._in_hand = False
        self._sending = threading.Lock()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA, which may hold several fragments (PS3.8 E.1)."""
        for context_id, fragment in primitive.presentation_data_value_list:
            if self._broken:
                return
            one = P_DATA()
            one.presentation_data_value_list.append((context_id, fragment))
            try:
                complaint = self._complaint(context_id, fragment) or self._receive(one)
            except _MALFORMED as error:
                complaint = f"malformed message ({type(error).__name__})"
            if complaint:
                self._break(complaint)

    def get_msg(self, block: bool = False) -> _QueueItem:  # noqa: FBT001, FBT002 - pynetdicom's
        """The next request, which is then in hand until it is answered."""
        item = super().get_msg(block)
        # Served one after the other: who asks for the next is done with the last, answered or not.
        self._in_hand = item[1] is not None
        return item

    def answering(self) -> bool:
        """Whether the client waits for us."""
        return self._in_hand or not self.msg_queue.empty()

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Answer, unless nobody is there any more: pynetdicom's state machine would fail."""
        with self._sending:
            if not self._broken and self.dul.state_machine.current_state in TRANSFER_STATES:
                super().send_msg(primitive, context_id)
        self._in_hand = False

    def close(self) -> None:
        """Delete what was never handed over; the association has ended."""
        for incoming in self._incoming:
            incoming.discard()
        self._incoming.clear()

    def _complaint(self, context_id: int, fragment: bytes) -> str:
        """Say what is wrong with a fragment before anything is done with it."""
        accepted = self.assoc._accepted_cx
        if not fragment or context_id not in accepted:
            return "a fragment without an accepted presentation context"
        if self.message is None:
            self._plain = 0
            if self.msg_queue.qsize() >= MAX_WAITING:
                return "too many requests ahead of their answers"
        data_set = None if self.message is None else self.message.data_set
        if isinstance(data_set, Incoming) and not fragment[0] & 1:
            return "data set far above the limit" if data_set.received > self._most else ""
        self._plain += len(fragment)
        return "message too long" if self._plain > MAX_MESSAGE else ""

    def _receive(self, one: P_DATA) -> str:
        super().receive_primitive(one)
        message = self.message
        if isinstance(message, C_STORE_RQ) and not isinstance(message.data_set, Incoming):
            context = self.assoc._accepted_cx[message.context_id or 0]
            command = message.command_set
            sop_class = str(command.get("AffectedSOPClassUID", ""))
            if uid_to_service_class(sop_class) is not StorageServiceClass:
                return "C-STORE of a class that is not for storage"
            instance = str(command.get("AffectedSOPInstanceUID", ""))
            if len(instance) > 64:
                # pynetdicom could not build an answer that names it.
                return "a SOP instance UID of more than 64 characters"
            if sop_class == context.abstract_syntax:
                incoming = self._opener(sop_class, instance, str(context.transfer_syntax[0]))
            else:
                detail = "SOP class of command and presentation context differ"
                incoming = Incoming(0)
                incoming.refuse(Refuse(Reason.UID_MISMATCH, detail, status=_MISMATCH))
            self._incoming = [known for known in self._incoming if known.path is not None]
            self._incoming.append(incoming)
            message.data_set = incoming
        return ""

    def _break(self, complaint: str) -> None:
        """Abort: the client no longer speaks DICOM, or too much of it (PS3.8 9.2, AA-8)."""
        with self._sending, suppress(Empty):
            self._broken = True
            while True:
                # An answer that waits behind the abort would fail in pynetdicom's state machine.
                self.dul.to_provider_queue.get_nowait()
        requestor = self.assoc.requestor
        log.warning(
            "association_aborted",
            calling_ae=requestor.ae_title,
            peer=requestor.address,
            reason=complaint,
        )
        self.dul.event_queue.put("Evt19")


MakeInbox = Callable[[Association], Inbox]
