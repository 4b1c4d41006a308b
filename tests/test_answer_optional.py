"""An object that an answer can do without must not keep the report from leaving."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.registry import CollectorRegistry
from pydicom.dataset import Dataset
from structlog.testing import capture_logs

from covidnet_node.case import Analysis, Explanation, Outcome, Reason, ResultKind, State
from covidnet_node.config import Config
from covidnet_node.errors import Park
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.look import Picture
from covidnet_node.phantom.film import draw_phantom, phantom_dataset
from covidnet_node.reports import results as room
from covidnet_node.service import results as page
from covidnet_node.service.answer import Answerer
from covidnet_node.service.metrics import JournalCollector
from covidnet_node.service.results import Maker
from tests.journal_kit import LEASE, NOW, OURS, keep
from tests.orders import ALGORITHM, ANALYZED, NOT_ANALYZED

CASE_ID = "20260101T000000-0123456789ab"
SIDE = 128
LUNGS = draw_phantom(1, rows=SIDE, columns=SIDE).lungs
SEEN = replace(
    ANALYZED,
    display=np.where(LUNGS, 60, 190).astype(np.uint8),
    lungs=LUNGS,
    explanation=Explanation(LUNGS * np.float32(0.5), "covid19", 1.0),
)
ALL = {
    "heatmap": "plain_and_overlay",
    "contours": True,
    "segmentation": True,
    "evidence_map": True,
    "page": True,
}
MAKER = Maker(ALGORITHM, "1.0")
WHOLE = {
    ResultKind.REPORT,
    ResultKind.HEATMAP,
    ResultKind.PLAIN,
    ResultKind.CONTOURS,
    ResultKind.SEGMENTATION,
    ResultKind.EVIDENCE_MAP,
}


@dataclass
class Analyst:
    """Says the same of every picture."""

    analysis: Analysis = SEEN
    maker: Maker = MAKER

    def analyze(self, picture: Picture) -> Analysis:
        return self.analysis


@dataclass
class Bench:
    """One case, and a worker that answers it for a destination that wants everything."""

    journal: Journal
    spool: Spool

    def answer(self, analysis: Analysis = SEEN) -> set[ResultKind]:
        (claim,) = self.journal.claim("worker", 1, LEASE, NOW)
        plain = {"name": "plain", "ae_title": "A", "host": "h", "port": 104}
        full = plain | {"name": "full", "results": ALL}
        config = Config.model_validate({"destination": [full, plain]})
        analyst = Analyst(analysis)
        Answerer(config, self.journal, self.spool, analyst, clock=lambda: NOW).answer(claim)
        return self.owed("full")

    def owed(self, name: str) -> set[ResultKind]:
        return {each.result.kind for each in self.journal.due_deliveries(name, NOW, 99)}

    def events(self) -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(JournalCollector(self.journal, lambda: True, lambda: True))
        return {
            sample.labels["what"]: sample.value
            for family in registry.collect()
            if family.name == "covidnet_events"
            for sample in family.samples
        }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path / "spool")
    with Journal.open(tmp_path / "journal.db") as journal:
        film = phantom_dataset(1, rows=SIDE, columns=SIDE, modality="DX")
        film.FrameOfReferenceUID = "2.25.7"
        film.ImagePositionPatient = ["0", "0", "0"]
        film.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
        film.PixelSpacing = ["3", "3"]
        journal.admit(CASE_ID, keep(spool, CASE_ID, film), OURS, NOW)
        yield Bench(journal, spool)


def empty_mask(dataset: Dataset) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


def of_another_patient(dataset: Dataset) -> None:
    dataset.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.9.9"


def open_line(dataset: Dataset) -> None:
    dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData[0] += 1.0


BUILDERS = {
    ResultKind.CONTOURS: ("build_contours", open_line),
    ResultKind.SEGMENTATION: ("build_segmentation", empty_mask),
    ResultKind.EVIDENCE_MAP: ("build_evidence_map", of_another_patient),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_object_that_the_gate_stops_is_left_out_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: ResultKind
) -> None:
    name, damage = BUILDERS[kind]
    build = getattr(room, name)

    def damaged(*words: object) -> Dataset:
        made = build(*words)
        damage(made)
        return made

    monkeypatch.setattr(room, name, damaged)
    with capture_logs() as lines:
        assert bench.answer() == WHOLE - {kind}
    assert bench.owed("plain") == {ResultKind.REPORT, ResultKind.HEATMAP}
    case = bench.journal.case(CASE_ID)
    assert (case.state, case.outcome) == (State.REPORTED, Outcome.ANALYZED)
    (alert,) = [line for line in lines if line["event"] == "left_out"]
    assert (alert["kind"], alert["alert"], alert["log_level"]) == (kind, True, "error")
    told = bench.journal.history(CASE_ID)[-1].detail
    assert f"{kind} left out: {Reason.INVALID_RESULT}" in told
    assert "PHANTOM" not in told
    assert bench.events()[f"left_out_{kind}"] == 1


@pytest.mark.parametrize(
    ("where", "name", "kind"),
    [
        (page, "draw_plain", ResultKind.PLAIN),
        (room, "build_segmentation", ResultKind.SEGMENTATION),
        (room, "build_contours", ResultKind.CONTOURS),
        (room, "build_evidence_map", ResultKind.EVIDENCE_MAP),
    ],
)
def test_an_object_that_cannot_be_made_is_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: object, name: str, kind: ResultKind
) -> None:
    monkeypatch.setattr(where, name, lambda *_: 1 / 0)
    assert bench.answer() == WHOLE - {kind}
    assert f"{kind} left out: ZeroDivisionError" in bench.journal.history(CASE_ID)[-1].detail


def test_a_page_that_cannot_be_made_does_not_keep_the_words_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "build_page", lambda *_: 1 / 0)
    assert bench.answer(NOT_ANALYZED) == {ResultKind.REPORT}
    assert bench.journal.case(CASE_ID).outcome is Outcome.NOT_ANALYZED


@pytest.mark.parametrize(("where", "name"), [(room, "build_picture"), (page, "draw_overlay")])
def test_without_its_heatmap_an_answer_does_not_leave(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    def fail(*_: object) -> None:
        raise Park(Reason.INVALID_RESULT, "no picture")

    monkeypatch.setattr(where, name, fail)
    assert bench.answer() == {ResultKind.REPORT, ResultKind.PAGE}
    case = bench.journal.case(CASE_ID)
    assert case.outcome is Outcome.NOT_ANALYZED


def test_without_its_report_nothing_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "build_report", lambda *_: 1 / 0)
    assert bench.answer() == set()
    assert bench.journal.case(CASE_ID).state is State.PARKED


def test_a_whole_answer_is_drawn_and_built_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for where, name in (
        (page, "draw_overlay"),
        (page, "draw_plain"),
        (room, "build_report"),
        (room, "build_picture"),
    ):
        build = getattr(where, name)
        monkeypatch.setattr(
            where, name, lambda *words, b=build, n=name: (calls.append(n), b(*words))[1]
        )
    assert bench.answer() == WHOLE
    assert sorted(calls) == ["build_picture", "build_picture", "build_report", "draw_overlay",
                             "draw_plain"]  # fmt: skip
    assert bench.journal.history(CASE_ID)[-1].detail == "analyzed"
    assert not [name for name in bench.events() if name.startswith("left_out")]
