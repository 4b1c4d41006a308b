"""A PACS for the length of a demonstration: Orthanc if it is installed, else a storage SCP."""

import json
import shutil
import socket
import subprocess
import threading
import urllib.request
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

AE_TITLE = "DEMOPACS"
STARTING_S = 30.0


class Pacs(Protocol):
    """What the demonstration needs of a PACS."""

    name: str
    port: int

    def stored(self) -> list[Dataset]:
        """Every object it holds."""
        ...

    def __enter__(self) -> "Pacs": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def throw_away_pacs(folder: Path) -> Pacs:
    """Orthanc with its files under `folder`, or a storage SCP that keeps them in memory."""
    program = shutil.which("Orthanc")
    return OrthancPacs(program, folder) if program else StoragePacs()


class StoragePacs:
    """A pynetdicom storage SCP."""

    def __init__(self) -> None:
        self.name = "pynetdicom storage SCP"
        self.port = 0
        self._files: list[bytes] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "StoragePacs":
        ae = AE(AE_TITLE)
        ae.supported_contexts = AllStoragePresentationContexts
        ae.add_supported_context(Verification)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._keep)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        if server is None:
            raise RuntimeError("pynetdicom returns a server when it does not block")
        self._server = server
        self.port = self._server.server_address[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()

    def stored(self) -> list[Dataset]:
        """Every object it holds."""
        with self._lock:
            return [dcmread(BytesIO(data)) for data in self._files]

    def _keep(self, event: evt.Event) -> int:
        with self._lock:
            self._files.append(event.encoded_dataset())
        return 0x0000


class OrthancPacs:
    """Debian's Orthanc on free loopback ports, ended with the demonstration."""

    def __init__(self, program: str, folder: Path) -> None:
        self.name = "Orthanc"
        self.port = free_port()
        self._http = free_port()
        self._program = program
        self._folder = folder / "orthanc"

    def __enter__(self) -> "OrthancPacs":
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "orthanc.json"
        settings.write_text(
            json.dumps(
                {
                    "Name": AE_TITLE,
                    "DicomAet": AE_TITLE,
                    "DicomPort": self.port,
                    "HttpPort": self._http,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "StorageDirectory": str(self._folder / "db"),
                    "IndexDirectory": str(self._folder / "db"),
                    "DicomAlwaysAllowStore": True,
                    "Plugins": [],
                }
            )
        )
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program found on PATH
                [self._program, str(settings)], stdout=log, stderr=log
            )
        end = monotonic() + STARTING_S
        while not self._answers():
            if self._process.poll() is not None or monotonic() > end:
                self._process.kill()
                raise RuntimeError(f"Orthanc did not start; see {self._folder}/orthanc.log")
            sleep(0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    def stored(self) -> list[Dataset]:
        """Every object it holds."""
        ids: list[str] = json.loads(self._get("/instances"))
        return [dcmread(BytesIO(self._get(f"/instances/{each}/file"))) for each in ids]

    def _answers(self) -> bool:
        try:
            self._get("/system")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self._http}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            body: bytes = answer.read()
            return body


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
