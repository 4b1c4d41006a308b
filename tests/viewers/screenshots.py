"""`make screenshots`: what OHIF shows of a phantom's results, as PNG files in docs/.

Everything is real: the phantom goes by C-STORE to a node, the results into Orthanc, and a headless
Chromium opens the study in OHIF.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from pydicom import dcmwrite
from rich.console import Console

from covidnet_node.demo.run import send_image
from covidnet_node.phantom.film import phantom_dataset
from tests.node import running_node, wait_until
from tests.real_pacs import DICOM_WEB_PLUGIN, Orthanc
from tests.viewers.ohif import Ohif, fetch_ohif

SIZE = {"width": 1400, "height": 900}
BROWSER_OPTIONS = [
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

PICTURES = {
    "AI heatmap": "ohif-heatmap",
    "AI report": "ohif-report",
    "AI map": "ohif-evidence-map",
}
"""Words of a series description to the picture's name."""

NO_TOUR = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"
"""OHIF's guided tour of its own buttons would lie over the picture."""


def main(folder: Path, pages: Path) -> None:
    """Write a picture of heatmap, report and evidence map each into `folder`."""
    console = Console(stderr=True)
    program = shutil.which("Orthanc")
    if program is None or not DICOM_WEB_PLUGIN.is_file():
        raise SystemExit("Orthanc with its DICOMweb plug-in is needed")
    built = fetch_ohif(pages)
    with tempfile.TemporaryDirectory(prefix="covidnet-viewers-") as scratch:
        orthanc = Orthanc(program, Path(scratch))
        orthanc.plugins = [DICOM_WEB_PLUGIN]
        orthanc.settings = {"DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
        with orthanc:
            study = _answered_study(Path(scratch), orthanc, console)
            with Ohif(built, orthanc.http) as ohif:
                _photograph(f"{ohif.url}/viewer?StudyInstanceUIDs={study}", folder, console)


def _answered_study(scratch: Path, orthanc: Orthanc, console: Console) -> str:
    """Study UID of a phantom that is in Orthanc together with report, heatmap, outlines and map."""
    image = phantom_dataset(2, opacity="diffuse", modality="DX")
    # A place in the patient, as few detectors tell it: without it there is no evidence map.
    image.FrameOfReferenceUID = "2.25.902"
    image.PositionReferenceIndicator = ""
    image.ImagePositionPatient = ["0", "0", "0"]
    image.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    image.PixelSpacing = ["0.4", "0.4"]
    file = scratch / "phantom.dcm"
    dcmwrite(file, image, enforce_file_format=True)
    orthanc.put("/instances", file.read_bytes(), "POST")
    pacs = {
        "name": "pacs",
        "ae_title": orthanc.ae_title,
        "host": "127.0.0.1",
        "port": orthanc.port,
        "results.contours": True,
        "results.evidence_map": True,
    }
    (scratch / "node").mkdir()
    with running_node(scratch / "node", [pacs]) as node:
        console.print("The node is ready")
        send_image(image, node.port)
        wait_until(lambda: len(orthanc.json("/instances")) >= 5, 300, "four results")
    return str(image.StudyInstanceUID)


def _photograph(url: str, folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[*BROWSER_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.add_init_script(NO_TOUR)
        page.set_default_timeout(180_000)
        page.goto(url)
        for words, name in PICTURES.items():
            _open(page, words)
            page.screenshot(path=folder / f"{name}.png")
            console.print(f"{folder}/{name}.png")
        browser.close()


def _open(page: Page, words: str) -> None:
    """Show the series whose description holds the words in the viewport."""
    thumbnail = page.get_by_text(words).first
    thumbnail.wait_for()
    thumbnail.dblclick()
    page.wait_for_load_state("networkidle")
    # OHIF draws after its last request and says nothing when it is done.
    page.wait_for_timeout(6_000)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
