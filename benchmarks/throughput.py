"""`make bench`: how fast the node takes images in and answers them, beside dcmtk.

Receiving: dcmtk's storescu sends the same images over one association to the node and to dcmtk's
storescp, in turn; the figure is the ratio. Answering: seconds from C-STORE Success to both
results stored back, one image at a time. Absolute figures depend on the machine; quote ratios.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from covidnet_node.demo.pacs import StoragePacs, free_port
from covidnet_node.demo.run import NODE_AE, send_image, started_node, wait_until_ready
from covidnet_node.phantom.film import phantom_dataset

console = Console()


def main() -> int:
    """Measure, print one table; 69 when dcmtk is not installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20, help="images of one receiving round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2560)
    parser.add_argument("--columns", type=int, default=2048)
    wanted = parser.parse_args()
    programs = {name: dcmtk(name) for name in ("storescu", "storescp")}
    if None in programs.values():
        console.print("dcmtk is not installed; nothing was measured")
        return 69
    with ExitStack() as parts, StoragePacs() as pacs:
        scratch = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="covidnet-bench-")))
        node = parts.enter_context(started_node(scratch, pacs))
        wait_until_ready(node, console)
        storescp = start_storescp(str(programs["storescp"]), scratch / "storescp")
        parts.callback(storescp.process.terminate)
        answer_seconds = [time_one_answer(pacs, node.port, seed) for seed in range(1, 6)]
        ratios, rates = [], []
        for number in range(wanted.rounds):
            files = write_images(scratch / f"round{number}", wanted)
            ours = time_storescu(str(programs["storescu"]), node.port, files)
            theirs = time_storescu(str(programs["storescu"]), storescp.port, files)
            ratios.append(ours / theirs)
            rates.append(wanted.images / ours)
    table = Table("what", "figure")
    megabytes = wanted.rows * wanted.columns * 2 / 1e6
    table.add_row(
        f"receiving, {megabytes:.0f} MB images, seconds relative to dcmtk storescp",
        f"{statistics.median(ratios):.2f} (of {len(ratios)} rounds, {min(ratios):.2f} to "
        f"{max(ratios):.2f}); {statistics.median(rates):.1f} images/s, workers busy beside it",
    )
    table.add_row(
        "answering one image, C-STORE Success to both results stored back",
        f"{statistics.median(answer_seconds):.2f} s (of {len(answer_seconds)}, "
        f"{min(answer_seconds):.2f} to {max(answer_seconds):.2f})",
    )
    console.print(table)
    return 0


class Storescp:
    """dcmtk's receiver, which like the node writes what it receives to disk (without fsync)."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port


def dcmtk(name: str) -> str | None:
    """The path of a dcmtk program, past other programs of the same name."""
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"):
        found = shutil.which(name, path=folder)
        if found:
            return found
    return None


def start_storescp(program: str, folder: Path) -> Storescp:
    """Start dcmtk's storescp on a free port."""
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen([program, "-od", str(folder), str(port)])  # noqa: S603
    sleep(0.5)
    return Storescp(process, port)


def write_images(folder: Path, wanted: argparse.Namespace) -> list[str]:
    """The same picture under so many new UIDs."""
    folder.mkdir()
    image = phantom_dataset(1, rows=wanted.rows, columns=wanted.columns)
    files = []
    for number in range(wanted.images):
        image.StudyInstanceUID = generate_uid()
        image.SeriesInstanceUID = generate_uid()
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        files.append(str(path))
    return files


def time_storescu(program: str, port: int, files: list[str]) -> float:
    """Seconds of one storescu that sends all files over one association."""
    started = monotonic()
    command = [program, "-aec", NODE_AE, "127.0.0.1", str(port), *files]
    subprocess.run(command, check=True)  # noqa: S603
    return monotonic() - started


def time_one_answer(pacs: StoragePacs, port: int, seed: int) -> float:
    """Seconds from Success to report and heatmap at the PACS."""
    image = phantom_dataset(500 + seed)
    before = len(pacs.stored())
    started = send_image(image, port)
    while len(pacs.stored()) < before + 2 and monotonic() - started < 60:
        sleep(0.01)
    return monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
