"""Storage commitment, from stored to done: with a PACS that answers in every way there is."""

from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset

from covidnet_node.case import DeliveryState, Reason, State
from covidnet_node.check import check_node
from covidnet_node.commit import SOP_CLASS, SOP_INSTANCE, STUDY_ROOT_FIND
from covidnet_node.config import Config
from covidnet_node.journal.transitions import Cause
from covidnet_node.receive.scp import Receiver
from tests.authority import Authority
from tests.commitment_site import DEADLINE_S, NODE_AE, SENDER, STUDY, Site, now
from tests.committing_pacs import CommittingPacs, Vow, Wish
from tests.journal_kit import causes
from tests.node import wait_until


@pytest.fixture
def pacs() -> Iterator[CommittingPacs]:
    with CommittingPacs() as server:
        yield server


def committed(site: Site, case_id: str) -> bool:
    return site.states(case_id) == [DeliveryState.COMMITTED] * 2


@pytest.mark.parametrize("vow", [Vow.SAME, Vow.EARLY, Vow.NEW])
def test_a_case_is_done_when_the_pacs_has_committed(tmp_path, pacs, vow):
    pacs.vows.append(vow)
    with Site(tmp_path, pacs) as site:
        case_id = site.answer_image()
        site.wait_for(case_id)
        assert committed(site, case_id)
        (wish,) = pacs.wishes
        assert sorted(uid for _, uid in wish.instances) == sorted(site.uids(case_id))
        assert wish.action == (1, SOP_CLASS, SOP_INSTANCE)
        assert causes(site.desk, case_id)[-1] is Cause.COMMITTED
        if vow is not Vow.EARLY:
            assert pacs.wait_for_answers(1) == [0x0000]
    # Nothing was sent twice, and no association was broken off.
    assert set(pacs.repeats.values()) == {1}
    assert set(pacs.wait_for_end(len(pacs.calls))) == {"released"}


@pytest.mark.parametrize("vow", [Vow.SAME, Vow.EARLY])
def test_a_pacs_commits_over_tls(tmp_path, vow):
    authority = Authority(tmp_path)
    node, theirs = authority.issue("node"), authority.issue("pacs", "127.0.0.1")
    tls = {
        "ca_file": authority.file,
        "certificate_file": node.certificate,
        "key_file": node.key,
    }
    with CommittingPacs(vow, tls=authority.serving(theirs)) as pacs:
        with Site(tmp_path / "node", pacs, tls=tls) as site:
            case_id = site.answer_image()
            site.wait_for(case_id)
            assert committed(site, case_id)
        assert set(pacs.repeats.values()) == {1}


def test_cases_that_are_ready_are_asked_about_together_and_later_one_by_one(tmp_path, pacs):
    pacs.vows.extend([0x0213, 0x0213])
    with Site(tmp_path, pacs) as site:
        first = site.committer
        first.stop()
        first.join(DEADLINE_S)
        cases = [site.answer_image(number) for number in range(3)]
        pacs.wait_for(6, DEADLINE_S)
        wait_until(lambda: site.journal.backlog()[0].pending == 0, DEADLINE_S, "delivery")
        site.new_committer().start()
        for case_id in cases:
            site.wait_for(case_id)
        assert [len(wish.instances) for wish in pacs.wishes] == [6, 6, 2, 2, 2]
        assert len({wish.transaction_uid for wish in pacs.wishes}) == 5
    assert set(pacs.repeats.values()) == {1}


def test_stored_is_done_where_nothing_is_asked(tmp_path, pacs):
    with Site(tmp_path, pacs, ask="off") as site:
        case_id = site.answer_image()
        site.wait_for(case_id)
        assert site.states(case_id) == [DeliveryState.DELIVERED] * 2
    assert pacs.wishes == pacs.queries == []


def test_what_the_pacs_has_lost_is_sent_again_and_asked_under_a_new_uid(tmp_path, pacs):
    pacs.vows.extend([Vow.NEVER, Vow.NEW])
    with Site(tmp_path, pacs, wait_s=0) as site:
        case_id = site.answer_image()
        (wish,) = pacs.wait_for_wishes(1)
        lost, kept = site.uids(case_id)
        pacs.lose(lost)
        assert pacs.report(wish) == 0x0000
        site.wait_for(case_id)
        assert committed(site, case_id)
        assert pacs.repeats == {lost: 2, kept: 1}
        assert pacs.changed_repeats() == []
        again = pacs.wishes[1]
        assert [uid for _, uid in again.instances] == [lost]
        assert again.transaction_uid != wish.transaction_uid
        errors = [each.last_error for each in site.journal.deliveries(case_id)]
        assert errors == ["not committed: 0112 no such object instance", ""]


def test_a_destination_that_never_has_it_is_given_up(tmp_path, pacs):
    with Site(tmp_path, pacs, attempts=3) as site:
        pacs.keeps = lambda _uid: False
        pacs.reason = 0x0213
        case_id = site.answer_image()
        site.wait_for(case_id, State.PARKED)
        assert len(pacs.wishes) == 3
        assert set(pacs.repeats.values()) == {3}
        pause = site.journal.pause(case_id)
        assert pause.park_reason is Reason.GAVE_UP
        assert "0213 resource limitation" in pause.park_detail
        # A person puts the PACS right, and asks for it once more.
        del pacs.keeps
        site.journal.requeue(case_id, now())
        site.deliverer.wake()
        site.wait_for(case_id)


@pytest.mark.parametrize("reason", [0x0122, 0x0131])
def test_a_reason_that_says_nothing_against_what_is_stored_costs_no_resend(tmp_path, pacs, reason):
    with Site(tmp_path, pacs) as site:
        pacs.keeps = lambda _uid: False
        pacs.reason = reason
        case_id = site.answer_image()
        pacs.wait_for_wishes(2)
        del pacs.keeps
        site.wait_for(case_id)
        assert committed(site, case_id)
    assert set(pacs.repeats.values()) == {1}


def test_without_an_answer_it_is_asked_anew_and_a_late_answer_is_heard(tmp_path, pacs):
    pacs.vows.extend([Vow.NEVER, Vow.NEVER])
    with Site(tmp_path, pacs, wait_s=0, timeout_s=0.5) as site:
        case_id = site.answer_image()
        pacs.wait_for_wishes(2)
        first = pacs.wishes[0]
        uids = {wish.transaction_uid for wish in pacs.wishes}
        assert len(uids) == len(pacs.wishes)
        assert pacs.report(first) == 0x0000
        site.wait_for(case_id)
        # Repeated, it is acknowledged and changes nothing.
        assert pacs.report(first) == 0x0000
        pacs.lost.update(site.uids(case_id))
        assert pacs.report(first) == 0x0000
        assert committed(site, case_id)
    assert set(pacs.repeats.values()) == {1}


def test_silence_has_an_end(tmp_path, pacs):
    pacs.vows.extend([Vow.NEVER] * 3)
    with Site(tmp_path, pacs, wait_s=0, timeout_s=0.1, attempts=2) as site:
        case_id = site.answer_image()
        site.wait_for(case_id, State.PARKED)
        assert len(pacs.wishes) == 2
        assert "asked 2 times" in site.journal.pause(case_id).park_detail


@pytest.mark.parametrize("vow", [0x0110, 0x0213, Vow.ABORT])
def test_a_request_that_is_not_taken_is_put_again(tmp_path, pacs, vow):
    pacs.vows.append(vow)
    with Site(tmp_path, pacs) as site:
        case_id = site.answer_image()
        site.wait_for(case_id)
        assert len({wish.transaction_uid for wish in pacs.wishes}) == 2
    assert set(pacs.repeats.values()) == {1}


def test_a_pacs_that_offers_no_commitment_is_looked_into(tmp_path):
    with CommittingPacs(offers=[STUDY_ROOT_FIND]) as pacs:
        with Site(tmp_path, pacs, ask="request_or_find") as site:
            case_id = site.answer_image()
            site.wait_for(case_id)
            assert causes(site.desk, case_id)[-1] is Cause.FOUND
        keys = pacs.queries[0]
        assert keys.QueryRetrieveLevel == "IMAGE"
        assert keys.StudyInstanceUID == STUDY
        assert keys.SeriesInstanceUID
        assert set(pacs.repeats.values()) == {1}


def test_a_pacs_that_offers_neither_is_told_to_a_person(tmp_path):
    with CommittingPacs(offers=[]) as pacs, Site(tmp_path, pacs, attempts=2) as site:
        case_id = site.answer_image()
        site.wait_for(case_id, State.PARKED)
        assert "does not offer" in site.journal.deliveries(case_id)[0].last_error or (
            "asked 2 times" in site.journal.deliveries(case_id)[0].last_error
        )
        assert set(pacs.repeats.values()) == {1}


def test_silence_is_followed_by_a_look(tmp_path, pacs):
    pacs.vows.append(Vow.NEVER)
    with Site(tmp_path, pacs, ask="request_or_find", wait_s=0, timeout_s=0.2) as site:
        case_id = site.answer_image()
        site.wait_for(case_id)
        assert committed(site, case_id)
        assert len(pacs.wishes) == 1
        assert len(pacs.queries) == 2


def test_what_a_query_does_not_find_is_sent_again(tmp_path, pacs):
    with Site(tmp_path, pacs, ask="find") as site:
        real, pacs.keeps = pacs.keeps, lambda _uid: False
        case_id = site.answer_image()
        wait_until(lambda: max(pacs.repeats.values(), default=0) > 1, DEADLINE_S, "a resend")
        pacs.keeps = real
        site.wait_for(case_id)
        assert committed(site, case_id)
    assert pacs.wishes == []


def test_a_pacs_that_is_away_is_asked_when_it_is_back(tmp_path, pacs):
    pacs.vows.append(Vow.ABORT)
    with Site(tmp_path, pacs) as site:
        site.deliverer.stop()
        site.deliverer.join(DEADLINE_S)
        case_id = site.answer_image()
        for delivery in site.journal.due_deliveries("pacs", now(), 10):
            site.journal.delivered(delivery.id, now(), "0000", commit=True)
        pacs.stop()
        site.committer.wake()
        site.wait_for_error(case_id, "no connection")
        pacs.keeps = lambda _uid: True
        with pacs:
            site.wait_for(case_id)


def test_a_sender_that_gets_results_back_commits_to_them(tmp_path):
    pacs = CommittingPacs()
    pacs.ae_title = SENDER
    with pacs, Site(tmp_path, pacs, to_sender=True) as site:
        pacs.vows.append(Vow.NEVER)
        case_id = site.answer_image()
        (wish,) = pacs.wait_for_wishes(1)
        site.committer.wake()
        assert pacs.report(wish, "ELSE") == 0x0110
        assert pacs.report(wish) == 0x0000
        site.wait_for(case_id)
        assert committed(site, case_id)


@pytest.mark.parametrize(
    ("ask", "ok"), [("request", False), ("find", True), ("request_or_find", True)]
)
def test_check_says_what_the_pacs_offers(tmp_path, ask, ok):
    with CommittingPacs(offers=[STUDY_ROOT_FIND]) as pacs:
        target = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1"}
        target |= {"port": pacs.port, "commitment": {"ask": ask}}
        tables = {"node": {"data": tmp_path}, "receive": {"port": 0}, "http": {"port": 0}}
        config = Config.model_validate(tables | {"destination": [target]})
        (finding,) = (each for each in check_node(config) if each.what == "pacs commitment")
    assert finding.ok is ok
    assert ("not offered" in finding.words) is (ask != "find")


def test_commitment_needs_a_dimse_destination():
    web = {"name": "web", "url": "https://pacs.example.org/dicom-web"}
    with pytest.raises(ValueError, match="needs C-STORE"):
        Config.model_validate({"destination": [web | {"commitment": {"ask": "request"}}]})


# Who is believed


def waiting(site: Site, pacs: CommittingPacs) -> tuple[str, Wish]:
    """A case that waits for a report, and the transaction."""
    pacs.vows.append(Vow.NEVER)
    case_id = site.answer_image()
    (wish,) = pacs.wait_for_wishes(1)
    return case_id, wish


def test_a_report_from_a_stranger_is_not_believed(tmp_path, pacs):
    with Site(tmp_path, pacs, wait_s=0) as site:
        case_id, wish = waiting(site, pacs)
        assert pacs.report(wish, "STRANGER") == 0x0110
        assert site.counted("commitment_reports_not_believed") == 1
        assert site.journal.case(case_id).state is State.REPORTED
        assert pacs.report(wish) == 0x0000
        site.wait_for(case_id)


def test_a_second_title_of_the_pacs_may_be_named(tmp_path, pacs):
    with Site(tmp_path, pacs, wait_s=0, calling_aes=["ARCHIVE"]) as site:
        case_id, wish = waiting(site, pacs)
        assert pacs.report(wish, "ARCHIVE") == 0x0000
        site.wait_for(case_id)


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 0x0000), ("192.0.2.0/24", 0x0110)])
def test_another_address_must_be_named(tmp_path, pacs, network, status):
    with Site(tmp_path, pacs, wait_s=0, addresses=[network]) as site:
        _, wish = waiting(site, pacs)
        asked = site.journal.commitment(wish.transaction_uid)
        assert asked.peer == "127.0.0.1"
        # The listener sees another address than the one that was asked.
        elsewhere = type(asked)(
            "2.25.77", asked.destination, asked.ae_title, "198.51.100.1", asked.state
        )
        site.journal.write_commitment(elsewhere, [], now(), now())
        assert pacs.report(Wish("2.25.77", [], (1, "", ""))) == status


def test_an_unknown_transaction_is_counted_and_not_acknowledged(tmp_path, pacs):
    with Site(tmp_path, pacs, wait_s=0) as site:
        case_id, wish = waiting(site, pacs)
        made_up = Wish("2.25.4711", wish.instances, wish.action)
        assert pacs.report(made_up) == 0x0110
        assert site.counted("commitment_reports_unknown") == 1
        assert site.states(case_id) == [DeliveryState.DELIVERED] * 2


def test_instances_that_were_not_asked_about_are_not_touched(tmp_path, pacs):
    with Site(tmp_path, pacs, wait_s=0) as site:
        case_id, wish = waiting(site, pacs)
        pacs.vows.append(Vow.NEVER)
        other = site.answer_image(2)
        second = pacs.wait_for_wishes(2)[1]
        wish.instances.extend(second.instances)
        assert pacs.report(wish) == 0x0000
        site.wait_for(case_id)
        assert site.states(other) == [DeliveryState.DELIVERED] * 2


def malformed() -> list[tuple[Dataset, int, str, int]]:
    nameless = Dataset()
    nameless.ReferencedSOPSequence = []
    itemless = Dataset()
    itemless.TransactionUID = "2.25.1"
    itemless.ReferencedSOPSequence = [Dataset()]
    fine = Dataset()
    fine.TransactionUID = "2.25.1"
    return [
        (nameless, 1, SOP_INSTANCE, 0x0114),
        (itemless, 1, SOP_INSTANCE, 0x0110),
        (fine, 3, SOP_INSTANCE, 0x0113),
        (fine, 1, "1.2.3", 0x0112),
    ]


@pytest.mark.parametrize(("data", "event_type", "instance", "status"), malformed())
def test_a_report_that_makes_no_sense_is_refused(
    tmp_path, pacs, data, event_type, instance, status
):
    with Site(tmp_path, pacs) as site:
        wish = Wish("2.25.1", [], (1, "", ""))
        assert pacs.report(wish, said=(data, event_type), instance=instance) == status
        assert site.counted("commitment_reports_unreadable") == 1


@pytest.mark.parametrize("roles", [(False, True), (True, True), None])
def test_reports_are_heard_whatever_roles_the_pacs_proposes(tmp_path, pacs, roles):
    with Site(tmp_path, pacs, wait_s=0) as site:
        case_id, wish = waiting(site, pacs)
        assert pacs.report(wish, roles=roles) == 0x0000
        site.wait_for(case_id)


def test_nobody_reports_to_a_node_that_asks_for_nothing(tmp_path, pacs):
    with Site(tmp_path, pacs, ask="off") as site:
        receiver = Receiver(site.config, site.journal, site.desk.spool)
        receiver.start()
        pacs.node = (*receiver.address, NODE_AE)
        assert pacs.report(Wish("2.25.1", [], (1, "", ""))) is None
        receiver.stop(0.1)
