"""A PACS that does what a test tells it to, and remembers all that reached it."""

import ssl
import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from types import TracebackType

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_messages import C_ECHO_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

AE_TITLE = "FAKEPACS"
MUCH = 256 * 1024 * 1024
"""Bytes; more than any peer has to say."""
KEPT = (0x0000, 0xB000, 0xB006, 0xB007)


class Act(Enum):
    """What else a C-STORE may meet than a status."""

    HANG = "no answer until `free` is set, then success"
    LATE = "success after a short wait"
    ABORT = "A-ABORT instead of an answer"
    CLOSE = "TCP connection closed instead of an answer"
    TWICE = "the same success twice"
    FLOOD = "one message without end instead of an answer"
    CHATTER = "answers without end"
    DEAF = "stops reading from the connection until `free` is set"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One C-STORE request that reached the PACS whole, stored or not."""

    uid: str
    sop_class: str
    transfer_syntax: str
    data: bytes
    """The encoded data set, as it was on the wire."""
    met: "int | Act"


@dataclass(slots=True)
class Call:
    """One association request."""

    calling_ae: str
    called_ae: str
    proposed: list[tuple[str, tuple[str, ...]]]
    """Abstract syntax and its transfer syntaxes, in order."""
    ended: str = ""
    """released or aborted."""
    arrivals: list[Arrival] = field(default_factory=list)


def pour(event: evt.Event, *, whole: bool) -> int:
    """Send one fragment of a message after the other, or whole answers; how much was taken."""
    answer = C_ECHO_RSP()
    said = C_ECHO()
    said.MessageIDBeingRespondedTo, said.Status = 1, 0
    said.AffectedSOPClassUID = Verification
    answer.primitive_to_message(said)
    (message,) = answer.encode_msg(event.context.context_id, 16_000)
    command = message.presentation_data_value_list[0][1]
    fragment = bytes([3]) + command[1:] if whole else bytes([1]) + command[1:2] * 12_000
    length = (len(fragment) + 1).to_bytes(4, "big")
    item = length + bytes([event.context.context_id]) + fragment
    pdu = bytes([4, 0]) + len(item).to_bytes(4, "big") + item
    wire, sent = event.assoc.dul.socket.socket, 0
    wire.settimeout(10)
    try:
        while sent < MUCH:
            wire.sendall(pdu * 20)
            sent += 20 * len(pdu)
    except OSError:
        pass
    return sent


class FakePacs:
    """A storage SCP on a loopback port; starts again on the same port after `stop`.

    `script` is consumed one act a C-STORE; when it is empty every object is stored.
    """

    def __init__(
        self,
        *script: int | Act,
        ae_title: str = AE_TITLE,
        contexts: Iterable[PresentationContext] = AllStoragePresentationContexts,
        most_associations: int = 100,
        max_pdu: int = 16_382,
        late_s: float = 0.2,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.port = 0
        self.script: deque[int | Act] = deque(script)
        self.reject: tuple[int, int, int] | None = None
        """Result, source and diagnostic with which every association is rejected."""
        self.free = threading.Event()
        """Ends every hang."""
        self.said = 0
        """Bytes of what was said without end, until nobody listened."""
        self.calls: list[Call] = []
        self._contexts = [*contexts, build_context(Verification)]
        self._most_associations = most_associations
        self._max_pdu = max_pdu
        self._late_s = late_s
        self._tls = tls
        self._changed = threading.Condition()
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> "FakePacs":
        """Returns when it listens."""
        ae = AE(self.ae_title)
        ae.supported_contexts = self._contexts
        ae.require_called_aet = True
        ae.maximum_associations = self._most_associations
        ae.maximum_pdu_size = self._max_pdu
        handlers = [
            (evt.EVT_REQUESTED, self._on_call),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_RELEASED, self._on_end, ["released"]),
            (evt.EVT_ABORTED, self._on_end, ["aborted"]),
            *self.more_handlers(),
        ]
        self.free.clear()
        self._server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=handlers,
            ssl_context=self._tls,
        )
        self.port = self._server.server_address[1]
        return self

    def more_handlers(self) -> list[evt.EventHandlerType]:
        """For what else a PACS may do."""
        return []

    def stop(self) -> None:
        """Every hang ends, every association is aborted, nothing listens."""
        self.free.set()
        if self._server is not None:
            for association in self._server.active_associations:
                if association.is_rejected:
                    # It ends by itself; an abort on top of that fails in pynetdicom's machine.
                    association.join(30)
            self._server.ae.shutdown()
            self._server = None

    @property
    def arrivals(self) -> list[Arrival]:
        """All that came, in order within each association."""
        with self._changed:
            return [arrival for call in self.calls for arrival in call.arrivals]

    @property
    def stored(self) -> list[Arrival]:
        """What was answered as stored, repeats included."""
        return [each for each in self.arrivals if each.met in KEPT]

    @property
    def repeats(self) -> Counter[str]:
        """How often each SOP instance was stored."""
        return Counter(each.uid for each in self.stored)

    def changed_repeats(self) -> list[str]:
        """SOP instances that came again with other bytes."""
        first: dict[str, bytes] = {}
        return [a.uid for a in self.arrivals if first.setdefault(a.uid, a.data) != a.data]

    def wait_for(self, instances: int, deadline_s: float = 10) -> list[Arrival]:
        """Wait until so many different SOP instances are stored."""
        self._wait(lambda: len(self.repeats) >= instances, deadline_s, f"{instances} instances")
        return self.stored

    def wait_for_end(self, calls: int = 1, deadline_s: float = 10) -> list[str]:
        """Wait until so many associations have ended, and say how."""
        self._wait(lambda: sum(bool(c.ended) for c in self.calls) >= calls, deadline_s, "an end")
        return [call.ended for call in self.calls]

    def wait_for_arrivals(self, count: int, deadline_s: float = 10) -> None:
        """Wait until so many C-STORE requests have come, whatever they met."""
        self._wait(lambda: len(self.arrivals) >= count, deadline_s, f"{count} arrivals")

    def _wait(self, holds, deadline_s: float, what: str) -> None:
        end = monotonic() + deadline_s
        with self._changed:
            if not self._changed.wait_for(holds, end - monotonic()):
                counts = f"{len(self.arrivals)} arrivals, {len(self.repeats)} instances"
                raise AssertionError(f"waited {deadline_s} s for {what}; there are {counts}")

    def _on_call(self, event: evt.Event) -> None:
        request = event.assoc.requestor.primitive
        proposed = [
            (str(each.abstract_syntax), tuple(map(str, each.transfer_syntax)))
            for each in request.presentation_context_definition_list
        ]
        call = Call(request.calling_ae_title, request.called_ae_title, proposed)
        event.assoc.call = call
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        if self.reject is not None:
            event.assoc.acse.send_reject(*self.reject)
            event.assoc.is_rejected = True
            event.assoc.kill()

    def _on_pdu(self, event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF) and list(self.script)[:1] == [Act.DEAF]:
            self.free.wait(60)

    def _on_store(self, event: evt.Event) -> int:
        with self._changed:
            act = self.script.popleft() if self.script else 0x0000
        met = 0x0000 if act in (Act.HANG, Act.LATE) else act
        if act is Act.LATE:
            self.free.wait(self._late_s)
        self._remember(event, act if act is Act.HANG else met)
        if act is Act.HANG:
            self.free.wait(60)
        elif act is Act.ABORT:
            event.assoc.abort()
        elif act is Act.CLOSE:
            event.assoc.dul.socket.close()
        elif act in (Act.FLOOD, Act.CHATTER):
            self.said += pour(event, whole=act is Act.CHATTER)
        elif act is Act.TWICE:
            answer = C_STORE()
            answer.MessageIDBeingRespondedTo = event.request.MessageID
            answer.AffectedSOPClassUID = event.request.AffectedSOPClassUID
            answer.AffectedSOPInstanceUID = event.request.AffectedSOPInstanceUID
            answer.Status = 0x0000
            event.assoc.dimse.send_msg(answer, event.context.context_id)
        return met if isinstance(met, int) else 0x0000

    def _remember(self, event: evt.Event, met: int | Act) -> None:
        request = event.request
        arrival = Arrival(
            uid=str(request.AffectedSOPInstanceUID),
            sop_class=str(request.AffectedSOPClassUID),
            transfer_syntax=str(event.context.transfer_syntax),
            data=request.DataSet.getvalue(),
            met=met,
        )
        with self._changed:
            event.assoc.call.arrivals.append(arrival)
            self._changed.notify_all()

    def _on_end(self, event: evt.Event, how: str) -> None:
        with self._changed:
            event.assoc.call.ended = event.assoc.call.ended or how
            self._changed.notify_all()

    def __enter__(self) -> "FakePacs":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
