"""The systemd unit keeps what docs/security.md says of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "systemd" / "covidnet-node.service"


@pytest.mark.parametrize(
    "line",
    [
        "UMask=0077",
        "StateDirectoryMode=0700",
        "LogsDirectoryMode=0700",
        "LimitCORE=0",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "ProtectProc=invisible",
        "RestrictNamespaces=yes",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
        "RestartPreventExitStatus=78",
    ],
)
def test_what_guards_the_host_and_the_images(line: str) -> None:
    assert line in UNIT.read_text().splitlines()


def test_the_score_is_the_one_that_is_stated() -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        return  # the lines above are what it is made of
    told = subprocess.run(
        [program, "security", "--offline=true", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"exposure level for covidnet-node\.service: (\d+\.\d)", told.stdout)
    if found is None:
        return  # too old to judge a file
    stated = re.search(r"\*\*(\d\.\d) OK\*\*", (ROOT / "docs" / "security.md").read_text())
    assert stated is not None
    # Versions of systemd ask for a little more or less.
    assert abs(float(found[1]) - float(stated[1])) <= 0.3
