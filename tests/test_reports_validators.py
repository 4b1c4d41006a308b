"""What independent validators say of reports made from real images, by the shipped networks.

dciodvfy must find no error of ours. PixelMed's DicomSRValidator knows TID 1500: it sees the tree
under the standard title in place of our own, because under a title it does not know it looks no
further; what it then complains of is listed here, with the reason.
"""

import re
import subprocess
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from covidnet_node.analyze import analyze
from covidnet_node.case import Analysis, Outcome, ResultKind
from covidnet_node.config import Analyze, Results
from covidnet_node.errors import NotAnalyzed
from covidnet_node.intended_use import NOTICE
from covidnet_node.look import look, not_analyzed
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.reports.encode import encode
from covidnet_node.service.finished import Finished
from covidnet_node.service.medicine import Medicine, open_medicine
from covidnet_node.service.results import Source, make_results, order_results
from tests.conftest import need_file, need_program
from tests.films import PROFILES, some_films, wrap
from tests.orders import ANALYZED, NOT_ANALYZED, named, order, report

WHEN = datetime(2026, 11, 23, 12, tzinfo=UTC)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
PART = 10
"""Films a test."""
DICOM_FILES = Path(__file__).resolve().parents[2] / "shared" / "dicom"
PIXELMED = Path("/usr/share/java/pixelmed.jar")
UNLIMITED = [f"-Djdk.xml.xpath{what}Limit=0" for what in ("TotalOp", "ExprGrp", "ExprOp")]
"""Its stylesheet is larger than what Java 17 compiles without being asked to."""

EXPLAINED = (
    # CID 100 is extensible, and holds no plain film of the chest.
    re.compile(r'Code \(399208008,SCT,"Plain X-ray of chest"\) not found in context group 100'),
    # TID 1500 is extensible: our words for a reader stand before the measurements.
    re.compile(
        r"^Warning: 1\.\d+: .*/TEXT \((121111,DCM|121106,DCM|\w+,99COVIDNET),[^/]*not in templ"
    ),
    # In TID 4019 since 2019; PixelMed's copy is older.
    re.compile(r'/TEXT \(122405,DCM,"Algorithm Manufacturer"\): Content Item not in template'),
    # Beside one group with a region it takes every group for one (TID 1410): its author calls
    # that a limit of the validator.
    re.compile(
        r"^Error: Template 1410 PlanarROIMeasurements/.*"
        r"(Row 5\] SCOORD \(111030,DCM|Row 7\] IMAGE \(121214,DCM)"
    ),
    # TID 1501 and 1411 let any question be answered by a code; PixelMed looks for known ones.
    re.compile(r"/CODE \([^/]*,99COVIDNET,[^/]*\): Content Item not in template"),
)


@pytest.fixture(scope="module")
def medicine() -> Medicine:
    return open_medicine(Analyze(threads=1), "cpu")


def answer(
    source: Path, medicine: Medicine, profile: Results
) -> tuple[Analysis, tuple[Finished, ...]]:
    """Results of one file, as a worker makes them; admission has no say here."""
    try:
        analysis = analyze(look(dcmread(source, force=True)), medicine.networks)
    except NotAnalyzed as verdict:
        analysis = not_analyzed(verdict.reason, verdict.detail, None)
    header = dcmread(source, stop_before_pixels=True, force=True)
    made = Source(header, WHEN, pixel_digest="p", identity_digest="i")
    (order,) = order_results(made, analysis, medicine.maker, (profile,))
    return analysis, make_results(order)


def errors(path: Path) -> set[str]:
    done = subprocess.run(
        [need_program("dciodvfy"), str(path)], capture_output=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return {line for line in lines if line.startswith("Error")}


def our_errors(source: Path, finished: tuple[Finished, ...], folder: Path) -> set[str]:
    """Errors of our making: those the source has itself are not counted."""
    found = set()
    for each in finished:
        path = folder / f"{each.kind}.dcm"
        path.write_bytes(each.data)
        found |= errors(path)
    return found - errors(source)


def unreadable(report: Path) -> list[str]:
    """What keeps dcmtk from showing the report as text and as a page with our notice.

    dsr2html 3.6.7 knows no Korean by itself, and does not convert every Japanese text to UTF-8.
    """
    return [program for program in ("dsrdump", "dsr2html")
            if not any(shows(program, option, report) for option in ([], ["+U8"]))]  # fmt: skip


def shows(program: str, option: list[str], report: Path) -> bool:
    done = subprocess.run(
        [need_program(program), *option, str(report)], capture_output=True, check=False, timeout=60
    )
    return done.returncode == 0 and NOTICE.encode() in done.stdout


def judge_all(source: Path, finished: tuple[Finished, ...], folder: Path) -> list[str]:
    """Everything that validators and readers hold against the results of one image."""
    found = sorted(our_errors(source, finished, folder))
    if any(each.kind is ResultKind.REPORT for each in finished):
        found += unreadable(folder / f"{ResultKind.REPORT}.dcm")
    return [f"{source.name}: {line}" for line in found]


@pytest.mark.dciodvfy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_phantoms_give_objects_without_errors(
    modality: str, medicine: Medicine, tmp_path: Path
) -> None:
    source = tmp_path / "source.dcm"
    film = phantom_dataset(3, "diffuse", rows=512, columns=448, modality=modality)  # type: ignore[arg-type]
    dcmwrite(source, film, enforce_file_format=True)
    assert errors(source) == set()
    _, finished = answer(source, medicine, Results())
    assert our_errors(source, finished, tmp_path) == set()


@pytest.mark.shared
@pytest.mark.dciodvfy
@pytest.mark.dcmtk
@pytest.mark.timeout(900)
def test_real_images_give_objects_without_errors(
    part: int, shared: Path, medicine: Medicine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    films = list(some_films(shared, request.config.getoption("--films")))
    outcomes, kinds, complaints = set(), set(), []
    for film in films[part * PART : (part + 1) * PART]:
        source = wrap(film, tmp_path)
        analysis, finished = answer(source, medicine, film.profile)
        outcomes.add(analysis.outcome)
        kinds |= {each.kind for each in finished}
        complaints += judge_all(source, finished, tmp_path)
    assert complaints == []
    assert Outcome.ANALYZED in outcomes
    assert kinds >= set(ResultKind) - {ResultKind.PAGE}


CHESTS = (
    "cr_chest_pa_mono1_15bit_j2k",
    "dai_covid_196",
    "dai_covid_943",
    "dai_normal_118",
    "dai_pneumonia_036",
    "dai_pneumonia_927_1_1",
    "rsna_cr_chest_ap_8bit_jpeg",
    "rsna_cr_chest_pa_mono1_tag_flipped",
    "dx_dog_thorax_mono1",
)
SAMPLE = ("cr_chest_pa_mono1_15bit_j2k", "dai_pneumonia_927_1_1", "rsna_cr_chest_ap_8bit_jpeg")


@pytest.mark.shared
@pytest.mark.dciodvfy
@pytest.mark.dcmtk
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_real_dicom_files_bring_their_own_errors_and_get_none_from_us(
    dicom_file: str, shared: Path, medicine: Medicine, tmp_path: Path
) -> None:
    source = shared / "dicom" / f"{dicom_file}.dcm"
    skip_unless_analyzable(source)
    for profile in PROFILES:
        _, finished = answer(source, medicine, profile)
        assert judge_all(source, finished, tmp_path) == []


@pytest.mark.shared
@pytest.mark.pixelmed
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_pixelmed_has_only_explained_complaints_of_real_files(
    chest_file: str, shared: Path, medicine: Medicine, tmp_path: Path
) -> None:
    _, (first, *_) = answer(shared / "dicom" / f"{chest_file}.dcm", medicine, Results())
    path = tmp_path / "report.dcm"
    path.write_bytes(encode(under_standard_title(dcmread(BytesIO(first.data)))))
    assert unexplained(path) == []


def skip_unless_analyzable(source: Path) -> None:
    """Whether the node would keep and decode it: valid UIDs, one frame that can be looked at."""
    header = dcmread(source, stop_before_pixels=True, force=True)
    if not all(UID(str(header.get(name, ""))).is_valid
               for name in UIDS):  # fmt: skip
        pytest.skip("the node refuses it: a UID is missing or not valid")
    try:
        look(dcmread(source, force=True))
    except NotAnalyzed as verdict:
        pytest.skip(f"the node does not analyze it: {verdict}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many films as `--films` says, a few a test; with `--every-file`, every DICOM file."""
    if "part" in metafunc.fixturenames:
        films = metafunc.config.getoption("--films")
        metafunc.parametrize("part", range(-(-films // PART)))
    if "dicom_file" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-file")
        chosen = sorted(each.stem for each in DICOM_FILES.glob("*.dcm")) if every else SAMPLE
        metafunc.parametrize("dicom_file", chosen)
    if "chest_file" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-file")
        metafunc.parametrize("chest_file", CHESTS if every else CHESTS[:1])


def pixelmed(path: Path) -> list[str]:
    """Errors and warnings of PixelMed's validator; raises if it did not come to its end."""
    done = subprocess.run(
        [need_program("java"), *UNLIMITED, "-cp", str(need_file(PIXELMED)),
         "com.pixelmed.validate.DicomSRValidator", str(path)],
        capture_output=True, text=True, check=True, timeout=500,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).splitlines()
    assert "Found Root Template TID_1500 (MeasurementReport)" in lines
    assert "IOD validation complete" in lines
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def under_standard_title(document: Dataset) -> Dataset:
    title = document.ConceptNameCodeSequence[0]
    title.CodeValue, title.CodingSchemeDesignator = "126000", "DCM"
    title.CodeMeaning = "Imaging Measurement Report"
    return document


def unexplained(path: Path) -> list[str]:
    return [line for line in pixelmed(path) if not any(why.search(line) for why in EXPLAINED)]


@pytest.mark.pixelmed
@pytest.mark.timeout(600)
@pytest.mark.parametrize("analysis", [ANALYZED, NOT_ANALYZED], ids=lambda a: a.outcome.value)
def test_pixelmed_has_only_explained_complaints(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(encode(under_standard_title(report(order(analysis=analysis)))))
    assert unexplained(path) == []


@pytest.mark.pixelmed
@pytest.mark.timeout(600)
def test_pixelmed_finds_a_damaged_tree(tmp_path: Path) -> None:
    document = under_standard_title(report(order(analysis=NOT_ANALYZED)))
    named(document, "121005")[0].ConceptCodeSequence[0].CodeValue = "999999"
    path = tmp_path / "report.dcm"
    path.write_bytes(encode(document))
    found = unexplained(path)
    assert any("not found in context group 270" in line for line in found)
    assert any("Device Observer Name" in line for line in found)
