"""Asks for C-ECHO all along, from a process of its own, and writes down how long each took.

`python -m torture.prober PORT FILE`: one line a probe, `started seconds machine` (POSIX time;
seconds are nan where no answer came; machine is what a byte to a sleeping process and back took
just before). An association of its own each time, as a PACS that checks would make it.
"""

import struct
import subprocess
import sys
import time
from pathlib import Path

from tests.raw_client import (
    ASSOCIATE_AC,
    COMMAND,
    IMPLICIT,
    LAST,
    VERIFICATION,
    RawClient,
    padded,
)

PAUSE_S = 0.4
DEADLINE_S = 20.0
_ELEMENTS = (
    (0x0002, padded(VERIFICATION)),
    (0x0100, b"\x30\x00"),
    (0x0110, b"\x01\x00"),
    (0x0800, b"\x01\x01"),
)
ECHO = b"".join(struct.pack("<HHL", 0, tag, len(raw)) + raw for tag, raw in _ELEMENTS)
"""A C-ECHO-RQ (PS3.7 9.3.5.1)."""


def probe(port: int) -> float:
    """Seconds from the first SYN to the C-ECHO-RSP; nan without one."""
    started = time.monotonic()
    try:
        with RawClient(("127.0.0.1", port), DEADLINE_S) as client:
            if client.associate((VERIFICATION, (IMPLICIT,)), calling="PROBE") != ASSOCIATE_AC:
                return float("nan")
            client.fragment(ECHO, COMMAND | LAST)
            if client.status() != 0:
                return float("nan")
            took = time.monotonic() - started
            client.release()
    except (OSError, AssertionError):
        return float("nan")
    return took


def main() -> None:
    """Until killed."""
    port, file = int(sys.argv[1]), Path(sys.argv[2])
    mirror = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    with file.open("a", buffering=1) as lines:
        while True:
            machine = wake(mirror)
            started = time.time()
            lines.write(f"{started} {probe(port)} {machine}\n")
            time.sleep(PAUSE_S)


def wake(mirror: subprocess.Popen[bytes]) -> float:
    """Seconds for one byte there and back."""
    assert mirror.stdin is not None
    assert mirror.stdout is not None
    started = time.monotonic()
    mirror.stdin.write(b".")
    mirror.stdout.read(1)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
