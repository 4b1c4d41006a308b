"""A scripted PACS on a loopback port: accepts, warns, refuses, hangs, aborts, and remembers.

It outlives restarts of the node, and counts how often each SOP Instance UID arrived.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

AE_TITLE = "FAKEPACS"
HANG, ABORT, CLOSE = "hang", "abort", "close"
Step = int | str


@dataclass(frozen=True)
class Arrived:
    """One C-STORE that was answered with a status that counts as stored."""

    uid: str
    sop_class: str
    data: bytes
    """The encoded data set, without file meta."""
    file: bytes
    calling_ae: str

    def dataset(self) -> Dataset:
        return dcmread(BytesIO(self.file))


class FakePacs:
    """Answers the n-th C-STORE by the n-th step of its script, and 0000 after its end.

    A step is a DICOM status, or HANG (until `release`), ABORT (the association) or CLOSE (the
    socket, without a word).
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        *,
        port: int = 0,
        classes: Iterable[str] | None = None,
        require_called_ae: bool = False,
    ) -> None:
        self._script = list(script)
        self._classes = list(classes) if classes is not None else None
        self._require_called_ae = require_called_ae
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server: ThreadedAssociationServer | None = None
        self.port = port
        self.arrived: list[Arrived] = []
        self.proposed: list[list[tuple[str, tuple[str, ...]]]] = []
        self.attempts = 0

    def __enter__(self) -> "FakePacs":
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Listen; after `close` again on the same port."""
        ae = AE(AE_TITLE)
        ae.require_called_aet = self._require_called_ae
        ae.maximum_associations = 50
        if self._classes is None:
            ae.supported_contexts = AllStoragePresentationContexts
        else:
            ae.supported_contexts = [build_context(each) for each in self._classes]
        ae.add_supported_context(Verification)
        server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._note)],
        )
        assert server is not None
        self._server = server
        self.port = server.server_address[1]

    def close(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def release(self) -> None:
        """Let what hangs go on."""
        self._released.set()

    def destination(self, name: str = "pacs") -> dict[str, object]:
        """As a [[destination]] table."""
        return {"name": name, "ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.port}

    def wait_for(self, count: int, deadline_s: float) -> list[Arrived]:
        """Return once `count` different instances have arrived."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.times()) >= count, deadline_s)
            found = len(self.times())
            assert done, f"{found} of {count} instances arrived in {deadline_s} s"
            return list(self.arrived)

    def wait_for_attempts(self, count: int, deadline_s: float) -> None:
        """Return once C-STORE was asked `count` times."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.attempts >= count, deadline_s)

    def times(self) -> Counter[str]:
        """How often each SOP Instance UID arrived."""
        return Counter(arrived.uid for arrived in self.arrived)

    def _note(self, event: evt.Event) -> None:
        primitive = event.assoc.requestor.primitive
        contexts = primitive.presentation_context_definition_list
        self.proposed.append(
            [(str(c.abstract_syntax), tuple(map(str, c.transfer_syntax))) for c in contexts]
        )

    def _store(self, event: evt.Event) -> int:
        with self._changed:
            step: Step = (
                self._script[self.attempts] if self.attempts < len(self._script) else 0x0000
            )
            self.attempts += 1
            self._changed.notify_all()
        if step == HANG:
            self._released.wait(60)
            step = 0x0000
        elif step == ABORT:
            event.assoc.abort()
            return 0xC000
        elif step == CLOSE:
            event.assoc.dul.socket.close()
            return 0xC000
        assert isinstance(step, int)
        if step in (0x0000, 0xB000, 0xB006, 0xB007):
            self._keep(event)
        return step

    def _keep(self, event: evt.Event) -> None:
        arrived = Arrived(
            uid=str(event.request.AffectedSOPInstanceUID),
            sop_class=str(event.request.AffectedSOPClassUID),
            data=event.encoded_dataset(include_meta=False),
            file=event.encoded_dataset(),
            calling_ae=event.assoc.requestor.ae_title,
        )
        with self._changed:
            self.arrived.append(arrived)
            self._changed.notify_all()
