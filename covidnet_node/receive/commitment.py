"""Storage commitment reports that come in: which are believed, and what they are answered.

A report becomes a note in the journal before it is answered; the loop that asked acts on it.
Nobody learns from an answer whether a transaction exists that is not theirs.
"""

import ipaddress
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from pynetdicom import evt

from covidnet_node.case import Commitment
from covidnet_node.commit import PROCESSING_FAILURE, SUCCESS, BadReport, Report, read_report
from covidnet_node.config import Destination
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.receive.crowd import plain_address

log = structlog.get_logger()

Believe = Callable[[Commitment], bool]


class Reports:
    """Notes reports, wherever they arrive."""

    def __init__(
        self,
        journal: Journal,
        destinations: Sequence[Destination],
        clock: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._settings = {each.name: each.commitment for each in destinations}
        self._clock = clock
        self.noted: Callable[[], None] = lambda: None
        """Is called after each report that is believed."""

    @property
    def expected(self) -> bool:
        """Whether any destination is asked for reports."""
        return any(each.requested for each in self._settings.values())

    def on_new_association(self, event: evt.Event) -> tuple[int, None]:
        """Answer a report that came through the listener."""
        requestor = event.assoc.requestor
        caller, peer = requestor.ae_title.strip(), requestor.address

        def believe(asked: Commitment) -> bool:
            return self._may_report(asked, caller, peer)

        return self._answer(event, believe, caller, peer)

    def on_same_association(self, event: evt.Event, destination: str) -> tuple[int, None]:
        """Answer a report of a peer that we have called ourselves."""
        acceptor = event.assoc.acceptor

        def believe(asked: Commitment) -> bool:
            return asked.destination == destination

        return self._answer(event, believe, acceptor.ae_title.strip(), acceptor.address)

    def _may_report(self, asked: Commitment, caller: str, peer: str) -> bool:
        """Whether it calls as, and from where, the destination was asked or may answer."""
        settings = self._settings.get(asked.destination)
        titles = {asked.ae_title} | set(settings.calling_aes if settings else ())
        address = plain_address(peer)
        networks = [ipaddress.ip_network(each) for each in (settings.addresses if settings else ())]
        here = address is not None and (
            address == plain_address(asked.peer) or any(address in network for network in networks)
        )
        return caller in titles and here

    def _answer(
        self, event: evt.Event, believe: Believe, caller: str, peer: str
    ) -> tuple[int, None]:
        told = log.bind(calling_ae=caller, peer=peer)
        try:
            report = read_report(event)
            return self._note(report, believe, told), None
        except BadReport as error:
            self._count("commitment_reports_unreadable")
            told.warning("commitment_report_unreadable", detail=str(error))
            return error.status, None
        except RetryLater as verdict:
            # Nothing was noted. The peer may report again; if it does not, it is asked again.
            told.warning("commitment_report_not_noted", reason=str(verdict))
            return PROCESSING_FAILURE, None

    def _note(
        self, report: Report, believe: Believe, told: structlog.typing.FilteringBoundLogger
    ) -> int:
        asked = self._journal.commitment(report.transaction_uid)
        if asked is None:
            self._count("commitment_reports_unknown")
            told.warning("commitment_report_unknown")
            return PROCESSING_FAILURE
        told = told.bind(destination=asked.destination, transaction=asked.transaction_uid)
        if not believe(asked):
            self._count("commitment_reports_not_believed")
            told.warning("commitment_report_not_believed", asked=asked.ae_title, at=asked.peer)
            return PROCESSING_FAILURE
        now = self._clock()
        first = self._journal.commitment_reported(
            report.transaction_uid, report.committed, report.failed, now
        )
        told.info(
            "commitment_report",
            committed=len(report.committed),
            failed=len(report.failed),
            repeated=not first,
        )
        self.noted()
        return SUCCESS

    def _count(self, name: str) -> None:
        try:
            self._journal.count(name, self._clock())
        except RetryLater as verdict:
            log.warning("not_counted", what=name, reason=verdict.reason)
