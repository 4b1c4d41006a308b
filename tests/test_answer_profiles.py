"""Destinations that want different results of the same image."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context

from covidnet_node.case import Algorithm, ResultKind, State
from covidnet_node.config import Config, load_config
from covidnet_node.errors import BadConfig
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service.answer import Answerer
from covidnet_node.service.delivering import Deliverer
from covidnet_node.service.medicine import Medicine
from tests.fake_pacs import FakePacs
from tests.journal_kit import LEASE, NOW, OURS, keep

CASE_ID = "20260101T000000-0123456789ab"
ALGORITHM = Algorithm("test", "1", "0" * 64, 0.5, "none")


def destination(name, **results):
    where = {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    return where | ({"results": results} if results else {})


def config(*destinations):
    return Config.model_validate({"analyze": {"max_crashes": 1}, "destination": list(destinations)})


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def journal(tmp_path, spool):
    """With one admitted case that has taken down its last worker: answered "not analyzed"."""
    with Journal.open(tmp_path / "journal.db") as journal:
        image = phantom_dataset(1, rows=64, columns=64)
        image.SpecificCharacterSet, image.PatientName = "ISO_IR 100", "Müller^Jörg"
        journal.admit(CASE_ID, keep(spool, CASE_ID, image), OURS, NOW)
        journal.claim("earlier", 1, LEASE, NOW)
        journal.release("earlier", NOW, crashed=True)
        yield journal


def answer(journal, spool, settings):
    medicine = Medicine(networks=None, algorithm=ALGORITHM)
    answerer = Answerer(settings, journal, spool, medicine, clock=lambda: NOW)
    answerer.answer(journal.claim("me", 1, LEASE, NOW)[0])


def owed(journal, name):
    return {d.result.sop_instance_uid: d.result for d in journal.due_deliveries(name, NOW, 100)}


def test_each_destination_gets_what_it_wants(journal, spool):
    wanted = config(
        destination("pacs"),
        destination("archive"),
        destination("old", report="enhanced", page=True),
        destination("utf8", character_set="utf8"),
    )
    answer(journal, spool, wanted)
    pacs, archive, old, utf8 = (owed(journal, each.name) for each in wanted.destination)
    assert pacs == archive
    assert {result.sop_class_uid for result in pacs.values()} == {Comprehensive3DSRStorage}
    classes = [result.sop_class_uid for result in old.values()]
    assert sorted(classes) == sorted([EnhancedSRStorage, SecondaryCaptureImageStorage])
    assert not pacs.keys() & (old.keys() | utf8.keys())
    names = {}
    for key, results in {"pacs": pacs, "utf8": utf8}.items():
        (result,) = results.values()
        read = dcmread(result.path)
        names[key] = read.SpecificCharacterSet, str(read.PatientName)
    assert names == {
        "pacs": ("ISO_IR 100", "Müller^Jörg"),
        "utf8": ("ISO_IR 192", "Müller^Jörg"),
    }
    paths = [result.path for results in (pacs, old, utf8) for result in results.values()]
    assert len(set(paths)) == len(paths) == 4
    for each in wanted.destination:
        for delivery in journal.due_deliveries(each.name, NOW, 100):
            journal.delivered(delivery.id, NOW)
    assert journal.case(CASE_ID).state is State.PARKED


def test_without_destinations_results_stay_here(journal, spool):
    answer(journal, spool, config())
    (result,) = journal.results(CASE_ID)
    assert result.kind is ResultKind.REPORT
    assert journal.case(CASE_ID).state is State.PARKED


def test_a_destination_that_wants_nothing_is_refused(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text(
        '[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 1\n'
        '[destination.results]\nreport = "none"\nheatmap = "none"\n'
    )
    with pytest.raises(BadConfig, match="silence looks like normal"):
        load_config(file)


@pytest.mark.parametrize(
    ("asked", "taken", "kept"),
    [
        ("comprehensive_3d", ComprehensiveSRStorage, 2),
        ("comprehensive_3d", EnhancedSRStorage, 3),
        ("comprehensive", EnhancedSRStorage, 2),
    ],
)
def test_a_pacs_that_takes_only_older_classes_gets_the_same_report_in_one(
    journal, spool, tmp_path, asked, taken, kept
):
    with FakePacs(contexts=[build_context(taken)]) as pacs:
        name = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
        name["results"] = {"report": asked}
        settings = Config.model_validate(
            {"node": {"data": str(tmp_path)}, "analyze": {"max_crashes": 1}, "destination": [name]}
        )
        answer(journal, spool, settings)
        (first,) = journal.results(CASE_ID)
        loop = Deliverer(settings, settings.destination[0], journal)
        loop.start()
        pacs.wait_for(1, 20)
        loop.stop()
        loop.join(20)
    assert journal.case(CASE_ID).state is State.PARKED
    results = journal.results(CASE_ID)
    assert len(results) == kept
    assert results[0] == first
    old, new = dcmread(first.path), dcmread(results[-1].path)
    assert new.SOPClassUID == taken
    assert new.SOPInstanceUID != old.SOPInstanceUID
    assert new.ContentSequence == old.ContentSequence
    assert not journal.due_deliveries("pacs", NOW + LEASE, 10)
