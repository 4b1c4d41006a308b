"""Storage commitment with a real archive: Orthanc answers on an association of its own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from covidnet_node.associate import target_of
from covidnet_node.case import Commitment, CommitmentState, DeliveryState, State
from covidnet_node.commit import Asking, Found, Instance, Look, Request, Take, find
from covidnet_node.journal.transitions import Cause
from tests.commitment_site import NODE_AE, STUDY, Site, now
from tests.conftest import need_program
from tests.journal_kit import causes
from tests.node import wait_until
from tests.real_pacs import Orthanc

pytestmark = [pytest.mark.orthanc, pytest.mark.timeout(180)]

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = need_program("Orthanc")
    with Orthanc(program, tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, orthanc: Orthanc) -> Iterator[Site]:
    with Site(tmp_path, orthanc) as opened:
        orthanc.add_modality("node", NODE_AE, opened.receiver.address[1])
        yield opened


def wait_for_done(site: Site, case_id: str) -> None:
    wait_until(lambda: site.journal.case(case_id).state is State.DONE, DEADLINE_S, "done")
    assert site.states(case_id) == [DeliveryState.COMMITTED] * 2


def test_orthanc_commits_to_what_it_has_stored(site: Site) -> None:
    case_id = site.answer_image()
    wait_for_done(site, case_id)
    assert causes(site.desk, case_id)[-1] is Cause.COMMITTED


def test_what_orthanc_has_lost_is_sent_again(site: Site, orthanc: Orthanc) -> None:
    first = site.committer
    first.stop()
    first.join(DEADLINE_S)
    case_id = site.answer_image()
    wait_until(
        lambda: site.states(case_id) == [DeliveryState.DELIVERED] * 2, DEADLINE_S, "delivered"
    )
    lost = site.uids(case_id)[0]
    (known,) = orthanc.put("/tools/lookup", lost.encode(), "POST")
    orthanc.put(known["Path"], b"", "DELETE")
    site.new_committer().start()
    wait_for_done(site, case_id)
    assert orthanc.put("/tools/lookup", lost.encode(), "POST")
    error = site.journal.deliveries(case_id)[0].last_error
    assert error == "not committed: 0112 no such object instance"


def test_an_instance_that_orthanc_never_got_fails(site: Site) -> None:
    case_id = site.answer_image()
    wait_for_done(site, case_id)
    (destination,) = site.config.destination
    target = target_of(destination, sender_ae="", peer="")
    nobody = Instance("1.2.3", "1.2.3.4", "1.2.840.10008.5.1.4.1.1.7", "2.25.4711")
    one = Request(f"2.25.{uuid4().int}", (nobody,))
    reported: list[tuple[str, int]] = []

    def note(each: Request, peer: str) -> None:
        state = CommitmentState.WRITTEN
        asked = Commitment(each.transaction_uid, "pacs", target.ae_title, peer, state)
        site.journal.write_commitment(asked, [], now(), now())

    journal_reported = site.journal.commitment_reported

    def spy(uid, committed, failed, when):
        reported.extend(failed.items())
        return journal_reported(uid, committed, failed, when)

    site.journal.commitment_reported = spy  # type: ignore[method-assign]
    call = Asking(target, lambda _event: (0x0110, None))
    assert call.put(one, NODE_AE, note).take is Take.TAKEN
    wait_until(lambda: reported, DEADLINE_S, "the report")
    call.close()
    assert reported == [("2.25.4711", 0x0112)]
    # The same by a query.
    there, missing = find(target, [_instance(site, case_id), nobody], NODE_AE)
    assert there == Found(site.uids(case_id)[0], Look.THERE)
    assert missing == Found("2.25.4711", Look.MISSING)


def _instance(site: Site, case_id: str) -> Instance:
    first = site.journal.results(case_id)[0]
    return Instance(STUDY, first.series_uid, first.sop_class_uid, first.sop_instance_uid)
