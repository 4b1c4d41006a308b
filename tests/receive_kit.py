"""What the receiver's tests share: a receiver of its own, made-up images, a quick way to send."""

import os
import threading
import zlib
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, generate_uid

from covidnet_node.audit.events import Event
from covidnet_node.config import Config, Node, Receive
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.receive.scp import Receiver
from tests.raw_client import ASSOCIATE_AC, BIG, CR, DEFLATED, EXPLICIT, IMPLICIT, RawClient

PATIENCE = 20


class Site:
    """A receiver with a journal and a spool of its own."""

    def __init__(self, folder: Path, **receive: object) -> None:
        settings = {"address": "127.0.0.1", "port": 0, "low_disk_mib": 0, "max_object_mib": 1}
        settings["request_timeout_s"] = 2
        self.config = Config(
            node=Node(data=folder), receive=Receive.model_validate(settings | receive)
        )
        self.journal = Journal.open(folder / "journal.sqlite")
        self.spool = Spool(folder / "spool")
        self.woken = threading.Semaphore(0)
        self.events: list[Event] = []
        """What went into the audit trail."""
        self.receiver = Receiver(
            self.config,
            self.journal,
            self.spool,
            admitted=self.woken.release,
            record=self.events.append,
        )
        self.receiver.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    def client(self, *contexts: tuple[str, tuple[str, ...]]) -> RawClient:
        """A client with an association, by default for CR."""
        client = RawClient(self.address)
        assert client.associate(*(contexts or ((CR, (EXPLICIT,)),))) == ASSOCIATE_AC
        return client

    def files(self) -> list[Path]:
        """All files of the spool."""
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def rejected(self) -> set[tuple[str, str]]:
        return {(row.what, row.detail) for row in self.journal.rejections()}


def image(**changes: object) -> Dataset:
    """A small adult's chest radiograph."""
    dataset = Dataset()
    plain = {
        "SOPClassUID": CR,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "PatientName": "Secret^Name",
        "PatientAge": "045Y",
        "ViewPosition": "PA",
        "Rows": 300,
        "Columns": 300,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": os.urandom(300 * 300),
    }
    for keyword, value in (plain | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB"
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes as they travel."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == IMPLICIT
    buffer.is_little_endian = syntax != BIG
    if UID(syntax).is_compressed and syntax != DEFLATED:
        dataset["PixelData"].value = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
    write_dataset(buffer, dataset)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(buffer.getvalue()) + packer.flush()
    return buffer.getvalue()


def send(site: Site, dataset: Dataset, syntax: str = EXPLICIT) -> int | None:
    """Send one data set on an association of its own."""
    with site.client((dataset.SOPClassUID, (syntax,))) as client:
        data = encoded(dataset, syntax)
        status = client.store(dataset.SOPClassUID, dataset.SOPInstanceUID, data)
        client.release()
    return status


def counted(site: Site, name: str) -> int:
    return dict(site.journal.counters()).get(name, 0)
