"""The journal from a worker's answer until every destination has it: report, deliver."""

from dataclasses import replace

import pytest

from covidnet_node.case import DeliveryState, Outcome, Owed, Reason, State
from covidnet_node.journal.transitions import (
    Cause,
    IllegalTransition,
    UnknownCase,
)
from tests.journal_kit import ANSWER, MINUTE, NOW, causes

# report


def test_an_answer_and_who_is_owed_it_are_one_step(desk):
    case = desk.admit()
    claim = desk.claim()
    desk.journal.record_digests(claim, "pixels", "identity", NOW)
    reported = desk.report(claim, "pacs", "archive", "pacs")
    assert (reported.state, reported.outcome) == (State.REPORTED, Outcome.ANALYZED)
    assert (reported.pixel_digest, reported.identity_digest) == ("pixels", "identity")
    assert desk.journal.destinations_owed() == {"pacs", "archive"}
    assert [b.pending for b in desk.journal.backlog()] == [2, 2]
    due = desk.journal.due_deliveries("pacs", NOW, 9)
    assert [delivery.result.kind for delivery in due] == list(ANSWER)
    assert due[0].result == desk.journal.results(case.id)[0]
    assert due[0].result.path.read_bytes() == f"report of {case.id}".encode()
    assert (due[0].calling_ae, due[0].peer, due[0].owed_since) == ("ROUTER", "127.0.0.1", NOW)
    assert len(desk.journal.deliveries(case.id)) == 4


def test_without_destinations_a_case_is_done_at_once(desk):
    desk.admit()
    assert desk.report(desk.claim()).state is State.DONE
    desk.admit("2")
    park = (Reason.PIXELS_CHANGED, "look")
    parked = desk.report(desk.claim(), park=park)
    assert parked.state is State.PARKED
    assert desk.journal.pause(parked.id).park_reason is Reason.PIXELS_CHANGED


def test_an_answer_without_results_is_refused(desk):
    case = desk.admit()
    claim = desk.claim()
    with pytest.raises(ValueError, match="at least one result"):
        desk.journal.report(claim, Outcome.ANALYZED, None, "", [], NOW)
    assert desk.journal.case(case.id).state is State.ADMITTED


def test_a_result_outside_the_spool_is_refused_and_nothing_written(desk, tmp_path):
    case = desk.admit()
    claim = desk.claim()
    stray = replace(desk.result(case.id), path=tmp_path / "elsewhere.dcm")
    with pytest.raises(ValueError, match="elsewhere"):
        desk.journal.report(claim, Outcome.ANALYZED, None, "", [Owed(stray, ("pacs",))], NOW)
    assert desk.journal.results(case.id) == ()
    assert desk.report(claim, "pacs").state is State.REPORTED


def test_a_duplicate_is_done_without_results(desk):
    first, second = desk.admit(content="a"), desk.admit(content="b")
    desk.report(desk.claim(), "pacs")
    desk.journal.duplicate(desk.claim(), first.id, NOW)
    case = desk.journal.case(second.id)
    assert (case.state, case.outcome, case.reason) == (State.DONE, None, Reason.DUPLICATE)
    assert first.id in case.detail
    assert desk.journal.results(second.id) == ()


def test_a_correction_marks_the_case_it_supersedes(desk):
    first, second = desk.admit(content="a"), desk.admit(content="b")
    desk.report(desk.claim(), "pacs")
    desk.deliver("pacs")
    desk.report(desk.claim(), "pacs", supersedes=first.id)
    assert desk.journal.case(second.id).supersedes == first.id
    assert desk.journal.case(first.id).superseded_by == second.id
    assert desk.journal.case(first.id).state is State.DONE
    assert causes(desk, first.id)[-1] is Cause.SUPERSEDED


def test_superseding_nothing_changes_nothing(desk):
    case = desk.admit()
    with pytest.raises(UnknownCase):
        desk.report(desk.claim(), "pacs", supersedes="nobody")
    assert desk.journal.case(case.id).state is State.ADMITTED
    assert desk.journal.results(case.id) == ()


# deliver


def test_a_case_is_done_with_its_last_row(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs", "archive")
    desk.deliver("pacs")
    assert desk.journal.case(case.id).state is State.REPORTED
    desk.deliver("archive")
    assert desk.journal.case(case.id).state is State.DONE
    assert desk.journal.destinations_owed() == frozenset()
    assert {row.state for row in desk.journal.deliveries(case.id)} == {DeliveryState.DELIVERED}


def test_a_marked_case_is_parked_after_delivery(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs", park=(Reason.PIXELS_CHANGED, "two images, one UID"))
    assert desk.journal.case(case.id).state is State.REPORTED
    desk.deliver("pacs")
    assert desk.journal.case(case.id).state is State.PARKED
    assert desk.journal.pause(case.id).park_reason is Reason.PIXELS_CHANGED


def test_what_a_destination_misses_is_due_again_later(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs")
    first, _ = desk.journal.due_deliveries("pacs", NOW, 9)
    desk.journal.postpone(first.id, "A700 out of resources", NOW + MINUTE, NOW)
    assert len(desk.journal.due_deliveries("pacs", NOW, 9)) == 1
    assert desk.journal.next_due("pacs") == NOW
    assert desk.journal.next_due("nobody") is None
    again, _ = desk.journal.due_deliveries("pacs", NOW + MINUTE, 9)
    assert (again.id, again.attempts, again.owed_since) == (first.id, 1, NOW)
    (error,) = desk.journal.last_errors()
    assert (error.case_id, error.destination) == (case.id, "pacs")
    assert "A700" in desk.journal.deliveries(case.id)[0].last_error


def test_giving_up_parks_the_case_once_nothing_is_pending(desk):
    case = desk.admit()
    desk.report(desk.claim(), "pacs", "archive")
    for delivery in desk.journal.due_deliveries("pacs", NOW, 9):
        desk.journal.give_up(delivery.id, "refused", NOW)
    assert desk.journal.case(case.id).state is State.REPORTED
    desk.deliver("archive")
    assert desk.journal.case(case.id).state is State.PARKED
    assert desk.journal.pause(case.id).park_reason is Reason.GAVE_UP


def test_a_settled_row_does_not_move_again(desk):
    desk.admit()
    desk.report(desk.claim(), "pacs")
    first, second = desk.journal.due_deliveries("pacs", NOW, 9)
    desk.journal.delivered(first.id, NOW)
    desk.journal.give_up(second.id, "x", NOW)
    for settled in (first.id, second.id):
        with pytest.raises(IllegalTransition):
            desk.journal.delivered(settled, NOW)
        with pytest.raises(IllegalTransition):
            desk.journal.postpone(settled, "x", NOW, NOW)
        with pytest.raises(IllegalTransition):
            desk.journal.give_up(settled, "x", NOW)
    with pytest.raises(UnknownCase):
        desk.journal.delivered(99, NOW)
