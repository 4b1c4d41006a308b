"""Real files through a whole node: every one gets a verdict, and no worker dies of any.

Two sites. One admits what the default rules admit, and radiographs stored as secondary
captures. The other admits whatever is an image, so that everything reaches a worker.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE

from tests.fake_pacs import AE_TITLE, FakePacs
from tests.node import NodeProcess, wait_until
from tests.raw_client import ASSOCIATE_AC, CR, EXPLICIT, SC, VERIFICATION, RawClient, body_of

pytestmark = [
    pytest.mark.shared,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
]

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
PROBABILITIES = {"111012", "MEMBERCERT"}
"""Certainty of a finding, by the ensemble and by one member."""
CHESTS = ("cr_chest_", "dai_", "rsna_")
"""How the names of chest radiographs begin; everything else must get no probabilities."""
NO_PIXELS = "cr_chest_japanese_names_32px.dcm"
"""A chest's header, and no image."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one file at the node's door."""

    file: str
    study: str
    instance: str
    accepted: bool
    """Whether its presentation context was."""
    status: int | None
    case_id: str | None
    counted: frozenset[str]
    """What the node's counters counted meanwhile."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A node that every file has been sent to, and that rests again."""

    node: NodeProcess
    pacs: FakePacs
    fates: tuple[Fate, ...]

    def case(self, fate: Fate) -> dict[str, Any]:
        """What the node now says of the file."""
        (found,) = [case for case in self.node.cases() if case["id"] == fate.case_id]
        return found

    def reports(self, fate: Fate) -> list[Dataset]:
        """Reports at the PACS, in the file's study, that name the file's instance."""
        stored = [each for each in self.pacs.stored if each.sop_class == REPORT]
        reports = [dcmread(BytesIO(each.data), force=True) for each in stored]
        mine = [each for each in reports if each.StudyInstanceUID == fate.study]
        return [each for each in mine if fate.instance in evidence(each)]


def evidence(report: Dataset) -> set[str]:
    """Instances that a report says it was made from (PS3.3 C.17.2)."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def concepts(items: Any) -> set[str]:
    """Code values of all concept names in a content tree."""
    found: set[str] = set()
    for item in items:
        found |= {str(name.CodeValue) for name in item.get("ConceptNameCodeSequence", ())}
        found |= concepts(item.get("ContentSequence", ()))
    return found


def real_files(shared: Path) -> list[Path]:
    return sorted((shared / "dicom").glob("*.dcm"))


def counters(node: NodeProcess) -> dict[str, float]:
    """What was rejected or ignored, and how often."""
    shown = node.get("/metrics")
    found = re.findall(
        r'^covidnet_(?:events|rejections)_total\{what="(\w+)"\} ([0-9.]+)$', shown, re.MULTILINE
    )
    return {what: float(count) for what, count in found}


def send(node: NodeProcess, path: Path) -> Fate:
    """One file's data set, byte for byte, with its own class and transfer syntax."""
    sop_class, instance, syntax, data = body_of(path)
    known = {case["id"] for case in node.cases()}
    before = counters(node)
    with RawClient(("127.0.0.1", node.port)) as client:
        assert client.associate((sop_class, (syntax,))) == ASSOCIATE_AC, path.name
        accepted = client.results[1] == 0
        status = client.store(sop_class, instance, data) if accepted else None
        client.release()
    after = counters(node)
    new = [case["id"] for case in node.cases() if case["id"] not in known]
    assert len(new) <= 1, path.name
    return Fate(
        file=path.name,
        study=str(dcmread(path, force=True).get("StudyInstanceUID", "")),
        instance=instance,
        accepted=accepted,
        status=status,
        case_id=new[0] if new else None,
        counted=frozenset(what for what in after if after[what] > before.get(what, 0)),
    )


def rules(*tables: dict[str, Any]) -> str:
    """Admission rules as node.toml spells them."""
    lines = []
    for table in tables:
        lines += ["[[admit.rules]]", *(f"{key} = {json.dumps(table[key])}" for key in table)]
    return "\n".join(lines) + "\n"


def careful(_files: list[Path]) -> tuple[dict[str, Any], str]:
    """Receive settings and rules: chest radiographs, also where they are secondary captures."""
    chest = {"action": "admit", "sop_class": [CR, DX, SC], "modality": ["CR", "DX"]}
    where = ("body_part", "procedure", "description")
    return {}, rules(*({**chest, each: "chest|thora|lung"} for each in where))


def careless(files: list[Path]) -> tuple[dict[str, Any], str]:
    """Receive settings and rules: every class that occurs, every image."""
    classes = sorted({body_of(path)[0] for path in files})
    return {"accept_classes": classes}, rules({"action": "admit", "sop_class": classes})


def visit(folder: Path, files: list[Path], pacs: FakePacs, site: Any) -> Iterator[Visit]:
    target = {"name": "pacs", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": pacs.port}
    receive, admit = site(files)
    with NodeProcess(folder, [target], receive=receive) as node:
        with node.config.open("a") as config:
            config.write(admit)
        node.start()
        fates = tuple(send(node, path) for path in files)
        wait_until(lambda: rests(node), 480, f"every case to rest; {node.log}")
        yield Visit(node, pacs, fates)


def rests(node: NodeProcess) -> bool:
    return not any(case["state"] in ("admitted", "reported") for case in node.cases())


@pytest.fixture(scope="module")
def chest_site(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with FakePacs() as pacs:
        yield from visit(tmp_path_factory.mktemp("careful"), real_files(shared), pacs, careful)


@pytest.fixture(scope="module")
def open_site(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with FakePacs() as pacs:
        yield from visit(tmp_path_factory.mktemp("careless"), real_files(shared), pacs, careless)


@pytest.fixture(params=["chest_site", "open_site"])
def visited(request: pytest.FixtureRequest) -> Visit:
    found: Visit = request.getfixturevalue(request.param)
    return found


def test_every_file_gets_a_verdict_or_an_answer(visited: Visit) -> None:
    for fate in visited.fates:
        if not fate.accepted:
            assert fate.counted & {"abstract_syntax", "transfer_syntax"}, fate
        elif fate.status != 0:
            assert fate.status in (0xC000, 0xA900), fate
            assert fate.counted & {"not_dicom", "bad_uid", "uid_mismatch"}, fate
        elif fate.case_id is None:
            assert fate.counted == {"own_results_ignored"}, fate
        else:
            case = visited.case(fate)
            if case["state"] == "refused":
                assert case["reason"], fate
                assert not visited.reports(fate), fate
            else:
                assert case["outcome"] is not None, (fate, case)
                assert visited.reports(fate), (fate, case)


def test_no_worker_dies_and_nothing_fails_unexpectedly(visited: Visit) -> None:
    events = [line["event"] for line in visited.node.lines()]
    for unwanted in ("worker_died", "store_failed", "analysis_failed", "parked_without_an_answer"):
        assert unwanted not in events
    assert not any(case["reason"] == "technical_failure" for case in visited.node.cases())


def test_every_line_of_the_log_is_json(visited: Visit) -> None:
    for line in visited.node.log.read_text().splitlines():
        assert line.startswith("{"), line


def test_the_listener_still_answers(visited: Visit) -> None:
    assert visited.node.get("/healthz") == "ok\n"
    assert visited.node.get("/readyz") == "ready\n"
    entity = AE("MODALITY")
    entity.add_requested_context(VERIFICATION, EXPLICIT)
    association = entity.associate("127.0.0.1", visited.node.port, ae_title="COVIDNET")
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_every_chest_is_answered(chest_site: Visit) -> None:
    chests = [
        fate for fate in chest_site.fates if fate.file.startswith(CHESTS) and fate.file != NO_PIXELS
    ]
    assert len(chests) == 10
    for fate in chests:
        case = chest_site.case(fate)
        assert case["outcome"] is not None, (fate, case)
        (report,) = chest_site.reports(fate)
        has_probabilities = bool(PROBABILITIES & concepts(report.ContentSequence))
        assert has_probabilities == (case["outcome"] != "not_analyzed"), (fate, case)


def test_what_is_no_human_chest_gets_no_probabilities(chest_site: Visit) -> None:
    others = [fate for fate in chest_site.fates if not fate.file.startswith(CHESTS)]
    for fate in others:
        if fate.case_id is not None:
            assert chest_site.case(fate)["outcome"] in (None, "not_analyzed"), fate
        for report in chest_site.reports(fate):
            assert not PROBABILITIES & concepts(report.ContentSequence), fate
    answered = {fate.file for fate in others if chest_site.reports(fate)}
    assert answered <= {"dx_dog_thorax_mono1.dcm"}


def test_a_chest_without_pixels_is_refused(chest_site: Visit) -> None:
    (fate,) = [each for each in chest_site.fates if each.file == NO_PIXELS]
    assert chest_site.case(fate)["reason"] == "no_pixels"


def test_broken_files_are_not_analyzed_at_the_command_line(
    chest_site: Visit, shared: Path, tmp_path: Path
) -> None:
    broken = [path for path in real_files(shared) if path.name.startswith("broken_")]
    told = chest_site.node.command(
        "analyze", *map(str, broken), "--out", str(tmp_path / "out"), "--json"
    )
    assert told.returncode == 0, told.stderr
    answers = json.loads(told.stdout)
    assert [answer["file"] for answer in answers] == [str(path) for path in broken]
    for answer in answers:
        assert answer["outcome"] == "not_analyzed", answer
        assert answer["reason"], answer
        assert answer["probabilities"] is None, answer
