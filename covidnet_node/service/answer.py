"""One case from claim to journaled results: look, judge, analyze, report.

Every claimed case leaves here with an answer, a later turn, or parked; never with silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from covidnet_node.case import Analysis, Case, Claim, Owed, Reason, ResultKind
from covidnet_node.config import Config, Results
from covidnet_node.errors import NotAnalyzed, Park, RetryLater
from covidnet_node.imaging.decode import read_identity, read_source
from covidnet_node.imaging.digest import identity_digest
from covidnet_node.journal.backoff import pause_after
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.journal.transitions import LostLease
from covidnet_node.look import Picture, look, not_analyzed
from covidnet_node.reports.order import Reference
from covidnet_node.reports.succession import refer
from covidnet_node.service.finished import form_of
from covidnet_node.service.results import (
    Maker,
    Share,
    Source,
    follow,
    order_results,
    share_out,
)
from covidnet_node.versions import Judgment, Relation, judge

log = structlog.get_logger()

FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(minutes=5)

STORAGE_TROUBLES = frozenset({Reason.NO_SPACE, Reason.CANNOT_STORE})
"""They say nothing about the image: such an attempt does not count towards parking it."""
STORAGE_PAUSE = timedelta(seconds=30)

NO_ROOM = frozenset({Reason.NO_SPACE, Reason.CANNOT_STORE})
"""The disk's troubles, which pass, and are no image's."""

ParkAfter = tuple[Reason, str] | None
"""What a person must look at once the answer is delivered."""


class Analyst(Protocol):
    """Who looks at a picture and says what is seen: the networks, in `service/medicine.py`."""

    @property
    def maker(self) -> Maker:
        """What results name as their origin."""

    def analyze(self, picture: Picture) -> Analysis:
        """Answer one image; raises RetryLater when no memory is left for it."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers claims with the rooms it is given."""

    config: Config
    journal: Journal
    spool: Spool
    medicine: Analyst
    clock: Callable[[], datetime]

    def answer(self, claim: Claim) -> None:
        """Deciding place: whatever deep code raises becomes an answer, a retry or a parked case.

        Raises RetryLater when the journal takes none of these; the claim is then still held.
        """
        try:
            self._decide(claim)
        except LostLease:
            # Another worker has it now, or a person; whatever is in hand is dropped.
            log.warning("lease_lost")

    def _decide(self, claim: Claim) -> None:
        try:
            self._answer(claim)
        except LostLease:
            raise
        except RetryLater as verdict:
            self._later(claim, verdict)
        except Park as verdict:
            self._fail(claim, verdict.reason, verdict.detail)
        except Exception as error:
            log.exception("analysis_failed")
            self._fail(claim, Reason.TECHNICAL_FAILURE, type(error).__name__)

    def _later(self, claim: Claim, verdict: RetryLater) -> None:
        attempts, case_id = claim.case.attempts, claim.case.id
        log.warning("tried_again_later", reason=str(verdict))
        pause = pause_after(attempts, FIRST_PAUSE, LONGEST_PAUSE, case_id)
        full = verdict.reason in STORAGE_TROUBLES
        due_at = self.clock() + (STORAGE_PAUSE if full else pause)
        self.journal.retry(claim, str(verdict), due_at, self.clock(), counted=not full)

    def _answer(self, claim: Claim) -> None:
        case = claim.case
        limits = self.config.analyze
        if case.crashes >= limits.max_crashes:
            raise Park(Reason.TECHNICAL_FAILURE, f"took down {case.crashes} workers")
        if case.attempts > limits.max_attempts:
            raise Park(Reason.TECHNICAL_FAILURE, f"unanswered after {limits.max_attempts} attempts")
        if not self.spool.is_as_received(case.id, case.received):
            raise Park(Reason.FILE_DAMAGED, "it is not what was received")
        seen = self._look(case)
        picture = seen if isinstance(seen, Picture) else None
        judgment = Judgment(Relation.NEW, None)
        if picture is not None:
            digests = picture.pixel_digest, picture.identity_digest
            self.journal.record_digests(claim, *digests, self.clock())
            judgment = judge(*digests, self.journal.predecessors(case))
        if judgment.relation is Relation.DUPLICATE and judgment.of is not None:
            self.journal.duplicate(claim, judgment.of.id, self.clock())
            log.info("duplicate", of=judgment.of.id)
            return
        analysis, park = self._analyze(case, seen, judgment)
        corrected = judgment.of if judgment.relation is Relation.CORRECTION else None
        self._report(claim, analysis, picture, corrected, park)

    def _look(self, case: Case) -> Picture | NotAnalyzed:
        """The picture, or why there is none."""
        try:
            return look(read_source(self.spool.source(case.id)))
        except NotAnalyzed as verdict:
            return verdict

    def _analyze(
        self, case: Case, seen: Picture | NotAnalyzed, judgment: Judgment
    ) -> tuple[Analysis, ParkAfter]:
        """The medicine, unless admission, the pixels or an earlier version forbid it."""
        picture = seen if isinstance(seen, Picture) else None
        if judgment.relation is Relation.PIXELS_CHANGED and judgment.of is not None:
            detail = f"case {judgment.of.id} has other pixels under the same instance UID"
            park = (Reason.PIXELS_CHANGED, detail)
            return not_analyzed(*park, picture), park
        if case.admission.reason is not None:
            return not_analyzed(case.admission.reason, case.admission.detail, picture), None
        if isinstance(seen, NotAnalyzed):
            return not_analyzed(seen.reason, seen.detail, None), None
        return self.medicine.analyze(seen), None

    def _report(
        self,
        claim: Claim,
        analysis: Analysis,
        picture: Picture | None,
        corrected: Case | None,
        park: ParkAfter,
    ) -> None:
        source = self._source(claim.case, picture, self._reference(corrected))
        maker = self.medicine.maker
        earlier = self.journal.earlier_results(claim.case.id)
        wanted = {each.name: each.results for each in self.config.destination}
        profiles = tuple(dict.fromkeys(wanted.values())) or (Results(),)
        orders = order_results(source, analysis, maker, profiles)
        orders = follow(orders, earlier, self.clock().astimezone())
        made = share_out(orders, wanted)
        # Files have one name for all who ever had this case: only its holder may write them.
        self.journal.renew(
            claim, timedelta(seconds=2 * self.config.analyze.deadline_s), self.clock()
        )
        owed = self._shelve(claim.case, made.shares)
        self.journal.report(
            claim,
            analysis.outcome,
            analysis.reason,
            analysis.detail,
            owed,
            self.clock(),
            park=park,
            supersedes=corrected.id if corrected else None,
            content_at=orders[0].content_at,
            left_out=made.left_out,
        )
        log.info(
            "reported",
            outcome=analysis.outcome.value,
            reason=analysis.reason.value if analysis.reason else None,
            results=len(owed),
            left_out=[each.kind.value for each in made.left_out],
            seconds={stage: round(value, 3) for stage, value in analysis.seconds.items()},
            alert=park is not None,
        )

    def _fail(self, claim: Claim, reason: Reason, detail: str) -> None:
        """Report "not analyzed: technical failure", then park; if even that fails, park at once.

        A full disk is not such a failure: the answer waits until there is room for it.
        """
        try:
            if not self.spool.is_as_received(claim.case.id, claim.case.received):
                # Not even whose it is can be believed: a report might go to another patient.
                log.error("file_damaged", alert=True)
                self.journal.park(claim, Reason.FILE_DAMAGED, detail, self.clock())
                return
            analysis = not_analyzed(Reason.TECHNICAL_FAILURE, detail, None)
            self._report(claim, analysis, None, None, (reason, detail))
        except LostLease:
            raise
        except Exception as error:
            if isinstance(error, RetryLater) and error.reason in NO_ROOM:
                self._later(claim, error)
                return
            log.exception("parked_without_an_answer", alert=True)
            words = f"{detail}; no report could be made: {type(error).__name__}"
            self.journal.park(claim, reason, words, self.clock())

    def _source(self, case: Case, picture: Picture | None, predecessor: Reference | None) -> Source:
        # Read anew: the reports copy raw elements, and decoding has interpreted some of these.
        path = self.spool.source(case.id)
        try:
            header = read_source(path)
        except NotAnalyzed:
            # A header that only the listener's frugal reader could take still gets its answer.
            header = read_identity(path)
        return Source(
            header=header,
            # In the zone of this machine: what a source without a zone of its own is read in.
            content_at=(case.content_at or case.received.received_at).astimezone(),
            pixel_digest=picture.pixel_digest if picture else case.received.sha256,
            identity_digest=picture.identity_digest if picture else identity_digest(header),
            notes=case.admission.notes,
            predecessor=predecessor,
        )

    def _shelve(self, case: Case, shares: Sequence[Share]) -> tuple[Owed, ...]:
        """Put the results into the spool, durable before the journal names them."""
        kinds: set[ResultKind] = set()
        owed = []
        for share in shares:
            each = share.finished
            form = form_of(each.sop_instance_uid) if each.kind in kinds else ""
            kinds.add(each.kind)
            path = self.spool.write_result(case.id, each.kind, each.data, form)
            owed.append(Owed(each.at(path), share.names))
        return tuple(owed)

    def _reference(self, corrected: Case | None) -> Reference | None:
        """The report of the case that this one supersedes, if it had one."""
        return None if corrected is None else refer(self.journal.results(corrected.id))
