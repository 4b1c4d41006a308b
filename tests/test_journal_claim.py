"""The journal from an object's arrival until a worker holds it: admit, claim, lease."""

from dataclasses import replace
from datetime import timedelta

import pytest

from covidnet_node.case import Admission, Outcome, Reason, State
from covidnet_node.journal.case_id import is_case_id, new_case_id
from covidnet_node.journal.reception import (
    MOST_REJECTIONS,
    MOST_REJECTIONS_OF_A_PEER,
    OTHERS,
    TurnedAway,
)
from covidnet_node.journal.transitions import (
    Cause,
    LostLease,
)
from tests.journal_kit import LEASE, MINUTE, NOW, causes, received

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
    for _ in range(2):
        desk.journal.count_rejections({TurnedAway(name, name, "context", name): 1}, NOW)
    assert [row.count for row in desk.journal.rejections()] == [2]


def test_rejections_and_counters_add_up(desk):
    for minutes in range(3):
        context = TurnedAway("CT1", "10.0.0.1", "context", "1.2")
        desk.journal.count_rejections({context: 1}, NOW + minutes * MINUTE)
    association = TurnedAway("CT1", "10.0.0.1", "association", "")
    desk.journal.count_rejections({association: 2}, NOW)
    desk.journal.count("own results", NOW)
    desk.journal.count("own results", NOW, by=4)
    latest, other = desk.journal.rejections()
    assert (latest.what, latest.count, latest.last_at) == ("context", 3, NOW + 2 * MINUTE)
    assert (other.what, other.count) == ("association", 2)
    assert desk.journal.counters() == {"own results": 5}


@pytest.mark.parametrize("bound", ["MOST_REJECTIONS", "MOST_REJECTIONS_OF_A_PEER"])
def test_a_stranger_with_many_names_does_not_fill_the_table(desk, monkeypatch, bound):
    monkeypatch.setattr(f"covidnet_node.journal.reception.{bound}", 3)
    assert min(MOST_REJECTIONS, MOST_REJECTIONS_OF_A_PEER) > 3
    for number in range(10):
        turned = TurnedAway(f"AE{number}", "10.0.0.1", "association", "")
        desk.journal.count_rejections({turned: 1}, NOW)
    rows = desk.journal.rejections()
    assert len(rows) == 4
    assert {row.calling_ae: row.count for row in rows}[OTHERS] == 7


def test_a_stranger_with_many_names_hides_nobody_else(desk, monkeypatch):
    monkeypatch.setattr("covidnet_node.journal.reception.MOST_REJECTIONS_OF_A_PEER", 3)
    for number in range(10):
        turned = TurnedAway(f"AE{number}", "10.0.0.1", "association", "")
        desk.journal.count_rejections({turned: 1}, NOW)
    desk.journal.count_rejections({TurnedAway("CT1", "10.0.0.2", "association", ""): 1}, NOW)
    assert ("CT1", "10.0.0.2") in {(row.calling_ae, row.peer) for row in desk.journal.rejections()}


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


def test_a_clock_that_is_set_back_holds_up_nothing(desk):
    before = NOW - timedelta(days=300)
    desk.admit()
    (claim,) = desk.journal.claim("node/1", 1, LEASE, before)
    desk.journal.retry(claim, "busy", before + MINUTE, before)
    assert desk.journal.claim("node/1", 1, LEASE, before) == ()
    desk.report(desk.claim(), "pacs")
    (owed,) = desk.journal.due_deliveries("pacs", before, 1)
    desk.journal.postpone(owed.id, "down", before + MINUTE, before)
    assert owed.id not in [each.id for each in desk.journal.due_deliveries("pacs", before, 9)]


def test_an_attempt_that_says_nothing_about_the_case_is_not_counted(desk):
    admitted = desk.admit()
    for _round in range(3):
        claim = desk.claim()
        assert claim.case.attempts == 1
        desk.journal.retry(claim, "no_space", NOW, NOW, counted=False)
    assert desk.journal.case(admitted.id).attempts == 0
