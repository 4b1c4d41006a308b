"""`covidnet-node demo`: from nothing to a table of answers and heatmap pictures."""

import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from PIL import Image
from pydicom.dataset import Dataset
from pynetdicom import AE
from rich.console import Console
from rich.table import Table

from covidnet_node.demo.pacs import AE_TITLE, Pacs, free_port, throw_away_pacs
from covidnet_node.intended_use import NOTICE
from covidnet_node.phantom.film import Opacity, phantom_dataset

NODE_AE = "COVIDNET"
STARTING_S = 180.0
ANSWERING_S = 120.0
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

OPACITIES: tuple[Opacity, ...] = ("none", "diffuse", "lobar")


@dataclass(frozen=True, slots=True)
class Node:
    """A node process that was started for the demonstration."""

    port: int
    http: int
    log: Path
    process: "subprocess.Popen[bytes]"


def run_demo(folder: Path, console: Console) -> bool:
    """Run it all; returns whether every image was answered."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="covidnet-demo-") as scratch,
        throw_away_pacs(Path(scratch)) as pacs,
        started_node(Path(scratch), pacs) as node,
    ):
        console.print(f"Node on 127.0.0.1:{node.port}, {pacs.name} on 127.0.0.1:{pacs.port}")
        wait_until_ready(node, console)
        images = [phantom_dataset(seed, opacity=o) for seed, o in enumerate(OPACITIES, 1)]
        sent_at = {str(image.SOPInstanceUID): send_image(image, node.port) for image in images}
        console.print(f"Sent {len(sent_at)} synthetic chest X-rays by C-STORE")
        answered = _wait_for_answers(images, sent_at, pacs, console)
        (folder / "node.log").write_bytes(node.log.read_bytes())
    console.print(_table(images, answered, folder))
    console.print(f"Heatmaps (PNG) and node.log are in {folder}/. {NOTICE}.")
    return all(found.report is not None for found in answered)


@dataclass(slots=True)
class Answered:
    """What the PACS holds for one image."""

    report: Dataset | None = None
    heatmap: Dataset | None = None
    seconds: float | None = None


@contextmanager
def started_node(scratch: Path, pacs: Pacs) -> Iterator[Node]:
    """A real node process with a configuration of its own, stopped by SIGTERM."""
    port, http, log = free_port(), free_port(), scratch / "node.log"
    config = scratch / "node.toml"
    config.write_text(
        f"""
[node]
ae_title = "{NODE_AE}"
data = {json.dumps(str(scratch / "data"))}
[receive]
address = "127.0.0.1"
port = {port}
[http]
port = {http}
[[destination]]
name = "demo-pacs"
ae_title = "{AE_TITLE}"
host = "127.0.0.1"
port = {pacs.port}
"""
    )
    with log.open("wb") as lines:
        process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "covidnet_node", "serve", "--config", str(config)], stderr=lines
        )
    try:
        yield Node(port, http, log, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def wait_until_ready(node: Node, console: Console) -> None:
    """Return once the networks have loaded; raises RuntimeError with the end of the log."""
    end = monotonic() + STARTING_S
    with console.status("Loading the networks"):
        while not _ready(node.http):
            if monotonic() > end or node.process.poll() is not None:
                raise RuntimeError(f"the node is not ready:\n{node.log.read_text()[-2000:]}")
            sleep(0.1)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:
        return False


def send_image(image: Dataset, port: int) -> float:
    """C-STORE one image; returns the moment of its Success."""
    ae = AE("DEMOMODALITY")
    ae.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title=NODE_AE)
    if not association.is_established:
        raise RuntimeError("the node did not accept the association")
    status = association.send_c_store(image)
    association.release()
    if status.get("Status") != 0x0000:
        raise RuntimeError(f"the node answered {status}")
    return monotonic()


def _wait_for_answers(
    images: Sequence[Dataset], sent_at: dict[str, float], pacs: Pacs, console: Console
) -> list[Answered]:
    answers = {str(image.StudyInstanceUID): Answered() for image in images}
    studies = {str(image.StudyInstanceUID): str(image.SOPInstanceUID) for image in images}
    end = monotonic() + ANSWERING_S
    with console.status("Waiting for reports and heatmaps"):
        while monotonic() < end and any(a.heatmap is None for a in answers.values()):
            for stored in pacs.stored():
                answer = answers[str(stored.StudyInstanceUID)]
                if stored.SOPClassUID == SECONDARY_CAPTURE:
                    answer.heatmap = answer.heatmap or stored
                else:
                    answer.report = answer.report or stored
            for study, answer in answers.items():
                if answer.report and answer.heatmap and answer.seconds is None:
                    answer.seconds = monotonic() - sent_at[studies[study]]
            sleep(0.1)
    return list(answers.values())


def _table(images: Sequence[Dataset], answers: Sequence[Answered], folder: Path) -> Table:
    """One row an image; saves each heatmap as a PNG on the way."""
    table = Table("image", "findings", "seconds", "stored back", show_lines=True)
    for image, answer in zip(images, answers, strict=True):
        stored = []
        if answer.report is not None:
            stored.append("report (SR)")
        if answer.heatmap is not None:
            name = str(image.PatientName).replace("^", "-").lower()
            Image.fromarray(answer.heatmap.pixel_array).save(folder / f"{name}.png")
            stored.append("heatmap (SC)")
        table.add_row(
            str(image.PatientName),
            _findings(answer.report) if answer.report else "no answer in time",
            f"{answer.seconds:.1f}" if answer.seconds else "-",
            "\n".join(stored) or "-",
        )
    return table


def _findings(report: Dataset) -> str:
    """The report's conclusion and probabilities, as any viewer would show them."""
    texts = {
        str(item.ConceptNameCodeSequence[0].CodeMeaning): str(item.TextValue)
        for item in report.ContentSequence
        if item.ValueType == "TEXT"
    }
    summary = texts.get("Summary", "no summary in the report")
    told = summary.partition(f"{NOTICE}. ")[2].partition(" Members ")[0] or summary
    return told.replace(" The numbers below are for information.", "").replace(". ", ".\n")
