"""What every test may ask for: real images, real servers, strict writing."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom.config
import pytest
from hypothesis import settings

from covidnet_node.journal.journal import Journal
from tests.fake_pacs import FakePacs
from tests.journal_kit import Desk, open_desk
from tests.real_pacs import DICOM_WEB_PLUGIN, Orthanc, Storescp, WebOrthanc, dcmtk_program
from tests.receive_kit import Site

CI = os.environ.get("CI") == "true"

# New random examples are for whoever develops, who can look at what they find; what stands
# between a commit and everybody else must say the same twice.
settings.register_profile("ci", derandomize=True, print_blob=True)
if CI:
    settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def _strict_writing() -> None:
    """What we write must be valid; what we read may be anything."""
    pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and DICOM files beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        _absent("the shared folder of real images is not beside the repository")
    return folder


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what the tests of a module share; gone with the module.

    One training, however tiny, leaves hundreds of megabytes: kept until the end, those of all
    modules would fill a small disk.
    """
    folder = tmp_path_factory.mktemp("module")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fake_pacs() -> Iterator[FakePacs]:
    """A PACS that stores everything until its script says otherwise."""
    with FakePacs() as pacs:
        yield pacs


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """A running Orthanc of its own; mark the test `orthanc`."""
    with Orthanc(need_program("Orthanc"), tmp_path) as server:
        yield server


@pytest.fixture
def web_orthanc(tmp_path: Path) -> Iterator[WebOrthanc]:
    """A running Orthanc that takes STOW-RS; mark the test `orthanc`."""
    program = need_program("Orthanc")
    if not DICOM_WEB_PLUGIN.is_file():
        _absent("Orthanc's DICOMweb plug-in is not installed")
    with WebOrthanc(program, tmp_path, DICOM_WEB_PLUGIN) as server:
        yield server


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Storescp]:
    """A running dcmtk storescp; mark the test `dcmtk`."""
    with Storescp(need_dcmtk("storescp"), tmp_path / "storescp") as server:
        yield server


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A journal and its spool."""
    desk = open_desk(tmp_path)
    with desk.journal:
        yield desk


@pytest.fixture(scope="session")
def empty_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal without cases; copying it is quicker than making it."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    Journal.open(path).close()
    return path


@pytest.fixture
def make_site(tmp_path: Path, empty_journal: Path) -> Iterator[Callable[..., Site]]:
    """A receiver for each set of `receive` settings; all are stopped at the end."""
    nodes = []

    def make(**receive: object) -> Site:
        folder = tmp_path / str(len(nodes))
        folder.mkdir()
        shutil.copy(empty_journal, folder)
        nodes.append(Site(folder, **receive))
        return nodes[-1]

    yield make
    for made in nodes:
        made.receiver.stop(0.2)
        made.journal.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A receiver with a journal and a spool of its own."""
    return make_site()


def need_program(name: str) -> str:
    """Path of an external program; skips visibly without it, fails under CI=true."""
    found = shutil.which(name)
    if found is None:
        _absent(f"{name} is not installed")
        raise AssertionError
    return found


def need_dcmtk(name: str) -> str:
    """Path of a program of dcmtk's; skips visibly without it, fails under CI=true."""
    found = dcmtk_program(name)
    if found is None:
        _absent(f"{name} of dcmtk is not installed")
        raise AssertionError
    return found


def need_file(path: Path) -> Path:
    """An installed file that is no program; skips visibly without it, fails under CI=true."""
    if not path.is_file():
        _absent(f"{path.name} is not installed")
    return path


def _absent(what: str) -> None:
    if CI:
        pytest.fail(f"{what}, and CI must not skip")
    pytest.skip(what)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How hard the kill test tries; the defaults are the slice that every run affords."""
    group = parser.getgroup("torture")
    group.addoption("--images", type=int, default=12, help="images that stream in")
    group.addoption("--kills", type=int, default=2, help="kills of the node, and of workers")
    group.addoption("--seed", type=int, default=1, help="of the moments at which it kills")
    group.addoption("--every-step", action="store_true", help="crash points: all, both ways")
    group = parser.getgroup("validators")
    group.addoption("--films", type=int, default=6, help="films of the shared data to be judged")
    group.addoption(
        "--every-file", action="store_true", help="judge the results of every shared DICOM file"
    )
