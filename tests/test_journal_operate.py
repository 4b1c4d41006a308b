"""What an operator does with the journal, what age does to it, and what it tells."""

from datetime import timedelta

import pytest

from covidnet_node.case import Admission, Reason, State
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.transitions import (
    CASE_STEPS,
    Cause,
    IllegalTransition,
    LostLease,
    UnknownCase,
)
from tests.journal_kit import MINUTE, NOW, OURS, causes, received

# operate


def test_requeue_sends_again_what_was_given_up(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs", "archive")
    for delivery in desk.journal.due_deliveries("pacs", NOW, 9):
        desk.journal.give_up(delivery.id, "refused", NOW)
    desk.deliver("archive")
    later = NOW + MINUTE
    assert desk.journal.requeue(case.id, later).state is State.REPORTED
    assert desk.journal.destinations_owed() == {"pacs"}
    due = desk.journal.due_deliveries("pacs", later, 9)
    assert {(row.attempts, row.owed_since) for row in due} == {(0, later)}
    desk.deliver("pacs", later)
    assert desk.journal.case(case.id).state is State.DONE


def test_requeue_of_a_done_case_sends_everything_again(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs", "archive")
    desk.deliver("pacs")
    desk.deliver("archive")
    desk.journal.requeue(case.id, NOW)
    assert desk.journal.destinations_owed() == {"pacs", "archive"}


def test_requeue_without_results_analyzes_again(desk):
    case = desk.admit()
    desk.claim()
    desk.journal.release("node/1", NOW, crashed=True)
    desk.journal.park(desk.claim(), Reason.TECHNICAL_FAILURE, "broken", NOW)
    back = desk.journal.requeue(case.id, NOW)
    assert (back.state, back.attempts, back.crashes, back.reason) == (State.ADMITTED, 0, 0, None)
    assert desk.claim().case.id == case.id


def test_requeue_again_sets_the_old_answer_aside(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs")
    desk.deliver("pacs")
    later = NOW + MINUTE
    assert desk.journal.requeue(case.id, later, again=True).state is State.ADMITTED
    assert desk.journal.results(case.id) == ()
    claim = desk.claim(later)
    assert claim.case.content_at == NOW
    desk.report(claim, "pacs", now=later)
    assert len(desk.journal.due_deliveries("pacs", later, 9)) == 2
    desk.deliver("pacs", later)
    assert desk.journal.case(case.id).state is State.DONE


def test_discard_closes_a_case_and_takes_it_from_its_worker(desk):
    case = desk.admit()
    claim = desk.claim()
    discarded = desk.journal.discard(case.id, NOW, "test image")
    assert (discarded.state, discarded.reason) == (State.DONE, Reason.DISCARDED)
    with pytest.raises(LostLease):
        desk.report(claim, "pacs")
    assert desk.journal.leases() == ()
    assert desk.journal.requeue(case.id, NOW).state is State.ADMITTED


def test_steps_that_are_not_in_the_table_are_refused(desk):
    case = desk.admit()
    with pytest.raises(IllegalTransition):
        desk.journal.requeue(case.id, NOW)
    desk.report(desk.claim(), "pacs")
    for step in (
        lambda: desk.journal.requeue(case.id, NOW),
        lambda: desk.journal.discard(case.id, NOW, "x"),
        lambda: desk.journal.forgotten(case.id, NOW),
    ):
        with pytest.raises(IllegalTransition):
            step()
    desk.deliver("pacs")
    with pytest.raises(IllegalTransition):
        desk.journal.discard(case.id, NOW, "x")
    refused = desk.journal.refuse(
        new_case_id(NOW), received("9"), Admission(False, Reason.NO_RULE), NOW
    )
    for step in (
        lambda: desk.journal.requeue(refused.id, NOW),
        lambda: desk.journal.discard(refused.id, NOW, "x"),
    ):
        with pytest.raises(IllegalTransition):
            step()
    with pytest.raises(UnknownCase):
        desk.journal.requeue("nobody", NOW)
    assert not any(step[0] is State.REFUSED for step in CASE_STEPS)


# retention


def test_files_go_by_age_and_rows_stay(desk):
    done, parked = desk.admit("1", "1"), desk.admit("2", "2")
    desk.report(desk.claim())
    desk.journal.park(desk.claim(), Reason.TECHNICAL_FAILURE, "x", NOW)
    desk.admit("3", "3")
    ages = {"done": timedelta(days=7), "parked": timedelta(days=90)}
    assert desk.journal.expired(NOW + timedelta(days=6), **ages) == ()
    assert desk.journal.expired(NOW + timedelta(days=8), **ages) == (done.id,)
    later = NOW + timedelta(days=91)
    assert desk.journal.expired(later, **ages) == (done.id, parked.id)
    desk.journal.forgotten(done.id, later)
    assert desk.journal.expired(later, **ages) == (parked.id,)
    assert desk.journal.case(done.id).state is State.DONE
    assert causes(desk, done.id)[-1] is Cause.PURGED
    with pytest.raises(IllegalTransition, match="deleted by age"):
        desk.journal.requeue(done.id, later)


def test_refused_rows_go_by_age_and_nothing_else_does(desk):
    refusal = Admission(False, Reason.NO_RULE)
    old = desk.journal.refuse(new_case_id(NOW), received("1"), refusal, NOW)
    later = NOW + timedelta(days=31)
    young = desk.journal.refuse(new_case_id(later), received("2"), refusal, later)
    case = desk.admit("3", "3")
    assert desk.journal.purge_refused(later, timedelta(days=30)) == 1
    assert desk.journal.knows(young.id)
    assert desk.journal.knows(case.id)
    assert not desk.journal.knows(old.id)
    assert desk.journal.history(old.id) == ()


# observe


def test_counts_name_every_state(desk):
    desk.admit("1", "1")
    desk.admit("2", "2", now=NOW + MINUTE)
    rows = {row.state: row for row in desk.journal.counts(NOW + 2 * MINUTE)}
    assert set(rows) == set(State)
    assert (rows[State.ADMITTED].count, rows[State.ADMITTED].oldest) == (2, 2 * MINUTE)
    assert (rows[State.PARKED].count, rows[State.PARKED].oldest) == (0, None)


def test_lists_are_newest_first_and_by_state(desk):
    ids = [desk.admit(str(n), str(n)).id for n in range(4)]
    desk.report(desk.claim())
    assert [case.id for case in desk.journal.cases(limit=2)] == ids[:1:-1]
    assert [case.id for case in desk.journal.cases(State.DONE)] == ids[:1]
    with pytest.raises(UnknownCase):
        desk.journal.case("nobody")


def test_the_history_tells_every_step(desk):
    case = desk.admit()
    desk.journal.retry(desk.claim(), "out of memory", NOW, NOW)
    desk.report(desk.claim(), "pacs")
    desk.deliver("pacs")
    assert causes(desk, case.id) == [
        Cause.ADMITTED,
        Cause.CLAIMED,
        Cause.RETRIED,
        Cause.CLAIMED,
        Cause.REPORTED,
        Cause.DELIVERED,
        Cause.DELIVERED,
    ]
    lines = desk.journal.history(case.id)
    assert [line.from_state for line in lines] == [None, *(line.to_state for line in lines[:-1])]
    assert all((line.from_state, line.to_state, line.cause) in CASE_STEPS for line in lines)
    assert lines[-1].to_state is State.DONE
    assert OURS.admitted
