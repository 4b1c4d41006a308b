"""A real node process for tests: started, killed, started again on the same port and data."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import psutil

AE_TITLE = "COVIDNET"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Any, deadline_s: float, what: str) -> Any:
    """Ask a foreign process again and again; there is no event to wait for."""
    end = monotonic() + deadline_s
    while monotonic() < end:
        found = holds()
        if found:
            return found
        sleep(0.05)
    raise AssertionError(f"waited {deadline_s} s for {what}")


class NodeProcess:
    """`covidnet-node serve` with a configuration and a data folder of its own."""

    def __init__(self, folder: Path, destinations: list[dict[str, Any]], **tables: Any) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.http = free_port()
        self.config = folder / "node.toml"
        self.log = folder / "node.log"
        settings: dict[str, dict[str, Any]] = {
            "node": {"ae_title": AE_TITLE, "data": str(self.data)},
            "receive": {"address": "127.0.0.1", "port": self.port, "low_disk_mib": 1},
            "analyze": {"device": "cpu"},
            "deliver": {"first_pause_s": 0.2, "longest_pause_s": 1.0},
            "http": {"port": self.http},
        }
        for name, table in tables.items():
            settings.setdefault(name, {}).update(table)
        self.config.write_text(to_toml(settings, destinations))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "NodeProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "covidnet_node", "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        wait_until(lambda: self.answers("/healthz"), 60, f"the node to listen; see {self.log}")
        if ready:
            wait_until(lambda: self.answers("/readyz"), 120, f"the node to be ready; {self.log}")
        return self

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children()
            return [c for c in children if "covidnet_node.service.analyzing" in c.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def answers(self, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the node ended: {self.log.read_text()[-3000:]}"
        try:
            self.get(path)
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def cases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/api/cases?limit=1000"))
        return found

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another `covidnet-node` command on the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "covidnet_node", *words, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def lines(self) -> list[dict[str, Any]]:
        """The log, parsed."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.kill()
        for child in children:
            if child.is_running():
                child.kill()


@contextmanager
def running_node(
    folder: Path, destinations: list[dict[str, Any]], **tables: Any
) -> Iterator[NodeProcess]:
    """A started, ready node; killed with its workers when the block is left."""
    with NodeProcess(folder, destinations, **tables) as node:
        yield node.start()


def to_toml(tables: dict[str, dict[str, Any]], destinations: list[dict[str, Any]]) -> str:
    """JSON values happen to be TOML values for what a test configures."""
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    for destination in destinations:
        lines.append("[[destination]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in destination.items()]
    return "\n".join(lines) + "\n"
