"""One object that is ready to be sent, and what its file is called."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from covidnet_node.case import Result, ResultKind


@dataclass(frozen=True, slots=True)
class Finished:
    """One object that has passed the gate, as the bytes of its file."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    transfer_syntax_uid: str
    data: bytes

    def at(self, path: Path) -> Result:
        """The same object once its bytes lie at `path`."""
        return Result(
            kind=self.kind,
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            series_uid=self.series_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            path=path,
            sha256=hashlib.sha256(self.data).hexdigest(),
        )


def form_of(sop_instance_uid: str) -> str:
    """A name for the file of an object that has others of its kind beside it."""
    return hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:12]
