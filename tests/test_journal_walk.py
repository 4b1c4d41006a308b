"""Random walks through the journal: whatever is done in whatever order, its promises hold."""

import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from covidnet_node.case import Case, Claim, DeliveryState, Reason, State
from covidnet_node.journal.transitions import CASE_STEPS, IllegalTransition, LostLease
from tests.journal_kit import LEASE, MINUTE, NOW, Desk, open_desk

SETTLED = {DeliveryState.DELIVERED, DeliveryState.COMMITTED}
PARK = (Reason.PIXELS_CHANGED, "other pixels")
PICK = st.integers(0, 1000)


class Walk(RuleBasedStateMachine):
    """A node with two workers, two destinations, an operator, and no luck."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.desk: Desk = open_desk(Path(self.folder.name))
        self.now = NOW
        self.claims: list[Claim] = []
        self.seen: dict[str, int] = {}

    def teardown(self) -> None:
        self.desk.journal.close()
        self.folder.cleanup()

    def everyone(self) -> tuple[Case, ...]:
        return self.desk.journal.cases(limit=10_000)

    @rule(instance=st.sampled_from("123"), content=st.sampled_from("abc"))
    def admit(self, instance: str, content: str) -> None:
        self.desk.admit(instance, content, self.now)

    @rule(owner=st.sampled_from(["node/1", "node/2"]), limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> None:
        claims = self.desk.journal.claim(owner, limit, LEASE, self.now)
        for claim in claims:
            older = self.desk.journal.predecessors(claim.case)
            assert State.ADMITTED not in {case.state for case in older}
            assert not claim.case.crashes or len(claims) == 1
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, step=st.sampled_from(["report", "nowhere", "park", "retry", "twin", "mark"]))
    def work(self, pick: int, step: str) -> None:
        claim = self.claims.pop(pick % len(self.claims))
        journal = self.desk.journal
        held = claim.token in {lease.token for lease in journal.leases()}
        before = journal.history(claim.case.id)
        try:
            if step == "report":
                self.desk.report(claim, "pacs", "archive", now=self.now)
            elif step == "mark":
                self.desk.report(claim, "pacs", now=self.now, park=PARK)
            elif step == "nowhere":
                self.desk.report(claim, now=self.now)
            elif step == "park":
                journal.park(claim, Reason.TECHNICAL_FAILURE, "broken", self.now)
            elif step == "retry":
                journal.retry(claim, "memory", self.now + MINUTE, self.now)
            else:
                journal.duplicate(claim, "earlier", self.now)
        except LostLease:
            assert not held
            assert journal.history(claim.case.id) == before
        else:
            assert held

    @rule(
        destination=st.sampled_from(["pacs", "archive"]),
        fate=st.sampled_from(["store", "miss", "give up"]),
        limit=st.integers(1, 4),
    )
    def deliver(self, destination: str, fate: str, limit: int) -> None:
        for delivery in self.desk.journal.due_deliveries(destination, self.now, limit):
            assert delivery.result.path.is_file()
            if fate == "store":
                self.desk.journal.delivered(delivery.id, self.now)
            elif fate == "miss":
                self.desk.journal.postpone(delivery.id, "A700", self.now + MINUTE, self.now)
            else:
                self.desk.journal.give_up(delivery.id, "A700", self.now)

    @precondition(lambda self: self.seen)
    @rule(pick=PICK, step=st.sampled_from(["requeue", "again", "discard"]))
    def operate(self, pick: int, step: str) -> None:
        case_id = sorted(self.seen)[pick % len(self.seen)]
        before = self.desk.journal.history(case_id)
        try:
            if step == "discard":
                self.desk.journal.discard(case_id, self.now, "test")
            else:
                self.desk.journal.requeue(case_id, self.now, again=step == "again")
        except IllegalTransition:
            assert self.desk.journal.history(case_id) == before

    @rule(crashed=st.booleans(), owner=st.sampled_from(["node/1", "node/"]))
    def lose_a_worker(self, *, crashed: bool, owner: str) -> None:
        self.desk.journal.release(owner, self.now, crashed=crashed)

    @rule(minutes=st.integers(1, 10))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE
        self.desk.journal.release_expired(self.now)

    @rule()
    def restart(self) -> None:
        self.desk.journal.close()
        self.desk = open_desk(Path(self.folder.name))

    @rule()
    def files_go_by_age(self) -> None:
        ages = {"done": timedelta(minutes=5), "parked": timedelta(minutes=20)}
        for case_id in self.desk.journal.expired(self.now, **ages):
            self.desk.spool.drop(case_id)
            self.desk.journal.forgotten(case_id, self.now)

    @invariant()
    def no_case_is_lost_and_bytes_are_one_case(self) -> None:
        cases = self.everyone()
        assert set(self.seen) <= {case.id for case in cases}
        bytes_of = Counter((case.received.key, case.received.sha256) for case in cases)
        assert all(count == 1 for count in bytes_of.values())

    @invariant()
    def a_case_leaves_only_with_a_decision(self) -> None:
        for case in self.everyone():
            if case.state in (State.DONE, State.PARKED, State.REPORTED):
                assert case.outcome is not None or case.reason is not None

    @invariant()
    def done_means_that_nothing_is_owed(self) -> None:
        for case in self.everyone():
            rows = {debt.state for debt in self.desk.journal.deliveries(case.id)}
            if case.state is State.DONE and case.reason is not Reason.DISCARDED:
                assert rows <= SETTLED
            assert (DeliveryState.PENDING in rows) == (case.state is State.REPORTED)

    @invariant()
    def the_history_is_unbroken_and_only_grows(self) -> None:
        for case in self.everyone():
            lines = self.desk.journal.history(case.id)
            steps = [(line.from_state, line.to_state) for line in lines]
            assert all(
                (*step, line.cause) in CASE_STEPS for step, line in zip(steps, lines, strict=True)
            )
            assert [before for before, _ in steps] == [None, *(after for _, after in steps[:-1])]
            assert steps[-1][1] is case.state
            assert len(lines) >= self.seen.get(case.id, 0)
            self.seen[case.id] = len(lines)

    @invariant()
    def only_admitted_cases_are_in_hand(self) -> None:
        admitted = {case.id for case in self.desk.journal.cases(State.ADMITTED, 10_000)}
        assert {lease.case_id for lease in self.desk.journal.leases()} <= admitted


TestWalk = Walk.TestCase
TestWalk.settings = settings(
    max_examples=8,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
