"""An image analyzed again: the same answer is the same object, another names the one before."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from covidnet_node.case import Admission, Algorithm, Reason, ResultKind, State
from covidnet_node.config import Config
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service.answer import Answerer
from covidnet_node.service.medicine import Medicine
from tests.journal_kit import LEASE, NOW, keep

CASE_ID = "20260101T000000-0123456789ab"
OLD = Algorithm("test", "1", "0" * 64, 0.5, "none")
NEW = replace(OLD, version="2", digest="1" * 64)
DAY = timedelta(days=1)
LATERAL = Admission(admitted=True, reason=Reason.LATERAL, detail="view LL")


@dataclass
class Bench:
    """One case, and workers that answer it again and again."""

    journal: Journal
    spool: Spool
    now: datetime = NOW

    def answer(self, algorithm: Algorithm = OLD, program: str = "1.0") -> Dataset:
        """Let a worker with these weights answer; a day passes."""
        (claim,) = self.journal.claim("worker", 1, LEASE, self.now)
        medicine = Medicine(None, algorithm, program)  # type: ignore[arg-type]
        now = self.now + timedelta(seconds=1)
        Answerer(Config(), self.journal, self.spool, medicine, clock=lambda: now).answer(claim)
        self.now += DAY
        return self.report()

    def report(self) -> Dataset:
        (result,) = self.journal.results(CASE_ID)
        assert result.kind is ResultKind.REPORT
        return dcmread(result.path)

    def again(self, algorithm: Algorithm = OLD, program: str = "1.0") -> Dataset:
        self.journal.requeue(CASE_ID, self.now, again=True)
        return self.answer(algorithm, program)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path / "spool")
    with Journal.open(tmp_path / "journal.db") as journal:
        image = keep(spool, CASE_ID, phantom_dataset(1, rows=128, columns=128))
        journal.admit(CASE_ID, image, LATERAL, NOW)
        yield Bench(journal, spool)


def before(report: Dataset) -> str | None:
    """Instance that a report says it replaces."""
    if "PredecessorDocumentsSequence" not in report:
        return None
    (study,) = report.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == report.StudyInstanceUID
    (series,) = study.ReferencedSeriesSequence
    (item,) = series.ReferencedSOPSequence
    assert item.ReferencedSOPClassUID == report.SOPClassUID
    return str(item.ReferencedSOPInstanceUID)


def test_a_first_answer_replaces_nothing(bench: Bench) -> None:
    assert before(bench.answer()) is None


def test_the_same_weights_give_the_same_bytes(bench: Bench) -> None:
    bench.answer()
    first = bench.journal.results(CASE_ID)[0]
    bench.again()
    assert bench.journal.results(CASE_ID)[0].sha256 == first.sha256
    assert bench.journal.results(CASE_ID)[0].sop_instance_uid == first.sop_instance_uid


def test_new_weights_name_the_report_they_replace(bench: Bench) -> None:
    old = bench.answer()
    new = bench.again(NEW)
    assert before(new) == old.SOPInstanceUID
    series = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == old.SeriesInstanceUID != new.SeriesInstanceUID
    assert new.SOPInstanceUID != old.SOPInstanceUID


def test_a_new_answer_is_dated_when_it_was_made(bench: Bench) -> None:
    old = bench.answer()
    new = bench.again(NEW)
    made = (NOW + DAY).astimezone()
    assert (old.ContentDate, new.ContentDate) == (f"{NOW.astimezone():%Y%m%d}", f"{made:%Y%m%d}")
    case = bench.journal.case(CASE_ID)
    assert case.content_at == NOW + DAY + timedelta(seconds=1)


def test_new_weights_asked_twice_give_one_object(bench: Bench) -> None:
    bench.answer()
    bench.again(NEW)
    once = bench.journal.results(CASE_ID)[0]
    bench.again(NEW)
    assert bench.journal.results(CASE_ID)[0].sha256 == once.sha256


def test_going_back_to_old_weights_is_a_third_object(bench: Bench) -> None:
    first = bench.answer()
    second = bench.again(NEW)
    third = bench.again(OLD)
    assert before(third) == second.SOPInstanceUID
    assert third.SOPInstanceUID not in (first.SOPInstanceUID, second.SOPInstanceUID)
    again = bench.again(OLD)
    assert (again.SOPInstanceUID, before(again)) == (third.SOPInstanceUID, second.SOPInstanceUID)


def test_a_new_program_makes_a_new_object(bench: Bench) -> None:
    old = bench.answer(program="1.0")
    new = bench.again(program="1.1")
    assert before(new) == old.SOPInstanceUID
    assert "program 1.1" in new.SoftwareVersions


def test_an_analysis_that_failed_is_replaced_by_one_that_did_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Answerer, "_look", lambda _self, _case: 1 / 0)
        failed = bench.answer()
    assert bench.journal.case(CASE_ID).state is State.PARKED
    good = bench.again()
    assert before(good) == failed.SOPInstanceUID


def test_earlier_answers_are_told_apart(bench: Bench) -> None:
    assert bench.journal.earlier_results(CASE_ID) == ()
    first = bench.answer()
    assert bench.journal.earlier_results(CASE_ID) == ()
    second = bench.again(NEW)
    bench.again(OLD)
    told = bench.journal.earlier_results(CASE_ID)
    assert [[result.sop_instance_uid for result in answer] for answer in told] == [
        [first.SOPInstanceUID],
        [second.SOPInstanceUID],
    ]
