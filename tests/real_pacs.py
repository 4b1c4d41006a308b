"""Real servers for tests: Debian's Orthanc and dcmtk's storescp, on free loopback ports."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any
from uuid import uuid4

from pydicom import dcmread
from pydicom.dataset import Dataset

from covidnet_node.associate import Target
from covidnet_node.deliver import echo
from tests.node import free_port, wait_until

DICOM_WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

TRIES = 3
"""A port that was free a moment ago may be taken by the time the server binds it."""


class Server:
    """A foreign process that listens on ports found free, or is started again on others."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.port = 0
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The words to start it with, on new ports."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is this server that listens."""
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdout=log, stderr=log, cwd=self.folder
                )
            end = monotonic() + 30
            while self.process.poll() is None and monotonic() < end:
                if self.answers():
                    return
                sleep(0.05)
            self.stop()
        raise AssertionError(f"{self.program} did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Orthanc(Server):
    """Orthanc with a database of its own, no password, no plug-ins unless asked for.

    What is set on it takes effect at `start`; a started one has `port` and `http`.
    """

    ae_title = "ORTHANC"

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program, folder / "orthanc")
        self.http = 0
        self.modalities: dict[str, list[str | int]] = {}
        """Symbolic name to AE title, host, port."""
        self.scripts: list[Path] = []
        self.plugins: list[Path] = []
        self.settings: dict[str, Any] = {}
        """Further keys of orthanc.json."""
        self._name = uuid4().hex

    def command(self) -> list[str]:
        self.port, self.http = free_port(), free_port()
        settings = {
            "Name": self._name,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "DicomModalities": self.modalities,
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "OverwriteInstances": False,
            "LuaScripts": [str(each) for each in self.scripts],
            "Plugins": [str(each) for each in self.plugins],
        } | self.settings
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(settings, indent=1))
        return [self.program, str(path)]

    def answers(self) -> bool:
        try:
            return bool(self.json("/system")["Name"] == self._name)
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def put(self, path: str, body: bytes, method: str = "PUT") -> Any:
        url = f"http://127.0.0.1:{self.http}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read() or b"null")

    def add_modality(self, name: str, ae_title: str, port: int) -> None:
        """As in DicomModalities, while it runs."""
        self.put(f"/modalities/{name}", json.dumps([ae_title, "127.0.0.1", port]).encode())

    def upload(self, file: bytes) -> None:
        """Store over HTTP, as an administrator's drag and drop would."""
        self.put("/instances", file, "POST")

    def files(self) -> list[bytes]:
        """Every stored object, as the file Orthanc keeps."""
        return [self.get(f"/instances/{each}/file") for each in self.json("/instances")]

    def stored(self) -> list[Dataset]:
        return [dcmread(BytesIO(each)) for each in self.files()]

    def wait_for(
        self, holds: Callable[[list[Dataset]], bool], what: str, deadline_s: float = 30
    ) -> list[Dataset]:
        """Ask until the predicate holds over all stored objects."""

        def look() -> list[Dataset]:
            stored = self.stored()
            return stored if holds(stored) else []

        found: list[Dataset] = wait_until(look, deadline_s, what)
        return found


class WebOrthanc(Orthanc):
    """Orthanc with its DICOMweb plug-in, which Debian packages apart."""

    def __init__(self, program: str, folder: Path, plugin: Path) -> None:
        super().__init__(program, folder)
        self.plugins = [plugin]
        self.settings = {"DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"


class Storescp(Server):
    """dcmtk's storescp; keeps every data set byte for byte."""

    ae_title = "DCMTKSCP"

    def command(self) -> list[str]:
        self.port = free_port()
        words = [self.program, "--bit-preserving", "--accept-all", "--unique-filenames"]
        return [*words, "-aet", self.ae_title, "-od", str(self.folder), str(self.port)]

    def answers(self) -> bool:
        return echo(Target(self.ae_title, "127.0.0.1", self.port, 2, 2), "TEST") is None

    def files(self) -> list[Path]:
        return [each for each in self.folder.iterdir() if each != self.log]


def dcmtk_program(name: str) -> str | None:
    """Path of a dcmtk program; pynetdicom installs others of the same names."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder)
        if found is None:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, check=False, timeout=20)
        if said.stdout.startswith(b"$dcmtk"):
            return found
    return None
