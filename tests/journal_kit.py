"""What the journal's tests share: made-up objects and a journal with its spool."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from covidnet_node.case import (
    Admission,
    Case,
    Claim,
    InstanceKey,
    Outcome,
    Owed,
    Received,
    Result,
    ResultKind,
)
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.journal.transitions import Cause

NOW = datetime(2026, 11, 23, 0, 33, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LEASE = timedelta(minutes=4)
ANSWER = (ResultKind.REPORT, ResultKind.HEATMAP)
OURS = Admission(admitted=True, reason=None)


def received(instance: str = "1", content: str = "a") -> Received:
    """One object; the same `instance` is the same key, the same `content` the same bytes."""
    return Received(
        key=InstanceKey("1.2.3", "1.2.3.4", f"1.2.3.4.{instance}"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="ROUTER",
        called_ae="COVIDNET",
        peer="127.0.0.1",
        received_at=NOW,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        size=1234,
    )


def keep(spool: Spool, case_id: str, dataset: Dataset) -> Received:
    """Put an image into the spool, as if it had been received."""
    path, file = spool.incoming()
    with file:
        dcmwrite(file, dataset, enforce_file_format=True)
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    spool.keep(path, case_id)
    return replace(received(), sha256=hashlib.sha256(whole[start:]).hexdigest(), size=len(whole))


@dataclass(frozen=True, slots=True)
class Desk:
    """A journal and its spool."""

    journal: Journal
    spool: Spool

    def admit(self, instance: str = "1", content: str = "a", now: datetime = NOW) -> Case:
        """An admitted case with its file."""
        case_id = new_case_id(now)
        temporary, file = self.spool.incoming()
        with file:
            file.write(content.encode())
        self.spool.keep(temporary, case_id)
        return self.journal.admit(case_id, received(instance, content), OURS, now)

    def claim(self, now: datetime = NOW, owner: str = "node/1") -> Claim:
        """The next case."""
        (claim,) = self.journal.claim(owner, 1, LEASE, now)
        return claim

    def result(self, case_id: str, kind: ResultKind = ResultKind.REPORT) -> Result:
        """A result with its file."""
        data = f"{kind} of {case_id}".encode()
        return Result(
            kind=kind,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
            sop_instance_uid=f"2.25.{int.from_bytes(hashlib.sha256(data).digest()[:8], 'big')}",
            series_uid="2.25.7",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=self.spool.write_result(case_id, kind, data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def report(self, claim: Claim, *destinations: str, now: datetime = NOW, **more) -> Case:
        """Answer a claim with report and heatmap."""
        owed = [Owed(self.result(claim.case.id, kind), destinations) for kind in ANSWER]
        return self.journal.report(claim, Outcome.ANALYZED, None, "", owed, now, **more)

    def deliver(self, destination: str, now: datetime = NOW) -> None:
        """Deliver all that a destination is owed."""
        for delivery in self.journal.due_deliveries(destination, now, 100):
            self.journal.delivered(delivery.id, now, "0000")


def open_desk(folder: Path) -> Desk:
    """A journal and its spool in a folder."""
    return Desk(Journal.open(folder / "journal.db"), Spool(folder / "spool"))


def causes(desk: Desk, case_id: str) -> list[Cause]:
    """Why a case went each of its steps, oldest first."""
    return [line.cause for line in desk.journal.history(case_id)]
