"""The node without its workers, over a PACS that may commit to what it gets."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from pydicom.uid import generate_uid

from covidnet_node.case import DeliveryState, Outcome, Owed, Result, ResultKind, State
from covidnet_node.config import Config
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.receive.commitment import Reports
from covidnet_node.receive.scp import Receiver
from covidnet_node.service.committing import Committer
from covidnet_node.service.delivering import Deliverer
from tests.committing_pacs import CommittingPacs
from tests.journal_kit import Desk
from tests.node import wait_until
from tests.real_pacs import Orthanc

DEADLINE_S = 30.0
NODE_AE = "COVIDNET"
STUDY, SENDER = "1.2.3", "ROUTER"
"""Of the images of `journal_kit`."""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Peer:
    """A PACS in another process."""

    ae_title: str
    port: int


class Site:
    """The node without its workers: listener, delivery and commitment over one journal."""

    def __init__(
        self,
        folder: Path,
        pacs: CommittingPacs | Orthanc | Peer,
        *,
        to_sender: bool = False,
        tls: dict[str, object] | None = None,
        **commitment: object,
    ) -> None:
        target: dict[str, object] = {"name": "pacs", "port": pacs.port, "response_timeout_s": 20}
        fixed = {"ae_title": pacs.ae_title, "host": "127.0.0.1"}
        target |= {"back_to_sender": True} if to_sender else fixed
        target |= {} if tls is None else {"tls": tls}
        target["commitment"] = {"ask": "request", "timeout_s": 600, "wait_s": 5} | commitment
        self.config = Config.model_validate(
            {
                "node": {"ae_title": NODE_AE, "data": folder},
                "receive": {"address": "127.0.0.1", "port": 0, "low_disk_mib": 0},
                "deliver": {"first_pause_s": 0.05, "longest_pause_s": 0.1},
                "destination": [target],
            }
        )
        self.pacs = pacs
        self.desk = Desk(Journal.open(folder / "journal.db"), Spool(folder / "spool"))
        self.journal = self.desk.journal
        self.reports = Reports(self.journal, self.config.destination, now)
        (destination,) = self.config.destination
        self.deliverer = Deliverer(self.config, destination, self.journal, stored=self._stored)
        self.new_committer()
        self.receiver = Receiver(self.config, self.journal, self.desk.spool, reports=self.reports)

    def new_committer(self) -> Committer:
        """A commitment loop, not started."""
        (destination,) = self.config.destination
        committer = Committer(self.config, destination, self.journal, self.reports)
        committer.owed_again = self.deliverer.wake
        self.reports.noted = committer.wake
        self.committer = committer
        return committer

    def _stored(self) -> None:
        self.committer.wake()

    def __enter__(self) -> "Site":
        self.receiver.start()
        host, port = self.receiver.address
        if isinstance(self.pacs, CommittingPacs):
            self.pacs.node = (host, port, NODE_AE)
        for loop in (self.deliverer, self.committer):
            loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        for loop in (self.deliverer, self.committer):
            loop.stop()
        for loop in (self.deliverer, self.committer):
            loop.join(DEADLINE_S)
            assert not loop.is_alive()
        self.receiver.stop(0.1)
        self.journal.close()

    def answer_image(self, number: int = 1) -> str:
        """A case with two results that are owed; returns its id."""
        case = self.desk.admit(str(number), str(number))
        owed = [
            Owed(self._result(case.id, kind), ("pacs",))
            for kind in (ResultKind.HEATMAP, ResultKind.PLAIN)
        ]
        claim = self.desk.claim()
        self.journal.report(claim, Outcome.ANALYZED, None, "", owed, now())
        self.deliverer.wake()
        return case.id

    def _result(self, case_id: str, kind: ResultKind) -> Result:
        image = phantom_dataset(1, rows=16, columns=16)
        image.StudyInstanceUID = STUDY
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data = BytesIO()
        image.save_as(data, enforce_file_format=True)
        return Result(
            kind=kind,
            sop_class_uid=str(image.SOPClassUID),
            sop_instance_uid=str(image.SOPInstanceUID),
            series_uid=str(image.SeriesInstanceUID),
            transfer_syntax_uid=str(image.file_meta.TransferSyntaxUID),
            path=self.desk.spool.write_result(case_id, kind, data.getvalue()),
            sha256=hashlib.sha256(data.getvalue()).hexdigest(),
        )

    def uids(self, case_id: str) -> list[str]:
        return [each.sop_instance_uid for each in self.journal.results(case_id)]

    def states(self, case_id: str) -> list[DeliveryState]:
        return [each.state for each in self.journal.deliveries(case_id)]

    def wait_for(self, case_id: str, state: State = State.DONE) -> None:
        wait_until(lambda: self.journal.case(case_id).state is state, DEADLINE_S, state.value)

    def wait_for_error(self, case_id: str, words: str) -> None:
        wait_until(
            lambda: any(words in each.last_error for each in self.journal.deliveries(case_id)),
            DEADLINE_S,
            words,
        )

    def counted(self, name: str) -> int:
        return dict(self.journal.counters()).get(name, 0)
