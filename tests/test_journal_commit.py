"""Storage commitment in the journal: what is asked, what answers change, and what they do not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covidnet_node.case import (
    Commitment,
    CommitmentState,
    Delivery,
    DeliveryState,
    Promise,
    Reason,
    State,
)
from covidnet_node.journal.transitions import Cause, IllegalTransition
from tests.journal_kit import MINUTE, NOW, Desk, causes, open_desk

LATER = NOW + 60 * MINUTE
DELIVERED, COMMITTED = DeliveryState.DELIVERED, DeliveryState.COMMITTED
PENDING, GIVEN_UP = DeliveryState.PENDING, DeliveryState.GIVEN_UP


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = open_desk(tmp_path)
    with opened.journal:
        yield opened


def deliver(desk: Desk, destination: str = "pacs", now=NOW, most: int = 100) -> None:
    for delivery in desk.journal.due_deliveries(destination, now, most):
        desk.journal.delivered(delivery.id, now, "0000", commit=True)


def stored(desk: Desk, *destinations: str) -> str:
    """The id of a case whose report and heatmap are stored, and not committed to."""
    case = desk.admit()
    desk.report(desk.claim(), *(destinations or ("pacs",)))
    deliver(desk)
    return case.id


def transaction(number: int = 1) -> Commitment:
    return Commitment(f"2.25.{number}", "pacs", "PACS", "10.0.0.1", CommitmentState.WRITTEN)


def ask(desk: Desk, number: int = 1, now=NOW, due_at=LATER) -> tuple[Delivery, ...]:
    """Put a transaction about everything that is due."""
    due = desk.journal.due_commitments("pacs", now, 100)
    desk.journal.write_commitment(transaction(number), [each.id for each in due], due_at, now)
    desk.journal.commitment_taken(f"2.25.{number}", now)
    return due


def answer(desk: Desk, number: int, committed=(), failed=None) -> bool:
    return desk.journal.commitment_reported(f"2.25.{number}", set(committed), failed or {}, NOW)


def act(desk: Desk, now=NOW) -> dict[str, Promise]:
    """Act on all answers, as the commitment loop does; returns what was said of what was left."""
    said = {}
    for uid, promises in desk.journal.answered_commitments("pacs").items():
        for each in promises:
            said[each.delivery.result.sop_instance_uid] = each.promise
            if each.promise is Promise.COMMITTED:
                desk.journal.committed(each.delivery.id, "", now)
            elif each.latest:
                attempts = each.delivery.commit_attempts
                desk.journal.send_again(each.delivery.id, "not there", now, now, attempts)
        desk.journal.commitment_settled(uid, now)
    return said


def uids(due: tuple[Delivery, ...]) -> list[str]:
    return [each.result.sop_instance_uid for each in due]


def states(desk: Desk, case_id: str) -> list[DeliveryState]:
    return [each.state for each in desk.journal.deliveries(case_id)]


def test_a_case_is_done_when_all_is_committed(desk):
    case_id = stored(desk)
    assert desk.journal.case(case_id).state is State.REPORTED
    due = ask(desk)
    assert [each.study_uid for each in due] == ["1.2.3", "1.2.3"]
    assert answer(desk, 1, uids(due))
    assert states(desk, case_id) == [DELIVERED] * 2
    act(desk)
    assert states(desk, case_id) == [COMMITTED] * 2
    assert desk.journal.case(case_id).state is State.DONE
    assert causes(desk, case_id)[-2:] == [Cause.COMMITTED, Cause.COMMITTED]
    assert desk.journal.answered_commitments("pacs") == {}
    assert desk.journal.backlog() == ()


def test_where_nothing_is_asked_stored_is_done(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs")
    desk.deliver("pacs")
    assert desk.journal.case(case.id).state is State.DONE
    assert desk.journal.due_commitments("pacs", LATER, 10) == ()


def test_nothing_is_asked_while_something_is_to_be_sent(desk):
    desk.admit()
    desk.report(desk.claim(), "pacs", "other")
    deliver(desk, most=1)
    assert desk.journal.due_commitments("pacs", NOW, 10) == ()
    assert desk.journal.next_commitment_due("pacs") is None
    deliver(desk)
    assert len(desk.journal.due_commitments("pacs", NOW, 10)) == 2
    assert desk.journal.next_commitment_due("pacs") == NOW


def test_cases_wait_for_what_is_theirs(desk):
    for number in range(3):
        desk.admit(str(number), str(number))
        desk.report(desk.claim(), "pacs")
    deliver(desk, most=3)
    first, second, *rest = desk.journal.due_commitments("pacs", NOW, 10)
    assert first.case_id == second.case_id
    assert rest == []
    deliver(desk, most=2)
    assert len(desk.journal.due_commitments("pacs", NOW, 10)) == 4


def test_what_is_asked_is_not_due_before_its_time(desk):
    stored(desk)
    ask(desk)
    assert desk.journal.due_commitments("pacs", LATER - MINUTE, 10) == ()
    again = desk.journal.due_commitments("pacs", LATER, 10)
    assert [each.commit_attempts for each in again] == [1, 1]
    assert desk.journal.next_commitment_due("pacs") == LATER


def test_what_failed_or_is_not_named_is_sent_again(desk):
    case_id = stored(desk)
    report, heatmap = uids(ask(desk))
    answer(desk, 1, (), {report: 0x0112})
    assert act(desk) == {report: Promise.FAILED, heatmap: Promise.NOT_NAMED}
    assert states(desk, case_id) == [PENDING] * 2
    assert desk.journal.deliveries(case_id)[0].last_error == "not there"
    deliver(desk)
    again = ask(desk, 2)
    assert [each.commit_attempts for each in again] == [1, 1]
    answer(desk, 2, uids(again))
    act(desk)
    assert desk.journal.case(case_id).state is State.DONE


def test_what_an_answer_names_twice_has_failed(desk):
    stored(desk)
    report, heatmap = uids(ask(desk))
    answer(desk, 1, (report, heatmap), {heatmap: 0x0110})
    assert act(desk) == {report: Promise.COMMITTED, heatmap: Promise.FAILED}


def test_instances_that_were_not_asked_about_stay_as_they_are(desk):
    first = stored(desk)
    due = ask(desk)
    other = desk.admit("2", "b")
    desk.report(desk.claim(), "pacs")
    deliver(desk)
    strangers = uids(desk.journal.due_commitments("pacs", NOW, 10))
    answer(desk, 1, (*uids(due), strangers[0]), {strangers[1]: 0x0112, "1.2.3": 0x0112})
    act(desk)
    assert states(desk, first) == [COMMITTED] * 2
    assert states(desk, other.id) == [DELIVERED] * 2


def test_a_second_report_changes_nothing(desk):
    case_id = stored(desk)
    due = uids(ask(desk))
    assert answer(desk, 1, due)
    assert not answer(desk, 1, (), dict.fromkeys(due, 0x0112))
    act(desk)
    assert not answer(desk, 1, (), dict.fromkeys(due, 0x0112))
    assert act(desk) == {}
    assert states(desk, case_id) == [COMMITTED] * 2


def test_a_late_yes_is_believed_and_a_late_no_is_not(desk):
    case_id = stored(desk)
    report, heatmap = uids(ask(desk, 1))
    ask(desk, 2, now=LATER, due_at=LATER + 60 * MINUTE)
    state = desk.journal.commitment("2.25.1").state
    assert state is CommitmentState.EXPIRED
    answer(desk, 1, (report,), {heatmap: 0x0112})
    act(desk)
    assert states(desk, case_id) == [COMMITTED, DELIVERED]
    answer(desk, 2, (heatmap,), {report: 0x0112})
    act(desk)
    assert states(desk, case_id) == [COMMITTED, COMMITTED]


def test_an_answer_about_an_earlier_delivery_says_nothing_of_a_later_one(desk):
    case_id = stored(desk)
    due = uids(ask(desk, 1))
    answer(desk, 1, (), dict.fromkeys(due, 0x0112))
    act(desk)
    deliver(desk, now=NOW + MINUTE)
    desk.journal.due_commitments("pacs", LATER, 10)
    # The same objects were lost once and sent again; the old transaction is settled.
    assert not answer(desk, 1, due)
    assert act(desk) == {}
    assert states(desk, case_id) == [DELIVERED] * 2


def test_a_requeued_case_hears_no_old_answers(desk):
    case_id = stored(desk)
    due = ask(desk, 1)
    for each in due:
        desk.journal.give_up(each.id, "no answer", NOW)
    assert desk.journal.case(case_id).state is State.PARKED
    assert desk.journal.pause(case_id).park_reason is Reason.GAVE_UP
    desk.journal.requeue(case_id, NOW + MINUTE)
    deliver(desk, now=NOW + MINUTE)
    assert [e.commit_attempts for e in desk.journal.due_commitments("pacs", LATER, 9)] == [0, 0]
    assert answer(desk, 1, uids(due))
    assert act(desk) == {}
    assert states(desk, case_id) == [DELIVERED] * 2


def test_a_refused_request_is_due_again(desk):
    case_id = stored(desk)
    due = desk.journal.due_commitments("pacs", NOW, 10)
    desk.journal.write_commitment(transaction(), [each.id for each in due], LATER, NOW)
    desk.journal.commitment_refused("2.25.1", "0213 resources", NOW + MINUTE, NOW)
    assert desk.journal.next_commitment_due("pacs") == NOW + MINUTE
    assert desk.journal.deliveries(case_id)[0].last_error == "0213 resources"
    desk.journal.ask_again(due[0].id, "no query", LATER, NOW, counted=True)
    attempts = {e.id: e.commit_attempts for e in desk.journal.due_commitments("pacs", LATER, 9)}
    assert attempts == {due[0].id: 2, due[1].id: 1}


def test_what_may_never_have_gone_out_is_asked_at_once_after_a_restart(desk):
    stored(desk)
    due = desk.journal.due_commitments("pacs", NOW, 10)
    desk.journal.write_commitment(transaction(), [each.id for each in due], LATER, NOW)
    assert desk.journal.recall_unsent("pacs", NOW + MINUTE) == 1
    assert desk.journal.next_commitment_due("pacs") == NOW + MINUTE
    # It had gone out after all.
    assert answer(desk, 1, uids(due))
    assert set(act(desk).values()) == {Promise.COMMITTED}
    assert desk.journal.recall_unsent("pacs", NOW + MINUTE) == 0


def test_what_has_gone_out_is_awaited_after_a_restart(desk):
    stored(desk)
    ask(desk)
    assert desk.journal.recall_unsent("pacs", NOW + MINUTE) == 0
    assert desk.journal.next_commitment_due("pacs") == LATER


def test_commitment_switched_off_or_destination_removed(desk):
    case_id = stored(desk)
    ask(desk)
    assert desk.journal.waive_commitments({"pacs"}, NOW) == 0
    assert desk.journal.case(case_id).state is State.REPORTED
    assert desk.journal.waive_commitments(set(), NOW) == 2
    assert desk.journal.case(case_id).state is State.DONE
    assert states(desk, case_id) == [DELIVERED] * 2
    assert causes(desk, case_id)[-1] is Cause.WAIVED


def test_files_stay_until_all_is_committed(desk):
    case_id = stored(desk)
    due = ask(desk)
    far = NOW + timedelta(days=1000)
    assert desk.journal.expired(far, timedelta(days=1), timedelta(days=1)) == ()
    answer(desk, 1, uids(due))
    act(desk)
    assert desk.journal.expired(far, timedelta(days=1), timedelta(days=1)) == (case_id,)


def test_the_backlog_counts_what_waits_for_commitment(desk):
    desk.admit()
    desk.report(desk.claim(), "pacs")
    deliver(desk, most=1)
    (debt,) = desk.journal.backlog()
    assert (debt.pending, debt.uncommitted, debt.owed_since) == (1, 1, NOW)


def test_what_is_not_delivered_cannot_be_asked_about(desk):
    desk.admit()
    desk.report(desk.claim(), "pacs")
    (first, _) = desk.journal.due_deliveries("pacs", NOW, 10)
    with pytest.raises(IllegalTransition):
        desk.journal.write_commitment(transaction(), [first.id], LATER, NOW)
    assert desk.journal.commitment("2.25.1") is None


def test_an_old_journal_is_upgraded_and_asks_nothing_of_the_past(tmp_path):
    first = open_desk(tmp_path)
    with first.journal:
        case = first.admit()
        first.report(first.claim(), "pacs")
        first.deliver("pacs")
    back_to_first_schema(tmp_path / "journal.db")
    desk = open_desk(tmp_path)
    with desk.journal:
        assert desk.journal.case(case.id).state is State.DONE
        assert states(desk, case.id) == [DELIVERED] * 2
        assert desk.journal.due_commitments("pacs", LATER, 10) == ()


def back_to_first_schema(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for statement in (
            "DROP TABLE commitment_items",
            "DROP TABLE commitments",
            "DROP INDEX deliveries_by_commit_due",
            "ALTER TABLE deliveries DROP COLUMN delivered_at",
            "ALTER TABLE deliveries DROP COLUMN commit_due_at",
            "ALTER TABLE deliveries DROP COLUMN commit_attempts",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            connection.execute(statement)
        connection.commit()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "report", "act", "deliver", "recall", "refuse"]),
        st.integers(0, 3),
        st.sets(st.integers(0, 1)),
        st.sets(st.integers(0, 1)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_only_a_yes_commits_and_a_case_is_done_exactly_then(tmp_path_factory, steps):
    """Whatever order asking, answers, restarts and repeats come in."""
    desk = open_desk(tmp_path_factory.mktemp("walk"))
    with desk.journal:
        case_id = stored(desk)
        known = [each.id for each in desk.journal.deliveries(case_id)]
        names = [each.sop_instance_uid for each in desk.journal.results(case_id)]
        asked, promised, now = 0, set(), NOW
        for what, which, good, bad in steps:
            now += 61 * MINUTE
            if what == "ask" and desk.journal.due_commitments("pacs", now, 10):
                asked += 1
                ask(desk, asked, now, now + 60 * MINUTE)
            elif what == "report" and asked:
                number = max(1, asked - which)
                failed = {names[index]: 0x0112 for index in bad}
                if answer(desk, number, {names[index] for index in good}, failed):
                    promised |= {names[index] for index in good - bad}
            elif what == "act":
                act(desk, now)
            elif what == "deliver":
                deliver(desk, now=now)
            elif what == "recall":
                desk.journal.recall_unsent("pacs", now)
            elif what == "refuse" and asked:
                desk.journal.commitment_refused(f"2.25.{asked}", "no", now, now)
            debts = desk.journal.deliveries(case_id)
            assert [each.id for each in debts] == known
            committed = {
                name for name, each in zip(names, debts, strict=True) if each.state is COMMITTED
            }
            assert committed <= promised
            done = desk.journal.case(case_id).state is State.DONE
            assert done == (committed == set(names))
