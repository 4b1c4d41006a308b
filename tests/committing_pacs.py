"""A PACS that commits to what it has stored, or does not, as a test tells it to."""

import ssl
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from covidnet_node.commit import SOP_CLASS, SOP_INSTANCE, STUDY_ROOT_FIND
from tests.fake_pacs import FakePacs


class Vow(Enum):
    """How an N-ACTION is met."""

    SAME = "report on the same association"
    EARLY = "report on the same association, before the answer to the request"
    NEW = "report on an association of its own"
    NEVER = "taken, and no report unless the test sends one"
    ABORT = "A-ABORT instead of an answer"


@dataclass(slots=True)
class Wish:
    """One N-ACTION that reached the PACS."""

    transaction_uid: str
    instances: list[tuple[str, str]]
    """SOP class and instance."""
    action: tuple[int, str, str]
    """Action type, requested SOP class and instance."""
    answers: list[int | None] = field(default_factory=list)
    """Status of each report that was answered."""


class CommittingPacs(FakePacs):
    """Commits to what it has stored and has not lost.

    `vows` is consumed one a request, a number is the status that refuses it; when it is empty
    every request is answered as `SAME`.
    """

    def __init__(
        self,
        *vows: Vow | int,
        offers: Iterable[str] = (SOP_CLASS, STUDY_ROOT_FIND),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        own = [build_context(each) for each in offers]
        super().__init__(contexts=[*AllStoragePresentationContexts, *own], tls=tls)
        self.vows: deque[Vow | int] = deque(vows)
        self.wishes: list[Wish] = []
        self.lost: set[str] = set()
        """SOP instances that it no longer has; one that is stored again is no longer lost."""
        self.reason = 0x0112
        self.node: tuple[str, int, str] | None = None
        """Host, port and AE title to report to on an association of its own."""
        self.queries: list[Dataset] = []

    def more_handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_N_ACTION, self._on_action), (evt.EVT_C_FIND, self._on_find)]

    def keeps(self, uid: str) -> bool:
        return uid in {each.uid for each in self.stored} and uid not in self.lost

    def lose(self, uid: str) -> None:
        """Once: what is stored again is kept."""
        self.lost.add(uid)

    def wait_for_wishes(self, count: int, deadline_s: float = 30) -> list[Wish]:
        self._wait(lambda: len(self.wishes) >= count, deadline_s, f"{count} requests")
        return self.wishes

    def wait_for_answers(self, count: int, deadline_s: float = 30) -> list[int | None]:
        """Until so many reports have been answered."""

        def answers() -> list[int | None]:
            return [status for wish in self.wishes for status in wish.answers]

        self._wait(lambda: len(answers()) >= count, deadline_s, f"{count} answers to reports")
        return answers()

    def information(self, wish: Wish) -> tuple[Dataset, int]:
        """Event information and event type, as things stand."""
        data = Dataset()
        data.TransactionUID = wish.transaction_uid
        kept = [pair for pair in wish.instances if self.keeps(pair[1])]
        data.ReferencedSOPSequence = [_reference(*pair) for pair in kept]
        failed = [_reference(*pair) for pair in wish.instances if pair not in kept]
        for item in failed:
            item.FailureReason = self.reason
        if failed:
            data.FailedSOPSequence = failed
        return data, 2 if failed else 1

    def report(
        self,
        wish: Wish,
        ae_title: str = "",
        *,
        said: tuple[Dataset, int] | None = None,
        roles: tuple[bool, bool] | None = (False, True),
        instance: str = SOP_INSTANCE,
    ) -> int | None:
        """Report on an association of its own; returns the node's answer."""
        assert self.node is not None
        host, port, node_ae = self.node
        ae = AE(ae_title or self.ae_title)
        ae.add_requested_context(SOP_CLASS)
        scu, scp = roles or (False, False)
        chosen = [build_role(SOP_CLASS, scu_role=scu, scp_role=scp)] if roles else []
        association = ae.associate(host, port, ae_title=node_ae, ext_neg=chosen)
        if not association.is_established:
            return None
        if roles is None:
            # As a peer that knows nothing of roles: pynetdicom itself would refuse to.
            for context in association.accepted_contexts:
                context._as_scp = True
        status = _send(association, *(said or self.information(wish)), instance)
        association.release()
        self._answered(wish, status)
        return status

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        request = event.request
        asked = event.action_information
        wish = Wish(
            str(asked.TransactionUID),
            [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ],
            (
                request.ActionTypeID,
                str(request.RequestedSOPClassUID),
                str(request.RequestedSOPInstanceUID),
            ),
        )
        with self._changed:
            vow = self.vows.popleft() if self.vows else Vow.SAME
            self.wishes.append(wish)
            self._changed.notify_all()
        if isinstance(vow, int):
            return vow, None
        if vow is Vow.ABORT:
            event.assoc.abort()
        elif vow is Vow.EARLY:
            self._report_early(event, wish)
        elif vow is Vow.SAME:
            threading.Thread(target=self._report_here, args=(event.assoc, wish)).start()
        elif vow is Vow.NEW:
            threading.Thread(target=self.report, args=(wish,)).start()
        return 0x0000, None

    def _report_here(self, association, wish: Wish) -> None:
        self._answered(wish, _send(association, *self.information(wish), SOP_INSTANCE))

    def _report_early(self, event: evt.Event, wish: Wish) -> None:
        data, event_type = self.information(wish)
        message = N_EVENT_REPORT()
        message.MessageID = 7
        message.AffectedSOPClassUID = SOP_CLASS
        message.AffectedSOPInstanceUID = SOP_INSTANCE
        message.EventTypeID = event_type
        implicit = event.context.transfer_syntax == "1.2.840.10008.1.2"
        message.EventInformation = BytesIO(encode(data, implicit, True))
        event.assoc.dimse.send_msg(message, event.context.context_id)

    def _answered(self, wish: Wish, status: int | None) -> None:
        with self._changed:
            wish.answers.append(status)
            self._changed.notify_all()

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        keys = event.identifier
        with self._changed:
            self.queries.append(keys)
            self._changed.notify_all()
        if self.keeps(keys.SOPInstanceUID):
            yield 0xFF00, keys

    def _remember(self, event: evt.Event, met) -> None:
        super()._remember(event, met)
        again = str(event.request.AffectedSOPInstanceUID)
        if self.repeats[again] > 1:
            self.lost.discard(again)


def _send(association, data: Dataset, event_type: int, instance: str) -> int | None:
    answer, _ = association.send_n_event_report(data, event_type, SOP_CLASS, instance)
    return answer.get("Status")


def _reference(sop_class: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = instance
    return item
