"""Every step of a case through the doors of the journal, and every step that is refused."""

from dataclasses import replace
from datetime import timedelta

import pytest

from covidnet_node.case import Admission, DeliveryState, Outcome, Reason, ResultKind, State
from covidnet_node.journal.case_id import is_case_id, new_case_id
from covidnet_node.journal.reception import MOST_REJECTIONS, OTHERS
from covidnet_node.journal.transitions import (
    CASE_STEPS,
    Cause,
    IllegalTransition,
    LostLease,
    UnknownCase,
)
from tests.journal_kit import LEASE, MINUTE, NOW, OURS, Desk, open_desk, received


@pytest.fixture
def desk(tmp_path):
    desk = open_desk(tmp_path)
    with desk.journal:
        yield desk


def causes(desk: Desk, case_id: str) -> list[Cause]:
    return [line.cause for line in desk.journal.history(case_id)]


# receive


def test_an_admitted_case_comes_back_as_it_went_in(desk):
    admission = Admission(True, Reason.LATERAL, "view is LL", ("age unknown", "second note"))
    case_id = new_case_id(NOW)
    case = desk.journal.admit(case_id, received(), admission, NOW)
    assert case == desk.journal.case(case_id)
    assert case.received == received()
    assert case.received.received_at.utcoffset() == timedelta(0)
    assert case.admission == admission
    assert (case.state, case.outcome, case.attempts, case.content_at) == (
        State.ADMITTED,
        None,
        0,
        None,
    )


def test_case_ids_are_names_of_folders_in_order_of_time():
    ids = [new_case_id(NOW + n * timedelta(seconds=1)) for n in range(5)]
    assert ids == sorted(ids)
    assert all(is_case_id(each) for each in ids)
    assert ids[0].startswith("20261123T003300-")
    assert len({new_case_id(NOW) for _ in range(100)}) == 100
    assert not any(is_case_id(bad) for bad in ("", "..", ids[0] + "\n", "x/" + ids[0]))


def test_a_naive_time_is_refused(desk):
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        desk.journal.count("x", naive)


def test_the_same_bytes_are_one_case(desk):
    first = desk.admit()
    assert desk.admit().id == first.id
    other_bytes = desk.admit(content="b")
    other_instance = desk.admit(instance="2")
    assert len({first.id, other_bytes.id, other_instance.id}) == 3
    assert desk.journal.versions(received().key) == (first, other_bytes)


def test_the_same_bytes_stay_one_case_when_it_is_parked(desk):
    case = desk.admit()
    desk.journal.park(desk.claim(), Reason.TECHNICAL_FAILURE, "broken", NOW)
    assert desk.admit().state is State.PARKED
    assert desk.journal.claim("node/1", 5, LEASE, NOW) == ()
    assert desk.admit().id == case.id


def test_a_refused_object_is_a_row_and_no_version(desk):
    refusal = Admission(False, Reason.NO_RULE, "modality is MG")
    cases = [desk.journal.refuse(new_case_id(NOW), received(), refusal, NOW) for _ in range(2)]
    assert {case.state for case in cases} == {State.REFUSED}
    assert cases[0].reason is Reason.NO_RULE
    assert cases[0].admission == refusal
    assert desk.journal.versions(received().key) == ()
    assert desk.journal.claim("node/1", 5, LEASE, NOW) == ()
    assert desk.admit().state is State.ADMITTED


@pytest.mark.parametrize("name", ["\udc80\ud800", "a\0b", "x" * 5000, "'; drop table cases; --"])
def test_hostile_text_is_recorded_not_raised(desk, name):
    bad = replace(received(), key=replace(received().key, sop_uid=name), calling_ae=name)
    refusal = Admission(False, Reason.BAD_UID, name)
    case = desk.journal.refuse(new_case_id(NOW), bad, refusal, NOW)
    assert len(case.received.key.sop_uid) <= 64
    desk.journal.count_rejection(name, name, "context", name, NOW)
    desk.journal.count_rejection(name, name, "context", name, NOW)
    assert [row.count for row in desk.journal.rejections()] == [2]


def test_rejections_and_counters_add_up(desk):
    for minutes in range(3):
        desk.journal.count_rejection("CT1", "10.0.0.1", "context", "1.2", NOW + minutes * MINUTE)
    desk.journal.count_rejection("CT1", "10.0.0.1", "association", "", NOW)
    desk.journal.count("own results", NOW)
    desk.journal.count("own results", NOW, by=4)
    latest, other = desk.journal.rejections()
    assert (latest.what, latest.count, latest.last_at) == ("context", 3, NOW + 2 * MINUTE)
    assert (other.what, other.count) == ("association", 1)
    assert desk.journal.counters() == {"own results": 5}


def test_a_stranger_with_many_names_does_not_fill_the_table(desk, monkeypatch):
    monkeypatch.setattr("covidnet_node.journal.reception.MOST_REJECTIONS", 3)
    assert MOST_REJECTIONS > 3
    for number in range(10):
        desk.journal.count_rejection(f"AE{number}", "10.0.0.1", "association", "", NOW)
    rows = desk.journal.rejections()
    assert len(rows) == 4
    assert {row.calling_ae: row.count for row in rows}[OTHERS] == 7


# claim


def test_claims_come_oldest_first_up_to_the_limit(desk):
    ids = [desk.admit(str(n), str(n)).id for n in range(3)]
    first = desk.journal.claim("node/1", 2, LEASE, NOW)
    second = desk.journal.claim("node/2", 2, LEASE, NOW)
    assert [claim.case.id for claim in (*first, *second)] == ids
    assert len({claim.token for claim in (*first, *second)}) == 3
    assert {claim.until for claim in first} == {NOW + LEASE}
    assert [lease.owner for lease in desk.journal.leases()] == ["node/1", "node/1", "node/2"]
    assert desk.journal.claim("node/3", 2, LEASE, NOW) == ()


def test_content_time_is_taken_once(desk):
    desk.admit()
    claim = desk.claim(NOW)
    assert (claim.case.content_at, claim.case.attempts) == (NOW, 1)
    desk.journal.retry(claim, "out of memory", NOW + MINUTE, NOW)
    claim = desk.claim(NOW + MINUTE)
    assert (claim.case.content_at, claim.case.attempts) == (NOW, 2)


def test_a_retried_case_waits_until_it_is_due(desk):
    case = desk.admit()
    desk.journal.retry(desk.claim(), "out of memory", NOW + MINUTE, NOW)
    assert desk.journal.claim("node/1", 1, LEASE, NOW + MINUTE / 2) == ()
    assert desk.journal.pause(case.id).due_at == NOW + MINUTE
    (error,) = desk.journal.last_errors()
    assert (error.case_id, error.destination, error.error) == (case.id, None, "out of memory")
    assert desk.claim(NOW + MINUTE).case.id == case.id


def test_versions_of_an_instance_are_judged_in_order(desk):
    old, new = desk.admit(content="a"), desk.admit(content="b")
    (claim,) = desk.journal.claim("node/1", 5, LEASE, NOW)
    assert claim.case.id == old.id
    assert desk.journal.claim("node/2", 5, LEASE, NOW) == ()
    desk.journal.retry(claim, "later", NOW + MINUTE, NOW)
    assert desk.journal.claim("node/2", 5, LEASE, NOW) == ()
    desk.report(desk.claim(NOW + MINUTE), "pacs")
    claim = desk.claim()
    assert claim.case.id == new.id
    assert [case.id for case in desk.journal.predecessors(claim.case)] == [old.id]
    assert desk.journal.predecessors(old) == ()


def test_a_case_that_crashed_a_worker_comes_alone(desk):
    ids = [desk.admit(str(n), str(n)).id for n in range(3)]
    desk.journal.claim("node/1", 1, LEASE, NOW)
    (released,) = desk.journal.release("node/1", NOW, crashed=True)
    assert (released.id, released.crashes) == (ids[0], 1)
    assert [c.case.id for c in desk.journal.claim("node/1", 3, LEASE, NOW)] == ids[:1]
    assert [c.case.id for c in desk.journal.claim("node/1", 3, LEASE, NOW)] == ids[1:]


def test_a_crashed_case_is_left_out_of_a_batch(desk):
    older = desk.admit("0", "0")
    crashed, younger = desk.admit("1", "1"), desk.admit("2", "2")
    claim = desk.claim()
    desk.claim()
    desk.journal.release("node/1", NOW, crashed=True)
    assert desk.journal.case(crashed.id).crashes == 1
    desk.journal.discard(older.id, NOW, "test")
    assert claim.case.id == older.id
    first = desk.claim()
    desk.journal.retry(first, "x", NOW, NOW)
    assert [c.case.id for c in desk.journal.claim("node/1", 9, LEASE, NOW)] == [crashed.id]
    assert desk.claim().case.id == younger.id


# leases


def test_a_released_lease_is_lost_to_whoever_held_it(desk):
    case = desk.admit()
    claim = desk.claim()
    desk.journal.release("node/", NOW, crashed=False)
    before = desk.journal.history(case.id)
    results = [desk.result(case.id)]
    for step in (
        lambda: desk.journal.record_digests(claim, "p", "i", NOW),
        lambda: desk.journal.renew(claim, LEASE, NOW),
        lambda: desk.journal.report(claim, Outcome.ANALYZED, None, "", results, ["pacs"], NOW),
        lambda: desk.journal.duplicate(claim, "other", NOW),
        lambda: desk.journal.retry(claim, "x", NOW, NOW),
        lambda: desk.journal.park(claim, Reason.TECHNICAL_FAILURE, "x", NOW),
    ):
        with pytest.raises(LostLease):
            step()
    assert desk.journal.history(case.id) == before
    assert desk.journal.results(case.id) == ()
    assert desk.journal.case(case.id).pixel_digest is None
    assert desk.claim().case.id == case.id


def test_a_claim_is_spent_once_it_has_reported(desk):
    desk.admit()
    claim = desk.claim()
    desk.report(claim, "pacs")
    with pytest.raises(LostLease):
        desk.report(claim, "pacs")
    assert len(desk.journal.due_deliveries("pacs", NOW, 9)) == 2


def test_only_the_dead_workers_cases_go_back(desk):
    for number, owner in enumerate(("node/1", "node/10", "other/1")):
        desk.admit(str(number), str(number))
        desk.claim(owner=owner)
    assert len(desk.journal.release("node/1", NOW, crashed=True)) == 1
    assert len(desk.journal.release("node_", NOW, crashed=True)) == 0
    assert len(desk.journal.release("node/", NOW, crashed=False)) == 1
    assert [lease.owner for lease in desk.journal.leases()] == ["other/1"]


def test_a_lease_that_runs_out_counts_as_a_crash(desk):
    case = desk.admit()
    claim = desk.claim()
    assert desk.journal.release_expired(NOW + LEASE - MINUTE) == ()
    renewed = desk.journal.renew(claim, LEASE, NOW + MINUTE)
    assert renewed.until == NOW + MINUTE + LEASE
    assert desk.journal.release_expired(NOW + LEASE) == ()
    (back,) = desk.journal.release_expired(renewed.until)
    assert (back.id, back.crashes) == (case.id, 1)
    assert causes(desk, case.id)[-1] is Cause.EXPIRED


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
    assert [delivery.result.kind for delivery in due] == list(ResultKind)
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
        desk.journal.report(claim, Outcome.ANALYZED, None, "", [], ["pacs"], NOW)
    assert desk.journal.case(case.id).state is State.ADMITTED


def test_a_result_outside_the_spool_is_refused_and_nothing_written(desk, tmp_path):
    case = desk.admit()
    claim = desk.claim()
    stray = replace(desk.result(case.id), path=tmp_path / "elsewhere.dcm")
    with pytest.raises(ValueError, match="elsewhere"):
        desk.journal.report(claim, Outcome.ANALYZED, None, "", [stray], ["pacs"], NOW)
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
    with pytest.raises(IllegalTransition, match="gone"):
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
